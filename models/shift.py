"""Weights that give labelled objects the distribution of the target.

Objects with spectra are brighter and nearer than those to be classified. A classifier that separates
labelled rows from target rows gives the density ratio, by which labelled rows are weighted:
Sugiyama et al. 2012, Density Ratio Estimation in Machine Learning, section 4.2 (probabilistic
classification).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_WEIGHT: Final = 5.0
"""Its inverse is the smallest weight: a handful of rows must not decide for all others."""

_PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.5,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
_ROUNDS: Final = 60


def target_weights(
    labelled: NDArray[np.float64],
    fold: NDArray[np.int64],
    target: NDArray[np.float64],
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Return a weight for each labelled row, their mean 1.

    Parameters
    ----------
    labelled, target
        float64 (rows, features): labelled rows, and rows like those that the model is to score.
    fold
        int64: each labelled row's fold; its weight comes from a classifier that has not seen it.
    seed
        Of the classifier.
    """
    import lightgbm  # noqa: PLC0415 - one second, for training only

    weights = np.ones(len(labelled))
    half = np.arange(len(target)) % 2
    for k in np.unique(fold):
        inside = fold != k
        values = np.concatenate([labelled[inside], target[half == k % 2]])
        is_target = np.repeat([0, 1], [inside.sum(), (half == k % 2).sum()])
        balance = np.where(is_target, inside.sum() / max(1, is_target.sum()), 1.0)
        data = lightgbm.Dataset(values, is_target, weight=balance)
        parameters = {**_PARAMETERS, "seed": seed}
        booster = lightgbm.train(parameters, data, _ROUNDS)
        p = np.asarray(booster.predict(labelled[~inside], num_threads=1), np.float64)
        weights[~inside] = p / (1.0 - p)
    weights = np.clip(weights, 1.0 / LARGEST_WEIGHT, LARGEST_WEIGHT)
    scaled: NDArray[np.float64] = weights / weights.mean()
    return scaled
