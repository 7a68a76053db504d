"""The life of a request: what its events come to, and what cannot follow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightcurves.errors import ConfigurationError
from store.labels import report_label
from store.request_queries import event_history, label_queue, request_queue, requests_of
from store.requests import CLOSING, RefusedEventError, Report, append_event
from store.tables import label_requests, request_events
from tests.store.conftest import Add, request

OPEN = ("asked", "seen", "claimed", "planned", "observed")


def append(connection: sa.Connection, request_id: int, event: str, **more: Any) -> int:
    return append_event(connection, request_id, event, **{"who": "me", "at_ms": 5, **more})


def label(connection: sa.Connection, object_id: int, survey: str = "lsst") -> None:
    report_label(
        connection, survey=survey, object_id=object_id, class_id=111, reporter="you", now_ms=9
    )


def ids(rows: Any) -> list[int]:
    return [row["request_id"] for row in rows]


def fold(ledger: list[tuple[int, str]]) -> dict[int, str]:
    """The rule as a textbook would have it: what closed a request, else what was said last."""
    state: dict[int, str] = {}
    for request_id, event in ledger:
        if event in CLOSING or state.get(request_id) not in CLOSING:
            state[request_id] = event
    return state


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ledger=st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(OPEN + CLOSING)), min_size=1, max_size=12
    ),
    data=st.data(),
)
def test_the_state_is_a_fold_that_no_order_of_arrival_changes(
    engine: sa.Engine, ledger: list[tuple[int, str]], data: st.DataObject
) -> None:
    """Given the ids, as after a restore from a backup; two who close a request at once, too."""
    rows = [
        {"event_id": 100 + at, "request_id": request_id, "event": event, "who": "me", "at_ms": 1}
        for at, (request_id, event) in enumerate(ledger)
    ]
    expected = fold(ledger)
    with engine.connect() as connection:
        for request_id in (1, 2, 3):
            connection.execute(sa.insert(label_requests).values(a_request(request_id)))
        for row in data.draw(st.permutations(rows)):
            connection.execute(request_events.insert().values(row))
        every = label_queue(connection, only_open=False)
        still_open = label_queue(connection)
        waiting = request_queue(connection).n_open
        connection.rollback()
    assert {row["request_id"]: row["state"] for row in every} == expected
    closed = {request_id for request_id, state in expected.items() if state in CLOSING}
    assert set(ids(still_open)) == set(expected) - closed
    assert waiting == 3 - len(closed)
    assert {row["request_id"] for row in every if row["answered"]} == {
        request_id for request_id, state in expected.items() if state == "answered"
    }


def a_request(request_id: int) -> dict[str, Any]:
    return request(request_id) | {"request_id": request_id}


def test_a_request_goes_through_its_life(connection: sa.Connection, add_request: Add) -> None:
    add_request(7)
    (asked,) = label_queue(connection)
    assert (asked["state"], asked["state_who"]) == ("asked", "entropy in run live")
    assert (asked["state_ms"], asked["state_why"]) == (1, "uncertain")
    for at, event in enumerate(("seen", "claimed", "planned", "observed"), start=10):
        append(connection, asked["request_id"], event, who=f"team {at}", at_ms=at, why=event)
        (row,) = label_queue(connection)
        assert (row["state"], row["state_who"], row["state_ms"]) == (event, f"team {at}", at)
        assert (row["answered"], row["answer"]) == (False, None)
    label(connection, 7)
    assert label_queue(connection) == []
    (answered,) = requests_of(connection, "lsst", 7)
    assert (answered["state"], answered["state_who"], answered["state_ms"]) == (
        "answered",
        "you",
        9,
    )
    assert (answered["answered"], answered["answer"]) == (True, 111)
    events = event_history(connection, [asked["request_id"]])
    assert [row["event"] for row in events] == [*OPEN, "answered"]


@pytest.mark.parametrize("closing", ["withdrawn", "expired", "answered"])
def test_nothing_follows_on_what_closes_a_request(
    connection: sa.Connection, add_request: Add, closing: str
) -> None:
    add_request(7)
    (request_id,) = ids(label_queue(connection))
    if closing == "answered":
        label(connection, 7)
    else:
        append(connection, request_id, closing)
    before = event_history(connection, [request_id])
    for event in get_args(Report):
        with pytest.raises(RefusedEventError, match=f"it is {closing}, which closed it") as error:
            append(connection, request_id, event)
        assert error.value.state == closing
    label(connection, 7)
    assert event_history(connection, [request_id]) == before


def test_what_no_event_can_be(connection: sa.Connection, add_request: Add) -> None:
    add_request(7)
    (request_id,) = ids(label_queue(connection))
    for event in ("asked", "answered", "forgotten"):  # the first two come with request and label
        with pytest.raises(ConfigurationError, match="choose one of seen, claimed"):
            append(connection, request_id, event)
    with pytest.raises(ConfigurationError, match="who reports it"):
        append(connection, request_id, "seen", who="  ")
    with pytest.raises(RefusedEventError, match="there is no such request"):
        append(connection, request_id + 1, "seen")


def test_a_label_answers_every_open_request_of_its_object_alone(
    connection: sa.Connection, add_request: Add
) -> None:
    for program in ("noctule", "thesis", "night watch"):
        add_request(7, program=program)
    add_request(7, survey="ztf")
    add_request(8)
    first, second, third, *others = ids(label_queue(connection))
    append(connection, second, "withdrawn")
    label(connection, 7)
    assert ids(label_queue(connection)) == others
    states = {row["request_id"]: row["state"] for row in requests_of(connection, "lsst", 7)}
    assert states == {first: "answered", second: "withdrawn", third: "answered"}
    label(connection, 7, survey="ztf")
    assert [row["object_id"] for row in label_queue(connection)] == [8]


def test_two_programs_want_an_object_and_each_once(
    connection: sa.Connection, add_request: Add
) -> None:
    add_request(7)
    add_request(7, program="thesis")
    assert len(label_queue(connection)) == 2
    (theirs,) = label_queue(connection, program="thesis")
    assert theirs["program"] == "thesis"
    with pytest.raises(sa.exc.IntegrityError):
        add_request(7, program="thesis")


def test_who_comes_while_a_request_is_being_closed_is_refused(
    engine: sa.Engine, add_request: Add, connection: sa.Connection
) -> None:
    add_request(7)
    (request_id,) = ids(label_queue(connection))
    connection.commit()

    def observe() -> None:
        with engine.begin() as other:
            append(other, request_id, "observed")

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as first:
            label(first, 7)
            late = pool.submit(observe)
            with pytest.raises(TimeoutError):
                late.result(0.3)
        with pytest.raises(RefusedEventError, match="it is answered"):
            late.result(20)
