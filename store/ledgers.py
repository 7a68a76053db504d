"""The fold of an append-only table: which row of a key counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa


def is_current(
    table: sa.Table,
    key: Sequence[str],
    weight: Callable[[sa.FromClause], sa.ColumnElement[Any]],
) -> sa.ColumnElement[bool]:
    """The condition that a row of `table` counts for its `key`: the heaviest one, among equals the newest.

    The condition says that no row of the key is better. So a join by the key reads only the rows of that key,
    while a window function would read the whole ledger for each query.
    """
    (row_id,) = table.primary_key
    other = table.alias("other")
    newer = sa.and_(weight(other) == weight(table), other.c[row_id.name] > row_id)
    same = (other.c[name] == table.c[name] for name in key)
    better = sa.and_(*same, sa.or_(weight(other) > weight(table), newer))
    return ~sa.exists().where(better)
