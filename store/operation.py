"""What says how the live path is doing: aggregates over the accounting, cheap where alerts are many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from store.queries import newest_batch
from store.tables import accounting, label_requests, labels


def read_positions(connection: sa.Connection, run_id: str) -> dict[tuple[str, int], int]:
    """One past the last offset that a run has accounted for, by (topic, partition)."""
    table = accounting.c
    query = (
        sa.select(table.topic, table.kafka_partition, sa.func.max(table.end_offset))
        .where(table.run_id == run_id)
        .group_by(table.topic, table.kafka_partition)
    )
    return {(topic, partition): end for topic, partition, end in connection.execute(query)}


@dataclass(frozen=True)
class Books:
    """The sums of the accounting.

    Attributes
    ----------
    read, classified, not_evaluated, duplicate, rejected
        Alerts by what came of them.
    lost
        Offsets that Kafka had removed before they were read.
    imbalance
        Alerts that do not add up: read in a batch but with no outcome, or the other way round; and
        offsets that a range spans but that were neither read nor lost. 0, or the audit names them.
    """

    read: int = 0
    classified: int = 0
    not_evaluated: int = 0
    duplicate: int = 0
    rejected: int = 0
    lost: int = 0
    imbalance: int = 0


OUTCOMES = ("classified", "not_evaluated", "duplicate", "rejected")


def books(connection: sa.Connection) -> Books:
    """Sum the accounting up: one row per batch and partition."""
    table = accounting.c
    explained = sum((table[f"n_{name}"] for name in OUTCOMES), start=sa.literal(0))
    spanned = table.end_offset - table.start_offset - table.n_lost
    sums: list[sa.ColumnElement[Any]] = [
        sa.func.sum(table[f"n_{name}"]) for name in ("read", *OUTCOMES, "lost")
    ]
    sums.append(
        sa.func.sum(sa.func.abs(table.n_read - explained) + sa.func.abs(table.n_read - spanned))
    )
    row = connection.execute(sa.select(*(sa.func.coalesce(each, 0) for each in sums))).one()
    return Books(*(int(value) for value in row))


@dataclass(frozen=True)
class LastBatch:
    """The newest batch of any run.

    Attributes
    ----------
    committed_ms
        When it was committed, milliseconds since 1970 UTC.
    n_read
        How many alerts it had.
    model_version
        What scored it; empty where nothing was readable.
    """

    committed_ms: int
    n_read: int
    model_version: str


def last_batch(connection: sa.Connection) -> LastBatch | None:
    """The newest batch; None where there is none yet."""
    table = accounting.c
    newest = newest_batch(connection)
    if newest is None:
        return None
    query = sa.select(
        sa.func.max(table.committed_ms), sa.func.sum(table.n_read), sa.func.max(table.model_version)
    ).where(table.run_id == newest.run_id, table.batch_id == newest.batch_id)
    committed_ms, n_read, version = connection.execute(query).one()
    return LastBatch(int(committed_ms), int(n_read), str(version))


@dataclass(frozen=True)
class RequestQueue:
    """Requests for spectra.

    Attributes
    ----------
    n_made
        All that were ever made.
    n_open
        Those whose object has no label yet.
    oldest_ms
        When the oldest open one was made, milliseconds since 1970 UTC; None where none is open.
    """

    n_made: int
    n_open: int
    oldest_ms: int | None


def request_queue(connection: sa.Connection) -> RequestQueue:
    """How long the queue is, and how old."""
    answered = sa.exists().where(labels.c.object_id == label_requests.c.object_id)
    waiting = (
        sa.select(sa.func.count(), sa.func.min(label_requests.c.requested_ms))
        .select_from(label_requests)
        .where(~answered)
    )
    n_open, oldest = connection.execute(waiting).one()
    made = sa.select(sa.func.count()).select_from(label_requests)
    return RequestQueue(connection.execute(made).scalar_one(), n_open, oldest)
