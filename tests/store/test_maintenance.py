"""Maintenance loses no row and doubles none, whatever runs beside it and whenever it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from deltalake import DeltaTable, Schema
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcurves.arrays import LIGHT_CURVE_TYPE, POINT_TYPE
from lightcurves.errors import UnavailableError
from store import maintenance
from store.database import migrate, open_database
from store.delta import (
    LightCurveFile,
    Written,
    commit_files,
    ensure_table,
    files_of,
    on_disk,
    read_alerts_of,
    read_light_curve,
    replace_files,
)
from store.keys import Key
from store.labels import report_label
from store.maintenance import (
    Retention,
    Seen,
    analyse,
    choose_groups,
    maintain,
    shorten_log,
    vacuum,
)
from store.thinning import Glance, glance, number_of, superseded
from tests.store.conftest import Add

REPOSITORY = Path(__file__).parents[2]
KEEP_NOTHING = Retention(file_mb=1, light_curve_days=0, orphan_hours=1)
KEEP_ALL = Retention(file_mb=1, light_curve_days=36_500, orphan_hours=1)
OLD_S = 40 * 86_400
NOBODY: frozenset[Key] = frozenset()
SCHEMA = pa.schema(
    [
        ("survey", pa.string()),
        *((name, pa.int64()) for name in ("object_id", "dia_source_id", "processed_ms")),
        *((name, pa.float64()) for name in ("t_mjd_tai", "ra_deg", "dec_deg")),
        ("days_since_first_detection", pa.float64()),
        ("light_curve", LIGHT_CURVE_TYPE),
        ("features", pa.struct([("a", pa.float64())])),
    ]
)


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> sa.Engine:
    """A database of the kind that does not matter."""
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('database')}/noctule.sqlite")
    migrate(engine)
    return engine


def alert(object_id: int, day: int, **overrides: Any) -> dict[str, Any]:
    """An object's alert of a day, with a point for each day until then."""
    points = [
        {"t_mjd_tai": 61_000.0 + d, "band": "r", "flux_njy": d, "sigma_njy": 1.0, "kind": "source"}
        for d in range(day + 1)
    ]
    return {
        "survey": "lsst",
        "object_id": object_id,
        "dia_source_id": 1000 * object_id + day,
        "processed_ms": 0,
        "t_mjd_tai": 61_000.0 + day,
        "ra_deg": 1.0,
        "dec_deg": 2.0,
        "days_since_first_detection": float(day),
        "light_curve": points,
        "features": {"a": float(day)},
        **overrides,
    }


def write(folder: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Written:
    file = LightCurveFile(folder)
    file.append(pa.Table.from_pylist(list(rows), schema=schema))
    written = file.close()
    assert written is not None
    return written


def append(folder: Path, batch_id: int, rows: Iterable[dict[str, Any]]) -> bool:
    return commit_files(folder, [write(folder, rows)], "run", batch_id)


def fill(folder: Path, n_objects: int = 3, n_days: int = 10) -> None:
    """One batch a day, in which each object has an alert."""
    ensure_table(folder, SCHEMA)
    for day in range(n_days):
        assert append(folder, day, [alert(o + 1, day) for o in range(n_objects)])


def content(folder: Path) -> list[dict[str, Any]]:
    rows = DeltaTable(str(folder)).to_pyarrow_dataset().to_table().sort_by("dia_source_id")
    listed: list[dict[str, Any]] = rows.to_pylist()
    return listed


def ids(folder: Path) -> list[int]:
    return [row["dia_source_id"] for row in content(folder)]


def kept(folder: Path) -> list[int]:
    return [row["dia_source_id"] for row in content(folder) if row["light_curve"] is not None]


def age(paths: Iterable[Path]) -> None:
    then = time.time() - OLD_S
    for path in paths:
        os.utime(path, (then, then))


# --- the rule

Span = tuple[int, int, int]
"""Object, first day, day of the alert."""

SPANS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 30), st.integers(0, 12)).map(
        lambda span: (span[0], span[1], span[1] + span[2])
    ),
    max_size=40,
)


def glances(spans: list[Span]) -> Glance:
    owner, start, t = np.array(spans, np.int64).reshape(-1, 3).T
    zeros, ones = np.zeros(len(spans), np.int64), np.ones(len(spans), np.int64)
    surveys = zeros + number_of("lsst")
    return Glance(surveys, owner, t.astype(float), start.astype(float), zeros, ones)


def left_of(spans: list[Span]) -> list[Span]:
    gone = superseded(glances(spans), NOBODY, 1)
    return [span for span, out in zip(spans, gone, strict=True) if not out]


def days_of(spans: Iterable[Span], object_id: int) -> set[int]:
    return {d for o, start, t in spans if o == object_id for d in range(start, t + 1)}


@settings(deadline=None)  # numba compiles
@given(SPANS)
def test_what_is_kept_holds_every_day_that_any_alert_held(spans: list[Span]) -> None:
    left = left_of(spans)
    for object_id in {span[0] for span in spans}:
        assert days_of(left, object_id) == days_of(spans, object_id)
        newest = max(t for o, _, t in spans if o == object_id)
        assert newest in {t for o, _, t in left if o == object_id}


@settings(deadline=None)  # numba compiles
@given(SPANS)
def test_what_is_kept_is_kept_the_next_time(spans: list[Span]) -> None:
    left = left_of(spans)
    assert left_of(left) == left


@settings(deadline=None)  # numba compiles
@given(SPANS, st.randoms(use_true_random=False))
def test_what_is_kept_does_not_depend_on_the_order(
    spans: list[Span], chance: random.Random
) -> None:
    assert sorted(left_of(spans)) == sorted(left_of(chance.sample(spans, len(spans))))


def test_of_a_growing_history_the_newest_is_kept() -> None:
    assert left_of([(1, 0, t) for t in range(100)]) == [(1, 0, 99)]


def test_of_packets_that_hold_a_year_one_a_year_is_kept() -> None:
    assert len(left_of([(1, max(0, t - 365), t) for t in range(5 * 365)])) == 5


@settings(deadline=None)  # numba compiles
@given(SPANS, SPANS)
def test_surveys_do_not_cover_each_other(ours: list[Span], theirs: list[Span]) -> None:
    """The same objects' numbers in two surveys: each is thinned as if it were alone."""
    both = glances(ours + theirs)
    of_ztf = np.arange(len(both.t)) >= len(ours)
    both = both._replace(survey=np.where(of_ztf, number_of("ztf"), number_of("lsst")))
    gone = superseded(both, NOBODY, 1)
    alone = [superseded(glances(spans), NOBODY, 1) for spans in (ours, theirs)]
    assert gone.tolist() == np.concatenate(alone).tolist()
    protected = frozenset((("ztf", 1), ("ztf", 2), ("ztf", 3)))
    gone = superseded(both, protected, 1)
    assert gone.tolist() == [*alone[0].tolist(), *(False for _ in theirs)]


def test_objects_of_two_surveys_lie_apart_in_a_rewritten_file(
    tmp_path: Path, database: sa.Engine
) -> None:
    ensure_table(tmp_path, SCHEMA)
    for day in range(10):
        rows = [alert(1, day, survey=survey) for survey in ("ztf", "lsst")]
        rows[0]["dia_source_id"] += 500  # as Delta's other readers, `content` among them, want it
        append(tmp_path, day, rows)
    maintain(database, tmp_path, KEEP_NOTHING)
    (file,) = files_of(DeltaTable(str(tmp_path)))
    surveys = pq.read_table(tmp_path / file.name, columns=["survey"])["survey"].to_pylist()
    assert surveys in (["lsst"] * 10 + ["ztf"] * 10, ["ztf"] * 10 + ["lsst"] * 10)
    assert kept(tmp_path) == [1009, 1509]
    for survey, newest in (("lsst", 1009), ("ztf", 1509)):
        assert read_alerts_of(tmp_path, [(survey, 1)])["dia_source_id"].to_pylist() == [newest]


def test_what_is_labelled_young_or_homeless_stays_as_it_is() -> None:
    alerts = glances([(o, 0, t) for o in (0, 1, 2, 3) for t in range(4)])
    young = alerts._replace(processed_ms=np.where(alerts.object_id == 2, 7, 0))
    gone = superseded(young, frozenset({("lsst", 1)}), 7)
    assert set(alerts.object_id[gone]) == {3}
    assert alerts.t[gone].tolist() == [0, 1, 2]


def test_what_is_emptied_already_covers_nothing(tmp_path: Path) -> None:
    given = [*({} for _ in range(3)), {"light_curve": None}]
    file = write(tmp_path, [alert(1, day, **what) for day, what in enumerate(given)])
    glanced = glance(tmp_path / file.name)
    assert superseded(glanced.alerts, NOBODY, 1).tolist() == [True, True, False]
    assert glanced.rows.tolist() == [0, 1, 2]


# --- rewriting


def test_files_are_joined_and_superseded_light_curves_emptied(
    tmp_path: Path, database: sa.Engine
) -> None:
    fill(tmp_path)
    before, curves = content(tmp_path), [read_light_curve(tmp_path, "lsst", o) for o in (1, 2, 3)]
    saved = maintain(database, tmp_path, KEEP_NOTHING)
    assert (saved.files, saved.n_emptied) == ((10, 1), 27)
    assert saved.n_bytes[1] < saved.n_bytes[0]
    assert kept(tmp_path) == [1009, 2009, 3009]
    without = [{**row, "light_curve": None} for row in before]
    assert [{**row, "light_curve": None} for row in content(tmp_path)] == without
    assert [read_light_curve(tmp_path, "lsst", o) for o in (1, 2, 3)] == curves


def test_a_second_round_finds_nothing(tmp_path: Path, database: sa.Engine) -> None:
    fill(tmp_path)
    maintain(database, tmp_path, KEEP_NOTHING)
    before = files_of(DeltaTable(str(tmp_path)))
    saved = maintain(database, tmp_path, KEEP_NOTHING)
    assert files_of(DeltaTable(str(tmp_path))) == before
    assert (saved.n_emptied, saved.n_vacuumed) == (0, 0)


def test_a_young_light_curve_stays(tmp_path: Path, database: sa.Engine) -> None:
    ensure_table(tmp_path, SCHEMA)
    now = time.time_ns() // 1_000_000
    for day in range(10):
        append(tmp_path, day, [alert(1, day, processed_ms=now - (9 - day) * 86_400_000)])
    saved = maintain(database, tmp_path, Retention(1, 4.5, 1))
    assert saved.n_emptied == 5
    assert kept(tmp_path) == [1005, 1006, 1007, 1008, 1009]


def test_the_alerts_of_labelled_and_requested_objects_stay_as_they_were(
    tmp_path: Path, engine: sa.Engine, connection: sa.Connection, add_request: Add
) -> None:
    fill(tmp_path)
    before = read_alerts_of(tmp_path, [("lsst", 1), ("lsst", 2)])
    report_label(connection, survey="lsst", object_id=1, class_id=111, reporter="me", now_ms=1)
    add_request(2)
    connection.commit()
    maintain(engine, tmp_path, KEEP_NOTHING)
    assert read_alerts_of(tmp_path, [("lsst", 1), ("lsst", 2)]).equals(before)
    assert read_alerts_of(tmp_path, [("lsst", 3)])["dia_source_id"].to_pylist() == [3009]


def test_files_of_an_older_noctule_are_joined_with_new_ones(
    tmp_path: Path, database: sa.Engine
) -> None:
    at = SCHEMA.get_field_index("light_curve")
    points = pa.list_(pa.struct(list(POINT_TYPE)[:-1]))
    old = SCHEMA.set(at, pa.field("light_curve", points))
    ensure_table(tmp_path, old)
    for day in range(5):
        commit_files(tmp_path, [write(tmp_path, [alert(1, day)], old)], "old", day)
    ensure_table(tmp_path, SCHEMA)
    for day in range(5, 10):
        append(tmp_path, day, [alert(2, day)])
    before = content(tmp_path)
    saved = maintain(database, tmp_path, KEEP_ALL)
    assert (saved.files, saved.n_emptied) == ((10, 1), 0)
    assert content(tmp_path) == before


def test_a_rewritten_file_is_sorted_by_object_in_small_groups(
    tmp_path: Path, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "ROWS_IN_A_GROUP", 10)
    fill(tmp_path)
    maintain(database, tmp_path, KEEP_ALL)
    (file,) = files_of(DeltaTable(str(tmp_path)))
    rows = pq.read_table(tmp_path / file.name, columns=["object_id", "t_mjd_tai"])
    pairs = list(zip(*rows.to_pydict().values(), strict=True))
    assert pairs == sorted(pairs)
    assert pq.read_metadata(tmp_path / file.name).num_row_groups == 3


def groups_of(files: Iterable[tuple[float, float]], target: int = 1000) -> list[list[str]]:
    """Which of the files, given by bytes and superseded bytes, become one."""
    seen = [
        Seen(Written(str(k), round(n), 1), np.zeros(1, bool), wasted)
        for k, (n, wasted) in enumerate(files)
    ]
    return [[one.file.name for one in group] for group in choose_groups(seen, target)]


def test_which_files_are_worth_their_rewriting() -> None:
    def sizes(*files: tuple[float, float]) -> list[int]:
        """Files of each group."""
        return [len(group) for group in groups_of(files)]

    assert sizes(*[(1, 0)] * 7) == []  # few and small: wait for more
    assert sizes(*[(1, 0)] * 8) == [8]
    assert sizes(*[(900, 0)] * 8) == []  # large
    assert sizes(*[(200, 0)] * 20) == [5, 5, 5, 5]
    assert sizes((900, 450), (900, 100)) == [1]  # half of it goes
    assert sizes((900, 450), (50, 0), (60, 0)) == [3]  # what is left of them fits into one
    assert sizes((900, 300), (200, 0), (220, 0)) == [2]  # a group has an end; a single file waits
    assert groups_of([(100, 0), *[(1, 0)] * 9]) == [
        [str(k) for k in range(1, 10)]
    ]  # like with like


SIZED = st.tuples(st.floats(1, 900), st.sampled_from([0.0, 0.0, 0.1, 0.4, 0.9]))
"""Bytes of a file, and the part of them that is superseded."""


@given(st.lists(SIZED, max_size=60))
def test_a_file_is_joined_into_one_at_least_twice_its_size(
    given: list[tuple[float, float]],
) -> None:
    sizes = [(round(n), wasted * round(n)) for n, wasted in given]
    left = {str(k): n - wasted for k, (n, wasted) in enumerate(sizes)}
    wasteful = {str(k) for k, (n, wasted) in enumerate(sizes) if wasted >= 0.25 * n}
    groups = groups_of(sizes)
    chosen = [name for group in groups for name in group]
    assert len(chosen) == len(set(chosen))
    assert wasteful <= set(chosen)
    for group in groups:
        whole = sum(left[name] for name in group)
        assert whole <= 1000 or len(group) == 1
        for name in group:
            assert name in wasteful or 2 * left[name] <= whole + 1e-6


@given(st.lists(st.floats(1, 20), min_size=50, max_size=400))
def test_files_stay_few(arriving: list[float]) -> None:
    standing: list[float] = []
    for n, size in enumerate(arriving, 1):
        standing.append(size)
        if n % 10:
            continue
        groups = groups_of((each, 0.0) for each in standing)
        joined = {int(name) for group in groups for name in group}
        made = [sum(standing[int(name)] for name in group) for group in groups]
        standing = [each for k, each in enumerate(standing) if k not in joined] + made
        assert sum(each < 250 for each in standing) < 30


def test_of_a_large_file_whose_light_curves_are_nearly_all_gone_the_rest_may_go_later(
    tmp_path: Path, database: sa.Engine
) -> None:
    ensure_table(tmp_path, SCHEMA)
    newest, chance = alert(1, 8_000), random.Random(1)
    few = newest["light_curve"][:1]
    rows = [
        {**newest, "dia_source_id": k, "features": {"a": chance.random()}, "light_curve": None}
        for k in range(8_000)
    ]
    append(tmp_path, 0, [*rows, alert(1, 0, light_curve=few)])
    before = set(files_of(DeltaTable(str(tmp_path))))
    append(tmp_path, 1, [newest])
    assert maintain(database, tmp_path, KEEP_NOTHING).n_emptied == 0
    assert before <= set(files_of(DeltaTable(str(tmp_path))))


# --- beside the stream


def test_an_append_during_a_rewrite_stays(tmp_path: Path) -> None:
    fill(tmp_path, n_days=8)
    table = DeltaTable(str(tmp_path))
    old, rows = files_of(table), content(tmp_path)
    assert append(tmp_path, 8, [alert(1, 8)])
    assert replace_files(table, old, write(tmp_path, rows))
    assert len(content(tmp_path)) == 25
    assert append(tmp_path, 9, [alert(1, 9)])
    assert not append(tmp_path, 8, [alert(1, 8)])
    assert len(content(tmp_path)) == 26


def test_of_two_rewrites_of_the_same_files_one_counts(tmp_path: Path) -> None:
    fill(tmp_path, n_days=8)
    first, second = (DeltaTable(str(tmp_path)) for _ in range(2))
    rows = content(tmp_path)
    assert replace_files(first, files_of(first), write(tmp_path, rows))
    assert not replace_files(second, files_of(second), write(tmp_path, rows))
    assert content(tmp_path) == rows


def test_who_is_overtaken_says_so_and_leaves_nothing(
    tmp_path: Path, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    before = set(tmp_path.glob("*.parquet"))
    monkeypatch.setattr(maintenance, "replace_files", lambda *_: False)
    saved = maintain(database, tmp_path, KEEP_NOTHING)
    assert (saved.overtaken, saved.n_emptied) == (True, 0)
    assert set(tmp_path.glob("*.parquet")) == before


LOOP = """
import sys
from pathlib import Path
from store.database import migrate, open_database
from store.maintenance import Retention, maintain
engine = open_database(sys.argv[2])
migrate(engine)
print("ready", flush=True)
while True:
    saved = maintain(engine, Path(sys.argv[1]), Retention(1, 0, 1))
    print(saved.n_emptied, saved.overtaken, flush=True)
"""


def in_a_loop(folder: Path, database: Path) -> subprocess.Popen[str]:
    """Maintenance in another process, round after round."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(folder), f"sqlite:///{database}"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_appends_beside_two_maintenances_lose_and_double_nothing(tmp_path: Path) -> None:
    folder, n_days = tmp_path / "alerts", 150
    fill(folder, n_days=8)
    loops = [in_a_loop(folder, tmp_path / f"{k}.sqlite") for k in range(2)]
    try:
        for day in range(8, n_days):
            assert append(folder, day, [alert(o, day) for o in (1, 2, 3)])
            assert not append(folder, day, [alert(o, day) for o in (1, 2, 3)])  # a replay
    finally:
        for loop in loops:
            loop.terminate()
        said = [loop.communicate()[0].split() for loop in loops]
    assert sum(int(word) for words in said for word in words[::2]) > 100  # it was at work meanwhile
    assert ids(folder) == [1000 * o + day for o in (1, 2, 3) for day in range(n_days)]
    assert {1000 * o + n_days - 1 for o in (1, 2, 3)} <= set(kept(folder))
    assert len(files_of(DeltaTable(str(folder)))) < n_days
    assert DeltaTable(str(folder)).transaction_version("run") == n_days - 1


def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    folder, chance = tmp_path / "alerts", random.Random(1)
    fill(folder, n_days=8)
    expected = ids(folder)
    for night in range(1, 7):
        loop = in_a_loop(folder, tmp_path / "loop.sqlite")
        for part in range(9):
            rows = [alert(1000 * night + part, 5), alert(1, 7 + 9 * night + part)]
            append(folder, 1000 * night + part, rows)
            expected += [row["dia_source_id"] for row in rows]
        time.sleep(chance.uniform(0, 0.3))
        loop.send_signal(signal.SIGKILL)
        loop.communicate()
        assert ids(folder) == sorted(expected)
    standing = {file.name for file in files_of(DeltaTable(str(folder)))}
    age(path for path in folder.glob("*.parquet") if path.name not in standing)
    before = content(folder)
    vacuum(folder, 1)
    assert content(folder) == before


# --- orphans


def test_a_file_of_a_running_task_is_never_deleted(tmp_path: Path, database: sa.Engine) -> None:
    fill(tmp_path)
    orphan, waiting = write(tmp_path, [alert(8, 1)]), write(tmp_path, [alert(9, 1)])
    age([tmp_path / orphan.name])
    writing = LightCurveFile(tmp_path)
    writing.append(pa.Table.from_pylist([alert(10, 1)], schema=SCHEMA))
    saved = maintain(database, tmp_path, KEEP_NOTHING)
    assert (saved.n_vacuumed, saved.vacuumed_bytes) == (1, orphan.n_bytes)
    assert not (tmp_path / orphan.name).exists()
    done = writing.close()
    assert done is not None
    assert commit_files(tmp_path, [waiting, done], "run", 99)
    assert {9001, 10_001} <= set(ids(tmp_path))


def test_a_replaced_file_goes_at_its_age(tmp_path: Path, database: sa.Engine) -> None:
    fill(tmp_path)
    before = {file.name for file in files_of(DeltaTable(str(tmp_path)))}
    assert maintain(database, tmp_path, KEEP_NOTHING).n_vacuumed == 0
    assert before <= {path.name for path in tmp_path.glob("*.parquet")}  # who reads them goes on
    assert set(vacuum(tmp_path, 0)) == before
    assert len(content(tmp_path)) == 30


def test_a_file_that_is_gone_is_not_committed(tmp_path: Path) -> None:
    fill(tmp_path, n_days=1)
    written = write(tmp_path, [alert(1, 1)])
    (tmp_path / written.name).unlink()
    with pytest.raises(UnavailableError, match=written.name):
        commit_files(tmp_path, [written], "run", 1)
    assert append(tmp_path, 1, [alert(1, 1)])
    assert len(content(tmp_path)) == 4


# --- the log


def test_batch_numbers_outlive_the_log(tmp_path: Path, database: sa.Engine) -> None:
    fill(tmp_path)
    for k in range(3):
        commit_files(tmp_path, [write(tmp_path, [alert(5, k)])], f"other-{k}", 7)
    log = tmp_path / "_delta_log"
    age(log.iterdir())
    before = content(tmp_path)
    saved = maintain(database, tmp_path, KEEP_ALL)
    assert saved.n_log_files >= 12
    assert not (log / f"{0:020}.json").exists()
    assert content(tmp_path) == before
    for day in (3, 9):
        assert not append(tmp_path, day, [alert(1, day)])
    for k in range(3):
        assert not commit_files(tmp_path, [write(tmp_path, [alert(5, k)])], f"other-{k}", 7)
    assert append(tmp_path, 10, [alert(1, 10)])
    age(log.iterdir())
    shorten_log(tmp_path)  # from one checkpoint to the next
    assert not append(tmp_path, 10, [alert(1, 10)])
    assert len(content(tmp_path)) == len(before) + 1


@pytest.mark.parametrize("made_by", ["an older noctule", "this one"])
def test_a_table_keeps_its_log_for_a_day(tmp_path: Path, made_by: str) -> None:
    if made_by == "an older noctule":
        plain = Schema.from_arrow(on_disk(SCHEMA.empty_table()).schema)
        DeltaTable.create(str(tmp_path), plain)
    ensure_table(tmp_path, SCHEMA)
    table = DeltaTable(str(tmp_path))
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 1 days"
    ensure_table(tmp_path, SCHEMA)
    assert DeltaTable(str(tmp_path)).version() == table.version()


# --- the database


def test_no_table_yet(tmp_path: Path, engine: sa.Engine) -> None:
    assert maintain(engine, tmp_path / "none", KEEP_NOTHING).files == (0, 0)


def test_the_database_counts_what_it_plans_by(
    engine: sa.Engine,
    connection: sa.Connection,
    add_object: Add,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance, "_LARGE", 50)
    for object_id in range(50):
        add_object(object_id, class_id=111)
    connection.commit()
    analyse(engine)
    known = "SELECT reltuples FROM pg_class WHERE relname = 'objects'"
    if engine.dialect.name == "sqlite":
        known = "SELECT MAX(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = 'objects'"
    with engine.begin() as reader:
        assert reader.execute(sa.text(known)).scalar_one() == 50


# --- reading


READ_AND_END = """
import sys
from pathlib import Path
from deltalake import DeltaTable
from store.delta import dataset_of
folder = Path(sys.argv[1])
next(iter(dataset_of(DeltaTable(str(folder)), folder).to_batches()))
"""


def test_who_ends_in_the_middle_of_reading_ends_well(tmp_path: Path) -> None:
    fill(tmp_path, n_days=100)
    for _ in range(3):
        command = [sys.executable, "-c", READ_AND_END, str(tmp_path)]
        assert subprocess.run(command, cwd=REPOSITORY, check=False, timeout=60).returncode == 0
