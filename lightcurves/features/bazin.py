"""The rise and fall of one band, fitted: Bazin's function by separable least squares.

Bazin et al. 2009 (A&A 499, 653, eq. 1, doi:10.1051/0004-6361/200911847, where the minus sign of
the rise is missing) write ``A exp(-(t - t0)/tau_fall) / (1 + exp(-(t - t0)/tau_rise)) + B``.
Inside, the same curve is a background and a peak of height H at the time m::

    B + H (a + b) / (a exp(b (t - m)) + b exp(-a (t - m))),  b = 1/tau_fall,  a = 1/tau_rise - b

It can neither overflow nor lose its peak, and height, time and rates are far less correlated than A,
t0 and the time constants. What it cannot say is tau_rise >= tau_fall, where eq. 1 has no peak.

1. Starts: peaks with two exponential wings, at every point and for a grid of rates. Each rate's sums
   over all earlier (or later) points are a recurrence along the curve; a pair's sums are their sum.
2. Levenberg-Marquardt in m, ln a and ln b from the best few; B and H are solved for exactly in each
   step (variable projection; the Jacobian as in Kaufman 1975, BIT 15, 49).
3. The best end is polished; errors come from its full normal matrix.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numba as nb
import numpy as np

from lightcurves.features.declare import NO_FIT, NO_VARIATION, TOO_FEW_POINTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_POINTS: Final = 6
MIN_TIMES: Final = 5

MIN_DAYS: Final = 0.1
MAX_DAYS: Final = 1000.0
"""Both 1/a and 1/b lie between: a spike on one point is no transient, a straight line no fall."""

MARGIN_DAYS: Final = 20.0
"""How far outside the points the peak may lie."""

MIN_SEEN: Final = 0.05
"""Of the peak, points must see this part: else a spike in a gap fits any one point, 1e70 nJy high."""

UNKNOWN_RATE: Final = 10.0
"""A rate whose logarithm has a larger error than this is not known."""

NOISE: Final = 1e-10
"""Curvature left of this part is rounding; steps along it end wherever the unit of flux says."""

TIE: Final = 1 + 1e-9
"""Better by less is no better: rates too fast for the points to tell apart score alike but for rounding."""

# Steps of three: with steps of two the fits get no better.
_RISES: Final = 0.5 * 3.0 ** np.arange(6)
_FALLS: Final = 2.0 * 3.0 ** np.arange(6)

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_SUMS: Final = {"reassoc", "contract", "nsz", "arcp"}
_LOG2_E: Final = 1 / math.log(2)
_TO_INTEGER: Final = 1.5 * 2.0**52
_LANES: Final = 8


class BazinFits(NamedTuple):
    """One row a light curve; NaN where ``why`` is not 0.

    ``values`` and ``errors`` are float64 (n, 5): A and B in nJy, t0 in days on the clock of the
    input, tau_rise and tau_fall in days. ``reduced_chi2`` is float64 (n): chi-square over points
    less five. ``why`` is int8 (n): 0, ``TOO_FEW_POINTS``, ``NO_VARIATION`` or ``NO_FIT`` (numbers
    too extreme for any start to lead anywhere).
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    reduced_chi2: NDArray[np.float64]
    why: NDArray[np.int8]


class _Work(NamedTuple):
    """What one light curve needs, allocated once a call."""

    t: Any
    y: Any
    w: Any
    decay: Any
    before: Any  # rise rate, (1, h, h h, h y), point
    after: Any
    scores: Any
    best: Any  # rise rate, fall rate
    best_at: Any
    gram: Any  # of the columns 1, h, dh/dm, dh/dln a, dh/dln b, residual
    normal: Any
    step: Any
    trial: Any  # m, ln a, ln b, B, H
    here: Any
    found: Any
    low: Any
    high: Any
    covariance: Any
    jacobian: Any


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _exp2(x: Any) -> Any:
    """Return 2**x to 1e-15 of itself, x clipped to +-1000; unlike math.exp it vectorises.

    The polynomial is Chebyshev's interpolation of 2**x between -1/2 and 1/2.
    """
    x = min(max(x, -1000.0), 1000.0)
    shifted = x + _TO_INTEGER
    r = x - (shifted - _TO_INTEGER)
    p = 7.072585489423359e-09
    p = p * r + 1.0208690645080226e-07
    p = p * r + 1.3215442588981224e-06
    p = p * r + 1.525265725816688e-05
    p = p * r + 0.00015403530441732765
    p = p * r + 0.0013333558230168993
    p = p * r + 0.009618129107606902
    p = p * r + 0.05550410866444769
    p = p * r + 0.24022650695910097
    p = p * r + 0.69314718055995
    p = p * r + 1.0
    bits = np.float64(p).view(np.int64) + (np.float64(shifted).view(np.int64) << 52)
    return np.int64(bits).view(np.float64)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _sort(n: Any, t: Any, y: Any, w: Any) -> None:
    """Order the points by time, flux and error (Shell's sort): their order in the input is no input."""
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            a, b, c = t[i], y[i], w[i]
            j = i
            while j >= gap:
                k = j - gap
                if t[k] < a or (t[k] == a and (y[k] < b or (y[k] == b and w[k] <= c))):
                    break
                t[j], y[j], w[j] = t[k], y[k], w[k]
                j = k
            t[j], y[j], w[j] = a, b, c
        gap //= 3


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _load(t: Any, flux: Any, sigma: Any, work: Any) -> Any:
    """Copy the usable points; return how many, why not, first time, mean, scale, smallest error.

    Times count from the first, fluxes from their mean in units of the largest distance from it, and
    the smallest error has the weight one: no number's size depends on the units.
    """
    n = 0
    smallest = np.inf
    for i in range(t.size):
        good = np.isfinite(t[i]) and np.isfinite(flux[i]) and np.isfinite(sigma[i])
        if good and sigma[i] > 0:
            work.t[n], work.y[n], work.w[n] = t[i], flux[i], sigma[i]
            smallest = min(smallest, work.w[n])
            n += 1
    if n < MIN_POINTS:
        return n, TOO_FEW_POINTS, 0.0, 0.0, 1.0, 1.0
    _sort(n, work.t, work.y, work.w)
    first = work.t[0]
    times = 1
    varies = False
    total = mean = 0.0
    for i in range(n):
        times += i > 0 and work.t[i] > work.t[i - 1]
        varies = varies or work.y[i] != work.y[0]
        work.w[i] = (smallest / work.w[i]) ** 2
        total += work.w[i]
        mean += work.w[i] * (work.y[i] - work.y[0])
    if times < MIN_TIMES or not varies:
        return n, TOO_FEW_POINTS if times < MIN_TIMES else NO_VARIATION, 0.0, 0.0, 1.0, 1.0
    mean = work.y[0] + mean / total
    scale = 0.0
    for i in range(n):
        work.t[i] -= first
        work.y[i] -= mean
        scale = max(scale, abs(work.y[i]))
    if not (0 < scale < np.inf):
        return n, NO_FIT, 0.0, 0.0, 1.0, 1.0
    for i in range(n):
        work.y[i] /= scale
    for i in range(n, _padded(n)):
        work.t[i], work.y[i], work.w[i] = work.t[n - 1], 0.0, 0.0
    return n, 0, first, mean, scale, smallest


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _padded(n: Any) -> Any:
    """Return n rounded up: points of weight 0 are cheaper than a loop's scalar rest."""
    return (n + _LANES - 1) // _LANES * _LANES


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _decays(n: Any, rate: Any, t: Any, decay: Any) -> None:
    for i in range(1, n):
        decay[i] = _exp2(-rate * _LOG2_E * (t[i] - t[i - 1]))


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _sum_before(n: Any, work: Any, out: Any) -> None:
    """Sum w h, w h h and w h y over the points before each, h = exp(-rate (t_j - t_i))."""
    h = hh = hy = 0.0
    out[0, 0] = out[1, 0] = out[2, 0] = 0.0
    for j in range(1, n):
        decay, w = work.decay[j], work.w[j - 1]
        h = (h + w) * decay
        hh = (hh + w) * (decay * decay)
        hy = (hy + w * work.y[j - 1]) * decay
        out[0, j], out[1, j], out[2, j] = h, hh, hy


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _sum_after(n: Any, work: Any, out: Any) -> None:
    """Sum the same over each point and those after it."""
    h = hh = hy = 0.0
    decay = 0.0
    for j in range(n - 1, -1, -1):
        w = work.w[j]
        h = h * decay + w
        hh = hh * (decay * decay) + w
        hy = hy * decay + w * work.y[j]
        out[0, j], out[1, j], out[2, j] = h, hh, hy
        decay = work.decay[j]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _score(n: Any, total: Any, before: Any, after: Any, scores: Any) -> None:
    """Say how much chi-square a peak at each point saves, with its best height above zero."""
    for j in range(n):
        h = before[0, j] + after[0, j]
        hh = before[1, j] + after[1, j]
        hy = max(before[2, j] + after[2, j], 0.0)
        scores[j] = hy * hy / max(hh - h * h / total, 1e-9 * hh)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _search(n: Any, work: Any) -> None:
    """Find for each pair of rates the best point to peak at."""
    total = work.gram[0, 0]
    for i in range(_RISES.size):
        _decays(n, 1 / _RISES[i], work.t, work.decay)
        _sum_before(n, work, work.before[i])
    for k in range(_FALLS.size):
        _decays(n, 1 / _FALLS[k], work.t, work.decay)
        _sum_after(n, work, work.after[k])
        for i in range(_RISES.size):
            _score(n, total, work.before[i], work.after[k], work.scores)
            work.best[i, k] = 0.0
            for j in range(n):
                if work.scores[j] > TIE * work.best[i, k]:
                    work.best[i, k] = work.scores[j]
                    work.best_at[i, k] = j


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _next_start(work: Any) -> Any:
    """Write the best start that is left into ``here`` and cross out those like it."""
    top = 0.0
    rise = fall = -1
    for i in range(_RISES.size):
        for k in range(_FALLS.size):
            if work.best[i, k] > TIE * top:
                top, rise, fall = work.best[i, k], i, k
    if rise < 0:
        return False
    peak = work.t[work.best_at[rise, fall]]
    for i in range(_RISES.size):
        for k in range(_FALLS.size):
            near = abs(work.t[work.best_at[i, k]] - peak) < _RISES[rise] + _FALLS[fall]
            if near and abs(i - rise) + abs(k - fall) <= 1:
                work.best[i, k] = 0.0
    work.here[0] = peak
    work.here[1] = -math.log(_RISES[rise])
    work.here[2] = -math.log(_FALLS[fall])
    work.here[3] = work.here[4] = 0.0
    return True


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _sum_products(n: Any, t: Any, y: Any, w: Any, at: Any, gram: Any) -> None:
    """Fill `gram` above its diagonal with the weighted products of its columns.

    Two exponentials and one division a point; ``gram[0, 0]`` stays.
    """
    m, base, height = at[0], at[3], at[4]
    a, b = math.exp(at[1]), math.exp(at[2])
    both, each = a + b, 1 / (a + b)
    rise, fall = -a * _LOG2_E, b * _LOG2_E
    s01 = s02 = s03 = s04 = s05 = s11 = s12 = s13 = s14 = s15 = 0.0
    s22 = s23 = s24 = s25 = s33 = s34 = s35 = s44 = s45 = s55 = 0.0
    for i in range(n):
        u = t[i] - m
        down, up = _exp2(fall * u), _exp2(rise * u)
        inverse = 1 / (a * down + b * up)
        h = both * inverse
        dm = a * b * h * (down - up) * inverse
        da = a * h * (each - (down - b * u * up) * inverse)
        db = b * h * (each - (a * u * down + up) * inverse)
        r = y[i] - base - height * h
        w0 = w[i]
        w1, w2, w3, w4, w5 = w0 * h, w0 * dm, w0 * da, w0 * db, w0 * r
        s01, s02, s03, s04, s05 = s01 + w1, s02 + w2, s03 + w3, s04 + w4, s05 + w5
        s11, s12, s13 = s11 + w1 * h, s12 + w1 * dm, s13 + w1 * da
        s14, s15, s55 = s14 + w1 * db, s15 + w1 * r, s55 + w5 * r
        s22, s23, s24, s25 = s22 + w2 * dm, s23 + w2 * da, s24 + w2 * db, s25 + w2 * r
        s33, s34, s35 = s33 + w3 * da, s34 + w3 * db, s35 + w3 * r
        s44, s45 = s44 + w4 * db, s45 + w4 * r
    gram[0, 1], gram[0, 2], gram[0, 3], gram[0, 4], gram[0, 5] = s01, s02, s03, s04, s05
    gram[1, 1], gram[1, 2], gram[1, 3], gram[1, 4], gram[1, 5] = s11, s12, s13, s14, s15
    gram[2, 2], gram[2, 3], gram[2, 4], gram[2, 5] = s22, s23, s24, s25
    gram[3, 3], gram[3, 4], gram[3, 5] = s33, s34, s35
    gram[4, 4], gram[4, 5], gram[5, 5] = s44, s45, s55


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _project(work: Any) -> Any:
    """Solve ``trial`` for B and H and take both out of ``gram``; return chi-square, inf where none.

    What is left of ``gram`` in the three columns of the shape is Kaufman's normal matrix, for a peak
    of height one, and in the last column the gradient. What stood in its diagonal goes to column 0.
    """
    gram, trial = work.gram, work.trial
    for i in range(2, 5):
        gram[i, 0] = gram[i, i]
    flat = 1e-10 * gram[1, 1]
    # The mean of h where it is seen; it is never above the highest h of all points.
    if not gram[1, 1] > MIN_SEEN * gram[0, 1]:
        return np.inf
    for k in range(2):
        if k == 1 and not gram[1, 1] > flat:
            return np.inf
        for i in range(k + 1, 6):
            ratio = gram[k, i] / gram[k, k]
            for j in range(i, 6):
                gram[i, j] -= ratio * gram[k, j]
    higher = gram[1, 5] / gram[1, 1]
    if not trial[4] + higher > 0:
        return np.inf
    trial[4] += higher
    trial[3] += (gram[0, 5] - gram[0, 1] * higher) / gram[0, 0]
    return max(gram[5, 5], 0.0)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _linearise(work: Any) -> None:
    """Take normal matrix and gradient over from ``gram``, without what cannot move."""
    gram, normal, here = work.gram, work.normal, work.here
    height = here[4]
    free = work.step
    for i in range(3):
        pushed = height * gram[2 + i, 5]
        size = height * height * gram[2 + i, 2 + i]
        # Of a peak in a gap, say, the points see only the tail, and that is H's.
        stuck = not gram[2 + i, 2 + i] > NOISE * gram[2 + i, 0] or not size > 1e-20 * gram[0, 0]
        stuck = stuck or (here[i] <= work.low[i] and pushed <= 0)
        stuck = stuck or (here[i] >= work.high[i] and pushed >= 0)
        free[i] = 0.0 if stuck else height
        normal[i, 3] = free[i] * gram[2 + i, 5]
        normal[i, i] = 1.0 if stuck else size
    # Written out: as a loop it becomes gathers and scatters that take as long as all points.
    normal[0, 1] = free[0] * free[1] * gram[2, 3]
    normal[0, 2] = free[0] * free[2] * gram[2, 4]
    normal[1, 2] = free[1] * free[2] * gram[3, 4]


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _step(work: Any, damping: Any) -> Any:
    """Write ``trial``, one damped step from ``here`` and inside the bounds; return the gain hoped for."""
    normal, here, trial, step = work.normal, work.here, work.trial, work.step
    d0 = normal[0, 0] * (1 + damping)
    l1, l2 = normal[0, 1] / d0, normal[0, 2] / d0
    d1 = max(normal[1, 1] * (1 + damping) - l1 * normal[0, 1], 1e-12 * normal[1, 1])
    rest = normal[1, 2] - l1 * normal[0, 2]
    l3 = rest / d1
    d2 = normal[2, 2] * (1 + damping) - l2 * normal[0, 2] - l3 * rest
    d2 = max(d2, 1e-12 * normal[2, 2])
    z1 = normal[1, 3] - l1 * normal[0, 3]
    step[2] = (normal[2, 3] - l2 * normal[0, 3] - l3 * z1) / d2
    step[1] = z1 / d1 - l3 * step[2]
    step[0] = normal[0, 3] / d0 - l1 * step[1] - l2 * step[2]
    # No further than the peak is wide, and no rate by more than 4.5 times.
    width = math.exp(-here[1]) + math.exp(-here[2])
    far = max(1.0, abs(step[0]) / width, abs(step[1]) / 1.5, abs(step[2]) / 1.5)
    gain = 0.0
    for i in range(3):
        trial[i] = min(max(here[i] + step[i] / far, work.low[i]), work.high[i])
        step[i] = trial[i] - here[i]
    for i in range(3):
        gain += step[i] * (2 * normal[i, 3] - normal[i, i] * step[i])
        for j in range(i + 1, 3):
            gain -= 2 * normal[i, j] * step[i] * step[j]
    trial[3], trial[4] = here[3], here[4]
    return gain


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _copy(source: Any, out: Any) -> None:
    """Do ``out[:] = source``, which takes numba three seconds to compile."""
    for i in range(out.size):
        out[i] = source[i]


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _descend(n: Any, work: Any, rounds: Any, tolerance: Any, damping: Any) -> Any:
    """Walk ``here`` downhill, at most `rounds` looks at the points; return chi-square there.

    It ends when two steps running gain less than `tolerance` of it. Damping as in Nielsen 1999
    (IMM-REP-1999-05).
    """
    chi2 = np.inf
    harder = 2.0
    hoped = 0.0
    small = 0
    _copy(work.here, work.trial)
    for _ in range(rounds):
        _sum_products(n, work.t, work.y, work.w, work.trial, work.gram)
        new = _project(work)
        if new < chi2:
            if chi2 < np.inf:
                part = 2 * (chi2 - new) / hoped - 1
                damping *= max(1 / 3, 1 - part * part * part)
                harder = 2.0
                small = small + 1 if chi2 - new <= tolerance * new else 0
            chi2 = new
            _copy(work.trial, work.here)
            if small == 2:
                break
            _linearise(work)
        else:
            damping *= harder
            harder *= 2
            if chi2 == np.inf or damping > 1e8:
                break
        hoped = _step(work, damping)
        if not hoped > 0.01 * tolerance * chi2:
            break
    return chi2


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _invert(matrix: Any, held: Any) -> Any:
    """Invert the symmetric 5 x 5 in place without what is held; return the first singular one, or 5."""
    for k in range(5):
        if held[k]:
            continue
        pivot = matrix[k, k]
        if not pivot > 1e-11:
            return k
        matrix[k, k] = 1.0
        for j in range(5):
            matrix[k, j] /= pivot
        for i in range(5):
            if i != k:
                ratio = matrix[i, k]
                matrix[i, k] = 0.0
                for j in range(5):
                    matrix[i, j] -= ratio * matrix[k, j]
    return 5


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _covary(work: Any, held: Any, unit: Any) -> Any:
    """Write the covariance of B, H, m, ln a, ln b (fluxes scaled); say whether there is one.

    What is at a bound, or not constrained by the points, is held: known for the others' sake.
    """
    gram, covariance, here = work.gram, work.covariance, work.here
    held[0] = held[1] = False
    for k in range(3):
        held[2 + k] = here[k] <= work.low[k] or here[k] >= work.high[k]
    for _ in range(4):  # three can be held
        for i in range(5):
            for j in range(i, 5):
                norm = math.sqrt(gram[i, i] * gram[j, j])
                joint = norm > 0 and not (held[i] or held[j])
                covariance[i, j] = covariance[j, i] = gram[i, j] / norm if joint else 0.0
        singular = _invert(covariance, held)
        if singular < 2:
            return False
        if singular == 5:
            for i in range(5):
                for j in range(5):
                    height = (here[4] if i > 1 else 1.0) * (here[4] if j > 1 else 1.0)
                    if held[i] or held[j]:
                        covariance[i, j] = 0.0
                    else:
                        covariance[i, j] *= unit / math.sqrt(gram[i, i] * gram[j, j]) / height
            for k in (3, 4, 2):  # an unknown rate makes the peak's time unknown, seldom the reverse
                most = MAX_DAYS if k == 2 else UNKNOWN_RATE
                if singular == 5 and covariance[k, k] > most**2:
                    singular = k
        if singular == 5:
            return True
        held[singular] = True
    return False


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _as_published(work: Any, held: Any, known: Any, values: Any, errors: Any) -> None:
    """Write A, B, t0, tau_rise and tau_fall, fluxes still scaled, and their errors where `known`."""
    m, base, height = work.here[0], work.here[3], work.here[4]
    a, b = math.exp(work.here[1]), math.exp(work.here[2])
    both = a + b
    log_ratio = work.here[1] - work.here[2]
    after = log_ratio / both  # of the peak, after t0
    values[0] = height * math.exp(b * after) * both / a
    values[1] = base
    values[2] = m - after
    values[3] = 1 / both
    values[4] = 1 / b
    jacobian = work.jacobian  # zero elsewhere
    jacobian[0, 1] = values[0] / height
    jacobian[0, 4] = values[0] * a * b * log_ratio / both**2
    jacobian[0, 3] = -jacobian[0, 4]
    jacobian[1, 0] = jacobian[2, 2] = 1.0
    jacobian[2, 3] = (a * after - 1) / both
    jacobian[2, 4] = (b * after + 1) / both
    jacobian[3, 3], jacobian[3, 4] = -a / both**2, -b / both**2
    jacobian[4, 4] = -1 / b
    if not known:
        return
    for k in range(5):
        variance = 0.0
        for i in range(5):
            for j in range(5):
                variance += jacobian[k, i] * work.covariance[i, j] * jacobian[k, j]
        errors[k] = math.sqrt(max(variance, 0.0))
    if held[2]:  # then nothing but the tail is seen, and the height is anyone's guess too
        errors[0] = errors[2] = np.nan
    if held[3] or held[4]:
        errors[3] = np.nan
    if held[4]:
        errors[4] = np.nan


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _fit(n: Any, work: Any, starts: Any, iterations: Any) -> Any:
    """Fit what is loaded; say whether ``here`` holds a fit and ``gram`` its products."""
    padded = _padded(n)
    total = 0.0
    for i in range(n):
        total += work.w[i]
    work.gram[0, 0] = total
    work.low[0], work.high[0] = -MARGIN_DAYS, work.t[n - 1] + MARGIN_DAYS
    _search(n, work)
    best = np.inf
    for _ in range(starts):
        if not _next_start(work):
            break
        chi2 = _descend(padded, work, iterations, 1e-3, 0.1)
        if TIE * chi2 < best:
            best = chi2
            _copy(work.here, work.found)
    if not best < np.inf:
        return False
    _copy(work.found, work.here)
    _descend(padded, work, iterations, 1e-6, 1e-3)
    _sum_products(padded, work.t, work.y, work.w, work.here, work.gram)
    return True


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _workspace(most: Any) -> Any:
    size = _padded(most)
    slowest, fastest = -math.log(MAX_DAYS), -math.log(MIN_DAYS)
    return _Work(
        t=np.zeros(size),
        y=np.zeros(size),
        w=np.zeros(size),
        decay=np.zeros(size),
        before=np.zeros((_RISES.size, 3, size)),
        after=np.zeros((_FALLS.size, 3, size)),
        scores=np.zeros(size),
        best=np.zeros((_RISES.size, _FALLS.size)),
        best_at=np.zeros((_RISES.size, _FALLS.size), np.int64),
        gram=np.zeros((6, 6)),
        normal=np.zeros((3, 4)),
        step=np.zeros(3),
        trial=np.zeros(5),
        here=np.zeros(5),
        found=np.zeros(5),
        low=np.array([0.0, slowest, slowest]),
        high=np.array([0.0, fastest, fastest]),
        covariance=np.zeros((5, 5)),
        jacobian=np.zeros((5, 5)),
    )


@nb.njit(nogil=True, cache=True, error_model="numpy")
def fit_bazin_into(
    t: Any,
    flux: Any,
    sigma: Any,
    offsets: Any,
    starts: Any,
    iterations: Any,
    values: Any,
    errors: Any,
    reduced_chi2: Any,
    why: Any,
) -> None:
    """Do what :func:`fit_bazin` says from another kernel; the last four are its result, NaN before."""
    n_curves = offsets.size - 1
    most = 0
    for k in range(n_curves):
        most = max(most, offsets[k + 1] - offsets[k])
    work = _workspace(most)
    held = np.zeros(5, np.bool_)
    for k in range(n_curves):
        low, high = offsets[k], offsets[k + 1]
        n, reason, first, mean, scale, smallest = _load(
            t[low:high], flux[low:high], sigma[low:high], work
        )
        why[k] = reason
        if reason != 0:
            continue
        if not _fit(n, work, starts, iterations):
            why[k] = NO_FIT
            continue
        known = _covary(work, held, (smallest / scale) ** 2)
        _as_published(work, held, known, values[k], errors[k])
        values[k, 0] *= scale
        values[k, 1] = values[k, 1] * scale + mean
        values[k, 2] += first
        errors[k, 0] *= scale
        errors[k, 1] *= scale
        reduced_chi2[k] = work.gram[5, 5] * (scale / smallest) ** 2 / (n - 5)
        finite = np.isfinite(reduced_chi2[k])
        for i in range(5):
            finite = finite and np.isfinite(values[k, i])
        if not finite:
            reduced_chi2[k] = np.nan
            why[k] = NO_FIT
            for i in range(5):
                values[k, i] = errors[k, i] = np.nan


def fit_bazin(
    t: NDArray[np.float64],
    flux: NDArray[np.float64],
    sigma: NDArray[np.float64],
    offsets: NDArray[np.int64],
    *,
    starts: int = 3,
    iterations: int = 30,
) -> BazinFits:
    """Fit Bazin's function (A&A 499, 653, eq. 1) to light curves of one band.

    Points without a finite time and flux and a finite, positive error are left out. Order decides
    nothing: points are sorted by time, flux and error. Of every light curve with six points at five
    times and two fluxes the least chi-square is sought where a tau_fall > tau_rise gives a peak
    (A > 0) not farther than :data:`MARGIN_DAYS` outside the points, 1/tau_fall and
    1/tau_rise - 1/tau_fall lie between 1/:data:`MAX_DAYS` and 1/:data:`MIN_DAYS`, and points see
    :data:`MIN_SEEN` of the peak. A fit to noise is a fit: what it is worth, chi-square and errors say.

    Parameters
    ----------
    t
        float64 (points): days, on any clock.
    flux, sigma
        float64 (points): difference flux and its standard error, nJy.
    offsets
        int64 (n + 1): light curve k is ``offsets[k]:offsets[k + 1]``. Offsets beyond the points are
        not found out.
    starts
        From how many of the best starts to descend; 3 of them end within 1 % of the best
        chi-square known in 97 of 100 supernova light curves (``python -m benchmarks.fits``).
    iterations
        How often each descent may look at the points.

    Returns
    -------
    BazinFits
        ``values``, ``errors``, ``reduced_chi2`` and ``why``. Errors are those of the linear
        approximation at the minimum, `sigma` taken as it is. NaN is the error of a time constant at
        its bound or known no better than to a factor of e**:data:`UNKNOWN_RATE`, of tau_rise where
        tau_fall is such, and of t0 and A where the peak's time is at its bound or unknown; the others'
        errors are then those with these known.

    Notes
    -----
    Time and memory are linear in the number of points. Nothing is allocated in the loop, and a light
    curve's numbers do not depend on the others in the call. It holds no lock (``nogil``).

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(0.0, 100.0, 4.0)
    >>> flux = bazin_flux(t, np.array([1000.0, 10.0, 30.0, 3.0, 25.0]))
    >>> fits = fit_bazin(t, flux, np.full(25, 5.0), np.array([0, 25]))
    >>> [round(float(value), 3) for value in fits.values[0]]
    [1000.0, 10.0, 30.0, 3.0, 25.0]
    >>> [round(float(error), 1) for error in fits.errors[0]]
    [6.5, 2.1, 0.1, 0.0, 0.3]
    """
    n = offsets.size - 1
    fits = BazinFits(
        np.full((n, 5), np.nan), np.full((n, 5), np.nan), np.full(n, np.nan), np.zeros(n, np.int8)
    )
    arguments: Any = [np.ascontiguousarray(column, np.float64) for column in (t, flux, sigma)]
    arguments += [np.ascontiguousarray(offsets, np.int64), starts, iterations, *fits]
    fit_bazin_into(*arguments)
    return fits


@nb.njit(nogil=True, cache=True, error_model="numpy")
def bazin_flux(t: Any, values: Any) -> Any:
    """Return Bazin's function at the times `t`.

    Parameters
    ----------
    t
        float64 (points), days.
    values
        float64 (5): A, B, t0, tau_rise, tau_fall, a row of :class:`BazinFits`.

    Returns
    -------
    float64 (points), the unit of A and B; NaN where an input is. No exponential overflows on the way.
    """
    out = np.empty(t.size)
    for i in range(t.size):
        x = t[i] - values[2]
        z = -x / values[3]
        out[i] = values[1] + values[0] * math.exp(
            -x / values[4] - max(z, 0.0) - math.log1p(math.exp(-abs(z)))
        )
    return out
