"""A real query, and what is told of it: while it works, hangs, waits and dies."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from confluent_kafka.admin import AdminClient

from benchmarks.kills import environment
from deploy.settings import environment_name
from deploy.streaming import Watch, run_on
from deploy.wiring import job_config
from lightcurves.errors import NoctuleError
from store.tables import accounting, label_requests
from tests.stream.conftest import Night
from watch.endpoint import telling

PATIENCE_S = 90.0

Make = Callable[..., Night]


def until(said: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := said()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


class Watched:
    """A stream in a thread, and a client of its endpoint."""

    def __init__(self, night: Night, client: httpx.Client, watch: Watch) -> None:
        self.night = night
        self.client = client
        self.watch = watch
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="stream")

    def _run(self) -> None:
        config = job_config(self.night.settings)
        with suppress(NoctuleError), self.watch.asking_kafka(), self.watch.monitor.until_death():
            run_on(self.night.spark, config, self.watch, self.stop, once=False)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self._thread.join()

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = self.client.get(path)
        return answer.status_code, answer.json()

    def value(self, metric: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


@contextmanager
def watched(night: Night) -> Iterator[Watched]:
    watch = Watch.of(night.settings)
    with (
        telling(watch.metrics, watch.monitor, "127.0.0.1", 0) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        stream = Watched(night, client, watch)
        assert stream.get("/readyz")[1]["state"] == "starting"
        stream.start()
        try:
            yield stream
        finally:
            stream.end()


def test_metrics_are_those_of_the_tables_and_a_stop_is_no_death(
    night: Night, real_packets: list[bytes]
) -> None:
    night.publish([*real_packets[:9], real_packets[0], b"no alert"], partition=0)
    with watched(night) as stream:
        until(lambda: stream.value("noctule_stream_alerts_total") == 11, "alerts")
        until(lambda: stream.get("/readyz")[0] == 200, "ready")
        until(lambda: stream.value("noctule_stream_lag_messages") == 0, "no lag")
        (account,) = [row for row in night.rows(accounting) if row["n_read"]]
        for outcome in ("classified", "not_evaluated", "duplicate", "rejected"):
            told = stream.value(f'noctule_stream_alerts_total{{outcome="{outcome}"}}')
            assert told == account[f"n_{outcome}"]
        assert stream.value("noctule_stream_latency_seconds_count") == 10
        assert stream.value('noctule_stream_stage_seconds_count{stage="sql"}') == 1
        version = f'noctule_stream_model_info{{version="{account["model_version"]}"}}'
        assert stream.value(version) == 1
        stream.stop.set()
        until(lambda: stream.get("/readyz")[1]["state"] == "stopped", "stopped")
        assert stream.get("/healthz")[0] == 200


def test_the_command_tells_all_of_it_and_logs_in_json(
    night: Night, real_packets: list[bytes]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {
        "stream.metrics_port": str(port),
        "logs.format": "json",
        "stream.slow_batch_s": "0.001",
    }
    changes = {environment_name(key): value for key, value in given.items()}
    log = night.settings.state / "stream.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "stream"],
            env={**environment(night.settings), **changes},
            stdout=out,
            stderr=out,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            until(lambda: answers(client, "/readyz", process), "ready")
            night.publish([*real_packets[:4], b"no alert"], partition=0)
            until(lambda: 'rejected"} 1.0' in client.get("/metrics").text, "a batch")
            assert client.get("/healthz").status_code == 200
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    batch, *wanted, rejected, slow = [line for line in lines if "batch_id" in line]
    assert (batch["n_read"], batch["n_rejected"]) == (5, 1)
    assert batch["batch_id"] == rejected["batch_id"] == slow["batch_id"]
    assert batch["model_version"] == night.models[0].name
    assert (rejected["topic"], rejected["offset"]) == (night.topic, 4)
    assert {line["dia_source_id"] for line in wanted} == {
        row["dia_source_id"] for row in night.rows(label_requests)
    }
    assert "longest in " in slow["message"]


def answers(client: httpx.Client, path: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the stream ended"
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def test_a_query_that_hangs_is_stalled_until_it_goes_on(
    make: Make, real_packets: list[bytes]
) -> None:
    night = make(stream={"stalled_s": 3.0}, store={"busy_timeout_s": PATIENCE_S})
    night.publish(real_packets[:5], partition=0)
    other = night.engine.connect()
    transaction = other.begin()  # takes SQLite's write lock: another writer that hangs
    with watched(night) as stream:
        code, body = until(
            lambda: (found := stream.get("/healthz"))[0] == 503 and found, "unhealthy"
        )
        assert code == 503
        assert body["state"] == "running"
        assert "stalled: 5 messages wait" in body["reasons"][0]
        assert stream.value("noctule_stream_healthy") == 0
        assert stream.value("noctule_stream_lag_messages") == 5
        assert stream.value("noctule_stream_lag_seconds") > 0
        transaction.rollback()
        other.close()
        until(lambda: stream.get("/readyz")[0] == 200, "ready again")
        assert stream.value("noctule_stream_alerts_total") == 5


def test_a_query_that_died_is_dead(make: Make, real_packets: list[bytes]) -> None:
    night = make()
    for model in night.models:
        shutil.rmtree(night.settings.models.folder / model.name)
    night.publish(real_packets[:2], partition=0)
    with watched(night) as stream:
        code, body = until(lambda: (found := stream.get("/healthz"))[0] == 503 and found, "dead")
        assert (code, body["state"]) == (503, "dead")
        assert stream.get("/readyz")[0] == 503
        assert stream.value('noctule_stream_state{state="dead"}') == 1


def test_an_outage_makes_it_wait(make: Make, real_packets: list[bytes]) -> None:
    night = make()
    night.publish(real_packets[:2], partition=0)
    with watched(night) as stream:
        until(lambda: stream.value("noctule_stream_alerts_total") == 2, "alerts")
        admin = AdminClient({"bootstrap.servers": str(night.settings.kafka.bootstrap_servers)})
        admin.delete_topics([night.topic])[night.topic].result()
        code, body = until(lambda: (found := stream.get("/readyz"))[1]["state"] == "waiting" and found,
                           "waiting")  # fmt: skip
        assert code == 503
        assert "topic" in body["reasons"][0]
        assert stream.get("/healthz")[0] == 200
