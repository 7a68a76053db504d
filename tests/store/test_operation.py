"""Sums of the accounting against the rows themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.accounting_queries import OUTCOMES, Books, books, last_batch, read_positions
from store.database import migrate, open_database
from store.request_queries import request_queue
from store.tables import accounting
from tests.portal import night


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database with its tables."""
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url"))
    else:
        url = f"sqlite:///{tmp_path}/noctule.sqlite"
    opened = open_database(url)
    migrate(opened)
    yield opened
    opened.dispose()


def account(at: int, given: dict[str, int]) -> dict[str, Any]:
    return {
        "run_id": f"run {given['run']}", "batch_id": at, "topic": "alerts", "kafka_partition": at % 3,
        "start_offset": 10 * at, "end_offset": 10 * at + given["span"], "model_version": f"v{at}",
        "feature_digest": "f", "settings_digest": "s", "started_ms": 0, "committed_ms": 1_000 + at,
        **{f"n_{name}": given[name] for name in ("read", *OUTCOMES, "lost")},
    }  # fmt: skip


number = st.integers(0, 9)
names = ("run", "span", "read", *OUTCOMES, "lost")
rows = st.lists(st.fixed_dictionaries(dict.fromkeys(names, number)), max_size=8)


@given(rows)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_sums_are_those_of_the_rows(engine: sa.Engine, rows: list[dict[str, int]]) -> None:
    with engine.connect() as connection:
        if rows:
            accounts = [account(at, row) for at, row in enumerate(rows)]
            connection.execute(sa.insert(accounting), accounts)
        found, newest = books(connection), last_batch(connection)
        furthest = read_positions(connection)
        positions = {f"run {k}": read_positions(connection, f"run {k}") for k in range(10)}
        connection.rollback()
    total = {name: sum(row[name] for row in rows) for name in ("read", *OUTCOMES, "lost")}
    wrong = sum(
        abs(row["read"] - sum(row[name] for name in OUTCOMES))
        + abs(row["read"] - (row["span"] - row["lost"]))
        for row in rows
    )
    assert dataclasses.asdict(found) == {**total, "imbalance": wrong}
    if rows:
        assert newest is not None
        assert newest.model_version == f"v{len(rows) - 1}"
        assert (newest.n_read, newest.committed_ms) == (rows[-1]["read"], 999 + len(rows))
    else:
        assert newest is None
    for run, found_positions in positions.items():
        ends: dict[tuple[str, int], int] = {}
        for at, row in enumerate(rows):
            if f"run {row['run']}" == run:
                place = ("alerts", at % 3)
                ends[place] = max(ends.get(place, 0), 10 * at + row["span"])
        assert found_positions == ends
    places = {place for ends in positions.values() for place in ends}
    assert furthest == {
        place: max(ends.get(place, 0) for ends in positions.values()) for place in places
    }


def test_errors_that_cancel_are_still_told(engine: sa.Engine) -> None:
    right = dict.fromkeys(names, 0) | {"span": 5, "read": 5}
    with engine.begin() as connection:
        for at, classified in enumerate((4, 6)):
            connection.execute(
                sa.insert(accounting), account(at, {**right, "classified": classified})
            )
        assert books(connection).imbalance == 2


def test_an_empty_database_has_empty_books(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert books(connection) == Books()
        assert last_batch(connection) is None
        assert request_queue(connection).oldest_ms is None


def test_the_queue_is_what_has_no_label(engine: sa.Engine) -> None:
    night.fill(engine)
    with engine.connect() as connection:
        queue = request_queue(connection)
    assert (queue.n_made, queue.n_open) == (24, 15)
    assert queue.oldest_ms == night.NOW_MS - 24 * 60_000
