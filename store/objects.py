"""The objects table as a fold over alerts: ``(object, alert) -> object``, whatever their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from store import tables
from store.keys import Key, of_keys
from store.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Row = dict[str, Any]

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


def fold_objects(
    connection: sa.Connection, alerts: Iterable[Mapping[str, Any]], counted: frozenset[Key]
) -> None:
    """Fold classified alerts into the objects table.

    Parameters
    ----------
    connection
        The transaction.
    alerts
        Rows of ``classifications``; those without an object or a position are passed over.
    counted
        Survey and diaSourceId of alerts that are new: only these raise ``n_alerts``, so that reading
        an alert again changes nothing.
    """
    by_object: dict[Key, list[Mapping[str, Any]]] = {}
    for alert in alerts:
        if alert["object_id"] and alert["healpix"] is not None:
            by_object.setdefault((alert["survey"], alert["object_id"]), []).append(alert)
    folded = _existing(connection, by_object)
    for key, members in by_object.items():
        for alert in members:
            is_new = (alert["survey"], alert["dia_source_id"]) in counted
            folded[key] = fold_object(folded.get(key), alert, is_new=is_new)
    upsert(connection, tables.objects, list(folded.values()), ("survey", "object_id"))


def fold_object(state: Row | None, alert: Mapping[str, Any], *, is_new: bool) -> Row:
    """Return the object after `alert`; the later alert decides, at equal times the larger id.

    Examples
    --------
    >>> alert = {"survey": "lsst", "object_id": 1, "dia_source_id": 7, "t_mjd_tai": 2.0}
    >>> alert |= dict.fromkeys(_NEWEST)
    >>> fold_object(None, alert, is_new=True)["n_alerts"]
    1
    """
    t = alert["t_mjd_tai"]
    if state is None:
        state = {
            "survey": alert["survey"],
            "object_id": alert["object_id"],
            "first_mjd_tai": t,
            "last_mjd_tai": t,
            "last_dia_source_id": alert["dia_source_id"],
            "n_alerts": 0,
            **{name: alert[name] for name in _NEWEST},
        }
    newest = (t, alert["dia_source_id"]) >= (state["last_mjd_tai"], state["last_dia_source_id"])
    later = {name: alert[name] for name in _NEWEST} if newest else {}
    if newest:
        later |= {"last_mjd_tai": t, "last_dia_source_id": alert["dia_source_id"]}
    return {
        **state,
        **later,
        "first_mjd_tai": min(state["first_mjd_tai"], t),
        "n_alerts": state["n_alerts"] + is_new,
    }


def _existing(connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, Row]:
    table = tables.objects
    return {
        (row["survey"], row["object_id"]): dict(row)
        for mine in of_keys(table.c.object_id, keys)
        for row in connection.execute(sa.select(table).where(mine)).mappings()
    }
