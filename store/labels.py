"""The label ledger and the queue of requests that labels answer.

Labels are only ever added: several reporters may disagree, and one may correct himself. Which
class an object has now is a fold over its labels: the most confident one counts (one without
confidence as 0.5), among equals the newest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from store.tables import label_requests, labels

UNSTATED_CONFIDENCE: Final = 0.5


def report_label(
    connection: sa.Connection,
    *,
    object_id: int,
    class_id: int,
    reporter: str,
    now_ms: int,
    instrument: str | None = None,
    confidence: float | None = None,
    redshift: float | None = None,
    observed_mjd_tai: float | None = None,
    comment: str | None = None,
) -> int:
    """Add a label to the ledger; answers the request for the object, if there is one.

    Parameters
    ----------
    connection
        A transaction that may write.
    object_id
        The object; it need not be known yet.
    class_id
        Its class, of the DESC taxonomy.
    reporter
        Who says so.
    now_ms
        Time of the report, milliseconds since 1970 UTC.
    instrument, redshift, observed_mjd_tai, comment
        What the spectrum came with.
    confidence
        From 0 to 1; None where the reporter does not say.

    Returns
    -------
    int
        The label's id.

    Raises
    ------
    ValueError
        The confidence is not between 0 and 1.
    """
    if confidence is not None and not 0 <= confidence <= 1:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1")
    request = sa.select(label_requests.c.request_id).where(label_requests.c.object_id == object_id)
    row = labels.insert().values(
        object_id=object_id,
        class_id=class_id,
        reporter=reporter,
        instrument=instrument,
        confidence=confidence,
        redshift=redshift,
        observed_mjd_tai=observed_mjd_tai,
        comment=comment,
        request_id=request.scalar_subquery(),
        reported_ms=now_ms,
    )
    label_id: int = connection.execute(row.returning(labels.c.label_id)).scalar_one()
    return label_id


def current_label() -> sa.Subquery:
    """The one label of every object that counts: all columns of ``labels``, to join with.

    That is a label than which none is better: a join by object reads that object's labels alone,
    where a window over the ledger would read all of it for each question.
    """
    other = labels.alias("other")
    own, others = (
        sa.func.coalesce(table.c.confidence, UNSTATED_CONFIDENCE) for table in (labels, other)
    )
    newer = sa.and_(others == own, other.c.label_id > labels.c.label_id)
    better = sa.and_(other.c.object_id == labels.c.object_id, sa.or_(others > own, newer))
    return sa.select(labels).where(~sa.exists().where(better)).subquery("current_label")


def current_labels(connection: sa.Connection) -> dict[int, int]:
    """Class of every object that has a label: object_id to class_id."""
    current = current_label()
    query = sa.select(current.c.object_id, current.c.class_id)
    return dict(connection.execute(query).all())


def label_history(connection: sa.Connection, object_id: int) -> Sequence[sa.RowMapping]:
    """Every label of an object, oldest first."""
    query = sa.select(labels).where(labels.c.object_id == object_id).order_by(labels.c.label_id)
    return connection.execute(query).mappings().all()


def label_queue(
    connection: sa.Connection, *, only_open: bool = True, limit: int = 100
) -> Sequence[sa.RowMapping]:
    """Requests for spectra, the newest night first and within it the most useful first.

    Parameters
    ----------
    connection
        Any transaction.
    only_open
        Leave out the requests whose object has a label.
    limit
        Largest number of rows.

    Returns
    -------
    sequence of mapping
        The columns of ``label_requests``, ``answered`` (bool) and ``answer`` (class_id or None).
    """
    current = current_label()
    answered = current.c.label_id.is_not(None)
    query = (
        sa.select(label_requests, answered.label("answered"), current.c.class_id.label("answer"))
        .join_from(
            label_requests,
            current,
            current.c.object_id == label_requests.c.object_id,
            isouter=True,
        )
        .order_by(
            label_requests.c.night.desc(),
            label_requests.c.utility.desc(),
            label_requests.c.request_id,
        )
        .limit(limit)
    )
    return connection.execute(query.where(~answered) if only_open else query).mappings().all()
