"""Prediction sets: classes that together contain the true one with a chosen frequency, the coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.parts import PlainPart

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LeastAmbiguousSets(PlainPart):
    """Every class whose calibrated probability reaches the threshold, and always the likeliest class.

    Attributes
    ----------
    threshold
        From :func:`conformal_threshold`.
    coverage
        The coverage for which the threshold was chosen.
    """

    role: ClassVar[str] = "sets"
    kind: ClassVar[str] = "least_ambiguous"

    threshold: float
    coverage: float

    def members(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return bool (rows, classes): whether the class is in the set."""
        members: NDArray[np.bool_] = probabilities >= self.threshold
        members[np.arange(len(members)), probabilities.argmax(axis=1)] = True
        return members


def conformal_threshold(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
    coverage: float,
) -> float:
    """Return the probability above which a class belongs to the prediction set.

    Least-ambiguous sets: Sadinle, Lei & Wasserman 2019, JASA 114, 223, section 3
    (doi:10.1080/01621459.2017.1395341): the (1 - coverage) quantile of the true class's calibrated
    out-of-fold probability, weighted so that objects count equally.
    """
    p_true = probabilities[np.arange(truth.size), truth]
    order = np.argsort(p_true)
    share = np.cumsum(weights[order]) / weights.sum()
    at = int(np.searchsorted(share, 1.0 - coverage))
    return float(p_true[order][min(at, truth.size - 1)])
