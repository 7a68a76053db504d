"""Light curves between Arrow and flat arrays, however the table came about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightcurves.arrays import LIGHT_CURVE_TYPE, LightCurves, light_curve_column, light_curves_of
from lightcurves.bands import BAND_CODES, BAND_NAMES, wavelengths_nm
from lightcurves.columns import DETECTED, KIND_FORCED
from tests.sky import sky_table

FIELDS = ("offsets", "t_mjd_tai", "band", "flux_njy", "sigma_njy", "kind", "flags")


def same(a: LightCurves, b: LightCurves) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return sky_table(12)


def test_there_and_back_is_the_same(table: pa.Table) -> None:
    curves = light_curves_of(table)
    again = pa.table({"light_curve": light_curve_column(curves)})
    assert again["light_curve"].to_pylist() == table["light_curve"].to_pylist()
    assert same(light_curves_of(again), curves)


def test_slices_and_chunks_are_the_rows_they_are(table: pa.Table) -> None:
    pieces = pa.concat_tables([table[:3], table[3:4], table[4:]])
    assert pieces["light_curve"].num_chunks == 3
    assert same(light_curves_of(pieces), light_curves_of(table))
    for low, high in ((0, 5), (5, 12), (4, 4), (11, 12)):
        part = light_curves_of(table[low:high])
        alone = pa.table({"light_curve": pa.array(
            table["light_curve"].to_pylist()[low:high], LIGHT_CURVE_TYPE)})  # fmt: skip
        assert same(part, light_curves_of(alone))


def test_a_table_that_went_through_parquet_is_the_same(table: pa.Table, tmp_path: Path) -> None:
    plain = [{**row, "light_curve": row["light_curve"]} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(plain), tmp_path / "text.parquet")
    pq.write_table(table, tmp_path / "same.parquet")
    for name in ("text", "same"):
        assert same(
            light_curves_of(pq.read_table(tmp_path / f"{name}.parquet")), light_curves_of(table)
        )


def test_what_is_null_is_empty_or_not_a_number() -> None:
    point = {"t_mjd_tai": 1.0, "band": None, "flux_njy": None, "sigma_njy": 2.0, "kind": "odd"}
    rows = pa.array([None, [point], [], None], LIGHT_CURVE_TYPE)
    curves = light_curves_of(pa.table({"light_curve": rows}))
    assert curves.offsets.tolist() == [0, 0, 1, 1, 1]
    assert np.isnan(curves.flux_njy[0])
    assert (curves.band[0], curves.kind[0], curves.flags[0]) == (-1, -1, 0)


def test_points_without_flags_are_detected_where_they_are_sources(table: pa.Table) -> None:
    plain = [
        [{name: value for name, value in point.items() if name != "flags"} for point in curve]
        for curve in table["light_curve"].to_pylist()
    ]
    curves = light_curves_of(pa.table({"light_curve": plain}))
    assert same(curves, light_curves_of(table))
    assert (curves.flags == np.where(curves.kind == KIND_FORCED, 0, DETECTED)).all()
    assert 0 < curves.flags.sum() < curves.flags.size
    null = [[{**point, "flags": None} for point in curve] for curve in plain]
    assert same(light_curves_of(pa.table({"light_curve": null})), curves)


def test_a_masked_row_hides_its_points(table: pa.Table) -> None:
    curves = light_curves_of(table)
    mask = np.arange(len(curves)) % 3 == 0
    hidden = pa.table({"light_curve": light_curve_column(curves, mask)})
    left = light_curves_of(hidden)
    assert left.counts().tolist() == np.where(mask, 0, curves.counts()).tolist()
    assert same(
        light_curves_of(hidden.filter(pa.array(~mask))),
        light_curves_of(table.filter(pa.array(~mask))),
    )


def test_bands_have_a_code_each_and_a_wavelength() -> None:
    assert [BAND_CODES[name] for name in "ugrizy"] == [0, 1, 2, 3, 4, 5]
    assert len(BAND_NAMES) == len(set(BAND_NAMES)) == len(wavelengths_nm())
    assert (np.diff(wavelengths_nm()[:6]) > 0).all()
