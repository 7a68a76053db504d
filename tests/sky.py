"""A made-up labelled sky whose classes can be told apart, and a small model trained on it; seeded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightcurves.bands import LSST_BANDS
from lightcurves.folders import (
    OBJECTS_SCHEMA,
    POINTS_SCHEMA,
    attach_light_curves,
    write_light_curves,
)
from models.artifact import Trained
from models.rows import TrainingSettings
from models.training import moments_of, train

FLARE, SUPERNOVA, PULSATOR, QUASAR = 122, 111, 212, 221
CLASSES: Final = (FLARE, SUPERNOVA, PULSATOR, QUASAR)
FIRST_ID: Final = 2**60
"""Identifiers are those of LSST's size: a double cannot hold them."""

FAST: Final = TrainingSettings(
    folds=2, rounds=25, moments=3, learning_rate=0.2, leaves=8, min_rows=4
)
"""A training of a second."""

_T0: Final = 60_800.0
_N_POINTS: Final = 36


def make_sky(
    n_objects: int = 80, seed: int = 1, classes: tuple[int, ...] = CLASSES, first_id: int = FIRST_ID
) -> tuple[pa.Table, pa.Table]:
    """Objects and measurements in the layout of a light-curve folder, as many of each class.

    Another seed gives other objects of the same classes; ``first_id`` gives them other names.
    """
    random = np.random.default_rng(seed)
    ids = first_id + 3 * np.arange(n_objects)
    labels = np.resize(np.array(classes), n_objects)
    measured = [_measure(random, *pair) for pair in zip(ids.tolist(), labels.tolist(), strict=True)]
    z = random.uniform(0.0, 1.0, n_objects)
    objects = {
        "object_id": ids,
        "ra_deg": random.uniform(0, 360, n_objects),
        "dec_deg": random.uniform(-80, 10, n_objects),
        "host_z_phot": pa.array(z, mask=labels == FLARE),
        "host_z_phot_err": pa.array(0.1 * z, mask=labels == FLARE),
        "host_offset_arcsec": random.uniform(0, 3, n_objects),
        "mw_ebv": random.uniform(0, 0.2, n_objects),
        "class_id": pa.array(labels, pa.int32()),
    }
    return pa.table(objects).cast(OBJECTS_SCHEMA), pa.concat_tables(measured).cast(POINTS_SCHEMA)


def _measure(random: np.random.Generator, object_id: int, label: int) -> pa.Table:
    t = np.sort(_T0 + random.uniform(0, 90, _N_POINTS))
    band = random.integers(0, 6, _N_POINTS)
    sigma = random.uniform(80, 160, _N_POINTS)
    flux = _flux(random, label, t, band) + sigma * random.normal(size=_N_POINTS)
    detected = np.abs(flux) > 5 * sigma
    detected[np.argmax(np.abs(flux) / sigma)] = True
    return pa.table(
        {
            "object_id": np.full(_N_POINTS, object_id),
            "t_mjd_tai": t,
            "band": np.array(LSST_BANDS)[band],
            "flux_njy": flux.astype(np.float32),
            "sigma_njy": sigma.astype(np.float32),
            "detected": detected,
        }
    )


def _flux(
    random: np.random.Generator, label: int, t: NDArray[Any], band: NDArray[Any]
) -> NDArray[Any]:
    blue = (5 - band) / 5
    peak = _T0 + random.uniform(20, 60)
    since = t - peak
    flux: NDArray[np.float64]
    if label == FLARE:
        at = t[random.integers(8, _N_POINTS - 8)]
        flux = 4_000 * (0.3 + blue) * ((t >= at) & (t < at + 1.5))
    elif label == SUPERNOVA:
        fall = np.exp(-np.maximum(since, 0) / 25) * np.exp(-0.5 * (np.minimum(since, 0) / 8) ** 2)
        flux = 6_000 * (1 - 0.5 * blue) * fall
    elif label == PULSATOR:
        phase = 2 * np.pi * (t - peak) / random.uniform(0.4, 0.7)
        flux = 3_000 * (0.5 + blue) * np.sin(phase)
    else:
        flux = np.cumsum(random.normal(size=t.size)) * 250
        flux -= flux.mean()
    return flux


def sky_table(n_objects: int = 80, seed: int = 1, **options: Any) -> pa.Table:
    """A sky in the shape of `read_light_curves`."""
    return attach_light_curves(*make_sky(n_objects, seed, **options))


def write_sky(folder: Path, n_objects: int = 80, seed: int = 1, **options: Any) -> Path:
    """A sky as a light-curve folder."""
    write_light_curves(folder, *make_sky(n_objects, seed, **options))
    return folder


@cache
def trained() -> Trained:
    """The model of `sky_table()` with the settings `FAST`, trained once in a process."""
    return train(moments_of(sky_table(), FAST.moments), FAST)
