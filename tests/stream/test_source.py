"""Planning batches and reading exact ranges."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.streaming.datasource import ReadAllAvailable

from deploy.kafka import EmbeddedKafka, create_topics
from lightcurves.errors import UnavailableError
from stream.consumer import Range, RangeReader, Watermarks
from stream.source import AlertStreamReader, PlannedRange, plan_batch
from stream.topic import publish

keys = st.sampled_from([f"t:{k}" for k in range(5)])
offsets = st.dictionaries(keys, st.integers(0, 50), min_size=1)


@given(start=offsets, waiting=offsets, at_most=st.integers(1, 120))
def test_a_plan_never_goes_back_never_too_far_and_takes_what_it_may(
    start: dict[str, int], waiting: dict[str, int], at_most: int
) -> None:
    ends = {key: start.get(key, 0) + n for key, n in waiting.items()}
    goal = plan_batch(start, ends, at_most)
    steps = {key: goal[key] - start.get(key, 0) for key in goal}
    assert all(0 <= steps[key] <= waiting[key] for key in ends)
    assert sum(steps.values()) == min(at_most, sum(waiting.values()))
    assert plan_batch(start, ends, None) == ends


@given(start=offsets, waiting=offsets, at_most=st.integers(1, 120))
def test_plans_one_after_another_reach_the_end(
    start: dict[str, int], waiting: dict[str, int], at_most: int
) -> None:
    ends = {key: start.get(key, 0) + n for key, n in waiting.items()}
    position = dict(start)
    for _ in range(-(-sum(waiting.values()) // at_most)):
        position |= plan_batch(position, ends, at_most)
    assert all(position[key] == end for key, end in ends.items() if waiting[key])


@pytest.fixture(scope="module")
def numbered(kafka: EmbeddedKafka) -> str:
    """A topic of one partition whose messages are their offsets."""
    create_topics(kafka.bootstrap_servers, {"numbered": 1})
    packets = (str(k).encode() for k in range(500))
    publish(packets, bootstrap_servers=kafka.bootstrap_servers, topic="numbered", partition=0)
    return "numbered"


@pytest.fixture
def reader(kafka: EmbeddedKafka, numbered: str) -> Iterator[RangeReader]:
    made = RangeReader(numbered, 0, {"bootstrap.servers": kafka.bootstrap_servers}, 5.0)
    yield made
    made.close()


def read(reader: RangeReader, start: int, end: int, at_most: int = 64) -> list[int]:
    return [int(m.value() or b"") for part in reader.read(start, end, at_most) for m in part]


def test_ranges_in_a_row_lose_and_repeat_nothing(reader: RangeReader) -> None:
    rng = random.Random(3)
    cuts = [0, *sorted(rng.sample(range(1, 500), 20)), 500]
    got = [n for a, b in pairwise(cuts) for n in read(reader, a, b, 7)]
    assert got == list(range(500))


def test_ranges_in_any_order_are_exact(reader: RangeReader) -> None:
    rng = random.Random(4)
    for _ in range(30):
        a, b = sorted(rng.sample(range(501), 2))
        assert read(reader, a, b) == list(range(a, b))


def test_a_range_that_is_left_half_read_does_not_spoil_the_next(reader: RangeReader) -> None:
    parts = reader.read(0, 400, 10)
    next(parts)
    assert read(reader, 200, 220) == list(range(200, 220))
    assert read(reader, 10, 15) == list(range(10, 15))


def test_offsets_that_are_gone_are_an_error_not_a_gap(kafka: EmbeddedKafka, numbered: str) -> None:
    reader = RangeReader(numbered, 0, {"bootstrap.servers": kafka.bootstrap_servers}, 3.0)
    with pytest.raises(UnavailableError, match=r"numbered\[0\] at offset 900"):
        read(reader, 900, 910)
    reader.close()


def test_a_broker_that_is_away_is_said_in_one_line() -> None:
    marks = Watermarks(["alerts"], {"bootstrap.servers": "127.0.0.1:1"}, 1.0)
    with pytest.raises(UnavailableError, match=r"kafka\.bootstrap_servers") as caught:
        marks.now()
    assert "\n" not in str(caught.value)


def test_a_topic_that_is_missing_is_named(kafka: EmbeddedKafka) -> None:
    marks = Watermarks(["no-such-topic"], {"bootstrap.servers": kafka.bootstrap_servers}, 5.0)
    with pytest.raises(UnavailableError, match="no-such-topic"):
        marks.now()


class Bounds(AlertStreamReader):
    """A reader whose topics are what the test says."""

    bounds: ClassVar[dict[str, tuple[int, int]]] = {}

    def _bounds(self) -> dict[str, tuple[int, int]]:
        return self.bounds

    def _choose_version(self) -> str:
        return "m"


def test_a_new_partition_is_noted_first_and_read_from_where_it_begins() -> None:
    reader = Bounds({"starting": "earliest", "max_alerts": "0"})
    start = {"t:0": 4, "model": "m"}
    reader.bounds = {"t:0": (0, 4), "t:1": (100, 130)}  # type: ignore[misc]
    noted = reader.latestOffset(start, ReadAllAvailable())
    assert noted == {"t:0": 4, "t:1": 100, "model": "m"}
    assert reader.partitions(start, noted) == []
    read = reader.latestOffset(noted, ReadAllAvailable())
    (planned,) = reader.partitions(noted, read)
    assert isinstance(planned, PlannedRange)
    assert planned.part == Range("t", 1, 100, 130)
    assert reader.latestOffset(read, ReadAllAvailable()) == read


def test_a_topic_that_was_made_anew_is_refused() -> None:
    reader = Bounds({"starting": "earliest", "max_alerts": "0"})
    reader.bounds = {"t:0": (0, 3)}  # type: ignore[misc]
    with pytest.raises(UnavailableError, match="made anew"):
        reader.latestOffset({"t:0": 812, "model": "m"}, ReadAllAvailable())


def test_offsets_without_a_message_end_a_range(kafka: EmbeddedKafka) -> None:
    create_topics(kafka.bootstrap_servers, {"transactional": 1})
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": "t", "log_level": 2}
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    for k in range(3):
        producer.produce("transactional", str(k).encode())
    producer.commit_transaction(20)
    client = {"bootstrap.servers": kafka.bootstrap_servers}
    marks = Watermarks(["transactional"], client, 5.0)
    (bounds,) = marks.now().values()
    marks.close()
    assert bounds == (0, 4)  # three messages and the commit marker
    reader = RangeReader("transactional", 0, client, 5.0)
    assert read(reader, 0, 4) == [0, 1, 2]
    reader.close()
