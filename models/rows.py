"""What parts are fitted on, and by which settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightcurves.features.registry import default_families, names_in
from lightcurves.surveys import LSST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inputs import Inputs


@dataclass(frozen=True)
class TrainingSettings:
    """All that a training depends on besides its data.

    Attributes
    ----------
    seed
        Of folds, moments, masks and trees.
    folds
        Out-of-fold predictions come from this many parts, split by object.
    rounds
        Boosting rounds.
    learning_rate, leaves, min_rows
        LightGBM's ``learning_rate``, ``num_leaves``, ``min_data_in_leaf``.
    moments
        At most this many moments of each light curve are used, besides the whole.
    hide_host
        Fraction of rows whose host and extinction are hidden, since packets do not carry them.
    coverage
        Of the prediction sets.
    classifiers, detectors
        Kinds of :mod:`models.kinds` that the model is made of.
    features
        Names of the features that its parts may read; empty: all default ones.
    survey
        The survey whose alerts the model is to score.
    """

    seed: int = 20260310
    folds: int = 3
    rounds: int = 120
    learning_rate: float = 0.08
    leaves: int = 24
    min_rows: int = 12
    moments: int = 6
    hide_host: float = 0.5
    coverage: float = 0.9
    classifiers: tuple[str, ...] = ("lightgbm",)
    detectors: tuple[str, ...] = ("isolation_forest", "entropy")
    features: tuple[str, ...] = ()
    survey: str = LSST.name

    @property
    def names(self) -> tuple[str, ...]:
        """The features that the parts may read, in their order."""
        return self.features or names_in(default_families())


class TrainingRows(NamedTuple):
    """Rows of training objects: moments of their lives.

    ``inputs`` of the rows; ``names`` of the features that a part may read; ``truth`` int64, column of the
    class; ``owner`` int64, a number for each object; ``weights`` float64, an object's rows sum to 1.
    """

    inputs: Inputs
    names: tuple[str, ...]
    truth: NDArray[np.int64]
    owner: NDArray[np.int64]
    weights: NDArray[np.float64]

    @property
    def values(self) -> NDArray[np.float64]:
        """The features, float64 (rows, names)."""
        return self.inputs.features(self.names)

    def take(self, some: NDArray[np.bool_]) -> TrainingRows:
        """Return some of the rows."""
        inputs = self.inputs.take(np.flatnonzero(some))
        return TrainingRows(
            inputs, self.names, self.truth[some], self.owner[some], self.weights[some]
        )
