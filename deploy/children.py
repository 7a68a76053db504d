"""Processes of noctule that run at the same time and end together."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy import watchdog
from deploy.kafka import end_group, log_end
from lightcurves.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def stop_all(children: list[Child]) -> None:
    """End all children, in parallel."""
    for child in children:
        child.ask_to_stop()
    for child in children:
        child.stop()


@dataclass
class Child:
    """One ``noctule`` command in a separate process.

    It runs under the watchdog, so that it ends when this process does, however that ends; and in its own
    session, so that Ctrl-C reaches only this process, which stops the children in order.

    Attributes
    ----------
    name
        The command: ``stream``, ``portal``, ``learn``.
    arguments
        Arguments of the command.
    environment
        Added to this process's environment.
    log
        File for everything that it prints.
    """

    name: str
    arguments: list[str]
    environment: Mapping[str, str]
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "deploy.cli", self.name, *self.arguments]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, watchdog.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Leader of its process group; None while stopped."""
        return self._process.pid if self._process else None

    def check(self) -> None:
        """Raise an error if the process has ended by itself.

        Raises
        ------
        UnavailableError
            With the end of its log.
        """
        if self._process is not None and self._process.poll() is not None:
            raise UnavailableError(
                f"noctule {self.name}", f"it ended; {self.log} says: {log_end(self.log)}"
            )

    def ask_to_stop(self) -> None:
        """Send SIGTERM and do not wait."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL for the whole group; does nothing if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        end_group(process)
