"""Queries about requests for spectra and the labels that answer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from store.keys import Key, is_key
from store.labels import current_label, is_current
from store.requests import current_event, is_open
from store.tables import label_requests, labels, request_events

Rows = Sequence[sa.RowMapping]


def label_queue(
    connection: sa.Connection,
    *,
    only_open: bool = True,
    limit: int = 100,
    program: str | None = None,
) -> Rows:
    """Requests for spectra, the newest night first and within it the most useful first.

    Parameters
    ----------
    connection
        Any transaction.
    only_open
        Leave out the requests that were answered, withdrawn or have expired.
    limit
        Largest number of rows.
    program
        Only requests of this program.

    Returns
    -------
    sequence of mapping
        The columns of ``label_requests``; ``state``, ``state_who``, ``state_ms`` and ``state_why`` of
        the event that counts; ``answered`` (bool) and ``answer`` (class_id or None).
    """
    table = label_requests.c
    order = table.night.desc(), table.utility.desc(), table.request_id
    chosen = sa.select(table.request_id).order_by(*order).limit(limit).correlate(None)
    if only_open:
        chosen = chosen.where(is_open())
    if program is not None:
        chosen = chosen.where(table.program == program)
    query = _requests().where(table.request_id.in_(chosen)).order_by(*order)
    return connection.execute(query).mappings().all()


def requests_of(connection: sa.Connection, survey: str, object_id: int) -> Rows:
    """The requests for an object as in `label_queue`, open or not, the oldest first."""
    query = _requests().where(is_key(label_requests.c.object_id, survey, object_id))
    return connection.execute(query.order_by(label_requests.c.request_id)).mappings().all()


def _requests() -> sa.Select[Any]:
    state, label, table = current_event(), current_label(), label_requests.c
    answered = state.c.event == "answered"
    labelled = sa.and_(label.c.survey == table.survey, label.c.object_id == table.object_id)
    return (
        sa.select(
            label_requests,
            state.c.event.label("state"),
            state.c.who.label("state_who"),
            state.c.at_ms.label("state_ms"),
            state.c.why.label("state_why"),
            answered.label("answered"),
            sa.case((answered, label.c.class_id)).label("answer"),
        )
        .join_from(label_requests, state, state.c.request_id == table.request_id)
        .join(label, labelled, isouter=True)
    )


def event_history(connection: sa.Connection, request_ids: Sequence[int]) -> Rows:
    """Every event of these requests, oldest first."""
    mine = request_events.c.request_id.in_(request_ids)
    query = sa.select(request_events).where(mine).order_by(request_events.c.event_id)
    return connection.execute(query).mappings().all()


@dataclass(frozen=True)
class RequestQueue:
    """Requests for spectra.

    Attributes
    ----------
    n_made
        All that were ever made.
    n_open
        Those that are open.
    oldest_ms
        When the oldest open one was made, milliseconds since 1970 UTC; None if none is open.
    """

    n_made: int
    n_open: int
    oldest_ms: int | None


def request_queue(connection: sa.Connection) -> RequestQueue:
    """The length of the queue, and the age of its oldest request."""
    waiting = sa.select(sa.func.count(), sa.func.min(label_requests.c.requested_ms))
    n_open, oldest = connection.execute(waiting.select_from(label_requests).where(is_open())).one()
    made = sa.select(sa.func.count()).select_from(label_requests)
    return RequestQueue(connection.execute(made).scalar_one(), n_open, oldest)


def current_labels(connection: sa.Connection) -> dict[Key, int]:
    """Class of every object that has a label: (survey, object_id) to class_id."""
    current = current_label()
    query = sa.select(current.c.survey, current.c.object_id, current.c.class_id)
    return {
        (survey, object_id): class_id for survey, object_id, class_id in connection.execute(query)
    }


def label_history(connection: sa.Connection, survey: str, object_id: int) -> Rows:
    """Every label of an object, oldest first; ``current`` says which one counts."""
    query = _labels().where(is_key(labels.c.object_id, survey, object_id))
    return connection.execute(query.order_by(labels.c.label_id)).mappings().all()


def newest_labels(connection: sa.Connection, limit: int) -> Rows:
    """The newest labels, the newest first."""
    query = _labels().order_by(labels.c.label_id.desc()).limit(limit)
    return connection.execute(query).mappings().all()


def label_row(connection: sa.Connection, label_id: int) -> sa.RowMapping:
    """One label of the ledger.

    Raises
    ------
    sqlalchemy.exc.NoResultFound
        There is no such label.
    """
    return connection.execute(_labels().where(labels.c.label_id == label_id)).mappings().one()


def _labels() -> sa.Select[Any]:
    return sa.select(labels, is_current().label("current"))


def n_labels(connection: sa.Connection) -> int:
    """The number of labels in the ledger."""
    return connection.execute(sa.select(sa.func.count()).select_from(labels)).scalar_one()
