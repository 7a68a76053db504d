"""SIGKILL the whole stream again and again, and check that nothing is lost or duplicated.

A topic of real LSST packets, the smallest ones, with fresh ids; mixed in are packets that come twice,
in the same topic or in another, and packets that cannot be read. ``noctule stream`` runs as a command and
is killed ``--kills`` times, in the middle of a batch or while it starts, its process alone or all of its
group. Then it drains what is left, and everything that was sent is compared with all the
results: the tables, the Delta table, the outgoing topics, the audit. Exits with 1 if they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa
from confluent_kafka import Consumer, KafkaError, TopicPartition
from deltalake import DeltaTable

from benchmarks.live import FIRST_ID, make_champion
from benchmarks.setting import finish, real_packets, with_id
from deploy.kafka import EmbeddedKafka, create_topics
from deploy.places import delta_folder, open_store
from deploy.sections import Settings
from deploy.settings import environment_name
from deploy.wiring import (
    TOPIC_SETTINGS,
    check_kafka,
    kafka_client,
    outgoing_of,
    topic_partitions,
)
from store.delta import dataset_of
from store.tables import accounting, classifications, duplicates, rejected
from stream.audit import audit
from stream.consumer import consumer_settings, offset_of
from stream.outputs import outgoing
from stream.topic import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stream.audit import PartitionAudit

SMALLEST: Final = 12
"""How many different real packets are used, the smallest ones."""
RECENT: Final = 50
REPEATED, CUT, GARBAGE, EMPTY = 0.08, 0.03, 0.015, 0.005
PARTITIONS: Final = 2

Where = tuple[str, int, int]


class Sent(NamedTuple):
    """A packet and where it goes; one that cannot be read has no id."""

    topic: str
    partition: int
    packet: bytes
    dia_source_id: int | None


def mixed(packets: Sequence[bytes], n: int, topics: Sequence[str], seed: int) -> Iterator[Sent]:
    """Give `n` packets over the partitions of `topics`: new ones, repeats and bad ones.

    Parameters
    ----------
    packets
        Real ones; those of :data:`SMALLEST` size are used.
    n, seed
        How many, and which.
    topics
        Each of :data:`PARTITIONS` partitions.
    """
    small = sorted(packets, key=len)[:SMALLEST]
    rng = random.Random(seed)
    recent: deque[tuple[bytes, int]] = deque(maxlen=RECENT)
    for k in range(n):
        where = rng.choice(topics), rng.randrange(PARTITIONS)
        chance = rng.random() - REPEATED
        if chance < 0 and recent:
            base, dia_source_id = rng.choice(recent)
            yield Sent(*where, with_id(base, dia_source_id), dia_source_id)
            continue
        base, dia_source_id = small[k % len(small)], FIRST_ID + k
        packet = with_id(base, dia_source_id)
        if 0 <= chance < CUT:
            yield Sent(*where, packet[: rng.randrange(6, len(packet))], None)
        elif CUT <= chance < CUT + GARBAGE:
            yield Sent(*where, rng.randbytes(rng.randrange(1, 200)), None)
        elif CUT + GARBAGE <= chance < CUT + GARBAGE + EMPTY:
            yield Sent(*where, b"", None)
        else:
            recent.append((base, dia_source_id))
            yield Sent(*where, packet, dia_source_id)


@dataclass
class Expected:
    """What was sent, in a form that fits into memory.

    Attributes
    ----------
    ids
        diaSourceIds that were sent, each at least once.
    readable
        Topic, partition and offset of each readable packet, to its id.
    bad
        The same of each packet that cannot be read, to its digest.
    """

    ids: set[int] = field(default_factory=set)
    readable: dict[Where, int] = field(default_factory=dict)
    bad: dict[Where, str] = field(default_factory=dict)
    _ends: Counter[tuple[str, int]] = field(default_factory=Counter)

    def note(self, sent: Sent) -> None:
        """Record a packet; nothing else may write to its partition."""
        key = sent.topic, sent.partition
        where = (*key, self._ends[key])
        self._ends[key] += 1
        if sent.dia_source_id is None:
            self.bad[where] = digest(sent.packet)
        else:
            self.ids.add(sent.dia_source_id)
            self.readable[where] = sent.dia_source_id

    @property
    def n(self) -> int:
        """How many packets were sent."""
        return len(self.readable) + len(self.bad)


def digest(value: bytes) -> str:
    """Return the digest that represents bytes in comparisons."""
    return hashlib.sha256(value).hexdigest()


def send(settings: Settings, packets: Iterable[Sent]) -> Expected:
    """Publish packets, each into its partition; return what is to come of them."""
    client = dict(kafka_client(settings))
    servers = client.pop("bootstrap.servers")
    expected = Expected()
    publishers: dict[tuple[str, int], Publisher] = {}
    for sent in packets:
        key = sent.topic, sent.partition
        if key not in publishers:
            publishers[key] = Publisher(servers, sent.topic, client=client, partition=key[1])
        publishers[key].send(sent.packet)
        expected.note(sent)
    for publisher in publishers.values():
        publisher.flush()
    return expected


def differences(settings: Settings, expected: Expected) -> list[str]:
    """Compare what was sent with what came of it; a sentence for each difference."""
    engine = open_store(settings)
    try:
        return [
            *_of_audit(audited(settings, engine)),
            *_of_tables(engine, expected),
            *_of_delta(settings, expected),
            *_of_topics(settings, engine),
        ]
    finally:
        engine.dispose()


def audited(settings: Settings, engine: sa.Engine) -> list[PartitionAudit]:
    """Return the audit of the tables and the topics."""
    ends = check_kafka(settings)
    with engine.connect() as connection:
        return audit(connection, ends)


def _of_audit(parts: list[PartitionAudit]) -> Iterator[str]:
    for part in parts:
        yield from (f"audit of {part.topic}:{part.partition}: {text}" for text in part.problems)
        if part.n_waiting != 0:
            yield f"audit of {part.topic}:{part.partition}: {part.n_waiting} waiting"


def _of_tables(engine: sa.Engine, expected: Expected) -> Iterator[str]:
    with engine.connect() as connection:
        ids = connection.execute(sa.select(classifications.c.dia_source_id)).scalars().all()
        both = [*_places(connection, classifications), *_places(connection, duplicates)]
        packets = sa.select(*_where(rejected)).add_columns(rejected.c.packet)
        bad = {(a, b, c): digest(packet) for a, b, c, packet in connection.execute(packets)}
        n_read = connection.execute(sa.select(sa.func.sum(accounting.c.n_read))).scalar()
    yield from _sets("classified", set(ids), expected.ids)
    yield from _sets("classified or duplicate", set(both), set(expected.readable))
    yield from _sets("rejected", set(bad.items()), set(expected.bad.items()))
    if len(both) != len(expected.readable):
        yield f"{len(both)} classified or duplicate, {len(expected.readable)} sent"
    if len(ids) != len(expected.ids):
        yield f"{len(ids)} classified, {len(expected.ids)} different ones sent"
    if n_read != expected.n:
        yield f"{n_read} accounted for, {expected.n} sent"


def _where(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    return table.c.topic, table.c.kafka_partition, table.c.kafka_offset


def _places(connection: sa.Connection, table: sa.Table) -> list[Where]:
    return [(a, b, c) for a, b, c in connection.execute(sa.select(*_where(table)))]


def _of_delta(settings: Settings, expected: Expected) -> Iterator[str]:
    names = ["run_id", "topic", "kafka_partition", "kafka_offset", "dia_source_id"]
    folder = delta_folder(settings)
    dataset = dataset_of(DeltaTable(str(folder)), folder)
    rows = list(zip(*dataset.to_table(names).to_pydict().values(), strict=True))
    if len({row[:4] for row in rows}) != len(rows):
        yield f"Delta: {len(rows) - len({row[:4] for row in rows})} rows are double"
    stored = {(row[1:4], row[4]) for row in rows}
    yield from _sets("in Delta", stored, set(expected.readable.items()))


def _of_topics(settings: Settings, engine: sa.Engine) -> Iterator[str]:
    """Compare the messages in the topics with those that the tables give, byte for byte."""
    sent = outgoing_of(settings)
    routes, topics = sent.routes(), sent.topics().values()
    with engine.connect() as connection:
        query = sa.select(accounting.c.run_id, accounting.c.batch_id).distinct()
        due = {
            _message(m["topic"], m.get("key"), m["value"], m.get("headers"))
            for run_id, batch_id in connection.execute(query).all()
            for m in outgoing(connection, run_id, batch_id, routes)
        }
    yield from _sets("sent", {m for name in topics for m in messages(settings, name)}, due)


Message = tuple[str, str, str, str]


def _message(topic: str, key: str | None, value: bytes, headers: Any) -> Message:
    return topic, key or "", digest(value), repr(headers or [])


def messages(settings: Settings, topic: str) -> list[Message]:
    """Return all messages of a topic, in a form that can be compared."""
    consumer = Consumer(
        consumer_settings(kafka_client(settings)) | {"auto.offset.reset": "earliest"}
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    received: list[Message] = []
    ended: set[int | None] = set()
    while len(ended) < len(partitions):
        for message in consumer.consume(1000, 0.1):
            error = message.error()
            if error is None:
                key = message.key()
                text = key.decode() if isinstance(key, bytes) else key
                received.append(_message(topic, text, message.value() or b"", message.headers()))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name
                assert offset_of(message) >= 0
                ended.add(message.partition())
    consumer.close()
    return received


def _sets(what: str, actual: set[Any], due: set[Any]) -> Iterator[str]:
    for name, rest in (("missing", due - actual), ("too many", actual - due)):
        if rest:
            yield f"{what}: {len(rest)} {name}, {min(rest)} say"


# -- the stream as a command ------------------------------------------------------------------


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which ``noctule`` has these settings, as far as tests change them."""
    kafka, stream = settings.kafka, settings.stream
    names = ("bootstrap_servers", "classified_topic", "novel_topic", "requests_topic",
             "rejected_topic", "timeout_s")  # fmt: skip
    values = {
        "state": str(settings.state),
        "kafka.alert_topics": ",".join(kafka.alert_topics),
        **{f"kafka.{name}": str(getattr(kafka, name)) for name in names},
        "stream.max_alerts_per_batch": str(stream.max_alerts_per_batch),
        "stream.trigger_s": str(stream.trigger_s),
        "stream.starting": stream.starting,
        "stream.lost_offsets": stream.lost_offsets,
        "stream.metrics_port": "0",  # several may run side by side
        "learning.metrics_port": "0",
        "store.url": settings.store.url.get_secret_value(),
        "store.busy_timeout_s": str(settings.store.busy_timeout_s),
    }
    return {**os.environ, **{environment_name(key): value for key, value in values.items()}}


def stream(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    """Start ``noctule stream`` in a process group of its own; its output goes to ``stream.log``."""
    command = [sys.executable, "-m", "deploy.cli", "stream", *arguments]
    with log_of(settings).open("ab") as log:
        return subprocess.Popen(
            command, env=environment(settings), stdout=log, stderr=log, start_new_session=True
        )


def log_of(settings: Settings) -> Path:
    """Return the file of the stream's output."""
    return settings.state / "stream.log"


def living(settings: Settings) -> list[int]:
    """Return the ids of the stream's processes: Python, Java, Spark's workers; no zombies.

    Spark's workers have a process group of their own, so processes are matched by their state folder.
    """
    mark = f"{environment_name('state')}={settings.state}\0".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes() + b"\0":
                    pids.append(int(entry.name))
            except OSError:
                continue
    return pids


def kill(settings: Settings, process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """SIGKILL the stream, its first process or its group, and see that all others go, too."""
    if rng.random() < 0.5:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while left := living(settings):
        assert time.monotonic() < deadline, f"processes of the killed stream live on: {left}"
        time.sleep(0.05)


def n_batches(engine: sa.Engine) -> int:
    """Return how many ranges are accounted for."""
    with engine.connect() as connection:
        query = sa.select(sa.func.count()).select_from(accounting)
        return int(connection.execute(query).scalar_one())


def kill_at_random(settings: Settings, engine: sa.Engine, rng: random.Random) -> str:
    """Start the stream and kill it: one time in four while it starts, else within some batch.

    Returns
    -------
    str
        What it was doing: ``starting``, ``running`` or ``idle`` (everything is done).
    """
    done = n_batches(engine)
    process = stream(settings)
    early_s = rng.uniform(0.0, 12.0) if rng.random() < 0.25 else 90.0
    begin = time.monotonic()
    while n_batches(engine) == done and time.monotonic() < begin + early_s:
        assert process.poll() is None, log_of(settings).read_text()[-2000:]
        time.sleep(0.02)
    phase = "starting" if n_batches(engine) == done else "running"
    if phase == "running":
        time.sleep(rng.uniform(0.0, 1.0))
    kill(settings, process, rng)
    return "idle" if early_s == 90.0 and phase == "starting" else phase


def drain(settings: Settings) -> None:
    """Let the stream read what is left; raises if it fails."""
    status = stream(settings, "--once").wait()
    assert status == 0, log_of(settings).read_text()[-2000:]


def run(state: Path, n: int, kills: int, seed: int) -> dict[str, Any]:
    """Do it all below `state`; the result's ``differences`` are empty if nothing differs."""
    rng = random.Random(seed)
    packets = real_packets()
    with EmbeddedKafka(state / "kafka") as kafka:
        settings = Settings(
            state=state,
            kafka={
                "bootstrap_servers": kafka.bootstrap_servers,
                "alert_topics": ("alerts", "again"),
            },
            stream={"max_alerts_per_batch": max(1, n // (4 * kills)), "trigger_s": 0},
        )
        keep = TOPIC_SETTINGS | {"retention.bytes": "-1", "retention.ms": "-1"}
        create_topics(kafka.bootstrap_servers, topic_partitions(settings, PARTITIONS), keep)
        engine = open_store(settings)
        make_champion(settings, engine)
        begin = time.monotonic()
        expected = send(settings, mixed(packets, n, settings.kafka.alert_topics, seed))
        print(f"{n} packets sent in {time.monotonic() - begin:.0f} s", flush=True)
        begin = time.monotonic()
        phases: Counter[str] = Counter()
        for number in range(kills):
            phases[kill_at_random(settings, engine, rng)] += 1
            print(f"kill {number + 1}: {dict(phases)}, {n_batches(engine)} ranges accounted for, "
                  f"{time.monotonic() - begin:.0f} s", flush=True)  # fmt: skip
        drain(settings)
        seconds = time.monotonic() - begin
        unequal = differences(settings, expected)
        parts = audited(settings, engine)
        engine.dispose()
    names = ("n_read", "n_classified", "n_not_evaluated", "n_duplicate", "n_rejected")
    return {
        "kills": kills,
        "phases": dict(phases),
        "alerts": n,
        "packet_bytes": round(sum(sorted(map(len, packets))[:SMALLEST]) / SMALLEST),
        "audit_closes": not any(part.problems or part.n_waiting for part in parts),
        **{name: sum(getattr(part, name) for part in parts) for name in names},
        "differences": unequal,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--alerts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=20260310)
    args = parser.parse_args()
    state = Path(tempfile.mkdtemp(prefix="noctule-kills-"))
    try:
        result = run(state, args.alerts, args.kills, args.seed)
    finally:
        shutil.rmtree(state)
    for difference in result["differences"]:
        print(difference)
    print(f"{args.kills} kills, {args.alerts} packets of {result['packet_bytes'] / 1e3:.0f} KB: "
          f"{'nothing lost, nothing double' if not result['differences'] else 'WRONG'}")  # fmt: skip
    finish(result)
    sys.exit(1 if result["differences"] else 0)


if __name__ == "__main__":
    main()
