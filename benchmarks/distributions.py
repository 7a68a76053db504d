"""What features come to on real data: ``python -m benchmarks.distributions --plots FOLDER``.

The real LSST packets, PLAsTiCC, SNPCC and the real type Ia supernovae of ZTF: which part of the
features is not evaluated, and why; with ``--plots`` a picture of each feature by class (PLAsTiCC's
training set, whole light curves) and on all four sets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import noctule
from benchmarks.setting import data_folder, finish, plasticc, print_table, real_packets
from lightcurves.arrays import LightCurves, light_curve_column
from lightcurves.bands import BAND_CODES
from lightcurves.columns import DETECTED, KIND_SOURCE
from lightcurves.features.declare import REASON_CODES
from lightcurves.features.registry import FAMILIES, FEATURES
from lightcurves.features.table import feature_arrays
from lightcurves.folders import read_light_curves
from lightcurves.imports import import_snpcc
from lightcurves.taxonomy import CLASS_NAMES
from lightcurves.units import flux_of_magnitude

if TYPE_CHECKING:
    from numpy.typing import NDArray

REASONS: Final = tuple(str(reason) for reason in REASON_CODES[1:])
BINS: Final = 60


class Values(NamedTuple):
    """The features of one set, and the reasons of those that are null."""

    table: pa.Table
    values: NDArray[np.float64]
    why: NDArray[np.int8]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plots", type=Path, help="where pictures go, one a feature")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        samples = {what: Values(t, *feature_arrays(t)) for what, t in sets(Path(name)).items()}
    result = {what: absent(what, values) for what, values in samples.items()}
    if args.plots:
        draw(samples, args.plots)
    finish(result)


def sets(folder: Path) -> dict[str, pa.Table]:
    """Return the four sets as tables of light curves."""
    import_snpcc(data_folder() / "snpcc", folder / "snpcc")
    return {
        "LSST packets": noctule.read_alerts(real_packets()),
        "PLAsTiCC": plasticc(folder / "plasticc"),
        "SNPCC": read_light_curves(folder / "snpcc"),
        "ZTF type Ia": ztf_supernovae(),
    }


def ztf_supernovae() -> pa.Table:
    """Return the real type Ia supernovae of ZTF: magnitudes become difference flux in nJy."""
    path = data_folder() / "ztf_snia" / "ztf_bts_snia_lightcurves.parquet"
    points = pq.read_table(path).sort_by([("object_id", "ascending"), ("time", "ascending")])
    names, counts = np.unique(points["object_id"].to_numpy(), return_counts=True)
    flux, sigma = flux_of_magnitude(points["mag"].to_numpy(), points["magerr"].to_numpy(), 1.0)
    codes = [BAND_CODES[f"ztf_{band.lower()}"] for band in points["band"].to_pylist()]
    curves = LightCurves(
        np.append(0, np.cumsum(counts)),
        points["time"].to_numpy(),
        np.array(codes, np.int8),
        flux.astype(np.float32),
        sigma.astype(np.float32),
        np.full(len(codes), KIND_SOURCE, np.int8),
        np.full(len(codes), DETECTED, np.int8),
    )
    return pa.table({"object_name": names, "light_curve": light_curve_column(curves)})


def absent(name: str, values: Values) -> dict[str, dict[str, float]]:
    """Print and return the part of each family's values that is null, by reason."""
    rows = []
    result = {}
    at = 0
    for family in FAMILIES:
        why = values.why[:, at : at + len(family.features)]
        at += len(family.features)
        counts = Counter(why.ravel().tolist())
        parts = {reason: counts[code] / why.size for code, reason in enumerate(REASONS, 1)}
        result[family.name] = {"evaluated": counts[0] / why.size, **parts}
        rows.append((family.name, *(f"{100 * part:.1f}" for part in result[family.name].values())))
    print_table((f"{name}, {len(values.why):,}: % of values", "evaluated", *REASONS), rows)
    return result


def draw(samples: dict[str, Values], folder: Path) -> None:
    """Draw each feature by class of PLAsTiCC, and on all sets."""
    import matplotlib as mpl  # noqa: PLC0415 - only for pictures

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above

    folder.mkdir(parents=True, exist_ok=True)
    classes = samples["PLAsTiCC"].table["class_id"].to_numpy()
    for k, feature in enumerate(FEATURES):
        print(f"\r{k + 1} of {len(FEATURES)} pictures", end="", file=sys.stderr)
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
        everything = np.concatenate([values.values[:, k] for values in samples.values()])
        edges, scale = bins(everything)
        quantile_rows(left, samples["PLAsTiCC"].values[:, k], classes)
        for number, (name, values) in enumerate(samples.items()):
            step(right, values.values[:, k], edges, name, {"color": f"C{number}"})
        for axes, title in ((left, "PLAsTiCC, by class"), (right, "all objects, by set")):
            axes.set_xscale(**scale)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel(f"{feature.name} ({feature.unit})")
        right.set_yticks([])
        right.legend(fontsize=6, ncols=2, frameon=False)
        figure.suptitle(feature.formula, fontsize=8)
        figure.savefig(folder / f"{feature.name}.png", dpi=90)
        plt.close(figure)
    print(file=sys.stderr)


def quantile_rows(axes: Any, values: NDArray[np.float64], classes: NDArray[np.int32]) -> None:
    """Draw a row for each class: its 5, 25, 50, 75 and 95 % quantiles, and how many have a value."""
    names = []
    for row, class_id in enumerate(np.unique(classes)):
        own = values[classes == class_id]
        known = own[np.isfinite(own)]
        part = 100 * known.size / own.size
        names.append(f"{CLASS_NAMES.get(int(class_id), class_id)} ({part:.0f} %)")
        if known.size:
            least, low, middle, high, most = np.quantile(known, (0.05, 0.25, 0.5, 0.75, 0.95))
            axes.plot((least, most), (row, row), color="C0", lw=1)
            axes.plot((low, high), (row, row), color="C0", lw=5, solid_capstyle="butt")
            axes.plot(middle, row, "|", color="white", ms=8, mew=2)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()


def bins(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Return edges for a histogram, and the scale of its axis: symmetric logarithm where it spreads."""
    values = values[np.isfinite(values)]
    if values.size == 0:
        return np.linspace(0, 1, BINS), {"value": "linear"}
    low, high = np.quantile(values, (0.005, 0.995))
    middle = float(np.median(np.abs(values[values != 0]))) if (values != 0).any() else 1.0
    if high - low <= 50 * middle:
        span = (high - low) or 1.0
        return np.linspace(low - 0.02 * span, high + 0.02 * span, BINS), {"value": "linear"}
    folded = np.arcsinh(np.array((low, high)) / middle)
    first, last = folded.tolist()
    return middle * np.sinh(np.linspace(first, last, BINS)), {
        "value": "symlog",
        "linthresh": middle,
    }


def step(
    axes: Any, values: NDArray[np.float64], edges: Any, label: str, line: dict[str, Any]
) -> None:
    """Draw one histogram, its highest bin 1."""
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    if counts.max(initial=0) > 0:
        part = np.isfinite(values).mean()
        axes.stairs(counts / counts.max(), edges, label=f"{label} ({100 * part:.0f} %)", **line)


if __name__ == "__main__":
    main()
