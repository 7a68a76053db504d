"""One band at a time, and adjacent bands against each other."""

from __future__ import annotations

from itertools import pairwise
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
_PER_BAND: Final = 6
_FLUX: Final = frozenset({Input.BAND, Input.FLUX})
_WEIGHTED: Final = _FLUX | {Input.SIGMA}
_TIMED: Final = _FLUX | {Input.TIME}


@nb.njit(nogil=True, cache=True)
def _bands(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    for k in range(out.shape[0]):
        for b in range(_N_BANDS):
            members = points.by_band[points.band_offsets[k, b] : points.band_offsets[k, b + 1]]
            at = b * _PER_BAND
            out[k, at : at + _PER_BAND] = np.nan
            n = members.size
            if n == 0:
                why[k, at : at + _PER_BAND] = NOT_IN_BAND
                continue
            weight = 0.0
            mean = 0.0
            plain = 0.0
            largest = points.flux[members[0]]
            smallest = largest
            for i in members:
                f = points.flux[i]
                w = 1.0 / points.sigma[i] ** 2
                weight += w
                mean += w * f
                plain += f
                largest = max(largest, f)
                smallest = min(smallest, f)
            mean /= weight
            plain /= n
            out[k, at] = largest
            out[k, at + 1] = mean
            if n < 2:
                why[k, at + 2 : at + _PER_BAND] = TOO_FEW_POINTS
                continue
            second = 0.0
            third = 0.0
            noise = 0.0
            for i in members:
                d = points.flux[i] - plain
                second += d * d
                third += d * d * d
                noise += points.sigma[i] ** 2
            second /= n
            third /= n
            noise /= n
            spread = largest - smallest
            if spread > 0:
                excess = second * n / (n - 1.0) - noise
                out[k, at + 2] = np.sign(excess) * np.sqrt(abs(excess)) / spread
                out[k, at + 3] = third / second**1.5
                out[k, at + 4] = (points.flux[members[n - 1]] - smallest) / spread
            else:
                why[k, at + 2 : at + 5] = NO_VARIATION
            last = members[n - 1]
            previous = members[n - 2]
            step = points.t[last] - points.t[previous]
            if step > 0:
                out[k, at + 5] = (points.flux[last] - points.flux[previous]) / step
            else:
                why[k, at + 5] = NO_VARIATION


@nb.njit(nogil=True, cache=True)
def _colours(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    peaks = np.empty(_N_BANDS)
    last = np.empty(_N_BANDS)
    n_pairs = _N_BANDS - 1
    for k in range(out.shape[0]):
        for b in range(_N_BANDS):
            members = points.by_band[points.band_offsets[k, b] : points.band_offsets[k, b + 1]]
            peaks[b] = np.nan
            last[b] = np.nan
            for i in members:
                if not abs(points.flux[i]) <= abs(peaks[b]):
                    peaks[b] = points.flux[i]
                last[b] = points.flux[i]
        for pair in range(n_pairs):
            _contrast(peaks[pair], peaks[pair + 1], out, why, k, pair)
            _contrast(last[pair], last[pair + 1], out, why, k, n_pairs + pair)


@nb.njit(nogil=True, cache=True, inline="always")
def _contrast(blue: float, red: float, out: Any, why: Any, k: int, column: int) -> None:
    out[k, column] = np.nan
    if np.isnan(blue) or np.isnan(red):
        why[k, column] = NOT_IN_BAND
    elif blue == 0 and red == 0:
        why[k, column] = NO_VARIATION
    else:
        out[k, column] = (blue - red) / (abs(blue) + abs(red))


def _band_features(b: str) -> tuple[Feature, ...]:
    return (
        Feature(f"{b}_max_njy", "nJy", _FLUX, f"largest flux in {b}", Scaling.LINEAR),
        Feature(
            f"{b}_mean_njy",
            "nJy",
            _WEIGHTED,
            f"mean flux in {b}, weighted by 1/sigma^2",
            Scaling.LINEAR,
        ),
        Feature(
            f"{b}_excess",
            "1",
            _WEIGHTED,
            "s = var(f) - mean(sigma^2); sign(s) sqrt|s| / (max f - min f)",
            min_points=2,
            paper="Nandra et al. 1997, ApJ 476, 70, eq. 1, doi:10.1086/303600; scaled by the range",
        ),
        Feature(
            f"{b}_skewness",
            "1",
            _FLUX,
            "mean (f - mean f)^3 / (mean (f - mean f)^2)^1.5",
            min_points=2,
        ),
        Feature(f"{b}_last_level", "1", _TIMED, "(last f - min f) / (max f - min f)", min_points=2),
        Feature(
            f"{b}_last_slope",
            "nJy/d",
            _TIMED,
            "(f_n - f_(n-1)) / (t_n - t_(n-1))",
            Scaling.LINEAR,
            min_points=2,
        ),
    )


def _colour_features(moment: str, which: str, inputs: frozenset[Input]) -> tuple[Feature, ...]:
    return tuple(
        Feature(
            f"{blue}{red}_contrast_{moment}",
            "1",
            inputs,
            f"(f_{blue} - f_{red}) / (|f_{blue}| + |f_{red}|) of {which} in each band",
            min_points=2,
        )
        for blue, red in pairwise(LSST_BANDS)
    )


BANDS: Final = Family("bands", tuple(f for b in LSST_BANDS for f in _band_features(b)), _bands)
COLOURS: Final = Family(
    "colours",
    _colour_features("peak", "the flux of largest modulus", _FLUX)
    + _colour_features("last", "the last flux", _TIMED),
    _colours,
)
