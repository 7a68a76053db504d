"""Serves the portal over HTTP."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from lightcurves.errors import ConfigurationError

_BACKLOG: Final = 128
_GOODBYE_S: Final = 3  # how long a request may take to end when the portal stops

_ADVICE: Final = {
    errno.EADDRINUSE: "another program listens there; stop it, or set portal.port "
    "(NOCTULE_PORTAL__PORT) to another port, 0 takes any free one",
    errno.EACCES: "this port is reserved for the system; set portal.port (NOCTULE_PORTAL__PORT) "
    "to one above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; set portal.host "
    "(NOCTULE_PORTAL__HOST) to one of its own, 127.0.0.1 say",
}


def serve(
    app: FastAPI, host: str, port: int, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are answered first.

    Parameters
    ----------
    app
        The portal.
    host
        Address to listen on.
    port
        Port to listen on; 0 takes any free one.
    ready
        Called with the URL, real port included, once requests are answered.

    Raises
    ------
    ConfigurationError
        The address cannot be listened on; the message says what to do.
    """
    with _listening(host, port) as listener:
        _server(app, listener, host, ready).run([listener])


@contextmanager
def serving(app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve from a thread while the block runs; yields the URL.

    Raises
    ------
    ConfigurationError
        As :func:`serve`; also if the application cannot start.
    """
    urls: list[str] = []
    done = threading.Event()

    def tell(url: str) -> None:
        urls.append(url)
        done.set()

    with _listening(host, port) as listener:
        server = _server(app, listener, host, tell)
        thread = threading.Thread(target=_run, args=(server, listener, done), name="portal")
        thread.start()
        try:
            done.wait()
            if not urls:
                raise ConfigurationError("the portal could not start; its log says why")
            yield urls[0]
        finally:
            server.should_exit = True
            thread.join()


def _run(server: uvicorn.Server, listener: socket.socket, done: threading.Event) -> None:
    try:
        server.run([listener])
    finally:
        done.set()


class _Server(uvicorn.Server):
    """Reports when it is ready, and ends by returning: a signal is not raised a second time."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _server(
    app: FastAPI, listener: socket.socket, host: str, ready: Callable[[str], None] | None
) -> _Server:
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE_S,
        log_config=None,
    )
    url = url_of(host, listener.getsockname()[1])
    return _Server(config, lambda: ready(url) if ready else None)


def url_of(host: str, port: int) -> str:
    """The address to open in a browser on this machine.

    Examples
    --------
    >>> url_of("0.0.0.0", 8765), url_of("::1", 80)
    ('http://127.0.0.1:8765', 'http://[::1]:80')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    with _bound(host, port) as listener:
        listener.listen(_BACKLOG)
        yield listener


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        hint = "set portal.host (NOCTULE_PORTAL__HOST) to an address of this machine"
        raise ConfigurationError(f"the host name {host!r} is unknown: {hint}") from error
    listener = socket.socket(family, kind, protocol)  # by its protocol asyncio knows to not delay
    if os.name == "posix":  # elsewhere it would let two programs share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        hint = _ADVICE.get(error.errno or 0, str(error.strerror))
        raise ConfigurationError(f"cannot listen on {host}:{port}: {hint}") from error
    return listener
