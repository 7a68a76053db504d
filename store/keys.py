"""Identifiers are unique within a survey: a key is always (survey, id)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
import sqlalchemy as sa

Key = tuple[str, int]
"""A survey, and its diaObjectId or diaSourceId."""

IDS_PER_QUERY: Final = 500
"""Databases limit the parameters of a statement: SQLite to 32,766, PostgreSQL to 65,535."""


def keys_of(rows: pa.Table, name: str) -> list[Key]:
    """Return the key of each row; `name` is the column of its identifier."""
    return list(zip(rows["survey"].to_pylist(), rows[name].to_pylist(), strict=True))


def of_keys(column: sa.Column[int], keys: Iterable[Key]) -> Iterator[sa.ColumnElement[bool]]:
    """Yield conditions that together select the rows whose survey and `column` are one of `keys`."""
    by_survey: defaultdict[str, set[int]] = defaultdict(set)
    for survey, number in keys:
        by_survey[survey].add(number)
    for survey, numbers in sorted(by_survey.items()):
        ids = sorted(numbers)
        for at in range(0, len(ids), IDS_PER_QUERY):
            part = ids[at : at + IDS_PER_QUERY]
            yield sa.and_(column.table.c.survey == survey, column.in_(part))
