"""The same job on a Spark standalone cluster: the same rows, and killed executors lose nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from benchmarks.kills import differences, environment, mixed, n_batches, send
from deploy.sections import Settings
from store.tables import (
    accounting,
    classifications,
    duplicates,
    label_requests,
    objects,
    rejected,
)
from tests.stream.cluster import Cluster
from tests.stream.conftest import Night
from tests.stream.kills import two_topics

WORKERS = 2
RANGES_A_BATCH = 4
ON_CLUSTER = ("stream.threads=1", "stream.executor_memory=512m", f"stream.tasks={WORKERS}")
TIMES = {"processed_ms", "started_ms", "committed_ms", "requested_ms"}
OF_THE_RUN = {"run_id", "settings_digest"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), workers=WORKERS) as running:
        yield running


def stream_on(
    cluster: Cluster, settings: Settings, *more: str, **spark: str
) -> subprocess.Popen[bytes]:
    """Start ``noctule stream --once`` on the cluster; what it says goes to the state folder."""
    chosen = [f"stream.master={cluster.url}", *ON_CLUSTER, *more]
    arguments = [part for each in chosen for part in ("--set", each)]
    with (settings.state / "stream.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *arguments, "stream", "--once"],
            env=environment(settings) | cluster.environment(**spark),
            stdout=log,
            stderr=log,
        )


def said(settings: Settings) -> str:
    """Return what the stream has said, and what Spark has."""
    logs = [settings.state / "stream.log", settings.state / "logs" / "spark.log"]
    return "\n".join(log.read_text()[-6000:] for log in logs if log.is_file())


def kill_all(pids: list[int]) -> None:
    """SIGKILL processes; one that has just gone is no fault."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def on_its_own(settings: Settings, name: str) -> Settings:
    """Return the same settings, batches included, with empty tables and no checkpoint."""
    state = settings.state.with_name(f"{settings.state.name}-{name}")
    stream = {"max_alerts_per_batch": settings.stream.max_alerts_per_batch}
    return Settings(state=state, kafka=settings.kafka.model_dump(), stream=stream)


def rows(night: Night, table: sa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table but for their times and what names the run."""
    left_out = TIMES | OF_THE_RUN
    return [
        {name: value for name, value in row.items() if name not in left_out}
        for row in night.rows(table)
    ]


def kept(night: Night) -> pa.Table:
    """Return the Delta rows by offset, but for their times and what names the run."""
    table = night.delta()
    where = ("topic", "kafka_partition", "kafka_offset")
    table = table.sort_by([(name, "ascending") for name in where])
    return table.drop_columns([c for c in table.column_names if c in TIMES | OF_THE_RUN])


def bits(table: pa.Table) -> bytes:
    """Return a table as bytes: NaN equals itself, -0.0 is not 0.0."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


@pytest.mark.timeout(300)
def test_a_cluster_whose_executors_die_gives_the_rows_of_one_machine(
    cluster: Cluster, night: Night, real_packets: list[bytes]
) -> None:
    alone = two_topics(night, max_alerts_per_batch=40)
    sent = mixed(real_packets, 400, alone.settings.kafka.alert_topics, 6)
    expected = send(alone.settings, sent)
    alone.run(outgoing=None)  # what is sent is to be the cluster's
    spread = Night(on_its_own(alone.settings, "spread"), alone.spark, alone.models)
    process = stream_on(cluster, spread.settings)

    def until(n_ranges: int) -> None:
        def there() -> bool:
            assert process.poll() is None, said(spread.settings)
            return n_batches(spread.engine) >= n_ranges

        cluster.until(there, f"{n_ranges} ranges")

    rng = random.Random(13)
    one, other = cluster.workers
    until(1)
    kill_all(cluster.executors(one))
    until(n_batches(spread.engine) + RANGES_A_BATCH)
    time.sleep(rng.uniform(0.1, 0.5))
    cluster.kill_machine(other)
    while not any(task.failed for task in cluster.tasks()):  # all kills were between two batches
        until(n_batches(spread.engine) + RANGES_A_BATCH)
        time.sleep(rng.uniform(0.1, 0.5))
        kill_all(cluster.executors(one))
    assert process.wait() == 0, said(spread.settings)

    for table in (classifications, rejected, duplicates, accounting, objects, label_requests):
        assert rows(alone, table), table.name
        assert rows(spread, table) == rows(alone, table), table.name
    assert bits(kept(spread)) == bits(kept(alone))
    assert differences(spread.settings, expected) == []
    worked = {task.executor for task in cluster.tasks() if not task.failed}
    assert len(worked) >= WORKERS, worked


def test_a_cluster_that_has_no_room_is_told_of(cluster: Cluster, night: Night) -> None:
    wait = {"spark_scheduler_maxRegisteredResourcesWaitingTime": "1s"}
    process = stream_on(cluster, night.settings, "stream.threads=64", **wait)
    assert process.wait() != 0
    assert "64 cores (stream.threads)" in said(night.settings)


def test_what_fails_in_an_executor_is_the_last_line(
    night: Night, real_packets: list[bytes], tmp_path: Path
) -> None:
    night.publish(real_packets[:8])
    foreign = tmp_path / "foreign" / "stream"  # another program's, which hides noctule's
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").touch()
    hiding = {"PYTHONPATH": str(foreign.parent)}
    with Cluster(tmp_path, workers=WORKERS, environment=hiding) as broken:
        assert stream_on(broken, night.settings).wait() != 0
    told = (night.settings.state / "stream.log").read_text().splitlines()[-1]
    assert "the stream cannot go on: ModuleNotFoundError" in told, said(night.settings)
