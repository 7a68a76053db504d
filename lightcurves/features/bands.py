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
def _quantile(ascending: Any, low: int, high: int, q: float) -> Any:
    """Return the quantile of ``ascending[low:high]``, linear between the two nearest, as numpy's."""
    place = q * (high - 1 - low)
    below = low + int(place)
    if below + 1 >= high:
        return ascending[below]
    return ascending[below] + (place - int(place)) * (ascending[below + 1] - ascending[below])


@nb.njit(nogil=True, cache=True)
def _median_deviation(ascending: Any, low: int, high: int, median: float) -> Any:
    """Return the median of |f - median|: deviations grow to both sides of it, so two fingers find it."""
    n = high - low
    right = low + n // 2
    while right > low and ascending[right - 1] >= median:
        right -= 1
    left = right - 1
    before = 0.0
    deviation = 0.0
    for _ in range(n // 2 + 1):
        before = deviation
        if left < low or (right < high and ascending[right] - median <= median - ascending[left]):
            deviation = ascending[right] - median
            right += 1
        else:
            deviation = median - ascending[left]
            left -= 1
    return deviation if n % 2 else (before + deviation) / 2.0


@nb.njit(nogil=True, cache=True)
def _bands(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    # Bounds in whole arrays, no slices: numba counts the references of each.
    t, flux, sigma = points.band_t, points.band_flux, points.band_sigma
    weight, ascending = points.band_weight, points.band_sorted
    for k in range(out.shape[0]):
        for b in range(_N_BANDS):
            low, high = points.band_offsets[k, b], points.band_offsets[k, b + 1]
            at = b * PER_BAND
            n = high - low
            if n < 2:
                for column in range(PER_BAND):
                    out[k, at + column] = np.nan
                    why[k, at + column] = NOT_IN_BAND if n == 0 else TOO_FEW_POINTS
                if n == 1:
                    out[k, at : at + 3] = flux[low]
                    why[k, at : at + 3] = 0
                continue
            zero = flux[low]  # fluxes against it: equal ones deviate by exactly 0
            begin = t[low]
            total = 0.0
            mean = 0.0
            plain = 0.0
            middle = 0.0
            noise = 0.0
            for i in range(low, high):
                total += weight[i]
                mean += weight[i] * (flux[i] - zero)
                middle += weight[i] * (t[i] - begin)
                plain += flux[i] - zero
                noise += sigma[i] * sigma[i]
            mean /= total
            middle /= total
            plain /= n
            second = 0.0
            third = 0.0
            fourth = 0.0
            chi2 = 0.0
            absolute = 0.0
            steps = 0.0
            lever = 0.0
            tilt = 0.0
            last = (flux[low] - zero - mean) / sigma[low]
            for i in range(low, high):
                d = flux[i] - zero - plain
                square = d * d
                second += square
                third += square * d
                fourth += square * square
                pull = (flux[i] - zero - mean) / sigma[i]
                chi2 += pull * pull
                absolute += abs(pull)
                steps += (pull - last) * (pull - last)
                last = pull
                x = t[i] - begin - middle
                lever += weight[i] * x * x
                tilt += weight[i] * x * (flux[i] - zero - mean)
            second /= n
            variance = second * n / (n - 1.0)
            median = _quantile(ascending, low, high, 0.5)
            out[k, at] = ascending[high - 1]
            out[k, at + 1] = zero + mean
            out[k, at + 2] = median
            out[k, at + 3] = _median_deviation(ascending, low, high, median)
            upper, lower = (
                _quantile(ascending, low, high, 0.95),
                _quantile(ascending, low, high, 0.05),
            )
            out[k, at + 4] = (upper - lower) / 2.0
            out[k, at + 5] = np.sqrt(chi2 / total)
            out[k, at + 6] = chi2 / (n - 1)
            spread = ascending[high - 1] - ascending[low]
            if spread > 0:
                excess = variance - noise / n
                out[k, at + 7] = np.sign(excess) * np.sqrt(abs(excess)) / spread
                out[k, at + 8] = third / n / (second * np.sqrt(second))
                out[k, at + 9] = fourth / n / (second * second) - 3.0
                outside = 0
                limit = np.sqrt(variance)
                for i in range(low, high):
                    outside += abs(flux[i] - zero - plain) > limit
                out[k, at + 10] = outside / n
                out[k, at + 11] = absolute / np.sqrt(n * chi2)
                out[k, at + 12] = steps / chi2
                out[k, at + 13] = (flux[high - 1] - ascending[low]) / spread
            else:
                out[k, at + 7 : at + 14] = np.nan
                why[k, at + 7 : at + 14] = NO_VARIATION
            step = t[high - 1] - t[high - 2]
            if step > 0:
                out[k, at + 14] = (flux[high - 1] - flux[high - 2]) / step
            else:
                out[k, at + 14] = np.nan
                why[k, at + 14] = NO_VARIATION
            if lever > 0:
                out[k, at + 15] = tilt / lever
                out[k, at + 16] = tilt / np.sqrt(lever)
            else:
                out[k, at + 15 : at + 17] = np.nan
                why[k, at + 15 : at + 17] = NO_VARIATION


def _band_features(b: str) -> tuple[Feature, ...]:
    def level(name: str, formula: str, inputs: frozenset[Input], least: int = 1) -> Feature:
        return Feature(f"{b}_{name}_njy", "nJy", inputs, formula, Scaling.LINEAR, least, bands=b)

    def form(
        name: str, formula: str, inputs: frozenset[Input], paper: str = "", *, varies: bool = True
    ) -> Feature:
        return Feature(
            f"{b}_{name}", "1", inputs, formula, min_points=2, paper=paper, bands=b, varies=varies
        )

    def slope(name: str, formula: str, inputs: frozenset[Input]) -> Feature:
        return Feature(f"{b}_{name}", "nJy/d", inputs, formula, Scaling.LINEAR, 2, bands=b)

    return (
        level("max", f"largest flux in {b}", _FLUX),
        level("mean", f"<f>: mean flux in {b}, weighted by 1/sigma^2", _WEIGHTED),
        level("median", f"median flux in {b}", _FLUX),
        level("mad", "median |f - median f|", _FLUX, 2),
        level("amplitude", "half the range from the 5 % to the 95 % quantile of f", _FLUX, 2),
        level("std", "sqrt of the mean (f - <f>)^2, weighted by 1/sigma^2", _WEIGHTED, 2),
        form("chi2", "sum ((f - <f>)/sigma)^2 / (n - 1)", _WEIGHTED, varies=False),
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
        form("trend_snr", "that slope over its standard error", _ALL, varies=False),
    )


BANDS: Final = Family("bands", tuple(f for b in LSST_BANDS for f in _band_features(b)), _bands)
assert len(BANDS.features) == PER_BAND * _N_BANDS  # noqa: S101 - the kernel counts on it
