"""Whether the stream is well, from facts: is there a query, what did it last do, what waits.

Healthy: it works, or waits for something that will come back, and a restart would change nothing.
Ready: alerts that come in now are scored within seconds.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream.lag import Lag, Place
    from stream.report import BatchReport


class State(StrEnum):
    """What the process is about."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Health:
    """The verdict.

    Attributes
    ----------
    healthy, ready
        See the module.
    reasons
        Sentences, why it is not; empty where it is both.
    facts
        What it was judged by.
    """

    healthy: bool
    ready: bool
    reasons: tuple[str, ...]
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the body of ``/healthz`` and ``/readyz``."""
        status = "ok" if self.ready else "not ready" if self.healthy else "unhealthy"
        return {
            "status": status,
            "healthy": self.healthy,
            "ready": self.ready,
            "reasons": list(self.reasons),
            **self.facts,
        }


class Monitor:
    """Gathers the facts; may be told and asked by any thread.

    Parameters
    ----------
    lag
        What waits; this object guards it.
    stalled_s
        A query that has something to read and ends no batch for so long counts as stalled.
    clock
        Seconds from any moment; never goes back.
    """

    def __init__(
        self, lag: Lag, *, stalled_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lag = lag
        self._stalled_s = stalled_s
        self._clock = clock
        self._lock = threading.RLock()
        self._state = State.STARTING
        self._why = "the stream is starting"
        self._since = self._looked = clock()
        self._behind_since: float | None = None
        self._last_batch: tuple[int, float] | None = None
        self._model_version = ""
        self._asked: float | None = None
        self._kafka_problem = ""
        self.n_restarts = 0

    # -- what happens --------------------------------------------------------------------------

    def running(self) -> None:
        """The query was started."""
        with self._lock:
            self.n_restarts += self._state is State.WAITING
            self._enter(State.RUNNING, "")
            self._looked = self._since
            self._behind_since = None
            self._judge_lag()

    def waiting(self, why: str) -> None:
        """The query ended because a service is away; it will be started again."""
        with self._lock:
            self._enter(State.WAITING, why)

    def dead(self, why: str) -> None:
        """The query ended and will not be started again."""
        with self._lock:
            self._enter(State.DEAD, why)

    def stopped(self) -> None:
        """The query was told to end."""
        with self._lock:
            if self._state is not State.DEAD:
                self._enter(State.STOPPED, "the stream was told to stop")

    def _enter(self, state: State, why: str) -> None:
        self._state, self._why, self._since = state, why, self._clock()

    def looked(self, offsets: Mapping[Place, int]) -> None:
        """The query was found active; `offsets` is how far it is."""
        with self._lock:
            self._looked = self._clock()
            self._lag.commit(offsets)
            self._judge_lag()

    def batch(self, report: BatchReport) -> None:
        """A batch is through."""
        with self._lock:
            now = self._clock()
            self._last_batch = (report.batch_id, now)
            if report.model_version:
                self._model_version = report.model_version
            if report.latency_s.size:
                self._lag.handled(now - float(report.latency_s.min()))

    def kafka(self, bounds: Mapping[Place, tuple[int, int]]) -> None:
        """Kafka said what it holds."""
        with self._lock:
            self._asked, self._kafka_problem = self._clock(), ""
            self._lag.see(bounds, self._asked)
            self._judge_lag()

    def kafka_is_away(self, why: str) -> None:
        """Kafka did not say what it holds."""
        with self._lock:
            self._kafka_problem = why

    def _judge_lag(self) -> None:
        if not any(self._lag.messages().values()):
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._clock()

    # -- what is asked -------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the process is about."""
        return self._state

    def lag(self) -> tuple[dict[Place, int], float]:
        """Messages that wait, by (topic, partition), and the age of the oldest in seconds."""
        with self._lock:
            return self._lag.messages(), self._lag.seconds(self._clock())

    def health(self) -> Health:
        """Judge."""
        with self._lock:
            faults = tuple(self._faults())
            obstacles = tuple(self._obstacles())
            return Health(not faults, not (faults or obstacles), faults + obstacles, self._facts())

    def _faults(self) -> list[str]:
        """Return what a restart or a person has to mend."""
        if self._state is State.DEAD:
            return [f"the query is dead: {self._why}"]
        if self._state is not State.RUNNING:
            return []
        found = []
        unseen_s = self._clock() - self._looked
        if unseen_s > self._stalled_s:
            found.append(f"Spark has not answered for {unseen_s:.0f} s")
        stuck_s = self._stuck_s()
        if stuck_s > self._stalled_s:
            n = sum(self._lag.messages().values())
            found.append(
                f"the query is stalled: {n} messages wait and no batch has ended for {stuck_s:.0f} s "
                f"(stream.stalled_s is {self._stalled_s:.0f})"
            )
        return found

    def _stuck_s(self) -> float:
        if self._behind_since is None:
            return 0.0
        last = self._last_batch[1] if self._last_batch else self._since
        return self._clock() - max(self._behind_since, last, self._since)

    def _obstacles(self) -> list[str]:
        """Return what keeps alerts from being scored now, though nothing is broken here."""
        if self._state is State.DEAD:
            return []
        found = [] if self._state is State.RUNNING else [self._why]
        if self._kafka_problem:
            found.append(self._kafka_problem)
        elif self._state is State.RUNNING:
            # Not before it has said so since the query was started: a new try may be in vain, too.
            known = self._asked is not None and self._asked >= self._since
            if not known or self._clock() - (self._asked or 0.0) > self._stalled_s:
                found.append("Kafka has not said what it holds")
        return found

    def _facts(self) -> dict[str, Any]:
        now = self._clock()
        waiting, seconds = self.lag()
        last = self._last_batch
        return {
            "state": str(self._state),
            "state_s": round(now - self._since, 1),
            "last_batch": last and {"batch_id": last[0], "age_s": round(now - last[1], 1)},
            "lag_messages": sum(waiting.values()) if self._asked is not None else None,
            "lag_s": round(seconds, 1) if self._asked is not None else None,
            "model_version": self._model_version or None,
            "restarts": self.n_restarts,
        }
