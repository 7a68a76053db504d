"""Where a re-scoring writes its scores: a Delta table beside the live one, or a Parquet file.

In both, an alert has one row per model version, however often it is scored again. A target
says which alerts it has, and accepts rows of others; rows that it has stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from lightcurves.errors import ConfigurationError
from lightcurves.surveys import LSST
from store.delta import dataset_of, ensure_table

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray


class Target(Protocol):
    """Where rows are added: one survey's, of one model version, each ``dia_source_id`` at most once."""

    def present(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the alerts it has already."""

    def add(self, rows: pa.Table) -> bool:
        """Add rows of alerts that it does not have, as :meth:`present` has just said.

        False if another process has added rows since then: nothing was written; call :meth:`present`
        again.
        """


class RescoredTable:
    """The Delta table at `folder`, which is created, or given the columns of `schema` that it lacks.

    Notes
    -----
    There is no lock and no list of what is done: the table itself records it. Each addition carries
    the next number of a Delta application named after the version. If two processes have read the
    same number, one of them fails, so nobody adds rows without having seen all rows before them. A
    process that is killed leaves at most an orphan file; the next one finds what is still to do.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, version: str, survey: str = LSST.name
    ) -> None:
        ensure_table(folder, schema)
        self._folder = folder
        self._mine = (pc.field("model_version") == version) & (pc.field("survey") == survey)
        self._application = f"noctule-rescore-{version}"
        self._table = DeltaTable(str(folder))

    def present(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the alerts it has already."""
        self._table = DeltaTable(str(self._folder))
        if not ids.size:
            return np.zeros(0, np.bool_)
        name = pc.field("dia_source_id")
        # Bounds first: Delta knows a file's, a joined file its row groups', and most have none of these.
        wanted = (name >= int(ids.min())) & (name <= int(ids.max())) & name.isin(pa.array(ids))
        dataset = dataset_of(self._table, self._folder)
        there = dataset.to_table(columns=["dia_source_id"], filter=self._mine & wanted)
        return np.isin(ids, there["dia_source_id"].to_numpy())

    def add(self, rows: pa.Table) -> bool:
        """Add rows; see :class:`Target`."""
        if not rows.num_rows:
            return True
        turn = (self._table.transaction_version(self._application) or 0) + 1
        try:
            write_deltalake(
                self._table,
                rows,
                mode="append",
                writer_properties=WriterProperties(compression="ZSTD"),
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(self._application, turn)]
                ),
            )
        except CommitFailedError:
            return False
        return True


class ParquetFile:
    """A Parquet file, which appears when all is done; remembers ids, 8 bytes per alert."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._draft, schema, compression="zstd")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
        self._ids = np.zeros(0, np.int64)

    def present(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the alerts it has already."""
        return np.isin(ids, self._ids)

    def add(self, rows: pa.Table) -> bool:
        """Add rows; see :class:`Target`."""
        self._writer.write_table(rows)
        self._ids = np.concatenate([self._ids, rows["dia_source_id"].to_numpy()])
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._writer.close()
        if error_type is None:
            self._draft.rename(self._path)
        else:
            self._draft.unlink()
