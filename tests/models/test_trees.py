"""The trees against LightGBM itself: every sum of leaves to the bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightcurves.errors import ConfigurationError
from models.trees import probabilities, raw_scores, read_trees

N_FEATURES = 6


def sample(rng: np.random.Generator, n: int, missing: float) -> NDArray[np.float64]:
    """Rows with values that are missing, zero, tiny, huge, and shared by many rows."""
    values = rng.normal(size=(n, N_FEATURES))
    values[:, 1] = np.round(values[:, 1])
    values[:, 2] *= 1e300
    values[:, 3] *= 1e-310
    values[rng.random(values.shape) < missing] = np.nan
    return values


def booster(seed: int, *, n_classes: int, leaves: int, missing: float) -> lightgbm.Booster:
    rng = np.random.default_rng(seed)
    values = sample(rng, 600, missing)
    truth = (np.nan_to_num(values[:, 0]) > 0).astype(int) + rng.integers(0, n_classes - 1, 600)
    parameters = {
        "objective": "multiclass", "num_class": n_classes, "num_leaves": leaves, "verbosity": -1,
        "min_data_in_leaf": 2, "num_threads": 1, "seed": seed,
    }  # fmt: skip
    data = lightgbm.Dataset(values, truth)
    return lightgbm.train(parameters, data, 6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    n_classes=st.integers(2, 5),
    leaves=st.sampled_from([2, 3, 24, 200]),
    missing=st.sampled_from([0.0, 0.3, 0.95]),
    n=st.integers(0, 75),
)
def test_sums_are_lightgbms_to_the_bit(
    seed: int, n_classes: int, leaves: int, missing: float, n: int
) -> None:
    grown = booster(seed, n_classes=n_classes, leaves=leaves, missing=missing)
    trees = read_trees(grown.model_to_string())
    # Rows with other values missing than those that the training saw, too.
    values = np.concatenate([sample(np.random.default_rng(seed + k), n, k / 4) for k in range(3)])
    if n == 0:
        assert raw_scores(trees, values).shape == (0, n_classes)
        return
    expected = np.asarray(grown.predict(values, raw_score=True, num_threads=1))
    assert raw_scores(trees, values).tobytes() == expected.tobytes()
    p = probabilities(trees, values)
    assert p == pytest.approx(np.asarray(grown.predict(values, num_threads=1)), rel=1e-14)
    assert p.sum(axis=1) == pytest.approx(np.ones(len(p)), rel=1e-14)


def test_values_on_the_thresholds_go_where_lightgbm_sends_them() -> None:
    grown = booster(5, n_classes=3, leaves=24, missing=0.2)
    trees = read_trees(grown.model_to_string())
    values = np.full((trees.threshold.size, N_FEATURES), np.nan)
    values[np.arange(len(values)), trees.feature] = trees.threshold
    zeros = np.where(np.isnan(values), np.nan, 0.0)
    values = np.concatenate([values, np.nextafter(values, np.inf), -values, zeros, -zeros])
    expected = np.asarray(grown.predict(values, raw_score=True, num_threads=1))
    assert raw_scores(trees, values).tobytes() == expected.tobytes()


def test_a_row_scores_alike_wherever_it_stands() -> None:
    trees = read_trees(booster(1, n_classes=4, leaves=24, missing=0.3).model_to_string())
    values = sample(np.random.default_rng(2), 101, 0.3)
    whole = probabilities(trees, values)
    order = np.random.default_rng(3).permutation(101)
    assert probabilities(trees, values[order]).tobytes() == whole[order].tobytes()
    alone = [probabilities(trees, values[k : k + 1])[0] for k in range(101)]
    assert np.array(alone).tobytes() == whole.tobytes()
    wide = np.asfortranarray(values)
    assert probabilities(trees, wide).tobytes() == whole.tobytes()


def put(name: str, value: str) -> Callable[[str], str]:
    """Replace the first number of the first tree's field."""
    return lambda text: re.sub(rf"(?m)^{name}=\S+", f"{name}={value}", text, count=1)


@pytest.mark.parametrize(
    "spoil",
    [
        put("left_child", "0"),  # a walk without an end
        put("right_child", "-9999"),
        put("left_child", "9999"),
        put("split_feature", "6"),
        put("split_feature", "-1"),
        put("decision_type", "1"),
        put("decision_type", "6"),
        put("num_leaves", "7"),
        put("num_cat", "1"),
        put("is_linear", "1"),
        put("threshold", "much"),
        put("objective", "binary"),
        put("num_class", "0"),
        put("num_class", "7"),
        lambda text: text[: text.index("leaf_value")],
        lambda text: text[: text.index("\nTree=")],
        lambda _: "",
    ],
)
def test_a_spoilt_model_is_refused(spoil: Callable[[str], str]) -> None:
    text: Any = booster(4, n_classes=3, leaves=24, missing=0.1).model_to_string()
    spoilt = spoil(text)
    assert spoilt != text
    with pytest.raises(ConfigurationError, match="not a classifier that noctule trained"):
        read_trees(spoilt)
