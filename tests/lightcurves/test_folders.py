"""The light-curve folder: what is read, in which shape, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightcurves.arrays import LIGHT_CURVE_TYPE, light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.folders import (
    OBJECTS_SCHEMA,
    POINTS_SCHEMA,
    read_light_curves,
    read_parts,
    select_objects,
    write_light_curves,
)
from tests.sky import make_sky, write_sky


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


def test_every_object_gets_its_own_points_in_time_order(tmp_path: Path) -> None:
    objects, points = make_sky(20, seed=3)
    write_light_curves(tmp_path, shuffled(objects, 1), shuffled(points, 2))
    table = read_light_curves(tmp_path)
    assert table.schema.names == [*OBJECTS_SCHEMA.names, "light_curve"]
    assert table.schema.field("light_curve").type == LIGHT_CURVE_TYPE
    assert table["object_id"].to_pylist() == shuffled(objects, 1)["object_id"].to_pylist()
    for row in table.to_pylist():
        own = [p for p in points.to_pylist() if p["object_id"] == row["object_id"]]
        assert row["light_curve"] == [
            {
                "t_mjd_tai": p["t_mjd_tai"],
                "band": p["band"],
                "flux_njy": p["flux_njy"],
                "sigma_njy": p["sigma_njy"],
                "kind": "source" if p["detected"] else "forced",
                "flags": int(p["detected"]),
            }
            for p in sorted(own, key=lambda p: float(p["t_mjd_tai"]))
        ]


def test_the_order_of_rows_on_disk_does_not_matter(tmp_path: Path) -> None:
    objects, points = make_sky(15, seed=4)
    write_light_curves(tmp_path / "a", objects, points)
    write_light_curves(tmp_path / "b", objects, shuffled(points, 3))
    assert read_light_curves(tmp_path / "a").equals(read_light_curves(tmp_path / "b"))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    objects, points = make_sky(5, seed=5)
    write_light_curves(tmp_path / "new" / "folder", objects, points)
    again = read_parts(tmp_path / "new" / "folder")
    assert again[0].equals(objects)
    assert again[1].equals(points)


def test_all_but_the_object_id_may_be_missing(tmp_path: Path) -> None:
    objects, points = make_sky(5, seed=6)
    write_light_curves(tmp_path, objects, points)
    pq.write_table(objects.select(["object_id"]), tmp_path / "objects.parquet")
    table = read_light_curves(tmp_path)
    assert (
        table.select(OBJECTS_SCHEMA.names[1:]).to_pylist()
        == [dict.fromkeys(OBJECTS_SCHEMA.names[1:])] * 5
    )
    assert table["light_curve"].type == LIGHT_CURVE_TYPE


def test_other_columns_and_wider_types_are_taken(tmp_path: Path) -> None:
    objects, points = make_sky(5, seed=6)
    write_sky(tmp_path / "plain", 5, 6)
    wide = points.set_column(3, "flux_njy", points["flux_njy"].cast(pa.float64()))
    wide = wide.set_column(2, "band", points["band"].dictionary_encode())
    (tmp_path / "wide").mkdir()
    pq.write_table(
        objects.append_column("true_z", pa.array([1.0] * 5)), tmp_path / "wide" / "objects.parquet"
    )
    pq.write_table(
        wide.append_column("sim_x", wide["flux_njy"]), tmp_path / "wide" / "light_curves.parquet"
    )
    assert read_light_curves(tmp_path / "wide").equals(read_light_curves(tmp_path / "plain"))


def test_an_object_without_points_has_an_empty_light_curve(tmp_path: Path) -> None:
    objects, points = make_sky(3, seed=7)
    lonely = objects["object_id"][1].as_py()
    points = points.filter(pa.array([name != lonely for name in points["object_id"].to_pylist()]))
    write_light_curves(tmp_path, objects, points)
    lengths = [len(curve) for curve in read_light_curves(tmp_path)["light_curve"].to_pylist()]
    assert lengths[1] == 0
    assert lengths[0] > 0 < lengths[2]


def test_a_folder_without_objects_is_an_empty_table(tmp_path: Path) -> None:
    objects, points = make_sky(3, seed=7)
    write_light_curves(tmp_path, objects[:0], points[:0])
    table = read_light_curves(tmp_path)
    assert table.num_rows == 0
    assert len(light_curves_of(table)) == 0


def test_missing_values_stay_missing(tmp_path: Path) -> None:
    objects, points = make_sky(2, seed=8)
    absent: Any = {"t_mjd_tai": 60_000.0, "band": None, "flux_njy": None, "sigma_njy": None,
                   "detected": None, "object_id": objects["object_id"][0].as_py()}  # fmt: skip
    odd = pa.Table.from_pylist([absent, {**absent, "band": "ultraviolet"}], schema=POINTS_SCHEMA)
    write_light_curves(tmp_path, objects, pa.concat_tables([points, odd]))
    first = read_light_curves(tmp_path)["light_curve"][0].as_py()
    assert [point["band"] for point in first[:2]] == [None, None]
    assert {point["kind"] for point in first[:2]} == {"forced"}
    assert all(not np.isfinite(p["flux_njy"] or np.nan) for p in first[:2])


@pytest.mark.parametrize("missing", ["objects.parquet", "light_curves.parquet"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    write_sky(tmp_path, 3)
    (tmp_path / missing).unlink()
    for read in (read_light_curves, read_parts):
        with pytest.raises(ConfigurationError, match=f"{missing} is missing"):
            read(tmp_path)


@pytest.mark.parametrize("column", POINTS_SCHEMA.names)
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    write_sky(tmp_path, 3)
    file = tmp_path / "light_curves.parquet"
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(ConfigurationError, match=rf"lacks the column\(s\) {column}"):
        read_light_curves(tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    write_sky(tmp_path, 3)
    (tmp_path / "objects.parquet").write_text("object_id\n1\n")
    with pytest.raises(ConfigurationError, match=r"objects\.parquet cannot be read"):
        read_light_curves(tmp_path)


def test_a_column_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    write_sky(tmp_path, 3)
    file = tmp_path / "light_curves.parquet"
    table = pq.read_table(file)
    text = pa.array(["bright"] * table.num_rows)
    pq.write_table(table.set_column(3, "flux_njy", text), file)
    with pytest.raises(ConfigurationError, match=r"light_curves\.parquet cannot be read"):
        read_light_curves(tmp_path)


def test_identifiers_must_fit_together(tmp_path: Path) -> None:
    objects, points = make_sky(4, seed=9)
    write_light_curves(tmp_path / "stray", objects[:3], points)
    write_light_curves(tmp_path / "twice", pa.concat_tables([objects, objects[:1]]), points)
    with pytest.raises(ConfigurationError, match="not among the objects"):
        read_light_curves(tmp_path / "stray")
    with pytest.raises(ConfigurationError, match="more than once"):
        read_light_curves(tmp_path / "twice")


@pytest.mark.parametrize("column", ["object_id", "t_mjd_tai"])
def test_points_without_a_name_or_a_time_are_refused(column: str, tmp_path: Path) -> None:
    objects, points = make_sky(2, seed=9)
    at = points.schema.get_field_index(column)
    values = points[column].to_pylist()
    spoilt = pa.array([None, *values[1:]], points.schema.field(column).type)
    write_light_curves(tmp_path, objects, points.set_column(at, column, spoilt))
    with pytest.raises(ConfigurationError, match=f"{column} .*null"):
        read_light_curves(tmp_path)


def test_selecting_objects_takes_their_points(tmp_path: Path) -> None:
    objects, points = make_sky(6, seed=10)
    keep = objects["object_id"].combine_chunks()[::2]
    some, theirs = select_objects(objects, points, keep)
    assert some["object_id"].to_pylist() == keep.to_pylist()
    write_light_curves(tmp_path, some, theirs)
    whole = read_light_curves(write_sky(tmp_path / "all", 6, 10))
    assert (
        read_light_curves(tmp_path)["light_curve"].to_pylist()
        == (whole["light_curve"].to_pylist()[::2])
    )
