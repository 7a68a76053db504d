"""Bytes on disk for a million alerts, before and after maintenance, and what it costs to read one object.

The light curves are those of the 64 real LSST packets. Each stands for an object that is seen ``--visits``
times: an alert shows the points up to its own time, and a year of them at most, as packets do. Batches
of 2,000 alerts, a file a task, are committed as the stream commits them; then one round of maintenance
with every light curve old enough, and its replaced files vacuumed. A hundredth of the objects is labelled.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from benchmarks.setting import finish, print_table, real_packets
from noctule import read_alerts
from store.database import migrate, open_database
from store.delta import (
    LightCurveFile,
    commit_files,
    dataset_of,
    ensure_table,
    files_of,
    on_disk,
    read_light_curve,
)
from store.labels import report_label
from store.maintenance import Retention, maintain, vacuum
from stream.scoring import delta_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BATCH: Final = 2_000
TASKS: Final = 2
YEAR: Final = 365.0
LABELLED: Final = 100
SEED: Final = 20260310


def histories() -> list[pa.Table]:
    """Return the real light curves, each as a table of points by time."""
    curves = on_disk(read_alerts(real_packets()))["light_curve"]
    tables = [pa.Table.from_pylist(curve.as_py(), schema=pa.schema(list(curve.type.value_type)))
              for curve in curves]  # fmt: skip
    return [table.sort_by("t_mjd_tai") for table in tables]


def alerts_of(history: pa.Table, visits: int) -> pa.ListArray:
    """Return the light curves of an object's alerts: up to each of its last visits, a year at most."""
    t = history["t_mjd_tai"].to_numpy()
    ends = np.unique(np.linspace(max(1, len(t) // 4), len(t), visits).astype(int))
    starts = np.searchsorted(t, t[ends - 1] - YEAR)
    points = [history.slice(a, b - a) for a, b in zip(starts, ends, strict=True)]
    offsets = np.r_[0, np.cumsum(ends - starts)].astype(np.int32)
    values = pa.concat_tables(points).to_struct_array().combine_chunks()
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def night_rows(n_alerts: int, visits: int) -> Iterator[pa.Table]:
    """Give batches of alerts of the table's own columns, all objects side by side, visit by visit.

    An object has times and fluxes of its own, the same in all its alerts: 64 histories that are
    repeated as they are would compress as no survey does.
    """
    real = histories()
    shown = [alerts_of(history, visits) for history in real]
    n_objects = n_alerts // visits
    rng = np.random.default_rng(SEED)
    later, brighter = rng.uniform(0, 300, n_objects), rng.uniform(0.5, 2, n_objects)
    pairs = [
        (v, o) for v in range(visits) for o in range(n_objects) if v < len(shown[o % len(real)])
    ]
    for at in range(0, len(pairs), BATCH):
        visit, thing = np.array(pairs[at : at + BATCH]).T
        curves = pa.concat_arrays(
            [shown[o % len(real)].slice(v, 1) for v, o in zip(visit, thing, strict=True)]
        )
        own = changed(curves, later[thing], brighter[thing])
        yield made(rng, np.arange(at, at + len(thing)), thing, own)


def changed(
    curves: pa.ListArray, later: NDArray[np.float64], brighter: NDArray[np.float64]
) -> pa.ListArray:
    """Return light curves `later` by days and `brighter` by a factor."""
    lengths = curves.value_lengths().to_numpy()
    points = pa.Table.from_struct_array(curves.flatten())
    each = np.repeat(brighter, lengths).astype(np.float32)
    new = {name: points[name].combine_chunks() for name in points.column_names}
    new["t_mjd_tai"] = pa.array(points["t_mjd_tai"].to_numpy() + np.repeat(later, lengths))
    for name in ("flux_njy", "sigma_njy"):
        new[name] = pa.array(points[name].to_numpy() * each, pa.float32())
    values = pa.StructArray.from_arrays(list(new.values()), fields=list(curves.type.value_type))
    return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(lengths)], pa.int32()), values)


def made(
    rng: np.random.Generator,
    number: NDArray[np.int64],
    thing: NDArray[np.int64],
    curves: pa.ListArray,
) -> pa.Table:
    """Return alerts with scores and features that are random, so that nothing of them compresses."""
    size = len(number)
    ends = curves.offsets.to_numpy()
    points = curves.values.field("t_mjd_tai").to_numpy()
    known = {
        "dia_source_id": 10**17 + number,
        "object_id": 10**16 + thing * 7919,
        "t_mjd_tai": points[ends[1:] - 1],
        "days_since_first_detection": points[ends[1:] - 1] - points[ends[:-1]],
        "processed_ms": np.zeros(size, np.int64),
        "kafka_offset": number,
        "light_curve": curves,
    }
    features = delta_schema().field("features").type
    columns = []
    for part in delta_schema():
        if part.name in known:
            value = known[part.name]
            columns.append(value if part.name == "light_curve" else pa.array(value, part.type))
        elif part.name == "features":
            values = [pa.array(rng.normal(size=size)) for _ in features]
            columns.append(pa.StructArray.from_arrays(values, fields=list(features)))
        else:
            columns.append(filler(part, size, rng))
    names = delta_schema().names
    return pa.table(dict(zip(names, columns, strict=True)))


def filler(part: pa.Field, size: int, rng: np.random.Generator) -> pa.Array:
    """Return a column that nothing depends on."""
    if part.name == "probabilities":
        return pa.array(list(rng.dirichlet(np.ones(12), size)), part.type)
    if pa.types.is_list(part.type):
        return pa.array([[111, 112]] * size, part.type)
    if pa.types.is_string(part.type):
        return pa.array(["0123456789abcdef" * 2] * size)
    if pa.types.is_floating(part.type):
        return pa.array(rng.normal(size=size))
    return pa.array(rng.integers(0, 1000, size)).cast(part.type)


def fill(folder: Path, n_alerts: int, visits: int) -> int:
    """Write and commit as the stream does; the number of alerts."""
    ensure_table(folder, delta_schema())
    n = 0
    for batch_id, rows in enumerate(night_rows(n_alerts, visits)):
        files = []
        for task in range(TASKS):
            file = LightCurveFile(folder)
            part = rows.slice(task * BATCH // TASKS, BATCH // TASKS)
            for at in range(0, part.num_rows, 256):
                file.append(part.slice(at, 256))
            files += [written] if (written := file.close()) else []
        assert commit_files(folder, files, "benchmark", batch_id)
        n += rows.num_rows
    return n


def state(folder: Path, objects: list[int]) -> dict[str, float]:
    """Return files, bytes of the table and of the folder, and the ms in which an object's curve is read."""
    files = files_of(DeltaTable(str(folder)))
    times = []
    for object_id in objects:
        begin = time.perf_counter()
        assert read_light_curve(folder, "lsst", object_id) is not None
        times.append(1e3 * (time.perf_counter() - begin))
    return {
        "files": len(files),
        "table_bytes": sum(file.n_bytes for file in files),
        "folder_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "read_ms": float(np.median(times)),
    }


def measure(root: Path, n_alerts: int, visits: int) -> dict[str, Any]:
    """Fill a table below `root`, maintain it, and look at it before and after."""
    folder, engine = root / "alerts", open_database(f"sqlite:///{root}/noctule.sqlite")
    migrate(engine)
    n = fill(folder, n_alerts, visits)
    rows = dataset_of(DeltaTable(str(folder)), folder)
    ids = rows.to_table(columns=["object_id"])["object_id"]
    objects = sorted(pc.unique(ids).to_pylist())
    with engine.begin() as connection:
        for object_id in objects[::LABELLED]:
            report_label(
                connection,
                survey="lsst",
                object_id=object_id,
                class_id=111,
                reporter="me",
                now_ms=1,
            )
    sampled = objects[1 :: max(1, len(objects) // 10)][:10]
    before = state(folder, sampled)
    begin = time.perf_counter()
    saved = maintain(engine, folder, Retention(light_curve_days=0))
    seconds = time.perf_counter() - begin
    vacuum(folder, 0)
    after = state(folder, sampled)
    n_left = dataset_of(DeltaTable(str(folder)), folder).count_rows()
    assert n_left == n, "no alert was lost"
    engine.dispose()
    return {"alerts": n, "objects": len(objects), "visits": visits, "maintain_s": seconds,
            "emptied": saved.n_emptied, "before": before, "after": after}  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=50_000)
    parser.add_argument("--visits", type=int, default=20)
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="noctule-bench-"))
    try:
        result = measure(root, args.alerts, args.visits)
    finally:
        shutil.rmtree(root)
    before, after = result["before"], result["after"]

    def per_million(name: str) -> tuple[str, str]:
        """Return GB before and after."""
        return tuple(f"{one[name] / result['alerts'] / 1e3:.2f}" for one in (before, after))  # type: ignore[return-value]

    rows = [
        ("files", f"{before['files']}", f"{after['files']}"),
        ("GB a million alerts", *per_million("table_bytes")),
        ("GB a million, log included", *per_million("folder_bytes")),
        ("ms to read an object", f"{before['read_ms']:.1f}", f"{after['read_ms']:.1f}"),
    ]
    print(f"{result['alerts']:,} alerts of {result['objects']:,} objects; {result['emptied']:,} light "
          f"curves emptied; maintenance took {result['maintain_s']:.1f} s\n")  # fmt: skip
    print_table(("", "before", "after"), rows)
    finish(result)


if __name__ == "__main__":
    main()
