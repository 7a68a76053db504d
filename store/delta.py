"""Delta Lake tables of light curves and features, without Spark's JVM.

Workers write Parquet files into the table's folder; the driver then commits their names in one
transaction that carries the batch number. A batch that is replayed after a crash finds its number
taken and adds nothing; the file of a task that ran twice stays an orphan for ``vacuum``.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction

if TYPE_CHECKING:
    from pathlib import Path

POINT: Final = pa.struct(
    [
        ("t_mjd_tai", pa.float64()),
        ("band", pa.string()),
        ("flux_njy", pa.float32()),
        ("sigma_njy", pa.float32()),
        ("kind", pa.string()),
        ("flags", pa.int8()),
    ]
)
"""A point as it lies on disk: plain text where memory has dictionaries, which Delta does not know."""


class Written(NamedTuple):
    """A Parquet file in the table's folder, not yet part of the table."""

    name: str
    n_bytes: int
    n_rows: int


class LightCurveFile:
    """One Parquet file, written chunk by chunk by one task.

    Parameters
    ----------
    folder
        The table's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{uuid.uuid4().hex}.parquet"
        self._writer: pq.ParquetWriter | None = None
        self._n_rows = 0

    def append(self, table: pa.Table) -> None:
        """Add rows; the first call decides the columns."""
        table = on_disk(table)
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._folder / self._name,
                table.schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=texts_of(table.schema),
            )
        self._writer.write_table(table)
        self._n_rows += table.num_rows

    def close(self) -> Written | None:
        """Finish the file; None where nothing was added."""
        if self._writer is None:
            return None
        self._writer.close()
        size = (self._folder / self._name).stat().st_size
        return Written(self._name, size, self._n_rows)


def texts_of(schema: pa.Schema) -> list[str]:
    """Return the Parquet paths of columns of text: numbers hardly repeat, a dictionary costs time."""
    plain = [field.name for field in schema if pa.types.is_string(field.type)]
    nested = [field.name for field in POINT if pa.types.is_string(field.type)]
    return [*plain, *(f"light_curve.list.element.{name}" for name in nested)]


def on_disk(table: pa.Table) -> pa.Table:
    """Return `table` with dictionaries as plain text."""
    at = table.schema.get_field_index("light_curve")
    if at < 0:
        return table
    return table.set_column(at, "light_curve", table["light_curve"].cast(pa.list_(POINT)))


def ensure_table(folder: Path, schema: pa.Schema) -> None:
    """Create the Delta table at `folder`, or add what it lacks of `schema`, as null in the rows there.

    A field of a struct (a new feature, say) is added as a column is.
    """
    nothing = on_disk(schema.empty_table())
    wanted = Schema.from_arrow(nothing.schema)
    table = DeltaTable.create(str(folder), wanted, mode="ignore")
    if not _names(wanted.to_arrow()) <= _names(table.schema().to_arrow()):
        write_deltalake(table, nothing, mode="append", schema_mode="merge")


def _names(schema: Any, path: str = "") -> set[str]:
    """Return the dotted names of all columns and of the fields within them."""
    names = set()
    for field in pa.schema(schema):
        kind = field.type
        names |= {f"{path}{field.name}"}
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            names |= _names(pa.schema(list(kind)), f"{path}{field.name}.")
    return names


def commit_files(folder: Path, files: list[Written], app_id: str, batch_id: int) -> bool:
    """Make `files` part of the table at `folder`, once for each (`app_id`, `batch_id`).

    Returns
    -------
    bool
        False where this batch had been committed before: nothing was done.
    """
    table = DeltaTable(str(folder))
    done = table.transaction_version(app_id)
    if done is not None and done >= batch_id:
        return False
    table.create_write_transaction(
        [_action(file) for file in files],
        "append",
        table.schema(),
        commit_properties=CommitProperties(app_transactions=[Transaction(app_id, batch_id)]),
    )
    return True


def _action(file: Written) -> AddAction:
    stats = f'{{"numRecords": {file.n_rows}}}'
    return AddAction(file.name, file.n_bytes, {}, time.time_ns() // 1_000_000, True, stats)  # noqa: FBT003


def read_light_curve(folder: Path, object_id: int) -> pa.Table | None:
    """Return the points of the object's newest alert, or None where there is no such object.

    Columns ``t_mjd_tai``, ``band``, ``flux_njy``, ``sigma_njy``, ``kind``, ``flags``.
    """
    rows = read_alerts_of(folder, [object_id])
    if rows.num_rows == 0:
        return None
    newest = rows.sort_by([("t_mjd_tai", "descending")]).slice(0, 1)
    return pa.Table.from_struct_array(newest["light_curve"].combine_chunks().flatten())


def read_alerts_of(folder: Path, object_ids: list[int]) -> pa.Table:
    """Return the alerts of the objects, each once, with the light curve that its packet showed.

    An alert that several runs have read counts once. Empty where nothing was written yet.
    """
    schema = pa.schema(
        [
            ("object_id", pa.int64()),
            ("dia_source_id", pa.int64()),
            ("t_mjd_tai", pa.float64()),
            ("ra_deg", pa.float64()),
            ("dec_deg", pa.float64()),
            ("light_curve", pa.list_(POINT)),
        ]
    )
    try:
        table = DeltaTable(str(folder))
    except TableNotFoundError:
        return schema.empty_table()
    wanted = pc.field("object_id").isin(pa.array(object_ids, pa.int64()))
    rows = (
        table.to_pyarrow_dataset().to_table(columns=list(schema.names), filter=wanted).cast(schema)
    )
    _, first = np.unique(rows["dia_source_id"].to_numpy(), return_index=True)
    return rows.take(pa.array(first))
