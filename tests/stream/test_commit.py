"""One batch into SQL, on both databases and without Kafka: exactly once, whatever the order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from active_learning.requests import RequestPolicy, wishes_of
from active_learning.strategies.base import Worth
from active_learning.strategies.entropy import EntropyStrategy
from store.database import migrate, open_database
from store.maintenance import analyse
from store.sky import NOWHERE, cells_of
from store.tables import (
    accounting,
    classifications,
    duplicates,
    label_requests,
    objects,
    rejected,
    request_events,
)
from stream.audit import audit
from stream.backfill import accounted, unread
from stream.commit import BatchCounts, BatchId, commit_sql
from stream.outputs import outgoing
from stream.rows import EARLY, MESSAGE, RANGE, ROWS_SCHEMA
from tests.store.test_plans import whole_reads
from tests.stream.sent_to import sent_to

POLICY = RequestPolicy(EntropyStrategy(0.5), nightly_budget=3, min_points=2)
CLASSES = {"m1": (111, 221), "m2": (111, 221)}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path}/noctule.sqlite"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    made = open_database(url)
    migrate(made)
    yield made
    made.dispose()


def alert(offset: int, dia_source_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": MESSAGE, "topic": "t", "kafka_partition": 0, "kafka_offset": offset, "arrival_ms": 1,
        "processed_ms": 2, "survey": "lsst", "dia_source_id": dia_source_id, "object_id": 7,
        "ss_object_id": 0, "t_mjd_tai": 60000.2 + offset / 1000, "ra_deg": 10.0, "dec_deg": -20.0,
        "band": "r", "flux_njy": 500.0, "sigma_njy": 10.0, "n_points": 5,
        "days_since_first_detection": 3.0, "class_id": 111, "probability": 0.6,
        "probabilities": [0.6, 0.4], "prediction_set": [111, 221], "entropy": 0.67, "margin": 0.2,
        "novelty": 0.3, "novelty_far": 0.4, "model_version": "m1", "feature_digest": "f1",
        **changes,
    }  # fmt: skip


NO_SCORE = dict.fromkeys(
    (
        "class_id",
        "probability",
        "probabilities",
        "prediction_set",
        "entropy",
        "margin",
        "novelty",
        "novelty_far",
    )
)


def bad(offset: int) -> dict[str, Any]:
    return {
        "kind": MESSAGE, "topic": "t", "kafka_partition": 0, "kafka_offset": offset, "arrival_ms": 1,
        "processed_ms": 2, "reject_reason": "truncated", "detail": "it ends", "packet": b"\0\1",
    }  # fmt: skip


def batch(alerts: list[dict[str, Any]], n_lost: int = 0) -> pa.Table:
    """Rows of a batch; so many offsets before the first were gone."""
    in_turn = [one for one in alerts if one["kind"] != EARLY]
    by_partition = itertools.groupby(
        sorted(in_turn, key=lambda a: (a["kafka_partition"], a["kafka_offset"])),
        lambda a: a["kafka_partition"],
    )
    ranges = []
    for partition, members in by_partition:
        offsets = [m["kafka_offset"] for m in members]
        span = {"kafka_offset": min(offsets) - n_lost, "end_offset": max(offsets) + 1}
        counted = {"kafka_partition": partition, "n_read": len(offsets), "started_ms": 1}
        ranges.append({"kind": RANGE, "topic": "t", **span, **counted, "n_lost": n_lost})
    rows = pa.Table.from_pylist([*alerts, *ranges], schema=ROWS_SCHEMA)
    places = (rows[name].fill_null(float("nan")).to_numpy() for name in ("ra_deg", "dec_deg"))
    cells = cells_of(*places)
    column = pa.array(cells, mask=cells == NOWHERE)
    return rows.set_column(rows.schema.get_field_index("healpix"), "healpix", column)


def commit(
    engine: sa.Engine,
    number: int,
    alerts: list[dict[str, Any]],
    run: str = "run",
    n_lost: int = 0,
) -> BatchCounts:
    rows = batch(alerts, n_lost)
    return commit_sql(
        engine, rows, BatchId(run, number, "s1"), wishes_of(rows, POLICY), CLASSES, 99
    ).counts


def rows(engine: sa.Engine, table: sa.Table) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        order = sa.select(table).order_by(*table.primary_key.columns)
        return [dict(row) for row in connection.execute(order).mappings()]


def problems(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return [problem for part in audit(connection) for problem in part.problems]


def test_a_batch_adds_up(engine: sa.Engine) -> None:
    unscored = alert(1, 2, **NO_SCORE, reason="solar_system_object", object_id=0, ss_object_id=5)
    counts = commit(engine, 0, [alert(0, 1), unscored, alert(2, 1), bad(3)])
    assert counts == BatchCounts(4, 1, 1, 1, 1, n_requested=1)
    assert [row["reason"] for row in rows(engine, classifications)] == [None, "solar_system_object"]
    assert rows(engine, classifications)[0]["probabilities"] == {"111": 0.6, "221": 0.4}
    assert rows(engine, classifications)[1]["probabilities"] is None
    assert rows(engine, rejected)[0]["packet"] == b"\0\1"
    assert [row["kafka_offset"] for row in rows(engine, duplicates)] == [2]
    assert problems(engine) == []


def test_a_repeat_that_says_something_else_is_flagged(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1), alert(1, 2), alert(2, 3, object_id=0, ss_object_id=9)])
    same = {"t_mjd_tai": 60000.2}
    later = [
        alert(3, 1, **same),
        alert(4, 1, **same, flux_njy=501.0, band=None),
        alert(5, 2, t_mjd_tai=60000.2 + 1 / 1000, object_id=8, n_points=6),
        alert(
            6,
            3,
            t_mjd_tai=60000.2 + 2 / 1000,
            object_id=0,
            ss_object_id=9,
            processed_ms=77,
            entropy=0.1,
        ),
        alert(7, 4, **same),
        alert(8, 4, **same, sigma_njy=0.0),
    ]
    commit(engine, 1, later)
    assert {row["kafka_offset"]: row["differs"] for row in rows(engine, duplicates)} == {
        3: None,
        4: "band, flux_njy",
        5: "object_id, n_points",
        6: None,
        8: "sigma_njy",
    }
    assert [row["flux_njy"] for row in rows(engine, classifications)] == [500.0] * 4
    assert problems(engine) == []


def test_offsets_that_were_gone_are_told(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1), alert(1, 2)])
    counts = commit(engine, 1, [alert(7, 3)], n_lost=5)
    assert (counts.n_read, counts.n_lost) == (1, 5)
    assert problems(engine) == ["offsets 2 to 6 were gone from the topic before they were read"]
    with engine.connect() as connection:
        (part,) = audit(connection, {("t", 0): (9, 12)})
    assert part.problems[1:] == ("offsets 8 to 8 are gone from the topic, unread",)
    commit(engine, 0, [alert(10, 4)], run="another")  # another run may have read them
    with engine.connect() as connection:
        parts = audit(connection, {("t", 0): (9, 12)})
    assert [problem for part in parts for problem in part.problems] == [part.problems[0]]


def test_a_replay_writes_nothing(engine: sa.Engine) -> None:
    tables = (classifications, objects, duplicates, rejected, accounting, label_requests)
    alerts = [alert(0, 1), alert(1, 2, object_id=8), bad(2)]
    commit(engine, 0, alerts)
    before = [rows(engine, table) for table in tables]
    again = commit(engine, 0, [{**a, "processed_ms": 77} for a in alerts])
    assert again.replay
    assert [rows(engine, table) for table in tables] == before


def test_reading_a_topic_again_from_a_fresh_checkpoint_counts_no_alert_twice(
    engine: sa.Engine,
) -> None:
    alerts = [alert(0, 1), alert(1, 2), alert(2, 1), bad(3)]
    commit(engine, 0, alerts)
    before = rows(engine, objects)
    counts = commit(engine, 0, alerts, run="another")
    assert (counts.n_classified, counts.n_duplicate) == (2, 1)
    assert rows(engine, objects) == before
    assert problems(engine) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_objects_do_not_depend_on_the_order_of_their_alerts(
    tmp_path: Path, order: Iterable[int]
) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/noctule.sqlite")
    migrate(engine)
    times = {1: 60000.3, 2: 60005.1, 3: 60002.2, 4: 60005.1}
    for number, k in enumerate(order):
        changes = {"t_mjd_tai": times[k + 1], "novelty": k / 10, "entropy": 0.1}
        commit(engine, number, [alert(number, k + 1, **changes)])
    (row,) = rows(engine, objects)
    assert (row["n_alerts"], row["first_mjd_tai"], row["last_mjd_tai"]) == (4, 60000.3, 60005.1)
    assert (row["last_dia_source_id"], row["novelty"]) == (4, 0.3)


def test_requests_keep_to_the_budget_of_each_night_and_ask_once(engine: sa.Engine) -> None:
    first = [alert(k, k + 1, object_id=100 + k, entropy=0.55 + k / 100) for k in range(5)]
    assert commit(engine, 0, first).n_requested == 3
    asked = {row["object_id"] for row in rows(engine, label_requests)}
    assert asked == {102, 103, 104}  # the most uncertain ones
    assert commit(engine, 1, [alert(9, 99, object_id=200, entropy=0.69)]).n_requested == 0
    later = [
        alert(k, 1000 + k, object_id=100 + k, t_mjd_tai=60001.2, entropy=0.6) for k in range(10, 20)
    ]
    later += [alert(30, 2000, object_id=104, t_mjd_tai=60001.2, entropy=0.69)]
    assert commit(engine, 2, later).n_requested == 3
    every = [row["object_id"] for row in rows(engine, label_requests)]
    assert len(every) == len(set(every)) == 6


def test_surveys_have_identifiers_of_their_own(engine: sa.Engine) -> None:
    """The same numbers in two surveys are two alerts of two objects, each asked for by itself."""
    commit(engine, 0, [alert(0, 1, entropy=0.6), alert(1, 1, survey="ztf", entropy=0.6)])
    later = [alert(2, 2, survey="ztf", t_mjd_tai=60000.9), alert(3, 1, survey="ztf")]
    counts = commit(engine, 1, [*later, early(5, 2), early(6, 1, survey="ztf")])
    assert (counts.n_classified, counts.n_duplicate, counts.n_early) == (1, 1, 1)
    keys = sorted((row["survey"], row["dia_source_id"]) for row in rows(engine, classifications))
    assert keys == [("lsst", 1), ("lsst", 2), ("ztf", 1), ("ztf", 2)]
    folded = {row["survey"]: row["n_alerts"] for row in rows(engine, objects)}
    assert folded == {"lsst": 2, "ztf": 2}
    assert [row["survey"] for row in rows(engine, duplicates)] == ["ztf"]
    asked = [(row["survey"], row["object_id"]) for row in rows(engine, label_requests)]
    assert sorted(asked) == [("lsst", 7), ("ztf", 7)]
    assert problems(engine) == []
    assert [m["key"] for m in messages(engine, 1)] == ["2", "ztf:2"]


def test_a_request_is_written_with_the_event_that_it_was_asked(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1), alert(1, 2, object_id=8)])
    asked = {row["request_id"]: row for row in rows(engine, label_requests)}
    events = rows(engine, request_events)
    assert [event["request_id"] for event in events] == sorted(asked)
    for event in events:
        request = asked[event["request_id"]]
        assert request["program"] == "noctule"
        assert (event["event"], event["who"]) == ("asked", "entropy in run run")
        assert (event["at_ms"], event["why"]) == (request["requested_ms"], request["why"])


def test_an_alert_that_is_not_new_asks_for_nothing(engine: sa.Engine) -> None:
    """Repeated with another entropy, at another offset, or the same offset read by another run."""
    assert commit(engine, 0, [alert(0, 1, entropy=0.1)]).n_requested == 0
    assert commit(engine, 1, [alert(1, 1, entropy=0.69)]).n_requested == 0
    assert commit(engine, 0, [alert(0, 1, entropy=0.69)], run="again").n_requested == 0
    assert commit(engine, 2, [alert(2, 2, entropy=0.69)]).n_requested == 1


class Unasked(EntropyStrategy):
    """Fails on every question."""

    def worth(self, candidates: pa.Table) -> Worth:
        raise AssertionError(candidates.num_rows)


def test_a_strategy_is_not_asked_about_nothing(engine: sa.Engine) -> None:
    rows = batch([bad(0)])
    wishes = wishes_of(rows, replace(POLICY, strategy=Unasked()))
    counts = commit_sql(engine, rows, BatchId("run", 0, "s1"), wishes, CLASSES, 9).counts
    assert (counts.n_rejected, counts.n_requested) == (1, 0)


def test_dull_and_young_alerts_are_not_asked_for(engine: sa.Engine) -> None:
    assert commit(engine, 0, [alert(0, 1, entropy=0.49)]).n_requested == 0
    assert commit(engine, 1, [alert(1, 2, n_points=1)]).n_requested == 0


@pytest.mark.parametrize("table", [classifications, rejected, duplicates])
def test_the_audit_sees_a_row_that_is_gone(engine: sa.Engine, table: sa.Table) -> None:
    commit(engine, 0, [alert(0, 1), alert(1, 1), bad(2)])
    assert problems(engine) == []
    with engine.begin() as connection:
        connection.execute(table.delete())
    assert problems(engine) == ["3 offsets accounted for, 2 in the tables"]


def test_the_audit_sees_a_lost_batch_and_an_overlap(engine: sa.Engine) -> None:
    for number in range(3):
        commit(engine, number, [alert(number, number + 1)])
    with engine.begin() as connection:
        connection.execute(accounting.delete().where(accounting.c.batch_id == 1))
    assert "offsets 1 to 1 are in no batch" in problems(engine)
    commit(engine, 5, [alert(2, 3)])
    assert "batches 2 and 5 overlap at offset 2" in problems(engine)


def test_the_audit_sees_sums_that_do_not_add_up(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1)])
    with engine.begin() as connection:
        connection.execute(accounting.update().values(n_classified=0))
    assert problems(engine) == ["batch 0: 1 read, 0 accounted for"]


@pytest.mark.parametrize(
    "changes", [{"dec_deg": 91.0}, {"dec_deg": -95.0}, {"ra_deg": None}, {"t_mjd_tai": 1e300}]
)
def test_an_alert_from_nowhere_stops_nothing(engine: sa.Engine, changes: dict[str, Any]) -> None:
    counts = commit(engine, 0, [alert(0, 1, **changes), alert(1, 2, object_id=8)])
    assert counts.n_classified == 2
    assert [row["object_id"] for row in rows(engine, label_requests)] == [8]
    assert problems(engine) == []


def test_an_offset_read_anew_ends_in_one_table(engine: sa.Engine) -> None:
    commit(engine, 0, [bad(0), alert(1, 1), alert(2, 1)])
    commit(engine, 0, [alert(0, 9), alert(1, 1), alert(2, 1)], run="with a fix")
    assert rows(engine, rejected) == []
    assert len(rows(engine, classifications)) == 2
    with engine.connect() as connection:
        parts = audit(connection)
    assert all(part.n_stored == 3 for part in parts)


def test_an_offset_read_anew_may_be_another_surveys(engine: sa.Engine) -> None:
    """A survey's declaration was mended, and the topic is read from a fresh checkpoint."""
    commit(engine, 0, [alert(0, 1, survey="ztf"), alert(1, 2)])
    commit(engine, 0, [alert(0, 1, survey="winter"), alert(1, 2)], run="mended")
    keys = sorted((row["survey"], row["dia_source_id"]) for row in rows(engine, classifications))
    assert keys == [("lsst", 2), ("winter", 1)]
    assert problems(engine) == []


def test_the_audit_lists_what_no_run_has_read(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1)])
    with engine.connect() as connection:
        parts = audit(connection, {("t", 0): (0, 3), ("t", 1): (5, 9)})
    assert [(part.run_id, part.n_waiting) for part in parts] == [("run", 2), ("-", 4)]


def test_what_is_sent_from_memory_is_what_a_replay_reads(engine: sa.Engine) -> None:
    """The two ways to the messages give the same bytes, whatever the database does to a value."""
    tiny: dict[str, Any] = {
        "novelty": -0.0,
        "margin": float("inf"),
        "probabilities": [1.0 - 1e-300, 5e-324],
        "entropy": 0.1 + 0.2,
        "flux_njy": -1e-7,
    }
    unscored = alert(4, 1, **NO_SCORE, reason="solar_system_object", object_id=0, ss_object_id=5)
    alerts = [alert(0, 2**62), alert(1, 7, **tiny), alert(2, 7), bad(3), unscored]
    alerts += [alert(5, 3, survey="ztf"), alert(6, 2, survey="ztf")]
    rows = batch(alerts)
    given = (rows, BatchId("run", 0, "s1"), wishes_of(rows, POLICY), CLASSES, 99)
    classified = commit_sql(engine, *given).classified
    topics = sent_to("c", "n", "q", "r", desc="d", novel_far=1.0)
    with engine.connect() as connection:
        messages = [
            list(outgoing(connection, "run", 0, topics.routes(), classified=known))
            for known in (classified, None)
        ]
    assert messages[0] == messages[1]
    assert {message["topic"] for message in messages[0]} == {"c", "n", "q", "r", "d"}
    assert commit_sql(engine, *given).classified is None


def early(offset: int, dia_source_id: int, **changes: Any) -> dict[str, Any]:
    return alert(offset, dia_source_id, kind=EARLY, **changes)


def test_what_is_found_early_is_accounted_for_in_its_turn(engine: sa.Engine) -> None:
    counts = commit(engine, 0, [alert(0, 1), alert(1, 2), early(5, 6), early(7, 8, object_id=9)])
    assert counts == BatchCounts(2, 2, n_requested=2, n_early=2)
    assert [row["dia_source_id"] for row in rows(engine, classifications)] == [1, 2, 6, 8]
    assert [row["n_alerts"] for row in rows(engine, objects)] == [3, 1]
    assert problems(engine) == []
    told = messages(engine, 0)
    in_turn = [alert(k, k + 1, processed_ms=77) for k in (2, 3, 4, 5)]
    assert commit(engine, 1, in_turn) == BatchCounts(4, 4)
    assert [row["n_alerts"] for row in rows(engine, objects)] == [6, 1]
    assert problems(engine) == []
    assert [m for m in messages(engine, 1) if m["key"] == "6"] == [
        m for m in told if m["key"] == "6"
    ]
    assert {row["dia_source_id"]: row["batch_id"] for row in rows(engine, classifications)} == {
        1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 1, 8: 0,
    }  # fmt: skip


def messages(engine: sa.Engine, number: int) -> list[dict[str, Any]]:
    topics = sent_to("classified", "novel", "requests", "rejected")
    with engine.connect() as connection:
        found = list(outgoing(connection, "run", number, topics.routes()))
    return [message for message in found if message["topic"] == "classified"]


def test_another_model_in_its_turn_has_the_last_word(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1), early(1, 2)])
    commit(engine, 1, [alert(1, 2, processed_ms=77, model_version="m2", entropy=0.1)])
    row = rows(engine, classifications)[1]
    assert (row["processed_ms"], row["model_version"], row["entropy"]) == (77, "m2", 0.1)
    assert problems(engine) == []


def test_what_comes_twice_is_found_once_wherever(engine: sa.Engine) -> None:
    first = [alert(0, 1), early(3, 1), early(4, 2), early(6, 2), early(9, 3)]
    assert commit(engine, 0, first).n_early == 2
    assert commit(engine, 1, [alert(1, 5), early(6, 2), early(9, 3), early(10, 5)]).n_early == 0
    rest = [alert(2, 3), alert(3, 1), alert(4, 2), alert(5, 7), alert(6, 2)]
    assert commit(engine, 2, rest).n_duplicate == 3  # 3 counts at offset 9, where it was found
    assert commit(engine, 3, [*(alert(k, k) for k in (7, 8)), alert(9, 3)]).n_duplicate == 1
    assert problems(engine) == []


def test_what_was_found_before_kafka_removed_it_is_not_lost(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1), early(2, 3), early(3, 4)])
    counts = commit(engine, 1, [alert(6, 7)], n_lost=5)
    assert counts == BatchCounts(3, 3, n_lost=3)
    assert problems(engine) == [
        "offsets 1 to 1, 4 to 5 were gone from the topic before they were read"
    ]
    assert len(rows(engine, classifications)) == 4
    with engine.connect() as connection:
        assert unread(accounted(connection, "t", 0), 0, 7) == [(1, 2), (4, 6)]


def test_what_was_found_and_cannot_be_read_in_its_turn_stays(engine: sa.Engine) -> None:
    commit(engine, 0, [alert(0, 1), early(1, 2)])
    assert commit(engine, 1, [bad(1), bad(2), alert(3, 4)]) == BatchCounts(3, 2, n_rejected=1)
    assert [row["kafka_offset"] for row in rows(engine, rejected)] == [2]
    assert problems(engine) == []


def test_an_older_run_still_adds_up_when_a_new_one_finds_what_it_rejected(
    engine: sa.Engine,
) -> None:
    commit(engine, 0, [alert(0, 1), bad(1), alert(2, 1)], run="old")
    commit(engine, 0, [alert(0, 1), early(1, 2)], run="new")
    assert problems(engine) == []
    commit(engine, 1, [alert(1, 2), alert(2, 1)], run="new")
    assert problems(engine) == []


def test_a_table_that_was_small_when_it_was_counted_is_never_read_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/noctule.sqlite"
    ours, others = (open_database(url) for _ in range(2))
    migrate(ours)
    commit(ours, 0, [alert(k, k, object_id=1 + k) for k in range(1000)])
    analyse(others)
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "DELETE")):
            sent.append((statement, parameters))

    sa.event.listen(ours, "before_cursor_execute", note)
    commit(ours, 1, [alert(k, k, object_id=1 + k) for k in range(1000, 1500)])
    sa.event.remove(ours, "before_cursor_execute", note)
    with ours.connect() as connection:
        for statement, parameters in sent:
            explained = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            assert whole_reads([str(row[-1]) for row in explained]) == [], statement
    assert any("FROM classifications" in statement for statement, _ in sent)
    assert any("FROM objects" in statement for statement, _ in sent)
    for engine in (ours, others):
        engine.dispose()
