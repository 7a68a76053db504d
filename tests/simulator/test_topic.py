from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from deploy.kafka import EmbeddedKafka, choose_ports, create_topics
from lightcurves.errors import UnavailableError
from stream import topic as module
from stream.topic import Publisher, publish

MakeTopic = Callable[[int], str]


@pytest.fixture
def make_topic(kafka: EmbeddedKafka) -> MakeTopic:
    def make(partitions: int) -> str:
        name = f"publish-{uuid.uuid4().hex[:8]}"
        create_topics(kafka.bootstrap_servers, {name: partitions})
        return name

    return make


def read_all(bootstrap_servers: str, topic: str, partitions: int, count: int) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "unused"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    messages: list[Message] = []
    deadline = time.monotonic() + 30
    while len(messages) < count and time.monotonic() < deadline:
        messages += consumer.consume(count - len(messages), 0.2)
    messages += consumer.consume(10, 0.5)  # what should not be there
    consumer.close()
    assert all(message.error() is None for message in messages)
    return messages


def test_packets_arrive_once_unchanged_and_in_order(
    kafka: EmbeddedKafka, make_topic: MakeTopic
) -> None:
    topic = make_topic(1)
    packets = [os.urandom(size) for size in (0, 1, 1_000, 2 << 20, 15 << 20)] + [b"x"] * 500
    sent = publish(iter(packets), bootstrap_servers=kafka.bootstrap_servers, topic=topic)
    messages = read_all(kafka.bootstrap_servers, topic, 1, len(packets))
    assert sent == len(packets)
    assert [message.value() for message in messages] == packets
    assert {message.key() for message in messages} == {None}


def test_nothing_is_nothing(kafka: EmbeddedKafka, make_topic: MakeTopic) -> None:
    seen: list[int] = []
    sent = publish(
        [],
        bootstrap_servers=kafka.bootstrap_servers,
        topic=make_topic(1),
        on_progress=seen.append,
    )
    assert (sent, seen) == (0, [0])


def test_partition_and_time_can_be_chosen(kafka: EmbeddedKafka, make_topic: MakeTopic) -> None:
    topic = make_topic(3)
    publish(
        [b"a", b"b"],
        bootstrap_servers=kafka.bootstrap_servers,
        topic=topic,
        partition=2,
        timestamp_ms=1_700_000_000_000,
    )
    messages = read_all(kafka.bootstrap_servers, topic, 3, 2)
    assert {message.partition() for message in messages} == {2}
    assert {message.timestamp()[1] for message in messages} == {1_700_000_000_000}


def test_a_rate_is_kept_and_progress_told(kafka: EmbeddedKafka, make_topic: MakeTopic) -> None:
    seen: list[int] = []
    begin = time.monotonic()
    publish(
        itertools.repeat(b"x", 100),
        bootstrap_servers=kafka.bootstrap_servers,
        topic=make_topic(1),
        rate_per_s=100.0,
        on_progress=seen.append,
    )
    assert time.monotonic() - begin > 0.95
    assert seen == sorted(seen)
    assert seen[-1] == 100
    assert len(seen) >= 3


def test_a_full_queue_waits_and_loses_nothing(kafka: EmbeddedKafka, make_topic: MakeTopic) -> None:
    topic = make_topic(1)
    packets = [bytes([k % 256]) * 1_000 for k in range(300)]
    publish(
        packets,
        bootstrap_servers=kafka.bootstrap_servers,
        topic=topic,
        client={"queue.buffering.max.messages": 2},
    )
    messages = read_all(kafka.bootstrap_servers, topic, 1, len(packets))
    assert [message.value() for message in messages] == packets


def test_a_publisher_stays_open(kafka: EmbeddedKafka, make_topic: MakeTopic) -> None:
    topic = make_topic(1)
    with Publisher(kafka.bootstrap_servers, topic) as publisher:
        for night in (1, 2):
            publisher.send(b"one")
            publisher.send(b"two")
            publisher.flush()
            assert publisher.delivered == 2 * night
    assert len(read_all(kafka.bootstrap_servers, topic, 1, 4)) == 4


def test_a_packet_that_is_too_large_is_told(kafka: EmbeddedKafka, make_topic: MakeTopic) -> None:
    with pytest.raises(UnavailableError, match="too large"):
        publish([b"x" * (17 << 20)], bootstrap_servers=kafka.bootstrap_servers, topic=make_topic(1))


def test_a_packet_that_the_broker_refuses_is_told(
    kafka: EmbeddedKafka, make_topic: MakeTopic
) -> None:
    with pytest.raises(UnavailableError, match=r"1 packet\(s\) not delivered"):
        publish(
            [b"x" * (17 << 20)],
            bootstrap_servers=kafka.bootstrap_servers,
            topic=make_topic(1),
            client={"message.max.bytes": 32 << 20},
        )


def test_a_topic_that_does_not_exist_is_told(kafka: EmbeddedKafka) -> None:
    with pytest.raises(UnavailableError, match=r"topic absent: .*: create the topic first"):
        publish([b"x"], bootstrap_servers=kafka.bootstrap_servers, topic="absent")


def test_a_kafka_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.5)
    port, _ = choose_ports(None)
    with pytest.raises(UnavailableError, match="is it running"):
        publish([b"x"], bootstrap_servers=f"127.0.0.1:{port}", topic="alerts")


def test_an_error_in_the_source_is_not_hidden(kafka: EmbeddedKafka, make_topic: MakeTopic) -> None:
    def broken() -> itertools.chain[bytes]:
        return itertools.chain([b"x"], (bytes(1 // 0) for _ in range(1)))

    with pytest.raises(ZeroDivisionError):
        publish(broken(), bootstrap_servers=kafka.bootstrap_servers, topic=make_topic(1))
