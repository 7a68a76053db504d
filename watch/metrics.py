"""Metrics for Prometheus: the text format, and what all processes count and report alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike
    from prometheus_client import Metric

    from watch.health import ProcessMonitor

Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


class Buckets:
    """A histogram to which all values of a batch are added at once.

    Parameters
    ----------
    bounds
        Upper bounds of the buckets, inclusive, in ascending order.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds, np.float64)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0

    def add(self, values: ArrayLike) -> None:
        """Count values; NaN counts in the last bucket alone, and not in the sum."""
        given = np.atleast_1d(np.asarray(values, np.float64))
        at = np.searchsorted(self._bounds, given, side="left")
        self._counts += np.bincount(at, minlength=len(self._counts))
        self._sum += float(np.nansum(given))

    def cumulated(self) -> tuple[list[tuple[str, float]], float]:
        """Return Prometheus' buckets, and the sum of the values."""
        names = [*map(str, self._bounds.tolist()), "+Inf"]
        return list(zip(names, np.cumsum(self._counts).tolist(), strict=True)), self._sum


def exposition(*collectors: Collector) -> bytes:
    """Return the text that Prometheus reads, of these collectors and nothing else in the process."""
    registry = CollectorRegistry(auto_describe=False)
    for each in collectors:
        registry.register(each)
    return generate_latest(registry)


class ProcessMetrics(Collector):
    """The metrics of a process; the text includes the standard ``process_*`` ones."""

    def exposition(self) -> bytes:
        """Return the text that Prometheus reads."""
        return exposition(self, ProcessCollector(registry=None))


def labelled(
    family: type[Family], name: str, text: str, label: str, values: Mapping[str, float]
) -> Family:
    """Return a metric with one value for each value of a label."""
    made = family(name, text, labels=[label])
    for each, value in values.items():
        made.add_metric([each], value)
    return made


def state_metrics(prefix: str, monitor: ProcessMonitor) -> Iterator[Metric]:
    """Return the metrics of what a process is doing and of what its health endpoints answer."""
    now = {str(each): float(each is monitor.state) for each in monitor.states()}
    text = "1 for the state the process is in, 0 for the others."
    yield labelled(GaugeMetricFamily, f"{prefix}_state", text, "state", now)
    health = monitor.health()
    for name, text, value in (
        ("healthy", "1 if /healthz answers 200, else 0.", health.healthy),
        ("ready", "1 if /readyz answers 200, else 0.", health.ready),
    ):
        yield GaugeMetricFamily(f"{prefix}_{name}", text, value=int(value))
