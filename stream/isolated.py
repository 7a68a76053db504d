"""Scoring in a separate process: a packet that crashes the program takes nothing else down with it.

An exception is handled within the worker (:meth:`stream.scoring.Scorer.score_packets`). A process that
dies, for instance by a fault in compiled code, takes the task and the query with it, and would do so at every
replay. So after a worker has died, batches are scored here, more slowly, until one succeeds.
"""

from __future__ import annotations

import multiprocessing
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from lightcurves.errors import UnavailableError
from stream.scoring import Scorer, with_failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from stream.scoring import Scored, ScorerConfig

ANSWER_S: Final = 120.0
"""A process that does not answer for this long counts as dead; a list of packets takes less than 1 s."""
_ALL_GUILTY: Final = 4
"""If it dies of every packet, and there are at least this many, none of them is to blame."""


class DiedError(Exception):
    """The process has died, or hung and was killed."""


class IsolatedScorer:
    """Scores as :class:`stream.scoring.Scorer` does, in a child process.

    Parameters
    ----------
    config
        The scorer's settings.
    make
        Makes the scorer, in the child; has to be importable by name.
    """

    def __init__(
        self, config: ScorerConfig, make: Callable[[ScorerConfig], Scorer] = Scorer
    ) -> None:
        self._config = config
        self._make = make
        self._lock = threading.Lock()
        self._child: Any = None
        self._pipe: Connection | None = None

    def score_packets(self, packets: list[bytes], version: str) -> Scored:
        """Score packets with the models of `version`; reject each that, alone, kills the process twice.

        Raises
        ------
        NoctuleError
            As raised by the scorer.
        RuntimeError
            The process dies of each of many packets, or of none alone: no packet is to blame.
        """
        with self._lock:
            try:
                return self._ask(packets, version)
            except DiedError:
                guilty = {k: how for k, p in enumerate(packets) if (how := self._dies(p, version))}
            if len(guilty) == len(packets) >= _ALL_GUILTY:
                raise RuntimeError(f"scoring dies of every packet: {guilty[0]}")
            others = [b"" if k in guilty else packet for k, packet in enumerate(packets)]
            try:
                return with_failed(self._ask(others, version), guilty)
            except DiedError as error:
                raise RuntimeError(f"scoring dies of no single packet: {error}") from error

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.join()
            child.close()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _dies(self, packet: bytes, version: str) -> str | None:
        """Return how the process dies when it scores the packet alone, twice; None if it does not."""
        how = None
        for _ in range(2):
            try:
                self._ask([packet], version)
            except DiedError as error:
                how = str(error)
            else:
                return None
        return how

    def _ask(self, packets: list[bytes], version: str) -> Scored:
        if self._pipe is None:
            self._start()
        assert self._pipe is not None  # noqa: S101 - just opened
        answer = None
        with suppress(EOFError, OSError):
            self._pipe.send((packets, version))
            answer = self._pipe.recv() if self._pipe.poll(ANSWER_S) else None
        if answer is None:
            self._child.join(1.0)
            status = self._child.exitcode
            self.close()
            how = f"no answer for {ANSWER_S:g} s" if status is None else f"exit status {status}"
            raise DiedError(f"the process that scored it died: {how}")
        kind, *content = answer
        if kind == "away":
            raise UnavailableError(*content)
        if kind == "error":
            raise RuntimeError(*content)
        scored: Scored = content[0]
        return scored

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(
            target=_serve, args=(theirs, self._make, self._config), daemon=True
        )
        self._child.start()
        theirs.close()


def _serve(pipe: Connection, make: Callable[[ScorerConfig], Scorer], config: ScorerConfig) -> None:
    """Answer until the other end is closed."""
    scorer = make(config)
    while True:
        try:
            packets, version = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[Any, ...] = ("scored", scorer.score_packets(packets, version))
        except UnavailableError as error:
            answer = ("away", error.service, error.hint)
        except Exception as error:  # noqa: BLE001 - passed on to the caller
            answer = ("error", f"{type(error).__name__}: {error}")
        pipe.send(answer)
