"""The Delta table grows with the code that writes it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lightcurves.arrays import LIGHT_CURVE_TYPE, POINT_TYPE
from store.delta import LightCurveFile, commit_files, ensure_table, read_alerts_of, read_light_curve

POINT = {"t_mjd_tai": 61_000.0, "band": "r", "flux_njy": 1.0, "sigma_njy": 1.0, "kind": "source"}
ALERT = {
    "survey": "lsst",
    "object_id": 1, "dia_source_id": 1, "t_mjd_tai": 61_000.0, "ra_deg": 1.0, "dec_deg": 2.0,
}  # fmt: skip


def schema_of(points: pa.DataType, features: list[str]) -> pa.Schema:
    return pa.schema(
        [
            ("survey", pa.string()),
            *((name, pa.int64()) for name in ("object_id", "dia_source_id")),
            *((name, pa.float64()) for name in ("t_mjd_tai", "ra_deg", "dec_deg")),
            ("light_curve", points),
            ("features", pa.struct([(name, pa.float64()) for name in features])),
        ]
    )


def append(folder: Path, batch_id: int, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    ensure_table(folder, schema)
    file = LightCurveFile(folder)
    file.append(pa.Table.from_pylist(rows, schema=schema))
    written = file.close()
    assert written is not None
    assert commit_files(folder, [written], "test", batch_id)


def test_a_field_that_is_new_within_a_column_is_null_in_older_rows(tmp_path: Path) -> None:
    """Flags came later than points; features come and go with every release."""
    old = schema_of(pa.list_(pa.struct(list(POINT_TYPE)[:-1])), ["a", "b"])
    new = schema_of(LIGHT_CURVE_TYPE, ["a", "c"])
    first = {**ALERT, "light_curve": [POINT], "features": {"a": 1, "b": 2}}
    append(tmp_path, 1, [first], old)
    later = {**ALERT, "object_id": 2, "dia_source_id": 2}
    row = {**later, "light_curve": [{**POINT, "flags": 5}], "features": {"a": 3, "c": 4}}
    append(tmp_path, 2, [row], new)
    rows = DeltaTable(str(tmp_path)).to_pyarrow_dataset().to_table().sort_by("object_id")
    assert rows["features"].to_pylist() == [
        {"a": 1.0, "b": 2.0, "c": None},
        {"a": 3.0, "b": None, "c": 4.0},
    ]
    assert [curve[0]["flags"] for curve in rows["light_curve"].to_pylist()] == [None, 5]
    for object_id, flags in ((1, None), (2, 5)):
        points = read_light_curve(tmp_path, "lsst", object_id)
        assert points is not None
        assert points["flags"].to_pylist() == [flags]
    assert read_alerts_of(tmp_path, [("lsst", 1), ("lsst", 2)]).num_rows == 2


def test_a_table_that_has_all_columns_is_left_alone(tmp_path: Path) -> None:
    schema = schema_of(LIGHT_CURVE_TYPE, ["a"])
    append(tmp_path, 1, [{**ALERT, "light_curve": [], "features": {"a": 1}}], schema)
    ensure_table(tmp_path, schema_of(LIGHT_CURVE_TYPE, ["b"]))
    before = DeltaTable(str(tmp_path)).version()
    for features in (["a"], ["b"], ["b", "a"]):
        ensure_table(tmp_path, schema_of(LIGHT_CURVE_TYPE, features))
    assert DeltaTable(str(tmp_path)).version() == before


def test_no_table_has_no_rows(tmp_path: Path) -> None:
    assert read_light_curve(tmp_path / "none", "lsst", 1) is None


def test_texts_have_dictionaries_and_numbers_have_none(tmp_path: Path) -> None:
    schema = schema_of(LIGHT_CURVE_TYPE, ["a"]).append(pa.field("topic", pa.string()))
    row = {**ALERT, "light_curve": [POINT] * 2, "features": {"a": 1}, "topic": "alerts"}
    file = LightCurveFile(tmp_path)
    file.append(pa.Table.from_pylist([row] * 3, schema=schema))
    written = file.close()
    assert written is not None
    group = pq.read_metadata(tmp_path / written.name).row_group(0)
    columns = [group.column(k) for k in range(group.num_columns)]
    with_dictionary = {c.path_in_schema for c in columns if "RLE_DICTIONARY" in c.encodings}
    points = "light_curve.list.element"
    assert with_dictionary == {"survey", "topic", f"{points}.band", f"{points}.kind"}
