"""The health of the stream: whether its query runs, its last batch, what is waiting.

Ready: alerts that come in now are scored within seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from watch.health import ProcessMonitor, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream.lag import Lag, Place
    from stream.report import BatchReport


class Monitor(ProcessMonitor):
    """Collects the facts about a stream.

    Parameters
    ----------
    lag
        What is waiting; used only under this object's lock.
    stalled_s
        A query that has messages to read and finishes no batch for this long counts as stalled.
    clock
        Seconds since an arbitrary moment; never goes back.
    """

    NAME = "the stream"
    WORKER = "the query"
    WORK = (State.RUNNING,)

    def __init__(
        self, lag: Lag, *, stalled_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock)
        self._lag = lag
        self._stalled_s = stalled_s
        self._looked = self._told
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
            self._enter(State.RUNNING)
            self._looked = self._told
            self._behind_since = None
            self._judge_lag()

    def looked(self, offsets: Mapping[Place, int]) -> None:
        """The query was seen to be active, and has read up to `offsets`."""
        with self._lock:
            self._looked = self._clock()
            self._lag.commit(offsets)
            self._judge_lag()

    def batch(self, report: BatchReport) -> None:
        """A batch was finished."""
        with self._lock:
            now = self._clock()
            self._last_batch = (report.batch_id, now)
            if report.model_version:
                self._model_version = report.model_version
            if report.latency_s.size:
                self._lag.handled(now - float(report.latency_s.min()))

    def kafka(self, bounds: Mapping[Place, tuple[int, int]]) -> None:
        """Kafka reported what it holds."""
        with self._lock:
            self._asked, self._kafka_problem = self._clock(), ""
            self._lag.see(bounds, self._asked)
            self._judge_lag()

    def kafka_is_away(self, why: str) -> None:
        """Kafka could not be queried."""
        with self._lock:
            self._kafka_problem = why

    def _judge_lag(self) -> None:
        if not any(self._lag.messages().values()):
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._clock()

    # -- what can be read ----------------------------------------------------------------------

    def lag(self) -> tuple[dict[Place, int], float]:
        """Waiting messages by (topic, partition), and the age of the oldest in seconds."""
        with self._lock:
            return self._lag.messages(), self._lag.seconds(self._clock())

    def _faults(self) -> Iterator[str]:
        if self._state is not State.RUNNING:
            return
        unseen_s = self._clock() - self._looked
        if unseen_s > self._stalled_s:
            yield f"Spark has not answered for {unseen_s:.0f} s"
        stuck_s = self._stuck_s()
        if stuck_s > self._stalled_s:
            n = sum(self._lag.messages().values())
            yield (
                f"the query is stalled: {n} messages wait and no batch has finished for {stuck_s:.0f} s "
                f"(stream.stalled_s is {self._stalled_s:.0f})"
            )

    def _stuck_s(self) -> float:
        if self._behind_since is None:
            return 0.0
        last = self._last_batch[1] if self._last_batch else self._told
        return self._clock() - max(self._behind_since, last, self._told)

    def _obstacles(self) -> Iterator[str]:
        yield from super()._obstacles()
        if self._kafka_problem:
            yield self._kafka_problem
        elif self._state is State.RUNNING:
            # Only once Kafka has answered since the query was started: this start may fail, too.
            known = self._asked is not None and self._asked >= self._told
            if not known or self._clock() - (self._asked or 0.0) > self._stalled_s:
                yield "Kafka has not answered which offsets it holds"

    def _facts(self) -> dict[str, Any]:
        waiting, seconds = self.lag()
        last = self._last_batch
        return {
            "last_batch": last
            and {"batch_id": last[0], "age_s": round(self._clock() - last[1], 1)},
            "lag_messages": sum(waiting.values()) if self._asked is not None else None,
            "lag_s": round(seconds, 1) if self._asked is not None else None,
            "model_version": self._model_version or None,
            "restarts": self.n_restarts,
        }
