"""A multinomial logistic regression: the plain baseline that more complex classifiers have to beat.

Trained by scikit-learn, scored by one numba loop. Matrix products of a whole batch would be faster, but
their last bits depend on the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numba as nb
import numpy as np

from models.parts import PlainPart
from models.scaling import fit_scale, scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inputs import Inputs
    from models.rows import TrainingRows, TrainingSettings

_STEPS: Final = 500
_PENALTY: Final = 1.0
"""scikit-learn's ``C``: the inverse of the weight of the squared coefficients."""


@dataclass(frozen=True)
class LogisticClassifier(PlainPart):
    """``softmax(coefficients z + intercept)`` of z, the features scaled by :func:`models.scaling.scaled`.

    Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, eq. 4.17, with a
    quadratic penalty.

    Attributes
    ----------
    features, class_ids
        Columns of its inputs, and of its probabilities.
    median, scale
        float64 (features): see :func:`models.scaling.fit_scale`.
    coefficients, intercept
        float64 (classes, features) and (classes).
    """

    role: ClassVar[str] = "classifier"
    kind: ClassVar[str] = "logistic"

    features: tuple[str, ...]
    class_ids: tuple[int, ...]
    median: NDArray[np.float64] = field(repr=False)
    scale: NDArray[np.float64] = field(repr=False)
    coefficients: NDArray[np.float64] = field(repr=False)
    intercept: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        shape = len(self.class_ids), len(self.features)
        if self.coefficients.shape != shape or self.intercept.shape != shape[:1]:
            raise ValueError(f"its coefficients are {self.coefficients.shape}, not {shape}")

    @classmethod
    def fit(
        cls, rows: TrainingRows, class_ids: tuple[int, ...], settings: TrainingSettings
    ) -> Self:
        """Maximise the weighted likelihood; see :class:`models.parts.Classifier`."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - for training only
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        values = rows.inputs.features(rows.names)
        median, scale = fit_scale(values)
        regression = LogisticRegression(C=_PENALTY, max_iter=_STEPS, random_state=settings.seed)
        with threadpool_limits(1):  # the order of a sum decides its last bits
            regression.fit(scaled(values, median, scale), rows.truth, sample_weight=rows.weights)
        shape = len(class_ids), len(rows.names)
        coefficients, intercept = np.zeros(shape), np.full(shape[:1], -np.inf)
        if len(regression.classes_) == 2:  # noqa: PLR2004 - scikit-learn gives only the second class's
            slopes, offset = regression.coef_[0] / 2, regression.intercept_[0] / 2
            fitted, offsets = np.stack([-slopes, slopes]), np.array([-offset, offset])
        else:
            fitted, offsets = regression.coef_, regression.intercept_
        coefficients[regression.classes_], intercept[regression.classes_] = fitted, offsets
        return cls(rows.names, class_ids, median, scale, coefficients, intercept)

    def probabilities(self, inputs: Inputs) -> NDArray[np.float64]:
        """Return the softmax of each row; see :class:`models.parts.Classifier`."""
        z = scaled(inputs.features(self.features), self.median, self.scale)
        p: NDArray[np.float64] = _softmax_of(z, self.coefficients, self.intercept)
        return p


@nb.njit(nogil=True, cache=True)
def _softmax_of(z: Any, coefficients: Any, intercept: Any) -> Any:
    n, n_classes = z.shape[0], intercept.size
    out = np.empty((n, n_classes))
    for row in range(n):
        for k in range(n_classes):
            total = intercept[k]
            for j in range(z.shape[1]):
                total += coefficients[k, j] * z[row, j]
            out[row, k] = total
        top = out[row].max()
        total = 0.0
        for k in range(n_classes):
            out[row, k] = np.exp(out[row, k] - top)
            total += out[row, k]
        for k in range(n_classes):
            out[row, k] /= total
    return out
