"""Prove that every offset is accounted for, from the tables and the topic.

For every run, topic and partition the accounted ranges must follow each other without gap or
overlap; every range must add up (read = classified + not evaluated + duplicate + rejected) to as
many offsets as it spans, less those that Kafka had removed before, which are reported; and each of the
offsets must be in exactly one of the tables. If the broker is available, offsets that are not accounted for
up to a partition's end count as waiting; those of them that Kafka has removed are reported, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from store import tables
from store.accounting_queries import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_OUTCOMES: Final = tuple(f"n_{outcome}" for outcome in OUTCOMES)
_SUMMED: Final = ("n_read", *_OUTCOMES, "n_lost")


@dataclass(frozen=True)
class PartitionAudit:
    """One partition of one run.

    Attributes
    ----------
    run_id, topic, partition
        Which partition, of which run.
    start_offset, end_offset
        The offsets that the run has accounted for.
    n_read, n_classified, n_not_evaluated, n_duplicate, n_rejected
        Sums over its batches.
    n_lost
        Offsets that Kafka had removed before they were read.
    n_stored
        Offsets of that span that are in one of the three tables.
    n_waiting
        Offsets in the topic that are not accounted for yet; None if no broker was queried.
    problems
        One text per problem; empty if there are none.
    """

    run_id: str
    topic: str
    partition: int
    start_offset: int
    end_offset: int
    n_read: int
    n_classified: int
    n_not_evaluated: int
    n_duplicate: int
    n_rejected: int
    n_lost: int
    n_stored: int
    n_waiting: int | None
    problems: tuple[str, ...]


def audit(
    connection: sa.Connection,
    ends: Mapping[tuple[str, int], tuple[int, int]] | None = None,
    *,
    since_ms: int = 0,
    until_ms: int | None = None,
) -> list[PartitionAudit]:
    """Audit the batches that were committed within [`since_ms`, `until_ms`), and those between them.

    Parameters
    ----------
    connection
        The database.
    ends
        (topic, partition) to (first, one past last offset) in Kafka, from
        :class:`stream.consumer.Watermarks`; None to audit the tables alone.
    since_ms, until_ms
        Wall-clock bounds on the commit.

    Returns
    -------
    list of PartitionAudit
        One for each run and partition, and for each partition that no run has read ("-" for a run,
        all waiting); the audit passes if none has a problem.
    """
    parts = [
        _audit_partition(connection, rows, ends)
        for rows in _accounts(connection, since_ms, until_ms)
    ]
    seen = {(part.topic, part.partition) for part in parts}
    unread = sorted(set(ends or {}) - seen)
    return parts + [_never_read(*key, *(ends or {})[key]) for key in unread]


def _never_read(topic: str, partition: int, low: int, high: int) -> PartitionAudit:
    none = dict.fromkeys(_SUMMED, 0)
    return PartitionAudit(
        "-", topic, partition, low, low, **none, n_stored=0, n_waiting=high - low, problems=()
    )


def _accounts(
    connection: sa.Connection, since_ms: int, until_ms: int | None
) -> Iterator[Sequence[sa.Row[Any]]]:
    table = tables.accounting.c
    query = sa.select(tables.accounting)
    if since_ms > 0 or until_ms is not None:
        first_to_last = _batches_within(since_ms, until_ms)
        inside = table.batch_id.between(first_to_last.c.first, first_to_last.c.last)
        query = query.join(first_to_last, sa.and_(table.run_id == first_to_last.c.run_id, inside))
    order = (table.run_id, table.topic, table.kafka_partition, table.start_offset)
    group: list[sa.Row[Any]] = []
    for row in connection.execute(query.order_by(*order)):
        if group and (row.run_id, row.topic, row.kafka_partition) != _key(group[0]):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _batches_within(since_ms: int, until_ms: int | None) -> sa.Subquery:
    """Return each run's first and last batch of a time range.

    All batches between them belong to the range, whatever their own times: otherwise a clock that was
    set back would leave a gap.
    """
    table = tables.accounting.c
    numbers = sa.func.min(table.batch_id).label("first"), sa.func.max(table.batch_id).label("last")
    query = sa.select(table.run_id, *numbers).where(table.committed_ms >= since_ms)
    if until_ms is not None:
        query = query.where(table.committed_ms < until_ms)
    return query.group_by(table.run_id).subquery()


def _key(row: sa.Row[Any]) -> tuple[str, str, int]:
    return row.run_id, row.topic, row.kafka_partition


def _audit_partition(
    connection: sa.Connection,
    rows: Sequence[sa.Row[Any]],
    ends: Mapping[tuple[str, int], tuple[int, int]] | None,
) -> PartitionAudit:
    run_id, topic, partition = _key(rows[0])
    start, end = rows[0].start_offset, rows[-1].end_offset
    stored = sum(
        _stored(connection, table, topic, partition, start, end) for table in tables.HOLDING
    )
    problems = [*_broken_chain(rows), *_broken_sums(connection, rows)]
    sums = {name: sum(getattr(row, name) for row in rows) for name in _SUMMED}
    if stored != (expected := end - start - sums["n_lost"]):
        problems.append(f"{expected} offsets accounted for, {stored} in the tables")
    waiting = None
    if ends is not None and (topic, partition) in ends:
        waiting = ends[topic, partition][1] - end
        low = ends[topic, partition][0]
        if low > end == _furthest(connection, topic, partition):
            problems.append(f"offsets {end} to {low - 1} are gone from the topic, unread")
        if waiting < 0:
            problems.append(f"accounted up to {end}, but the topic ends at {end + waiting}")
    return PartitionAudit(
        run_id,
        topic,
        partition,
        start,
        end,
        **sums,
        n_stored=stored,
        n_waiting=waiting,
        problems=tuple(problems),
    )


def _furthest(connection: sa.Connection, topic: str, partition: int) -> int | None:
    """Return how far any run, at any time, has read a partition."""
    table = tables.accounting.c
    of_partition = sa.and_(table.topic == topic, table.kafka_partition == partition)
    furthest: int | None = connection.execute(
        sa.select(sa.func.max(table.end_offset)).where(of_partition)
    ).scalar()
    return furthest


def _broken_chain(rows: Sequence[sa.Row[Any]]) -> Iterator[str]:
    for before, after in pairwise(rows):
        if after.start_offset > before.end_offset:
            yield f"offsets {before.end_offset} to {after.start_offset - 1} are in no batch"
        elif after.start_offset < before.end_offset:
            yield f"batches {before.batch_id} and {after.batch_id} overlap at offset {after.start_offset}"


def _broken_sums(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> Iterator[str]:
    for row in rows:
        parts = sum(getattr(row, name) for name in _OUTCOMES)
        if row.n_read != parts:
            yield f"batch {row.batch_id}: {row.n_read} read, {parts} accounted for"
        n_offsets = row.end_offset - row.start_offset - row.n_lost
        if row.n_read != n_offsets:
            yield f"batch {row.batch_id}: {n_offsets} offsets, {row.n_read} read"
        if row.n_lost:
            lost = ", ".join(
                f"{first} to {end - 1}" for first, end in lost_offsets(connection, row)
            )
            yield f"offsets {lost} were gone from the topic before they were read"


def lost_offsets(connection: sa.Connection, row: sa.Row[Any]) -> list[tuple[int, int]]:
    """Return which offsets ``[first, end)`` of a row of the accounting are in no table.

    Kafka had removed them. Removed offsets that looking ahead had classified are in a table: not returned.
    """
    inside = row.topic, row.kafka_partition, row.start_offset, row.end_offset
    stored = sorted(
        offset
        for table in tables.HOLDING
        for offset in connection.execute(
            sa.select(table.c.kafka_offset).where(tables.within(table, *inside))
        ).scalars()
    )
    edges = pairwise([row.start_offset - 1, *stored, row.end_offset])
    return [(before + 1, after) for before, after in edges if before + 1 < after]


def _stored(
    connection: sa.Connection, table: sa.Table, topic: str, partition: int, start: int, end: int
) -> int:
    inside = tables.within(table, topic, partition, start, end)
    query = sa.select(sa.func.count()).select_from(table).where(inside)
    return int(connection.execute(query).scalar_one())
