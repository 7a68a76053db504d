"""Every feature again, from its formula: one light curve at a time, in plain numpy, slow."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightcurves.features.bazin import bazin_flux, fit_bazin

BANDS = "ugrizy"

FEW, NOT_IN_BAND, EQUAL, UNKNOWN, NO_FIT = (
    "too_few_points", "not_in_band", "no_variation", "not_provided", "no_fit",
)  # fmt: skip
NO_PEAK = "no_peak"
Value = float | str
"""A number, or the reason why there is none."""


class Curve(NamedTuple):
    """One light curve, in any order; ``band`` -1 is unknown; the first of the ``flags`` is detected."""

    t: NDArray[np.float64]
    band: NDArray[np.int8]
    flux: NDArray[Any]
    sigma: NDArray[Any]
    flags: NDArray[np.int8]


def twin(curve: Curve, known: dict[str, float]) -> dict[str, Value]:
    """Features by name; `known` are redshift, its error and extinction (NaN where unknown)."""
    good = (curve.band >= 0) & np.isfinite(curve.t) & np.isfinite(curve.flux)
    good &= np.isfinite(curve.sigma) & (curve.sigma > 0)
    curve = Curve(*(column[good] for column in curve))
    order = np.lexsort((curve.sigma, curve.flux, curve.band, curve.t))
    told = np.array([curve.t, curve.band, curve.flux, curve.sigma])[:, order]
    order = order[np.append(True, (np.diff(told) != 0).any(axis=0))[: len(order)]]
    band = np.array([0, 1, 2, 3, 4, 5, 1, 2, 3])[curve.band[order]]
    flux, sigma = (c[order].astype(np.float64) for c in (curve.flux, curve.sigma))
    points = Points(curve.t[order], band, flux, sigma, curve.flags[order] & 1 == 1)
    context = {name: UNKNOWN if np.isnan(value) else value for name, value in known.items()}
    return {**sampling(points), **variability(points), **shape(points), **bands(points),
            **colours(points), **fit(points), **context}  # fmt: skip


class Points(NamedTuple):
    t: NDArray[np.float64]
    band: NDArray[np.int64]
    f: NDArray[np.float64]
    s: NDArray[np.float64]
    alerted: NDArray[np.bool_]

    def detected(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.alerted | (np.abs(self.f) >= 5 * self.s)
        return found

    def first(self) -> float:
        return float(self.t[self.detected()][0] if self.detected().any() else self.t[0])

    def of(self, b: int) -> Points:
        return Points(*(column[self.band == b] for column in self))


def sampling(p: Points) -> dict[str, Value]:
    seen, first = p.detected(), p.first()
    before = p.t[~seen & (p.t < first)]
    head = np.argmax(seen) if seen.any() else 0
    limit = (p.band == p.band[head]) & (5 * p.s < abs(p.f[head]))
    deep = p.t[~seen & (p.t < first) & limit]
    many = seen.sum() > 1
    return {
        "n_points": len(p.t),
        "n_detections": int(seen.sum()),
        "n_bands": len(set(p.band[seen])),
        "detected_fraction": float(seen.mean()),
        "span_days": p.t[-1] - p.t[0],
        "age_days": p.t[-1] - first,
        "n_before": len(before),
        "gap_before_days": first - before[-1] if len(before) else FEW,
        "detection_cadence_days": np.diff(p.t[seen]).mean() if many else FEW,
        "n_deep_before": len(deep),
        "gap_deep_before_days": first - deep[-1] if len(deep) else FEW,
        "longest_gap_days": max(np.diff(p.t), default=0.0),
    }


PULLS = (
    "chi2_constant", "stetson_k", "von_neumann", "autocorrelation", "drw_days", "structure_days",
    "structure_weeks", "structure_months", "stetson_j",
)  # fmt: skip


def variability(p: Points) -> dict[str, Value]:
    best = np.argmax(np.abs(p.f) / p.s)
    top = np.argmax(p.f)
    out: dict[str, Value] = {
        "peak_snr": p.f[best] / p.s[best],
        "peak_flux_njy": p.f[top],
        "days_since_peak": p.t[-1] - p.t[top],
        "days_to_peak": p.t[top] - p.first(),
        "negative_fraction": float(np.mean(p.f < 0)),
    }
    series = [(q.t, pulls(q)) for q in (p.of(b) for b in range(6)) if len(q.f) > 1]
    if not series:
        return out | dict.fromkeys(PULLS, FEW)
    every = np.concatenate([pull for _, pull in series])
    freedom = len(every) - len(series)
    chi2 = np.sum(every**2) / freedom
    if chi2 == 0:
        return out | dict.fromkeys(PULLS, EQUAL) | {"chi2_constant": 0.0}
    d = np.concatenate([np.sqrt(len(pull) / (len(pull) - 1)) * pull for _, pull in series])
    steps = np.concatenate([np.diff(pull) for _, pull in series])
    products = np.concatenate([pull[1:] * pull[:-1] for _, pull in series])
    gap = np.mean(np.concatenate([np.diff(t) for t, _ in series]))
    r = np.mean(products) / (chi2 - 1) if chi2 > 1 else -1.0
    out |= {
        "chi2_constant": chi2,
        "stetson_k": np.mean(np.abs(d)) / np.sqrt(np.mean(d**2)),
        "von_neumann": np.mean(steps**2) / chi2,
        "autocorrelation": np.sum(products) / np.sum(every**2),
        "drw_days": -gap / np.log(r) if 0 < r < 1 and gap > 0 else NO_FIT,
    }
    return out | structure(series) | {"stetson_j": stetson_j(p)}


def pulls(q: Points) -> NDArray[np.float64]:
    pull: NDArray[np.float64] = (q.f - np.average(q.f, weights=q.s**-2)) / q.s
    return np.zeros(len(q.f)) if np.ptp(q.f) == 0 else pull


def structure(series: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> dict[str, Value]:
    pairs = [
        (t[j] - t[i], (pull[j] - pull[i]) ** 2 / 2 - 1)
        for t, pull in series
        for i in range(len(t))
        for j in (i + 2**k for k in range(20))
        if j < len(t)
    ]
    out: dict[str, Value] = {}
    for name, low, high in (("days", -1, 3), ("weeks", 3, 30), ("months", 30, 300)):
        found = [value for lag, value in pairs if low < lag <= high]
        out[f"structure_{name}"] = float(np.mean(found)) if found else FEW
    return out


def stetson_j(p: Points) -> Value:
    d = np.full(len(p.f), np.nan)
    for b in range(6):
        n = np.sum(p.band == b)
        if n > 1:
            d[p.band == b] = np.sqrt(n / (n - 1)) * pulls(p.of(b))
    product = d[1:] * d[:-1]
    product = product[(np.diff(p.t) <= 0.5) & ~np.isnan(product)]
    return float(np.mean(np.sign(product) * np.sqrt(np.abs(product)))) if len(product) else FEW


def shape(p: Points) -> dict[str, Value]:
    names = (
        "rise_rate", "decline_rate", "above_half_days", "half_crossings", "n_peaks", "max_slope",
        "max_slope_snr", "rise_half_days", "decline_half_days",
    )  # fmt: skip
    q = p.of(int(p.band[np.argmax(np.abs(p.f) / p.s)]))
    if len(q.f) < 2:
        return dict.fromkeys(names, FEW)
    top = int(np.argmax(np.abs(q.f)))
    height, t_top = q.f[top], q.t[top]
    if height == 0:
        return dict.fromkeys(names, EQUAL)
    high = q.f / height > 0.5
    both = high[1:] & high[:-1]
    rise = FEW if t_top == q.t[0] else (height - q.f[0]) / height / (t_top - q.t[0])
    fall = FEW if t_top == q.t[-1] else (height - q.f[-1]) / height / (q.t[-1] - t_top)
    half = (float(np.sum(np.diff(q.t)[both])), int(np.sum(high[1:] != high[:-1])))
    gap, step = np.diff(q.t), np.diff(q.f)
    steep: tuple[Value, Value] = (FEW, FEW)
    if (gap > 0).any():
        at = int(np.argmax(np.where(gap > 0, np.abs(step) / np.where(gap > 0, gap, 1), -1)))
        steep = (step[at] / gap[at], step[at] / np.hypot(q.s[at], q.s[at + 1]))
    low = np.flatnonzero(q.f / height < 0.5)
    earlier, later = low[low < top], low[low > top]
    sides = (
        t_top - q.t[earlier[-1]] if len(earlier) else FEW,
        q.t[later[0]] - t_top if len(later) else FEW,
    )
    values: tuple[Value, ...] = (rise, fall, *half, n_peaks(q, height), *steep, *sides)
    return dict(zip(names, values, strict=True))


def n_peaks(q: Points, height: float) -> int:
    """Cut the series at its turns one after the other."""
    f, s = np.sign(height) * q.f, q.s
    turns, start, up = 0, 0, True
    while True:
        rest = f[start:] if up else -f[start:]
        extreme = 0
        for i in range(1, len(rest)):
            if rest[i] > rest[extreme]:
                extreme = i
            elif rest[extreme] - rest[i] > 3 * np.hypot(s[start + i], s[start + extreme]):
                break
        else:
            return turns + up
        turns += up
        up, start = not up, start + i


PER_BAND = (
    "max_njy", "mean_njy", "median_njy", "mad_njy", "amplitude_njy", "std_njy", "chi2", "excess",
    "skewness", "kurtosis", "beyond_std", "stetson_k", "von_neumann", "last_level", "last_slope",
    "trend", "trend_snr",
)  # fmt: skip


def bands(p: Points) -> dict[str, Value]:
    return {
        f"{name}_{what}": value
        for b, name in enumerate(BANDS)
        for what, value in zip(PER_BAND, one_band(p.of(b)), strict=True)
    }


def one_band(q: Points) -> list[Value]:
    n = len(q.f)
    if n == 0:
        return [NOT_IN_BAND] * len(PER_BAND)
    mean = float(np.average(q.f, weights=q.s**-2))
    median = float(np.median(q.f))
    level: list[Value] = [float(q.f.max()), mean, median]
    if n == 1:
        return level + [FEW] * (len(PER_BAND) - 3)
    pull, d = pulls(q), q.f - q.f.mean()
    level += [
        float(np.median(np.abs(q.f - median))),
        float(np.ptp(np.quantile(q.f, (0.05, 0.95)))) / 2,
        np.sqrt(np.sum(pull**2) / np.sum(q.s**-2)),
        np.sum(pull**2) / (n - 1),
    ]
    spread = np.ptp(q.f)
    form: list[Value] = [EQUAL] * 7
    if spread > 0:
        s = np.var(q.f, ddof=1) - np.mean(q.s**2)
        form = [
            np.sign(s) * np.sqrt(abs(s)) / spread,
            np.mean(d**3) / np.mean(d**2) ** 1.5,
            np.mean(d**4) / np.mean(d**2) ** 2 - 3,
            float(np.mean(np.abs(d) > np.std(q.f, ddof=1))),
            np.mean(np.abs(pull)) / np.sqrt(np.mean(pull**2)),
            np.sum(np.diff(pull) ** 2) / np.sum(pull**2),
            (q.f[-1] - q.f.min()) / spread,
        ]
    step = q.t[-1] - q.t[-2]
    last = (q.f[-1] - q.f[-2]) / step if step > 0 else EQUAL
    return [*level, *form, last, *trend(q)]


def trend(q: Points) -> tuple[Value, Value]:
    """The line by the normal equations of weighted least squares."""
    if np.ptp(q.t) == 0:
        return EQUAL, EQUAL
    if np.ptp(q.f) == 0:
        return 0.0, 0.0
    x = (q.t - q.t[0]).astype(np.longdouble)
    x, w = x - np.average(x, weights=q.s**-2), q.s**-2
    slope = np.sum(w * x * (q.f - np.average(q.f, weights=w))) / np.sum(w * x * x)
    return float(slope), float(slope * np.sqrt(np.sum(w * x * x)))


def colours(p: Points) -> dict[str, Value]:
    out: dict[str, Value] = {}
    for b, pair in enumerate(a + c for a, c in pairwise(BANDS)):
        blue, red = p.of(b), p.of(b + 1)
        names = (
            "contrast_peak",
            "contrast_last",
            "lag_peak_days",
            "contrast_night",
            "contrast_change",
        )
        if not len(blue.f) or not len(red.f):
            values: list[Value] = [NOT_IN_BAND] * 5
        else:
            i, j = np.argmax(np.abs(blue.f)), np.argmax(np.abs(red.f))
            values = [
                contrast(blue.f[i], red.f[j]),
                contrast(blue.f[-1], red.f[-1]),
                red.t[j] - blue.t[i],
                *nights(blue, red),
            ]
        out |= {f"{pair}_{name}": value for name, value in zip(names, values, strict=True)}
    for b, r in [(b, b + step) for step in (1, 2) for b in range(6 - step)]:
        out[f"{BANDS[b]}{BANDS[r]}_contrast_track"] = track(p.of(b), p.of(r))
    return out


def track(blue: Points, red: Points) -> Value:
    """The major axis of the cloud of flux pairs, by the eigenvectors of its second moments."""
    if not len(blue.f) or not len(red.f):
        return NOT_IN_BAND
    rows = [(f, s**2, *other) for t, f, s in measured(blue) for other in flux_at(red, t)]
    rows += [(*other, f, s**2) for t, f, s in measured(red) for other in flux_at(blue, t)]
    if not rows:
        return FEW
    f_blue, v_blue, f_red, v_red = np.array(rows).T
    w = 1 / (v_blue + v_red)
    shared = np.sum(w * f_blue * f_red)
    moments = [[np.sum(w * (f_blue**2 - v_blue)), shared],
               [shared, np.sum(w * (f_red**2 - v_red))]]  # fmt: skip
    size = np.sum(w * (f_blue**2 + v_blue + f_red**2 + v_red))
    if np.hypot(moments[0][0] - moments[1][1], 2 * shared) <= 1e-9 * size:
        return EQUAL
    x, y = np.linalg.eigh(np.array(moments))[1][:, 1]
    return float(x**2 - y**2)


def measured(q: Points) -> Iterator[tuple[float, float, float]]:
    return zip(q.t, q.f, q.s, strict=True)


def flux_at(q: Points, t: float) -> list[tuple[float, float]]:
    """Flux and variance at a time, nothing where no point is near."""
    before, after = np.flatnonzero(q.t < t)[-1:], np.flatnonzero(q.t >= t)[:1]
    if before.size and after.size and q.t[after[0]] - q.t[before[0]] <= 30:
        ends = np.append(before, after)
        part = (t - q.t[before[0]]) / np.ptp(q.t[ends])
        shares = np.array([1 - part, part])
        return [(float(shares @ q.f[ends]), float(shares**2 @ q.s[ends] ** 2))]
    near = [i for i in (*before, *after) if abs(q.t[i] - t) <= 8]
    return [(q.f[i], q.s[i] ** 2) for i in near[:1]]


def contrast(blue: float, red: float) -> Value:
    whole = abs(blue) + abs(red)
    return float((blue - red) / whole) if whole > 0 else EQUAL


def nights(blue: Points, red: Points) -> tuple[Value, Value]:
    found: list[tuple[float, float]] = []
    for t, f in zip(blue.t, blue.f, strict=True):
        apart = np.abs(red.t - t)
        nearest = np.flatnonzero(apart == apart.min())[-1]
        value = contrast(f, red.f[nearest])
        if apart[nearest] <= 0.5 and not isinstance(value, str):
            found.append((t, value))
    if not found:
        return FEW, FEW
    (t_first, first), (t_last, last) = found[0], found[-1]
    change = (last - first) / (t_last - t_first) if t_last > t_first else FEW
    return float(np.mean([value for _, value in found])), change


FIT = (
    "fit_rise_days", "fit_rise_error_days", "fit_fall_days", "fit_fall_error_days", "fit_peak_days",
    "fit_t0_error_days", "fit_amplitude_njy", "fit_amplitude_error_njy", "fit_chi2",
    *(f"fit_{b}_njy" for b in BANDS),
)  # fmt: skip


def fit(p: Points) -> dict[str, Value]:
    """What a fit comes to is tested beside scipy's in test_bazin; here, what is fitted and told."""
    best = np.argmax(np.abs(p.f) / p.s)
    q = p.of(int(p.band[best]))
    if len(q.f) < 6:
        return dict.fromkeys(FIT, FEW)
    sign = np.sign(q.f[np.argmax(np.abs(q.f))])
    if len(q.f) > 256 or abs(p.f[best]) < 5 * p.s[best] or n_peaks(q, sign) > 3:
        return dict.fromkeys(FIT, NO_PEAK)
    t = q.t - p.first()
    bounds = np.array([0, len(t)])
    told = fit_bazin(t, sign * q.f, q.s, bounds, starts=2, iterations=20)
    if told.why[0]:
        return dict.fromkeys(FIT, (FEW, NOT_IN_BAND, EQUAL, UNKNOWN, NO_FIT)[told.why[0] - 1])
    (a, _, t0, rise, fall), errors = told.values[0].tolist(), told.errors[0].tolist()
    peak = t0 + rise * np.log(fall / rise - 1)
    values = (
        *(rise, errors[3], fall, errors[4], peak, errors[2], sign * a, errors[0]),
        told.reduced_chi2[0],
        *(height(p.of(b), p.first(), np.array([1.0, 0.0, t0, rise, fall])) for b in range(6)),
    )
    return {
        name: NO_FIT if not isinstance(value, str) and np.isnan(value) else value
        for name, value in zip(FIT, values, strict=True)
    }


def height(q: Points, first: float, shape: NDArray[np.float64]) -> Value:
    if len(q.f) < 3:
        return NOT_IN_BAND
    h, w = bazin_flux(q.t - first, shape), q.s**-2
    h = h - np.average(h, weights=w)
    if np.abs(h).max() <= 1e-3:
        return NO_FIT
    return float(np.sum(w * h * (q.f - np.average(q.f, weights=w))) / np.sum(w * h * h))
