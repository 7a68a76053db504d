"""Laws of the lag."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from stream.lag import Lag, offsets_of

PLACE = ("alerts", 0)

steps = st.lists(
    st.tuples(st.floats(0.1, 100), st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=40
)
"""Seconds that pass, messages that come meanwhile, share of what waits that is then committed."""


@given(steps, st.integers(0, 1000))
def test_it_is_what_a_list_of_all_messages_says(
    steps: list[tuple[float, int, float]], before: int
) -> None:
    lag = Lag({PLACE: before}, from_start=True)
    first_seen: list[float] = []
    now, done = 0.0, 0
    for passed, came, share in steps:
        now += passed
        first_seen += [now] * came
        lag.see({PLACE: (0, before + len(first_seen))}, now)
        assert lag.messages() == {PLACE: len(first_seen) - done}
        done += int(share * (len(first_seen) - done))
        lag.commit({PLACE: before + done})
        waits = first_seen[done:]
        lag.see({PLACE: (0, before + len(first_seen))}, now + 0.01)
        assert lag.messages() == {PLACE: len(waits)}
        assert lag.seconds(now + 1) == (now + 1 - waits[0] if waits else 0)


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_new_run_begins_where_it_is_told_to(low: int, n: int) -> None:
    for from_start, waits in ((True, n), (False, 0)):
        lag = Lag({}, from_start=from_start)
        lag.see({PLACE: (low, low + n)}, 0.0)
        assert lag.messages() == {PLACE: waits}


def test_nothing_is_said_before_kafka_was_asked() -> None:
    lag = Lag({PLACE: 3}, from_start=True)
    assert (lag.messages(), lag.seconds(9.0)) == ({}, 0.0)


def test_what_was_there_before_is_as_old_as_the_newest_that_is_through() -> None:
    lag = Lag({PLACE: 0}, from_start=True)
    lag.see({PLACE: (0, 100)}, 50.0)
    assert lag.seconds(60.0) == 10.0
    lag.commit({PLACE: 40})
    lag.handled(-3_000.0)
    assert lag.seconds(60.0) == 3_060.0
    lag.see({PLACE: (0, 101)}, 61.0)
    lag.commit({PLACE: 100})
    assert lag.seconds(62.0) == 1.0


def test_memory_is_bounded_and_the_age_stays_close() -> None:
    lag = Lag({PLACE: 0}, from_start=True)
    n = 50_000
    for at in range(n):
        lag.see({PLACE: (0, at + 1)}, float(at))
    assert len(lag._seen[PLACE].ends) <= 2_000
    for done in (n // 3, n // 2, n - 100, n - 1):
        lag.commit({PLACE: done})
        assert 0 <= lag.seconds(float(n)) - (n - done) < n / 500
    lag.commit({PLACE: n})
    assert lag._seen[PLACE].ends == []


def test_the_query_says_how_far_it_is_in_either_form() -> None:
    offset = '{"a:b:0": 4, "c:11": 5, "model": "20260310-5c1e7a"}'
    assert offsets_of({"sources": [{"endOffset": offset}]}) == {("a:b", 0): 4, ("c", 11): 5}
    assert offsets_of({"sources": [{"endOffset": {"c:11": 5}}]}) == {("c", 11): 5}
    assert offsets_of(None) == {}
    for nothing in (
        "{}",
        '{"sources": []}',
        '{"sources": [{}]}',
        '{"sources": [{"endOffset": null}]}',
    ):
        assert offsets_of(json.loads(nothing)) == {}
