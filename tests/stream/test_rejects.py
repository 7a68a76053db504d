"""Bad packets: each kept with its reason and its bytes, and the good ones around it scored."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from confluent_kafka import Consumer

from benchmarks.kills import environment
from store.tables import accounting, classifications, duplicates, rejected
from tests.stream.conftest import Night


def consume_all(night: Night, topic: str, n: int) -> list[tuple[bytes, dict[str, Any]]]:
    consumer = Consumer(
        {
            "bootstrap.servers": str(night.settings.kafka.bootstrap_servers),
            "group.id": topic,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    got: list[tuple[bytes, dict[str, Any]]] = []
    while len(got) < n:
        messages = consumer.consume(n, 20.0)
        assert messages, f"{len(got)} of {n} messages in {topic}"
        got += [(m.value() or b"", dict(m.headers() or [])) for m in messages]
    consumer.close()
    return got


def test_four_bad_packets_between_good_ones(night: Night, real_packets: list[bytes]) -> None:
    good = real_packets[:6]
    bad = {
        "bad_frame": b"garbage, and no alert",
        "empty_message": b"",
        "truncated": good[1][: len(good[1]) // 3],
        "unknown_schema": b"\0\0\0\0\7" + good[2][5:],
    }
    mixed = [good[0], bad["bad_frame"], good[1], bad["empty_message"], good[2], bad["truncated"], good[3],
             bad["unknown_schema"], good[4], good[5]]  # fmt: skip
    night.publish(mixed, partition=0)
    night.run()

    assert len(night.rows(classifications)) == len(good)
    kept = {row["reason"]: row for row in night.rows(rejected)}
    assert {reason: row["packet"] for reason, row in kept.items()} == bad
    assert [row["kafka_offset"] for row in night.rows(rejected)] == [1, 3, 5, 7]
    assert all(row["detail"] for row in kept.values())

    sent = consume_all(night, night.settings.kafka.rejected_topic, 4)
    assert {headers["reason"].decode(): packet for packet, headers in sent} == bad
    assert len(consume_all(night, night.settings.kafka.classified_topic, len(good))) == len(good)

    part, unread = night.audit()
    assert (unread.run_id, unread.n_waiting) == ("-", 0)
    assert (part.n_read, part.n_rejected, part.n_waiting, part.problems) == (10, 4, 0, ())


def test_a_repeated_alert_is_a_duplicate_whatever_batch_it_comes_in(
    night: Night, real_packets: list[bytes]
) -> None:
    night.publish([real_packets[1], real_packets[2], real_packets[1]], partition=0)
    night.run()
    night.publish([real_packets[2], real_packets[3]], partition=1)
    night.run()
    assert len(night.rows(classifications)) == 3
    repeated = [(row["kafka_partition"], row["kafka_offset"]) for row in night.rows(duplicates)]
    assert repeated == [(0, 2), (1, 0)]
    assert all(part.problems == () for part in night.audit())
    assert sum(row["n_duplicate"] for row in night.rows(accounting)) == 2


def test_an_oversized_packet_is_rejected_unread(night: Night, real_packets: list[bytes]) -> None:
    small = type(night.settings)(
        state=night.settings.state,
        kafka=night.settings.kafka.model_dump(),
        stream={"max_packet_bytes": 100_000},
    )
    night.settings = small
    night.publish(real_packets[:1])
    night.run()
    assert [row["reason"] for row in night.rows(rejected)] == ["too_large"]
    assert night.rows(rejected)[0]["packet"] == real_packets[0]


def test_the_audit_command_exits_with_the_verdict(night: Night, real_packets: list[bytes]) -> None:
    night.publish([real_packets[0], b"garbage"], partition=0)
    night.run()
    command = [sys.executable, "-m", "deploy.cli", "audit"]
    env = environment(night.settings)
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0
    with night.engine.begin() as connection:
        connection.execute(rejected.delete())
    broken = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert broken.returncode == 1
    assert "2 offsets accounted for, 1 in the tables" in broken.stdout


def test_rejected_packets_can_be_replayed_after_a_fix(
    night: Night, real_packets: list[bytes]
) -> None:
    small = type(night.settings)(
        state=night.settings.state,
        kafka=night.settings.kafka.model_dump(),
        stream={"max_packet_bytes": 100_000},
    )
    fixed, night.settings = night.settings, small
    night.publish([real_packets[0], b"garbage"], partition=0)
    night.run()
    assert night.rows(classifications) == []
    night.settings = fixed
    command = [sys.executable, "-m", "deploy.cli", "replay", "--rejected", "--reason", "too_large"]
    sent = subprocess.run(
        command, env=environment(night.settings), check=True, capture_output=True, text=True
    )
    assert "1 packets sent" in sent.stdout
    night.run()
    assert len(night.rows(classifications)) == 1
    assert len(night.rows(rejected)) == 2
    assert all(part.problems == () for part in night.audit())
