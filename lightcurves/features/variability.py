"""How the flux varies, all bands together: each band against its own mean."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS
from lightcurves.features.declare import (
    CURVE,
    NO_VARIATION,
    TOO_FEW_POINTS,
    Family,
    Feature,
    Input,
    Scaling,
)

_FLUXES: Final = frozenset({Input.FLUX, Input.SIGMA})
_BAND_FLUXES: Final = _FLUXES | {Input.BAND}
_N_BANDS: Final = len(LSST_BANDS)


@nb.njit(nogil=True, cache=True)
def _variability(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
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
        chi2 = 0.0
        steps = 0.0
        n_steps = 0
        freedom = 0
        sum_abs = 0.0
        sum_square = 0.0
        for b in range(_N_BANDS):
            members = points.by_band[points.band_offsets[k, b] : points.band_offsets[k, b + 1]]
            if members.size < 2:
                continue
            weight = 0.0
            mean = 0.0
            zero = points.flux[members[0]]  # fluxes against it: equal ones give a pull of exactly 0
            for i in members:
                w = 1.0 / points.sigma[i] ** 2
                weight += w
                mean += w * (points.flux[i] - zero)
            mean /= weight
            last = 0.0
            scale = np.sqrt(members.size / (members.size - 1.0))
            for position in range(members.size):
                i = members[position]
                pull = (points.flux[i] - zero - mean) / points.sigma[i]
                chi2 += pull * pull
                sum_abs += abs(pull) * scale
                sum_square += (pull * scale) ** 2
                if position > 0:
                    steps += (pull - last) ** 2
                    n_steps += 1
                last = pull
            freedom += members.size - 1
        n_pulls = 0
        for b in range(_N_BANDS):
            size = points.band_offsets[k, b + 1] - points.band_offsets[k, b]
            n_pulls += size if size > 1 else 0
        out[k, 0] = points.flux[best] / points.sigma[best]
        out[k, 1] = points.flux[brightest]
        out[k, 2] = points.t[high - 1] - points.t[brightest]
        out[k, 3] = points.t[brightest] - points.first[k]
        out[k, 4] = negative / (high - low)
        out[k, 5:8] = np.nan
        if freedom == 0:
            why[k, 5:8] = TOO_FEW_POINTS
            continue
        out[k, 5] = chi2 / freedom
        if sum_square > 0:
            out[k, 6] = sum_abs / np.sqrt(n_pulls * sum_square)
            out[k, 7] = (steps / n_steps) / (chi2 / freedom)
        else:
            why[k, 6:8] = NO_VARIATION


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
            CURVE - {Input.BAND},
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
        ),
        Feature(
            "von_neumann",
            "1",
            _BAND_FLUXES | {Input.TIME},
            "mean squared step of the pulls within bands, over chi2_constant",
            min_points=2,
            paper="von Neumann 1941, Ann. Math. Stat. 12, 367, eq. 4, doi:10.1214/aoms/1177731677",
        ),
    ),
    _variability,
)
