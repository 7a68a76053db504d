"""Every feature again, from its formula: one light curve at a time, in plain numpy, slow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BANDS = "ugrizy"
FORCED = 0

FEW, NOT_IN_BAND, EQUAL, UNKNOWN = (
    "too_few_points", "not_in_band", "no_variation", "not_provided",
)  # fmt: skip
Value = float | str
"""A number, or the reason why there is none."""


class Curve(NamedTuple):
    """One light curve, in any order; ``band`` -1 is unknown, ``kind`` 0 is forced."""

    t: NDArray[np.float64]
    band: NDArray[np.int8]
    flux: NDArray[Any]
    sigma: NDArray[Any]
    kind: NDArray[np.int8]


def twin(curve: Curve, known: dict[str, float]) -> dict[str, Value]:
    """Features by name; `known` are redshift, its error and extinction (NaN where unknown)."""
    good = (curve.band >= 0) & np.isfinite(curve.t) & np.isfinite(curve.flux)
    good &= np.isfinite(curve.sigma) & (curve.sigma > 0)
    curve = Curve(*(column[good] for column in curve))
    order = np.lexsort((curve.sigma, curve.flux, curve.band, curve.t))
    band = np.array([0, 1, 2, 3, 4, 5, 1, 2, 3])[curve.band[order]]
    flux, sigma = (c[order].astype(np.float64) for c in (curve.flux, curve.sigma))
    points = Points(curve.t[order], band, flux, sigma, curve.kind[order] != FORCED)
    context = {name: UNKNOWN if np.isnan(value) else value for name, value in known.items()}
    return {**sampling(points), **variability(points), **shape(points), **bands(points),
            **colours(points), **context}  # fmt: skip


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
    }


def variability(p: Points) -> dict[str, Value]:
    best = np.argmax(np.abs(p.f) / p.s)
    top = np.argmax(p.f)
    pulls, steps, freedom, scaled = [], [], 0, []
    for q in (p.of(b) for b in range(6)):
        n = len(q.f)
        if n > 1:
            pull = (q.f - np.average(q.f, weights=q.s**-2)) / q.s
            pull = np.zeros(n) if np.ptp(q.f) == 0 else pull
            pulls.append(pull)
            steps.append(np.diff(pull))
            scaled.append(np.sqrt(n / (n - 1)) * pull)
            freedom += n - 1
    out: dict[str, Value] = {
        "peak_snr": p.f[best] / p.s[best],
        "peak_flux_njy": p.f[top],
        "days_since_peak": p.t[-1] - p.t[top],
        "days_to_peak": p.t[top] - p.first(),
        "negative_fraction": float(np.mean(p.f < 0)),
    }
    if freedom == 0:
        return out | dict.fromkeys(("chi2_constant", "stetson_k", "von_neumann"), FEW)
    chi2 = np.sum(np.concatenate(pulls) ** 2) / freedom
    out["chi2_constant"] = chi2
    if chi2 == 0:
        return out | {"stetson_k": EQUAL, "von_neumann": EQUAL}
    d = np.concatenate(scaled)
    out["stetson_k"] = np.mean(np.abs(d)) / np.sqrt(np.mean(d**2))
    out["von_neumann"] = np.mean(np.concatenate(steps) ** 2) / chi2
    return out


def shape(p: Points) -> dict[str, Value]:
    names = ("rise_rate", "decline_rate", "above_half_days", "half_crossings")
    q = p.of(int(p.band[np.argmax(np.abs(p.f) / p.s)]))
    if len(q.f) < 2:
        return dict.fromkeys(names, FEW)
    top = np.argmax(np.abs(q.f))
    height, t_top = q.f[top], q.t[top]
    if height == 0:
        return dict.fromkeys(names, EQUAL)
    high = q.f / height > 0.5
    both = high[1:] & high[:-1]
    rise = FEW if t_top == q.t[0] else (height - q.f[0]) / height / (t_top - q.t[0])
    fall = FEW if t_top == q.t[-1] else (height - q.f[-1]) / height / (q.t[-1] - t_top)
    half = (float(np.sum(np.diff(q.t)[both])), int(np.sum(high[1:] != high[:-1])))
    return dict(zip(names, (rise, fall, *half), strict=True))


PER_BAND = ("max_njy", "mean_njy", "excess", "skewness", "last_level", "last_slope")


def bands(p: Points) -> dict[str, Value]:
    return {
        f"{name}_{what}": value
        for b, name in enumerate(BANDS)
        for what, value in zip(PER_BAND, one_band(p.of(b)), strict=True)
    }


def one_band(q: Points) -> list[Value]:
    n = len(q.f)
    if n == 0:
        return [NOT_IN_BAND] * 6
    level: list[Value] = [float(q.f.max()), float(np.average(q.f, weights=q.s**-2))]
    if n == 1:
        return [*level, FEW, FEW, FEW, FEW]
    spread, d = np.ptp(q.f), q.f - q.f.mean()
    shape: list[Value] = [EQUAL, EQUAL, EQUAL]
    if spread > 0:
        s = np.var(q.f, ddof=1) - np.mean(q.s**2)
        level_now = (q.f[-1] - q.f.min()) / spread
        shape = [
            np.sign(s) * np.sqrt(abs(s)) / spread,
            np.mean(d**3) / np.mean(d**2) ** 1.5,
            level_now,
        ]
    step = q.t[-1] - q.t[-2]
    return [*level, *shape, (q.f[-1] - q.f[-2]) / step if step > 0 else EQUAL]


def colours(p: Points) -> dict[str, Value]:
    out: dict[str, Value] = {}
    for moment in ("peak", "last"):
        fluxes = []
        for q in (p.of(b) for b in range(6)):
            at = (np.argmax(np.abs(q.f)) if moment == "peak" else -1) if len(q.f) else None
            fluxes.append(None if at is None else q.f[at])
        for (b, blue), (r, red) in pairwise(zip(BANDS, fluxes, strict=True)):
            name = f"{b}{r}_contrast_{moment}"
            if blue is None or red is None:
                out[name] = NOT_IN_BAND
            else:
                whole = abs(blue) + abs(red)
                out[name] = (blue - red) / whole if whole > 0 else EQUAL
    return out
