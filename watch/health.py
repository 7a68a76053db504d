"""Whether a process is well: judged by what it is doing, since when, and why.

Healthy: it works, or it waits for a service that will come back; a restart would not help.
Ready: what comes in now is handled without anybody's help.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PAUSE_S: Final = 60.0
"""After an outage of Kafka or the database, a process tries again at least this often."""


class State(StrEnum):
    """What a process is doing."""

    STARTING = "starting"
    RUNNING = "running"
    LOOKING = "looking"
    TRAINING = "training"
    WAITING = "waiting"
    DEAD = "dead"
    STOPPED = "stopped"


Status = Literal["ok", "not ready", "unhealthy"]


@dataclass(frozen=True)
class Health:
    """The verdict.

    Attributes
    ----------
    healthy, ready
        See the module.
    reasons
        Sentences that say why it is not healthy or not ready; empty if it is both.
    facts
        What the verdict is based on.
    """

    healthy: bool
    ready: bool
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The verdict in a word."""
        return "ok" if self.ready else "not ready" if self.healthy else "unhealthy"

    def to_json(self) -> dict[str, Any]:
        """Return the body of ``/healthz`` and ``/readyz``."""
        return {
            "status": self.status,
            "healthy": self.healthy,
            "ready": self.ready,
            "reasons": list(self.reasons),
            **self.facts,
        }


class ProcessMonitor:
    """What a process is doing, and whether it is well; any thread may update or query it.

    A subclass names the work of its kind of process, and adds its faults, obstacles and facts.

    Parameters
    ----------
    clock
        Seconds since an arbitrary moment; never goes back.

    Attributes
    ----------
    NAME, WORKER
        The process, and the part of it that does the work, as the sentences call them.
    WORK
        The states in which it is working.
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
        """Return all states that a process of this kind can be in."""
        return (State.STARTING, *cls.WORK, State.WAITING, State.DEAD, State.STOPPED)

    # -- what happens --------------------------------------------------------------------------

    def waiting(self, why: str) -> None:
        """A service is unavailable; the process will try again."""
        with self._lock:
            self._enter(State.WAITING, why)

    def dead(self, why: str) -> None:
        """It ended with an error and will not be started again."""
        with self._lock:
            self._enter(State.DEAD, why)

    def stopped(self) -> None:
        """It was told to stop."""
        with self._lock:
            if self._state is not State.DEAD:
                self._enter(State.STOPPED, f"{self.NAME} was told to stop")

    @contextmanager
    def until_death(self) -> Iterator[None]:
        """Record the error that ends the block, if one does."""
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

    # -- what can be asked ---------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the process is doing."""
        return self._state

    def health(self) -> Health:
        """Return the verdict as of now."""
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
        """Return the faults of a process that is not dead, which need a restart or a person."""
        yield from ()

    def _obstacles(self) -> Iterator[str]:
        """Return what it is waiting for, although nothing is broken here."""
        if self._state not in self.WORK:
            yield self._why

    def _facts(self) -> dict[str, Any]:
        """Return further facts that the verdict is based on."""
        return {}
