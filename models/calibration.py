"""Make probabilities mean what they say, and turn them into sets that cover.

Both are fitted on out-of-fold predictions of the training objects, never on what a model has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import log_softmax, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOOR: Final = 1e-6
# Keeps the class biases of rare classes from following a handful of objects.
_PENALTY: Final = 1e-3


@dataclass(frozen=True)
class Calibration:
    """Vector scaling with one slope: ``softmax(slope * log p + bias)``.

    Guo et al. 2017, ICML, section 4.2 (vector scaling, with the diagonal held equal).

    Attributes
    ----------
    slope
        Below 1 where the classifier is too sure.
    bias
        One number per class, in the classes' order.
    """

    slope: float
    bias: tuple[float, ...]

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities, float64 (rows, classes); each row sums to 1."""
        logits = np.log(np.maximum(probabilities, _FLOOR))
        calibrated: NDArray[np.float64] = softmax(self.slope * logits + np.array(self.bias), axis=1)
        return calibrated


def fit_calibration(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64]
) -> Calibration:
    """Fit slope and biases to out-of-fold `probabilities` by weighted log-loss.

    Parameters
    ----------
    probabilities
        float64 (rows, classes).
    truth
        int64 (rows): column of the true class.
    weights
        float64 (rows): one object's rows together should weigh 1.
    """
    logits = np.log(np.maximum(probabilities, _FLOOR))
    n_classes = logits.shape[1]
    weights = weights / weights.sum()
    rows = np.arange(truth.size)

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = theta[0] * logits + theta[1:]
        logp = log_softmax(scores, axis=1)
        residual = np.exp(logp)
        residual[rows, truth] -= 1.0
        residual *= weights[:, None]
        gradient = np.concatenate([[np.sum(residual * logits)], residual.sum(axis=0)])
        gradient[1:] += 2 * _PENALTY * theta[1:]
        value = -np.sum(weights * logp[rows, truth]) + _PENALTY * np.sum(theta[1:] ** 2)
        return float(value), gradient

    start = np.concatenate([[1.0], np.zeros(n_classes)])
    bounds: list[Any] = [(0.05, 5.0)] + [(-5.0, 5.0)] * n_classes
    from scipy.optimize import minimize  # noqa: PLC0415 - 0.3 s, which applying need not take

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibration(float(found.x[0]), tuple(float(b) for b in found.x[1:]))


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


def prediction_sets(probabilities: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Return (rows, classes): is the class in the set. The likeliest class always is."""
    members: NDArray[np.bool_] = probabilities >= threshold
    members[np.arange(len(members)), probabilities.argmax(axis=1)] = True
    return members
