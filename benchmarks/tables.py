"""The SQL tables at N rows: write rate, point, cone and class queries.

``--rows N`` classifications, ten of an object, are generated visit by visit as a survey makes them and
loaded into SQLite, or with ``--postgres`` into a PostgreSQL of its own (Debian's package; it does not
wait for the disk), and analysed. The write rate is that of `stream.commit.commit_sql`, batches of
4,000; the queries are the portal's own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from active_learning.requests import RequestPolicy, wishes_of
from benchmarks.setting import finish, print_table
from models.record import SCORE_FIELDS, Kind
from store import accounting_queries, object_queries, tables
from store.database import migrate, open_database, reading
from store.labels import report_label
from store.maintenance import analyse
from store.request_queries import label_queue
from store.requests import PROGRAM, ask
from store.sky import healpix_of
from stream.commit import BatchId, commit_sql
from stream.outputs import outgoing
from stream.routes import KINDS, Outgoing
from stream.rows import MESSAGE, RANGE, padded
from tests.postgres import PostgresServer, find_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

Columns = dict[str, "NDArray[Any] | list[Any]"]

CLASS_IDS: Final = (111, 112, 113, 114, 115, 121, 122, 131, 132, 211, 212, 213)
RARE: Final = 121
PER_VISIT: Final = 500
VISITS_OF_A_FIELD: Final = 10
VISITS_A_NIGHT: Final = 800
BATCH: Final = 4_000
LOADED: Final = 80
"""Visits that are loaded together: whole batches."""
FIRST_MJD: Final = 61_000.0
SEED: Final = 20260310
RUN: Final = "0123456789abcdef0123456789abcdef"
VERSION: Final = "a" * 64
REPEATS: Final = 200
BUDGET_S: Final = 8.0
LABELS: Final = 20_000


@dataclass(frozen=True)
class Survey:
    """A made-up survey: fields of 500 objects, each visited ten times, 500 alerts a visit."""

    n_rows: int

    @property
    def n_fields(self) -> int:
        """How many fields there are."""
        return max(1, self.n_rows // (PER_VISIT * VISITS_OF_A_FIELD))

    def positions(self, field: NDArray[np.int64], k: NDArray[np.int64]) -> tuple[Any, Any]:
        """Return right ascension and declination of the k-th object of a field."""
        centre = np.random.default_rng(SEED).random((2, self.n_fields))
        shift = np.random.default_rng(SEED + 1).uniform(-1.75, 1.75, (2, PER_VISIT))
        ra = 360 * centre[0][field] + shift[0][k]
        dec = np.degrees(np.arcsin(1.2 * centre[1][field] - 0.95)) + shift[1][k]
        return np.mod(ra, 360.0), dec

    def visits(self, first: int, n: int) -> Columns:
        """Return `n` visits as columns of ``classifications``, without what a batch stamps."""
        rng = generator(first)
        visit = np.repeat(np.arange(first, first + n), PER_VISIT)
        k = np.tile(np.arange(PER_VISIT), n)
        # Each field once in every round, in an order of the round's own.
        turn = np.arange(first, first + n) // self.n_fields
        place = np.arange(first, first + n) % self.n_fields
        order = [
            generator(int(t)).permutation(self.n_fields)[p]
            for t, p in zip(turn, place, strict=True)
        ]
        field = np.repeat(np.array(order), PER_VISIT)
        ra, dec = self.positions(field, k)
        size = len(visit)
        best = rng.choice(len(CLASS_IDS), size, p=CLASS_SHARES)
        t = FIRST_MJD + visit // VISITS_A_NIGHT + (visit % VISITS_A_NIGHT) * 0.0004
        return {
            "dia_source_id": 10**17 + (visit << 16) + k,
            "object_id": 3 * 10**17 + (field << 20) + k + 1,
            "t_mjd_tai": t,
            "ra_deg": ra,
            "dec_deg": dec,
            "class_id": np.array(CLASS_IDS, np.int32)[best],
            "best": best,
            "flux_njy": rng.normal(1000, 300, size),
            "sigma_njy": rng.uniform(10, 100, size),
            **{name: rng.random(size) for name in SCORED if name not in {"class_id", "entropy"}},
            "entropy": rng.uniform(0, 2, size),
            "n_points": rng.integers(2, 500, size).astype(np.int32),
            "unscored": rng.random(size) < 0.1,
        }


_weights = np.array([0.0005 if c == RARE else 1.0 / (1 + i) for i, c in enumerate(CLASS_IDS)])
CLASS_SHARES: Final = _weights / _weights.sum()
_pool = np.random.default_rng(SEED).dirichlet(np.full(len(CLASS_IDS), 0.3), 2_000)
PROBABILITIES: Final = [
    json.dumps({str(c): p for c, p in zip(CLASS_IDS, row, strict=True)}) for row in _pool
]
SCORED: Final = tuple(f.name for f in SCORE_FIELDS if f.kind in {Kind.INT32, Kind.FLOAT64})
STAMPED: Final = {
    "ss_object_id": None, "survey": "lsst", "topic": "alerts", "kafka_partition": 0, "run_id": RUN,
    "band": "r", "model_version": VERSION, "feature_digest": VERSION,
}  # fmt: skip


def rows_of(survey: Survey, first: int, n: int) -> list[dict[str, Any]]:
    """Return rows of ``classifications`` as the database takes them, JSON as text."""
    made = survey.visits(first, n)
    unscored = np.asarray(made.pop("unscored"))
    best = np.asarray(made.pop("best"))
    healpix = healpix_of(np.asarray(made["ra_deg"]), np.asarray(made["dec_deg"]))
    columns = {name: np.asarray(values).tolist() for name, values in made.items()}
    for name in SCORED:
        columns[name] = [
            None if no else value for no, value in zip(unscored, columns[name], strict=True)
        ]
    offset = first * PER_VISIT
    names = list(columns)
    rows = []
    for k, values in enumerate(zip(*columns.values(), strict=True)):
        no = unscored[k]
        batch = (offset + k) // BATCH
        rows.append(
            {
                **STAMPED,
                **dict(zip(names, values, strict=True)),
                "kafka_offset": offset + k,
                "batch_id": batch,
                "arrival_ms": 1_700_000_000_000 + 1_000 * batch,
                "processed_ms": 1_700_000_001_000 + 1_000 * batch,
                "healpix": int(healpix[k]),
                "reason": "too_few_points" if no else None,
                "probabilities": None if no else PROBABILITIES[k % len(PROBABILITIES)],
                "prediction_set": None if no else f"[{CLASS_IDS[best[k]]}, 112]",
            }
        )
    return rows


def batch_of(survey: Survey, first: int, n: int) -> pa.Table:
    """Return the same alerts as a batch of :mod:`stream.rows`, as workers hand it to the driver."""
    made = survey.visits(first, n)
    scored = ~np.asarray(made.pop("unscored"))
    size, begin = len(scored), first * PER_VISIT
    columns = {name: pa.array(np.asarray(values), mask=~scored if name in SCORED else None)
               for name, values in made.items() if name != "best"}  # fmt: skip
    for name, value in (STAMPED | {"kind": MESSAGE}).items():
        columns[name] = pa.array([value] * size)
    columns["kafka_offset"] = pa.array(np.arange(begin, begin + size))
    for name in ("arrival_ms", "processed_ms"):
        columns[name] = pa.array(np.full(size, 1_800_000_000_000))
    columns["reason"] = pa.array([None if yes else "too_few_points" for yes in scored], pa.string())
    chances = [_pool[k % len(_pool)] if yes else None for k, yes in enumerate(scored)]
    columns["probabilities"] = pa.array(chances, pa.list_(pa.float64()))
    columns["prediction_set"] = pa.array(
        [[111, 112] if yes else None for yes in scored], pa.list_(pa.int32())
    )
    places = (np.asarray(made[name]) for name in ("ra_deg", "dec_deg"))
    columns["healpix"] = pa.array(healpix_of(*places))
    ranges = {
        "kind": [RANGE],
        "topic": ["alerts"],
        "kafka_partition": [0],
        "kafka_offset": [begin],
        "end_offset": [begin + size],
        "n_read": [size],
        "n_lost": [0],
        "started_ms": [1_800_000_000_000],
    }
    parts = [padded(columns, size), padded({k: pa.array(v) for k, v in ranges.items()}, 1)]
    return pa.Table.from_batches(parts)


def load(engine: sa.Engine, survey: Survey) -> float:
    """Fill classifications, objects and accounting with the whole survey; rows a second."""
    begin = time.perf_counter()
    n_visits = survey.n_fields * VISITS_OF_A_FIELD
    for first in range(0, n_visits, LOADED):
        rows = rows_of(survey, first, min(LOADED, n_visits - first))
        _insert(engine, tables.classifications, rows)
        _account(engine, rows)
        # The first round makes the objects: that their newest alert is a later one changes no timing.
        _insert(
            engine,
            tables.objects,
            [_object(r) for r in rows if r["kafka_offset"] < PER_VISIT * survey.n_fields],
        )
    loaded_s = time.perf_counter() - begin
    _label(engine, survey)
    return n_visits * PER_VISIT / loaded_s


def _label(engine: sa.Engine, survey: Survey) -> None:
    """Ask for some objects and label every other of them."""
    rng = np.random.default_rng(SEED)
    ids = (
        3 * 10**17
        + (rng.integers(survey.n_fields, size=LABELS) << 20)
        + rng.integers(PER_VISIT, size=LABELS)
        + 1
    )
    place = {"ra_deg": 1.0, "dec_deg": 1.0, "t_mjd_tai": FIRST_MJD, "run_id": RUN, "batch_id": 0}
    wanted = [{"survey": "lsst", "object_id": int(i), "program": PROGRAM, "dia_source_id": 1,
               "night": 61_000, "strategy": "entropy",
               "utility": 1.0, "why": "-", "requested_ms": 1, "model_version": VERSION, **place}
              for i in np.unique(ids)]  # fmt: skip
    with engine.begin() as connection:
        ask(connection, wanted)
        for i in np.unique(ids)[::2].tolist():
            report_label(
                connection, survey="lsst", object_id=i, class_id=111, reporter="me", now_ms=1
            )


def _object(row: Mapping[str, Any]) -> dict[str, Any]:
    same = ("object_id", "survey", "ra_deg", "dec_deg", "healpix", "class_id", "probability", "entropy",
            "novelty", "novelty_far", "model_version")  # fmt: skip
    t = row["t_mjd_tai"]
    return {**{name: row[name] for name in same}, "first_mjd_tai": t, "last_mjd_tai": t,
            "n_alerts": VISITS_OF_A_FIELD, "last_dia_source_id": row["dia_source_id"]}  # fmt: skip


def _account(engine: sa.Engine, rows: list[dict[str, Any]]) -> None:
    for at in range(0, len(rows), BATCH):
        part = rows[at : at + BATCH]
        scored = sum(row["reason"] is None for row in part)
        account = {
            "run_id": RUN, "batch_id": part[0]["batch_id"], "topic": "alerts", "kafka_partition": 0,
            "start_offset": part[0]["kafka_offset"], "end_offset": part[-1]["kafka_offset"] + 1,
            "n_read": len(part), "n_classified": scored, "n_not_evaluated": len(part) - scored,
            "n_duplicate": 0, "n_rejected": 0, "model_version": VERSION, "feature_digest": VERSION,
            "settings_digest": VERSION, "started_ms": 1, "committed_ms": part[0]["processed_ms"],
        }  # fmt: skip
        with engine.begin() as connection:
            connection.execute(sa.insert(tables.accounting), [account])


def _insert(engine: sa.Engine, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert by the driver's quickest way; JSON is text already."""
    if not rows:
        return
    names = [column.name for column in table.c]
    values = [tuple(row[name] for name in names) for row in rows]
    raw = engine.raw_connection()
    cursor = raw.cursor()
    if engine.dialect.name == "postgresql":
        with cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
            for value in values:
                copy.write_row(value)
    else:
        cursor.execute("BEGIN IMMEDIATE")
        marks = ", ".join("?" * len(names))
        cursor.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", values)  # noqa: S608 # fmt: skip
    raw.commit()
    raw.close()


def commits_per_s(engine: sa.Engine, survey: Survey, first: int, n: int = 10) -> float:
    """Commit `n` batches from visit `first` on by the stream's own function; the median rows a second."""
    policy, classes = RequestPolicy(program="benchmark"), {VERSION: CLASS_IDS}
    times = []
    per_batch = BATCH // PER_VISIT
    for k in range(n):
        batch = batch_of(survey, first + k * per_batch, per_batch)
        begin = time.perf_counter()
        wishes = wishes_of(batch, policy)
        commit_sql(engine, batch, BatchId("bench", first + k, "d"), wishes, classes, 1)
        times.append(time.perf_counter() - begin)
    return BATCH / float(np.median(times))


def questions(survey: Survey) -> dict[str, Callable[[sa.Connection, np.random.Generator], Any]]:
    """Return the queries, by name; each picks its own parameters."""
    n_visits = survey.n_fields * VISITS_OF_A_FIELD

    def source(rng: np.random.Generator) -> int:
        return int(10**17 + (rng.integers(n_visits) << 16) + rng.integers(PER_VISIT))

    def thing(rng: np.random.Generator) -> int:
        return int(3 * 10**17 + (rng.integers(survey.n_fields) << 20) + rng.integers(PER_VISIT) + 1)

    def cone(radius_arcsec: float, c: sa.Connection, rng: np.random.Generator) -> Any:
        ra, dec = survey.positions(
            rng.integers(survey.n_fields, size=1), rng.integers(PER_VISIT, size=1)
        )
        return object_queries.cone_search(c, float(ra[0]), float(dec[0]), radius_arcsec, 100)

    def a_class(rng: np.random.Generator) -> int:
        return int(rng.choice(CLASS_IDS))

    def batch(c: sa.Connection, rng: np.random.Generator) -> int:
        names = Outgoing(
            {f"{name}_topic": name for name, _ in KINDS} | {"novel_far": 0.01}
        ).routes()
        return sum(1 for _ in outgoing(c, RUN, int(rng.integers(survey.n_rows // BATCH)), names))

    ranked, newest = object_queries.ranked_objects, object_queries.newest_objects
    return {
        "alert by diaSourceId": lambda c, r: object_queries.with_newest_alert(
            c, [{"survey": "lsst", "last_dia_source_id": source(r)}]
        ),
        "object by objectId": lambda c, r: object_queries.object_row(c, "lsst", thing(r)),
        "its alerts": lambda c, r: object_queries.object_history(c, "lsst", thing(r)),
        "cone, 5 arcsec": partial(cone, 5.0),
        "cone, 1 degree": partial(cone, 3600.0),
        "newest objects": lambda c, _: newest(c, 50),
        "newest of a class": lambda c, r: newest(c, 50, class_id=a_class(r)),
        "newest of a rare class": lambda c, _: newest(c, 50, class_id=RARE),
        "strangest objects": lambda c, _: ranked(c, "novelty", 50),
        "strangest of a class": lambda c, r: ranked(c, "novelty", 50, class_id=a_class(r)),
        "most uncertain objects": lambda c, _: ranked(c, "entropy", 50),
        "most uncertain of a class": lambda c, r: ranked(c, "entropy", 50, class_id=a_class(r)),
        "status: what is held": lambda c, _: accounting_queries.counts(c),
        "status: totals": lambda c, _: accounting_queries.books(c),
        "latency of the last batch": lambda c, _: accounting_queries.batch_latency_s(c),
        "a batch, to send": batch,
        "label queue": lambda c, _: label_queue(c, limit=50),
    }  # fmt: skip


def latencies_ms(engine: sa.Engine, survey: Survey) -> dict[str, tuple[float, float]]:
    """Return median and 99th percentile of each question, in ms."""
    took_s = {}
    for name, question in questions(survey).items():
        rng = np.random.default_rng(SEED)
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < 3 or (len(times) < REPEATS and time.perf_counter() - begun < BUDGET_S):
            with reading(engine) as connection:
                begin = time.perf_counter()
                question(connection, rng)
                times.append(1e3 * (time.perf_counter() - begin))
        took_s[name] = (float(np.median(times)), float(np.quantile(times, 0.99)))
    return took_s


def sizes_mb(engine: sa.Engine) -> dict[str, float]:
    """Return the size of each table and index of some size, in MB."""
    if engine.dialect.name == "postgresql":
        query = "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind IN ('r', 'i')"
    else:
        query = "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name"
    try:
        with reading(engine) as connection:
            sizes = connection.execute(sa.text(query)).all()
    except sa.exc.OperationalError:  # this SQLite was built without dbstat
        return {}
    return {name: size / 1e6 for name, size in sorted(sizes, key=lambda f: -f[1]) if size > 1e6}


def show(title: str, sizes: Mapping[str, float]) -> None:
    """Print sizes."""
    listed = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
    print(f"{title}: {sum(sizes.values()):.0f} MB: {listed}\n")


def measure(engine: sa.Engine, n_rows: int) -> Iterator[tuple[str, Any]]:
    """Yield results by name as they come."""
    survey = Survey(n_rows)
    migrate(engine)
    future = survey.n_fields * VISITS_OF_A_FIELD
    yield "commit_per_s_empty", commits_per_s(engine, survey, future)
    with engine.begin() as connection:
        for table in (tables.classifications, tables.objects, tables.accounting):
            connection.execute(sa.delete(table))
    yield "load_per_s", load(engine, survey)
    begin = time.perf_counter()
    analyse(engine)
    engine.dispose()  # the portal's connections are not the one that analysed
    yield "analyse_s", time.perf_counter() - begin
    yield "sizes", sizes_mb(engine)
    yield "queries", latencies_ms(engine, survey)
    yield "commit_per_s_full", commits_per_s(engine, survey, future + 100)


def generator(number: int) -> np.random.Generator:
    """Return random numbers of their own for each number."""
    return np.random.default_rng(np.random.SeedSequence([SEED, number]))


def report(results: Mapping[str, Any]) -> None:
    """Print rates and a table."""
    print(
        f"commit_sql, rows a second: empty {results['commit_per_s_empty']:,.0f}, "
        f"full {results['commit_per_s_full']:,.0f}; analysis {results['analyse_s']:.1f} s\n"
    )
    rows = [(name, f"{p50:.2f}", f"{p99:.2f}") for name, (p50, p99) in results["queries"].items()]
    print_table(("ms", "p50", "p99"), rows)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL instead of SQLite.")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="noctule-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        url = f"sqlite:///{folder}/noctule.sqlite"
        if args.postgres:
            programs = find_postgres()
            if programs is None:
                parser.error("PostgreSQL's server is not installed: apt-get install postgresql")
            url = stack.enter_context(PostgresServer(programs)).new_database()
        engine = open_database(url)
        stack.callback(engine.dispose)
        results: dict[str, Any] = {}
        for name, value in measure(engine, args.rows):
            results[name] = value
            if name.startswith("sizes"):
                show(name.replace("_", " "), value)
            elif not isinstance(value, dict):
                print(f"{name} {value:,.1f}", flush=True)
        report(results)
        finish({"database": engine.dialect.name, "rows": args.rows, **results})


if __name__ == "__main__":
    main()
