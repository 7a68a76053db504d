"""Identifiers are unique within a survey: a key is always (survey, id); a batch's is (run, number)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

Key = tuple[str, int]
"""A survey, and its diaObjectId or diaSourceId."""

_IDS: Final = sa.JSON().with_variant(postgresql.ARRAY(sa.BigInteger), "postgresql")


class _Among(FunctionElement[Any]):
    """``column IN (ids)`` with all ids as one parameter.

    However many there are, the statement is one and the same; and PostgreSQL, which keeps the plan of a
    statement, estimates the ids in an array to be few. Of an ordinary ``IN`` it kept the plan that it made
    while the table was small: to read the whole table, until the next ``ANALYZE``.
    """

    type = sa.types.NULLTYPE  # of a Boolean SQLite would be asked whether it is 1, and use no index
    inherit_cache = True


@compiles(_Among, "postgresql")
def _any_of(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY ({ids})"


@compiles(_Among, "sqlite")
def _in_json(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608 - both are compiled


def without_zero_ids(rows: pa.Table) -> pa.Table:
    """Return rows with null instead of the object ids that are 0: no object has that id."""
    for name in ("object_id", "ss_object_id"):
        ids = rows[name]
        without = pc.if_else(pc.equal(ids, 0), pa.scalar(None, ids.type), ids)
        rows = rows.set_column(rows.schema.get_field_index(name), name, without)
    return rows


def keys_of(rows: pa.Table, name: str) -> list[Key]:
    """Return the key of each row; `name` is the column of its identifier."""
    return list(zip(rows["survey"].to_pylist(), rows[name].to_pylist(), strict=True))


def is_key(column: sa.Column[int], survey: str, number: int) -> sa.ColumnElement[bool]:
    """The condition that a row's survey and `column` are this key."""
    return sa.and_(column.table.c.survey == survey, column == number)


def of_batch(table: sa.Table, run_id: str, batch_id: int) -> sa.ColumnElement[bool]:
    """The condition that a row belongs to this batch."""
    return sa.and_(table.c.run_id == run_id, table.c.batch_id == batch_id)


def of_keys(column: sa.Column[int], keys: Iterable[Key]) -> Iterator[sa.ColumnElement[bool]]:
    """Yield conditions that together select the rows whose survey and `column` are one of `keys`."""
    by_survey: defaultdict[str, set[int]] = defaultdict(set)
    for survey, number in keys:
        by_survey[survey].add(number)
    for survey, numbers in sorted(by_survey.items()):
        ids = sa.bindparam(None, sorted(numbers), _IDS, unique=True)
        yield sa.and_(column.table.c.survey == survey, _Among(column, ids))
