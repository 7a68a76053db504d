"""The period that all bands share: a Lomb-Scargle periodogram with a phase for each band.

VanderPlas & Ivezic 2015 (ApJ 812, 18, section 4, doi:10.1088/0004-637X/812/1/18), their model with no
base term and one term a band: each band has a mean, an amplitude and a phase of its own, only the
frequency is shared. Its power is the part of the bands' chi-square that the sinusoids take away::

    P(f) = sum_b chi2_0b P_b(f) / sum_b chi2_0b

with chi2_0b the chi-square of band b about its weighted mean and P_b the standard power with a
floating mean (Zechmeister & Kuerster 2009, A&A 496, 577, eq. 5, doi:10.1051/0004-6361:200811296).

1. Grid: every multiple of ``1 / (OVERSAMPLING span)`` from ``1 / span`` to ``1 / MIN_PERIOD_DAYS``, but
   no more than :data:`MAX_FREQUENCIES` of them; beyond ten years the shortest period grows for it.
2. Sums of sines and cosines for blocks of frequencies: points outside, frequencies inside, so that
   the loop vectorises without reordering a sum. A point's phase is a rotation by a product of two
   small tables' entries and is set anew every :data:`_RESYNC` blocks; the power is as exact as one
   with a sine for each point and frequency to 1e-10.
3. The :data:`PEAKS` highest peaks, no two closer than ``1 / span``, each refined by parabolas.

A period is the sinusoid's: an eclipsing binary with two like eclipses has half its period here, and
what is seen once a night has daily aliases, which the ratio of the second peak to the first betrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numba as nb
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from lightcurves.bands import BANDS, LSST_BANDS
from lightcurves.features.declare import (
    NO_VARIATION,
    TOO_FEW_POINTS,
    Cost,
    Family,
    Feature,
    Input,
    Scaling,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_POINTS: Final = 20
"""In the bands used. A sinusoid a band with any frequency fits fewer whatever they are."""

MIN_BAND_POINTS: Final = 6
"""At different times. With one more than its three numbers need, a band would mostly fit its noise."""

MIN_SPAN_DAYS: Final = 1.0

MIN_PERIOD_DAYS: Final = 0.05
"""Shorter than delta Scuti stars and most binaries; an exposure is 30 s, so it could be shorter."""

OVERSAMPLING: Final = 4
"""Frequencies per 1/span. Half way between two of them a peak has lost 5 % of its power, no more."""

MAX_FREQUENCIES: Final = 300_000
"""Ten years of LSST down to 0.05 d take 292,000."""

PEAKS: Final = 5
"""How many peaks are refined: the best on the grid may be 5 % below the best there is."""

_N_BANDS: Final = len(LSST_BANDS)
_STEPS: Final = 16  # products of two tables of this length make a block
_BLOCK: Final = _STEPS * _STEPS
_RESYNC: Final = 64

# Of a point, the best having 1: its inverse is needed too.
_LEAST_WEIGHT: Final = 1e-200

# Below this part of its size a normal matrix is singular: all points of the band at one phase or two.
_SINGULAR: Final = 1e-8


class Periods(NamedTuple):
    """One row a light curve; NaN where ``why`` is not 0.

    ``period`` (days), ``power`` (0 to 1), ``ratio`` (of the second peak's power to it, 0 to 1) and
    ``amplitude`` (nJy, half of peak to peak) are float64 (n). ``why`` is int8 (n): 0,
    ``TOO_FEW_POINTS`` or ``NO_VARIATION``.
    """

    period: NDArray[np.float64]
    power: NDArray[np.float64]
    ratio: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    why: NDArray[np.int8]


class _Work(NamedTuple):
    """What one light curve needs, allocated once a call."""

    t: Any  # days from the middle of the light curve
    y: Any  # flux less the band's mean, over the largest flux
    w: Any  # (smallest error / error)^2
    phase: Any  # cosine and sine, point
    turn: Any  # the same of _STEPS frequencies on
    table: Any  # point, cosine and sine of 0 to _STEPS - 1 frequencies
    sums: Any  # w c, w s, w y c, w y s, w c c, w c s; frequency of the block
    power: Any
    bounds: Any  # of the bands used, in the points
    weight: Any
    chi2: Any
    peaks: Any


def _typed_fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """Return a b + c, rounded once: saves a quarter of the time, and is no fast mathematics."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    double = types.float64
    return double(double, double, double), generate


_fma: Any = intrinsic(_typed_fma)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _turn(cycles: Any) -> Any:
    """Return cosine and sine; whole cycles are taken off first, exactly."""
    angle = 2 * math.pi * (cycles - math.floor(cycles))
    return math.cos(angle), math.sin(angle)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _load(t: Any, band: Any, flux: Any, sigma: Any, work: Any) -> Any:
    """Copy the usable bands' points, band by band; return how many bands, why not, span, scale."""
    n = bands = 0
    first, last = np.inf, -np.inf
    largest, smallest = 0.0, np.inf
    for b in range(work.weight.size):
        begin = n
        times = 0
        before = -np.inf
        for i in range(t.size):
            if band[i] == b:
                times += t[i] > before
                before = t[i]
                work.t[n], work.y[n], work.w[n] = t[i], flux[i], sigma[i]
                n += 1
        if times < MIN_BAND_POINTS:
            n = begin
            continue
        bands += 1
        work.bounds[bands] = n
        for i in range(begin, n):
            first, last = min(first, work.t[i]), max(last, work.t[i])
            largest, smallest = max(largest, abs(work.y[i])), min(smallest, work.w[i])
    span = last - first
    if n < MIN_POINTS or not (MIN_SPAN_DAYS <= span < np.inf):
        return bands, TOO_FEW_POINTS, span, largest
    if not 0 < largest < np.inf:
        return bands, NO_VARIATION, span, largest
    middle = first + 0.5 * span
    for i in range(n):
        work.t[i] -= middle
        work.y[i] /= largest
        work.w[i] = max((smallest / work.w[i]) ** 2, _LEAST_WEIGHT)
    total = 0.0
    for b in range(bands):
        total += _centre(work, b)
    return bands, 0 if total > 0 else NO_VARIATION, span, largest


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _centre(work: Any, b: Any) -> Any:
    """Take off the weighted mean of band b, which is exactly 0 of equal fluxes; return chi-square."""
    low, high = work.bounds[b], work.bounds[b + 1]
    y, w = work.y, work.w
    origin = y[low]
    weight = mean = chi2 = 0.0
    for i in range(low, high):
        y[i] -= origin
        weight += w[i]
        mean += w[i] * y[i]
    mean /= weight
    for i in range(low, high):
        y[i] -= mean
        chi2 += w[i] * y[i] * y[i]
    work.weight[b], work.chi2[b] = weight, chi2
    return chi2


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _sum_block(low: Any, high: Any, work: Any) -> None:
    """Fill ``sums`` over the points of one band and carry their phases on to the next block."""
    c_sum, s_sum, yc_sum = work.sums[0], work.sums[1], work.sums[2]
    ys_sum, cc_sum, cs_sum = work.sums[3], work.sums[4], work.sums[5]
    work.sums[:] = 0.0
    for i in range(low, high):
        cosine, sine = work.phase[0, i], work.phase[1, i]
        turn_c, turn_s = work.turn[0, i], work.turn[1, i]
        w, y = work.w[i], work.y[i]
        inverse = 1 / w
        near_c, near_s = work.table[i, 0], work.table[i, 1]
        for k in range(_STEPS):
            wc, ws = w * cosine, w * sine
            for j in range(_STEPS):
                at = k * _STEPS + j
                c = _fma(wc, near_c[j], -(ws * near_s[j]))
                s = _fma(ws, near_c[j], wc * near_s[j])
                c_sum[at] += c
                s_sum[at] += s
                yc_sum[at] = _fma(y, c, yc_sum[at])
                ys_sum[at] = _fma(y, s, ys_sum[at])
                pure = c * inverse
                cc_sum[at] = _fma(pure, c, cc_sum[at])
                cs_sum[at] = _fma(pure, s, cs_sum[at])
            turned = cosine * turn_c - sine * turn_s
            sine = sine * turn_c + cosine * turn_s
            cosine = turned
        work.phase[0, i], work.phase[1, i] = cosine, sine


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _sinusoid(weight: Any, c: Any, s: Any, yc: Any, ys: Any, cc: Any, cs: Any) -> Any:
    """Return the best cosine and sine of one band, beside a mean.

    Where its points cannot tell one from the other, the smallest that fit the combination they see.
    """
    ss = weight - cc - s * s / weight
    cc = cc - c * c / weight
    cs = cs - c * s / weight
    trace = cc + ss
    determinant = cc * ss - cs * cs
    seen = trace > _SINGULAR * weight
    told = determinant > _SINGULAR * trace * weight
    size = determinant if told else trace * trace
    cosine = (yc * ss - ys * cs if told else yc * cc + ys * cs) / size
    sine = (ys * cc - yc * cs if told else yc * cs + ys * ss) / size
    return cosine if seen else 0.0, sine if seen else 0.0


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _explained(weight: Any, c: Any, s: Any, yc: Any, ys: Any, cc: Any, cs: Any, chi2: Any) -> Any:
    """Return how much chi-square the best sinusoid takes away from one band."""
    cosine, sine = _sinusoid(weight, c, s, yc, ys, cc, cs)
    return min(max(cosine * yc + sine * ys, 0.0), chi2)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _add_block(start: Any, work: Any, b: Any) -> None:
    weight, chi2, sums = work.weight[b], work.chi2[b], work.sums
    for j in range(_BLOCK):
        work.power[start + j] += _explained(
            weight, sums[0, j], sums[1, j], sums[2, j], sums[3, j], sums[4, j], sums[5, j], chi2
        )


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _scan(bands: Any, step: Any, n_frequencies: Any, work: Any) -> None:
    """Fill ``power`` (not yet divided by chi-square) at the frequencies (OVERSAMPLING + j) step."""
    n = work.bounds[bands]
    for i in range(n):
        cycles = step * work.t[i]
        work.turn[0, i], work.turn[1, i] = _turn(_STEPS * cycles)
        for j in range(_STEPS):
            work.table[i, 0, j], work.table[i, 1, j] = _turn(j * cycles)
    work.power[:n_frequencies] = 0.0
    for block in range((n_frequencies + _BLOCK - 1) // _BLOCK):
        start = block * _BLOCK
        work.power[start : start + _BLOCK] = 0.0
        if block % _RESYNC == 0:
            for i in range(n):
                work.phase[0, i], work.phase[1, i] = _turn(
                    (OVERSAMPLING + start) * (step * work.t[i])
                )
        for b in range(bands):
            if work.chi2[b] > 0:
                _sum_block(work.bounds[b], work.bounds[b + 1], work)
                _add_block(start, work, b)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _sums_at(frequency: Any, b: Any, work: Any) -> Any:
    c_sum = s_sum = yc_sum = ys_sum = cc_sum = cs_sum = 0.0
    for i in range(work.bounds[b], work.bounds[b + 1]):
        c, s = _turn(frequency * work.t[i])
        w, wy = work.w[i], work.w[i] * work.y[i]
        c_sum += w * c
        s_sum += w * s
        yc_sum += wy * c
        ys_sum += wy * s
        cc_sum += w * c * c
        cs_sum += w * c * s
    return c_sum, s_sum, yc_sum, ys_sum, cc_sum, cs_sum


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _power_at(frequency: Any, bands: Any, work: Any) -> Any:
    gained = total = 0.0
    for b in range(bands):
        chi2 = work.chi2[b]
        if chi2 > 0:
            c, s, yc, ys, cc, cs = _sums_at(frequency, b, work)
            gained += _explained(work.weight[b], c, s, yc, ys, cc, cs, chi2)
            total += chi2
    return gained / total


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _amplitude_at(frequency: Any, bands: Any, work: Any) -> Any:
    """Return the bands' root mean square amplitude, weighted as the bands' points are."""
    square = total = 0.0
    for b in range(bands):
        weight = work.weight[b]
        c, s, yc, ys, cc, cs = _sums_at(frequency, b, work)
        cosine, sine = _sinusoid(weight, c, s, yc, ys, cc, cs)
        total += weight
        square += weight * (cosine * cosine + sine * sine)
    return math.sqrt(square / total)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _find_peaks(n_frequencies: Any, power: Any, peaks: Any) -> Any:
    """List the highest maxima that are more than 1/span apart; return how many."""
    for n_peaks in range(PEAKS):
        best = -1
        for j in range(n_frequencies):
            if best >= 0 and power[j] <= power[best]:
                continue
            if j > 0 and power[j] < power[j - 1]:
                continue
            if j < n_frequencies - 1 and power[j] < power[j + 1]:
                continue
            alone = True
            for q in range(n_peaks):
                alone = alone and abs(j - peaks[q]) > OVERSAMPLING
            if alone:
                best = j
        if best < 0:
            return n_peaks
        peaks[n_peaks] = best
    return PEAKS


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _refine(low: Any, high: Any, frequency: Any, step: Any, bands: Any, work: Any) -> Any:
    """Return the peak near `frequency` and its power: the tops of four parabolas, each a quarter as wide."""
    width = step
    power = _power_at(frequency, bands, work)
    for _ in range(4):
        left = _power_at(max(frequency - width, low), bands, work)
        right = _power_at(min(frequency + width, high), bands, work)
        bend = left + right - 2 * power
        move = 0.5 * width * (left - right) / bend if bend < 0 else 0.0
        trial = min(max(frequency + min(max(move, -width), width), low), high)
        trial_power = _power_at(trial, bands, work)
        if trial_power > power:
            frequency, power = trial, trial_power
        width *= 0.25
    return frequency, power


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _frequencies(span: Any) -> Any:
    """Return how many frequencies a light curve gets, and their step."""
    step = 1 / (OVERSAMPLING * span)
    wanted = OVERSAMPLING * span / MIN_PERIOD_DAYS - OVERSAMPLING + 1
    return int(min(wanted, float(MAX_FREQUENCIES))), step


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _workspace(points: Any, frequencies: Any, n_bands: Any) -> Any:
    return _Work(
        t=np.empty(points),
        y=np.empty(points),
        w=np.empty(points),
        phase=np.empty((2, points)),
        turn=np.empty((2, points)),
        table=np.empty((points, 2, _STEPS)),
        sums=np.empty((6, _BLOCK)),
        power=np.empty(frequencies + _BLOCK),
        bounds=np.zeros(n_bands + 1, np.int64),
        weight=np.empty(n_bands),
        chi2=np.empty(n_bands),
        peaks=np.empty(PEAKS, np.int64),
    )


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _workspace_for(offsets: Any, t: Any, n_bands: Any) -> Any:
    """Allocate for the longest light curve and the finest grid of the call."""
    points = frequencies = 0
    for k in range(offsets.size - 1):
        first, last = np.inf, -np.inf
        for i in range(offsets[k], offsets[k + 1]):
            first, last = min(first, t[i]), max(last, t[i])
        points = max(points, offsets[k + 1] - offsets[k])
        if last - first >= MIN_SPAN_DAYS:
            frequencies = max(frequencies, _frequencies(last - first)[0])
    return _workspace(points, frequencies, n_bands)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _search(bands: Any, span: Any, scale: Any, work: Any) -> Any:
    """Return period, power, ratio and amplitude of what is loaded."""
    n_frequencies, step = _frequencies(span)
    _scan(bands, step, n_frequencies, work)
    n_peaks = _find_peaks(n_frequencies, work.power, work.peaks)
    low, high = OVERSAMPLING * step, (OVERSAMPLING + n_frequencies - 1) * step
    best = step
    first = second = 0.0
    for q in range(n_peaks):
        start = (OVERSAMPLING + work.peaks[q]) * step
        frequency, power = _refine(low, high, start, step, bands, work)
        if power > first:
            best, first, second = frequency, power, first
        else:
            second = max(second, power)
    return 1 / best, first, second / first, scale * _amplitude_at(best, bands, work)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _find(
    offsets: Any, t: Any, band: Any, flux: Any, sigma: Any, n_bands: Any, out: Any, why: Any
) -> None:
    work = _workspace_for(offsets, t, n_bands)
    for k in range(offsets.size - 1):
        low, high = offsets[k], offsets[k + 1]
        out[k, :] = np.nan
        bands, reason, span, scale = _load(
            t[low:high], band[low:high], flux[low:high], sigma[low:high], work
        )
        if reason == 0:
            period, power, ratio, amplitude = _search(bands, span, scale, work)
            if power > 0 and np.isfinite(amplitude):
                out[k, 0], out[k, 1], out[k, 2], out[k, 3] = period, power, ratio, amplitude
            else:
                reason = NO_VARIATION
        why[k, :] = reason


def find_periods(
    offsets: NDArray[np.int64],
    t: NDArray[np.float64],
    band: NDArray[np.int8],
    flux: NDArray[np.float64],
    sigma: NDArray[np.float64],
) -> Periods:
    """Find the best period of each light curve, all bands together.

    Of a light curve the bands with :data:`MIN_BAND_POINTS` points at different times are used; with
    fewer than :data:`MIN_POINTS` points in them, or less than :data:`MIN_SPAN_DAYS` from the first to
    the last, it has no period (``TOO_FEW_POINTS``), nor where each band's fluxes are equal
    (``NO_VARIATION``). Periods from :data:`MIN_PERIOD_DAYS` to the span are tried; one equal to the
    span says that the light curve has a trend, or is a transient. Equal times are points as others.

    Parameters
    ----------
    offsets
        int64 (n + 1): light curve k is ``offsets[k]:offsets[k + 1]``.
    t
        float64 (points): days, on any clock, ascending within a light curve, finite.
    band
        int8 (points): codes of :mod:`lightcurves.bands`; others are left out.
    flux, sigma
        float64 (points): flux and its standard error, nJy; finite, and `sigma` > 0.

    Returns
    -------
    Periods
        The frequency is that of the peak to about 1e-5 of 1/span. ``ratio`` compares the highest two of
        :data:`PEAKS` peaks. ``amplitude`` is the root mean square over bands, weighted by 1/sigma^2.

    Notes
    -----
    Time is points times frequencies, the latter ``span * OVERSAMPLING / MIN_PERIOD_DAYS`` and at most
    :data:`MAX_FREQUENCIES`; memory is their sum. Nothing is allocated in the loop, and a light curve's
    numbers do not depend on the others in the call. Model and power: VanderPlas & Ivezic 2015,
    ApJ 812, 18, doi:10.1088/0004-637X/812/1/18.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.cumsum(np.random.default_rng(1).uniform(0.1, 5.0, 40))
    >>> flux = 100.0 + 30.0 * np.sin(2 * np.pi * t / 0.7)
    >>> fits = find_periods(np.array([0, 40]), t, np.full(40, 2, np.int8), flux, np.ones(40))
    >>> round(float(fits.period[0]), 4), round(float(fits.amplitude[0]), 2)
    (0.7, 30.0)
    """
    n = offsets.size - 1
    out = np.empty((n, 4))
    why = np.zeros((n, 4), np.int8)
    _find(offsets, t, band, flux, sigma, len(BANDS), out, why)
    return Periods(out[:, 0], out[:, 1], out[:, 2], out[:, 3], why[:, 0])


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _spectrum(
    t: Any, band: Any, flux: Any, sigma: Any, n_bands: Any, frequency: Any, out: Any
) -> None:
    work = _workspace(t.size, 0, n_bands)
    bands, reason, _, _ = _load(t, band, flux, sigma, work)
    if reason == 0:
        for j in range(frequency.size):
            out[j] = _power_at(frequency[j], bands, work)


def multiband_power(
    t: NDArray[np.float64],
    band: NDArray[np.int8],
    flux: NDArray[np.float64],
    sigma: NDArray[np.float64],
    frequency: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the power of one light curve at any frequencies, for looking.

    Parameters
    ----------
    t, band, flux, sigma
        One light curve as :func:`find_periods` takes it, with the same bands used.
    frequency
        float64 (m): cycles a day.

    Returns
    -------
    float64 (m), 0 to 1; NaN where :func:`find_periods` has no period for the light curve. At frequency
    0 there is no sinusoid and the power is 0.
    """
    out = np.full(frequency.size, np.nan)
    _spectrum(t, band, flux, sigma, len(BANDS), frequency, out)
    return out


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _period(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    _find(points.offsets, points.t, points.band, points.flux, points.sigma, _N_BANDS, out, why)


_INPUTS: Final = frozenset({Input.TIME, Input.BAND, Input.FLUX, Input.SIGMA})
_PAPER: Final = "VanderPlas & Ivezic 2015, ApJ 812, 18, section 4, doi:10.1088/0004-637X/812/1/18"
_BANDS_USED: Final = (
    f"bands of {MIN_BAND_POINTS} times or more, span of at least {MIN_SPAN_DAYS:g} d, periods from"
    f" {MIN_PERIOD_DAYS:g} d to the span, at most {MAX_FREQUENCIES} steps of 1/({OVERSAMPLING} span)"
)

PERIOD: Final = Family(
    "period",
    (
        Feature(
            "period_days",
            "d",
            _INPUTS,
            f"of the highest multi-band Lomb-Scargle power; {_BANDS_USED}",
            min_points=MIN_POINTS,
            varies=True,
            paper=_PAPER,
        ),
        Feature(
            "period_power",
            "1",
            _INPUTS,
            "1 - sum_b chi2_b / sum_b chi2_0b with a mean and a sinusoid in each band",
            min_points=MIN_POINTS,
            varies=True,
            paper=_PAPER,
        ),
        Feature(
            "period_second_ratio",
            "1",
            _INPUTS,
            "power of the second highest peak, 1/span or more away, over period_power",
            min_points=MIN_POINTS,
            varies=True,
        ),
        Feature(
            "period_amplitude_njy",
            "nJy",
            _INPUTS,
            "sqrt(sum_b W_b A_b^2 / sum_b W_b) of the sinusoids, W_b the sum of 1/sigma^2",
            Scaling.LINEAR,
            min_points=MIN_POINTS,
            varies=True,
        ),
    ),
    _period,
    Cost.EXPENSIVE,
)
