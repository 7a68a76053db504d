"""The stream's own server, over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from lightcurves.errors import ConfigurationError
from stream.health import Monitor
from stream.lag import Lag
from stream.metrics import StreamMetrics
from tests.stream.reports import report
from watch.endpoint import ENDPOINTS, telling


def watched() -> tuple[StreamMetrics, Monitor]:
    monitor = Monitor(Lag({}, from_start=True), stalled_s=60.0)
    return StreamMetrics(monitor, slow_batch_s=10.0), monitor


@contextmanager
def asking(host: str = "127.0.0.1") -> Iterator[tuple[httpx.Client, StreamMetrics, Monitor]]:
    metrics, monitor = watched()
    at = f"[{host}]" if ":" in host else host
    with (
        telling(metrics, monitor, host, 0) as port,
        httpx.Client(base_url=f"http://{at}:{port}", timeout=30) as client,
    ):
        yield client, metrics, monitor


def test_health_and_readiness_are_the_monitors() -> None:
    with asking() as (client, _, monitor):
        codes = {}

        def note() -> None:
            answers = [client.get(f"/{name}") for name in ("healthz", "readyz")]
            codes[str(monitor.state)] = [answer.status_code for answer in answers]
            assert answers[0].json()["reasons"] == answers[1].json()["reasons"]

        note()
        monitor.running()
        monitor.kafka({})
        note()
        monitor.waiting("Kafka is away")
        note()
        monitor.dead("no schema")
        note()
        assert codes == {
            "starting": [200, 503],
            "running": [200, 200],
            "waiting": [200, 503],
            "dead": [503, 503],
        }
        assert client.get("/healthz").json()["reasons"] == ["the query is dead: no schema"]


def test_metrics_are_prometheus_text() -> None:
    with asking() as (client, metrics, _):
        metrics.observe(report())
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert 'noctule_stream_alerts_total{outcome="classified"} 5.0' in answer.text
        assert "process_resident_memory_bytes" in answer.text


def test_head_has_no_body_and_other_addresses_are_told_of() -> None:
    with asking() as (client, _, _):
        assert client.head("/metrics").content == b""
        other = client.get("/")
        assert other.status_code == 404
        assert all(each in other.text for each in ENDPOINTS)
        assert client.post("/metrics").status_code == 501


def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    with (
        asking() as (client, _, _),
        socket.create_connection((client.base_url.host, int(client.base_url.port or 0))),
    ):
        assert client.get("/healthz").status_code == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_it_listens_on_an_address_of_the_other_family() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    with asking("::1") as (client, _, _):
        assert client.get("/healthz").status_code == 200


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match=rf"{port}.*stream\.metrics_port"),
            telling(*watched(), "127.0.0.1", port),
        ):
            pass


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host"])
def test_a_host_that_is_not_ours_is_said_with_what_to_do(host: str) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"stream\.metrics_host"),
        telling(*watched(), host, 0),
    ):
        pass
