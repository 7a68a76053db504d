from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from store.tables import accounting, classifications
from store.upsert import insert_missing, upsert
from tests.store.conftest import alert

KEY = ["survey", "dia_source_id"]


def everything(connection: sa.Connection) -> list[tuple[Any, ...]]:
    query = sa.select(classifications).order_by(classifications.c.dia_source_id)
    return [tuple(row) for row in connection.execute(query)]


def test_twice_is_once(connection: sa.Connection) -> None:
    rows = [alert(number) for number in range(10)]
    upsert(connection, classifications, rows, KEY)
    once = everything(connection)
    upsert(connection, classifications, rows, KEY)
    upsert(connection, classifications, rows[3:5], KEY)
    assert everything(connection) == once
    assert len(once) == 10


def test_a_row_replaces_the_columns_that_it_names(connection: sa.Connection) -> None:
    upsert(connection, classifications, [alert(1) | {"band": "g"}], KEY)
    upsert(connection, classifications, [alert(1) | {"class_id": None, "reason": "no_object"}], KEY)
    row = connection.execute(sa.select(classifications)).mappings().one()
    assert (row["class_id"], row["reason"], row["band"]) == (None, "no_object", "g")


def test_of_two_with_one_key_the_last_counts(connection: sa.Connection) -> None:
    upsert(connection, classifications, [alert(1), alert(1) | {"band": "z"}], KEY)
    assert connection.scalars(sa.select(classifications.c.band)).all() == ["z"]


def test_more_rows_than_a_statement_takes_parameters(connection: sa.Connection) -> None:
    rows = [alert(number) for number in range(5_000)]  # 80,000 values
    upsert(connection, classifications, rows, KEY)
    assert len(everything(connection)) == 5_000


def test_a_key_of_several_columns(connection: sa.Connection) -> None:
    key = [column.name for column in accounting.primary_key]
    row = {
        column.name: "a" if isinstance(column.type, sa.Text) else 1 for column in accounting.columns
    }
    for n_read in (1, 2):
        upsert(connection, accounting, [row | {"n_read": n_read}], key)
    assert connection.scalars(sa.select(accounting.c.n_read)).all() == [2]


def test_a_row_that_is_all_key(connection: sa.Connection) -> None:
    table = sa.Table("keys", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    table.create(connection)
    for _ in range(2):
        upsert(connection, table, [{"id": 1}], ["id"])
    assert connection.scalars(sa.select(table.c.id)).all() == [1]


def test_nothing_to_write(connection: sa.Connection) -> None:
    upsert(connection, classifications, [], KEY)
    insert_missing(connection, classifications, [], KEY)
    assert everything(connection) == []


def test_missing_rows_alone_are_inserted(connection: sa.Connection) -> None:
    upsert(connection, classifications, [alert(1) | {"band": "g"}], KEY)
    rows = [alert(number) | {"band": "z"} for number in (1, 2)] + [alert(2) | {"band": "y"}]
    insert_missing(connection, classifications, rows, KEY)
    bands = sa.select(classifications.c.band).order_by(classifications.c.dia_source_id)
    assert connection.scalars(bands).all() == ["g", "z"]


def test_another_conflict_is_an_error(connection: sa.Connection) -> None:
    """Two alerts cannot come from one offset: that is no repeat but a fault."""
    upsert(connection, classifications, [alert(1)], KEY)
    with pytest.raises(sa.exc.IntegrityError):
        upsert(connection, classifications, [alert(2) | {"kafka_offset": 1}], KEY)
