"""How large a system has to be for a number of alerts per night, from the cost of an alert.

Without arguments: the arithmetic for 10,000,000 alerts a night in visits of 10,000, each done 10 s after
it began. ``--measure`` first looks at the real packets (how far they can be compressed, and at what
price) and, if PostgreSQL's server is installed, at one that waits for its disk: rows per second with
``synchronous_commit`` on and off, and the bytes of its write-ahead log.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from benchmarks.setting import finish, print_table, real_packets
from benchmarks.tables import BATCH, Survey, commits_per_s
from store.database import migrate, open_database
from tests.postgres import PostgresServer, find_postgres

CODECS: Final = (("lz4_raw", None), ("snappy", None), ("zstd", 1), ("zstd", 3), ("gzip", 6))
COMMITS: Final = 12


@dataclass(frozen=True)
class Cost:
    """What an alert costs: the measured part.

    Attributes
    ----------
    worker_ms, driver_ms, broker_in_ms, broker_out_ms
        Processor time by process; the driver's is that of Python and its JVM, the broker's that of taking
        packets in and of handing them out.
    commit_ms
        Wall time in the one place that nothing else can help: the driver's stages of a batch.
    packet_bytes
        Of a packet, as it lies in Kafka.
    delta_bytes, sql_bytes
        Of its rows, after maintenance.
    """

    worker_ms: float
    driver_ms: float
    broker_in_ms: float
    broker_out_ms: float
    commit_ms: float
    packet_bytes: float
    delta_bytes: float
    sql_bytes: float


@dataclass(frozen=True)
class Night:
    """What comes, and how soon it is to be done.

    Attributes
    ----------
    alerts
        Of a night.
    visit, within_s, every_s
        Alerts of a visit, in how many seconds they come, and from one visit to the next.
    done_s
        Seconds from a visit's first alert to its last committed row.
    """

    alerts: float
    visit: float
    within_s: float
    every_s: float
    done_s: float


def sized(cost: Cost, night: Night, load: float) -> dict[str, float]:
    """Return what is needed, cores at work for the share `load` of the time while a visit lasts."""
    per_s, came_per_s = night.visit / night.done_s, night.visit / night.within_s
    return {
        "alerts_per_s": per_s,
        "alerts_per_s_all_night": night.visit / night.every_s,
        "worker_cores": per_s * cost.worker_ms / 1000 / load,
        "driver_cores": per_s * cost.driver_ms / 1000 / load,
        "broker_cores": (came_per_s * cost.broker_in_ms + per_s * cost.broker_out_ms) / 1000 / load,
        "driver_limit_per_s": 1000 / cost.commit_ms,
        "backlog_h": night.alerts / min(1000 / cost.commit_ms, per_s) / 3600,
        "gbit_per_s_in": 8 * came_per_s * cost.packet_bytes / 1e9,
        "gbit_per_s_out": 8 * per_s * cost.packet_bytes / 1e9,
        "gbit_per_s_all_night": 8 * night.visit * cost.packet_bytes / night.every_s / 1e9,
        "kafka_gb_a_night": night.alerts * cost.packet_bytes / 1e9,
        "delta_gb_a_night": night.alerts * cost.delta_bytes / 1e9,
        "sql_gb_a_night": night.alerts * cost.sql_bytes / 1e9,
    }


def compression() -> list[dict[str, Any]]:
    """Return, by codec, what is left of the real packets and the price, each packet by itself."""
    packets = real_packets()
    n_bytes = sum(map(len, packets))
    trials = []
    for name, level in CODECS:
        codec = pa.Codec(name, compression_level=level)
        begin = time.process_time()
        small = [codec.compress(packet, asbytes=True) for packet in packets]
        middle = time.process_time()
        for one, packet in zip(small, packets, strict=True):
            codec.decompress(one, len(packet), asbytes=True)
        end = time.process_time()
        trials.append(
            {
                "codec": name if level is None else f"{name} {level}",
                "left": sum(map(len, small)) / n_bytes,
                "compress_ms": 1e3 * (middle - begin) / len(packets),
                "decompress_ms": 1e3 * (end - middle) / len(packets),
            }
        )
    return trials


def commits() -> list[dict[str, Any]]:
    """Return rows a second and bytes of log a row of a PostgreSQL that waits for its disk."""
    programs = find_postgres()
    if programs is None:
        return []
    rates = []
    with PostgresServer(programs, ("-c", "max_wal_size=8GB")) as server:
        for value in ("on", "off"):
            url = server.new_database()
            engine = open_database(url)
            migrate(engine)
            name = url.rpartition("/")[2]
            with engine.begin() as connection:
                connection.execute(
                    sa.text(f"alter database {name} set synchronous_commit = {value}")
                )
            engine.dispose()
            before = _log_position(engine)
            per_s = commits_per_s(engine, Survey(BATCH * COMMITS), 0, COMMITS)
            log_bytes = (_log_position(engine) - before) / (BATCH * COMMITS)
            engine.dispose()
            rates.append({"synchronous_commit": value, "rows_per_s": per_s, "log_bytes": log_bytes})
    return rates


def _log_position(engine: sa.Engine) -> int:
    query = sa.text("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=float, default=1e7, help="of a night")
    parser.add_argument("--visit", type=float, default=10_000, help="alerts of a visit")
    parser.add_argument("--within", type=float, default=5.0, help="seconds in which they come")
    parser.add_argument("--every", type=float, default=39.0, help="seconds between visits")
    parser.add_argument("--done", type=float, default=10.0, help="seconds until a visit is done")
    parser.add_argument("--worker-ms", type=float, default=0.48)
    parser.add_argument("--driver-ms", type=float, default=0.16, help="Python and its JVM")
    parser.add_argument("--broker-in-ms", type=float, default=0.40, help="to take a packet in")
    parser.add_argument("--broker-out-ms", type=float, default=0.07, help="to hand it out")
    parser.add_argument(
        "--commit-ms", type=float, default=0.20, help="the driver's stages, wall time"
    )
    parser.add_argument("--packet-kb", type=float, default=262)
    parser.add_argument("--delta-kb", type=float, default=2.3)
    parser.add_argument("--sql-kb", type=float, default=0.99)
    parser.add_argument(
        "--load", type=float, default=0.5, help="share of time that a core may work"
    )
    parser.add_argument("--measure", action="store_true")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    if args.measure:
        result = {"compression": compression(), "commits": commits()}
        for rows in result.values():
            if rows:
                lines = [tuple(f"{v:.3g}" if isinstance(v, float) else v for v in row.values())
                         for row in rows]  # fmt: skip
                print_table(tuple(rows[0]), lines)
    cost = Cost(
        args.worker_ms, args.driver_ms, args.broker_in_ms, args.broker_out_ms, args.commit_ms,
        1e3 * args.packet_kb, 1e3 * args.delta_kb, 1e3 * args.sql_kb,
    )  # fmt: skip
    night = Night(args.alerts, args.visit, args.within, args.every, args.done)
    needed = sized(cost, night, args.load)
    print_table(("", "needed"), [(name, f"{value:,.2f}") for name, value in needed.items()])
    finish(result | needed)


if __name__ == "__main__":
    main()
