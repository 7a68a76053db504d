"""The verdict over the stream, by a clock that the test moves."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.health import Monitor
from stream.lag import Lag
from tests.stream.reports import report
from watch.health import State

PLACE = ("alerts", 0)
STALLED_S = 60.0


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def monitor() -> tuple[Monitor, Clock]:
    clock = Clock()
    return Monitor(Lag({}, from_start=True), stalled_s=STALLED_S, clock=clock), clock


def works_on(watched: Monitor, clock: Clock, seconds: float, *, end: int) -> None:
    """Let time pass in which the main loop looks and Kafka answers."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now = min(until, clock.now + 5.0)
        watched.kafka({PLACE: (0, end)})
        watched.looked({})


def test_a_process_that_starts_is_alive_and_not_ready() -> None:
    watched, clock = monitor()
    clock.now += 10 * STALLED_S
    health = watched.health()
    assert (health.healthy, health.ready) == (True, False)
    assert health.to_json()["status"] == "not ready"


def test_an_idle_query_is_well_for_ever() -> None:
    watched, clock = monitor()
    watched.running()
    works_on(watched, clock, 100 * STALLED_S, end=0)
    assert watched.health().to_json()["status"] == "ok"
    assert watched.health().reasons == ()


def test_a_query_that_ends_no_batch_though_messages_wait_is_stalled() -> None:
    watched, clock = monitor()
    watched.running()
    works_on(watched, clock, STALLED_S, end=7)
    assert watched.health().ready
    works_on(watched, clock, 10.0, end=7)
    health = watched.health()
    assert not health.healthy
    assert "stalled: 7 messages wait" in health.reasons[0]
    watched.batch(report())
    assert watched.health().healthy


def test_a_long_silence_before_the_first_message_is_no_stall() -> None:
    watched, clock = monitor()
    watched.running()
    watched.batch(report())
    works_on(watched, clock, 20 * STALLED_S, end=0)
    works_on(watched, clock, STALLED_S / 2, end=1)
    assert watched.health().ready


@given(st.lists(st.floats(1.0, STALLED_S - 6.0), max_size=20))
def test_batches_that_end_in_time_are_never_a_stall_however_large_the_lag(
    gaps: list[float],
) -> None:
    watched, clock = monitor()
    watched.running()
    for gap in gaps:
        works_on(watched, clock, gap, end=10**9)
        assert watched.health().healthy
        watched.batch(report())


def test_an_outage_is_waited_for_and_then_over() -> None:
    watched, clock = monitor()
    watched.running()
    watched.waiting("Kafka is not available: it does not answer")
    clock.now += 100 * STALLED_S
    health = watched.health()
    assert (health.healthy, health.ready) == (True, False)
    assert health.reasons == ("Kafka is not available: it does not answer",)
    watched.running()
    assert not watched.health().ready  # the next try may be in vain, too
    works_on(watched, clock, 5.0, end=0)
    assert watched.health().ready
    assert watched.n_restarts == 1


def test_a_dead_query_is_neither() -> None:
    watched, _ = monitor()
    watched.running()
    watched.dead("the stream cannot go on: ValueError")
    watched.stopped()
    assert watched.state is State.DEAD
    health = watched.health()
    assert (health.healthy, health.ready) == (False, False)
    assert "ValueError" in health.reasons[0]


def test_a_spark_that_no_longer_answers_is_not_well() -> None:
    watched, clock = monitor()
    watched.running()
    clock.now += STALLED_S + 1
    assert "Spark has not answered" in watched.health().reasons[0]


def test_kafka_that_does_not_say_what_it_holds_makes_it_not_ready() -> None:
    watched, clock = monitor()
    watched.running()
    watched.kafka_is_away("Kafka is not available: no")
    assert (watched.health().healthy, watched.health().ready) == (True, False)
    works_on(watched, clock, 5.0, end=0)
    assert watched.health().ready


def test_a_lag_that_is_no_longer_watched_makes_it_not_ready() -> None:
    watched, clock = monitor()
    watched.running()
    works_on(watched, clock, 5.0, end=0)
    for _ in range(int(STALLED_S)):
        clock.now += 2.0
        watched.looked({})
    assert (watched.health().healthy, watched.health().ready) == (True, False)


def test_the_body_says_what_it_was_judged_by() -> None:
    watched, clock = monitor()
    watched.running()
    works_on(watched, clock, 10.0, end=4)
    watched.batch(report(batch_id=3, latency_s=np.array([2.0, 9.0])))
    watched.looked({PLACE: 3})
    clock.now += 1.0
    assert json.loads(json.dumps(watched.health().to_json())) == {
        "status": "ok",
        "healthy": True,
        "ready": True,
        "reasons": [],
        "state": "running",
        "state_s": 11.0,
        "last_batch": {"batch_id": 3, "age_s": 1.0},
        "lag_messages": 1,
        "lag_s": 3.0 + 3.0,
        "model_version": "20260310-5c1e7a",
        "restarts": 0,
    }
