"""A light curve with one peak, fitted: Bazin's function in the brightest band, its height in all.

For most alerts a fit is not worthwhile: they have too few points, or are variables that one peak does not
describe. The gate (:func:`.shape.fit_gate`) opens for a light curve whose band of the best abs(flux)/sigma
has 6 to 256 points, one of five sigma, and at most 3 peaks as the family ``shape`` counts them. Then the
shape is fitted there (:mod:`.bazin`), and each band's own height and background follow with that shape, in
closed form.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS
from lightcurves.features.bazin import MIN_POINTS, fit_bazin
from lightcurves.features.declare import (
    DETECTION,
    NO_FIT,
    NOT_IN_BAND,
    Context,
    Family,
    Feature,
    Input,
    Points,
    Scaling,
)
from lightcurves.features.shape import fit_gate

_N_BANDS: Final = len(LSST_BANDS)
_N_SHAPE: Final = 9
_STARTS: Final = 2
_ITERATIONS: Final = 20
_LEAST_IN_BAND: Final = 3
_CURVE: Final = frozenset({Input.TIME, Input.BAND, Input.FLUX, Input.SIGMA})


@nb.njit(nogil=True, cache=True)
def _height(flux: Any, sigma: Any, shape: Any) -> float:
    """Return the height of `shape` over a free background, by weighted least squares; NaN where open."""
    total = 0.0
    mean_h = 0.0
    mean_f = 0.0
    for i in range(flux.size):
        w = 1.0 / sigma[i] ** 2
        total += w
        mean_h += w * shape[i]
        mean_f += w * flux[i]
    mean_h /= total
    mean_f /= total
    hh = 0.0
    hf = 0.0
    largest = 0.0
    for i in range(flux.size):
        w = 1.0 / sigma[i] ** 2
        hh += w * (shape[i] - mean_h) ** 2
        hf += w * (shape[i] - mean_h) * (flux[i] - mean_f)
        largest = max(largest, abs(shape[i] - mean_h))
    return hf / hh if largest > 1e-3 else np.nan


@nb.njit(nogil=True, cache=True)
def _collect(
    points: Any, fitted: Any, band: Any, sign: Any, offsets: Any, t: Any, flux: Any, sigma: Any
) -> None:
    """Copy the points to fit; times from the first detection: nothing depends on the epoch."""
    at = 0
    for row in range(fitted.size):
        k = fitted[row]
        zero = points.t[points.first[k]]
        for i in range(points.band_offsets[k, band[k]], points.band_offsets[k, band[k] + 1]):
            t[at] = points.band_t[i] - zero
            flux[at] = sign[k] * points.band_flux[i]
            sigma[at] = points.band_sigma[i]
            at += 1
        offsets[row + 1] = at


@nb.njit(nogil=True, cache=True)
def _shape_of(t: Any, zero: float, values: Any, shape: Any) -> None:
    """Fill in the fitted function for A = 1 and B = 0, as :func:`.bazin.bazin_flux` has it."""
    for i in range(t.size):
        x = t[i] - zero - values[2]
        z = -x / values[3]
        shape[i] = math.exp(-x / values[4] - max(z, 0.0) - math.log1p(math.exp(-abs(z))))


@nb.njit(nogil=True, cache=True)
def _tell(
    points: Any, fitted: Any, sign: Any, values: Any, errors: Any, chi2: Any, out: Any, why: Any
) -> None:
    shape = np.empty(points.band_t.size)
    for row in range(fitted.size):
        k = fitted[row]
        if why[k, 0] != 0:
            continue
        rise, fall = values[row, 3], values[row, 4]
        after = rise * math.log(fall / rise - 1.0)  # of the peak, after t0
        out[k, 0] = rise
        out[k, 1] = errors[row, 3]
        out[k, 2] = fall
        out[k, 3] = errors[row, 4]
        out[k, 4] = values[row, 2] + after
        out[k, 5] = errors[row, 2]
        out[k, 6] = sign[k] * values[row, 0]
        out[k, 7] = errors[row, 0]
        out[k, 8] = chi2[row]
        zero = points.t[points.first[k]]
        for b in range(_N_BANDS):
            low, high = points.band_offsets[k, b], points.band_offsets[k, b + 1]
            column = _N_SHAPE + b
            if high - low < _LEAST_IN_BAND:
                why[k, column] = NOT_IN_BAND
                continue
            _shape_of(points.band_t[low:high], zero, values[row], shape)
            out[k, column] = _height(
                points.band_flux[low:high], points.band_sigma[low:high], shape[: high - low]
            )
        for column in range(out.shape[1]):
            if why[k, column] == 0 and not np.isfinite(out[k, column]):
                out[k, column] = np.nan
                why[k, column] = NO_FIT


# No kernel of another file is called in a kernel: numba's cache would not see a change there.
def _fit(points: Points, context: Context, out: Any, why: Any) -> None:  # noqa: ARG001
    n = len(out)
    band, sign, reason = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int8)
    fit_gate(points, MIN_POINTS, band, sign, reason)
    fitted = np.flatnonzero(reason == 0)
    rows = points.band_offsets[fitted]
    n_points = int((rows[np.arange(fitted.size), band[fitted] + 1]
                    - rows[np.arange(fitted.size), band[fitted]]).sum())  # fmt: skip
    offsets = np.zeros(fitted.size + 1, np.int64)
    t, flux, sigma = np.empty(n_points), np.empty(n_points), np.empty(n_points)
    _collect(points, fitted, band, sign, offsets, t, flux, sigma)
    fits = fit_bazin(t, flux, sigma, offsets, starts=_STARTS, iterations=_ITERATIONS)
    reason[fitted] = fits.why
    why[:] = reason[:, None]
    _tell(points, fitted, sign, fits.values, fits.errors, fits.reduced_chi2, out, why)


_PAPER: Final = "Bazin et al. 2009, A&A 499, 653, eq. 1, doi:10.1051/0004-6361/200911847"


def _shape_feature(
    name: str, unit: str, formula: str, inputs: frozenset[Input] = _CURVE
) -> Feature:
    scaling = Scaling.LINEAR if unit == "nJy" else Scaling.INVARIANT
    return Feature(name, unit, inputs, formula, scaling, MIN_POINTS, _PAPER, varies=True)


FIT: Final = Family(
    "fit",
    (
        _shape_feature(
            "fit_rise_days",
            "d",
            "tau_rise of A exp(-(t - t0)/tau_fall)/(1 + exp(-(t - t0)/tau_rise)) + B, in the band of the "
            "best |f|/sigma, f times the sign of its largest |f|",
        ),
        _shape_feature("fit_rise_error_days", "d", "standard error of tau_rise"),
        _shape_feature("fit_fall_days", "d", "tau_fall"),
        _shape_feature("fit_fall_error_days", "d", "standard error of tau_fall"),
        _shape_feature(
            "fit_peak_days",
            "d",
            "t0 + tau_rise ln(tau_fall/tau_rise - 1), from the first detection",
            DETECTION | _CURVE,
        ),
        _shape_feature("fit_t0_error_days", "d", "standard error of t0"),
        _shape_feature("fit_amplitude_njy", "nJy", "A, with the sign of the largest |f|"),
        _shape_feature("fit_amplitude_error_njy", "nJy", "standard error of A"),
        _shape_feature("fit_chi2", "1", "chi-square over points less five"),
        *(
            _shape_feature(
                f"fit_{b}_njy",
                "nJy",
                f"A of the same shape in {b}, by least squares with a B of its own",
            )
            for b in LSST_BANDS
        ),
    ),
    _fit,
)
