"""Calibrate probabilities so that they match frequencies: fitted on a model's scores of unseen rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from scipy.special import log_softmax, softmax

from models.parts import PlainPart

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOOR: Final = 1e-6
# Keeps the class biases of rare classes from following a handful of objects.
_PENALTY: Final = 1e-3


@dataclass(frozen=True)
class VectorScaling(PlainPart):
    """Vector scaling with one slope: ``softmax(slope * log p + bias)``.

    Guo et al. 2017, ICML, section 4.2 (vector scaling, with the diagonal held equal).

    Attributes
    ----------
    slope
        Below 1 if the classifier is overconfident.
    bias
        One number per class, in the classes' order.
    """

    role: ClassVar[str] = "calibration"
    kind: ClassVar[str] = "vector_scaling"

    slope: float
    bias: tuple[float, ...]

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities, float64 (rows, classes); each row sums to 1."""
        logits = np.log(np.maximum(probabilities, _FLOOR))
        calibrated: NDArray[np.float64] = softmax(self.slope * logits + np.array(self.bias), axis=1)
        return calibrated


def fit_calibration(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64]
) -> VectorScaling:
    """Fit slope and biases to out-of-fold `probabilities` by weighted log-loss.

    Parameters
    ----------
    probabilities
        float64 (rows, classes).
    truth
        int64 (rows): column of the true class.
    weights
        float64 (rows): the weights of one object's rows should add up to 1.
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
    from scipy.optimize import minimize  # noqa: PLC0415 - 0.3 s, for fitting only

    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return VectorScaling(float(best.x[0]), tuple(float(b) for b in best.x[1:]))
