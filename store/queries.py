"""What people ask of the tables: the newest and strangest objects, one object, a piece of sky."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from store.labels import current_label
from store.sky import cone_ranges, separation_deg
from store.tables import (
    accounting,
    classifications,
    duplicates,
    label_requests,
    labels,
    objects,
    rejected,
)

ARCSEC_PER_DEG: Final = 3600.0
IDS_PER_QUERY: Final = 10_000  # SQLite takes 32,766 parameters, PostgreSQL 65,535


def newest_objects(
    connection: sa.Connection, limit: int, *, class_id: int | None = None, offset: int = 0
) -> Sequence[sa.RowMapping]:
    """Objects by the time of their last alert, the newest first.

    Parameters
    ----------
    connection
        Any transaction.
    limit, offset
        How many rows, and how many before them to pass over.
    class_id
        Only objects whose most probable class is this one.

    Returns
    -------
    sequence of mapping
        The columns of ``objects``, and ``label``: the class_id of the current label, or None.
    """
    query = _labelled_objects().order_by(objects.c.last_mjd_tai.desc(), objects.c.object_id)
    if class_id is not None:
        query = query.where(objects.c.class_id == class_id)
    return connection.execute(query.limit(limit).offset(offset)).mappings().all()


def object_row(connection: sa.Connection, object_id: int) -> sa.RowMapping | None:
    """One object as in `newest_objects`, or None."""
    query = _labelled_objects().where(objects.c.object_id == object_id)
    return connection.execute(query).mappings().first()


def object_history(connection: sa.Connection, object_id: int) -> Sequence[sa.RowMapping]:
    """Every alert of an object, scored or not, by its time."""
    query = (
        sa.select(classifications)
        .where(classifications.c.object_id == object_id)
        .order_by(classifications.c.t_mjd_tai, classifications.c.dia_source_id)
    )
    return connection.execute(query).mappings().all()


def cone_search(
    connection: sa.Connection, ra_deg: float, dec_deg: float, radius_arcsec: float, limit: int
) -> list[dict[str, Any]]:
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
        The position or the radius is none.

    Notes
    -----
    Reads the positions of all objects in the cone before it sorts them: memory and time grow with
    the area, not with ``limit``.
    """
    near = _near(connection, ra_deg, dec_deg, radius_arcsec / ARCSEC_PER_DEG, limit)
    rows = _rows_of(connection, list(near))
    return [
        {**rows[object_id], "separation_arcsec": angle * ARCSEC_PER_DEG}
        for object_id, angle in near.items()
    ]


def _near(
    connection: sa.Connection, ra_deg: float, dec_deg: float, radius_deg: float, limit: int
) -> dict[int, float]:
    """Ids of the nearest objects within the cone, nearest first, to their separation."""
    ranges = cone_ranges(ra_deg, dec_deg, radius_deg)
    inside = sa.or_(*(objects.c.healpix.between(first, last) for first, last in ranges))
    query = sa.select(objects.c.object_id, objects.c.ra_deg, objects.c.dec_deg).where(inside)
    found = connection.execute(query).all()
    if not found:
        return {}
    ids, ra, dec = zip(*found, strict=True)
    angle = separation_deg(ra, dec, ra_deg, dec_deg)
    nearest = np.lexsort((np.asarray(ids), angle))[:limit]
    return {ids[i]: float(angle[i]) for i in nearest if angle[i] <= radius_deg}


def _rows_of(connection: sa.Connection, ids: Sequence[int]) -> dict[int, sa.RowMapping]:
    rows: dict[int, sa.RowMapping] = {}
    for start in range(0, len(ids), IDS_PER_QUERY):
        chunk = ids[start : start + IDS_PER_QUERY]
        query = _labelled_objects().where(objects.c.object_id.in_(chunk))
        rows |= {row["object_id"]: row for row in connection.execute(query).mappings()}
    return rows


def _labelled_objects() -> sa.Select[Any]:
    current = current_label()
    return sa.select(objects, current.c.class_id.label("label")).join_from(
        objects, current, current.c.object_id == objects.c.object_id, isouter=True
    )


@dataclass(frozen=True)
class Counts:
    """What came of everything that was read, over all runs.

    Attributes
    ----------
    scored, duplicates
        Alerts that have a score; offsets that repeated an alert.
    not_evaluated, rejected
        Reason code to number: alerts without a score, packets that could not be read.
    queue_open, labels
        Requests without an answer; labels in the ledger.
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
    not_evaluated = _by_reason(connection, classifications)
    return Counts(
        scored=_count(connection, sa.select(classifications)) - sum(not_evaluated.values()),
        not_evaluated=not_evaluated,
        rejected=_by_reason(connection, rejected),
        duplicates=_count(connection, sa.select(duplicates)),
        queue_open=_count(connection, _open_requests()),
        labels=_count(connection, sa.select(labels)),
    )


def _by_reason(connection: sa.Connection, table: sa.Table) -> dict[str, int]:
    """Reason to number of rows; scored alerts have none."""
    reason = table.c.reason
    query = sa.select(reason, sa.func.count()).where(reason.is_not(None))
    query = query.group_by(reason).order_by(reason)
    return dict(connection.execute(query).all())


def _open_requests() -> sa.Select[Any]:
    answered = sa.exists().where(labels.c.object_id == label_requests.c.object_id)
    return sa.select(label_requests).where(~answered)


def _count(connection: sa.Connection, rows: sa.Select[Any]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(rows.subquery())).scalar_one()


def newest_batch(connection: sa.Connection) -> Any:
    """Return run_id, batch_id and committed_ms of the last batch of the run that wrote last, or None.

    A run's batches are told apart by their numbers: the wall clock may have been put back.
    """
    table = accounting.c
    run_id = sa.select(table.run_id).order_by(table.committed_ms.desc()).limit(1).scalar_subquery()
    query = sa.select(table.run_id, table.batch_id, table.committed_ms)
    newest = query.where(table.run_id == run_id).order_by(table.batch_id.desc()).limit(1)
    return connection.execute(newest).first()


def batch_latency_s(connection: sa.Connection) -> tuple[float, float] | None:
    """Return median and 99th percentile of the newest batch's latency, in seconds.

    From Kafka's time stamp of the alert to the commit of its row, 0 where the clocks of the two differ so
    much that it came out negative; None before the first batch.
    """
    newest = newest_batch(connection)
    if newest is None:
        return None
    mine = sa.and_(
        classifications.c.run_id == newest.run_id, classifications.c.batch_id == newest.batch_id
    )
    arrivals = (
        connection.execute(sa.select(classifications.c.arrival_ms).where(mine)).scalars().all()
    )
    if not arrivals:
        return None
    waited = np.maximum(newest.committed_ms - np.array(arrivals), 0) / 1000.0
    return float(np.median(waited)), float(np.quantile(waited, 0.99))


def rejected_packets(connection: sa.Connection, reason: str | None = None) -> Iterator[bytes]:
    """Original bytes of the packets that were rejected, in the order in which they were read.

    Parameters
    ----------
    connection
        Any transaction; has to stay open while the packets are taken.
    reason
        Only those with this reason code.
    """
    key = (rejected.c.topic, rejected.c.kafka_partition, rejected.c.kafka_offset)
    wanted = sa.true() if reason is None else rejected.c.reason == reason
    places = connection.execute(sa.select(*key).where(wanted).order_by(*key)).all()
    for place in places:  # one packet at a time: together they may not fit into memory
        here = sa.and_(*(column == value for column, value in zip(key, place, strict=True)))
        yield connection.execute(sa.select(rejected.c.packet).where(here)).scalar_one()
