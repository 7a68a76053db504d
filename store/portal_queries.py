"""What the portal asks beyond `store.queries`: rankings, newest alerts, totals, scores so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa

from store.labels import current_label
from store.tables import (
    accounting,
    classifications,
    label_requests,
    labels,
    objects,
    rejected,
)

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
        As :func:`store.queries.newest_objects`.
    """
    current, value = current_label(), objects.c[ranking]
    query = (
        sa.select(objects, current.c.class_id.label("label"))
        .join_from(objects, current, current.c.object_id == objects.c.object_id, isouter=True)
        .where(value.is_not(None))
        .order_by(value.desc(), objects.c.object_id)
        .limit(limit)
    )
    if class_id is not None:
        query = query.where(objects.c.class_id == class_id)
    return connection.execute(query).mappings().all()


def with_newest_alert(connection: sa.Connection, rows: Sequence[AnyRow]) -> list[Row]:
    """Rows of ``objects``, each with `ALERT_COLUMNS` of its newest alert; null where it is gone.

    Takes at most 10,000 rows: each is a parameter of the query.
    """
    wanted = [row["last_dia_source_id"] for row in rows]
    columns = [classifications.c[name] for name in ("dia_source_id", *ALERT_COLUMNS)]
    query = sa.select(*columns).where(classifications.c.dia_source_id.in_(wanted))
    found = {row["dia_source_id"]: row for row in connection.execute(query).mappings()}
    nothing = dict.fromkeys(ALERT_COLUMNS)
    return [
        {**row, **{name: found.get(row["last_dia_source_id"], nothing)[name] for name in nothing}}
        for row in rows
    ]


def objects_of(connection: sa.Connection, object_ids: Sequence[int]) -> dict[int, Row]:
    """Objects by id, each with its newest alert; unknown ids are left out."""
    query = sa.select(objects).where(objects.c.object_id.in_(object_ids))
    rows = connection.execute(query).mappings().all()
    return {row["object_id"]: row for row in with_newest_alert(connection, rows)}


def request_of(connection: sa.Connection, object_id: int) -> sa.RowMapping | None:
    """The request for a spectrum of an object, answered or not; None where there is none."""
    query = sa.select(label_requests).where(label_requests.c.object_id == object_id)
    return connection.execute(query).mappings().first()


def newest_labels(connection: sa.Connection, limit: int) -> Sequence[sa.RowMapping]:
    """The labels that came back last, the newest first."""
    query = sa.select(labels).order_by(labels.c.label_id.desc()).limit(limit)
    return connection.execute(query).mappings().all()


def label_row(connection: sa.Connection, label_id: int) -> sa.RowMapping:
    """One label of the ledger.

    Raises
    ------
    sqlalchemy.exc.NoResultFound
        There is no such label.
    """
    query = sa.select(labels).where(labels.c.label_id == label_id)
    return connection.execute(query).mappings().one()


@dataclass(frozen=True)
class Totals:
    """What came of everything that was read, by outcome; the sums of ``accounting``."""

    read: int
    classified: int
    not_evaluated: int
    duplicate: int
    rejected: int


def totals(connection: sa.Connection) -> Totals:
    """Sum the accounting: one row per batch and partition, so quick where alerts are many."""
    names = ("n_read", "n_classified", "n_not_evaluated", "n_duplicate", "n_rejected")
    sums = [sa.func.coalesce(sa.func.sum(accounting.c[name]), 0) for name in names]
    return Totals(*(int(value) for value in connection.execute(sa.select(*sums)).one()))


def rejects_by_reason(connection: sa.Connection) -> dict[str, int]:
    """How many packets were rejected, by reason code."""
    query = sa.select(rejected.c.reason, sa.func.count()).group_by(rejected.c.reason)
    query = query.order_by(rejected.c.reason)
    return {reason: count for reason, count in connection.execute(query)}  # noqa: C416 - typed


def n_open_requests(connection: sa.Connection) -> int:
    """How many requests have no label yet."""
    answered = sa.exists().where(labels.c.object_id == label_requests.c.object_id)
    query = sa.select(sa.func.count()).select_from(label_requests).where(~answered)
    return connection.execute(query).scalar_one()


def n_labels(connection: sa.Connection) -> int:
    """How many labels the ledger holds."""
    return connection.execute(sa.select(sa.func.count()).select_from(labels)).scalar_one()


def scores_before_labels(
    connection: sa.Connection, model_version: str
) -> list[tuple[int, dict[int, float]]]:
    """What a model said of every labelled object just before the object's first label.

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
    first = (
        sa.select(labels.c.object_id, sa.func.min(labels.c.reported_ms).label("reported_ms"))
        .group_by(labels.c.object_id)
        .subquery("first_label")
    )
    current = current_label()
    rank = sa.func.row_number().over(
        partition_by=classifications.c.object_id,
        order_by=(classifications.c.t_mjd_tai.desc(), classifications.c.dia_source_id.desc()),
    )
    scored = (
        sa.select(current.c.class_id, classifications.c.probabilities, rank.label("rank"))
        .join_from(first, current, current.c.object_id == first.c.object_id)
        .join(classifications, classifications.c.object_id == first.c.object_id)
        .where(
            classifications.c.model_version == model_version,
            classifications.c.probabilities.is_not(None),
            classifications.c.processed_ms <= first.c.reported_ms,
        )
        .subquery("scored")
    )
    query = sa.select(scored.c.class_id, scored.c.probabilities).where(scored.c.rank == 1)
    return [
        (class_id, {int(key): p for key, p in probabilities.items()})
        for class_id, probabilities in connection.execute(query)
    ]
