"""One band at a time: level, spread, form and trend of its fluxes."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS
from lightcurves.features.declare import (
    NO_VARIATION,
    NOT_IN_BAND,
    TOO_FEW_POINTS,
    Family,
    Feature,
    Input,
    Scaling,
)

_N_BANDS: Final = len(LSST_BANDS)
PER_BAND: Final = 17
_FLUX: Final = frozenset({Input.BAND, Input.FLUX})
_WEIGHTED: Final = _FLUX | {Input.SIGMA}
_TIMED: Final = _FLUX | {Input.TIME}
_ALL: Final = _WEIGHTED | {Input.TIME}


@nb.njit(nogil=True, cache=True)
def _quantile(ascending: Any, q: float) -> Any:
    """Return the quantile, linear between the two nearest, as numpy's."""
    place = q * (ascending.size - 1)
    below = int(place)
    if below + 1 >= ascending.size:
        return ascending[below]
    return ascending[below] + (place - below) * (ascending[below + 1] - ascending[below])


@nb.njit(nogil=True, cache=True)
def _median_deviation(ascending: Any, median: float) -> Any:
    """Return the median of |f - median|: deviations grow to both sides of it, so two fingers find it."""
    n = ascending.size
    right = 0
    while right < n and ascending[right] < median:
        right += 1
    left = right - 1
    before = 0.0
    deviation = 0.0
    for _ in range(n // 2 + 1):
        before = deviation
        if left < 0 or (right < n and ascending[right] - median <= median - ascending[left]):
            deviation = ascending[right] - median
            right += 1
        else:
            deviation = median - ascending[left]
            left -= 1
    return deviation if n % 2 else (before + deviation) / 2.0


@nb.njit(nogil=True, cache=True)
def band_statistics(
    t: Any, flux: Any, sigma: Any, weight: Any, ascending: Any, out: Any, why: Any
) -> None:
    """Compute the features of one band.

    Parameters
    ----------
    t, flux, sigma, weight
        float64 (n): times in days, ascending; fluxes and errors in nJy; 1/sigma^2.
    ascending
        float64 (n): the fluxes, sorted.
    out, why
        float64 and int8 (17): values in the order of the declarations, and reasons.
    """
    n = t.size
    out[:] = np.nan
    if n == 0:
        why[:] = NOT_IN_BAND
        return
    zero = flux[0]  # fluxes against it: equal ones deviate by exactly 0
    total = 0.0
    mean = 0.0
    plain = 0.0
    middle = 0.0
    for i in range(n):
        total += weight[i]
        mean += weight[i] * (flux[i] - zero)
        middle += weight[i] * (t[i] - t[0])
        plain += flux[i] - zero
    mean /= total
    middle /= total
    plain /= n
    median = _quantile(ascending, 0.5)
    out[0] = ascending[n - 1]
    out[1] = zero + mean
    out[2] = median
    if n < 2:
        why[3:] = TOO_FEW_POINTS
        return
    out[3] = _median_deviation(ascending, median)
    out[4] = (_quantile(ascending, 0.95) - _quantile(ascending, 0.05)) / 2.0
    spread = ascending[n - 1] - ascending[0]
    second = 0.0
    third = 0.0
    fourth = 0.0
    noise = 0.0
    chi2 = 0.0
    absolute = 0.0
    steps = 0.0
    lever = 0.0
    tilt = 0.0
    last = 0.0
    for i in range(n):
        d = flux[i] - zero - plain
        second += d * d
        third += d * d * d
        fourth += d * d * d * d
        noise += sigma[i] ** 2
        pull = (flux[i] - zero - mean) / sigma[i]
        chi2 += pull * pull
        absolute += abs(pull)
        if i > 0:
            steps += (pull - last) ** 2
        last = pull
        x = t[i] - t[0] - middle
        lever += weight[i] * x * x
        tilt += weight[i] * x * (flux[i] - zero - mean)
    second /= n
    out[5] = np.sqrt(chi2 / total)
    out[6] = chi2 / (n - 1)
    if spread > 0:
        excess = second * n / (n - 1.0) - noise / n
        out[7] = np.sign(excess) * np.sqrt(abs(excess)) / spread
        out[8] = third / n / second**1.5
        out[9] = fourth / n / second**2 - 3.0
        outside = 0
        for i in range(n):
            outside += abs(flux[i] - zero - plain) > np.sqrt(second * n / (n - 1.0))
        out[10] = outside / n
        out[11] = absolute / np.sqrt(n * chi2)
        out[12] = steps / chi2
        out[13] = (flux[n - 1] - ascending[0]) / spread
    else:
        why[7:14] = NO_VARIATION
    step = t[n - 1] - t[n - 2]
    if step > 0:
        out[14] = (flux[n - 1] - flux[n - 2]) / step
    else:
        why[14] = NO_VARIATION
    if lever > 0:
        out[15] = tilt / lever
        out[16] = tilt / np.sqrt(lever)
    else:
        why[15:17] = NO_VARIATION


@nb.njit(nogil=True, cache=True)
def _bands(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    for k in range(out.shape[0]):
        for b in range(_N_BANDS):
            low, high = points.band_offsets[k, b], points.band_offsets[k, b + 1]
            band_statistics(
                points.band_t[low:high],
                points.band_flux[low:high],
                points.band_sigma[low:high],
                points.band_weight[low:high],
                points.band_sorted[low:high],
                out[k, b * PER_BAND : (b + 1) * PER_BAND],
                why[k, b * PER_BAND : (b + 1) * PER_BAND],
            )


def _band_features(b: str) -> tuple[Feature, ...]:
    def level(name: str, formula: str, inputs: frozenset[Input], least: int = 1) -> Feature:
        return Feature(f"{b}_{name}_njy", "nJy", inputs, formula, Scaling.LINEAR, least)

    def form(name: str, formula: str, inputs: frozenset[Input], paper: str = "") -> Feature:
        return Feature(f"{b}_{name}", "1", inputs, formula, min_points=2, paper=paper)

    def slope(name: str, formula: str, inputs: frozenset[Input]) -> Feature:
        return Feature(f"{b}_{name}", "nJy/d", inputs, formula, Scaling.LINEAR, 2)

    return (
        level("max", f"largest flux in {b}", _FLUX),
        level("mean", f"<f>: mean flux in {b}, weighted by 1/sigma^2", _WEIGHTED),
        level("median", f"median flux in {b}", _FLUX),
        level("mad", "median |f - median f|", _FLUX, 2),
        level("amplitude", "half the range from the 5 % to the 95 % quantile of f", _FLUX, 2),
        level("std", "sqrt of the mean (f - <f>)^2, weighted by 1/sigma^2", _WEIGHTED, 2),
        form("chi2", "sum ((f - <f>)/sigma)^2 / (n - 1)", _WEIGHTED),
        form(
            "excess",
            "s = var(f) - mean(sigma^2); sign(s) sqrt|s| / (max f - min f)",
            _WEIGHTED,
            "Nandra et al. 1997, ApJ 476, 70, eq. 1, doi:10.1086/303600; scaled by the range",
        ),
        form("skewness", "mean (f - mean f)^3 / (mean (f - mean f)^2)^1.5", _FLUX),
        form("kurtosis", "mean (f - mean f)^4 / (mean (f - mean f)^2)^2 - 3", _FLUX),
        form("beyond_std", "fraction of points with |f - mean f| > sqrt(var(f))", _FLUX),
        form(
            "stetson_k",
            "mean |p| / sqrt(mean p^2), p = (f - <f>)/sigma",
            _WEIGHTED,
            "Stetson 1996, PASP 108, 851, section 2, doi:10.1086/133808",
        ),
        form(
            "von_neumann",
            "sum (p_i - p_(i-1))^2 / sum p^2, p = (f - <f>)/sigma",
            _ALL,
            "von Neumann 1941, Ann. Math. Stat. 12, 367, eq. 4, doi:10.1214/aoms/1177731677",
        ),
        form("last_level", "(last f - min f) / (max f - min f)", _TIMED),
        slope("last_slope", "(f_n - f_(n-1)) / (t_n - t_(n-1))", _TIMED),
        slope("trend", "slope of the line through f(t), weighted by 1/sigma^2", _ALL),
        form("trend_snr", "that slope over its standard error", _ALL),
    )


BANDS: Final = Family("bands", tuple(f for b in LSST_BANDS for f in _band_features(b)), _bands)
assert len(BANDS.features) == PER_BAND * _N_BANDS  # noqa: S101 - the kernel counts on it
