"""The metrics of the stream process, for Prometheus. Counts start at 0 when the process starts.

Only the driver has metrics: workers send it their figures with their rows (:mod:`stream.report`), so
nothing is shared between processes. What has to survive a restart is computed from the tables by the
portal.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from store.accounting_queries import OUTCOMES
from stream.stages import DRIVER_STAGES, WORKER_STAGES
from stream.versions import Versions
from watch.metrics import Buckets, ProcessMetrics, labelled, state_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from stream.health import Monitor
    from stream.report import BatchReport

STAGE_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
LATENCY_BOUNDS_S: Final = (0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 1_800, 7_200)
BATCH_BOUNDS: Final = (1, 10, 30, 100, 300, 1_000, 2_000, 4_000, 8_000, 16_000, 64_000)


class StreamMetrics(ProcessMetrics):
    """All metrics of the stream process.

    Parameters
    ----------
    monitor
        Its state and lag are reported too.
    slow_batch_s
        A batch that takes longer counts as slow.
    clock
        Seconds since 1970 UTC.
    """

    def __init__(
        self, monitor: Monitor, *, slow_batch_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._monitor = monitor
        self._slow_batch_s = slow_batch_s
        self._clock = clock
        self._lock = threading.Lock()
        self._alerts = dict.fromkeys(OUTCOMES, 0)
        self._n: Counter[str] = Counter()
        stages = (*WORKER_STAGES, *DRIVER_STAGES)
        self._stages = {stage: Buckets(STAGE_BOUNDS_S) for stage in stages}
        self._total = Buckets(STAGE_BOUNDS_S)
        self._latency = Buckets(LATENCY_BOUNDS_S)
        self._early = Buckets(LATENCY_BOUNDS_S)
        self._sizes = Buckets(BATCH_BOUNDS)
        self._last_batch: float | None = None
        self._model_version = ""

    def observe(self, report: BatchReport) -> None:
        """Count a batch; one that was committed before a restart is counted as replayed and not otherwise."""
        counts = report.counts
        with self._lock:
            self._last_batch = self._clock()
            self._model_version = report.model_version or self._model_version
            self._n["slow"] += report.total_s > self._slow_batch_s
            self._total.add(report.total_s)
            for stage, seconds in report.stages_s.items():
                self._stages.setdefault(stage, Buckets(STAGE_BOUNDS_S)).add(seconds)
            if counts.replay:
                self._n["replayed"] += 1
                return
            self._n["new"] += 1
            self._n["lost"] += counts.n_lost
            self._n["requested"] += counts.n_requested
            for outcome in OUTCOMES:
                self._alerts[outcome] += getattr(counts, f"n_{outcome}")
            self._sizes.add(counts.n_read)
            self._latency.add(report.latency_s)
            self._early.add(report.early_latency_s)

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as they are now."""
        with self._lock:
            counted = [*self._counters(), *self._histograms(), *self._model()]
        yield from counted
        yield from self._state()

    def _counters(self) -> Iterator[Metric]:
        text = "Alerts read, by outcome."
        yield labelled(CounterMetricFamily, "noctule_stream_alerts", text, "outcome", self._alerts)
        text = "Batches, new or replayed after a crash; the alerts of a replayed one are not counted again."
        kinds = {kind: self._n[kind] for kind in ("new", "replayed")}
        yield labelled(CounterMetricFamily, "noctule_stream_batches", text, "kind", kinds)
        for name, text, key in (
            (
                "noctule_stream_slow_batches",
                "Batches that took longer than stream.slow_batch_s.",
                "slow",
            ),
            (
                "noctule_stream_lost_offsets",
                "Offsets that Kafka removed before they were read.",
                "lost",
            ),
            ("noctule_stream_label_requests", "Requests for spectra made.", "requested"),
        ):
            yield CounterMetricFamily(name, text, value=self._n[key])

    def _histograms(self) -> Iterator[Metric]:
        stages = HistogramMetricFamily(
            "noctule_stream_stage_seconds", "Seconds per batch, by stage.", labels=["stage"]
        )
        for stage, histogram in self._stages.items():
            stages.add_metric([stage], *histogram.cumulated())
        yield stages
        for name, text, histogram in (
            ("noctule_stream_batch_seconds", "Seconds per batch, first task to last sink.", self._total),
            ("noctule_stream_batch_alerts", "Messages per batch.", self._sizes),
            ("noctule_stream_latency_seconds", "Seconds from Kafka's stamp to committed row.", self._latency),
            ("noctule_stream_early_latency_seconds",
             "Seconds from Kafka's stamp to committed row, for urgent alerts found early.", self._early),
        ):  # fmt: skip
            buckets, total = histogram.cumulated()
            yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)

    def _model(self) -> Iterator[Metric]:
        text = "1 for each model that scored the last batch: one per survey in it."
        now = dict.fromkeys(Versions.parse(self._model_version).by_survey.values(), 1)
        yield labelled(GaugeMetricFamily, "noctule_stream_model_info", text, "version", now)
        if self._last_batch is not None:
            yield GaugeMetricFamily(
                "noctule_stream_last_batch_timestamp_seconds",
                "When the last batch was finished.",
                value=self._last_batch,
            )

    def _state(self) -> Iterator[Metric]:
        waiting, seconds = self._monitor.lag()
        lag = GaugeMetricFamily(
            "noctule_stream_lag_messages",
            "Messages in Kafka that no batch has committed.",
            labels=["topic", "partition"],
        )
        for (topic, partition), n in sorted(waiting.items()):
            lag.add_metric([topic, str(partition)], n)
        yield lag
        if waiting:
            yield GaugeMetricFamily(
                "noctule_stream_lag_seconds", "Age of the oldest waiting message.", value=seconds
            )
        yield from state_metrics("noctule_stream", self._monitor)
        yield CounterMetricFamily(
            "noctule_stream_restarts",
            "How often the query was restarted after an outage.",
            value=self._monitor.n_restarts,
        )
