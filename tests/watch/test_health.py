"""The state machine that all processes share, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from active_learning.monitor import LearnerMonitor
from stream.health import Monitor
from watch.health import ProcessMonitor, State
from watch.metrics import exposition, state_metrics


class Worker(ProcessMonitor):
    NAME = "the baker"
    WORKER = "the oven"
    WORK = (State.RUNNING, State.TRAINING)

    def works(self, state: State) -> None:
        self._enter(state)


EVENTS: dict[State, Callable[[Worker], None]] = {
    State.RUNNING: lambda worker: worker.works(State.RUNNING),
    State.TRAINING: lambda worker: worker.works(State.TRAINING),
    State.WAITING: lambda worker: worker.waiting("flour is away"),
    State.DEAD: lambda worker: worker.dead("it melted"),
    State.STOPPED: lambda worker: worker.stopped(),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 100)), max_size=12))
def test_the_verdict_follows_from_the_last_word_and_its_age_from_the_last_change(
    told: list[tuple[State, int]],
) -> None:
    now, since, state = 0.0, 0.0, State.STARTING
    worker = Worker(lambda: now)
    for event, pause in told:
        EVENTS[event](worker)
        entered = State.DEAD if (state, event) == (State.DEAD, State.STOPPED) else event
        since, state = (since if entered is state else now), entered
        now += pause
    health = worker.health()
    assert worker.state is state
    assert health.facts == {"state": str(state), "state_s": now - since}
    assert health.healthy == (state is not State.DEAD)
    assert health.ready == (state in Worker.WORK)
    assert health.reasons == {
        State.STARTING: ("the baker is starting",),
        State.WAITING: ("flour is away",),
        State.DEAD: ("the oven is dead: it melted",),
        State.STOPPED: ("the baker was told to stop",),
    }.get(state, ())


def test_what_ends_the_block_is_a_death_and_goes_on() -> None:
    worker = Worker()
    with worker.until_death():
        worker.works(State.RUNNING)
    assert worker.state is State.RUNNING
    with pytest.raises(ZeroDivisionError), worker.until_death():
        _ = 1 / 0
    assert worker.health().reasons == ("the oven is dead: division by zero",)


@pytest.mark.parametrize("kind", [Monitor, LearnerMonitor, Worker])
def test_a_process_is_about_each_thing_once(kind: type[ProcessMonitor]) -> None:
    states = kind.states()
    assert len(set(states)) == len(states)
    assert set(states) - set(kind.WORK) == set(State) - {
        State.RUNNING,
        State.LOOKING,
        State.TRAINING,
    }


def test_the_metrics_say_what_the_monitor_says() -> None:
    worker = Worker()
    worker.waiting("flour is away")

    class Told:
        def collect(self) -> list[object]:
            return list(state_metrics("bakery", worker))

    lines = exposition(Told()).decode().splitlines()  # type: ignore[arg-type]
    assert [line for line in lines if not line.startswith("#")] == [
        'bakery_state{state="starting"} 0.0',
        'bakery_state{state="running"} 0.0',
        'bakery_state{state="training"} 0.0',
        'bakery_state{state="waiting"} 1.0',
        'bakery_state{state="dead"} 0.0',
        'bakery_state{state="stopped"} 0.0',
        "bakery_healthy 1.0",
        "bakery_ready 0.0",
    ]
