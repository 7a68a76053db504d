"""What the rows of an append-only table come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa


def is_current(
    table: sa.Table,
    key: Sequence[str],
    weight: Callable[[sa.FromClause], sa.ColumnElement[Any]],
) -> sa.ColumnElement[bool]:
    """Whether a row of `table` is the one of its `key` that counts: the heaviest, among equals the newest.

    That is a row than which none is better: a join by the key reads the rows of that key alone, where
    a window over the ledger would read all of it for each question.
    """
    (row_id,) = table.primary_key
    other = table.alias("other")
    newer = sa.and_(weight(other) == weight(table), other.c[row_id.name] > row_id)
    same = (other.c[name] == table.c[name] for name in key)
    better = sa.and_(*same, sa.or_(weight(other) > weight(table), newer))
    return ~sa.exists().where(better)
