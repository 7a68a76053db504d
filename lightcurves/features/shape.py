"""The rise and the fall of the brightest band: what tells a transient from a variable."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.features.declare import (
    NO_PEAK,
    NO_VARIATION,
    TOO_FEW_POINTS,
    Family,
    Feature,
    Input,
    Scaling,
)

_SHAPE: Final = frozenset({Input.TIME, Input.BAND, Input.FLUX, Input.SIGMA})
_PEAK_SNR: Final = 3.0

# What is worth a fit.
MAX_POINTS: Final = 256
MAX_PEAKS: Final = 3
MIN_SNR: Final = 5.0


@nb.njit(nogil=True, cache=True)
def _count_peaks(flux: Any, sigma: Any, sign: float) -> int:
    """Count the peaks that stand out by 3 sigma of the difference on both sides, or to an end.

    The series is walked as a zigzag: up to a highest point that is left by a drop of 3 sigma, down to
    a lowest that is left by a rise of 3 sigma.
    """
    peaks = 0
    rising = True
    turn = 0
    for i in range(1, flux.size):
        step = sign * (flux[i] - flux[turn])
        noise = _PEAK_SNR * np.sqrt(sigma[i] ** 2 + sigma[turn] ** 2)
        if step > 0 if rising else step < 0:
            turn = i
        elif abs(step) > noise:
            peaks += rising
            rising = not rising
            turn = i
    return peaks + rising


@nb.njit(nogil=True, cache=True)
def fit_gate(points: Any, least: int, band: Any, sign: Any, why: Any) -> None:
    """Find the light curves for which fitting a peak is worthwhile, see :mod:`.fit`.

    Parameters
    ----------
    points
        Of n light curves, each with a point.
    least
        Fewer points in the band are not fitted.
    band, sign, why
        int64, float64 and int8 (n): receive the band of the best abs(flux)/sigma, the sign of its
        largest abs(flux), and 0 or the reason against a fit.
    """
    for k in range(band.size):
        best = points.offsets[k]
        for i in range(points.offsets[k], points.offsets[k + 1]):
            if abs(points.flux[i]) / points.sigma[i] > abs(points.flux[best]) / points.sigma[best]:
                best = i
        band[k] = points.band[best]
        low, high = points.band_offsets[k, band[k]], points.band_offsets[k, band[k] + 1]
        top = low
        for i in range(low, high):
            if abs(points.band_flux[i]) > abs(points.band_flux[top]):
                top = i
        sign[k] = np.sign(points.band_flux[top])
        why[k] = 0
        if high - low < least:
            why[k] = TOO_FEW_POINTS
            continue
        faint = abs(points.flux[best]) < MIN_SNR * points.sigma[best]
        flux, sigma = points.band_flux[low:high], points.band_sigma[low:high]
        if high - low > MAX_POINTS or faint or _count_peaks(flux, sigma, sign[k]) > MAX_PEAKS:
            why[k] = NO_PEAK


@nb.njit(nogil=True, cache=True)
def _shape(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    for k in range(out.shape[0]):
        out[k, :] = np.nan
        low = points.offsets[k]
        peak = low
        for i in range(low, points.offsets[k + 1]):
            if abs(points.flux[i]) / points.sigma[i] > abs(points.flux[peak]) / points.sigma[peak]:
                peak = i
        b = points.band[peak]
        begin, end = points.band_offsets[k, b], points.band_offsets[k, b + 1]
        t, f, s = (
            points.band_t[begin:end],
            points.band_flux[begin:end],
            points.band_sigma[begin:end],
        )
        n = end - begin
        if n < 2:
            why[k, :] = TOO_FEW_POINTS
            continue
        top = 0
        for i in range(n):
            if abs(f[i]) > abs(f[top]):
                top = i
        height = f[top]
        if height == 0:
            why[k, :] = NO_VARIATION
            continue
        if t[top] > t[0]:
            out[k, 0] = (height - f[0]) / height / (t[top] - t[0])
        else:
            why[k, 0] = TOO_FEW_POINTS
        if t[n - 1] > t[top]:
            out[k, 1] = (height - f[n - 1]) / height / (t[n - 1] - t[top])
        else:
            why[k, 1] = TOO_FEW_POINTS
        above = 0.0
        crossings = 0
        steepest = -1
        for i in range(1, n):
            a = f[i - 1] / height > 0.5
            c = f[i] / height > 0.5
            if a and c:
                above += t[i] - t[i - 1]
            crossings += a != c
            if t[i] > t[i - 1] and (
                steepest < 0
                or abs(f[i] - f[i - 1]) * (t[steepest] - t[steepest - 1])
                > abs(f[steepest] - f[steepest - 1]) * (t[i] - t[i - 1])
            ):
                steepest = i
        out[k, 2] = above
        out[k, 3] = crossings
        out[k, 4] = _count_peaks(f, s, np.sign(height))
        if steepest < 0:
            why[k, 5:7] = TOO_FEW_POINTS
        else:
            i = steepest
            out[k, 5] = (f[i] - f[i - 1]) / (t[i] - t[i - 1])
            out[k, 6] = (f[i] - f[i - 1]) / np.sqrt(s[i] ** 2 + s[i - 1] ** 2)
        why[k, 7:9] = TOO_FEW_POINTS
        for i in range(top - 1, -1, -1):
            if f[i] / height < 0.5:
                out[k, 7] = t[top] - t[i]
                why[k, 7] = 0
                break
        for i in range(top + 1, n):
            if f[i] / height < 0.5:
                out[k, 8] = t[i] - t[top]
                why[k, 8] = 0
                break


SHAPE: Final = Family(
    "shape",
    (
        Feature(
            "rise_rate",
            "1/d",
            _SHAPE,
            "in the band of the best |f|/sigma: (f_top - f_first)/f_top/(t_top - t_first), top = largest |f|",
            min_points=2,
        ),
        Feature(
            "decline_rate", "1/d", _SHAPE, "the same from the top to the last point", min_points=2
        ),
        Feature(
            "above_half_days",
            "d",
            _SHAPE,
            "time between neighbouring points that are both above half of f_top",
            min_points=2,
        ),
        Feature("half_crossings", "1", _SHAPE, "how often f passes half of f_top", min_points=2),
        Feature(
            "n_peaks",
            "1",
            _SHAPE,
            "peaks of f/f_top: turns from rise to fall that a fall follows, and a rise before the next, each "
            "of 3 sigma of the difference; the last point counts as a turn",
            min_points=2,
        ),
        Feature(
            "max_slope",
            "nJy/d",
            _SHAPE,
            "(f_i - f_(i-1))/(t_i - t_(i-1)), largest in modulus",
            Scaling.LINEAR,
            min_points=2,
        ),
        Feature(
            "max_slope_snr",
            "1",
            _SHAPE,
            "that difference of fluxes over sqrt(sigma_i^2 + sigma_(i-1)^2)",
            min_points=2,
        ),
        Feature(
            "rise_half_days",
            "d",
            _SHAPE,
            "time from the last point before the top with f below half of f_top",
            min_points=2,
        ),
        Feature(
            "decline_half_days",
            "d",
            _SHAPE,
            "time to the first point after the top with f below half of f_top",
            min_points=2,
        ),
    ),
    _shape,
)
