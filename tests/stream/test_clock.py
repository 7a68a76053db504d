"""A wall clock that is put back and forth changes what is written down, and nothing else.

What depends on the wall clock are columns named ``*_ms``. Batches are in order by their numbers,
alerts by offset, promotions and labels by their ids, and every deadline is of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

import store.clock
import stream.job
import stream.worker
from active_learning.requests import wishes_of
from benchmarks.kills import differences, mixed, send
from store.accounting_queries import batch_latency_s, last_batch
from store.database import open_database
from store.tables import METADATA, accounting
from stream.audit import audit
from stream.commit import BatchId, commit_sql
from tests.stream.conftest import Night
from tests.stream.kills import plain_stream, two_topics
from tests.stream.test_commit import CLASSES, POLICY, alert, batch

HOUR = 3_600_000
JUMPS = (0, -HOUR, 24 * HOUR, -25 * HOUR, 1, -1)
NOON = 1_790_000_000_000


@contextmanager
def tables() -> Iterator[sa.Engine]:
    """A database in memory."""
    made = open_database("sqlite://")
    METADATA.create_all(made)
    yield made
    made.dispose()


def commit(engine: sa.Engine, number: int, now_ms: int) -> None:
    rows = batch([alert(number, number + 1, arrival_ms=NOON)])
    commit_sql(engine, rows, BatchId("run", number, "s"), wishes_of(rows, POLICY), CLASSES, now_ms)


times = st.lists(st.integers(0, 40), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(times=times, cuts=st.lists(st.integers(0, 41), max_size=3))
def test_the_audit_of_any_time_range_closes_and_all_ranges_cover_all(
    times: list[int], cuts: list[int]
) -> None:
    edges = [0, *sorted(cuts), 41]
    covered: set[int] = set()
    with tables() as engine:
        for number, now_ms in enumerate(times):
            commit(engine, number, now_ms)
        with engine.connect() as connection:
            for since, until in pairwise(edges):
                for part in audit(connection, since_ms=since, until_ms=until):
                    assert part.problems == ()
                    assert part.n_read == part.end_offset - part.start_offset
                    covered |= set(range(part.start_offset, part.end_offset))
    assert covered == set(range(len(times)))


@given(jumps=st.lists(st.sampled_from(JUMPS), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_the_last_batch_is_the_one_with_the_last_number_and_no_latency_is_negative(
    jumps: list[int],
) -> None:
    now_ms = NOON
    with tables() as engine:
        for number, jump in enumerate(jumps):
            now_ms += jump
            commit(engine, number, now_ms)
            with engine.connect() as connection:
                told = batch_latency_s(connection)
                newest = last_batch(connection)
            expected = max(now_ms - NOON, 0) / 1000
            assert told == (expected, expected)
            assert newest is not None
            assert newest.committed_ms == now_ms


class Clock:
    """Jumps at each look."""

    def __init__(self) -> None:
        self.now_ms = store.clock.now_ms()
        self.looks = 0

    def __call__(self) -> int:
        self.now_ms += JUMPS[self.looks % len(JUMPS)]
        self.looks += 1
        return self.now_ms


class Stopped(Exception):  # noqa: N818 - it is no error of the stream
    """The batch was stopped before its commit."""


def test_a_stream_under_a_jumping_clock_loses_nothing(
    night: Night, real_packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    night = two_topics(night, max_alerts_per_batch=20)
    clock = Clock()
    for module in (stream.job, stream.worker):
        monkeypatch.setattr(module, "now_ms", clock)
    topics = night.settings.kafka.alert_topics
    expected = send(night.settings, mixed(real_packets, 120, topics, seed=61))
    replayed: list[str] = []

    def watch(done: str) -> None:
        if done == "sent" and len(replayed) < 3:
            replayed.append(done)
            raise Stopped

    for _ in range(3):
        with pytest.raises(Stopped):
            plain_stream(night.settings, watch)
    plain_stream(night.settings, watch)
    stamps = [row["committed_ms"] for row in night.rows(accounting)]
    assert max(stamps) - min(stamps) > HOUR
    assert differences(night.settings, expected) == []
    with night.engine.connect() as connection:
        told = batch_latency_s(connection)
        assert told is not None
        assert min(told) >= 0
        for edge in stamps:
            for bounds in ({"since_ms": edge}, {"until_ms": edge}):
                assert all(part.problems == () for part in audit(connection, **bounds))


def test_nothing_waits_by_the_wall_clock() -> None:
    """``time.time`` is for stamps; who waits asks ``time.monotonic``."""
    root = Path(__file__).parents[2]
    rooms = ("store", "watch", "stream", "active_learning", "models", "lightcurves")
    users = {
        str(file.relative_to(root))
        for room in rooms
        for file in (root / room).rglob("*.py")
        if "time.time" in file.read_text() or "datetime.now" in file.read_text()
    }
    assert users <= {"store/clock.py", "stream/metrics.py"}
