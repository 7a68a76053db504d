"""The ordered list of features, its digest, and the one pass that computes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS, feature_bands
from lightcurves.columns import DETECTED
from lightcurves.errors import ConfigurationError
from lightcurves.features.bands import BANDS
from lightcurves.features.colours import COLOURS
from lightcurves.features.context import CONTEXT
from lightcurves.features.declare import TOO_FEW_POINTS, Context, Cost, Family, Feature, Points
from lightcurves.features.fit import FIT
from lightcurves.features.gp import GP
from lightcurves.features.period import PERIOD
from lightcurves.features.sampling import SAMPLING
from lightcurves.features.shape import SHAPE
from lightcurves.features.variability import VARIABILITY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lightcurves.arrays import LightCurves

FAMILIES: Final[tuple[Family, ...]] = (
    SAMPLING,
    VARIABILITY,
    SHAPE,
    BANDS,
    COLOURS,
    FIT,
    CONTEXT,
)
FEATURES: Final[tuple[Feature, ...]] = tuple(f for family in FAMILIES for f in family.features)

ALL_FAMILIES: Final[tuple[Family, ...]] = (*FAMILIES, PERIOD, GP)
"""Including the expensive ones, which a caller or a model requests by name."""

REGISTERED: Final[dict[str, Family]] = {family.name: family for family in ALL_FAMILIES}
"""Every family by its name; :func:`register` adds to it."""

CHUNK_POINTS: Final = 16_384
"""About this many points are processed at a time, so that their arrays stay in the cache."""

DETECTION_SNR: Final = 5.0
"""A point without the flag counts as a detection this far from zero: LSST's own alert threshold."""

_DETECTED: Final = DETECTED  # numba freezes them
_SNR: Final = DETECTION_SNR
_SIGN_BIT: Final = np.uint32(1 << 31)
_ALL_BITS: Final = np.uint32((1 << 32) - 1)


def feature_digest(features: tuple[Feature, ...] = FEATURES) -> str:
    """Return 12 hexadecimal digits that change whenever a feature's declaration or order does."""
    declared = [{**asdict(f), "inputs": sorted(f.inputs)} for f in features]
    text = json.dumps(declared, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


FEATURE_DIGEST: Final = feature_digest()
"""Digest of the default features, as they were when the process started."""


def register(family: Family) -> None:
    """Let this process compute `family`; models that do not use it are not affected.

    Raises
    ------
    ConfigurationError
        The name of the family, or of one of its features, is taken.
    """
    known = {feature.name for other in REGISTERED.values() for feature in other.features}
    taken = sorted(known & {feature.name for feature in family.features})
    if family.name in REGISTERED or taken:
        what = ", ".join(taken) or family.name
        raise ConfigurationError(f"family {family.name}: the name {what} is taken")
    REGISTERED[family.name] = family


def default_families() -> tuple[Family, ...]:
    """Return the families that are computed by default: all cheap ones."""
    return tuple(family for family in REGISTERED.values() if family.cost is Cost.CHEAP)


def names_in(families: tuple[Family, ...]) -> tuple[str, ...]:
    """Return the names of the features of `families`, in their order."""
    return tuple(feature.name for family in families for feature in family.features)


def declared(names: Iterable[str]) -> tuple[Feature, ...]:
    """Return the declarations of the features called `names`, in that order.

    Raises
    ------
    ConfigurationError
        This version computes no feature of that name.
    """
    known = {feature.name: feature for f in REGISTERED.values() for feature in f.features}
    names = tuple(names)
    if unknown := [name for name in names if name not in known]:
        raise ConfigurationError(f"this version computes no feature {', '.join(unknown)}")
    return tuple(known[name] for name in names)


def families_of(names: Iterable[str]) -> tuple[Family, ...]:
    """Return the families that compute the features called `names`; see :func:`declared`."""
    wanted = {feature.name for feature in declared(names)}
    return tuple(
        family
        for family in REGISTERED.values()
        if wanted & {feature.name for feature in family.features}
    )


@nb.njit(nogil=True, cache=True)
def _usable(
    begin: int, end: int, t: Any, band: Any, flux: Any, sigma: Any, rows: Any, total: int
) -> int:
    """Append the points of one light curve that have a known band and finite values, in time order.

    Equal times are ordered by band, flux and error, so that the order of a folder's rows does not matter. A
    point that occurs twice counts once.
    """
    first = total
    ordered = True
    for i in range(begin, end):
        if band[i] < 0 or not np.isfinite(t[i]) or not np.isfinite(flux[i]):
            continue
        if not (np.isfinite(sigma[i]) and sigma[i] > 0):
            continue
        if total > first:
            last = rows[total - 1]
            if t[i] < t[last] or (t[i] == t[last] and band[i] <= band[last]):
                ordered = False
        rows[total] = i
        total += 1
    if not ordered:
        part = rows[first:total]
        part = part[np.argsort(sigma[part], kind="mergesort")]
        part = part[np.argsort(flux[part], kind="mergesort")]
        part = part[np.argsort(band[part], kind="mergesort")]
        part = part[np.argsort(t[part], kind="mergesort")]
        total = first
        for i in part:
            if total > first:
                last = rows[total - 1]
                same = t[i] == t[last] and band[i] == band[last]
                if same and flux[i] == flux[last] and sigma[i] == sigma[last]:
                    continue
            rows[total] = i
            total += 1
    return total


@nb.njit(nogil=True, cache=True)
def _fluxes_of(keys: Any, bits: Any) -> None:
    for at in range(keys.size):
        word = np.uint32(keys[at] & np.uint64(_ALL_BITS))
        bits[at] = word ^ (_SIGN_BIT if word & _SIGN_BIT else _ALL_BITS)


@nb.njit(nogil=True, cache=True)
def _prepare(
    offsets: Any,
    t: Any,
    band: Any,
    flux: Any,
    sigma: Any,
    flags: Any,
    feature_band: Any,
    points: Any,
    bits: Any,
    keys: Any,
) -> int:
    """Fill in `points`, except the sorted fluxes; return how many there are.

    `bits` are the fluxes as uint32; `keys` receives numbers that ascend as curve, band and flux do.
    """
    n_bands = points.band_offsets.shape[1] - 1
    cursor = np.empty(n_bands, np.int64)
    rows = np.empty(points.t.size, np.int64)
    total = 0
    points.offsets[0] = 0
    for k in range(offsets.size - 1):
        low = total
        total = _usable(offsets[k], offsets[k + 1], t, band, flux, sigma, rows, low)
        points.offsets[k + 1] = total
        points.first[k] = low
        bounds = points.band_offsets[k]
        bounds[:] = 0
        seen = False
        for j in range(low, total):
            i = rows[j]
            b = feature_band[band[i]]
            f = float(flux[i])
            s = float(sigma[i])
            points.t[j] = t[i]
            points.band[j] = b
            points.flux[j] = f
            points.sigma[j] = s
            points.detected[j] = flags[i] & _DETECTED != 0 or abs(f) >= _SNR * s
            if points.detected[j] and not seen:
                seen = True
                points.first[k] = j
            bounds[b + 1] += 1
        bounds[0] = low
        for b in range(n_bands):
            bounds[b + 1] += bounds[b]
            cursor[b] = bounds[b]
        for j in range(low, total):
            at = cursor[points.band[j]]
            cursor[points.band[j]] += 1
            points.by_band[at] = j
            points.band_t[at] = points.t[j]
            points.band_flux[at] = points.flux[j]
            points.band_sigma[at] = points.sigma[j]
            points.band_weight[at] = 1.0 / points.sigma[j] ** 2
            # Bits of floats ascend as the floats do, once those of negative ones are turned round.
            word = bits[rows[j]]
            word ^= _ALL_BITS if word & _SIGN_BIT else _SIGN_BIT
            group = np.uint64(k * n_bands + points.band[j])
            keys[at] = group << np.uint64(32) | np.uint64(word)
    return total


def workspace(n_curves: int, n_points: int) -> Points:
    """Return arrays for up to this many light curves and points, to be reused."""
    return Points(
        offsets=np.empty(n_curves + 1, np.int64),
        t=np.empty(n_points),
        band=np.empty(n_points, np.int8),
        flux=np.empty(n_points),
        sigma=np.empty(n_points),
        detected=np.empty(n_points, np.bool_),
        by_band=np.empty(n_points, np.int64),
        band_offsets=np.empty((n_curves, len(LSST_BANDS) + 1), np.int64),
        band_t=np.empty(n_points),
        band_flux=np.empty(n_points),
        band_sigma=np.empty(n_points),
        band_weight=np.empty(n_points),
        band_sorted=np.empty(n_points),
        first=np.empty(n_curves, np.int64),
    )


def prepare(curves: LightCurves, space: Points | None = None) -> Points:
    """Return what all kernels share; points without a known band or a finite value are left out.

    It is stored in `space`, a :func:`workspace`, if given.

    Raises
    ------
    ValueError
        `space` is too small.
    """
    n, n_points = len(curves), int(curves.offsets[-1] - curves.offsets[0])
    if space is None:
        space = workspace(n, n_points)
    if space.first.size < n or space.t.size < n_points:
        raise ValueError(f"no room for {n} light curves of {n_points} points")
    points = space._replace(
        offsets=space.offsets[: n + 1], band_offsets=space.band_offsets[:n], first=space.first[:n]
    )
    flux = np.ascontiguousarray(curves.flux_njy, np.float32)
    keys = np.empty(n_points, np.uint64)
    n_used = _prepare(
        curves.offsets,
        curves.t_mjd_tai,
        curves.band,
        flux,
        curves.sigma_njy,
        curves.flags,
        feature_bands(),
        points,
        flux.view(np.uint32),
        keys,
    )
    # One sort of all, numpy's: twenty times as fast as one of each band in numba.
    keys = keys[:n_used]
    keys.sort()
    ascending = np.empty(n_used, np.float32)
    _fluxes_of(keys, ascending.view(np.uint32))
    points.band_sorted[:n_used] = ascending
    return points


def compute(
    curves: LightCurves, context: Context, families: tuple[Family, ...] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Compute the features of `families` of every light curve.

    Parameters
    ----------
    curves
        Flat arrays with offsets; points in any order.
    context
        One value per light curve.
    families
        Of :data:`REGISTERED`; if None, :func:`default_families`.

    Returns
    -------
    values
        float64 (n, features) in the order of the families; NaN where not evaluated.
    why
        int8 (n, features): 0, or the index of the reason in :data:`.declare.REASON_CODES`. A light
        curve without a usable point has no value at all.
    """
    families = default_families() if families is None else families
    width = sum(len(family.features) for family in families)
    values = np.full((len(curves), width), np.nan)
    why = np.zeros((len(curves), width), np.int8)
    chunks = _chunks(curves.offsets)
    n_points = max((curves.offsets[high] - curves.offsets[low] for low, high in chunks), default=0)
    space = workspace(max((high - low for low, high in chunks), default=0), int(n_points))
    for low, high in chunks:
        part = replace(curves, offsets=curves.offsets[low : high + 1])
        known = Context(*(column[low:high] for column in context))
        _compute(prepare(part, space), known, families, values[low:high], why[low:high])
    return values, why


def _chunks(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut light curves into runs of about :data:`CHUNK_POINTS`."""
    chunk = (offsets[1:] - offsets[0]) // CHUNK_POINTS
    cuts = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), chunk.size]
    return [(low, high) for low, high in pairwise(cuts) if high > low]


def _compute(
    points: Points,
    context: Context,
    families: tuple[Family, ...],
    values: NDArray[np.float64],
    why: NDArray[np.int8],
) -> None:
    some: slice | NDArray[np.int64] = slice(None)
    n = len(values)
    if (points.offsets[1:] == points.offsets[:-1]).any():
        some = np.flatnonzero(np.diff(points.offsets))
        n = some.size
        points = points._replace(
            offsets=np.append(points.offsets[some], points.offsets[-1]),
            band_offsets=points.band_offsets[some],
            first=points.first[some],
        )
        context = Context(*(column[some] for column in context))
        why[:] = TOO_FEW_POINTS
    at = 0
    for family in families:
        width = len(family.features)
        out = np.full((n, width), np.nan)
        reason = np.zeros((n, width), np.int8)
        family.kernel(points, context, out, reason)
        values[some, at : at + width] = out
        why[some, at : at + width] = reason
        at += width
