"""Features on one scale, for parts that measure distances; each row is scaled independently of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fit_scale(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return median and scale of each of the features.

    The scale is half the distance between the 16th and the 84th percentile; 1 where that is 0.

    Parameters
    ----------
    values
        float64 (rows, features), NaN where not evaluated; a feature that is NaN in all rows has median 0.
    """
    low, median, high = np.zeros((3, values.shape[1]))
    for k, column in enumerate(values.T):
        evaluated = column[~np.isnan(column)]
        if evaluated.size:
            low[k], median[k], high[k] = np.quantile(evaluated, [0.16, 0.5, 0.84])
    scale = (high - low) / 2
    return median, np.where(scale > 0, scale, 1.0)


@nb.njit(nogil=True, cache=True)
def scaled(values: Any, median: Any, scale: Any) -> Any:
    """Return ``arcsinh((x - median) / scale)`` of (rows, features) `values`, 0 where not evaluated.

    The inverse hyperbolic sine is about linear in the bulk and logarithmic far out.
    """
    out = np.zeros(values.shape)
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            z = (values[row, k] - median[k]) / scale[k]
            if not np.isnan(z):
                out[row, k] = np.arcsinh(z)
    return out
