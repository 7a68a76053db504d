"""The isolation forest as arrays scores as scikit-learn's own object does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from models.forest import N_TREES, Forest, average_path_length, isolation, train_forest

SHAPES = {"few rows": (5, 3), "below the sample": (200, 4), "above it": (1_000, 12)}


def data(n: int, width: int, *, holes: float, seed: int = 1) -> NDArray[np.float64]:
    chance = np.random.default_rng(seed)
    values = chance.normal(size=(n, width)) * 10.0 ** chance.uniform(-6, 6, width)
    values[:, 0] = chance.integers(0, 4, n)  # ties, as counts have them
    values[chance.random((n, width)) < holes] = np.nan
    return values


def filled(values: NDArray[np.float64], medians: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.where(np.isnan(values), medians, values).astype(np.float32)


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_scikit_learns(shape: str, holes: float) -> None:
    n, width = SHAPES[shape]
    training = data(n, width, holes=holes)
    forest = train_forest(training, seed=3)
    with np.errstate(all="ignore"):
        medians = np.nanmedian(training, axis=0)
    oracle = IsolationForest(n_estimators=N_TREES, max_samples=min(256, n), random_state=3)
    oracle.fit(filled(training, medians))
    for rows in (training, 3 * data(300, width, holes=holes, seed=2)):
        expected = -oracle.score_samples(filled(rows, medians))
        np.testing.assert_allclose(isolation(forest, rows), expected, rtol=1e-12)


def test_values_at_a_threshold_fall_as_in_scikit_learn() -> None:
    """It compares in float32: what a double tells from a threshold may be equal there."""
    training = data(300, 4, holes=0)
    forest = train_forest(training, seed=3)
    oracle = IsolationForest(n_estimators=N_TREES, max_samples=256, random_state=3)
    oracle.fit(training.astype(np.float32))
    nodes = np.flatnonzero(forest.feature >= 0)[::7]
    rows = training[np.arange(nodes.size) % 300]
    for nudge in (1.0, 1 + 1e-9, 1 - 1e-9):
        rows[np.arange(nodes.size), forest.feature[nodes]] = forest.threshold[nodes] * nudge
        expected = -oracle.score_samples(rows.astype(np.float32))
        np.testing.assert_allclose(isolation(forest, rows), expected, rtol=1e-12)


def test_the_strange_are_stranger() -> None:
    training = data(500, 4, holes=0)
    forest = train_forest(training, seed=1)
    far = training[:50] + 20 * training.std(axis=0)
    assert isolation(forest, far).min() > np.median(isolation(forest, training))


def test_a_column_without_a_value_counts_as_zero() -> None:
    training = data(100, 3, holes=0)
    training[:, 1] = np.nan
    forest = train_forest(training, seed=1)
    assert forest.medians[1] == 0.0
    assert np.isfinite(isolation(forest, training)).all()


def test_a_missing_value_counts_as_the_median() -> None:
    training = data(300, 5, holes=0.2)
    forest = train_forest(training, seed=1)
    rows = data(50, 5, holes=0.5, seed=4)
    filled_in = np.where(np.isnan(rows), forest.medians, rows)
    np.testing.assert_array_equal(isolation(forest, rows), isolation(forest, filled_in))


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(width=64)))
def test_any_row_has_a_score_between_0_and_1(rows: NDArray[np.float64]) -> None:
    scores = isolation(FOREST, rows)
    assert ((scores > 0) & (scores < 1)).all()


def test_training_is_seeded_and_leaves_its_input_alone() -> None:
    training = data(200, 4, holes=0.2)
    before = training.copy()
    first, second, other = (train_forest(training, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(training, before)
    for name in Forest._fields:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(isolation(first, training), isolation(other, training))


def test_path_lengths_are_those_of_the_paper() -> None:
    harmonic = np.cumsum(1.0 / np.arange(1, 1_000))
    n = np.arange(3, 1_000)
    exact = 2 * harmonic[n - 2] - 2 * (n - 1) / n
    # The paper's harmonic number is ln n + 0.577..., short of the sum by 1/(2 n).
    assert (np.abs(average_path_length(n) - exact) < 1.01 / (n - 1)).all()
    assert average_path_length(np.array([0, 1, 2])).tolist() == [0, 0, 1]


FOREST = train_forest(data(100, 4, holes=0.1), seed=1)
