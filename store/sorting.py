"""Sorts the rows of files that do not fit into memory, with a few of their row groups in memory at a time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from store.delta import Written, disk_trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_RUNS_DECODED: Final = 2
"""A row group from which more runs than this need rows is decoded once and written to a temporary file."""


def _go_on() -> None:
    """Allow it."""


class OldRows:
    """The rows of some files, numbered in order, to be read in portions.

    Parameters
    ----------
    folder, files
        Where they are.
    schema
        Schema of the table; columns missing from an older file are null.
    ask
        Called before a row group is decoded; an exception from it ends the reading.
    """

    def __init__(
        self,
        folder: Path,
        files: Iterable[Written],
        schema: pa.Schema,
        ask: Callable[[], object] = _go_on,
    ) -> None:
        self._ask = ask
        self._folder = folder
        self._schema = schema
        self._groups = [
            group
            for file in files
            for fragment in ds.dataset(folder / file.name, format="parquet").get_fragments()
            for group in fragment.split_by_row_group()
        ]
        n_rows = [group.row_groups[0].num_rows for group in self._groups]
        self._ends = np.cumsum([0, *n_rows])
        self.n_columns = max((group.metadata.num_columns for group in self._groups), default=0)

    def order(self, by: Sequence[str]) -> NDArray[np.int64]:
        """Return the numbers of all rows, sorted by these columns; a number that is missing counts as 0.

        Texts are not in alphabetical order: equal ones are together. Rows that are equal in
        all columns stay in their order.
        """
        rows = self._schema.empty_table().select(by)
        parts = [group.to_table(schema=self._schema, columns=list(by)) for group in self._groups]
        rows = pa.concat_tables([rows, *parts])
        return np.lexsort([_sortable(rows[name]) for name in reversed(by)])

    def runs(
        self, order: NDArray[np.int64], cuts: Sequence[tuple[int, int]], emptied: NDArray[np.bool_]
    ) -> Iterator[pa.Table]:
        """Give all rows in `order`, cut into runs.

        Parameters
        ----------
        order
            The numbers of all rows, each once.
        cuts
            Where each run begins in `order`, and ends.
        emptied
            For every row, whether its light curve becomes null.
        """
        run_of = np.empty(len(order), np.int64)
        for number, (begin, end) in enumerate(cuts):
            run_of[order[begin:end]] = number
        with disk_trouble(self._folder), TemporaryFile(dir=self._folder) as file:
            spilled = self._spill(file, run_of, emptied)
            for number, (begin, end) in enumerate(cuts):
                yield self._take(number, order[begin:end], emptied, spilled)

    def _spill(
        self, file: BinaryIO, run_of: NDArray[np.int64], emptied: NDArray[np.bool_]
    ) -> Mapping[tuple[int, int], Callable[[], pa.RecordBatch]]:
        """Write row groups that several runs need into `file`, each run's rows of a group together.

        Decoding them again for each run would be most of the work: the stream's own files are not sorted, so
        every run needs some of their rows. The rows are given by group and run.
        """
        mine = [run_of[begin:end] for begin, end in pairwise(self._ends)]
        several = [k for k, runs in enumerate(mine) if np.unique(runs).size > _RUNS_DECODED]
        if not several:
            return {}
        written: list[tuple[int, int]] = []
        with pa.ipc.new_file(file, self._schema) as out:
            for k in several:
                rows, gone = self._decoded(k), emptied[self._ends[k] : self._ends[k + 1]]
                for number in np.unique(mine[k]).tolist():
                    at = np.flatnonzero(mine[k] == number)
                    (batch,) = picked(rows, at, gone[at]).combine_chunks().to_batches()
                    out.write_batch(batch)
                    written.append((k, number))
        reader = pa.ipc.open_file(file)
        return {key: partial(reader.get_batch, at) for at, key in enumerate(written)}

    def _decoded(self, group: int) -> pa.Table:
        self._ask()
        return self._groups[group].to_table(schema=self._schema, use_threads=False)

    def _take(
        self,
        run: int,
        numbers: NDArray[np.int64],
        emptied: NDArray[np.bool_],
        spilled: Mapping[tuple[int, int], Callable[[], pa.RecordBatch]],
    ) -> pa.Table:
        ascending = np.sort(numbers)
        parts = []
        for group, (begin, end) in enumerate(pairwise(self._ends)):
            first, last = np.searchsorted(ascending, (begin, end))
            if (group, run) in spilled:
                parts.append(pa.Table.from_batches([spilled[group, run]()]))
            elif first < last:
                mine = ascending[first:last]
                parts.append(picked(self._decoded(group), mine - begin, emptied[mine]))
        nothing = np.zeros(len(numbers), bool)
        return picked(pa.concat_tables(parts), np.searchsorted(ascending, numbers), nothing)


def _sortable(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_string(column.type):
        column = column.combine_chunks().dictionary_encode().indices
    return np.asarray(pc.fill_null(column, 0))


def picked(rows: pa.Table, at: NDArray[np.int64], emptied: NDArray[np.bool_]) -> pa.Table:
    """Return the rows with these numbers, in this order, with light curves null where `emptied`."""
    column = rows.schema.get_field_index("light_curve")
    if column < 0:
        return rows.take(pa.array(at))
    light_curves = rows["light_curve"].combine_chunks().take(pa.array(at, mask=emptied))
    others = rows.drop_columns(["light_curve"]).take(pa.array(at))
    return others.add_column(column, rows.schema.field(column), light_curves)


def portions(sizes: NDArray[np.int64], n_rows: int, at_most: int) -> Iterator[tuple[int, int]]:
    """Divide rows into runs of whole groups of `n_rows` each, of `at_most` bytes or one group.

    Parameters
    ----------
    sizes
        Bytes of each row.
    n_rows
        Of a group; the last one of all may have fewer.
    at_most
        Bytes of a run.

    Yields
    ------
    tuple of int
        The first row, and the one after the last.

    Examples
    --------
    >>> list(portions(np.array([1, 1, 5, 5, 1, 1, 1]), 2, 4))
    [(0, 2), (2, 4), (4, 7)]
    """
    begin, held = 0, 0
    for at in range(0, len(sizes), n_rows):
        size = int(sizes[at : at + n_rows].sum())
        if at > begin and held + size > at_most:
            yield begin, at
            begin, held = at, 0
        held += size
    if begin < len(sizes):
        yield begin, len(sizes)
