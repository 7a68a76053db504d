"""Queries about the live path: what was read, with which outcome, how quickly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from store.keys import of_batch
from store.request_queries import n_labels, request_queue
from store.tables import accounting, classifications, duplicates, rejected

OUTCOMES: Final = ("classified", "not_evaluated", "duplicate", "rejected")


@dataclass(frozen=True)
class Counts:
    """Counts of everything that was read, by outcome, over all runs.

    Attributes
    ----------
    scored, duplicates
        Alerts that have a score; offsets that repeated an alert.
    not_evaluated, rejected
        Reason code to number: alerts without a score, packets that could not be read.
    queue_open, labels
        Open requests; labels in the ledger.
    """

    scored: int
    not_evaluated: Mapping[str, int]
    rejected: Mapping[str, int]
    duplicates: int
    queue_open: int
    labels: int

    @property
    def alerts(self) -> int:
        """Everything that was read."""
        not_scored = sum(self.not_evaluated.values()) + sum(self.rejected.values())
        return self.scored + not_scored + self.duplicates


def counts(connection: sa.Connection) -> Counts:
    """Count what the tables hold."""
    not_evaluated = by_reason(connection, classifications)
    return Counts(
        scored=_count(connection, classifications) - sum(not_evaluated.values()),
        not_evaluated=not_evaluated,
        rejected=by_reason(connection, rejected),
        duplicates=_count(connection, duplicates),
        queue_open=request_queue(connection).n_open,
        labels=n_labels(connection),
    )


def by_reason(connection: sa.Connection, table: sa.Table) -> dict[str, int]:
    """Reason to number of rows of ``classifications`` or ``rejected``; scored alerts have none."""
    reason = table.c.reason
    query = sa.select(reason, sa.func.count()).where(reason.is_not(None))
    return dict(connection.execute(query.group_by(reason).order_by(reason)).all())


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


@dataclass(frozen=True)
class Books:
    """The sums of the accounting.

    Attributes
    ----------
    read, classified, not_evaluated, duplicate, rejected
        Alerts by outcome.
    lost
        Offsets that Kafka removed before they were read.
    imbalance
        Alerts that do not add up: read in a batch but without an outcome, or outcomes without an alert;
        and offsets within a range that were neither read nor lost. 0, unless the audit names them.
    """

    read: int = 0
    classified: int = 0
    not_evaluated: int = 0
    duplicate: int = 0
    rejected: int = 0
    lost: int = 0
    imbalance: int = 0


def books(connection: sa.Connection) -> Books:
    """Sum the accounting: one row per batch and partition, so it is fast however many alerts there are."""
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


def read_positions(
    connection: sa.Connection, run_id: str | None = None
) -> dict[tuple[str, int], int]:
    """One past the last offset that a run, or any run, has accounted for, by (topic, partition)."""
    table = accounting.c
    query = (
        sa.select(table.topic, table.kafka_partition, sa.func.max(table.end_offset))
        .where(sa.true() if run_id is None else table.run_id == run_id)
        .group_by(table.topic, table.kafka_partition)
    )
    return {(topic, partition): end for topic, partition, end in connection.execute(query)}


def _newest_batch(connection: sa.Connection) -> Any:
    """Return run_id, batch_id and committed_ms of the last batch of the run that wrote last, or None.

    Batches of a run are ordered by their numbers, because the wall clock may have been set back.
    """
    table = accounting.c
    run_id = sa.select(table.run_id).order_by(table.committed_ms.desc()).limit(1).scalar_subquery()
    query = sa.select(table.run_id, table.batch_id, table.committed_ms)
    newest = query.where(table.run_id == run_id).order_by(table.batch_id.desc()).limit(1)
    return connection.execute(newest).first()


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
        Version of the model that scored it; empty if no alert was readable.
    """

    committed_ms: int
    n_read: int
    model_version: str


def last_batch(connection: sa.Connection) -> LastBatch | None:
    """The newest batch; None if there is none yet."""
    table = accounting.c
    newest = _newest_batch(connection)
    if newest is None:
        return None
    query = sa.select(
        sa.func.max(table.committed_ms), sa.func.sum(table.n_read), sa.func.max(table.model_version)
    )
    row = connection.execute(
        query.where(of_batch(accounting, newest.run_id, newest.batch_id))
    ).one()
    committed_ms, n_read, version = row
    return LastBatch(int(committed_ms), int(n_read), str(version))


def batch_latency_s(connection: sa.Connection) -> tuple[float, float] | None:
    """Return median and 99th percentile of the newest batch's latency, in seconds.

    From Kafka's time stamp of the alert to the commit of its row; 0 if the two clocks differ so much that
    it would be negative. None before the first batch.
    """
    newest = _newest_batch(connection)
    if newest is None:
        return None
    mine = of_batch(classifications, newest.run_id, newest.batch_id)
    query = sa.select(classifications.c.arrival_ms).where(mine)
    arrivals = connection.execute(query).scalars().all()
    if not arrivals:
        return None
    waited = np.maximum(newest.committed_ms - np.array(arrivals), 0) / 1000.0
    return float(np.median(waited)), float(np.quantile(waited, 0.99))


def rejected_packets(connection: sa.Connection, reason: str | None = None) -> Iterator[bytes]:
    """Original bytes of the packets that were rejected, in the order in which they were read.

    Parameters
    ----------
    connection
        Any transaction; it has to stay open while the packets are iterated.
    reason
        Only those with this reason code.
    """
    key = (rejected.c.topic, rejected.c.kafka_partition, rejected.c.kafka_offset)
    wanted = sa.true() if reason is None else rejected.c.reason == reason
    places = connection.execute(sa.select(*key).where(wanted).order_by(*key)).all()
    for place in places:  # one packet at a time: together they may not fit into memory
        here = sa.and_(*(column == value for column, value in zip(key, place, strict=True)))
        yield connection.execute(sa.select(rejected.c.packet).where(here)).scalar_one()
