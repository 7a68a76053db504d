"""The health of the learner, and its metrics.

Ready: a label that comes in now will be used without intervention.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from active_learning.learner import Listener
from store.clock import now_ms
from watch.health import PAUSE_S, ProcessMonitor, State
from watch.metrics import Buckets, ProcessMetrics, labelled, state_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from active_learning.learner import Trial

OUTCOMES: Final = ("promoted", "refused", "overtaken", "failed")
TRAINING_BOUNDS_S: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_200, 3_600, 7_200, 14_400)

_LATE_S: Final = 60.0
"""A look for labels may take this long, or three poll intervals if longer: the database may be slow."""


class Training(NamedTuple):
    """The outcome of a training, its duration in seconds, and when it ended by the monitor's clock."""

    outcome: str
    seconds: float
    at: float


class LearnerMonitor(Listener, ProcessMonitor):
    """Records what the learner does.

    Parameters
    ----------
    poll_s
        Seconds between two looks for new labels.
    clock
        Seconds since an arbitrary moment; never goes back.
    wall_clock_ms
        Milliseconds since 1970 UTC.
    """

    NAME = WORKER = "the learner"
    WORK = (State.LOOKING, State.TRAINING)

    def __init__(
        self,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        super().__init__(clock)
        self._patience_s = max(_LATE_S, 3 * poll_s)
        self._wall_clock_ms = wall_clock_ms
        self._looked: float | None = None
        self._looked_ms: int | None = None
        self._n_new: int | None = None
        self._last: Training | None = None
        self._n: Counter[str] = Counter()
        self._seconds = Buckets(TRAINING_BOUNDS_S)

    # -- what happens --------------------------------------------------------------------------

    def looked(self, n_new: int) -> None:
        """The learner looked for labels: `n_new` objects were labelled since the latest trial."""
        with self._lock:
            self._enter(State.LOOKING)
            self._looked, self._looked_ms, self._n_new = self._told, self._wall_clock_ms(), n_new

    def training(self) -> None:
        """The learner begins to train."""
        with self._lock:
            self._enter(State.TRAINING)

    def tried(self, trial: Trial, seconds: float) -> None:
        """The learner has trained a challenger and compared it with the champion."""
        judged = "overtaken" if trial.gate.passed else "refused"
        with self._lock:
            self._ended("promoted" if trial.promoted else judged, seconds)
            self._enter(State.LOOKING)
            self._n_new = 0

    def failed(self, seconds: float) -> None:
        """Training or comparing failed; the caller that catches the error reports what happens next."""
        with self._lock:
            self._ended("failed", seconds)

    def _ended(self, outcome: str, seconds: float) -> None:
        self._n[outcome] += 1
        self._seconds.add(seconds)
        self._last = Training(outcome, seconds, self._clock())

    # -- what can be read ----------------------------------------------------------------------

    def _faults(self) -> Iterator[str]:
        silent_s = self._clock() - self._told
        if self._state is State.LOOKING and silent_s > self._patience_s:
            yield f"the learner has not looked for new labels for {silent_s:.0f} s"
        if self._state is State.WAITING and silent_s > PAUSE_S + self._patience_s:
            yield f"the learner has not tried again for {silent_s:.0f} s"

    def _facts(self) -> dict[str, Any]:
        now, last = self._clock(), self._last
        return {
            "new_labels": self._n_new,
            "last_look_age_s": None if self._looked is None else round(now - self._looked, 1),
            "last_training": last
            and {
                "outcome": last.outcome,
                "seconds": round(last.seconds, 1),
                "age_s": round(now - last.at, 1),
            },
        }

    def metrics(self) -> Iterator[Metric]:
        """Return the metrics as they are now."""
        with self._lock:
            yield from [*self._trainings(), *self._looks(), *state_metrics("noctule_learner", self)]

    def _trainings(self) -> Iterator[Metric]:
        text = "Trainings, by outcome."
        counts = {outcome: self._n[outcome] for outcome in OUTCOMES}
        yield labelled(CounterMetricFamily, "noctule_learner_trainings", text, "outcome", counts)
        buckets, total = self._seconds.cumulated()
        yield HistogramMetricFamily(
            "noctule_learner_training_seconds",
            "Seconds from reading the labels to the verdict.",
            buckets=buckets,
            sum_value=total,
        )
        if self._last is not None:
            yield GaugeMetricFamily(
                "noctule_learner_last_training_seconds",
                "How long the last training took.",
                value=self._last.seconds,
            )

    def _looks(self) -> Iterator[Metric]:
        if self._looked_ms is not None and self._n_new is not None:
            yield GaugeMetricFamily(
                "noctule_learner_last_look_timestamp_seconds",
                "When the learner last looked for new labels.",
                value=self._looked_ms / 1000,
            )
            yield GaugeMetricFamily(
                "noctule_learner_new_labels",
                "Objects labelled since the latest trial.",
                value=self._n_new,
            )


class LearnerMetrics(ProcessMetrics):
    """All metrics of the learner's process."""

    def __init__(self, monitor: LearnerMonitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as they are now."""
        yield from self._monitor.metrics()
