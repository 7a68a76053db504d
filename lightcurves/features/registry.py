"""The ordered list of features, its digest, and the one pass that computes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS, N_BANDS
from lightcurves.features.bands import BANDS
from lightcurves.features.colours import COLOURS
from lightcurves.features.context import CONTEXT
from lightcurves.features.declare import Context, Family, Feature, Points
from lightcurves.features.sampling import SAMPLING
from lightcurves.features.shape import SHAPE
from lightcurves.features.variability import VARIABILITY
from lightcurves.surveys import DETECTED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightcurves.arrays import LightCurves

FAMILIES: Final[tuple[Family, ...]] = (SAMPLING, VARIABILITY, SHAPE, BANDS, COLOURS, CONTEXT)
FEATURES: Final[tuple[Feature, ...]] = tuple(f for family in FAMILIES for f in family.features)
FEATURE_NAMES: Final = tuple(feature.name for feature in FEATURES)

DETECTION_SNR: Final = 5.0
"""A point without the flag counts as a detection this far from zero: LSST's own alert threshold."""

# ZTF's g r i share the features of LSST's: a model sees one g, and learns on one survey at a time.
_FEATURE_BAND: Final = np.array([0, 1, 2, 3, 4, 5, 1, 2, 3], np.int8)
assert _FEATURE_BAND.size == N_BANDS  # noqa: S101 - a table that must cover every band code


def feature_digest(features: tuple[Feature, ...] = FEATURES) -> str:
    """Return 12 hexadecimal digits that change whenever a feature's declaration or order does."""
    declared = [{**asdict(f), "inputs": sorted(f.inputs)} for f in features]
    text = json.dumps(declared, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


FEATURE_DIGEST: Final = feature_digest()


@nb.njit(nogil=True, cache=True)
def _group_by_band(
    offsets: Any, band: Any, detected: Any, by_band: Any, band_offsets: Any, first: Any
) -> None:
    """List points band by band (a counting sort, so time order stays), and find first detections."""
    n_bands = band_offsets.shape[1] - 1
    cursor = np.empty(n_bands, np.int64)
    for k in range(offsets.size - 1):
        low, high = offsets[k], offsets[k + 1]
        band_offsets[k, :] = 0
        first[k] = -1
        for i in range(low, high):
            band_offsets[k, band[i] + 1] += 1
            if detected[i] and first[k] < 0:
                first[k] = i
        if first[k] < 0:
            first[k] = low
        band_offsets[k, 0] = low
        for b in range(n_bands):
            band_offsets[k, b + 1] += band_offsets[k, b]
            cursor[b] = band_offsets[k, b]
        for i in range(low, high):
            by_band[cursor[band[i]]] = i
            cursor[band[i]] += 1


@nb.njit(nogil=True, cache=True)
def _sort_bands(band_offsets: Any, flux: Any) -> None:
    for k in range(band_offsets.shape[0]):
        for b in range(band_offsets.shape[1] - 1):
            flux[band_offsets[k, b] : band_offsets[k, b + 1]].sort()


@nb.njit(nogil=True, cache=True)
def _usable_points(
    offsets: Any, t: Any, band: Any, flux: Any, sigma: Any, rows: Any, out_offsets: Any
) -> int:
    """Choose the points with a known band and finite values, each light curve in time order.

    Equal times are ordered by band, flux and error: the order of a folder's rows decides nothing.
    """
    total = 0
    out_offsets[0] = 0
    for k in range(offsets.size - 1):
        begin = total
        sorted_ = True
        for i in range(offsets[k], offsets[k + 1]):
            if band[i] < 0 or not np.isfinite(t[i]) or not np.isfinite(flux[i]):
                continue
            if not (np.isfinite(sigma[i]) and sigma[i] > 0):
                continue
            if total > begin:
                last = rows[total - 1]
                if t[i] < t[last] or (t[i] == t[last] and band[i] <= band[last]):
                    sorted_ = False
            rows[total] = i
            total += 1
        if not sorted_:
            part = rows[begin:total]
            part = part[np.argsort(sigma[part], kind="mergesort")]
            part = part[np.argsort(flux[part], kind="mergesort")]
            part = part[np.argsort(band[part], kind="mergesort")]
            rows[begin:total] = part[np.argsort(t[part], kind="mergesort")]
        out_offsets[k + 1] = total
    return total


def prepare(curves: LightCurves) -> Points:
    """Return what all kernels share; points without a known band or a finite value are left out."""
    rows = np.empty(curves.t_mjd_tai.size, np.int64)
    offsets = np.zeros(len(curves) + 1, np.int64)
    n = _usable_points(
        curves.offsets,
        curves.t_mjd_tai,
        curves.band,
        curves.flux_njy,
        curves.sigma_njy,
        rows,
        offsets,
    )
    used = curves.take(rows[:n], offsets)
    flux = used.flux_njy.astype(np.float64)
    sigma = used.sigma_njy.astype(np.float64)
    band = _FEATURE_BAND[used.band]
    detected = (used.flags & DETECTED != 0) | (np.abs(flux) >= DETECTION_SNR * sigma)
    by_band = np.empty(n, np.int64)
    band_offsets = np.zeros((len(curves), len(LSST_BANDS) + 1), np.int64)
    first = np.zeros(len(curves), np.int64)
    _group_by_band(offsets, band, detected, by_band, band_offsets, first)
    band_flux, band_sigma = flux[by_band], sigma[by_band]
    band_sorted = band_flux.copy()
    _sort_bands(band_offsets, band_sorted)
    return Points(
        offsets=offsets,
        t=used.t_mjd_tai,
        band=band,
        flux=flux,
        sigma=sigma,
        detected=detected,
        by_band=by_band,
        band_offsets=band_offsets,
        band_t=used.t_mjd_tai[by_band],
        band_flux=band_flux,
        band_sigma=band_sigma,
        band_weight=1.0 / band_sigma**2,
        band_sorted=band_sorted,
        first=first,
    )


def compute(points: Points, context: Context) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Compute every feature of every light curve.

    Parameters
    ----------
    points
        From :func:`prepare`.
    context
        One value per light curve.

    Returns
    -------
    values
        float64 (n, features) in the order of :data:`FEATURES`; NaN where not evaluated.
    why
        int8 (n, features): 0, or the index of the reason in :data:`.declare.REASON_CODES`. A light
        curve without a usable point has no value at all.
    """
    n = points.offsets.size - 1
    values = np.full((n, len(FEATURES)), np.nan)
    why = np.zeros((n, len(FEATURES)), np.int8)
    some = np.flatnonzero(np.diff(points.offsets) > 0)
    chosen = points._replace(
        offsets=np.append(points.offsets[some], points.offsets[-1]),
        band_offsets=points.band_offsets[some],
        first=points.first[some],
    )
    known = Context(*(column[some] for column in context))
    at = 0
    for family in FAMILIES:
        width = len(family.features)
        out = np.full((some.size, width), np.nan)
        reason = np.zeros((some.size, width), np.int8)
        family.kernel(chosen, known, out, reason)
        values[some, at : at + width] = out
        why[some, at : at + width] = reason
        at += width
    why[np.diff(points.offsets) == 0] = 1
    return values, why
