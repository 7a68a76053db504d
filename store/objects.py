"""The objects table as a fold over alerts, whatever their order: the later alert decides.

Of each object a batch's alerts come to its newest one, its first time and a number; these are folded into
the row that is there. Which of two alerts at one time is the later one, the larger id says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from store import tables
from store.keys import Key, keys_of, of_keys
from store.upsert import upsert_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_NEWEST: Final = (
    "ra_deg",
    "dec_deg",
    "healpix",
    "class_id",
    "probability",
    "entropy",
    "novelty",
    "novelty_far",
    "model_version",
)
"""Columns that the newest alert decides."""
_KEY: Final = ("survey", "object_id")


class _State(NamedTuple):
    """What is there of an object, as far as it decides how an alert is folded."""

    first_mjd_tai: float
    last_mjd_tai: float
    last_dia_source_id: int
    n_alerts: int


def fold_objects(connection: sa.Connection, alerts: pa.Table, is_new: NDArray[np.bool_]) -> None:
    """Fold classified alerts into the objects table.

    Parameters
    ----------
    connection
        The transaction.
    alerts
        Rows of ``classifications``; those without an object or a position are passed over.
    is_new
        bool, one of each alert: only new ones raise ``n_alerts``, so that reading an alert again changes
        nothing.
    """
    placed = pc.and_(pc.is_valid(alerts["object_id"]), pc.is_valid(alerts["healpix"]))
    some = np.flatnonzero(np.asarray(placed))
    alerts, is_new = alerts.take(pa.array(some)), is_new[some]
    if not alerts.num_rows:
        return
    keys = keys_of(alerts, "object_id")
    numbers: dict[Key, int] = {}
    owner = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    t, ids = (alerts[name].to_numpy() for name in ("t_mjd_tai", "dia_source_id"))
    order = np.lexsort((ids, t, owner))
    last = order[np.append(np.diff(owner[order]) != 0, True)]
    first = np.full(len(numbers), np.inf)
    np.minimum.at(first, owner, t)
    folded = alerts.select([*_KEY, *_NEWEST]).take(pa.array(last))
    counts = np.bincount(owner, is_new, len(numbers)).astype(np.int64)
    _write(connection, folded, _Batch(t[last], ids[last], first, counts))


class _Batch(NamedTuple):
    """What a batch's alerts come to, one of each object: newest time and id, first time, new alerts."""

    last_mjd_tai: NDArray[np.float64]
    last_dia_source_id: NDArray[np.int64]
    first_mjd_tai: NDArray[np.float64]
    n_new: NDArray[np.int64]


def _write(connection: sa.Connection, newest: pa.Table, batch: _Batch) -> None:
    keys = keys_of(newest, "object_id")
    there = _existing(connection, keys)
    before = [there.get(key) for key in keys]
    first, counts = batch.first_mjd_tai.copy(), batch.n_new.copy()
    later = np.ones(len(keys), bool)
    for k, state in enumerate(before):
        if state is not None:
            first[k] = min(first[k], state.first_mjd_tai)
            counts[k] += state.n_alerts
            mine = batch.last_mjd_tai[k], batch.last_dia_source_id[k]
            later[k] = mine >= (state.last_mjd_tai, state.last_dia_source_id)
    rows = newest.append_column("first_mjd_tai", pa.array(first))
    rows = rows.append_column("n_alerts", pa.array(counts))
    rows = rows.append_column("last_mjd_tai", pa.array(batch.last_mjd_tai))
    rows = rows.append_column("last_dia_source_id", pa.array(batch.last_dia_source_id))
    upsert_table(connection, tables.objects, rows.filter(pa.array(later)), _KEY)
    _count_only(connection, rows.filter(pa.array(~later)).to_pylist())


def _count_only(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Note earlier alerts of objects whose newest one is there already."""
    table = tables.objects
    mine = sa.and_(*(table.c[name] == sa.bindparam(f"its_{name}") for name in _KEY))
    names = ("first_mjd_tai", "n_alerts")
    statement = sa.update(table).where(mine).values({n: sa.bindparam(f"new_{n}") for n in names})
    if rows:
        connection.execute(
            statement,
            [
                {f"its_{n}": row[n] for n in _KEY} | {f"new_{n}": row[n] for n in names}
                for row in rows
            ],
        )


def _existing(connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, _State]:
    table = tables.objects.c
    query = sa.select(table.survey, table.object_id, *(table[name] for name in _State._fields))
    return {
        (row[0], row[1]): _State(*row[2:])
        for mine in of_keys(table.object_id, keys)
        for row in connection.execute(query.where(mine))
    }
