"""The life of a request for a spectrum: events, which are only added, and the state they lead to.

The state of a request is the event that closed it, else its newest event. After an event that closes a
request, none can be added; a request that no event has closed is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from lightcurves.errors import ConfigurationError, NoctuleError
from store import ledgers
from store.keys import Key, is_key, of_keys
from store.tables import label_requests, labels, request_events

PROGRAM: Final = "noctule"
"""The program whose requests the stream makes; others may want the same objects."""

Report = Literal["seen", "claimed", "planned", "observed", "withdrawn", "expired"]
"""The events that anybody may report; noctule itself writes ``asked`` and ``answered``."""

CLOSING: Final = ("answered", "withdrawn", "expired")


class RefusedEventError(NoctuleError):
    """No event can be added to this request.

    Parameters
    ----------
    request_id
        Which.
    state
        The event that closed it; None where there is no such request.
    """

    def __init__(self, request_id: int, state: str | None) -> None:
        why = "there is no such request" if state is None else f"it is {state}, which closed it"
        super().__init__(f"request {request_id}: {why}")
        self.state = state


def is_open() -> sa.ColumnElement[bool]:
    """The condition that a row of ``label_requests`` is open: the one definition of *open*."""
    mine = request_events.c.request_id == label_requests.c.request_id
    return ~sa.exists().where(mine, request_events.c.event.in_(CLOSING))


def current_event() -> sa.Subquery:
    """The one event of every request that is its state: all columns of ``request_events``."""
    counts = ledgers.is_current(
        request_events,
        ["request_id"],
        lambda events: sa.case((events.c.event.in_(CLOSING), 1), else_=0),
    )
    return sa.select(request_events).where(counts).subquery("current_event")


def ask(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert requests with their event ``asked``; `rows` are of ``label_requests``.

    Raises
    ------
    sqlalchemy.exc.IntegrityError
        A program requests an object a second time.
    """
    if not rows:
        return
    insert = sa.insert(label_requests).returning(
        label_requests.c.request_id, sort_by_parameter_order=True
    )
    ids = connection.execute(insert, [dict(row) for row in rows]).scalars().all()
    events = [
        {
            "request_id": request_id,
            "event": "asked",
            "who": f"{row['strategy']} in run {row['run_id']}",
            "at_ms": row["requested_ms"],
            "why": row["why"],
        }
        for request_id, row in zip(ids, rows, strict=True)
    ]
    connection.execute(sa.insert(request_events), events)


def asked(connection: sa.Connection, keys: Iterable[Key], program: str) -> frozenset[Key]:
    """Return which of the objects are labelled, or have been asked for by the program."""
    ours, keys = label_requests.c.program == program, list(keys)
    return frozenset(
        (row.survey, row.object_id)
        for table, wanted in ((label_requests, ours), (labels, sa.true()))
        for mine in of_keys(table.c.object_id, keys)
        for row in connection.execute(
            sa.select(table.c.survey, table.c.object_id).where(mine, wanted)
        )
    )


def spent(connection: sa.Connection, nights: Iterable[int], program: str) -> dict[int, int]:
    """Return how many requests the program has made in each of the nights."""
    table = label_requests.c
    query = sa.select(sa.func.count()).select_from(label_requests)
    return {
        night: connection.execute(
            query.where(table.night == night, table.program == program)
        ).scalar_one()
        for night in nights
    }


def answer(
    connection: sa.Connection, survey: str, object_id: int, *, who: str, at_ms: int, why: str
) -> None:
    """Close every open request for an object, of whichever program: its spectrum was taken."""
    mine = is_key(label_requests.c.object_id, survey, object_id)
    _hold(connection, mine)
    given = (sa.literal(value) for value in ("answered", who, at_ms, why))
    rows = sa.select(label_requests.c.request_id, *given).where(mine, is_open())
    names = ["request_id", "event", "who", "at_ms", "why"]
    connection.execute(sa.insert(request_events).from_select(names, rows))


def append_event(
    connection: sa.Connection,
    request_id: int,
    event: str,
    *,
    who: str,
    at_ms: int,
    why: str | None = None,
) -> sa.RowMapping:
    """Record an event of a request; returns its row of ``request_events``.

    Parameters
    ----------
    connection
        A transaction that may write.
    request_id
        The request.
    event
        What happened, one of :data:`Report`.
    who
        Who reports it.
    at_ms
        When, milliseconds since 1970 UTC.
    why
        Free text.

    Raises
    ------
    RefusedEventError
        There is no such request, or it is closed.
    ConfigurationError
        There is no such event, or `who` is empty.
    """
    if event not in get_args(Report):
        raise ConfigurationError(f"no event {event!r}: choose one of {', '.join(get_args(Report))}")
    if not who.strip():
        raise ConfigurationError("an event needs the name of who reports it")
    _hold(connection, label_requests.c.request_id == request_id)
    current = current_event()
    state = sa.select(current.c.event).where(current.c.request_id == request_id)
    present: str | None = connection.execute(state).scalar()
    if present is None or present in CLOSING:
        raise RefusedEventError(request_id, present)
    row = sa.insert(request_events).values(
        request_id=request_id, event=event, who=who, at_ms=at_ms, why=why
    )
    return connection.execute(row.returning(request_events)).mappings().one()


def _hold(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Block others from adding events to these requests until the end of the transaction.

    SQLite has one writer at a time in any case.
    """
    rows = sa.select(label_requests.c.request_id).where(which)
    connection.execute(rows.with_for_update(key_share=True)).all()
