"""Alerts per second from Kafka to committed rows, beside fastavro's full decode alone.

Real LSST packets with fresh ids, one machine for broker, Spark and sinks. Two parts: a backlog
drained at full speed, then alerts at a steady pace for the latency. ``--packets N`` and ``--rate R``.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import numpy as np
import sqlalchemy as sa

from active_learning.learner import register, store_artifact
from benchmarks.setting import FRAME_BYTES, finish, plasticc, real_packets, split, with_id
from deploy.kafka import EmbeddedKafka, create_topics
from deploy.sections import Settings
from deploy.wiring import job_config, open_store, topic_partitions
from lightcurves.schemas import package_schemas
from models.training import moments_of, train
from store import registry
from store.tables import accounting, classifications
from stream.job import open_session, start
from stream.topic import publish

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_ID = 10**17


def fastavro_per_s(packets: list[bytes]) -> float:
    """Return how many packets a second fastavro decodes in full, on one core."""
    schema = package_schemas().schema(1000)
    assert schema is not None
    begin = time.perf_counter()
    for packet in packets:
        fastavro.schemaless_reader(io.BytesIO(packet[FRAME_BYTES:]), schema, None)
    return len(packets) / (time.perf_counter() - begin)


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


def batches(engine: sa.Engine, after: int) -> list[Any]:
    """Return the accounting rows of the batches after number `after`."""
    with engine.connect() as connection:
        query = sa.select(accounting).where(accounting.c.batch_id > after)
        return list(connection.execute(query))


def drained_per_s(engine: sa.Engine, after: int) -> tuple[float, int]:
    """Return alerts a second over the batches after `after`, and the last batch's number."""
    rows = batches(engine, after)
    seconds = (max(r.committed_ms for r in rows) - min(r.started_ms for r in rows)) / 1000
    return sum(r.n_read for r in rows) / seconds, max(r.batch_id for r in rows)


def latencies_s(engine: sa.Engine, after: int) -> np.ndarray[Any, Any]:
    """Return, for each alert of the batches after `after`, commit minus Kafka's time stamp."""
    same = sa.and_(classifications.c.run_id == accounting.c.run_id,
                   classifications.c.batch_id == accounting.c.batch_id,
                   classifications.c.topic == accounting.c.topic,
                   classifications.c.kafka_partition == accounting.c.kafka_partition)  # fmt: skip
    query = sa.select(accounting.c.committed_ms - classifications.c.arrival_ms).join_from(
        classifications, accounting, same
    )
    with engine.connect() as connection:
        rows = connection.execute(query.where(accounting.c.batch_id > after)).scalars().all()
    return np.array(rows) / 1000.0


def run(state: Path, n: int, rate: float, seconds: float) -> dict[str, float]:
    """Measure both parts with everything below `state`."""
    packets = real_packets()
    baseline = fastavro_per_s(packets)
    with EmbeddedKafka(state / "kafka") as kafka:
        settings = Settings(state=state, kafka={"bootstrap_servers": kafka.bootstrap_servers})
        create_topics(kafka.bootstrap_servers, topic_partitions(settings, 2))
        engine = open_store(settings)
        make_champion(settings, engine)
        spark = open_session("local[2]", driver_memory="1g", log_file=state / "spark.log")
        config = job_config(settings)

        def send(count: int, first_id: int, pace: float | None) -> None:
            publish(fresh(packets, count, first_id), bootstrap_servers=kafka.bootstrap_servers,
                    topic="alerts", rate_per_s=pace)  # fmt: skip

        send(256, FIRST_ID, None)
        start(spark, config, once=True).awaitTermination()
        _, warm = drained_per_s(engine, -1)
        send(n, FIRST_ID + 10**6, None)
        start(spark, config, once=True).awaitTermination()
        per_s, last = drained_per_s(engine, warm)
        query = start(spark, config)
        send(int(rate * seconds), FIRST_ID + 10**7, rate)
        while len(waited := latencies_s(engine, last)) < int(rate * seconds) * 0.999:
            time.sleep(0.5)
        query.stop()
        spark.stop()
    return {
        "alerts_per_s": per_s,
        "fastavro_alerts_per_s": baseline,
        "ratio": per_s / baseline,
        "latency_p50_s": float(np.median(waited)),
        "latency_p99_s": float(np.quantile(waited, 0.99)),
        "n": n,
        "rate_per_s": rate,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    state = Path(tempfile.mkdtemp(prefix="noctule-bench-"))
    try:
        result = run(state, given.packets, given.rate, given.seconds)
    finally:
        shutil.rmtree(state)
    print(
        f"fastavro, full decode alone, one core   {result['fastavro_alerts_per_s']:8.0f} alerts/s"
    )
    print(f"noctule, Kafka to committed rows        {result['alerts_per_s']:8.0f} alerts/s "
          f"({result['ratio']:.1f} times)")  # fmt: skip
    print(f"latency at {given.rate:.0f}/s: median {result['latency_p50_s']:.2f} s, "
          f"99 % {result['latency_p99_s']:.2f} s")  # fmt: skip
    finish(result)


if __name__ == "__main__":
    main()
