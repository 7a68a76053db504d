"""How long features take, and compared with what: ``python -m benchmarks.features``.

The same statistics on the same single-band curves with the published package light-curve; then the
default set on the histories of the real LSST packets, by family; how often the gate of the fit opens
and what a fit costs there; then curves of 1 to 10,000 points.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import light_curve
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import noctule
from benchmarks.setting import finish, plasticc, print_table, real_packets, shortest_s
from lightcurves.arrays import LightCurves, light_curves_of
from lightcurves.features.bands import BANDS
from lightcurves.features.bazin import MIN_POINTS
from lightcurves.features.declare import Context, Points
from lightcurves.features.fit import FIT
from lightcurves.features.registry import ALL_FAMILIES, FAMILIES, FEATURES, compute, prepare
from lightcurves.features.shape import fit_gate
from lightcurves.taxonomy import class_name

SAME: Final = {
    "Amplitude": {},
    "WeightedMean": {},
    "Median": {},
    "MedianAbsoluteDeviation": {},
    "InterPercentileRange": {"quantile": 0.05},
    "StandardDeviation": {},
    "ReducedChi2": {},
    "ExcessVariance": {},
    "Skew": {},
    "Kurtosis": {},
    "BeyondNStd": {"nstd": 1.0},
    "StetsonK": {},
    "Eta": {},
    "LinearFit": {},
}
"""light-curve's names of what a band's features are; noctule adds the last flux, level and slope."""
LEAST_POINTS: Final = 5
SIZES: Final = (1, 10, 100, 1_000, 10_000)
POINTS_A_SIZE: Final = 200_000
ONLY_BAND: Final = 2
DEAR_SIZES: Final = (50, 200, 1_000)
DEAR_POINTS: Final = 4_000


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as folder:
        challenge = plasticc(Path(folder))
    same = same_statistics(single_bands(light_curves_of(challenge)))
    alerts = noctule.read_alerts(real_packets())
    real = light_curves_of(alerts)
    parts = {
        "real": real_histories(real),
        "gate": gate({"real LSST histories": alerts, **by_class(challenge)}),
        "points": sizes(real),
        "costly": costly_families(),
    }
    finish({"same statistics": same, **parts})


def single_bands(curves: LightCurves) -> LightCurves:
    """Return every band with enough points as a light curve of its own."""
    points = prepare(curves)
    counts = np.diff(points.band_offsets, axis=1)
    starts = points.band_offsets[:, :-1][counts >= LEAST_POINTS]
    counts = counts[counts >= LEAST_POINTS]
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, counts, strict=True)])
    n = rows.size
    return LightCurves(
        np.append(0, np.cumsum(counts)),
        points.band_t[rows],
        np.full(n, ONLY_BAND, np.int8),
        points.band_flux[rows].astype(np.float32),
        points.band_sigma[rows].astype(np.float32),
        np.zeros(n, np.int8),
        np.zeros(n, np.int8),
    )


def same_statistics(curves: LightCurves) -> dict[str, float]:
    """Compare one band's features with the same ones of light-curve; seconds a curve."""
    extractor = light_curve.Extractor(
        *(getattr(light_curve, name)(**options) for name, options in SAME.items())
    )
    t, flux, sigma = (
        column.astype(np.float64)
        for column in (curves.t_mjd_tai, curves.flux_njy, curves.sigma_njy)
    )
    # Copies: light-curve takes a hundred times as long if the curves are views of one array.
    split = [
        [part.copy() for part in np.split(column, curves.offsets[1:-1])]
        for column in (t, flux, sigma)
    ]
    listed = list(zip(*split, strict=True))
    nothing = unknown(len(curves))

    theirs = partial(extractor.many, listed, sorted=True, check=False, n_jobs=1, fill_value=np.nan)
    ours = partial(compute, curves, nothing, (BANDS,))
    costs = {"light-curve": shortest_s(theirs), "noctule": shortest_s(ours)}
    a_curve = {name: s / len(curves) for name, s in costs.items()}
    a_curve["ratio"] = costs["light-curve"] / costs["noctule"]
    n_theirs = extractor.many(listed[:1], sorted=True, check=False, n_jobs=1).shape[1]
    print_table(
        (f"{len(curves):,} bands of PLAsTiCC", "numbers", "us a curve", "x light-curve"),
        [
            (
                "light-curve, Extractor.many",
                f"{n_theirs}",
                f"{1e6 * a_curve['light-curve']:.2f}",
                "1.0",
            ),
            (
                "noctule, sorting and checks included",
                f"{len(BANDS.features) // 6}",
                f"{1e6 * a_curve['noctule']:.2f}",
                f"{a_curve['ratio']:.1f}",
            ),
        ],
    )
    return a_curve


def unknown(n: int) -> Context:
    """Return the context of objects of which nothing is known."""
    return Context(*(np.full(n, np.nan) for _ in Context._fields))


def real_histories(curves: LightCurves) -> dict[str, float]:
    """Print what each family costs on the real histories; seconds an alert."""
    n = len(curves)
    points, nothing = prepare(curves), unknown(n)
    works: dict[str, Callable[[], Any]] = {"sorting, bands, weights": partial(prepare, curves)}
    works |= {family.name: partial(run_family, family, points, nothing) for family in FAMILIES}
    works["all"] = lambda: compute(curves, nothing)
    costs = {name: shortest_s(work) / n for name, work in works.items()}
    halves = [half(curves, which) for which in range(2)]
    with ThreadPoolExecutor(2) as pool:
        alone = shortest_s(lambda: [all_of(part) for part in halves])
        costs["two threads, times one"] = alone / shortest_s(lambda: list(pool.map(all_of, halves)))
    mean = curves.counts().mean()
    rows = [(name, f"{1e6 * s:.1f}") for name, s in costs.items() if "times" not in name]
    print_table((f"{n} real histories, {mean:.0f} points in the mean", "us an alert"), rows)
    print(f"{costs['two threads, times one']:.2f} times faster with two threads\n")
    return costs


def by_class(table: pa.Table) -> dict[str, pa.Table]:
    """Return the objects of each class under its name."""
    classes = pc.unique(table["class_id"]).drop_null().sort().to_pylist()
    return {class_name(c): table.filter(pc.equal(table["class_id"], c)) for c in classes}


def gate(sets: dict[str, pa.Table]) -> dict[str, dict[str, float]]:
    """Print how often a fit is tried, how often it succeeds, and what it costs; seconds a fit."""
    costs = {}
    for name, table in sets.items():
        points = prepare(light_curves_of(table))
        n = table.num_rows
        band, sign, why = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int8)
        fit_gate(points, MIN_POINTS, band, sign, why)
        tried = table.filter(pa.array(why == 0))
        part = prepare(light_curves_of(tried))
        out = np.full((tried.num_rows, len(FIT.features)), np.nan)
        reason = np.zeros(out.shape, np.int8)
        work = partial(FIT.kernel, part, unknown(tried.num_rows), out, reason)
        seconds = shortest_s(work, 1.0) / tried.num_rows
        costs[name] = {
            "opens": tried.num_rows / n,
            "fitted": float((reason[:, 0] == 0).mean()),
            "fit_s": seconds,
        }
    rows = [
        (name, f"{one['opens']:.1%}", f"{one['fitted']:.0%}", f"{1e6 * one['fit_s']:.0f}")
        for name, one in costs.items()
    ]
    print_table(("the fit's gate", "opens", "of these fitted", "us a fit"), rows)
    return costs


def all_of(curves: LightCurves) -> Any:
    """Compute the default set."""
    return compute(curves, unknown(len(curves)))


def run_family(family: Any, points: Points, context: Context) -> None:
    """Compute one family."""
    out = np.full((points.offsets.size - 1, len(family.features)), np.nan)
    family.kernel(points, context, out, np.zeros(out.shape, np.int8))


def half(curves: LightCurves, which: int) -> LightCurves:
    """Return every other light curve, several times over."""
    members = np.tile(np.arange(which, len(curves), 2), 8)
    rows = [np.arange(*curves.offsets[k : k + 2]) for k in members]
    offsets = np.append(0, np.cumsum([part.size for part in rows]))
    return curves.take(np.concatenate(rows), offsets)


def sizes(curves: LightCurves) -> dict[int, float]:
    """Print the cost by number of points; seconds a curve."""
    longest = int(np.argmax(curves.counts()))
    begin, end = curves.offsets[longest : longest + 2]
    costs = {}
    for size in SIZES:
        n = max(1, POINTS_A_SIZE // size)
        rows = begin + np.arange(size) % (end - begin)
        years = np.repeat(np.arange(size) // (end - begin), 1) * 365.0
        one = curves.take(rows, np.array([0, size]))
        one = replace(one, t_mjd_tai=one.t_mjd_tai + years)
        many = one.take(np.tile(np.arange(size), n), np.arange(n + 1) * size)
        costs[size] = shortest_s(partial(all_of, many), 1.0) / n
    rows_ = [
        (f"{size:,}", f"{1e6 * s:,.1f}", f"{1e9 * s / size:,.0f}") for size, s in costs.items()
    ]
    head = (f"points, {len(FEATURES)} features", "us a light curve", "ns a point")
    print_table(head, rows_)
    return costs


def costly_families() -> dict[str, dict[int, float]]:
    """Print the cost of the families that must be requested by name; seconds per light curve of a year."""
    chance = np.random.default_rng(1)
    costs: dict[str, dict[int, float]] = {}
    for size in DEAR_SIZES:
        n = max(2, DEAR_POINTS // size)
        t = np.sort(chance.uniform(60_000, 60_365, (n, size)), axis=1)
        flux = 1_000 * np.sin(2 * np.pi * t / 11.3) + chance.normal(0, 100, t.shape)
        curves = LightCurves(
            np.arange(n + 1) * size,
            t.ravel(),
            chance.integers(0, 6, t.size).astype(np.int8),
            flux.ravel().astype(np.float32),
            np.full(t.size, 100, np.float32),
            np.zeros(t.size, np.int8),
            np.zeros(t.size, np.int8),
        )
        for family in ALL_FAMILIES:
            if family not in FAMILIES:
                work = partial(compute, curves, unknown(n), (family,))
                costs.setdefault(family.name, {})[size] = shortest_s(work, 1.0) / n
    head = ("by name only, ms per light curve of", *(f"{size:,} points" for size in DEAR_SIZES))
    rows = [(name, *(f"{1e3 * s:.2f}" for s in by.values())) for name, by in costs.items()]
    print_table(head, rows)
    return costs


if __name__ == "__main__":
    main()
