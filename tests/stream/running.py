"""A stream that runs on in a test as ``noctule stream`` lets it, and a Kafka behind a bad network."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka import HOST, EmbeddedKafka
from deploy.streaming import Watch, run_on
from deploy.wiring import job_config
from store.tables import accounting, classifications
from tests.stream.conftest import Night

LONGEST_S = 120.0
"""A test fails that waits longer; what it waits for takes seconds."""


def until(condition: Callable[[], object], what: str, while_running: Future[None]) -> None:
    """Wait for a condition, as long as the stream runs."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        if while_running.done():
            while_running.result()
            raise AssertionError(f"the stream ended before {what}")
        assert time.monotonic() < deadline, f"no {what} within {LONGEST_S:.0f} s"
        time.sleep(0.05)


class Warnings(logging.Handler):
    """What the stream has warned of, each outage of a service among it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@dataclass
class Running:
    """A stream in a thread of its own."""

    night: Night
    future: Future[None]
    warnings: Warnings

    def until(self, condition: Callable[[], object], what: str) -> None:
        until(condition, what, self.future)

    def until_read(self, n: int) -> None:
        """Wait until `n` packets are accounted for."""
        self.until(lambda: n_read(self.night) >= n, f"{n} packets read")

    def until_classified(self, n: int) -> None:
        self.until(lambda: len(self.night.rows(classifications)) >= n, f"{n} alerts classified")

    def until_it_warns(self, word: str) -> str:
        """Wait for a warning that has this word in it; return it."""
        self.until(lambda: any(word in told for told in self.warnings.told), f"warning of {word}")
        return next(told for told in self.warnings.told if word in told)

    def until_it_ends(self) -> BaseException | None:
        return self.future.exception(LONGEST_S)


def n_read(night: Night) -> int:
    return sum(row["n_read"] + row["n_lost"] for row in night.rows(accounting))


@contextmanager
def running(night: Night) -> Iterator[Running]:
    """Run the stream of a night until the block ends: after an outage it starts anew."""
    stop = threading.Event()
    warnings = Warnings()
    logger = logging.getLogger("noctule")
    logger.addHandler(warnings)
    settings = night.settings
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            run_on, night.spark, job_config(settings), Watch.of(settings), stop, once=False
        )
        try:
            yield Running(night, future, warnings)
        finally:
            stop.set()
            logger.removeHandler(warnings)
    if future.exception() is None:
        future.result()


class Network:
    """A proxy before a TCP port: it can stop moving bytes without closing a connection.

    Parameters
    ----------
    port
        Where it forwards to, on the loopback interface.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._open: list[socket.socket] = []
        self._lost: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._flows.set()
        self._listener.close()
        for each in self._open:
            _close(each)

    def stall(self) -> None:
        """Move no more bytes; connections stay open, new ones too."""
        self._flows.clear()

    def heal(self, *, forget: bool) -> None:
        """Move bytes again; with `forget` only those of new connections, as after a lost NAT entry."""
        if forget:
            self._lost |= set(self._open)
        self._flows.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((HOST, self._to))
        except OSError:
            _close(client)
            return
        self._open += [client, server]
        threading.Thread(target=self._move, args=(client, server), daemon=True).start()
        self._move(server, client)

    def _move(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                if source in self._lost:
                    return
                target.sendall(data)
        if source not in self._lost:
            _close(source)
            _close(target)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


class DistantKafka(EmbeddedKafka):
    """A Kafka that clients reach through a :class:`Network` alone, which outlives its restarts."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, free_port())
        assert self._port is not None
        self.network = Network(self._port)

    def __enter__(self) -> Self:
        self.network.__enter__()
        return super().__enter__()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.network.__exit__(error_type, error, traceback)
        super().__exit__(error_type, error, traceback)

    @property
    def distant_servers(self) -> str:
        """What clients are told; `bootstrap_servers` is the broker itself."""
        return f"{HOST}:{self.network.port}"

    def _write_settings(self, port: int, controller_port: int) -> Path:
        path = super()._write_settings(port, controller_port)
        own, distant = (
            f"advertised.listeners=PLAINTEXT://{HOST}:{number}\n"
            for number in (port, self.network.port)
        )
        path.write_text(path.read_text().replace(own, distant))
        return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
