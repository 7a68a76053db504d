"""The light-curve folder: two Parquet files in which any set of objects is exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightcurves.arrays import LightCurves, codes_of, light_curve_column
from lightcurves.bands import BAND_CODES
from lightcurves.columns import DETECTED, KIND_FORCED, KIND_SOURCE
from lightcurves.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

OBJECTS_FILE: Final = "objects.parquet"
LIGHT_CURVES_FILE: Final = "light_curves.parquet"

OBJECTS_SCHEMA: Final = pa.schema(
    [
        ("object_id", pa.int64()),
        ("ra_deg", pa.float64()),
        ("dec_deg", pa.float64()),
        ("host_z_phot", pa.float64()),
        ("host_z_phot_err", pa.float64()),
        ("host_offset_arcsec", pa.float64()),
        ("mw_ebv", pa.float64()),
        ("class_id", pa.int32()),
    ]
)
"""One row per object; null where unknown. ``class_id`` is a label, never an input."""

POINTS_SCHEMA: Final = pa.schema(
    [
        ("object_id", pa.int64()),
        ("t_mjd_tai", pa.float64()),
        ("band", pa.string()),
        ("flux_njy", pa.float32()),
        ("sigma_njy", pa.float32()),
        ("detected", pa.bool_()),
    ]
)
"""One row per measurement."""

_NEVER_NULL: Final = frozenset({"object_id", "t_mjd_tai"})


def read_light_curves(folder: Path | str) -> pa.Table:
    """Read a light-curve folder into the shape that ``read_alerts`` gives, one row per object.

    Parameters
    ----------
    folder
        Contains ``objects.parquet`` (:data:`OBJECTS_SCHEMA`; all but ``object_id`` may be missing) and
        ``light_curves.parquet`` (:data:`POINTS_SCHEMA`), in any order of rows.

    Returns
    -------
    pyarrow.Table
        The objects' columns in the order of ``objects.parquet``, and ``light_curve`` in time order:
        measurements with ``detected`` are of kind "source", others "forced". An object without a
        measurement has an empty light curve; a measurement of an unlisted object is an error.

    Raises
    ------
    ConfigurationError
        A file or column is missing, or the identifiers of the two files do not match.
    """
    from pathlib import Path  # noqa: PLC0415 - only this function touches the disk

    folder = Path(folder)
    objects = _read(folder / OBJECTS_FILE, OBJECTS_SCHEMA, needed={"object_id"})
    points = _read(folder / LIGHT_CURVES_FILE, POINTS_SCHEMA, needed=set(POINTS_SCHEMA.names))
    return attach_light_curves(objects, points)


def attach_light_curves(objects: pa.Table, points: pa.Table) -> pa.Table:
    """Return `objects` with their measurements as the column ``light_curve``.

    Raises
    ------
    ConfigurationError
        An object is listed twice, or a measurement names an object that is not listed.
    """
    ids = objects["object_id"].to_numpy()
    by_id = np.argsort(ids, kind="stable")
    if (np.diff(ids[by_id]) == 0).any():
        raise ConfigurationError("an object_id is listed more than once")
    point_ids = points["object_id"].to_numpy()
    position = np.searchsorted(ids[by_id], point_ids)
    inside = position < ids.size
    if not inside.all() or (ids[by_id][position] != point_ids).any():
        raise ConfigurationError("a measurement names an object_id that is not among the objects")
    row = by_id[position]
    order = np.lexsort((points["t_mjd_tai"].to_numpy(), row))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=ids.size))])
    detected = points["detected"].combine_chunks().fill_null(False)  # noqa: FBT003 - Arrow takes it by position
    curves = LightCurves(
        offsets.astype(np.int64),
        points["t_mjd_tai"].to_numpy()[order],
        codes_of(points["band"].combine_chunks(), BAND_CODES)[order],
        points["flux_njy"].to_numpy()[order],
        points["sigma_njy"].to_numpy()[order],
        np.where(detected, KIND_SOURCE, KIND_FORCED).astype(np.int8)[order],
        np.where(detected, DETECTED, 0).astype(np.int8)[order],
    )
    return objects.append_column("light_curve", light_curve_column(curves))


def write_light_curves(folder: Path, objects: pa.Table, points: pa.Table) -> None:
    """Write a light-curve folder; columns are cast to the two schemas, unknown ones of objects null."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_filled(objects, OBJECTS_SCHEMA), folder / OBJECTS_FILE)
    pq.write_table(
        points.select(POINTS_SCHEMA.names).cast(POINTS_SCHEMA), folder / LIGHT_CURVES_FILE
    )


def select_objects(
    objects: pa.Table, points: pa.Table, keep: pa.Array
) -> tuple[pa.Table, pa.Table]:
    """Return the rows of both tables that belong to the object ids in `keep`."""
    return (
        objects.filter(pc.is_in(objects["object_id"], value_set=keep)),
        points.filter(pc.is_in(points["object_id"], value_set=keep)),
    )


def read_parts(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Return the two tables of a light-curve folder as they are on disk."""
    return (
        _read(folder / OBJECTS_FILE, OBJECTS_SCHEMA, needed={"object_id"}),
        _read(folder / LIGHT_CURVES_FILE, POINTS_SCHEMA, needed=set(POINTS_SCHEMA.names)),
    )


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema`, null where `table` lacks them."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _read(path: Path, schema: pa.Schema, needed: set[str]) -> pa.Table:
    if not path.is_file():
        raise ConfigurationError(
            f"{path} is missing: a light-curve folder contains {OBJECTS_FILE} and {LIGHT_CURVES_FILE}"
        )
    try:
        table = pq.read_table(path)
        absent = needed - set(table.column_names)
        if absent:
            raise ConfigurationError(f"{path} lacks the column(s) {', '.join(sorted(absent))}")
        table = _filled(table, schema)
    except (pa.ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigurationError(f"{path} cannot be read: {said}") from error
    for name in needed & _NEVER_NULL:
        if table[name].null_count:
            raise ConfigurationError(f"{path}: {name} is null in {table[name].null_count} row(s)")
    return table
