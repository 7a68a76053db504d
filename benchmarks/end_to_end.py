"""Alerts per second from Kafka to committed rows, beside what others do, on one machine.

Real LSST packets with fresh ids; broker, Spark, features, model and all sinks share the cores. In the
same run: fastavro in a plain consumer loop, and Spark's Kafka connector with a Python function that is
called row by row (`benchmarks.connector`); both decode, and do nothing else. Then a backlog drained at
full speed, with its time by stage and by process, and alerts at a steady pace for the latency.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import fastavro
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks.live import TOPIC, Cpu, Live, latencies_s, live, stage_rows
from benchmarks.setting import FRAME_BYTES, finish, print_table
from lightcurves.schemas import package_schemas
from stream.consumer import consumer_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream.report import BatchReport


def fastavro_per_s(servers: str, n: int) -> float:
    """Return how many packets a second a loop of consuming and decoding in full gets through."""
    schema: Any = package_schemas().schema(1000)
    consumer = Consumer(consumer_settings({"bootstrap.servers": servers}))
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    consumer.poll(10.0)
    begin = time.perf_counter()
    for _ in range(n):
        message = consumer.poll(10.0)
        assert message is not None
        packet = message.value()
        assert packet is not None
        fastavro.schemaless_reader(io.BytesIO(packet[FRAME_BYTES:]), schema, None)
    per_s = n / (time.perf_counter() - begin)
    consumer.close()
    return per_s


def connector_per_s(servers: str, at_most: int) -> float:
    """Return the same of Spark's connector and a Python function, in batches of `at_most`."""
    command = [sys.executable, "-m", "benchmarks.connector", servers, str(at_most)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(json.loads(output.splitlines()[-1])["alerts_per_s"])


class Drained(NamedTuple):
    """Alerts a second, and what they cost: processor seconds by process, the batches' reports."""

    n: int
    per_s: float
    cpu_s: dict[str, float]
    reports: Sequence[BatchReport]


def drained(stage: Live, n: int) -> Drained:
    """Send `n` alerts and drain them; look at all batches but the first and the last two.

    A worker prefetches and scores alerts beyond its batch. It does so before both ends of the window, so
    that the window holds neither less nor more work than its alerts need.
    """
    stage.send(n)
    cpus: list[Cpu] = []
    stage.on_batch = lambda: cpus.append(Cpu.now(stage.kafka))
    reports = stage.drain()
    stage.on_batch = None
    first, last = len(stage.reports) - len(reports), len(stage.reports) - 3
    inside = stage.reports[first + 1 : last + 1]
    if not inside:
        raise SystemExit(
            f"{n} alerts are {len(reports)} batches: too few to measure, give more --packets"
        )
    seconds = stage.ended_s[last] - stage.ended_s[first]
    read = sum(report.counts.n_read for report in inside)
    return Drained(read, read / seconds, cpus[-3].since(cpus[0]), inside)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=28_000)
    parser.add_argument("--rate", type=float, default=256.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--baseline", type=int, default=300, help="packets of each; 0: none")
    args = parser.parse_args()
    result: dict[str, Any] = {"n": args.packets, "rate_per_s": args.rate}
    # Looking ahead is off: benchmarks.priority measures its cost.
    with live(kept=args.packets, stream={"priority": "none"}) as stage:
        servers = stage.kafka.bootstrap_servers
        stage.send(max(1_000, 4 * args.baseline))
        if args.baseline:
            result["fastavro_alerts_per_s"] = fastavro_per_s(servers, args.baseline)
            result["connector_alerts_per_s"] = connector_per_s(servers, args.baseline)
        stage.drain()  # starts the workers, compiles
        drain = drained(stage, args.packets)
        result["alerts_per_s"] = per_s = drain.per_s
        for name in ("fastavro", "connector"):
            if f"{name}_alerts_per_s" in result:
                result[f"times_{name}"] = per_s / result[f"{name}_alerts_per_s"]
        query = stage.stream()
        n, before = int(args.rate * args.seconds), len(stage.reports)
        with stage.sender(n, "--rate", str(args.rate)):
            stage.await_read(stage.n_read + n, query)
        waited = latencies_s(stage.reports[before:])
        query.stop()
    result["latency_p50_s"], result["latency_p99_s"] = np.quantile(waited, (0.5, 0.99)).tolist()

    def cells(name: str) -> tuple[str, str]:
        speed = result.get(f"{name}alerts_per_s")
        times = result.get(f"times_{name[:-1]}")
        return "" if speed is None else f"{speed:,.0f}", "" if times is None else f"{times:.1f}"

    print_table(
        ("", "alerts/s", "noctule is times as fast"),
        [
            ("fastavro in a consumer loop, decoding alone, one core", *cells("fastavro_")),
            ("Spark's connector, Python row by row, decoding alone", *cells("connector_")),
            ("noctule, Kafka to committed rows", *cells("")),
        ],
    )
    print_table(("stage", "ms an alert", "of the batch"), stage_rows(drain.reports))
    print_table(
        ("process", "processor, ms an alert"),
        [(who, f"{1e3 * seconds / drain.n:.3f}") for who, seconds in drain.cpu_s.items()],
    )
    p50, p99 = result["latency_p50_s"], result["latency_p99_s"]
    print(f"latency at {args.rate:.0f}/s: median {p50:.2f} s, 99 % {p99:.2f} s\n")
    finish(result | {"stages_ms": {name: float(ms) for name, ms, _ in stage_rows(drain.reports)}})


if __name__ == "__main__":
    main()
