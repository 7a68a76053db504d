"""Writes that can be repeated: a row whose key exists already is overwritten, or left alone.

Both work in the same way on SQLite and PostgreSQL and take any number of rows: the statement is prepared
once and executed for each row, so that no limit on the number of parameters applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Row = Mapping[str, Any]
_Insert = postgresql.Insert | sqlite.Insert


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Iterable[Row], key: Sequence[str]
) -> None:
    """Insert rows; if a key exists already, the given columns of its row are replaced.

    Parameters
    ----------
    connection
        A transaction that may write.
    table
        Where to.
    rows
        Column name to value, all with the same names. Of two with the same key the last counts.
        A float that is missing is None: NaN would be null on SQLite and a number on PostgreSQL.
    key
        The columns of the primary key, or of a unique constraint.
    """
    last = {tuple(row[name] for name in key): row for row in rows}
    if last:
        names = next(iter(last.values()))
        connection.execute(_overwriting(connection, table, names, key), [*map(dict, last.values())])


def upsert_table(
    connection: sa.Connection, table: sa.Table, rows: pa.Table, key: Sequence[str]
) -> None:
    """Do as :func:`upsert` does, from columns.

    Parameters
    ----------
    connection
        A transaction that may write.
    table
        Where to.
    rows
        Columns of `table`, no key twice. A column that holds JSON is given as text.
    key
        The columns of the primary key, or of a unique constraint.

    Notes
    -----
    The driver is called directly: SQLAlchemy would look at every value by itself, which takes as long as
    SQLite takes to write it.
    """
    if rows.num_rows == 0:
        return
    statement = _overwriting(connection, table, rows.column_names, key)
    compiled = statement.compile(dialect=connection.dialect, column_keys=rows.column_names)
    names = compiled.positiontup or rows.column_names
    values: Any = zip(*(rows[name].to_pylist() for name in names), strict=True)
    if not compiled.positiontup:
        values = (dict(zip(names, row, strict=True)) for row in values)
    connection.exec_driver_sql(str(compiled), list(values))


def insert_missing(
    connection: sa.Connection, table: sa.Table, rows: Iterable[Row], key: Sequence[str]
) -> None:
    """Insert the rows whose key does not exist yet; of two with the same key the first counts."""
    new = [*map(dict, rows)]
    if new:
        insert = _insert(connection, table)
        connection.execute(insert.on_conflict_do_nothing(index_elements=key), new)


def _overwriting(
    connection: sa.Connection, table: sa.Table, names: Iterable[str], key: Sequence[str]
) -> _Insert:
    """Return the statement that inserts the columns `names`, or replaces those of the row of the same key."""
    insert = _insert(connection, table)
    others = {name: insert.excluded[name] for name in names if name not in key}
    if not others:
        return insert.on_conflict_do_nothing(index_elements=key)
    return insert.on_conflict_do_update(index_elements=key, set_=others)


def _insert(connection: sa.Connection, table: sa.Table) -> _Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
