"""Keeps the tables small, beside the stream: joins files, empties light curves that nobody needs.

`maintain` does, in order, each step safe to be killed in:

1. *Rewrite.* Files of which a good part is superseded are written anew without it, and small files are
   joined, like with like: what is joined becomes part of a file at least twice as large. A file is
   written first and swapped in afterwards, in one transaction (:func:`store.delta.replace_files`):
   whoever is killed in between leaves an orphan. However large the files, a few of their row groups are
   in memory at a time.
2. *Vacuum.* Files that are no part of the table any more, or never became one, go once they are older
   than the stated age: a file that a running task writes, or that waits for its commit, is younger.
3. *Log.* A checkpoint of Delta's log, which keeps the batch numbers of every run; then log files older
   than a day go.
4. *Database.* What the planner counts by, and on PostgreSQL dead rows.

Which light curve is superseded, :func:`superseded` says; docs/decisions/0009-thinning.md says why. The
row of an alert, its scores and its features stay for ever.

`maintain_rescored` does the first three of the table of what was scored again, which has no light curves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import sqlalchemy as sa
from deltalake import DeltaTable

from store import tables
from store.clock import now_ms
from store.database import reading
from store.delta import LightCurveFile, Written, disk_trouble, files_of, replace_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DAY_MS: Final = 86_400_000
ROWS_IN_A_GROUP: Final = 1024
"""Rows are sorted by object: who asks for one object reads one group of each file."""

BY_OBJECT: Final = ("object_id", "t_mjd_tai")
BY_ALERT: Final = ("dia_source_id",)
"""A re-scoring asks which of some thousand alerts are there: it reads the groups that may have them."""

_AT_A_TIME: Final = 64 << 20
"""So many bytes of rows are put in order at a time, roughly as they lie in memory, and a row group at
least; what is in memory is about three times this."""
_RUNS_DECODED: Final = 2
"""A row group that more runs than these have rows of is decoded once, and written down."""
_POINT_BYTES: Final = 32
_VALUE_BYTES: Final = 9

_FEWEST: Final = 8
"""So few small files are not worth their rewriting yet."""
_SMALL: Final = 0.25
"""A file below this part of the target is small."""
_WASTED: Final = 0.25
"""A file is written anew where this part of its bytes is superseded."""
_SAME_DAYS: Final = 1e-6
_ANALYSED_ROWS: Final = 1000


@dataclass(frozen=True)
class Retention:
    """How long things are kept; the settings' section ``maintenance``.

    Attributes
    ----------
    file_mb
        Size that files are joined to.
    light_curve_days
        A light curve is kept so long after its alert was read, superseded or not.
    orphan_hours
        Age at which a file that is not part of the table goes. More than any batch takes, and more
        than any reader does.
    """

    file_mb: int = 64
    light_curve_days: float = 30.0
    orphan_hours: int = 24


@dataclass(frozen=True)
class Saved:
    """What a round of maintenance came to.

    Attributes
    ----------
    files, n_bytes
        Of the table: before and after.
    n_emptied
        Light curves that went.
    n_vacuumed, vacuumed_bytes
        Files that were deleted.
    n_log_files
        Files of Delta's log that were deleted.
    overtaken
        Another maintenance was at work on the same files: the rest was left to it.
    """

    files: tuple[int, int] = (0, 0)
    n_bytes: tuple[int, int] = (0, 0)
    n_emptied: int = 0
    n_vacuumed: int = 0
    vacuumed_bytes: int = 0
    n_log_files: int = 0
    overtaken: bool = False

    def fields(self) -> dict[str, int | bool]:
        """Return all of it as plain values by name, for a log in JSON."""
        plain = asdict(self)
        (files, files_left), (n_bytes, bytes_left) = plain.pop("files"), plain.pop("n_bytes")
        return {
            "files_before": files,
            "files_after": files_left,
            "bytes_before": n_bytes,
            "bytes_after": bytes_left,
            **plain,
        }


class Progress(Protocol):
    """What is told of a round."""

    def __call__(self, line: str, /, **fields: object) -> None:
        """Take a line after each step; `fields` have its numbers, ``table`` and ``step`` among them."""


def _silent(_line: str, /, **_fields: object) -> None:
    """Take a line and say nothing."""


def _never() -> bool:
    """Say that nobody wants this to stop."""
    return False


class _StoppedError(Exception):
    """Somebody wants this to stop; what was swapped in stays."""


def maintain(
    engine: sa.Engine,
    folder: Path,
    retention: Retention,
    progress: Progress = _silent,
    stopped: Callable[[], bool] = _never,
) -> Saved:
    """Do one round of maintenance of the Delta table at `folder` and of the database; see the module.

    Parameters
    ----------
    engine
        The database: it says which objects have labels or requests, and is analysed.
    folder
        The table's; nothing is done where there is none yet.
    retention
        How long things are kept.
    progress
        Called after each step.
    stopped
        Asked every few seconds; where it says so, the rest is left to the next round.
    """
    saved = Saved()
    if DeltaTable.is_deltatable(str(folder)):
        rule = Rule(
            protected_objects(engine), now_ms() - round(retention.light_curve_days * DAY_MS)
        )
        rewriting = _Rewriting(folder, retention, BY_OBJECT, rule, stopped)
        saved = _maintain_table(rewriting, progress)
    if not stopped():
        analyse(engine)
        progress("database analysed", step="analyse")
    return saved


def maintain_rescored(
    folder: Path,
    retention: Retention,
    progress: Progress = _silent,
    stopped: Callable[[], bool] = _never,
) -> Saved | None:
    """Do one round of maintenance of the Delta table at `folder` of what was scored again.

    Its files are joined, its orphans deleted and its log shortened. None where there is no such table.
    """
    if not DeltaTable.is_deltatable(str(folder)):
        return None
    return _maintain_table(_Rewriting(folder, retention, BY_ALERT, stopped=stopped), progress)


def _maintain_table(rewriting: _Rewriting, progress: Progress) -> Saved:
    folder, table = rewriting.folder, rewriting.folder.name
    before = files_of(DeltaTable(str(folder)))
    vacuumed: dict[str, int] = {}
    n_bytes = n_log_files = 0
    try:
        rewriting.run(progress)
        rewriting.ask()
        vacuumed = vacuum(folder, rewriting.retention.orphan_hours)
        n_bytes = sum(vacuumed.values())
        progress(
            f"{len(vacuumed)} files deleted that are no part of the table",
            table=table, step="vacuum", n_files=len(vacuumed), n_bytes=n_bytes,
        )  # fmt: skip
        n_log_files = shorten_log(folder)
        progress(
            f"{n_log_files} files of the log deleted", table=table, step="log", n_files=n_log_files
        )
    except _StoppedError:
        progress("stopped: the rest is left to the next round", table=table, step="stop")
    after = files_of(DeltaTable(str(folder)))
    return Saved(
        files=(len(before), len(after)),
        n_bytes=(_bytes_of(before), _bytes_of(after)),
        n_emptied=rewriting.n_emptied,
        n_vacuumed=len(vacuumed),
        vacuumed_bytes=n_bytes,
        n_log_files=n_log_files,
        overtaken=rewriting.overtaken,
    )


def protected_objects(engine: sa.Engine) -> NDArray[np.int64]:
    """Return the objects that a training may use every alert of: those labelled or asked for."""
    with reading(engine) as connection:
        found = {
            object_id
            for table in (tables.labels, tables.label_requests)
            for object_id in connection.execute(sa.select(table.c.object_id)).scalars()
        }
    return np.array(sorted(found), np.int64)


class Glance(NamedTuple):
    """What the rule needs of alerts whose light curve is kept, one value each.

    ``object_id`` int64, 0 where there is none; ``t`` float64, time of the alert (MJD TAI);
    ``start`` float64, of its first detection; ``processed_ms`` int64; ``n_points`` int64.
    """

    object_id: NDArray[np.int64]
    t: NDArray[np.float64]
    start: NDArray[np.float64]
    processed_ms: NDArray[np.int64]
    n_points: NDArray[np.int64]


class Glanced(NamedTuple):
    """A file's alerts whose light curve may go one day, by far the fewest in the end; and of all its rows.

    ``rows`` int64, where they are in it; ``n_points`` and ``light_curve_bytes``, of all its light curves.
    """

    alerts: Glance
    rows: NDArray[np.int64]
    n_points: int
    light_curve_bytes: int

    def points(self, n_rows: int) -> NDArray[np.int64]:
        """Return how many points each of its `n_rows` rows has; of those that stay, about how many."""
        others = self.n_points - int(self.alerts.n_points.sum())
        out = np.full(n_rows, -(-others // max(1, n_rows - len(self.rows))), np.int64)
        out[self.rows] = self.alerts.n_points
        return out


def superseded(alerts: Glance, protected: NDArray[np.int64], before_ms: int) -> NDArray[np.bool_]:
    """Say of which alerts the light curve is not needed any more.

    A light curve is kept where one of these holds:

    - it is the newest of its object: what the page shows and a re-scoring scores;
    - its object has a label or a request for one: a training takes its alerts as they were;
    - it was read at `before_ms` or later;
    - it reaches further back than all that are kept of later alerts: packets hold about a year, and
      from one alert a year the whole history can be put together;
    - it belongs to no object: packets of the Solar System hold no history.

    Parameters
    ----------
    alerts
        In any order; those whose light curve is kept.
    protected
        Objects of which all is kept.
    before_ms
        Wall clock; alerts that were read later are kept.

    Returns
    -------
    ndarray of bool
        One for each alert.
    """
    rows = np.flatnonzero(alerts.object_id)
    order = rows[np.lexsort((-alerts.start[rows], alerts.t[rows], alerts.object_id[rows]))]
    out = np.zeros(len(alerts.t), bool)
    out[order] = _covered(alerts.object_id[order], alerts.t[order], alerts.start[order])
    out &= alerts.processed_ms < before_ms
    out &= ~np.isin(alerts.object_id, protected)
    return out


@nb.njit(nogil=True, cache=True)
def _covered(object_id, t, start):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Cover each object's history with the fewest alerts, walking from the newest back.

    Of the alerts that still meet what is kept, the one that reaches furthest back is kept next; where
    none does, there is a gap, and the alert before it is next.
    """
    out = np.ones(len(t), np.bool_)
    reach, best = 0.0, -1
    for i in range(len(t) - 1, -1, -1):
        if i + 1 == len(t) or object_id[i + 1] != object_id[i]:  # its newest
            out[i] = False
            reach = start[i]
        else:
            if t[i] < reach and best >= 0:
                out[best] = False
                reach, best = start[best], -1
            if start[i] < reach - _SAME_DAYS and (best < 0 or start[i] < start[best]):
                best = i
        if best >= 0 and (i == 0 or object_id[i - 1] != object_id[i]):
            out[best] = False
            best = -1
    return out


def glance(path: Path) -> Glanced:
    """Read of a file what the rule needs; of light curves one small column, for their lengths."""
    file = pq.ParquetFile(path)
    columns = [file.schema.column(k).path for k in range(len(file.schema))]
    inside = [k for k, name in enumerate(columns) if name.startswith("light_curve.")]
    wanted = ["object_id", "t_mjd_tai", "days_since_first_detection", "processed_ms"]
    wanted.append(columns[inside[-1]])
    groups = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
    begins = np.cumsum([0, *(group.num_rows for group in groups)])
    parts = [
        _glance_of(file.read_row_group(k, columns=wanted), int(begins[k]))
        for k in range(len(groups))
    ]
    parts.append(_glance_of(file.schema_arrow.empty_table(), 0))  # there may be no group at all
    return Glanced(
        _together(part.alerts for part in parts),
        np.concatenate([part.rows for part in parts]),
        sum(part.n_points for part in parts),
        sum(group.column(k).total_compressed_size for group in groups for k in inside),
    )


def _together(parts: Iterable[Glance]) -> Glance:
    columns: Iterable[Any] = map(np.concatenate, zip(*parts, strict=True))
    return Glance(*columns)


def _glance_of(rows: pa.Table, begin: int) -> Glanced:
    def numbers(name: str, kind: pa.DataType) -> NDArray[Any]:
        column = rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, kind)
        return np.asarray(pc.fill_null(column, pa.scalar(0, kind)))

    owner, t = numbers("object_id", pa.int64()), numbers("t_mjd_tai", pa.float64())
    start = t - numbers("days_since_first_detection", pa.float64())
    processed_ms = numbers("processed_ms", pa.int64())
    lengths = pc.list_value_length(rows["light_curve"])
    n_points = np.asarray(pc.fill_null(lengths, 0), np.int64)
    held = np.flatnonzero(np.asarray(pc.is_valid(rows["light_curve"])) & (owner != 0))
    alerts = Glance(owner[held], t[held], start[held], processed_ms[held], n_points[held])
    return Glanced(alerts, begin + held, int(n_points.sum()), 0)


class Seen(NamedTuple):
    """A file of the table, which of its light curves are superseded, and bytes that these take."""

    file: Written
    superseded: NDArray[np.bool_]
    wasted: float

    @property
    def left(self) -> float:
        """Bytes without what is superseded."""
        return self.file.n_bytes - self.wasted

    @property
    def is_wasteful(self) -> bool:
        """Whether it is worth its rewriting alone."""
        return self.wasted >= _WASTED * self.file.n_bytes


def choose_groups(files: Iterable[Seen], target_bytes: int) -> list[list[Seen]]:
    """Return which files are worth their rewriting, in groups that become one file of `target_bytes` each.

    Wasteful files come first, in their order, then small ones, from the smallest on. A small file joins a
    group as long as it is not larger than the rest of it: so it becomes part of one at least twice its size.
    """
    files = list(files)
    wasteful = [seen for seen in files if seen.is_wasteful]
    small = [s for s in files if not s.is_wasteful and s.left < _SMALL * target_bytes]
    groups: list[list[Seen]] = [[]]
    waiting: list[Seen] = []
    for seen in [*wasteful, *sorted(small, key=lambda seen: seen.left)]:
        if groups[-1] and _bytes_left([*groups[-1], *waiting, seen]) > target_bytes:
            groups.append([])
        if seen.is_wasteful or seen.left <= _bytes_left([*groups[-1], *waiting]):
            groups[-1] += [*waiting, seen]
            waiting = []
        else:
            waiting.append(seen)
    place = {seen.file.name: k for k, seen in enumerate(files)}
    return [
        sorted(group, key=lambda seen: place[seen.file.name])
        for group in groups
        if _is_worth_it(group, target_bytes)
    ]


def _is_worth_it(group: list[Seen], target_bytes: int) -> bool:
    joined = len(group) > 1 and _bytes_left(group) >= _SMALL * target_bytes
    return joined or len(group) >= _FEWEST or any(seen.is_wasteful for seen in group)


def _bytes_left(group: list[Seen]) -> float:
    return sum(seen.left for seen in group)


class Rule(NamedTuple):
    """What :func:`superseded` is told beside the alerts."""

    protected: NDArray[np.int64]
    before_ms: int


@dataclass
class _Rewriting:
    """One round's rewriting of files.

    Attributes
    ----------
    folder, retention
        See :func:`maintain`.
    by
        Columns that rows are sorted by.
    rule
        By which light curves go; None where there are none.
    stopped
        See :func:`maintain`.
    n_emptied, overtaken
        See :class:`Saved`.
    """

    folder: Path
    retention: Retention
    by: Sequence[str]
    rule: Rule | None = None
    stopped: Callable[[], bool] = _never
    n_emptied: int = 0
    overtaken: bool = False
    _glances: dict[str, Glanced] = field(default_factory=dict)

    def ask(self) -> None:
        """Go no further where this is to stop."""
        if self.stopped():
            raise _StoppedError

    def run(self, progress: Progress) -> None:
        """Rewrite, once: the stream goes on, so there is always something."""
        groups = choose_groups(self._seen(), self.retention.file_mb << 20)
        for number, group in enumerate(groups, 1):
            self.ask()
            if not self._rewrite(group):
                self.overtaken = True
                progress(
                    "another maintenance is at work: the rest is left to it",
                    table=self.folder.name, step="join", overtaken=True,
                )  # fmt: skip
                return
            progress(
                f"group {number} of {len(groups)}: {len(group)} files are one",
                table=self.folder.name, step="join", group=number, n_groups=len(groups),
                n_files=len(group), n_bytes=_bytes_of(seen.file for seen in group),
            )  # fmt: skip

    def _seen(self) -> list[Seen]:
        files = files_of(DeltaTable(str(self.folder)))
        if self.rule is None or not files:
            return [Seen(file, np.zeros(file.n_rows, bool), 0.0) for file in files]
        for file in files:
            self.ask()
            self._glances[file.name] = glance(self.folder / file.name)
        glanced = list(self._glances.values())
        gone = superseded(_together(one.alerts for one in glanced), *self.rule)
        ends = np.cumsum([len(one.rows) for one in glanced])
        parts = np.split(gone, ends[:-1])
        return [_as_seen(*of_file) for of_file in zip(files, glanced, parts, strict=True)]

    def _rewrite(self, group: list[Seen]) -> bool:
        """Write `group` as one file and swap it in; False where another did so before."""
        table = DeltaTable(str(self.folder))
        old = [seen.file for seen in group]
        if not set(old) <= set(files_of(table)):
            return False
        emptied = np.concatenate([seen.superseded for seen in group])
        rows = OldRows(self.folder, old, pa.schema(table.schema().to_arrow()), self.ask)
        order = rows.order(self.by)
        sizes = rows.n_columns * _VALUE_BYTES + _POINT_BYTES * self._points_left(group)
        cuts = list(portions(sizes[order], ROWS_IN_A_GROUP, _AT_A_TIME))
        file = LightCurveFile(self.folder, rows_in_a_group=ROWS_IN_A_GROUP)
        try:
            for run in rows.runs(order, cuts, emptied):
                file.append(run)
            new = file.close()
        except Exception:
            file.discard()
            raise
        if new is None:  # files without a row
            return True
        if not replace_files(table, old, new):
            (self.folder / new.name).unlink()
            return False
        self.n_emptied += int(emptied.sum())
        return True

    def _points_left(self, group: list[Seen]) -> NDArray[np.int64]:
        """Return how many points of each row will be kept."""
        if self.rule is None:
            return np.zeros(sum(seen.file.n_rows for seen in group), np.int64)
        return np.concatenate(
            [
                self._glances[seen.file.name].points(seen.file.n_rows) * ~seen.superseded
                for seen in group
            ]
        )


def _as_seen(file: Written, glanced: Glanced, gone: NDArray[np.bool_]) -> Seen:
    emptied = np.zeros(file.n_rows, bool)
    emptied[glanced.rows[gone]] = True
    share = glanced.alerts.n_points[gone].sum() / max(1, glanced.n_points)
    return Seen(file, emptied, float(share * glanced.light_curve_bytes))


class OldRows:
    """The rows of some files, numbered in their order, of which some are read at a time.

    Parameters
    ----------
    folder, files
        Where they are.
    schema
        The table's; what an older file lacks is null.
    ask
        Called before a row group is decoded; what it raises ends the reading.
    """

    def __init__(
        self,
        folder: Path,
        files: Iterable[Written],
        schema: pa.Schema,
        ask: Callable[[], object] = _never,
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
        """Return the numbers of all rows, sorted by these columns; a value that is missing counts as 0.

        Rows that are equal in all of them stay in their order.
        """
        rows = self._schema.empty_table().select(by)
        parts = [group.to_table(schema=self._schema, columns=list(by)) for group in self._groups]
        rows = pa.concat_tables([rows, *parts])
        return np.lexsort([np.asarray(pc.fill_null(rows[name], 0)) for name in reversed(by)])

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
            Of every row, whether its light curve is null from now on.
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
        """Write groups that several runs have rows of into `file`, each run's rows of a group together.

        To decode them again for each run would be the most of the work: those of the stream's own files are
        in no order, so every run has some of their rows. The rows are given by group and run.
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
        found = np.sort(numbers)
        parts = []
        for group, (begin, end) in enumerate(pairwise(self._ends)):
            first, last = np.searchsorted(found, (begin, end))
            if (group, run) in spilled:
                parts.append(pa.Table.from_batches([spilled[group, run]()]))
            elif first < last:
                mine = found[first:last]
                parts.append(picked(self._decoded(group), mine - begin, emptied[mine]))
        nothing = np.zeros(len(numbers), bool)
        return picked(pa.concat_tables(parts), np.searchsorted(found, numbers), nothing)


def picked(rows: pa.Table, at: NDArray[np.int64], emptied: NDArray[np.bool_]) -> pa.Table:
    """Return the rows at these places, in this order, the light curves null where `emptied`."""
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


def _bytes_of(files: Iterable[Written]) -> int:
    return sum(file.n_bytes for file in files)


def vacuum(folder: Path, hours: int) -> dict[str, int]:
    """Delete files that are no part of the table and older than `hours`; their sizes by name."""
    table = DeltaTable(str(folder))

    def unneeded(*, dry_run: bool) -> list[str]:
        return table.vacuum(hours, dry_run, enforce_retention_duration=False, full=True)

    names = unneeded(dry_run=True)
    if not names:  # a vacuum of nothing would still write into the log
        return {}
    sizes = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    return {name: sizes.get(name, 0) for name in unneeded(dry_run=False)}


def shorten_log(folder: Path) -> int:
    """Write a checkpoint of Delta's log and delete what it makes needless; the number of files."""
    table = DeltaTable(str(folder))
    table.create_checkpoint()
    before = _log_files(folder)
    table.cleanup_metadata()
    return len(before - _log_files(folder))


def _log_files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "_delta_log").iterdir()}


def analyse(engine: sa.Engine) -> None:
    """Let the database count what it plans by, and take up dead rows; neither stops a writer for long.

    SQLite has no room to give back: rows are added or overwritten, hardly ever deleted.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            for table in tables.METADATA.sorted_tables:
                connection.execute(sa.text(f"VACUUM (ANALYZE) {table.name}"))
        return
    with engine.begin() as connection:
        connection.execute(sa.text(f"PRAGMA analysis_limit = {_ANALYSED_ROWS}"))
        connection.execute(sa.text("ANALYZE"))
