"""How the flux varies, all bands together: each band against its own mean."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS
from lightcurves.features.declare import (
    DETECTION,
    NO_FIT,
    NO_VARIATION,
    TOO_FEW_POINTS,
    Family,
    Feature,
    Input,
    Scaling,
)

_FLUXES: Final = frozenset({Input.FLUX, Input.SIGMA})
_BAND_FLUXES: Final = _FLUXES | {Input.BAND}
_TIMED: Final = _BAND_FLUXES | {Input.TIME}
_N_BANDS: Final = len(LSST_BANDS)
_SAME_NIGHT_DAYS: Final = 0.5
_LAGS_DAYS: Final = (3.0, 30.0, 300.0)


@nb.njit(nogil=True, cache=True)
def _pulls(points: Any, k: int, pulls: Any) -> tuple[float, int, int]:
    """Fill in (f - <f>_b)/sigma band by band; return chi2, degrees of freedom and pulls.

    A band with one point has none: NaN there.
    """
    chi2 = 0.0
    freedom = 0
    n_pulls = 0
    for b in range(_N_BANDS):
        low, high = points.band_offsets[k, b], points.band_offsets[k, b + 1]
        if high - low < 2:
            pulls[low:high] = np.nan
            continue
        zero = points.band_flux[low]  # fluxes against it: equal ones give a pull of exactly 0
        weight = 0.0
        mean = 0.0
        for i in range(low, high):
            weight += points.band_weight[i]
            mean += points.band_weight[i] * (points.band_flux[i] - zero)
        mean /= weight
        for i in range(low, high):
            pulls[i] = (points.band_flux[i] - zero - mean) / points.band_sigma[i]
            chi2 += pulls[i] * pulls[i]
        freedom += high - low - 1
        n_pulls += high - low
    return chi2, freedom, n_pulls


@nb.njit(nogil=True, cache=True)
def _variability(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    pulls = np.empty(points.t.size)
    in_time = np.empty(points.t.size)
    scales = np.ones(_N_BANDS)
    structure = np.empty(len(_LAGS_DAYS))
    n_structure = np.empty(len(_LAGS_DAYS), np.int64)
    for k in range(out.shape[0]):
        low, high = points.offsets[k], points.offsets[k + 1]
        best = low
        brightest = low
        negative = 0
        for i in range(low, high):
            if abs(points.flux[i]) / points.sigma[i] > abs(points.flux[best]) / points.sigma[best]:
                best = i
            if points.flux[i] > points.flux[brightest]:
                brightest = i
            if points.flux[i] < 0:
                negative += 1
        out[k, 0] = points.flux[best] / points.sigma[best]
        out[k, 1] = points.flux[brightest]
        out[k, 2] = points.t[high - 1] - points.t[brightest]
        out[k, 3] = points.t[brightest] - points.t[points.first[k]]
        out[k, 4] = negative / (high - low)
        out[k, 5:] = np.nan
        chi2, freedom, n_pulls = _pulls(points, k, pulls)
        if freedom == 0:
            why[k, 5:] = TOO_FEW_POINTS
            continue
        out[k, 5] = chi2 / freedom
        if chi2 == 0:
            why[k, 6:] = NO_VARIATION
            continue
        # Along each band: sizes and steps of the pulls, products of neighbours.
        sum_abs = 0.0
        sum_square = 0.0
        steps = 0.0
        products = 0.0
        gaps = 0.0
        n_steps = 0
        structure[:] = 0.0
        n_structure[:] = 0
        for b in range(_N_BANDS):
            begin, end = points.band_offsets[k, b], points.band_offsets[k, b + 1]
            if end - begin < 2:
                continue
            scales[b] = np.sqrt((end - begin) / (end - begin - 1.0))
            for i in range(begin, end):
                sum_abs += abs(pulls[i]) * scales[b]
                sum_square += (pulls[i] * scales[b]) ** 2
            for i in range(begin + 1, end):
                steps += (pulls[i] - pulls[i - 1]) ** 2
                products += pulls[i] * pulls[i - 1]
                gaps += points.band_t[i] - points.band_t[i - 1]
            n_steps += end - begin - 1
            apart = 1
            while apart < end - begin:
                for i in range(begin + apart, end):
                    lag = points.band_t[i] - points.band_t[i - apart]
                    if lag <= _LAGS_DAYS[2]:
                        at = 0 if lag <= _LAGS_DAYS[0] else 1 if lag <= _LAGS_DAYS[1] else 2
                        structure[at] += (pulls[i] - pulls[i - apart]) ** 2
                        n_structure[at] += 1
                apart *= 2
        out[k, 6] = sum_abs / np.sqrt(n_pulls * sum_square)
        out[k, 7] = (steps / n_steps) / (chi2 / freedom)
        out[k, 8] = products / chi2
        # What noise adds to the variance of pulls is 1.
        memory = (products / n_steps) / (chi2 / freedom - 1.0) if chi2 > freedom else np.nan
        if gaps > 0 and 0.0 < memory < 1.0:
            out[k, 9] = -(gaps / n_steps) / np.log(memory)
        else:
            why[k, 9] = NO_FIT
        for at in range(len(_LAGS_DAYS)):
            if n_structure[at] > 0:
                out[k, 10 + at] = structure[at] / n_structure[at] / 2.0 - 1.0
            else:
                why[k, 10 + at] = TOO_FEW_POINTS
        # In the order of time: neighbours of any band within a night.
        for b in range(_N_BANDS):
            for i in range(points.band_offsets[k, b], points.band_offsets[k, b + 1]):
                in_time[points.by_band[i]] = pulls[i] * scales[b]
        total = 0.0
        pairs = 0
        for i in range(low + 1, high):
            product = in_time[i] * in_time[i - 1]
            if points.t[i] - points.t[i - 1] <= _SAME_NIGHT_DAYS and not np.isnan(product):
                total += np.sign(product) * np.sqrt(abs(product))
                pairs += 1
        if pairs > 0:
            out[k, 13] = total / pairs
        else:
            why[k, 13] = TOO_FEW_POINTS


def _structure_feature(name: str, which: str) -> Feature:
    return Feature(
        f"structure_{name}",
        "1",
        _TIMED,
        f"mean (p_i - p_j)^2 / 2 - 1 of the pulls p = (f - <f>_b)/sigma of points of a band that lie 1, "
        f"2, 4, 8, ... places and {which} apart",
        min_points=2,
        paper="Simonetti et al. 1985, ApJ 296, 46, eq. 1, doi:10.1086/163418; of pulls, noise subtracted",
        varies=True,
    )


VARIABILITY: Final = Family(
    "variability",
    (
        Feature("peak_snr", "1", _FLUXES, "f/sigma of the point with the largest |f|/sigma"),
        Feature(
            "peak_flux_njy",
            "nJy",
            frozenset({Input.FLUX}),
            "largest flux in any band",
            Scaling.LINEAR,
        ),
        Feature(
            "days_since_peak",
            "d",
            frozenset({Input.TIME, Input.FLUX}),
            "time from the largest flux to the last point",
        ),
        Feature(
            "days_to_peak",
            "d",
            DETECTION | {Input.TIME},
            "time from the first detection to the largest flux",
        ),
        Feature("negative_fraction", "1", frozenset({Input.FLUX}), "fraction of points with f < 0"),
        Feature(
            "chi2_constant",
            "1",
            _BAND_FLUXES,
            "sum over bands of sum ((f - <f>_b)/sigma)^2, over sum (n_b - 1); <f>_b weighted by 1/sigma^2",
            min_points=2,
        ),
        Feature(
            "stetson_k",
            "1",
            _BAND_FLUXES,
            "mean |d| / sqrt(mean d^2), d = sqrt(n_b/(n_b - 1)) (f - <f>_b)/sigma over all bands",
            min_points=2,
            paper="Stetson 1996, PASP 108, 851, section 2, doi:10.1086/133808; weighted means",
            varies=True,
        ),
        Feature(
            "von_neumann",
            "1",
            _TIMED,
            "mean squared step of the pulls within bands, over chi2_constant",
            min_points=2,
            paper="von Neumann 1941, Ann. Math. Stat. 12, 367, eq. 4, doi:10.1214/aoms/1177731677",
            varies=True,
        ),
        Feature(
            "autocorrelation",
            "1",
            _TIMED,
            "sum p_i p_(i-1) / sum p^2 of the pulls p along each band",
            min_points=2,
            varies=True,
        ),
        Feature(
            "drw_days",
            "d",
            _TIMED,
            "-<t_i - t_(i-1)> / ln r, r = mean p_i p_(i-1) / (chi2_constant - 1): the time in which a damped "
            "random walk forgets; null unless 0 < r < 1",
            min_points=3,
            paper="Kelly, Bechtold & Siemiginowska 2009, ApJ 698, 895, eq. 3, "
            "doi:10.1088/0004-637X/698/1/895; from the neighbours' mean product",
            varies=True,
        ),
        _structure_feature("days", "up to 3 d"),
        _structure_feature("weeks", "3 to 30 d"),
        _structure_feature("months", "30 to 300 d"),
        Feature(
            "stetson_j",
            "1",
            _TIMED,
            "mean sgn(P) sqrt|P|, P = d_i d_(i-1) of neighbours in time, in any bands, within 0.5 d",
            min_points=2,
            paper="Stetson 1996, PASP 108, 851, eq. 1, doi:10.1086/133808; equal weights",
            varies=True,
        ),
    ),
    _variability,
)
