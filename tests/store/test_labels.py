from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.keys import Key
from store.labels import report_label
from store.request_queries import current_labels, label_history, label_queue
from store.tables import labels
from tests.store.conftest import Add

Label = tuple[int, int, float | None]
"""object_id, class_id, confidence"""

ledgers = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([111, 112, 113]),
        st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0]),
    ),
    max_size=12,
)


def report(connection: sa.Connection, object_id: int, class_id: int, **more: Any) -> int:
    values = {"reporter": "me", "now_ms": 1, **more}
    return report_label(connection, survey="lsst", object_id=object_id, class_id=class_id, **values)


def of_lsst(labels: dict[Key, int]) -> dict[int, int]:
    assert {survey for survey, _ in labels} <= {"lsst"}
    return {object_id: class_id for (_, object_id), class_id in labels.items()}


def fold(ledger: list[Label]) -> dict[int, int]:
    """The rule as a textbook would have it."""
    current: dict[int, tuple[float, int]] = {}
    for object_id, class_id, confidence in ledger:
        weight = 0.5 if confidence is None else confidence
        if object_id not in current or weight >= current[object_id][0]:
            current[object_id] = (weight, class_id)
    return {object_id: class_id for object_id, (_, class_id) in current.items()}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ledger=ledgers, data=st.data())
def test_the_current_label_is_a_fold_that_no_order_of_arrival_changes(
    engine: sa.Engine, ledger: list[Label], data: st.DataObject
) -> None:
    """Given the ids, as after a restore from a backup or a replication."""
    rows = [
        {
            "label_id": number,
            "survey": "lsst",
            "object_id": object_id,
            "class_id": class_id,
            "reporter": "me",
            "confidence": confidence,
            "reported_ms": 1,
        }
        for number, (object_id, class_id, confidence) in enumerate(ledger, start=1)
    ]
    with engine.connect() as connection:
        for row in data.draw(st.permutations(rows)):
            connection.execute(labels.insert().values(row))
        assert of_lsst(current_labels(connection)) == fold(ledger)
        connection.rollback()


def test_what_was_reported_is_in_the_history(connection: sa.Connection) -> None:
    first = report(connection, 7, 111, confidence=0.9, redshift=0.02, instrument="FLOYDS")
    second = report(connection, 7, 112, observed_mjd_tai=60_000.5, comment="He lines", now_ms=2)
    report(connection, 8, 113)
    history = label_history(connection, "lsst", 7)
    assert [row["label_id"] for row in history] == [first, second]
    assert [row["class_id"] for row in history] == [111, 112]
    assert history[0]["instrument"] == "FLOYDS"
    assert history[1]["comment"] == "He lines"
    assert label_history(connection, "lsst", 9) == []


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_a_confidence_is_between_0_and_1(connection: sa.Connection, confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        report(connection, 1, 111, confidence=confidence)


def test_a_label_answers_the_request_for_its_object(
    connection: sa.Connection, add_request: Add
) -> None:
    add_request(1)
    add_request(2)
    report(connection, 2, 111)
    (label,) = label_history(connection, "lsst", 2)
    (open_request,) = label_queue(connection)
    answered, still_open = label_queue(connection, only_open=False)[::-1]
    assert open_request["object_id"] == still_open["object_id"] == 1
    assert label["request_id"] == answered["request_id"]
    assert (answered["answered"], answered["answer"]) == (True, 111)
    assert (still_open["answered"], still_open["answer"]) == (False, None)


def test_several_labels_answer_a_request_once(connection: sa.Connection, add_request: Add) -> None:
    add_request(1)
    report(connection, 1, 111, confidence=0.9)
    report(connection, 1, 112, confidence=0.1)
    (answered,) = label_queue(connection, only_open=False)
    assert answered["answer"] == 111


def test_a_label_that_nobody_asked_for_is_kept(connection: sa.Connection) -> None:
    report(connection, 5, 111)
    assert current_labels(connection) == {("lsst", 5): 111}
    assert label_queue(connection, only_open=False) == []


def test_the_queue_is_by_night_and_usefulness(connection: sa.Connection, add_request: Add) -> None:
    add_request(1, night=1, utility=9.0)
    add_request(2, night=2, utility=1.0)
    add_request(3, night=2, utility=2.0)
    assert [row["object_id"] for row in label_queue(connection)] == [3, 2, 1]
    assert [row["object_id"] for row in label_queue(connection, limit=1)] == [3]


def test_an_object_is_requested_once(add_request: Add) -> None:
    add_request(1)
    with pytest.raises(sa.exc.IntegrityError):
        add_request(1, night=60_001)
