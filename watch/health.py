"""Whether a process is well, from facts: what it is about, since when, and why.

Healthy: it works, or waits for something that will come back, and a restart would change nothing.
Ready: what comes in now is dealt with by itself.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PAUSE_S: Final = 60.0
"""After an outage of Kafka or the database what runs on tries again at least this often."""


class State(StrEnum):
    """What a process is about."""

    STARTING = "starting"
    RUNNING = "running"
    LOOKING = "looking"
    TRAINING = "training"
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


class ProcessMonitor:
    """What a process is about, and whether it is well; may be told and asked by any thread.

    A process of some kind says what its work is, and adds the faults, obstacles and facts of that.

    Parameters
    ----------
    clock
        Seconds from any moment; never goes back.

    Attributes
    ----------
    NAME, WORKER
        The process, and what in it does the work, as its sentences call them.
    WORK
        The states in which it works.
    """

    NAME: ClassVar[str]
    WORKER: ClassVar[str]
    WORK: ClassVar[tuple[State, ...]]

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._state = State.STARTING
        self._why = f"{self.NAME} is starting"
        self._since = self._told = clock()

    @classmethod
    def states(cls) -> tuple[State, ...]:
        """Return all that a process of this kind can be about."""
        return (State.STARTING, *cls.WORK, State.WAITING, State.DEAD, State.STOPPED)

    # -- what happens --------------------------------------------------------------------------

    def waiting(self, why: str) -> None:
        """A service is away; there will be another try."""
        with self._lock:
            self._enter(State.WAITING, why)

    def dead(self, why: str) -> None:
        """It ended by an error and will not be started again."""
        with self._lock:
            self._enter(State.DEAD, why)

    def stopped(self) -> None:
        """It was told to end."""
        with self._lock:
            if self._state is not State.DEAD:
                self._enter(State.STOPPED, f"{self.NAME} was told to stop")

    @contextmanager
    def until_death(self) -> Iterator[None]:
        """Take note of what ends the block."""
        try:
            yield
        except Exception as error:
            self.dead(str(error))
            raise

    def _enter(self, state: State, why: str = "") -> None:
        self._told = self._clock()
        if state is not self._state:
            self._since = self._told
        self._state, self._why = state, why

    # -- what is asked -------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the process is about."""
        return self._state

    def health(self) -> Health:
        """Judge."""
        with self._lock:
            dead = self._state is State.DEAD
            faults = (f"{self.WORKER} is dead: {self._why}",) if dead else tuple(self._faults())
            obstacles = () if dead else tuple(self._obstacles())
            facts = {
                "state": str(self._state),
                "state_s": round(self._clock() - self._since, 1),
                **self._facts(),
            }
            return Health(not faults, not (faults or obstacles), faults + obstacles, facts)

    def _faults(self) -> Iterator[str]:
        """Return what a restart or a person has to mend, where it is not dead."""
        yield from ()

    def _obstacles(self) -> Iterator[str]:
        """Return what it waits for, though nothing is broken here."""
        if self._state not in self.WORK:
            yield self._why

    def _facts(self) -> dict[str, Any]:
        """Return what else it is judged by."""
        return {}
