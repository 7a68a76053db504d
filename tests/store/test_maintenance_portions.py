"""Files are rewritten a portion at a time: same rows, same order, little memory; also `rescored`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from lightcurves.errors import UnavailableError
from store import maintenance
from store.delta import LightCurveFile, commit_files, ensure_table, files_of
from store.maintenance import BY_OBJECT, maintain, maintain_rescored
from store.rescored import RescoredTable
from store.sorting import OldRows, portions
from tests.store.test_maintenance import (
    KEEP_ALL,
    KEEP_NOTHING,
    REPOSITORY,
    SCHEMA,
    alert,
    append,
    content,
    database,
    fill,
    kept,
    write,
)

__all__ = ["database"]  # a fixture

OLD_S = 40 * 86_400
Row = dict[str, Any]


# --- portions


@given(
    st.lists(st.integers(0, 50), max_size=60).map(lambda sizes: np.array(sizes, np.int64)),
    st.integers(1, 9),
    st.integers(1, 120),
)
def test_portions_are_whole_groups_within_the_limit_and_leave_nothing_out(
    sizes: np.ndarray[Any, np.dtype[np.int64]], n_rows: int, at_most: int
) -> None:
    found = list(portions(sizes, n_rows, at_most))
    assert [row for begin, end in found for row in range(begin, end)] == [*range(len(sizes))]
    for begin, end in found:
        assert begin % n_rows == 0
        assert sizes[begin:end].sum() <= at_most or end - begin <= n_rows
    for (begin, end), (_, further) in pairwise(found):  # none could be longer
        assert sizes[begin : min(end + n_rows, further)].sum() > at_most


# --- rows


def many(seed: int, n_files: int = 9) -> Iterator[list[Row]]:
    """Files of alerts in no order, some equal in object and time, some without either."""
    chance = random.Random(seed)
    number = 0
    for _ in range(n_files):
        rows = []
        for _ in range(chance.randint(1, 40)):
            number += 1
            row = alert(chance.randint(1, 5), chance.randint(0, 6), dia_source_id=number)
            for name in ("object_id", "t_mjd_tai", "light_curve"):
                if chance.random() < 0.05:
                    row[name] = None
            rows.append(row)
        yield rows


def fill_with(folder: Path, files: Iterable[list[Row]], rows_in_a_group: int) -> list[Row]:
    """Write files in small groups; return all their rows in the order of the table's files."""
    ensure_table(folder, SCHEMA)
    by_name = {}
    for batch_id, rows in enumerate(files):
        file = LightCurveFile(folder)
        for at in range(0, len(rows), rows_in_a_group):
            part = rows[at : at + rows_in_a_group]
            file.append(pa.Table.from_pylist(part, schema=SCHEMA))
        written = file.close()
        assert written is not None
        assert commit_files(folder, [written], "run", batch_id)
        by_name[written.name] = pq.read_table(folder / written.name).to_pylist()
    return [row for file in files_of(DeltaTable(str(folder))) for row in by_name[file.name]]


def only_file(folder: Path) -> list[Row]:
    (file,) = files_of(DeltaTable(str(folder)))
    rows: list[Row] = pq.read_table(folder / file.name).to_pylist()
    return rows


def in_textbook_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: [row[name] or 0 for name in BY_OBJECT])


@pytest.mark.parametrize("at_most", [1, 4_000, 1 << 30])
@pytest.mark.parametrize("rows_in_a_group", [1, 7, 100])
def test_a_joined_file_is_that_of_a_textbook_whatever_is_read_at_a_time(
    at_most: int,
    rows_in_a_group: int,
    tmp_path: Path,
    database: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance, "_AT_A_TIME", at_most)
    monkeypatch.setattr(maintenance, "ROWS_IN_A_GROUP", 8)
    rows = fill_with(tmp_path, many(seed=rows_in_a_group), rows_in_a_group)
    assert maintain(database, tmp_path, KEEP_ALL).files == (9, 1)
    assert only_file(tmp_path) == in_textbook_order(rows)
    (file,) = files_of(DeltaTable(str(tmp_path)))
    assert pq.read_metadata(tmp_path / file.name).num_row_groups == -(-len(rows) // 8)


def test_a_file_without_a_row_is_no_obstacle(tmp_path: Path, database: sa.Engine) -> None:
    ensure_table(tmp_path, SCHEMA)
    for batch_id in range(9):
        append(tmp_path, batch_id, [])
    assert maintain(database, tmp_path, KEEP_NOTHING).n_emptied == 0
    append(tmp_path, 9, [alert(1, day) for day in range(3)])
    assert maintain(database, tmp_path, KEEP_NOTHING).files == (10, 1)
    assert kept(tmp_path) == [1002]
    assert len(content(tmp_path)) == 3


def test_what_is_emptied_is_the_same_whatever_is_read_at_a_time(
    tmp_path: Path, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for at_most in (1, 3_000, 1 << 30):
        monkeypatch.setattr(maintenance, "_AT_A_TIME", at_most)
        monkeypatch.setattr(maintenance, "ROWS_IN_A_GROUP", 4)
        folder = tmp_path / str(at_most)
        fill(folder)
        assert maintain(database, folder, KEEP_NOTHING).n_emptied == 27
        assert kept(folder) == [1009, 2009, 3009]
        found.append(content(folder))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("in_order", [True, False])
def test_no_row_is_decoded_more_than_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_order: bool
) -> None:
    chance = np.random.default_rng(1)
    fill_with(tmp_path, [[alert(k, day) for day in range(12)] for k in (1, 2)], rows_in_a_group=3)
    table = DeltaTable(str(tmp_path))
    rows = OldRows(tmp_path, files_of(table), pa.schema(table.schema().to_arrow()))
    decoded, of_group = Counter[int](), OldRows._decoded

    def counting(self: OldRows, group: int) -> pa.Table:
        decoded[group] += 1
        return of_group(self, group)

    monkeypatch.setattr(OldRows, "_decoded", counting)
    order = np.arange(24) if in_order else chance.permutation(24)
    emptied = chance.random(24) < 0.5
    cuts = [(begin, begin + 4) for begin in range(0, 24, 4)]
    taken = list(rows.runs(order, cuts, emptied))
    assert set(decoded) == set(range(8))
    assert max(decoded.values()) <= 2
    whole = pa.concat_tables(rows._groups[k].to_table(schema=rows._schema) for k in range(8))
    expected = [
        {**row, "light_curve": None if gone else row["light_curve"]}
        for row, gone in zip(whole.to_pylist(), emptied, strict=True)
    ]
    assert pa.concat_tables(taken).to_pylist() == [expected[k] for k in order]
    assert [run.num_rows for run in taken] == [4] * 6
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".parquet"}


def filled_for_small_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[set[Path], list[Row]]:
    """A table whose joining takes several runs: its files and its rows."""
    monkeypatch.setattr(maintenance, "_AT_A_TIME", 1)
    monkeypatch.setattr(maintenance, "ROWS_IN_A_GROUP", 8)
    fill(folder)
    return set(folder.glob("*.parquet")), content(folder)


def test_an_old_file_that_cannot_be_read_leaves_no_new_one(
    tmp_path: Path, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rows = filled_for_small_runs(tmp_path, monkeypatch)
    take = OldRows._take
    calls = []

    def fail_later(self: OldRows, *given: Any) -> pa.Table:
        calls.append(len(set(tmp_path.glob("*.parquet"))))
        if len(calls) == 3:
            raise OSError("the disk is tired")
        return take(self, *given)

    monkeypatch.setattr(OldRows, "_take", fail_later)
    with pytest.raises(UnavailableError, match="tired"):
        maintain(database, tmp_path, KEEP_ALL)
    assert calls[2] == len(before) + 1  # it had begun to write
    assert set(tmp_path.glob("*.parquet")) == before
    assert content(tmp_path) == rows


def test_who_is_stopped_leaves_the_rest_to_the_next_round(
    tmp_path: Path, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rows = filled_for_small_runs(tmp_path, monkeypatch)
    stopped_at = []
    for patience in range(50):
        asked = iter(range(50))
        saved = maintain(database, tmp_path, KEEP_ALL, stopped=lambda: next(asked) >= patience)  # noqa: B023
        assert content(tmp_path) == rows
        if saved.files[1] == 1:
            break
        stopped_at.append(patience)
        assert set(tmp_path.glob("*.parquet")) == before
    assert len(stopped_at) > len(before)  # while it looked, and while it wrote
    assert next(asked) <= patience + 2  # nor did it go much further


# --- memory


PEAK = """
import json, sys
from pathlib import Path
import pyarrow as pa
from store import maintenance
from store.database import migrate, open_database
folder = Path(sys.argv[1])
maintenance._AT_A_TIME, maintenance.ROWS_IN_A_GROUP = 3 << 20, 64
engine = open_database(f"sqlite:///{folder.parent}/peak.sqlite")
migrate(engine)
saved = maintenance.maintain(engine, folder, maintenance.Retention(64, 36_500, 1))
print(json.dumps([saved.files[1], pa.default_memory_pool().max_memory()]))
"""


def long_curves(first_id: int, n: int) -> pa.Table:
    """Alerts of many objects with 400 points each."""
    row = pa.Table.from_pylist([alert(1, 399)], schema=SCHEMA)
    rows = row.take(pa.array(np.zeros(n, np.int64)))
    owners = np.random.default_rng(first_id).permutation(n)
    for name, values in (("dia_source_id", first_id + np.arange(n)), ("object_id", owners)):
        rows = rows.set_column(SCHEMA.get_field_index(name), name, pa.array(values))
    return rows


def peak_of(folder: Path, n_files: int) -> tuple[int, int]:
    """The most memory that Arrow takes in a round that joins `n_files` files, and what their rows take."""
    ensure_table(folder, SCHEMA)
    n_bytes = 0
    for k in range(n_files):
        file = LightCurveFile(folder)
        for part in range(4):
            rows = long_curves(1000 * k + 100 * part, 50)
            n_bytes += rows.nbytes
            file.append(rows)
        written = file.close()
        assert written is not None
        commit_files(folder, [written], "run", k)
    command = [sys.executable, "-c", PEAK, str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    n_left, peak = json.loads(said.stdout)
    assert n_left == 1
    return peak, n_bytes


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    few, _ = peak_of(tmp_path / "few", 8)
    more, n_bytes = peak_of(tmp_path / "more", 24)
    assert more < 1.2 * few
    assert more < n_bytes / 3


# --- what was scored again

AGAIN = pa.schema(
    [
        ("survey", pa.string()),
        ("dia_source_id", pa.int64()),
        ("object_id", pa.int64()),
        ("model_version", pa.string()),
        ("probabilities", pa.list_(pa.float64())),
    ]
)


def scored(ids: Iterable[int], version: str) -> pa.Table:
    rows = [
        {
            "survey": "lsst",
            "dia_source_id": k,
            "object_id": k % 7,
            "model_version": version,
            "probabilities": [0.5, k],
        }
        for k in ids
    ]
    return pa.Table.from_pylist(rows, schema=AGAIN)


def score_again(folder: Path, version: str, chunks: int = 10) -> RescoredTable:
    """Add chunks of ten alerts each, the latest first."""
    target = RescoredTable(folder, AGAIN, version)
    for k in reversed(range(chunks)):
        ids = np.arange(10 * k, 10 * k + 10)
        assert not target.present(ids).any()
        assert target.add(scored(ids.tolist(), version))
    return target


def rows_of(folder: Path) -> list[Row]:
    table = DeltaTable(str(folder)).to_pyarrow_dataset().to_table()
    rows: list[Row] = table.sort_by(
        [("model_version", "ascending"), ("dia_source_id", "ascending")]
    ).to_pylist()
    return rows


def test_what_was_scored_again_is_joined_and_is_still_there(tmp_path: Path) -> None:
    target = score_again(tmp_path, "a")
    score_again(tmp_path, "b")
    orphan = write(tmp_path, [alert(1, 1)])
    then = time.time() - OLD_S
    os.utime(tmp_path / orphan.name, (then, then))
    before = rows_of(tmp_path)
    steps: list[dict[str, object]] = []
    saved = maintain_rescored(tmp_path, KEEP_NOTHING, lambda _line, /, **more: steps.append(more))
    assert saved is not None
    assert saved.files == (20, 1)
    assert (saved.n_emptied, saved.n_vacuumed) == (0, 1)
    assert [step["step"] for step in steps] == ["join", "vacuum", "log"]
    assert rows_of(tmp_path) == before
    assert [row["dia_source_id"] for row in only_file(tmp_path)] == sorted([*range(100)] * 2)
    assert target.present(np.arange(95, 105)).tolist() == [True] * 5 + [False] * 5
    assert target.add(scored(range(100, 105), "a"))
    assert len(rows_of(tmp_path)) == 205
    assert maintain_rescored(tmp_path, KEEP_NOTHING) is not None  # one file more: nothing to do
    assert len(files_of(DeltaTable(str(tmp_path)))) == 2


def test_a_rescoring_that_is_at_work_meanwhile_loses_and_doubles_nothing(tmp_path: Path) -> None:
    target, other = score_again(tmp_path, "a"), RescoredTable(tmp_path, AGAIN, "a")
    asked = np.arange(100, 110)
    assert not target.present(asked).any()
    assert not other.present(asked).any()
    assert maintain_rescored(tmp_path, KEEP_NOTHING) is not None
    assert target.add(scored(asked.tolist(), "a"))
    assert not other.add(scored(asked.tolist(), "a"))  # another was there before it
    assert other.present(asked).all()
    assert [row["dia_source_id"] for row in rows_of(tmp_path)] == [*range(110)]


def test_where_nothing_was_scored_again_nothing_is_done(tmp_path: Path) -> None:
    assert maintain_rescored(tmp_path / "none", KEEP_NOTHING) is None
    assert not (tmp_path / "none").exists()


def test_the_batch_after_a_join_is_taken(tmp_path: Path, database: sa.Engine) -> None:
    fill(tmp_path)
    maintain(database, tmp_path, KEEP_NOTHING)
    assert append(tmp_path, 10, [alert(1, 10)])
    assert len(content(tmp_path)) == 31
