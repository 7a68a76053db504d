"""The champion's newest score before the label against the labels that came back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sqlalchemy as sa

from portal.views import judge
from store import object_queries, tables
from tests.portal import night

MODEL = "20260311-b07d42"


def add_alert(
    connection: sa.Connection, number: int, t: float, processed_ms: int, p: float
) -> None:
    row = night.alert(1, number, t, t, 111, 0.1, np.random.default_rng(0))
    row |= {"probabilities": {"111": p, "112": 1 - p}, "processed_ms": processed_ms}
    connection.execute(tables.classifications.insert().values(row))


def test_only_what_was_said_before_the_first_label_counts(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        add_alert(connection, 1, 1.0, 100, 0.2)
        add_alert(connection, 2, 2.0, 200, 0.7)
        add_alert(connection, 3, 3.0, 400, 0.99)
        night.add_label(connection, 1, class_id=112, confidence=0.5, now_ms=300)
        night.add_label(connection, 1, class_id=111, confidence=0.9, now_ms=500)
        scored = object_queries.scores_before_labels(connection, MODEL)
        assert scored == [(111, {111: 0.7, 112: pytest.approx(0.3)})]
        assert object_queries.scores_before_labels(connection, "another") == []


def test_a_label_before_any_score_tells_nothing(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        add_alert(connection, 1, 1.0, 100, 0.2)
        night.add_label(connection, 1, class_id=111, now_ms=50)
        assert object_queries.scores_before_labels(connection, MODEL) == []


def test_an_unknown_class_costs_the_floor() -> None:
    found = judge([(111, {111: 0.5, 112: 0.5}), (132, {111: 1.0})])
    assert found.n_labels == 2
    assert found.accuracy == 0.5
    assert found.log_loss == pytest.approx((math.log(2) + math.log(1000)) / 2)
    assert judge([]).log_loss is None
