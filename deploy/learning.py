"""``noctule learn``: the learner, begun anew after an outage, with what is told of it.

Healthy: it looks for labels, trains, or waits for something that will come back.
Ready: a label that comes in now is taken up by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from active_learning.learner import Listener, learn_forever, learn_once
from deploy.live import CONSOLE, PAUSE_S
from deploy.wiring import learner_config, open_store
from lightcurves.errors import UnavailableError
from stream.endpoint import telling
from stream.health import Health
from stream.metrics import Buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from active_learning.learner import Trial
    from deploy.sections import Settings

LOG: Final = logging.getLogger("noctule")

OUTCOMES: Final = ("promoted", "refused", "overtaken", "failed")
TRAINING_BOUNDS_S: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_200, 3_600, 7_200, 14_400)

_LATE_S: Final = 60.0
"""A look may be late by so much, or by two more of its intervals: the database may be slow to answer."""


class State(StrEnum):
    """What the learner is about."""

    STARTING = "starting"
    LOOKING = "looking"
    TRAINING = "training"
    WAITING = "waiting"
    DEAD = "dead"
    STOPPED = "stopped"


class Training(NamedTuple):
    """What a training came to, in how many seconds, and when by the monitor's clock."""

    outcome: str
    seconds: float
    at: float


class LearnerMonitor(Listener):
    """Gathers what the learner does, and judges whether it is well; may be asked by any thread.

    Parameters
    ----------
    poll_s
        Seconds between two looks.
    clock
        Seconds from any moment; never goes back.
    wall_clock
        Seconds since 1970 UTC.
    """

    def __init__(
        self,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._patience_s = max(_LATE_S, 3 * poll_s)
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.RLock()
        self._state = State.STARTING
        self._why = "the learner is starting"
        self._since = self._alive = clock()
        self._looked: float | None = None
        self._looked_at: float | None = None
        self._n_new: int | None = None
        self._last: Training | None = None
        self._n: Counter[str] = Counter()
        self._seconds = Buckets(TRAINING_BOUNDS_S)

    # -- what happens --------------------------------------------------------------------------

    def looked(self, n_new: int) -> None:
        """It looked: so many objects have got a label since the latest trial."""
        with self._lock:
            self._enter(State.LOOKING)
            self._looked, self._looked_at, self._n_new = self._alive, self._wall_clock(), n_new

    def training(self) -> None:
        """It begins to train."""
        with self._lock:
            self._enter(State.TRAINING)

    def tried(self, trial: Trial, seconds: float) -> None:
        """It has trained and compared."""
        judged = "overtaken" if trial.gate.passed else "refused"
        with self._lock:
            self._ended("promoted" if trial.promoted else judged, seconds)
            self._enter(State.LOOKING)
            self._n_new = 0

    def failed(self, seconds: float) -> None:
        """Training or comparing ended by an error; what comes of it is told by whoever catches it."""
        with self._lock:
            self._ended("failed", seconds)

    def waiting(self, why: str) -> None:
        """A service is away; it will try again."""
        with self._lock:
            self._enter(State.WAITING, why)

    def dead(self, why: str) -> None:
        """It ended by an error, and the process with it."""
        with self._lock:
            self._enter(State.DEAD, why)

    def stopped(self) -> None:
        """It was told to end."""
        with self._lock:
            self._enter(State.STOPPED, "the learner was told to stop")

    def _enter(self, state: State, why: str = "") -> None:
        self._alive = self._clock()
        if state is not self._state:
            self._since = self._alive
        self._state, self._why = state, why

    def _ended(self, outcome: str, seconds: float) -> None:
        self._n[outcome] += 1
        self._seconds.add(seconds)
        self._last = Training(outcome, seconds, self._clock())

    # -- what is asked -------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the learner is about."""
        return self._state

    def health(self) -> Health:
        """Judge."""
        with self._lock:
            faults = tuple(self._faults())
            at_work = self._state in {State.LOOKING, State.TRAINING}
            obstacles = () if at_work or self._state is State.DEAD else (self._why,)
            return Health(not faults, not (faults or obstacles), faults + obstacles, self._facts())

    def _faults(self) -> list[str]:
        """Return what a restart or a person has to mend."""
        silent_s = self._clock() - self._alive
        if self._state is State.DEAD:
            return [f"the learner is dead: {self._why}"]
        if self._state is State.LOOKING and silent_s > self._patience_s:
            return [f"the learner has not looked for new labels for {silent_s:.0f} s"]
        if self._state is State.WAITING and silent_s > PAUSE_S + self._patience_s:
            return [f"the learner has not tried again for {silent_s:.0f} s"]
        return []

    def _facts(self) -> dict[str, Any]:
        now, last = self._clock(), self._last
        return {
            "state": str(self._state),
            "state_s": round(now - self._since, 1),
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
        """Return what Prometheus is told, as it is now."""
        with self._lock:
            yield from list(self._trainings())
            yield from list(self._now())

    def _trainings(self) -> Iterator[Metric]:
        trainings = CounterMetricFamily(
            "noctule_learner_trainings", "Trainings, by what came of them.", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            trainings.add_metric([outcome], self._n[outcome])
        yield trainings
        buckets, total = self._seconds.cumulated()
        yield HistogramMetricFamily(
            "noctule_learner_training_seconds",
            "From the first label read to the verdict.",
            buckets=buckets,
            sum_value=total,
        )
        if self._last is not None:
            yield GaugeMetricFamily(
                "noctule_learner_last_training_seconds",
                "How long the last training took.",
                value=self._last.seconds,
            )

    def _now(self) -> Iterator[Metric]:
        if self._looked_at is not None and self._n_new is not None:
            yield GaugeMetricFamily(
                "noctule_learner_last_look_timestamp_seconds",
                "When it last looked for new labels.",
                value=self._looked_at,
            )
            yield GaugeMetricFamily(
                "noctule_learner_new_labels",
                "Objects with a label that the latest trial did not have.",
                value=self._n_new,
            )
        state = GaugeMetricFamily(
            "noctule_learner_state", "1 for what the learner is about.", labels=["state"]
        )
        for each in State:
            state.add_metric([each], each is self._state)
        yield state
        health = self.health()
        for name, text, value in (
            ("noctule_learner_healthy", "What /healthz says.", health.healthy),
            ("noctule_learner_ready", "What /readyz says.", health.ready),
        ):
            yield GaugeMetricFamily(name, text, value=int(value))

    @contextmanager
    def until_death(self) -> Iterator[None]:
        """Take note of what ends the block."""
        try:
            yield
        except Exception as error:
            self.dead(str(error))
            raise


class LearnerMetrics(Collector):
    """All metrics of the learner's process, in a registry of their own."""

    def __init__(self, monitor: LearnerMonitor) -> None:
        self._monitor = monitor
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as they are now."""
        yield from self._monitor.metrics()

    def exposition(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)


def run_learn(settings: Settings, *, once: bool) -> None:
    """Run the learner until it is stopped, or with `once` try once, whatever came in.

    Raises
    ------
    ConfigurationError
        No model, no frozen set, nothing to train on, or the port for metrics is taken.
    UnavailableError
        The database is away at the start; while running, `once` excepted, the learner waits and goes on.
    """
    if once:
        CONSOLE.print(learn_once(open_store(settings), learner_config(settings), force=True))
        return
    learning = settings.learning
    monitor = LearnerMonitor(learning.poll_s)
    with ExitStack() as stack:
        if learning.metrics_port:
            where = (learning.metrics_host, learning.metrics_port)
            stack.enter_context(telling(LearnerMetrics(monitor), monitor, *where, "learning"))
        # No handler for SIGTERM: a training cannot be interrupted, and one that is killed leaves nothing.
        with suppress(KeyboardInterrupt), monitor.until_death():
            _learn_on(settings, monitor)
        monitor.stopped()


def _learn_on(settings: Settings, monitor: LearnerMonitor) -> NoReturn:
    engine, config = open_store(settings), learner_config(settings)
    while True:
        try:
            learn_forever(engine, config, poll_s=settings.learning.poll_s, listener=monitor)
        except UnavailableError as error:
            LOG.warning("%s; trying again in %.0f s", error, PAUSE_S)
            monitor.waiting(str(error))
            time.sleep(PAUSE_S)
