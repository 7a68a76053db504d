"""The distance of a row from the nearest class, measured by the spread within classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numba as nb
import numpy as np

from models.parts import PlainPart
from models.scaling import fit_scale, scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inputs import Inputs
    from models.rows import TrainingRows, TrainingSettings


@dataclass(frozen=True)
class MahalanobisDetector(PlainPart):
    """``min_c sqrt((z - mu_c)' S^-1 (z - mu_c))`` over the classes c.

    Lee et al. 2018, NeurIPS 31, eq. 2, on features instead of a network's layers: the means are the
    classes', the covariance is shared, and shrunk after Ledoit & Wolf 2004, J. Multivar. Anal. 88, 365,
    because there are hardly more rows than pairs of features.

    Attributes
    ----------
    features
        Columns of its inputs.
    median, scale
        float64 (features): see :func:`models.scaling.fit_scale`.
    means
        float64 (classes, features): of the scaled features.
    whitening
        float64 (features, features): W with ``W' W = S^-1``.
    """

    role: ClassVar[str] = "detector"
    kind: ClassVar[str] = "mahalanobis"

    features: tuple[str, ...]
    median: NDArray[np.float64] = field(repr=False)
    scale: NDArray[np.float64] = field(repr=False)
    means: NDArray[np.float64] = field(repr=False)
    whitening: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse means of another number of features."""
        if self.means.shape[1] != len(self.features):
            raise ValueError(
                f"its means have {self.means.shape[1]} features, not {len(self.features)}"
            )

    @classmethod
    def fit(
        cls,
        rows: TrainingRows,
        class_ids: tuple[int, ...],
        settings: TrainingSettings,  # noqa: ARG003 - nothing is random
    ) -> Self:
        """Estimate means and covariance, each object with the same weight."""
        from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - for training only
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        values = rows.inputs.features(rows.names)
        median, scale = fit_scale(values)
        z = scaled(values, median, scale)
        present = np.unique(rows.truth)
        means = np.stack(
            [np.average(z[at], axis=0, weights=rows.weights[at])
             for at in (rows.truth == k for k in present)]
        )  # fmt: skip
        assert len(means) <= len(class_ids)  # noqa: S101 - a fold may lack a class
        residuals = (z - means[np.searchsorted(present, rows.truth)]) * np.sqrt(
            rows.weights / rows.weights.mean()
        )[:, None]
        with threadpool_limits(1):  # the order of a sum decides its last bits
            covariance, _ = ledoit_wolf(residuals, assume_centered=True)
            floor = np.eye(len(covariance)) * 1e-9
            whitening = np.linalg.inv(np.linalg.cholesky(covariance + floor))
        return cls(rows.names, median, scale, means, np.ascontiguousarray(whitening))

    def strangeness(
        self,
        inputs: Inputs,
        probabilities: NDArray[np.float64],  # noqa: ARG002 - see models.parts.Detector
    ) -> NDArray[np.float64]:
        """Return the distance of each row; see :class:`models.parts.Detector`."""
        z = scaled(inputs.features(self.features), self.median, self.scale)
        distances: NDArray[np.float64] = _distances(z, self.means, self.whitening)
        return distances


@nb.njit(nogil=True, cache=True)
def _distances(z: Any, means: Any, whitening: Any) -> Any:
    """Return each row's distance to the nearest mean; `whitening` is lower triangular."""
    n, width = z.shape
    out = np.empty(n)
    white = np.empty(width)
    centres = np.empty(means.shape)
    for c in range(means.shape[0]):
        for j in range(width):
            total = 0.0
            for k in range(j + 1):
                total += whitening[j, k] * means[c, k]
            centres[c, j] = total
    for row in range(n):
        for j in range(width):
            total = 0.0
            for k in range(j + 1):
                total += whitening[j, k] * z[row, k]
            white[j] = total
        nearest = np.inf
        for c in range(means.shape[0]):
            total = 0.0
            for j in range(width):
                total += (white[j] - centres[c, j]) ** 2
            nearest = min(nearest, total)
        out[row] = np.sqrt(nearest)
    return out
