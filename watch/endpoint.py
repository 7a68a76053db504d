"""A small HTTP server for processes without one: ``/metrics``, ``/healthz``, ``/readyz``."""

from __future__ import annotations

import errno
import json
import logging
import socket
import socketserver
import threading
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, Final

from prometheus_client import CONTENT_TYPE_LATEST

from lightcurves.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watch.health import ProcessMonitor
    from watch.metrics import ProcessMetrics

LOG: Final = logging.getLogger("noctule")
ENDPOINTS: Final = ("/metrics", "/healthz", "/readyz")

_ADVICE: Final = {
    errno.EADDRINUSE: "another program is using this port; stop it, or set {section}.metrics_port "
    "(NOCTULE_{SECTION}__METRICS_PORT) to another port, or to 0 for none",
    errno.EACCES: "this port is reserved for the system; set {section}.metrics_port "
    "(NOCTULE_{SECTION}__METRICS_PORT) to one above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; set {section}.metrics_host "
    "(NOCTULE_{SECTION}__METRICS_HOST) to one of its own, such as 127.0.0.1",
}
_UNKNOWN: Final = (
    "set {section}.metrics_host (NOCTULE_{SECTION}__METRICS_HOST) to one of this machine"
)


@contextmanager
def telling(
    metrics: ProcessMetrics, monitor: ProcessMonitor, host: str, port: int, section: str = "stream"
) -> Iterator[int]:
    """Serve while the block runs; yields the port, a free one if `port` is 0.

    Parameters
    ----------
    metrics, monitor
        What is served.
    host, port
        Address to listen on.
    section
        Section of the settings that `host` and `port` come from, for the advice in errors.

    Raises
    ------
    ConfigurationError
        The address cannot be listened on; the message says what to do.
    """

    class Handler(_Handler):
        _metrics = metrics
        _monitor = monitor

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = (_ServerV6 if family == socket.AF_INET6 else _Server)((host, port), Handler)
    except socket.gaierror as error:
        hint = _named(_UNKNOWN, section)
        raise ConfigurationError(f"the host name {host!r} is unknown: {hint}") from error
    except OSError as error:
        known = _ADVICE.get(error.errno or 0)
        hint = _named(known, section) if known else str(error.strerror)
        raise ConfigurationError(
            f"cannot serve metrics and health on {host}:{port}: {hint}"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="endpoint", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _named(advice: str, section: str) -> str:
    return advice.format(section=section, SECTION=section.upper())


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client that hangs must not keep the process from ending

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's looks its own name up in the DNS
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    _metrics: ClassVar[ProcessMetrics]
    _monitor: ClassVar[ProcessMonitor]
    timeout = 10.0
    server_version = "noctule"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, self._metrics.exposition())
        elif path in {"/healthz", "/readyz"}:
            health = self._monitor.health()
            good = health.healthy if path == "/healthz" else health.ready
            status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "application/json", json.dumps(health.to_json()).encode())
        else:
            text = f"there are {', '.join(ENDPOINTS)}\n"
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", text.encode())

    do_HEAD = do_GET  # noqa: N815 - http.server's

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
        LOG.debug(format, *args)
