"""Delta Lake tables of light curves and features, without Spark's JVM.

Workers write Parquet files into the table's folder; the driver then commits their names in one
transaction that contains the batch number. A batch that is replayed after a crash finds its number
taken and adds nothing; the file of a task that ran twice stays as an orphan for ``vacuum``.

:mod:`store.maintenance` joins files and empties light curves that are not needed any more: an alert's row
stays for ever, but its ``light_curve`` may be null.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from lightcurves.errors import UnavailableError
from store.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from store.keys import Key

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
"""A point as stored on disk: plain text instead of dictionaries, which Delta does not support."""

REWRITER: Final = "noctule-maintenance"
"""Application of the transactions that replace files; see `replace_files`."""

CONFIGURATION: Final = {
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}
"""One batch per second makes 86,400 log files per day, and nobody reads old versions of the table. Delta's
defaults of 30 and 7 days would be millions of files, and as many tombstones in every checkpoint."""


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
    rows_in_a_group
        Largest number of rows in a row group; by default all rows that are added at a time.
    """

    def __init__(self, folder: Path, rows_in_a_group: int | None = None) -> None:
        self._folder = folder
        self._rows_in_a_group = rows_in_a_group
        self._name = f"{uuid.uuid4().hex}.parquet"
        self._writer: pq.ParquetWriter | None = None
        self._n_rows = 0

    def append(self, table: pa.Table) -> None:
        """Add rows; the first call decides the columns."""
        table = on_disk(table)
        with self._whole_or_not():
            if self._writer is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(
                    self._folder / self._name,
                    table.schema,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=texts_of(table.schema),
                )
            self._writer.write_table(table, self._rows_in_a_group)
        self._n_rows += table.num_rows

    def close(self) -> Written | None:
        """Finish the file; None if nothing was added."""
        if self._writer is None:
            return None
        with self._whole_or_not():
            self._writer.close()
        size = (self._folder / self._name).stat().st_size
        return Written(self._name, size, self._n_rows)

    def discard(self) -> None:
        """Delete what was written."""
        if self._writer is not None:
            with suppress(OSError, pa.ArrowException):  # the disk may be full
                self._writer.close()
            (self._folder / self._name).unlink(missing_ok=True)

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """Delete what was written if the rest cannot be: on a full disk it would take up space."""
        try:
            with disk_trouble(self._folder):
                yield
        except UnavailableError:
            (self._folder / self._name).unlink(missing_ok=True)
            raise


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Raise `UnavailableError` if the disk does not accept what is written into `folder`."""
    try:
        yield
    except OSError as error:
        said = str(error).strip().splitlines()[-1].strip()
        hint = f"{folder}: {said}: make room on the disk, or check it for errors"
        raise UnavailableError("Delta table", hint) from error


def texts_of(schema: pa.Schema) -> list[str]:
    """Return the Parquet paths of text columns: numbers rarely repeat, dictionaries of them cost time."""
    plain = [field.name for field in schema if pa.types.is_string(field.type)]
    nested = [field.name for field in POINT if pa.types.is_string(field.type)]
    return [*plain, *(f"light_curve.list.element.{name}" for name in nested)]


def on_disk(table: pa.Table) -> pa.Table:
    """Return `table` with dictionaries converted to plain text."""
    at = table.schema.get_field_index("light_curve")
    if at < 0:
        return table
    return table.set_column(at, "light_curve", table["light_curve"].cast(pa.list_(POINT)))


def ensure_table(folder: Path, schema: pa.Schema) -> None:
    """Create the Delta table at `folder`, or add the missing columns of `schema`, as null in existing rows.

    A missing field of a struct (such as a new feature) is added in the same way.
    """
    nothing = on_disk(schema.empty_table())
    wanted = Schema.from_arrow(nothing.schema)
    with disk_trouble(folder):
        table = DeltaTable.create(str(folder), wanted, mode="ignore", configuration=CONFIGURATION)
    if not CONFIGURATION.items() <= table.metadata().configuration.items():
        table.alter.set_table_properties(CONFIGURATION)
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
    """Add `files` to the table at `folder`, once for each (`app_id`, `batch_id`).

    Returns
    -------
    bool
        False if this batch was committed before: nothing was done.

    Raises
    ------
    UnavailableError
        A file was vacuumed as an orphan before its batch was committed. Committing it would break the
        table; a replay of the batch writes it again.
    """
    table = DeltaTable(str(folder))
    done = table.transaction_version(app_id)
    if done is not None and done >= batch_id:
        return False
    for file in files:
        if not (folder / file.name).is_file():
            raise UnavailableError(
                "Delta table", f"{file.name} was deleted before it was committed"
            )
    with disk_trouble(folder):
        table.create_write_transaction(
            [_action(file) for file in files],
            "append",
            table.schema(),
            commit_properties=CommitProperties(app_transactions=[Transaction(app_id, batch_id)]),
        )
    return True


def _action(file: Written, *, data_change: bool = True) -> AddAction:
    stats = f'{{"numRecords": {file.n_rows}}}'
    return AddAction(file.name, file.n_bytes, {}, now_ms(), data_change, stats)


def replace_files(table: DeltaTable, old: list[Written], new: Written) -> bool:
    """Replace `old` by `new` in one transaction; appends do not conflict with it.

    Parameters
    ----------
    table
        In the version from which `old` was read, and not updated since.
    old, new
        Files with the same alerts.

    Returns
    -------
    bool
        False if another process replaced files meanwhile: then the table is unchanged.

    Notes
    -----
    delta-rs treats a transaction that adds and removes files as a blind append, and two that remove the
    same file both succeed: every row would be there twice. So each has the next number of an application
    transaction, and if two saw the same number, one fails.
    """
    turn = (table.transaction_version(REWRITER) or 0) + 1
    removed = [RemoveAction(file.name, False, now_ms(), file.n_bytes, {}) for file in old]  # noqa: FBT003
    try:
        table.create_write_transaction(
            [_action(new, data_change=False), *removed],
            "append",
            table.schema(),
            commit_properties=CommitProperties(app_transactions=[Transaction(REWRITER, turn)]),
        )
    except CommitFailedError:
        return False
    return True


def files_of(table: DeltaTable) -> list[Written]:
    """Return the files that the table consists of."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    return [Written(*values) for values in zip(*columns, strict=True)]


def dataset_of(table: DeltaTable, folder: Path) -> ds.Dataset:
    """Return the rows of the table at `folder`, read as local files.

    delta-rs would read them through Python objects that Arrow's threads call: a thread that still reads when
    the interpreter ends aborts the process.
    """
    files = SubTreeFileSystem(str(folder), LocalFileSystem())
    rows: ds.Dataset = table.to_pyarrow_dataset(filesystem=files)
    return rows


def read_light_curve(folder: Path, survey: str, object_id: int) -> pa.Table | None:
    """Return the points of the object's newest alert, or None if there is no such object.

    Columns ``t_mjd_tai``, ``band``, ``flux_njy``, ``sigma_njy``, ``kind``, ``flags``.
    """
    rows = read_alerts_of(folder, [(survey, object_id)])
    if rows.num_rows == 0:
        return None
    newest = rows.sort_by([("t_mjd_tai", "descending")]).slice(0, 1)
    return pa.Table.from_struct_array(newest["light_curve"].combine_chunks().flatten())


def read_alerts_of(folder: Path, objects: Iterable[Key]) -> pa.Table:
    """Return the alerts of the objects, each once, with the light curve that was in its packet.

    An alert that several runs have read is returned once; one whose light curve was emptied is left
    out. Empty if nothing was written yet.
    """
    schema = pa.schema(
        [
            ("survey", pa.string()),
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
    dataset, by_survey = dataset_of(table, folder), defaultdict[str, list[int]](list)
    for survey, object_id in objects:
        by_survey[survey].append(object_id)
    alerts = [schema.empty_table()]
    for survey, ids in sorted(by_survey.items()):
        wanted = (pc.field("survey") == survey) & pc.field("object_id").isin(pa.array(ids))
        rows = dataset.to_table(columns=list(schema.names), filter=wanted).cast(schema)
        rows = rows.filter(pc.is_valid(rows["light_curve"]))
        _, first = np.unique(rows["dia_source_id"].to_numpy(), return_index=True)
        alerts.append(rows.take(pa.array(first)))
    return pa.concat_tables(alerts)
