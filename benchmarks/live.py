"""What the benchmarks of the live path share: a broker, a champion, a stream, and a sender.

As a command it is the sender, in a process of its own: ``python -m benchmarks.live SERVERS N``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from active_learning.learner import register, store_artifact
from benchmarks.setting import plasticc, real_packets, split, with_id
from deploy.kafka import EmbeddedKafka, create_topics
from deploy.places import open_store
from deploy.sections import Settings
from deploy.wiring import job_config, open_spark, topic_partitions
from models.training import moments_of, train
from store import registry
from stream.job import JobConfig, start
from stream.stages import DRIVER_STAGES, WORKER_STAGES
from stream.topic import Publisher, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import sqlalchemy as sa
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from stream.report import BatchReport

TOPIC = "alerts"
FIRST_ID = 10**17
LARGE_REQUESTS = {"batch.size": str(4 << 20), "queue.buffering.max.kbytes": str(256 << 10)}
"""Of three packets a request, as by default, five may be under way: on two busy cores each takes its time."""
PACKET_BYTES = 262e3
"""Of the real packets, in the mean."""
_TO_SPARE = 1.5
_FIRST = 100
_TICKS = os.sysconf("SC_CLK_TCK")


def fresh(packets: list[bytes], n: int, first_id: int) -> Iterator[bytes]:
    """Give `n` packets with ids of their own."""
    for k, packet in enumerate(islice(cycle(packets), n)):
        yield with_id(packet, first_id + k)


def make_champion(settings: Settings, engine: sa.Engine) -> None:
    """Train on a quarter of PLAsTiCC and promote."""
    table, _ = split(plasticc(settings.state / "plasticc"), 0.25, 1)
    manifest, folder = store_artifact(train(moments_of(table)), settings.models.folder)
    with engine.begin() as connection:
        register(connection, manifest, folder)
        registry.promote(
            connection, "champion", manifest.model_version, reason="benchmark", now_ms=1
        )


@dataclass
class Live:
    """A running broker and Spark, and what was reported of the batches so far."""

    kafka: EmbeddedKafka
    settings: Settings
    engine: sa.Engine
    spark: SparkSession
    config: JobConfig
    reports: list[BatchReport] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    on_batch: Callable[[], None] | None = None
    _next_id: int = FIRST_ID

    def send(self, n: int, rate: float | None = None) -> None:
        """Send `n` fresh packets and wait until the broker has them."""
        servers = self.kafka.bootstrap_servers
        packets = fresh(real_packets(), n, self._ids(n))
        publish(packets, bootstrap_servers=servers, topic=TOPIC, rate_per_s=rate)

    def sender(self, n: int, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a sender of `n` fresh packets; `arguments` are those of this command."""
        first = ("--first", str(self._ids(n)))
        command = [sys.executable, "-m", "benchmarks.live", self.kafka.bootstrap_servers, str(n)]
        return subprocess.Popen([*command, *first, *arguments])

    def _ids(self, n: int) -> int:
        first, self._next_id = self._next_id, self._next_id + n
        return first

    def _ended(self, report: BatchReport) -> None:
        self.ended_s.append(time.perf_counter())
        self.reports.append(report)
        if self.on_batch is not None:
            self.on_batch()

    def drain(self) -> list[BatchReport]:
        """Read what is in the topic now; return what was reported."""
        before = len(self.reports)
        start(self.spark, self.config, once=True, on_batch=self._ended).awaitTermination()
        return self.reports[before:]

    def stream(self) -> StreamingQuery:
        """Start the stream, and see it at work."""
        query = start(self.spark, self.config, on_batch=self._ended)
        goal = self.n_read + _FIRST
        self.send(_FIRST)
        self.await_read(goal, query)
        return query

    def await_read(
        self, n: int, query: StreamingQuery, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Wait until `n` alerts have been read in all."""
        while self.n_read < n:
            if not query.isActive:
                raise RuntimeError(query.exception())
            if meanwhile is not None:
                meanwhile()
            time.sleep(0.1)

    @property
    def n_read(self) -> int:
        """Alerts that were read so far."""
        return sum(report.counts.n_read for report in self.reports)


@contextmanager
def live(*, kept: int = 22_000, partitions: int = 2, **sections: Any) -> Iterator[Live]:
    """Create it all in a folder that is removed afterwards.

    Parameters
    ----------
    kept
        Alerts that Kafka keeps, if all partitions get equal shares.
    partitions
        Of the alert topic.
    sections
        Settings.
    """
    state = Path(tempfile.mkdtemp(prefix="noctule-bench-"))
    try:
        with EmbeddedKafka(state / "kafka") as kafka:
            servers = {"bootstrap_servers": kafka.bootstrap_servers}
            settings = Settings(state=state, kafka=servers, **sections)
            topics = topic_partitions(settings, partitions)
            retention = round(_TO_SPARE * PACKET_BYTES * kept / partitions)
            create_topics(kafka.bootstrap_servers, topics, {"retention.bytes": str(retention)})
            engine = open_store(settings)
            make_champion(settings, engine)
            spark = open_spark(settings, "spark")
            try:
                yield Live(kafka, settings, engine, spark, job_config(settings))
            finally:
                spark.stop()
    finally:
        shutil.rmtree(state, ignore_errors=True)


def latencies_s(reports: Sequence[BatchReport]) -> NDArray[np.float64]:
    """Return, of each alert of the batches, seconds from Kafka's time stamp to the committed row."""
    return np.concatenate([np.zeros(0), *(report.latency_s for report in reports)])


def stages_ms(reports: Sequence[BatchReport]) -> dict[str, float]:
    """Return ms an alert by stage."""
    n = max(1, sum(report.counts.n_read for report in reports))
    return {
        stage: 1e3 * sum(report.stages_s[stage] for report in reports) / n
        for stage in (*WORKER_STAGES, *DRIVER_STAGES)
    }


def stage_rows(reports: Sequence[BatchReport]) -> list[tuple[str, str, str]]:
    """Return stage, ms an alert and its part of the batches' time, as texts."""
    n = sum(report.counts.n_read for report in reports)
    total_ms = 1e3 * sum(report.total_s for report in reports)
    return [
        (stage, f"{ms:.3f}", f"{ms * n / total_ms:.0%}") for stage, ms in stages_ms(reports).items()
    ]


@dataclass(frozen=True)
class Cpu:
    """Processor seconds by who took them."""

    seconds: dict[str, float]

    @classmethod
    def now(cls, kafka: EmbeddedKafka) -> Cpu:
        """Look at the broker, and at this process with its children."""
        return cls({who: sum(p.cpu_s for p in group) for who, group in _by_role(kafka).items()})

    def since(self, earlier: Cpu) -> dict[str, float]:
        """Return the seconds since then."""
        return {who: self.seconds[who] - earlier.seconds[who] for who in self.seconds}


def memory_mb(kafka: EmbeddedKafka) -> dict[str, float]:
    """Return the memory of each, in MB: what processes share is counted in parts."""
    return {who: sum(pss_mb(p.pid) for p in group) for who, group in _by_role(kafka).items()}


class _Process(NamedTuple):
    pid: int
    parent: int
    cpu_s: float
    command: str


def _by_role(kafka: EmbeddedKafka) -> dict[str, list[_Process]]:
    by_role: dict[str, list[_Process]] = {
        who: [] for who in ("broker", "driver", "Spark's JVM", "workers")
    }
    processes = {process.pid: process for process in _processes()}
    for pid, process in processes.items():
        lineage = _lineage(pid, processes)
        if kafka.pid in lineage:
            by_role["broker"].append(process)
        elif pid == os.getpid():
            by_role["driver"].append(process)
        elif os.getpid() in lineage and "pyspark" in process.command:
            is_java = "java" in process.command.split(" ", 1)[0]
            by_role["Spark's JVM" if is_java else "workers"].append(process)
    return by_role


def _processes() -> Iterator[_Process]:
    """Yield every process of this machine that may be inspected."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
        yield _Process(int(entry.name), int(fields[1]), cpu_s, command)


def pss_mb(pid: int) -> float:
    """Return the memory of a process, in MB: shared pages count by their share; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def cpu_s(pid: int) -> float:
    """Return the processor seconds of a process; 0 if it is gone."""
    return sum(process.cpu_s for process in _processes() if process.pid == pid)


def _lineage(pid: int, processes: dict[int, _Process]) -> set[int]:
    lineage = set()
    while pid in processes and pid not in lineage:
        lineage.add(pid)
        pid = processes[pid].parent
    return lineage


def send_visits(
    publisher: Publisher, packets: Iterator[bytes], n: int, within_s: float, every_s: float
) -> None:
    """Send `packets` as visits: `n` evenly within `within_s`, every `every_s` seconds."""
    begin = time.monotonic()
    for k, packet in enumerate(packets):
        due = begin + (k // n) * every_s + (k % n) / n * within_s
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)
        publisher.send(packet)


def main() -> None:
    """Send packets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers")
    parser.add_argument("n", type=int)
    parser.add_argument("--first", type=int, default=FIRST_ID)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--visit", type=int)
    parser.add_argument("--within", type=float, default=5.0)
    parser.add_argument("--every", type=float, default=39.0)
    args = parser.parse_args()
    packets = fresh(real_packets(), args.n, args.first)
    if args.visit is None:
        publish(
            packets,
            bootstrap_servers=args.servers,
            topic=TOPIC,
            rate_per_s=args.rate,
            client=LARGE_REQUESTS,
        )
        return
    with Publisher(args.servers, TOPIC, client=LARGE_REQUESTS) as publisher:
        send_visits(publisher, packets, args.visit, args.within, args.every)


if __name__ == "__main__":
    main()
