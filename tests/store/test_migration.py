"""A database that an older noctule wrote: every row is there afterwards, and every question works."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from store import tables
from store.accounting_queries import books, counts
from store.database import MIGRATIONS, migrate, open_database, reading
from store.object_queries import newest_objects, object_history, scores_before_labels
from store.registry import champion
from store.request_queries import (
    current_labels,
    event_history,
    label_history,
    label_queue,
    request_queue,
    requests_of,
)
from store.requests import append_event
from stream.audit import audit
from stream.outputs import outgoing
from tests.portal.conftest import asking, make_app
from tests.store.test_plans import QUESTIONS
from tests.stream.sent_to import sent_to

DUMP = Path(__file__).parent / "data" / "v0003.sql"
Rows = dict[str, list[dict[str, Any]]]


def written() -> Rows:
    """What the older noctule wrote, table by table."""
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(DUMP.read_text())
        connection.row_factory = sqlite3.Row
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3")]  # noqa: S608 - a test's
            for (name,) in names
            if name != "alembic_version"
        }  # fmt: skip


@pytest.fixture
def old(url: str) -> Iterator[sa.Engine]:
    """A database of the older noctule."""
    engine = open_database(url, busy_timeout_s=20)
    if engine.dialect.name == "sqlite":
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.executescript(DUMP.read_text())
    else:
        _write_as_then(engine)
    yield engine
    engine.dispose()


def _write_as_then(engine: sa.Engine) -> None:
    """Insert the same rows where the dump cannot be read; numbers are given as the database would."""
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, "0003")
        then = sa.MetaData()
        then.reflect(connection)
        rows = written()
        for table in then.sorted_tables:
            if rows.get(table.name):
                connection.execute(sa.insert(table), [_loaded(table, r) for r in rows[table.name]])
        for name, key in (("label_requests", "request_id"), ("labels", "label_id")):
            last = (
                f"SELECT setval(pg_get_serial_sequence('{name}', '{key}'), MAX({key})) FROM {name}"  # noqa: S608 - a test's
            )
            connection.execute(sa.text(last))


def _loaded(table: sa.Table, row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: json.loads(value)
        if value is not None and isinstance(table.c[name].type, sa.JSON)
        else value
        for name, value in row.items()
    }


def test_every_row_is_there(old: sa.Engine) -> None:
    before = written()
    assert all(before[name] for name in ("classifications", "objects", "duplicates", "rejected"))
    migrate(old)
    with reading(old) as connection:
        for name, rows in before.items():
            table = tables.METADATA.tables[name]
            query = (
                sa.select(*(table.c[column] for column in rows[0])) if rows else sa.select(table)
            )
            found = [dict(row) for row in connection.execute(query).mappings()]
            told = [_loaded(table, row) for row in rows]
            assert sorted(found, key=repr) == sorted(told, key=repr), name


def test_surveys_are_those_of_the_objects(old: sa.Engine) -> None:
    survey_of = {row["object_id"]: row["survey"] for row in written()["objects"]}
    assert set(survey_of.values()) == {"lsst", "ztf"}
    migrate(old)
    with reading(old) as connection:
        for table in (tables.label_requests, tables.labels):
            rows = connection.execute(sa.select(table.c.survey, table.c.object_id)).all()
            assert {row.survey for row in rows} == {"lsst", "ztf"}
            assert all(survey == survey_of.get(number, "lsst") for survey, number in rows)
        assert set(connection.scalars(sa.select(tables.label_requests.c.program))) == {"noctule"}
        assert set(connection.scalars(sa.select(tables.duplicates.c.survey))) == {"lsst"}


def test_requests_were_asked_and_those_with_a_label_are_answered(old: sa.Engine) -> None:
    before = written()
    first: dict[int, dict[str, Any]] = {}
    for label in before["labels"]:
        first.setdefault(label["object_id"], label)
    migrate(old)
    with reading(old) as connection:
        answered = {}
        for request in before["label_requests"]:
            asked, *more = event_history(connection, [request["request_id"]])
            assert (asked["event"], asked["who"]) == ("asked", "entropy in run old")
            assert (asked["at_ms"], asked["why"]) == (request["requested_ms"], request["why"])
            for event in more:
                answered[request["object_id"]] = (event["event"], event["who"], event["at_ms"])
        still_open = {row["object_id"] for row in label_queue(connection)}
        queue = request_queue(connection)
    wanted = {request["object_id"] for request in before["label_requests"]}
    assert answered == {
        number: ("answered", label["reporter"], label["reported_ms"])
        for number, label in first.items()
        if number in wanted
    }
    assert still_open == wanted - answered.keys()
    assert (queue.n_made, queue.n_open) == (len(wanted), len(still_open))


def test_every_question_works(old: sa.Engine) -> None:
    before = written()
    migrate(old)
    with reading(old) as connection:
        assert counts(connection).alerts == books(connection).read == 48
        assert [part.problems for part in audit(connection)] == [()]
        found = {(row["survey"], row["object_id"]) for row in newest_objects(connection, 100)}
        assert found == {(row["survey"], row["object_id"]) for row in before["objects"]}
        n_alerts = {key: len(object_history(connection, *key)) for key in found}
        assert sum(n_alerts.values()) == sum(row["n_alerts"] for row in before["objects"])
        assert len(current_labels(connection)) == 6
        asked = before["label_requests"][0]["object_id"]
        assert [row["current"] for row in label_history(connection, "lsst", asked)] == [False, True]
        assert [row["answer"] for row in requests_of(connection, "lsst", asked)] == [221]
        assert scores_before_labels(connection, "m1")
        assert champion(connection) is not None
        topics = sent_to("classified", "novel", "requests", "rejected", desc="desc")
        sent = [
            m for batch in range(4) for m in outgoing(connection, "old", batch, topics.routes())
        ]
        assert {"40", "ztf:9036", "ztf:40"} & {m.get("key") for m in sent} == {"ztf:9036", "ztf:40"}
        for question in QUESTIONS.values():
            question(connection)


def test_life_goes_on(old: sa.Engine) -> None:
    migrate(old)
    with old.begin() as connection:
        (request, *_) = label_queue(connection)
        append_event(connection, request["request_id"], "claimed", who="me", at_ms=1)
        (event, *_) = [
            row for row in label_queue(connection) if row["request_id"] == request["request_id"]
        ]
    assert event["state"] == "claimed"
    for table in ("labels", "request_events"):
        statement = sa.text(f"DELETE FROM {table}")  # noqa: S608 - a test's
        with pytest.raises(sa.exc.IntegrityError, match="append-only"), old.begin() as connection:
            connection.execute(statement)


def test_the_portal_serves_it(old: sa.Engine) -> None:
    migrate(old)
    with asking(make_app(old)) as portal:
        for path in ("/", "/queue", "/models", "/objects/40", "/api/objects/1152921504606846983",
                     "/api/queue?open=false", "/api/status", "/api/models", "/metrics"):  # fmt: skip
            assert portal.get(path).status_code == 200, path
