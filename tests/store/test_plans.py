"""No question of the portal or the stream reads a large table from end to end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from store import object_queries, request_queries
from store.keys import of_keys
from store.tables import objects
from stream.outputs import outgoing
from tests.stream.sent_to import sent_to

QUESTIONS: dict[str, Callable[[sa.Connection], Any]] = {
    "alert": lambda c: object_queries.with_newest_alert(
        c, [{"survey": "lsst", "last_dia_source_id": 7}]
    ),
    "object": lambda c: object_queries.object_row(c, "lsst", 7),
    "its surveys": lambda c: object_queries.surveys_of(c, 7),
    "history": lambda c: object_queries.object_history(c, "lsst", 7),
    "cone": lambda c: object_queries.cone_search(c, 150.0, 2.0, 5.0, 100),
    "newest": lambda c: object_queries.newest_objects(c, 50),
    "newest of a class": lambda c: object_queries.newest_objects(c, 50, class_id=111),
    "strangest": lambda c: object_queries.ranked_objects(c, "novelty", 50),
    "strangest of a class": lambda c: object_queries.ranked_objects(c, "novelty", 50, class_id=111),
    "most uncertain": lambda c: object_queries.ranked_objects(c, "entropy", 50),
    "uncertain of a class": lambda c: object_queries.ranked_objects(c, "entropy", 50, class_id=111),
    "request": lambda c: request_queries.requests_of(c, "lsst", 7),
    "a batch": lambda c: list(outgoing(c, "run", 3, sent_to("a", "b", "c", "d").routes())),
}
LARGE = ("classifications", "objects", "duplicates", "rejected")


def plan_of(connection: sa.Connection, question: Callable[[sa.Connection], Any]) -> list[str]:
    """Ask, and have the database explain every statement that was sent."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    question(connection)
    sa.event.remove(connection, "before_cursor_execute", note)
    assert sent
    word = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    return [
        str(row[-1])
        for statement, parameters in sent
        for row in connection.exec_driver_sql(f"{word} {statement}", parameters)
    ]


def whole_reads(plan: list[str]) -> list[str]:
    names = "|".join(LARGE)
    return [
        line
        for line in plan
        if re.search(rf"Seq Scan on ({names})\b", line)
        or (re.search(rf"\bSCAN ({names})\b", line) and " USING " not in line)
    ]


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_index_answers(connection: sa.Connection, name: str) -> None:
    if connection.dialect.name == "postgresql":  # which would rather read a table that is empty
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    assert whole_reads(plan_of(connection, QUESTIONS[name])) == []


def test_a_whole_read_is_seen(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    query = sa.text("SELECT * FROM classifications WHERE flux_njy > 3")
    assert whole_reads(plan_of(connection, lambda c: c.execute(query).all()))


def test_a_plan_that_is_kept_finds_keys_by_their_index(connection: sa.Connection) -> None:
    """PostgreSQL plans a statement while its table is small and not yet analysed, and keeps the plan."""
    if connection.dialect.name != "postgresql":
        pytest.skip("SQLite plans for the keys alone")
    connection.exec_driver_sql(
        "INSERT INTO objects (survey, object_id, ra_deg, dec_deg, healpix, first_mjd_tai, last_mjd_tai,"
        " n_alerts, last_dia_source_id) SELECT 'lsst', n, 1, 1, 1, 1, 1, 1, n FROM generate_series(1, 2000) n"
    )
    wanted = range(1, 1001)
    (mine,) = of_keys(objects.c.object_id, [("lsst", k) for k in wanted])
    dialect = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
    query = sa.select(objects.c.n_alerts).where(mine).compile(dialect=dialect)
    assert query.positiontup is not None
    given = [f"ARRAY{[*wanted]}" if name != "survey_1" else "'lsst'" for name in query.positiontup]
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE kept AS {query}")
    explained = f"EXPLAIN EXECUTE kept ({', '.join(given)})"
    plan = [str(row[0]) for row in connection.exec_driver_sql(explained)]
    assert any("pk_objects" in line for line in plan), plan
    assert whole_reads(plan) == []
