"""Neighbouring bands against each other: at their tops, at the end, in the same nights, and all along.

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
_N_TRACKS: Final = _N_PAIRS + _N_PAIRS - 1  # the next band, and the one after it
_FIRST_TRACK: Final = 5 * _N_PAIRS  # after five features of each pair
_SAME_NIGHT_DAYS: Final = 0.5
_GAP_DAYS: Final = 30.0
_END_DAYS: Final = 8.0
_NO_DIRECTION: Final = 1e-9
_FLUX: Final = frozenset({Input.BAND, Input.FLUX})
_TIMED: Final = _FLUX | {Input.TIME}
_TRACKED: Final = _TIMED | {Input.SIGMA}


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
def _compare(t: Any, flux: Any, sigma: Any, here: Any, there: Any, sums: Any) -> int:
    """Add to `sums` the products of the fluxes of one band with the other's at the same times.

    The other's lies on the line between two points no further apart than 30 d, or is that of a point
    within 8 d. Sums are of f^2 here, f^2 there and f f, less what the errors put into the squares, and
    of both squares as they are, all over the variance of both.
    """
    n = 0
    j = there[0]
    for i in range(here[0], here[1]):
        while j < there[1] and t[j] < t[i]:
            j += 1
        before, after = j > there[0], j < there[1]
        if before and after and t[j] - t[j - 1] <= _GAP_DAYS:
            part = (t[i] - t[j - 1]) / (t[j] - t[j - 1])
            other = (1.0 - part) * flux[j - 1] + part * flux[j]
            variance = (1.0 - part) ** 2 * sigma[j - 1] ** 2 + part**2 * sigma[j] ** 2
        elif before and t[i] - t[j - 1] <= _END_DAYS:
            other, variance = flux[j - 1], sigma[j - 1] ** 2
        elif after and t[j] - t[i] <= _END_DAYS:
            other, variance = flux[j], sigma[j] ** 2
        else:
            continue
        weight = 1.0 / (sigma[i] ** 2 + variance)
        sums[0] += weight * (flux[i] ** 2 - sigma[i] ** 2)
        sums[1] += weight * (other**2 - variance)
        sums[2] += weight * flux[i] * other
        sums[3] += weight * (flux[i] ** 2 + other**2)
        n += 1
    return n


@nb.njit(nogil=True, cache=True)
def _tracks(points: Any, bounds: Any, sums: Any, out: Any, why: Any) -> None:
    """Fill in how much of what two bands share is in the blue one."""
    t, flux, sigma = points.band_t, points.band_flux, points.band_sigma
    for pair in range(_N_TRACKS):
        b = pair % _N_PAIRS
        r = b + 1 + pair // _N_PAIRS
        blue, red = bounds[b : b + 2], bounds[r : r + 2]
        if blue[0] == blue[1] or red[0] == red[1]:
            why[pair] = NOT_IN_BAND
            continue
        sums[:] = 0.0
        n = _compare(t, flux, sigma, blue, red, sums[0])
        n += _compare(t, flux, sigma, red, blue, sums[1])
        difference = sums[0, 0] + sums[1, 1] - sums[0, 1] - sums[1, 0]
        length = np.hypot(difference, 2.0 * (sums[0, 2] + sums[1, 2]))
        if n == 0:
            why[pair] = TOO_FEW_POINTS
        elif length <= _NO_DIRECTION * (n + sums[0, 3] + sums[1, 3]):
            why[pair] = NO_VARIATION
        else:
            out[pair] = difference / length


@nb.njit(nogil=True, cache=True)
def _colours(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    t, flux = points.band_t, points.band_flux
    top = np.empty(_N_PAIRS + 1, np.int64)
    sums = np.empty((2, 4))
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
                why[k, pair:_FIRST_TRACK:_N_PAIRS] = NOT_IN_BAND
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
            nightly = slice(3 * _N_PAIRS + pair, _FIRST_TRACK, _N_PAIRS)
            _nights(t, flux, blue, red, out[k, nightly], why[k, nightly])
        _tracks(points, bounds, sums, out[k, _FIRST_TRACK:], why[k, _FIRST_TRACK:])


def _features() -> tuple[Feature, ...]:
    pairs = [blue + red for blue, red in pairwise(LSST_BANDS)]
    wider = [blue + red for blue, red in zip(LSST_BANDS, LSST_BANDS[2:], strict=False)]

    def of(
        name: str,
        unit: str,
        formula: str,
        inputs: frozenset[Input],
        pairs: list[str] = pairs,
        least: int = 2,
    ) -> tuple[Feature, ...]:
        return tuple(
            Feature(f"{p}_{name}", unit, inputs, formula, min_points=least, bands=p) for p in pairs
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
            least=3,
        ),
        *of(
            "contrast_track",
            "1",
            "D / sqrt(D^2 + C^2), D = sum w (f_blue^2 - v_blue - f_red^2 + v_red), C = 2 sum w f_blue f_red, "
            "v the variances, w = 1/(v_blue + v_red), over all points of both bands: the other band's flux "
            "on the line between its points if no more than 30 d apart, else its point within 8 d (the "
            "earlier first); none where the root is below 1e-9 of sum w (f_blue^2 + f_red^2 + v_blue "
            "+ v_red)",
            _TRACKED,
            pairs + wider,
        ),
    )


COLOURS: Final = Family("colours", _features(), _colours)
