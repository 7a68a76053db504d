"""Keeps the tables small while the stream runs: joins files, empties light curves that are not needed.

`maintain` takes these steps in order; it may be killed during any of them:

1. *Rewrite.* Files in which much is superseded are rewritten without it, and small files are joined with
   others of their size, so that each becomes part of a file at least twice as large. The new file is
   written first and then exchanged for the old ones in one transaction
   (:func:`store.delta.replace_files`), so that a kill in between leaves an orphan. However large the files
   are, only a few of their row groups are in memory at a time.
2. *Vacuum.* Files that do not belong to the table, any more or yet, are deleted once they are older than
   the configured age: a file that a running task writes, or that waits for its commit, is younger.
3. *Log.* A checkpoint of Delta's log is written, which contains the batch numbers of every run; then log
   files older than a day are deleted.
4. *Database.* The planner's statistics are renewed, and on PostgreSQL dead rows removed.

:mod:`store.thinning` says which light curves are superseded. The row of an alert, its scores and its features
are kept for ever.

`maintain_rescored` takes the first three steps for the table of re-scored alerts, which has no light curves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from deltalake import DeltaTable

from store import tables
from store.clock import now_ms
from store.delta import LightCurveFile, Written, files_of, replace_files
from store.sorting import OldRows, portions
from store.thinning import Glanced, Rule, glance, protected_objects, superseded, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DAY_MS: Final = 86_400_000
ROWS_IN_A_GROUP: Final = 1024
"""Rows are sorted by object: a query for one object reads one row group of each file."""

BY_OBJECT: Final = ("object_id", "survey", "t_mjd_tai")
BY_ALERT: Final = ("dia_source_id",)
"""A re-scoring looks up some thousand alerts: it reads only the row groups that may contain them."""

_AT_A_TIME: Final = 64 << 20
"""About this many bytes of rows, as in memory, are put in order at a time, and at least one row group; the
memory used is about three times this."""
_POINT_BYTES: Final = 32
_VALUE_BYTES: Final = 9

_FEWEST: Final = 8
"""Fewer small files than this are not worth rewriting."""
_SMALL: Final = 0.25
"""A file smaller than this fraction of the target is small."""
_WASTED: Final = 0.25
"""A file is rewritten if at least this fraction of its bytes is superseded."""
_ANALYSED_ROWS: Final = 1000
_LARGE: Final = 100_000
"""SQLite's statistics of a table with fewer rows are not kept: see :func:`analyse`."""


@dataclass(frozen=True)
class Retention:
    """How long things are kept; the settings' section ``maintenance``.

    Attributes
    ----------
    file_mb
        Size of the files into which small ones are joined.
    light_curve_days
        A light curve is kept for this long after its alert was read, superseded or not.
    orphan_hours
        Age at which a file that does not belong to the table is deleted. Longer than any batch or any
        reader takes.
    """

    file_mb: int = 64
    light_curve_days: float = 30.0
    orphan_hours: int = 24


@dataclass(frozen=True)
class Saved:
    """The result of a round of maintenance.

    Attributes
    ----------
    files, n_bytes
        Of the table: before and after.
    n_emptied
        Light curves that were emptied.
    n_vacuumed, vacuumed_bytes
        Files that were deleted.
    n_log_files
        Files of Delta's log that were deleted.
    overtaken
        Another maintenance was working on the same files: the rest was left to it.
    """

    files: tuple[int, int] = (0, 0)
    n_bytes: tuple[int, int] = (0, 0)
    n_emptied: int = 0
    n_vacuumed: int = 0
    vacuumed_bytes: int = 0
    n_log_files: int = 0
    overtaken: bool = False

    def fields(self) -> dict[str, int | bool]:
        """Return all values by name, as fields of a log record."""
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
    """Receives the progress of a round."""

    def __call__(self, line: str, /, **fields: object) -> None:
        """Called with a line after each step; `fields` has its numbers, ``table`` and ``step`` among them."""


def _silent(_line: str, /, **_fields: object) -> None:
    """Ignore the line."""


def _never() -> bool:
    """Never stop."""
    return False


class _StoppedError(Exception):
    """The round was stopped; files already replaced stay replaced."""


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
        Folder of the table; nothing is done if there is none yet.
    retention
        How long things are kept.
    progress
        Called after each step.
    stopped
        Called every few seconds; if it returns True, the rest is left to the next round.
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
    """Do one round of maintenance of the Delta table of re-scored alerts at `folder`.

    Its files are joined, its orphans deleted and its log shortened. None if there is no such table.
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


class Seen(NamedTuple):
    """A file of the table, which of its light curves are superseded, and how many bytes these take."""

    file: Written
    superseded: NDArray[np.bool_]
    wasted: float

    @property
    def left(self) -> float:
        """Bytes of the file without what is superseded."""
        return self.file.n_bytes - self.wasted

    @property
    def is_wasteful(self) -> bool:
        """Whether the file is worth rewriting by itself."""
        return self.wasted >= _WASTED * self.file.n_bytes


def choose_groups(files: Iterable[Seen], target_bytes: int) -> list[list[Seen]]:
    """Return the files that are worth rewriting, in groups that become one file of `target_bytes` each.

    Wasteful files come first, in their order, then small ones, from the smallest on. A small file joins a
    group if it is not larger than the rest of it, so that it becomes part of a file at least twice its size.
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
        Which light curves are emptied; None if there are none.
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
        """Raise if the round should stop."""
        if self.stopped():
            raise _StoppedError

    def run(self, progress: Progress) -> None:
        """Rewrite files once: while the stream runs there are always more."""
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
        gone = superseded(together(one.alerts for one in glanced), *self.rule)
        ends = np.cumsum([len(one.rows) for one in glanced])
        parts = np.split(gone, ends[:-1])
        return [_as_seen(*of_file) for of_file in zip(files, glanced, parts, strict=True)]

    def _rewrite(self, group: list[Seen]) -> bool:
        """Write `group` as one file and replace it; False if another process did so before."""
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


def _bytes_of(files: Iterable[Written]) -> int:
    return sum(file.n_bytes for file in files)


def vacuum(folder: Path, hours: int) -> dict[str, int]:
    """Delete files that do not belong to the table and are older than `hours`; return their sizes by name."""
    table = DeltaTable(str(folder))

    def unneeded(*, dry_run: bool) -> list[str]:
        return table.vacuum(hours, dry_run, enforce_retention_duration=False, full=True)

    names = unneeded(dry_run=True)
    if not names:  # a vacuum of nothing would still write into the log
        return {}
    sizes = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    return {name: sizes.get(name, 0) for name in unneeded(dry_run=False)}


def shorten_log(folder: Path) -> int:
    """Write a checkpoint of Delta's log and delete the files that it replaces; return their number."""
    table = DeltaTable(str(folder))
    table.create_checkpoint()
    before = _log_files(folder)
    table.cleanup_metadata()
    return len(before - _log_files(folder))


def _log_files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "_delta_log").iterdir()}


def analyse(engine: sa.Engine) -> None:
    """Renew the planner's statistics; on PostgreSQL remove dead rows. Neither delays writers for long.

    SQLite has no space to give back: rows are added or overwritten, hardly ever deleted. A connection of
    SQLite's reads the statistics only once, and the stream's stays open for weeks: if they say that a table
    is small, it reads the whole table for each batch, however large it has become. A table without
    statistics is assumed to be large.
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
        connection.execute(sa.text(_FORGET_SMALL), {"large": _LARGE})


_FORGET_SMALL: Final = """
    DELETE FROM sqlite_stat1 WHERE tbl IN (
        SELECT tbl FROM sqlite_stat1 GROUP BY tbl HAVING MAX(CAST(stat AS INTEGER)) < :large)
"""
