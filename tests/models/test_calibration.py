"""Probabilities that mean what they say, and sets that cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax

from models.calibration import (
    VectorScaling,
    fit_calibration,
)
from models.sets import LeastAmbiguousSets, conformal_threshold

N_CLASSES = 4


def answers(
    n: int, seed: int, sharpness: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities that are true where ``sharpness`` is 1, too sure where it is larger."""
    chance = np.random.default_rng(seed)
    logits = 2 * chance.normal(size=(n, N_CLASSES)) + np.array([1.0, 0, 0, -1])
    honest = softmax(logits, axis=1)
    truth = (chance.random(n)[:, None] > np.cumsum(honest, axis=1)).sum(axis=1)
    return softmax(sharpness * logits, axis=1), np.minimum(truth, N_CLASSES - 1)


def loss(p: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    return float(-np.mean(np.log(p[np.arange(truth.size), truth])))


def probabilities() -> st.SearchStrategy[NDArray[np.float64]]:
    logits = hnp.arrays(np.float64, (5, N_CLASSES), elements=st.floats(-30, 30))
    return logits.map(lambda values: softmax(values, axis=1))


@pytest.mark.parametrize("sharpness", [0.4, 2.5])
def test_calibration_undoes_what_was_done(sharpness: float) -> None:
    p, truth = answers(6_000, 1, sharpness)
    calibration = fit_calibration(p, truth, np.ones(truth.size))
    assert calibration.slope == pytest.approx(1 / sharpness, rel=0.08)
    fresh, labels = answers(6_000, 2, sharpness)
    honest, _ = answers(6_000, 2)
    assert loss(calibration.apply(fresh), labels) < loss(fresh, labels) - 0.02
    assert loss(calibration.apply(fresh), labels) < loss(honest, labels) + 0.01


def test_calibration_moves_a_class_that_is_given_too_much() -> None:
    p, truth = answers(6_000, 3)
    tilted = softmax(np.log(p) + np.array([0, 0, 1.5, 0]), axis=1)
    calibration = fit_calibration(tilted, truth, np.ones(truth.size))
    bias = np.array(calibration.bias) - np.mean(calibration.bias)
    assert bias.argmin() == 2
    assert calibration.apply(tilted).mean(axis=0) == pytest.approx(p.mean(axis=0), abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_calibration_never_makes_its_own_data_worse(seed: int) -> None:
    p, truth = answers(400, seed, 1 + seed)
    fitted = fit_calibration(p, truth, np.ones(truth.size))
    assert loss(fitted.apply(p), truth) <= loss(p, truth) + 1e-9


def test_weights_count_as_repetitions() -> None:
    p, truth = answers(300, 5, 2.0)
    times = np.random.default_rng(6).integers(1, 4, truth.size)
    weighted = fit_calibration(p, truth, times.astype(float))
    repeated = fit_calibration(
        np.repeat(p, times, axis=0), np.repeat(truth, times), np.ones(times.sum())
    )
    assert weighted.slope == pytest.approx(repeated.slope, abs=1e-4)
    assert weighted.bias == pytest.approx(repeated.bias, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(probabilities(), st.floats(0.05, 5), st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_calibrated_rows_sum_to_1(p: NDArray[np.float64], slope: float, bias: list[float]) -> None:
    before = p.copy()
    calibrated = VectorScaling(slope, tuple(bias)).apply(p)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1.0, rtol=1e-12)
    assert (calibrated >= 0).all()
    np.testing.assert_array_equal(p, before)


@settings(max_examples=60, deadline=None)
@given(probabilities(), st.lists(st.floats(0.05, 5), min_size=2, max_size=6).map(sorted))
def test_a_larger_slope_is_surer_of_the_same_class(
    p: NDArray[np.float64], slopes: list[float]
) -> None:
    tops = [VectorScaling(slope, (0.0,) * N_CLASSES).apply(p).max(axis=1) for slope in slopes]
    assert (np.diff(tops, axis=0) >= -1e-12).all()


def test_a_probability_of_0_is_no_infinity() -> None:
    p = np.array([[1.0, 0.0, 0.0, 0.0]])
    assert np.isfinite(np.log(VectorScaling(1.0, (0.0,) * 4).apply(p))).all()


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.99])
def test_sets_cover_what_they_promise(coverage: float) -> None:
    p, truth = answers(4_000, 7, 1.7)
    threshold = conformal_threshold(p, truth, np.ones(truth.size), coverage)
    fresh, labels = answers(4_000, 8, 1.7)
    members = LeastAmbiguousSets(threshold, coverage).members(fresh)
    covered = members[np.arange(labels.size), labels]
    # Both the threshold and the test are samples; below, the likeliest class may add coverage.
    spread = np.sqrt(2 * coverage * (1 - coverage) / 4_000)
    low = stats.norm.ppf(1e-4) * spread
    assert covered.mean() > coverage + low
    if coverage > 0.8:
        assert covered.mean() < coverage - low + 0.01


def test_the_threshold_is_the_quantile() -> None:
    p = np.array([[x / 10, 1 - x / 10] for x in range(1, 11)])
    truth = np.zeros(10, int)
    for coverage, expected in ((0.9, 0.1), (0.75, 0.3), (0.5, 0.5), (1.0, 0.1)):
        got = conformal_threshold(p, truth, np.ones(10), coverage)
        assert got == pytest.approx(expected), coverage
        assert np.mean(p[:, 0] >= got) >= coverage


def test_an_objects_rows_share_one_vote() -> None:
    """Nine rows of a hard object weigh as much as one row of an easy one."""
    p = np.array([[0.1, 0.9]] * 9 + [[0.9, 0.1]])
    truth = np.zeros(10, int)
    weights = np.array([1 / 9] * 9 + [1.0])
    assert conformal_threshold(p, truth, weights, 0.4) == 0.9
    assert conformal_threshold(p, truth, np.ones(10), 0.4) == 0.1


@settings(max_examples=60, deadline=None)
@given(probabilities(), st.lists(st.floats(0, 1), min_size=2, max_size=5).map(sorted))
def test_sets_are_never_empty_and_shrink_with_the_threshold(
    p: NDArray[np.float64], thresholds: list[float]
) -> None:
    sets = [LeastAmbiguousSets(threshold, 0.9).members(p) for threshold in thresholds]
    for members, threshold in zip(sets, thresholds, strict=True):
        assert members[np.arange(len(p)), p.argmax(axis=1)].all()
        assert members[p >= threshold].all()
    for larger, smaller in zip(sets, sets[1:], strict=False):  # noqa: RUF007
        assert (larger | ~smaller).all()
