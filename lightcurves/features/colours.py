"""Adjacent bands against each other: at their tops, at the end, in the same nights, and in time.

A colour is a contrast, (f_blue - f_red)/(|f_blue| + |f_red|), because difference fluxes may be
negative: a ratio or a magnitude would not exist.
"""

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
)

_N_PAIRS: Final = len(LSST_BANDS) - 1
_SAME_NIGHT_DAYS: Final = 0.5
_FLUX: Final = frozenset({Input.BAND, Input.FLUX})
_TIMED: Final = _FLUX | {Input.TIME}


@nb.njit(nogil=True, cache=True)
def _contrast(blue: float, red: float) -> float:
    """Return (blue - red)/(|blue| + |red|), NaN where both are 0."""
    whole = abs(blue) + abs(red)
    return (blue - red) / whole if whole > 0 else np.nan


@nb.njit(nogil=True, cache=True)
def _nights(t: Any, flux: Any, blue: Any, red: Any, out: Any, why: Any) -> None:
    """Pair each blue point with the nearest red one of its night; fill in mean contrast and change."""
    total = 0.0
    n = 0
    first = np.nan
    last = np.nan
    t_first = 0.0
    t_last = 0.0
    j = red[0]
    for i in range(blue[0], blue[1]):
        while j + 1 < red[1] and abs(t[j + 1] - t[i]) <= abs(t[j] - t[i]):
            j += 1
        if abs(t[j] - t[i]) > _SAME_NIGHT_DAYS:
            continue
        contrast = _contrast(flux[i], flux[j])
        if np.isnan(contrast):
            continue
        total += contrast
        if n == 0:
            first = contrast
            t_first = t[i]
        n += 1
        last = contrast
        t_last = t[i]
    if n == 0:
        why[:] = TOO_FEW_POINTS
        return
    out[0] = total / n
    if t_last > t_first:
        out[1] = (last - first) / (t_last - t_first)
    else:
        why[1] = TOO_FEW_POINTS


@nb.njit(nogil=True, cache=True)
def _colours(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    t, flux = points.band_t, points.band_flux
    top = np.empty(_N_PAIRS + 1, np.int64)
    for k in range(out.shape[0]):
        bounds = points.band_offsets[k]
        for b in range(_N_PAIRS + 1):
            top[b] = bounds[b]
            for i in range(bounds[b], bounds[b + 1]):
                if abs(flux[i]) > abs(flux[top[b]]):
                    top[b] = i
        out[k, :] = np.nan
        for pair in range(_N_PAIRS):
            blue, red = bounds[pair : pair + 2], bounds[pair + 1 : pair + 3]
            if blue[0] == blue[1] or red[0] == red[1]:
                why[k, pair::_N_PAIRS] = NOT_IN_BAND
                continue
            peak = _contrast(flux[top[pair]], flux[top[pair + 1]])
            end = _contrast(flux[blue[1] - 1], flux[red[1] - 1])
            out[k, pair] = peak
            out[k, _N_PAIRS + pair] = end
            if np.isnan(peak):
                why[k, pair] = NO_VARIATION
            if np.isnan(end):
                why[k, _N_PAIRS + pair] = NO_VARIATION
            out[k, 2 * _N_PAIRS + pair] = t[top[pair + 1]] - t[top[pair]]
            nightly = slice(3 * _N_PAIRS + pair, None, _N_PAIRS)
            _nights(t, flux, blue, red, out[k, nightly], why[k, nightly])


def _features() -> tuple[Feature, ...]:
    pairs = [blue + red for blue, red in pairwise(LSST_BANDS)]

    def of(name: str, unit: str, formula: str, inputs: frozenset[Input]) -> tuple[Feature, ...]:
        return tuple(
            Feature(f"{p}_{name}", unit, inputs, formula, min_points=2, bands=p) for p in pairs
        )

    contrast = "(f_blue - f_red) / (|f_blue| + |f_red|)"
    return (
        *of("contrast_peak", "1", f"{contrast} of the fluxes of largest modulus", _FLUX),
        *of("contrast_last", "1", f"{contrast} of the last fluxes", _TIMED),
        *of("lag_peak_days", "d", "time from the blue flux of largest modulus to the red", _TIMED),
        *of(
            "contrast_night",
            "1",
            f"mean {contrast} of each blue point and its nearest red one (the later of two), within 0.5 d",
            _TIMED,
        ),
        *of(
            "contrast_change",
            "1/d",
            "the last of these contrasts minus the first, over the time between their blue points",
            _TIMED,
        ),
    )


COLOURS: Final = Family("colours", _features(), _colours)
