"""Figures of merit against scikit-learn's and against answers known by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax
from sklearn import metrics

from lightcurves.errors import ConfigurationError
from models.evaluation import (
    PROBABILITY_FLOOR,
    auroc,
    evaluate,
    expected_calibration_error,
    log_loss,
    macro_f1,
    row_losses,
    true_classes,
)
from models.novelty import RankProduct, entropy_of

seeds = st.integers(0, 2**32 - 1)
LAW = settings(max_examples=60, deadline=None)


def drawn(seed: int, n: int = 60, width: int = 4) -> tuple[Any, Any, Any]:
    chance = np.random.default_rng(seed)
    p = softmax(2 * chance.normal(size=(n, width)), axis=1)
    return p, chance.integers(0, width, n), chance.uniform(0.1, 2, n)


@LAW
@given(seeds)
def test_log_loss_is_scikit_learns(seed: int) -> None:
    p, truth, weights = drawn(seed)
    p = softmax(np.log(np.maximum(p, 0.01)), axis=1)  # above the floor
    expected = metrics.log_loss(truth, p, labels=range(4), sample_weight=weights)
    assert log_loss(p, truth, weights) == pytest.approx(expected)
    assert log_loss(p, truth) == pytest.approx(metrics.log_loss(truth, p, labels=range(4)))


def test_log_loss_has_a_floor_and_charges_it_for_the_unknown() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    losses = row_losses(p, np.array([1, -1, 0]))
    floor = -np.log(PROBABILITY_FLOOR)
    np.testing.assert_allclose(losses, [floor, floor, np.log(2)])


@LAW
@given(seeds, st.integers(1, 40))
def test_macro_f1_is_scikit_learns(seed: int, n: int) -> None:
    p, truth, weights = drawn(seed, n)
    guess = p.argmax(axis=1)
    for given_weights in (None, weights):
        expected = metrics.f1_score(
            truth,
            guess,
            average="macro",
            labels=np.unique(truth),
            zero_division=0.0,
            sample_weight=given_weights,
        )
        assert macro_f1(guess, truth, 4, given_weights) == pytest.approx(expected)


def test_macro_f1_of_nothing_is_not_a_number() -> None:
    assert np.isnan(macro_f1(np.zeros(0, int), np.zeros(0, int), 3))


@LAW
@given(seeds)
def test_auroc_is_scikit_learns_with_ties(seed: int) -> None:
    chance = np.random.default_rng(seed)
    strange, ordinary = chance.integers(2, 9, 30) / 4, chance.integers(0, 7, 50) / 4
    weights = chance.uniform(0.1, 2, 80)
    truth, scores = [1] * 30 + [0] * 50, [*strange, *ordinary]
    assert auroc(strange, ordinary) == pytest.approx(metrics.roc_auc_score(truth, scores))
    expected = metrics.roc_auc_score(truth, scores, sample_weight=weights)
    assert auroc(strange, ordinary, (weights[:30], weights[30:])) == pytest.approx(expected)
    assert auroc(strange, ordinary) + auroc(ordinary, strange) == pytest.approx(1)


def test_auroc_of_nothing_is_not_a_number() -> None:
    assert np.isnan(auroc(np.zeros(0), np.ones(3)))
    assert np.isnan(auroc(np.ones(3), np.zeros(0)))


@LAW
@given(seeds)
def test_calibration_error_is_the_textbooks(seed: int) -> None:
    p, truth, weights = drawn(seed)
    total = 0.0
    for k in range(15):
        low, high = k / 15, (k + 1) / 15
        inside = [
            row
            for row in range(len(p))
            if low <= p[row].max() < high or (k == 14 and p[row].max() == 1)
        ]
        right = sum(weights[row] * (p[row].argmax() == truth[row]) for row in inside)
        sure = sum(weights[row] * p[row].max() for row in inside)
        total += abs(sure - right) / weights.sum()
    assert expected_calibration_error(p, truth, weights) == pytest.approx(total)


def test_calibration_error_of_extremes() -> None:
    sure = np.array([[1.0, 0.0]] * 4)
    assert expected_calibration_error(sure, np.zeros(4, int)) == 0.0
    assert expected_calibration_error(sure, np.ones(4, int)) == 1.0
    assert expected_calibration_error(sure, np.array([0, 0, 0, 1])) == 0.25


@LAW
@given(seeds)
def test_entropy_is_scipys_and_bounded(seed: int) -> None:
    p, _, _ = drawn(seed)
    np.testing.assert_allclose(entropy_of(p), stats.entropy(p, axis=1))
    assert (entropy_of(p) <= np.log(4) + 1e-12).all()
    assert entropy_of(np.array([[1.0, 0.0, 0.0]])).tolist() == [0.0]
    assert entropy_of(np.full((1, 8), 1 / 8))[0] == pytest.approx(np.log(8))


# -- novelty ---------------------------------------------------------------------------------------


def two(isolation: NDArray[np.float64], entropy: NDArray[np.float64]) -> dict[str, Any]:
    """What two detectors found."""
    return {"isolation": isolation, "entropy": entropy}


def test_novelty_is_large_only_where_both_are() -> None:
    chance = np.random.default_rng(1)
    scale = RankProduct.fit(two(chance.normal(size=2_000), chance.exponential(size=2_000)))
    high, low = 9.0, -9.0
    assert scale.novelty_of(
        two(np.array([high, high, low, low]), np.array([high, low, high, low]))
    ).tolist() == [1, 0, 0, 0]
    score = scale.novelty_of(two(chance.normal(size=500), chance.exponential(size=500)))
    assert ((score >= 0) & (score <= 1)).all()


@LAW
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=2), st.floats(0, 5))
def test_novelty_grows_with_each_part(where: list[float], more: float) -> None:
    here = SCALE.novelty_of(two(np.array(where[:1]), np.array(where[1:])))
    assert SCALE.novelty_of(two(np.array(where[:1]) + more, np.array(where[1:]))) >= here
    assert SCALE.novelty_of(two(np.array(where[:1]), np.array(where[1:]) + more)) >= here


def test_the_false_alarm_rate_is_the_rate_of_false_alarms() -> None:
    chance = np.random.default_rng(2)
    parts = chance.normal(size=(2, 4_000))
    scale = RankProduct.fit(two(*parts))
    fresh = scale.novelty_of(two(*chance.normal(size=(2, 4_000))))
    rate = scale.false_alarm_rate(fresh)
    for wanted in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(rate <= wanted) == pytest.approx(
            wanted, abs=4 * np.sqrt(wanted / 4_000) + 0.005
        )


SCALE: RankProduct = RankProduct.fit(two(*np.random.default_rng(3).normal(size=(2, 300))))


# -- evaluate --------------------------------------------------------------------------------------


def scores(rows: list[dict[str, Any]]) -> pa.Table:
    usual = {
        "p_111": 0.5,
        "p_112": 0.5,
        "prediction_set": [111, 112],
        "novelty": 0.5,
        "reason": None,
    }
    reals = ("p_111", "p_112", "novelty", "days_since_first_detection")
    types = {
        "object_id": pa.int64(),
        "prediction_set": pa.list_(pa.int32()),
        "reason": pa.string(),
        **dict.fromkeys(reals, pa.float64()),
    }
    names = {**usual, **rows[0]}
    return pa.table(
        {
            name: pa.array([{**usual, **row}.get(name) for row in rows], types[name])
            for name in names
        }
    )


def objects(**labels: int | None) -> pa.Table:
    ids = [int(name[1:]) for name in labels]
    return pa.table({"object_id": pa.array(ids, pa.int64()),
                     "class_id": pa.array(list(labels.values()), pa.int32())})  # fmt: skip


def test_known_answers() -> None:
    table = scores(
        [
            {"object_id": 1, "p_111": 0.8, "p_112": 0.2, "prediction_set": [111], "novelty": 0.1},
            {"object_id": 1, "p_111": 0.6, "p_112": 0.4, "prediction_set": [111, 112], "novelty": 0.2},
            {"object_id": 2, "p_111": 0.9, "p_112": 0.1, "prediction_set": [111], "novelty": 0.3},
            {"object_id": 3, "novelty": 0.9},
            {"object_id": 4, "novelty": 0.25},
            {"object_id": 5},
            {"object_id": 2, "p_111": None, "p_112": None, "prediction_set": None, "novelty": None,
             "reason": "no_finite_flux"},
        ]
    )  # fmt: skip
    found = evaluate(table, objects(o1=111, o2=112, o3=221, o4=221, o5=None))
    assert found["n_rows"] == 7
    assert found["n_not_evaluated"] == {"no_finite_flux": 1}
    assert found["n_scored"] == 5
    assert found["n_objects"] == 4
    mean_of_object_1 = -(np.log(0.8) + np.log(0.6)) / 2
    assert found["log_loss"] == pytest.approx((mean_of_object_1 - np.log(0.1)) / 2)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["coverage"] == pytest.approx(0.5)
    assert found["set_size"] == pytest.approx((1.5 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((2 * 1 / (2 * 1 + 1) + 0) / 2)
    # Strange 0.9 beats all of 0.1, 0.2, 0.3; 0.25 beats the first two, which are one object's.
    assert found["novelty_auroc"] == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert found["novelty_auroc_by_class"] == {"AGN": pytest.approx(3 / 4)}
    assert "by_days" not in found


def test_days_are_told_apart() -> None:
    table = scores(
        [
            {"object_id": 1, "days_since_first_detection": 0.0, "p_111": 0.5, "p_112": 0.5},
            {"object_id": 1, "days_since_first_detection": 0.99, "p_111": 0.7, "p_112": 0.3},
            {"object_id": 1, "days_since_first_detection": 40.0, "p_111": 0.9, "p_112": 0.1},
            {"object_id": 1, "days_since_first_detection": 4_000.0, "p_111": 0.95, "p_112": 0.05},
        ]
    )  # fmt: skip
    days = evaluate(table, objects(o1=111))["by_days"]
    assert [(d["from_days"], d["to_days"], d["n_scored"]) for d in days] == [
        (0.0, 1.0, 2), (30.0, 60.0, 1), (180.0, None, 1),
    ]  # fmt: skip
    assert days[1]["log_loss"] == pytest.approx(-np.log(0.9))


def test_nothing_to_compare_with_is_said() -> None:
    table = scores([{"object_id": 1}])
    for known in (objects(o1=None), objects(o2=111)):
        with pytest.raises(ConfigurationError, match="no scored object has a class_id"):
            evaluate(table, known)


def test_only_unknown_classes_have_only_novelty() -> None:
    found = evaluate(scores([{"object_id": 1}]), objects(o1=221))
    assert "log_loss" not in found
    assert np.isnan(found["novelty_auroc"])


def test_classes_follow_their_objects_in_any_order() -> None:
    table = scores([{"object_id": name} for name in (5, 2**60 + 1, 3, 5)])
    known = objects(o3=111, o5=112, o1152921504606846977=113, o9=114)
    assert true_classes(table, known).tolist() == [112, 113, 111, 112]
    assert true_classes(table, known[:1]).tolist() == [-1, -1, 111, -1]
