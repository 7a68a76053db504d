"""Queries about objects: the newest and strangest, one of them, a region of the sky, scores so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import sqlalchemy as sa

from lightcurves.errors import ConfigurationError
from lightcurves.surveys import SURVEYS
from store.keys import Key, is_key, of_keys
from store.labels import current_label
from store.sky import cone_ranges, separation_deg
from store.tables import classifications, labels, objects

ARCSEC_PER_DEG: Final = 3600.0

Row = dict[str, Any]
AnyRow = Mapping[str, Any] | sa.RowMapping
Ranking = Literal["novelty", "entropy"]

ALERT_COLUMNS: Final = (
    "band",
    "flux_njy",
    "sigma_njy",
    "days_since_first_detection",
    "reason",
    "prediction_set",
)
"""What `with_newest_alert` adds to a row of ``objects``."""


def key_of_object(row: AnyRow) -> Key:
    """Survey and object_id of a row of any table that has them."""
    return row["survey"], row["object_id"]


def newest_objects(
    connection: sa.Connection, limit: int, *, class_id: int | None = None, offset: int = 0
) -> Sequence[sa.RowMapping]:
    """Objects by the time of their last alert, the newest first.

    Parameters
    ----------
    connection
        Any transaction.
    limit, offset
        How many rows to return, and how many to skip before them.
    class_id
        Only objects whose most probable class is this one.

    Returns
    -------
    sequence of mapping
        The columns of ``objects``, and ``label``: the class_id of the current label, or None.
    """
    query = _largest(objects.c.last_mjd_tai, class_id).limit(limit).offset(offset)
    return connection.execute(query).mappings().all()


def ranked_objects(
    connection: sa.Connection, ranking: Ranking, limit: int, *, class_id: int | None = None
) -> Sequence[sa.RowMapping]:
    """Objects with the largest novelty or entropy first; those without a score are left out.

    Parameters
    ----------
    connection
        Any transaction.
    ranking
        The column to rank by.
    limit
        Largest number of rows.
    class_id
        Only objects whose most probable class is this one.

    Returns
    -------
    sequence of mapping
        As :func:`newest_objects`.
    """
    value = objects.c[ranking]
    query = _largest(value, class_id).where(value.is_not(None)).limit(limit)
    return connection.execute(query).mappings().all()


def _largest(column: sa.Column[Any], class_id: int | None) -> sa.Select[Any]:
    order = column.desc(), objects.c.object_id, objects.c.survey
    query = _labelled_objects().order_by(*order)
    return query if class_id is None else query.where(objects.c.class_id == class_id)


def _labelled_objects() -> sa.Select[Any]:
    current = current_label()
    same = sa.and_(current.c.survey == objects.c.survey, current.c.object_id == objects.c.object_id)
    return sa.select(objects, current.c.class_id.label("label")).join_from(
        objects, current, same, isouter=True
    )


def surveys_of(connection: sa.Connection, object_id: int) -> list[str]:
    """The surveys that have an object with this id, by name."""
    mine = sa.and_(objects.c.survey.in_(SURVEYS), objects.c.object_id == object_id)
    query = sa.select(objects.c.survey).where(mine).order_by(objects.c.survey)
    return list(connection.execute(query).scalars())


class SurveyNeededError(ConfigurationError):
    """The number of an object does not say which object is meant.

    Parameters
    ----------
    object_id
        The number.
    surveys
        The surveys that have an object of this number: none, or several.
    """

    def __init__(self, object_id: int, surveys: list[str]) -> None:
        some = (
            f"several surveys have an object {object_id}: add --survey, one of {', '.join(surveys)}"
        )
        none = f"no alert of object {object_id} has been read: add --survey if the number is right"
        super().__init__(some if surveys else none)
        self.object_id = object_id
        self.surveys = surveys


def survey_of(connection: sa.Connection, object_id: int, survey: str | None) -> str:
    """The survey of an object: the given one, or the only one that has an object of this id.

    Raises
    ------
    SurveyNeededError
        No survey has, or several have and none is given.
    """
    known = surveys_of(connection, object_id) if survey is None else [survey]
    if len(known) != 1:
        raise SurveyNeededError(object_id, known)
    return known[0]


def object_row(connection: sa.Connection, survey: str, object_id: int) -> sa.RowMapping | None:
    """One object as in `newest_objects`, or None."""
    return _rows_of(connection, [(survey, object_id)]).get((survey, object_id))


def objects_of(connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, Row]:
    """Objects by key as in `newest_objects`, each with its newest alert; unknown ones are left out."""
    rows = list(_rows_of(connection, keys).values())
    return {key_of_object(row): row for row in with_newest_alert(connection, rows)}


def _rows_of(connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, sa.RowMapping]:
    return {
        key_of_object(row): row
        for mine in of_keys(objects.c.object_id, keys)
        for row in connection.execute(_labelled_objects().where(mine)).mappings()
    }


def with_newest_alert(connection: sa.Connection, rows: Sequence[AnyRow]) -> list[Row]:
    """Rows of ``objects``, each with `ALERT_COLUMNS` of its newest alert; null if that is missing."""
    table = classifications.c
    columns = sa.select(*(table[name] for name in ("survey", "dia_source_id", *ALERT_COLUMNS)))
    wanted = [(row["survey"], row["last_dia_source_id"]) for row in rows]
    newest = {
        (alert["survey"], alert["dia_source_id"]): alert
        for mine in of_keys(table.dia_source_id, wanted)
        for alert in connection.execute(columns.where(mine)).mappings()
    }
    nothing = dict.fromkeys(ALERT_COLUMNS)
    return [
        {**row, **{name: newest.get(key, nothing)[name] for name in nothing}}
        for key, row in zip(wanted, rows, strict=True)
    ]


def object_history(
    connection: sa.Connection, survey: str, object_id: int
) -> Sequence[sa.RowMapping]:
    """Every alert of an object, scored or not, by its time."""
    query = (
        sa.select(classifications)
        .where(is_key(classifications.c.object_id, survey, object_id))
        .order_by(classifications.c.t_mjd_tai, classifications.c.dia_source_id)
    )
    return connection.execute(query).mappings().all()


def cone_search(
    connection: sa.Connection, ra_deg: float, dec_deg: float, radius_arcsec: float, limit: int
) -> list[Row]:
    """Objects within an angle of a position, the nearest first.

    Parameters
    ----------
    connection
        Any transaction.
    ra_deg, dec_deg
        The position: ICRS, degrees.
    radius_arcsec
        Largest angle between object and position, in arcseconds; up to half a turn.
    limit
        Largest number of rows.

    Returns
    -------
    list of dict
        As `newest_objects`, with ``separation_arcsec``.

    Raises
    ------
    ValueError
        The position or the radius is invalid.

    Notes
    -----
    Reads the positions of all objects in the cone before it sorts them: memory and time grow with
    the area, not with ``limit``.
    """
    near = _near(connection, ra_deg, dec_deg, radius_arcsec / ARCSEC_PER_DEG, limit)
    rows = _rows_of(connection, near)
    return [
        {**rows[key], "separation_arcsec": angle * ARCSEC_PER_DEG} for key, angle in near.items()
    ]


def _near(
    connection: sa.Connection, ra_deg: float, dec_deg: float, radius_deg: float, limit: int
) -> dict[Key, float]:
    """Keys of the nearest objects within the cone, nearest first, to their separation."""
    ranges = cone_ranges(ra_deg, dec_deg, radius_deg)
    inside = sa.or_(*(objects.c.healpix.between(first, last) for first, last in ranges))
    names = ("survey", "object_id", "ra_deg", "dec_deg")
    nearby = connection.execute(sa.select(*(objects.c[name] for name in names)).where(inside)).all()
    if not nearby:
        return {}
    surveys, ids, ra, dec = zip(*nearby, strict=True)
    angle = separation_deg(ra, dec, ra_deg, dec_deg)
    nearest = np.lexsort((surveys, np.asarray(ids), angle))[:limit]
    return {(surveys[i], ids[i]): float(angle[i]) for i in nearest if angle[i] <= radius_deg}


def scores_before_labels(
    connection: sa.Connection, model_version: str
) -> list[tuple[int, dict[int, float]]]:
    """A model's score of every labelled object just before the object's first label.

    Parameters
    ----------
    connection
        Any transaction.
    model_version
        The model.

    Returns
    -------
    list of (int, dict)
        The current label's class_id, and class_id to probability of the newest alert that this
        model had scored when the first label was reported. Objects that it had not scored by then
        are left out.
    """
    key, alerts = (labels.c.survey, labels.c.object_id), classifications.c
    first = (
        sa.select(*key, sa.func.min(labels.c.reported_ms).label("reported_ms"))
        .group_by(*key)
        .subquery("first_label")
    )
    current = current_label()

    def same(columns: Any) -> sa.ColumnElement[bool]:
        return sa.and_(columns.survey == first.c.survey, columns.object_id == first.c.object_id)

    rank = sa.func.row_number().over(
        partition_by=(alerts.survey, alerts.object_id),
        order_by=(alerts.t_mjd_tai.desc(), alerts.dia_source_id.desc()),
    )
    scored = (
        sa.select(current.c.class_id, alerts.probabilities, rank.label("rank"))
        .join_from(first, current, same(current.c))
        .join(classifications, same(alerts))
        .where(
            alerts.model_version == model_version,
            alerts.probabilities.is_not(None),
            alerts.processed_ms <= first.c.reported_ms,
        )
        .subquery("scored")
    )
    query = sa.select(scored.c.class_id, scored.c.probabilities).where(scored.c.rank == 1)
    return [
        (class_id, {int(key): p for key, p in probabilities.items()})
        for class_id, probabilities in connection.execute(query)
    ]
