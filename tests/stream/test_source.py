"""Planning batches and reading exact ranges."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Semaphore
from typing import Any, ClassVar, cast

import pytest
from confluent_kafka import Message, Producer
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.streaming.datasource import ReadAllAvailable

import stream.source
from deploy.kafka import EmbeddedKafka, create_topics
from lightcurves.errors import ConfigurationError, UnavailableError
from stream.consumer import Limits, Range, RangeReader, Watermarks
from stream.source import LOOKING, MUCH, AlertStreamReader, PlannedTask, plan_batch
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


Reader = RangeReader[list[int]]
LIMITS = Limits(chunk=7, prefetch=40, timeout_s=5.0)


def numbers(messages: list[Message], version: str) -> list[int]:
    """Read what the messages say, negative for the version "negative"."""
    sign = -1 if version == "negative" else 1
    return [sign * int(message.value() or b"") for message in messages]


@contextmanager
def opened(
    kafka: EmbeddedKafka,
    topic: str,
    work: Callable[[list[Message], str], list[int]] = numbers,
) -> Iterator[Reader]:
    client = {"bootstrap.servers": kafka.bootstrap_servers}
    with ThreadPoolExecutor(2) as pool:
        made = RangeReader((topic, 0), client, work, pool, Semaphore(3), LIMITS)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def reader(kafka: EmbeddedKafka, numbered: str) -> Iterator[Reader]:
    with opened(kafka, numbered) as made:
        yield made


def read(reader: Reader, start: int, end: int, version: str = "") -> list[int]:
    return [n for made, a, b in reader.read(start, end, version) for n in made[a:b]]


def test_ranges_in_a_row_lose_and_repeat_nothing(reader: Reader) -> None:
    rng = random.Random(3)
    cuts = [0, *sorted(rng.sample(range(1, 500), 20)), 500]
    got = [n for a, b in itertools.pairwise(cuts) for n in read(reader, a, b)]
    assert got == list(range(500))


def test_ranges_in_any_order_are_exact(reader: Reader) -> None:
    rng = random.Random(4)
    for _ in range(30):
        a, b = sorted(rng.sample(range(501), 2))
        assert read(reader, a, b) == list(range(a, b))


def test_a_range_that_is_left_half_read_does_not_spoil_the_next(reader: Reader) -> None:
    parts = reader.read(0, 400)
    next(parts)
    assert read(reader, 200, 220) == list(range(200, 220))
    assert read(reader, 10, 15) == list(range(10, 15))


def test_offsets_that_are_gone_are_an_error_not_a_gap(kafka: EmbeddedKafka, numbered: str) -> None:
    with (
        opened(kafka, numbered) as reader,
        pytest.raises(UnavailableError, match=r"numbered\[0\] at offset 900"),
    ):
        read(reader, 900, 910)


def test_another_version_makes_everything_anew(reader: Reader) -> None:
    assert read(reader, 0, 20) == list(range(20))
    assert read(reader, 20, 30, "negative") == [-n for n in range(20, 30)]
    assert read(reader, 30, 45, "negative") == [-n for n in range(30, 45)]
    assert read(reader, 45, 60) == list(range(45, 60))


def test_work_goes_on_beyond_the_range_but_not_for_ever(
    kafka: EmbeddedKafka, numbered: str
) -> None:
    done: list[int] = []

    def noted(messages: list[Message], version: str) -> list[int]:
        found = numbers(messages, version)
        done.extend(found)
        return found

    with opened(kafka, numbered, noted) as reader:
        assert read(reader, 0, 10) == list(range(10))
        deadline = time.monotonic() + 10
        while max(done) < 49 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert 49 <= max(done) < 10 + LIMITS.prefetch + LIMITS.chunk
        n_done = len(done)
        assert read(reader, 10, 40) == list(range(10, 40))
        assert sorted(set(done)) == list(range(max(done) + 1))
        assert len(done) == len(set(done)) >= n_done  # nothing twice


def test_work_that_fails_is_done_again_when_asked_again(
    kafka: EmbeddedKafka, numbered: str
) -> None:
    broken = [True]

    def sometimes(messages: list[Message], version: str) -> list[int]:
        found = numbers(messages, version)
        if broken[0] and 20 in found:
            raise UnavailableError("registry", "away")
        return found

    with opened(kafka, numbered, sometimes) as reader:
        with pytest.raises(UnavailableError, match="away"):
            read(reader, 0, 40)
        with pytest.raises(UnavailableError, match="away"):
            read(reader, 14, 40)
        broken[0] = False
        assert read(reader, 14, 40) == list(range(14, 40))


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


def bounded(
    lost: str = "stop", behind: int = 0, max_alerts: int = 0, tasks: int = 1, pace_s: float = 0.0
) -> Bounds:
    options = {"starting": "earliest", "lost": lost, "behind": str(behind)}
    sizes = {"max_alerts": str(max_alerts), "tasks": str(tasks)}
    return Bounds({**options, **sizes, "pace_s": str(pace_s)})


@given(
    pace_s=st.floats(0, 5),
    comes=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 2)), min_size=1, max_size=12),
    jumps=st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=5),
)
def test_batches_keep_their_pace_whatever_the_wall_clock_says(
    pace_s: float, comes: list[tuple[float, int]], jumps: list[int]
) -> None:
    reader = bounded(pace_s=pace_s)
    now, slept, planned, end = 0.0, [], [], 0
    wall = itertools.cycle(jumps)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream.source.time, "monotonic", lambda: now)  # type: ignore[attr-defined]
        patch.setattr(stream.source.time, "time", lambda: next(wall))  # type: ignore[attr-defined]
        patch.setattr(stream.source.time, "sleep", sleep)  # type: ignore[attr-defined]
        at: dict[str, Any] = {"t:0": 0, "model": "m"}
        for after_s, n in comes:
            now += after_s
            end += n
            reader.bounds = {"t:0": (0, end)}  # type: ignore[misc]
            came = now
            while at["t:0"] < end:
                before, at = at, reader.latestOffset(at, ReadAllAvailable())
                if at != before:
                    planned.append(now)
                assert now <= max(came, (planned or [0.0])[-1]) + pace_s + 0.5
            at = reader.latestOffset(at, ReadAllAvailable())
    assert max(slept, default=0.0) <= 0.2
    assert all(b - a >= pace_s - 1e-6 for a, b in itertools.pairwise(planned))


def test_a_new_partition_is_noted_first_and_read_from_where_it_begins() -> None:
    reader = bounded()
    start = {"t:0": 4, "model": "m"}
    reader.bounds = {"t:0": (0, 4), "t:1": (100, 130)}  # type: ignore[misc]
    noted = reader.latestOffset(start, ReadAllAvailable())
    assert noted == {"t:0": 4, "t:1": 100, "model": "m"}
    assert reader.partitions(start, noted) == []
    read = reader.latestOffset(noted, ReadAllAvailable())
    (planned,) = reader.partitions(noted, read)
    assert isinstance(planned, PlannedTask)
    assert planned.parts == (Range("t", 0, 4, 4), Range("t", 1, 100, 130))
    assert reader.latestOffset(read, ReadAllAvailable()) == read


@given(
    waiting=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    growth=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    behind=st.integers(1, 50),
    max_alerts=st.integers(1, 30),
    look=st.integers(1, 40),
    tasks=st.integers(1, 3),
)
def test_who_is_behind_looks_ahead_once_and_nowhere_else(
    waiting: list[int], growth: list[int], behind: int, max_alerts: int, look: int, tasks: int
) -> None:
    reader = bounded(behind=behind, max_alerts=max_alerts, tasks=tasks)
    at: dict[str, Any] = {f"t:{k}": 0 for k in range(len(waiting))} | {"model": "m"}
    ends = {f"t:{k}": n for k, n in enumerate(waiting)}
    looked: set[tuple[int, int]] = set()
    read: set[tuple[int, int]] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream.source, "LOOK", look)
        for k in range(400):
            reader.bounds = {key: (0, end) for key, end in ends.items()}  # type: ignore[misc]
            end = reader.latestOffset(at, reader.getDefaultReadLimit())
            if end == at:
                break
            tasks_planned = [cast("PlannedTask", task) for task in reader.partitions(at, end)]
            parts = {p for task in tasks_planned for part in task.parts for p in spots(part)}
            ahead = [p for task in tasks_planned for part in task.look_ahead for p in spots(part)]
            assert not parts & read
            read |= parts
            left = sum(ends.values()) - len(read)
            few = max(-(-max_alerts // LOOKING), min(max_alerts, len(waiting)))
            assert len(parts) <= (few if len(ahead) > (MUCH + 1) * max_alerts else max_alerts)
            assert len(ahead) <= look
            assert not set(ahead) & (read | looked)
            mine = {number for number, _ in parts}
            unseen = {
                (int(key[2:]), at) for key, n in ends.items() for at in range(end[key], n)
            } - looked
            assert bool(ahead) == (left > behind and any(number in mine for number, _ in unseen))
            looked |= set(ahead)
            assert {spot for spot in after(end) if spot not in read} <= looked
            at = end
            if k < 3:
                ends = {key: n + step for (key, n), step in zip(ends.items(), growth, strict=False)}
    assert len(read) == sum(ends.values())


def after(offset: dict[str, Any]) -> set[tuple[int, int]]:
    """Return what an offset calls looked at."""
    looked = offset.get("ahead", {})
    return {(int(key[2:]), at) for key, end in looked.items() for at in range(offset[key], end)}


def spots(part: Range) -> set[tuple[int, int]]:
    return {(part.partition, offset) for offset in range(part.start, part.end)}


def test_a_new_partition_is_looked_at_once_it_is_read() -> None:
    reader = bounded(behind=5, max_alerts=4)
    reader.bounds = {"t:0": (0, 100), "t:1": (0, 50)}  # type: ignore[misc]
    start = {"t:0": 0, "model": "m"}
    first = reader.latestOffset(start, reader.getDefaultReadLimit())
    assert first == {"t:0": 1, "t:1": 0, "ahead": {"t:0": 100, "t:1": 0}, "model": "m"}
    then = reader.latestOffset(first, reader.getDefaultReadLimit())
    assert then["ahead"] == {"t:0": 100, "t:1": 50}
    (task,) = reader.partitions(first, then)
    assert cast("PlannedTask", task).look_ahead == (Range("t", 0, 100, 100), Range("t", 1, 1, 50))


def test_who_is_behind_and_hardly_looks_reads_as_much_and_as_seldom_as_ever() -> None:
    """Or a stream that is behind, into which alerts come all the while, would stay so."""
    reader = bounded(behind=5, max_alerts=4, pace_s=8.0)
    at: dict[str, Any] = {"t:0": 0, "model": "m"}
    read, paces = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream.source.time, "monotonic", lambda: 0.0)  # type: ignore[attr-defined]
        for k in range(12):
            reader._next_s = 0.0
            reader.bounds = {"t:0": (0, 100 + 3 * k)}  # type: ignore[misc]
            end = reader.latestOffset(at, reader.getDefaultReadLimit())
            assert end["ahead"] == {"t:0": 100 + 3 * k}
            read.append(end["t:0"] - at["t:0"])
            paces.append(reader._next_s)
            at = end
    assert read == [1] + [4] * 11
    assert paces == [2.0] + [8.0] * 11


def test_what_kafka_no_longer_has_is_not_waited_for() -> None:
    reader = bounded(behind=5, max_alerts=4)
    reader.bounds = {"t:0": (0, 20)}  # type: ignore[misc]
    end = {"t:0": 4, "ahead": {"t:0": 100}, "model": "m"}
    (task,) = reader.partitions({"t:0": 0, "model": "m"}, end)
    assert cast("PlannedTask", task).look_ahead == (Range("t", 0, 4, 20),)


def test_what_is_looked_at_is_what_kafka_still_has() -> None:
    reader = bounded("skip", behind=5, max_alerts=4)
    reader.bounds = {"t:0": (0, 100)}  # type: ignore[misc]
    end = reader.latestOffset({"t:0": 0, "model": "m"}, reader.getDefaultReadLimit())
    assert end == {"t:0": 1, "ahead": {"t:0": 100}, "model": "m"}
    reader.bounds = {"t:0": (60, 100)}  # type: ignore[misc]
    (task,) = reader.partitions({"t:0": 0, "model": "m"}, end)
    assert cast("PlannedTask", task).look_ahead == (Range("t", 0, 60, 100),)


def test_what_kafka_removed_before_it_was_read_stops_the_stream() -> None:
    reader = bounded()
    reader.bounds = {"t:0": (9, 20), "t:1": (3, 4)}  # type: ignore[misc]
    with pytest.raises(
        ConfigurationError, match=r"offsets before .*: 4 to 8 of t:0\. Set stream\.l"
    ):
        reader.latestOffset({"t:0": 4, "t:1": 3, "model": "m"}, ReadAllAvailable())


def test_so_does_what_it_removed_before_a_replay() -> None:
    reader = bounded()
    reader.bounds = {"t:0": (9, 20)}  # type: ignore[misc]
    with pytest.raises(ConfigurationError, match=r": 4 to 8 of t:0\."):
        reader.partitions({"t:0": 4, "model": "m"}, {"t:0": 12, "model": "m"})


def test_or_is_skipped_and_counted() -> None:
    reader = bounded("skip")
    reader.bounds = {"t:0": (9, 20), "t:1": (30, 30), "t:2": (0, 5)}  # type: ignore[misc]
    start = {"t:0": 4, "t:1": 3, "t:2": 5, "model": "m"}
    end = reader.latestOffset(start, ReadAllAvailable())
    (planned,) = reader.partitions(start, end)
    assert isinstance(planned, PlannedTask)
    some, all_lost, idle = planned.parts
    assert (some, all_lost) == (Range("t", 0, 9, 20, 5), Range("t", 1, 30, 30, 27))
    assert [part.is_empty for part in (some, all_lost, idle)] == [False, False, True]


def test_a_topic_that_was_made_anew_is_refused() -> None:
    reader = bounded()
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
    deadline = time.monotonic() + 20
    while marks.now() != {("transactional", 0): (0, 4)}:  # three messages and the commit marker
        assert time.monotonic() < deadline
        time.sleep(0.05)
    marks.close()
    with opened(kafka, "transactional") as reader:
        assert read(reader, 0, 4) == [0, 1, 2]
