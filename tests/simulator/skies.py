"""Made-up objects for tests: seeded skies like PLAsTiCC's, and whatever hypothesis finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightcurves.arrays import LightCurves
from lightcurves.bands import LSST_BANDS
from lightcurves.columns import DETECTED, KIND_FORCED, KIND_SOURCE
from lightcurves.folders import attach_light_curves, write_light_curves

LAW = settings(deadline=None)
"""For a first example that waits for numba, on a machine that does other things too."""

CLASSES = (111, 112, 113, 121, 132, 221)


def sky(seed: int = 1, n_objects: int = 50) -> tuple[pa.Table, pa.Table]:
    """Objects and measurements: bumps in noise, in one field, so that visits are shared."""
    random = np.random.default_rng(seed)
    visits = np.sort(59_800 + random.integers(0, 90, 200) + random.uniform(-0.05, 0.4, 200))
    bands = random.integers(0, 6, visits.size)
    ids = 1_000_000_007 * np.arange(1, n_objects + 1)
    parts = [_measure(random, int(object_id), visits, bands) for object_id in ids]
    objects = {
        "object_id": ids,
        "ra_deg": random.uniform(0, 360, n_objects),
        "dec_deg": random.uniform(-80, 10, n_objects),
        "host_z_phot": random.uniform(0, 1, n_objects),
        "host_z_phot_err": random.uniform(0, 0.1, n_objects),
        "mw_ebv": random.uniform(0, 0.2, n_objects),
        "class_id": pa.array(random.choice(CLASSES, n_objects), pa.int32()),
    }
    return pa.table(objects), pa.concat_tables([_measure(random, 0, visits, bands)[:0], *parts])


def _measure(
    random: np.random.Generator, object_id: int, visits: NDArray[Any], bands: NDArray[Any]
) -> pa.Table:
    seen = np.sort(random.choice(visits.size, 60, replace=False))
    t = visits[seen]
    peak, width = random.uniform(59_810, 59_880), random.uniform(3, 20)
    sigma = random.uniform(100, 600, t.size)
    flux = 8_000 * np.exp(-0.5 * ((t - peak) / width) ** 2) + sigma * random.normal(size=t.size)
    return pa.table(
        {
            "object_id": np.full(t.size, object_id),
            "t_mjd_tai": t,
            "band": np.array(LSST_BANDS)[bands[seen]],
            "flux_njy": flux.astype(np.float32),
            "sigma_njy": sigma.astype(np.float32),
            "detected": np.abs(flux) > 5 * sigma,
        }
    )


def sky_table(seed: int = 1, n_objects: int = 50) -> pa.Table:
    """A sky in the shape of `read_light_curves`."""
    return attach_light_curves(*sky(seed, n_objects))


def write_sky(folder: Path, seed: int = 1, n_objects: int = 50) -> Path:
    """A sky as a light-curve folder."""
    write_light_curves(folder, *sky(seed, n_objects))
    return folder


def curves_of(*rows: list[tuple[float, int]]) -> LightCurves:
    """Light curves of (time, kind), fluxes 1, 2, 3 and so on."""
    flat = [point for row in rows for point in row]
    n = len(flat)
    return LightCurves(
        np.cumsum([0, *map(len, rows)]),
        np.array([t for t, _ in flat], np.float64),
        np.zeros(n, np.int8),
        np.arange(1, n + 1, dtype=np.float32),
        np.ones(n, np.float32),
        np.array([kind for _, kind in flat], np.int8),
        np.array([0 if kind == KIND_FORCED else DETECTED for _, kind in flat], np.int8),
    )


def _light_curve() -> st.SearchStrategy[list[tuple[float, int]]]:
    # Quarter days make equal gaps and the edges of the rules (1 day, 30 days) frequent.
    times = st.lists(st.integers(0, 400), max_size=25, unique=True).map(sorted)
    kinds = st.sampled_from((KIND_FORCED, KIND_SOURCE))
    return times.flatmap(
        lambda quarters: st.tuples(*(st.tuples(st.just(60_000 + q / 4), kinds) for q in quarters))
    ).map(list)


def any_curves() -> st.SearchStrategy[LightCurves]:
    """Up to four light curves, empty ones among them, each with distinct times."""
    return st.lists(_light_curve(), max_size=4).map(lambda rows: curves_of(*rows))
