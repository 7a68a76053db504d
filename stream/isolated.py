"""Scoring in a process of its own: a packet on which the program dies takes nothing else with it.

An exception is found out within the worker (:meth:`stream.scoring.Scorer.score_packets`). A process that
dies, by a fault in compiled code say, takes the task and the query with it, and would do so at every
replay. So after a worker has died, batches go through this, more slowly, until one is through.
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
"""A process that says nothing for so long counts as dead; a list of packets takes less than a second."""
_ALL_GUILTY: Final = 4
"""If it dies of all of so many packets or more, none of them is to blame."""


class DiedError(Exception):
    """The process has died, or hung and was killed."""


class IsolatedScorer:
    """Scores as :class:`stream.scoring.Scorer` does, in a child process.

    Parameters
    ----------
    config
        The scorer's.
    make
        Makes it, in the child; has to be importable by name.
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
        """Score packets with `version`; each on which a process of its own dies twice is rejected.

        Raises
        ------
        NoctuleError
            As the scorer raises it.
        RuntimeError
            The process dies of each of many packets, or of none alone: no packet's fault.
        """
        with self._lock:
            try:
                return self._ask(packets, version)
            except DiedError:
                guilty = {
                    k: told for k, p in enumerate(packets) if (told := self._dies(p, version))
                }
            if len(guilty) == len(packets) >= _ALL_GUILTY:
                raise RuntimeError(f"scoring dies of every packet: {guilty[0]}")
            kept = [b"" if k in guilty else packet for k, packet in enumerate(packets)]
            try:
                return with_failed(self._ask(kept, version), guilty)
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
        """Say how the process dies of a packet, alone and twice; None where it does not."""
        told = None
        for _ in range(2):
            try:
                self._ask([packet], version)
            except DiedError as error:
                told = str(error)
            else:
                return None
        return told

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
        kind, *said = answer
        if kind == "away":
            raise UnavailableError(*said)
        if kind == "error":
            raise RuntimeError(*said)
        scored: Scored = said[0]
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
        except Exception as error:  # noqa: BLE001 - handed on to who asked
            answer = ("error", f"{type(error).__name__}: {error}")
        pipe.send(answer)
