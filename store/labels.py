"""The label ledger.

Labels are only added, never changed: reporters may disagree, and may correct themselves. The current
class of an object is a fold over its labels: the most confident one counts (a label without
confidence as 0.5), and among equals the newest.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from store import ledgers, requests
from store.keys import is_key
from store.tables import label_requests, labels

UNSTATED_CONFIDENCE: Final = 0.5


def report_label(
    connection: sa.Connection,
    *,
    survey: str,
    object_id: int,
    class_id: int,
    reporter: str,
    now_ms: int,
    instrument: str | None = None,
    confidence: float | None = None,
    redshift: float | None = None,
    observed_mjd_tai: float | None = None,
    comment: str | None = None,
    request_id: int | None = None,
) -> int:
    """Add a label to the ledger; this closes every open request for the object as answered.

    Parameters
    ----------
    connection
        A transaction that may write.
    survey, object_id
        The object; it need not be known yet.
    class_id
        Its class, of the DESC taxonomy.
    reporter
        Who reports it.
    now_ms
        Time of the report, milliseconds since 1970 UTC.
    instrument, redshift, observed_mjd_tai, comment
        Facts about the spectrum.
    confidence
        From 0 to 1; None if the reporter does not say.
    request_id
        The request that led to it; the first one for the object by default.

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
    first = sa.select(sa.func.min(label_requests.c.request_id)).where(
        is_key(label_requests.c.object_id, survey, object_id)
    )
    row = labels.insert().values(
        survey=survey,
        object_id=object_id,
        class_id=class_id,
        reporter=reporter,
        instrument=instrument,
        confidence=confidence,
        redshift=redshift,
        observed_mjd_tai=observed_mjd_tai,
        comment=comment,
        request_id=first.scalar_subquery() if request_id is None else request_id,
        reported_ms=now_ms,
    )
    label_id: int = connection.execute(row.returning(labels.c.label_id)).scalar_one()
    why = f"label {label_id}"
    requests.answer(connection, survey, object_id, who=reporter, at_ms=now_ms, why=why)
    return label_id


def is_current() -> sa.ColumnElement[bool]:
    """The condition that a row of ``labels`` is the one that counts for its object."""
    return ledgers.is_current(
        labels,
        ["survey", "object_id"],
        lambda ledger: sa.func.coalesce(ledger.c.confidence, UNSTATED_CONFIDENCE),
    )


def current_label() -> sa.Subquery:
    """A subquery with the label that counts for each object: all columns of ``labels``, to join with."""
    return sa.select(labels).where(is_current()).subquery("current_label")
