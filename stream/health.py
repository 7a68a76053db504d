"""Whether the stream is well: is there a query, what did it last do, what waits.

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
    """Gathers the facts of a stream.

    Parameters
    ----------
    lag
        What waits; this object guards it.
    stalled_s
        A query that has something to read and ends no batch for so long counts as stalled.
    clock
        Seconds from any moment; never goes back.
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

    def lag(self) -> tuple[dict[Place, int], float]:
        """Messages that wait, by (topic, partition), and the age of the oldest in seconds."""
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
                f"the query is stalled: {n} messages wait and no batch has ended for {stuck_s:.0f} s "
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
            # Not before it has said so since the query was started: a new try may be in vain, too.
            known = self._asked is not None and self._asked >= self._told
            if not known or self._clock() - (self._asked or 0.0) > self._stalled_s:
                yield "Kafka has not said what it holds"

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
