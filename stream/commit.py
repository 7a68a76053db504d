"""One batch into the tables: one SQL transaction, one Delta transaction, each exactly once.

Steps, in order:

1. SQL, one transaction: classifications, objects, duplicates, rejected, label requests, accounting.
   Where the accounting rows of this (run, batch) exist, the batch is a replay: nothing is written.
   What was found ahead of its turn (:mod:`stream.priority`) is written with it, but accounted for by the
   batch whose turn it is, to which its rows then pass, with the time at which they were made if the model
   is the same.
2. Delta: the workers' files become part of the table, under (run, batch).
3. Kafka (:mod:`stream.outputs`): at least once; what is sent are the rows of step 1, from memory or,
   at a replay, from the tables: the bytes are the same.
4. Spark writes the batch's commit into its checkpoint.

Between them a crash leaves, and the replay does (``tests/stream/test_windows.py`` kills in each):

- before 1: the workers' files, in no table; it writes new ones, then everything;
- between 1 and 2: the rows; it finds its accounting rows, Delta and Kafka get theirs;
- between 2 and 3: rows and files; both are no-ops, Kafka gets everything;
- within 3: some messages; it sends all again, the same bytes;
- between 3 and 4: everything; it sends all again, the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from active_learning.strategies import Candidates, choose
from lightcurves.nights import night_of
from store import requests, tables
from store.keys import Key, of_keys
from store.objects import fold_objects
from store.sky import healpix_of
from store.upsert import upsert
from stream.rows import EARLY, MESSAGE, RANGE
from stream.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Row = dict[str, Any]
Where = tuple[str, int, int]


@dataclass(frozen=True)
class RequestPolicy:
    """How label requests are chosen; the fields of the settings' section ``learning``."""

    strategy: str
    nightly_budget: int
    min_entropy: float
    min_points: int


@dataclass(frozen=True)
class BatchId:
    """What identifies a batch and what made it.

    Attributes
    ----------
    run_id
        Of the checkpoint.
    batch_id
        Spark's number, counted from 0 within the run.
    settings_digest
        Of the effective settings.
    """

    run_id: str
    batch_id: int
    settings_digest: str


@dataclass(frozen=True)
class BatchCounts:
    """What came of a batch."""

    n_read: int = 0
    n_classified: int = 0
    n_not_evaluated: int = 0
    n_duplicate: int = 0
    n_rejected: int = 0
    n_lost: int = 0
    n_requested: int = 0
    n_early: int = 0
    replay: bool = False


class Committed(NamedTuple):
    """What came of a batch.

    Attributes
    ----------
    counts
        How many of each.
    classified
        Its rows of ``classifications`` by survey and diaSourceId; None at a replay.
    requested, differing, early
        The requests for spectra that it made, the repeats that say something else, and the alerts that
        it found ahead of their turn.
    """

    counts: BatchCounts
    classified: list[Row] | None = None
    requested: Sequence[Row] = ()
    differing: Sequence[Row] = ()
    early: Sequence[Row] = ()


def commit_sql(
    engine: sa.Engine,
    rows: pa.Table,
    batch: BatchId,
    policy: RequestPolicy,
    class_ids: Mapping[str, tuple[int, ...]],
    now_ms: int,
    *,
    fill: bool = False,
) -> Committed:
    """Write a batch into SQL in one transaction; see the module.

    Parameters
    ----------
    engine
        The database.
    rows
        Of :data:`stream.rows.ROWS_SCHEMA`.
    batch, policy
        Which batch this is, and how label requests are chosen.
    class_ids
        Of each model version that scored the batch, in the order of its ``probabilities``.
    now_ms
        The commit's wall-clock time.
    fill
        What is in the tables of an offset stays, and the offset counts as a duplicate; else what is
        said last stands.
    """
    with engine.begin() as connection:
        if _is_committed(connection, batch):
            return Committed(BatchCounts(replay=True))
        return _Commit(connection, batch, class_ids, now_ms, fill).write(rows, policy)


def _is_committed(connection: sa.Connection, batch: BatchId) -> bool:
    table = tables.accounting.c
    query = sa.select(sa.literal(1)).where(
        table.run_id == batch.run_id, table.batch_id == batch.batch_id
    )
    return connection.execute(query.limit(1)).first() is not None


class Split(NamedTuple):
    """The rows of a batch, each list by offset.

    Attributes
    ----------
    ranges
        What was read.
    alerts, rejected
        Messages that could be read, with ``healpix``, and those that could not.
    early
        Alerts that were found ahead of their turn, with ``healpix``.
    """

    ranges: list[Row]
    alerts: list[Row]
    rejected: list[Row]
    early: list[Row]


def split_rows(rows: pa.Table) -> Split:
    """Return rows by what they are."""
    rows = rows.sort_by(
        [("topic", "ascending"), ("kafka_partition", "ascending"), ("kafka_offset", "ascending")]
    )
    is_message = pc.equal(rows["kind"], MESSAGE)
    bad = pc.is_valid(rows["reject_reason"])
    return Split(
        rows.filter(pc.equal(rows["kind"], RANGE)).to_pylist(),
        _with_healpix(rows.filter(pc.and_(is_message, pc.invert(bad)))).to_pylist(),
        rows.filter(pc.and_(is_message, bad)).to_pylist(),
        _with_healpix(rows.filter(pc.equal(rows["kind"], EARLY))).to_pylist(),
    )


def where_of(row: Row) -> Where:
    """Return topic, partition and offset of a row."""
    return row["topic"], row["kafka_partition"], row["kafka_offset"]


@dataclass
class _Commit:
    """One transaction's work."""

    connection: sa.Connection
    batch: BatchId
    class_ids: Mapping[str, tuple[int, ...]]
    now_ms: int
    fill: bool = False

    def write(self, rows: pa.Table, policy: RequestPolicy) -> Committed:
        ranges, alerts, rejected, early = split_rows(rows)
        held = self._held(ranges) if self.fill else frozenset[Where]()
        passed = [row for row in (*alerts, *rejected) if where_of(row) in held]
        alerts = [alert for alert in alerts if where_of(alert) not in held]
        rejected = [row for row in rejected if where_of(row) not in held]
        known = self._known([_alert_key(alert) for alert in (*alerts, *early)])
        first, repeated = self._split_duplicates(alerts, known)
        for alert in first:
            self._keep_what_was_told(alert, known)
        told = known.keys() | {_alert_key(alert) for alert in first}
        early = list({_alert_key(a): a for a in reversed(early)}.values())
        early = [alert for alert in early if _alert_key(alert) not in told]
        before = self._found_before(ranges, alerts, rejected)
        rejected = [row for row in rejected if where_of(row) not in before]
        for part in () if self.fill else ranges:
            self._forget(part)
        self._forget_at(early)
        written = [*first, *early]
        classified = [self._stamp(self._classification(alert)) for alert in written]
        self._put(tables.classifications, classified, "survey", "dia_source_id")
        self._put(tables.duplicates, [self._stamp(self._duplicate(a)) for a in repeated], *_WHERE)
        self._put(tables.rejected, [self._stamp(self._rejected(r)) for r in rejected], *_WHERE)
        new = [alert for alert in written if _alert_key(alert) not in known]
        fold_objects(self.connection, written, frozenset(_alert_key(a) for a in new))
        requested = self._request(new, policy)
        counts = self._account(ranges, first, [*repeated, *passed], rejected, before)
        classified.sort(key=_alert_key)
        counts = replace(counts, n_requested=len(requested), n_early=len(early))
        differing = [row for row in repeated if row["differs"] is not None]
        return Committed(counts, classified, requested, differing, early)

    def _stamp(self, row: Row) -> Row:
        return {**row, "run_id": self.batch.run_id, "batch_id": self.batch.batch_id}

    def _put(self, table: sa.Table, rows: list[Row], *key: str) -> None:
        upsert(self.connection, table, rows, key)

    def _forget(self, part: Row) -> None:
        """Remove what an earlier run said of these offsets: read anew, they may end elsewhere."""
        for table in (tables.rejected, tables.duplicates):
            self.connection.execute(sa.delete(table).where(_inside(table, part)))

    def _held(self, ranges: list[Row]) -> frozenset[Where]:
        """Return which offsets of `ranges` are in the tables."""
        return frozenset(
            (part["topic"], part["kafka_partition"], offset)
            for part in ranges
            for table in tables.HOLDING
            for offset in self.connection.execute(
                sa.select(table.c.kafka_offset).where(_inside(table, part))
            ).scalars()
        )

    def _known(self, keys: list[Key]) -> dict[Key, Row]:
        """Return which of the alerts have been classified: from which offset, and what they said."""
        table = tables.classifications.c
        names = (
            "survey",
            "dia_source_id",
            *_WHERE,
            *_CONTENT,
            "run_id",
            "model_version",
            "processed_ms",
        )
        columns = sa.select(*(table[name] for name in names))
        found: dict[Key, Row] = {}
        for mine in of_keys(table.dia_source_id, keys):
            for row in self.connection.execute(columns.where(mine)).mappings():
                found[row["survey"], row["dia_source_id"]] = dict(row)
        return found

    def _keep_what_was_told(self, alert: Row, known: Mapping[Key, Row]) -> None:
        """Leave an alert that this run scored ahead of its turn as it was, so that its message repeats."""
        told = known.get(_alert_key(alert))
        mine = self.batch.run_id, alert["model_version"]
        if told is not None and (told["run_id"], told["model_version"]) == mine:
            alert["processed_ms"] = told["processed_ms"]

    def _found_before(
        self, ranges: list[Row], alerts: list[Row], rejected: list[Row]
    ) -> frozenset[Where]:
        """Return which offsets this run has classified ahead of their turn and cannot read in it.

        Kafka has removed them, or they are rejected now: what was said stays.
        """
        if not (rejected or any(part["n_lost"] for part in ranges)):
            return frozenset()
        table = tables.classifications
        mine = table.c.run_id == self.batch.run_id
        found = {
            (part["topic"], part["kafka_partition"], offset)
            for part in ranges
            for offset in self.connection.execute(
                sa.select(table.c.kafka_offset).where(_inside(table, part), mine)
            ).scalars()
        }
        return frozenset(found - {where_of(alert) for alert in alerts})

    def _forget_at(self, early: list[Row]) -> None:
        """Remove what an earlier run said of the offsets of these alerts."""
        for table in (tables.rejected, tables.duplicates):
            here = sa.and_(*(table.c[name] == sa.bindparam(f"at_{name}") for name in _WHERE))
            at = [{f"at_{name}": alert[name] for name in _WHERE} for alert in early]
            if at:
                self.connection.execute(sa.delete(table).where(here), at)

    def _split_duplicates(
        self, alerts: list[Row], known: dict[Key, Row]
    ) -> tuple[list[Row], list[Row]]:
        """Split off alerts whose id was classified from another offset, in the past or just now."""
        seen = dict(known)
        first: list[Row] = []
        repeated: list[Row] = []
        for alert in alerts:
            original = seen.setdefault(_alert_key(alert), alert)
            if where_of(original) == where_of(alert):
                first.append(alert)
            else:
                repeated.append({**alert, "differs": _difference(original, alert)})
        return first, repeated

    def _classification(self, alert: Row) -> Row:
        row = {name: alert[name] for name in _COPIED}
        row["object_id"] = alert["object_id"] or None
        row["ss_object_id"] = alert["ss_object_id"] or None
        if alert["probabilities"] is not None:
            class_ids = self.class_ids[alert["model_version"]]
            named = zip(class_ids, alert["probabilities"], strict=True)
            row["probabilities"] = {str(class_id): p for class_id, p in named}
        else:
            row["probabilities"] = None
        return row

    def _duplicate(self, alert: Row) -> Row:
        names = (*_WHERE, "survey", "dia_source_id", "arrival_ms", "differs")
        return {name: alert[name] for name in names}

    def _rejected(self, row: Row) -> Row:
        names = (*_WHERE, "arrival_ms", "processed_ms", "detail", "packet")
        return {**{name: row[name] for name in names}, "reason": row["reject_reason"]}

    def _account(
        self,
        ranges: list[Row],
        first: list[Row],
        repeated: list[Row],
        rejected: list[Row],
        before: frozenset[Where],
    ) -> BatchCounts:
        scored = [alert for alert in first if alert["reason"] is None]
        unscored = [alert for alert in first if alert["reason"] is not None]
        found = [dict(zip(_WHERE, where, strict=True)) for where in before]
        parts = {
            "n_classified": _by_partition([*scored, *found]),
            "n_not_evaluated": _by_partition(unscored),
            "n_duplicate": _by_partition(repeated),
            "n_rejected": _by_partition(rejected),
        }
        models = [a for a in [*first, *repeated] if a["model_version"] is not None]
        versions = Versions({a["survey"]: a["model_version"] for a in models})
        accounts = [
            {
                "topic": part["topic"],
                "kafka_partition": part["kafka_partition"],
                "start_offset": part["kafka_offset"],
                "end_offset": part["end_offset"],
                "n_read": part["n_read"] + n_saved,
                **{
                    name: counts.get((part["topic"], part["kafka_partition"]), 0)
                    for name, counts in parts.items()
                },
                "n_lost": part["n_lost"] - n_saved,
                "model_version": str(versions),
                "feature_digest": models[0]["feature_digest"] if models else "",
                "settings_digest": self.batch.settings_digest,
                "started_ms": part["started_ms"],
                "committed_ms": self.now_ms,
            }
            for part in ranges
            for n_saved in [_n_lost_of(part, before)]
        ]
        self._put(
            tables.accounting,
            [self._stamp(a) for a in accounts],
            "run_id",
            "batch_id",
            "topic",
            "kafka_partition",
        )
        names = ("n_read", *parts, "n_lost")
        return BatchCounts(*(sum(account[name] for account in accounts) for name in names))

    def _request(self, new: list[Row], policy: RequestPolicy) -> list[Row]:
        """Choose label requests night by night, within what each night's budget has left."""
        able = [alert for alert in new if _can_be_observed(alert)]
        chosen: list[Row] = []
        by_night: dict[int, list[Row]] = {}
        for alert in able:
            by_night.setdefault(night_of(alert["t_mjd_tai"]), []).append(alert)
        for night, every in sorted(by_night.items()):
            asked = self._asked([_object_key(alert) for alert in every])
            asked |= {_object_key(request) for request in chosen}
            tonight = [alert for alert in every if _object_key(alert) not in asked]
            rows = choose(
                _candidates(tonight),
                strategy=policy.strategy,
                budget=policy.nightly_budget - self._spent(night),
                min_points=policy.min_points,
                min_utility=policy.min_entropy,
                asked=frozenset(),
            )
            chosen += [self._requested(tonight[k], night, policy) for k in rows]
        requests.ask(self.connection, [self._stamp(request) for request in chosen])
        return chosen

    def _asked(self, keys: list[Key]) -> set[Key]:
        """Return which of the objects are labelled, or have been asked for by this program."""
        ours = tables.label_requests.c.program == requests.PROGRAM
        return {
            (row.survey, row.object_id)
            for table, wanted in ((tables.label_requests, ours), (tables.labels, sa.true()))
            for mine in of_keys(table.c.object_id, keys)
            for row in self.connection.execute(
                sa.select(table.c.survey, table.c.object_id).where(mine, wanted)
            )
        }

    def _spent(self, night: int) -> int:
        table = tables.label_requests
        ours = sa.and_(table.c.night == night, table.c.program == requests.PROGRAM)
        query = sa.select(sa.func.count()).select_from(table).where(ours)
        return int(self.connection.execute(query).scalar_one())

    def _requested(self, alert: Row, night: int, policy: RequestPolicy) -> Row:
        why = f"entropy {alert['entropy']:.2f} nats, likeliest class {alert['probability']:.0%}"
        copied = (
            "survey",
            "object_id",
            "dia_source_id",
            "model_version",
            "ra_deg",
            "dec_deg",
            "band",
            "flux_njy",
            "t_mjd_tai",
        )
        return {
            **{name: alert[name] for name in copied},
            "program": requests.PROGRAM,
            "night": night,
            "strategy": policy.strategy,
            "utility": alert["entropy"],
            "why": why,
            "requested_ms": self.now_ms,
        }


_WHERE = ("topic", "kafka_partition", "kafka_offset")
_COPIED = tuple(
    column.name
    for column in tables.classifications.c
    if column.name not in {"probabilities", "run_id", "batch_id"}
)
_CONTENT = (
    "object_id", "ss_object_id", "t_mjd_tai", "ra_deg", "dec_deg", "band", "flux_njy", "sigma_njy",
    "n_points",
)  # fmt: skip


def _alert_key(row: Row) -> Key:
    return row["survey"], row["dia_source_id"]


def _object_key(row: Row) -> Key:
    return row["survey"], row["object_id"]


def _inside(table: sa.Table, part: Row) -> sa.ColumnElement[bool]:
    """Return what holds for rows of `table` that are within the range."""
    where = part["topic"], part["kafka_partition"], part["kafka_offset"], part["end_offset"]
    return tables.within(table, *where)


def _difference(original: Row, alert: Row) -> str | None:
    """Return in which columns two alerts of one id differ; None where in none."""
    names = [name for name in _CONTENT if _content(original, name) != _content(alert, name)]
    return ", ".join(names) or None


def _content(row: Row, name: str) -> Any:
    """Return what a row says; no object is 0 in packets and null in the tables."""
    return row[name] or None if name.endswith("object_id") else row[name]


def _can_be_observed(alert: Row) -> bool:
    """Say whether an alert has a score, a place on the sky and a time that is some night's."""
    scored = alert["reason"] is None and alert["healpix"] is not None
    return scored and 0.0 <= alert["t_mjd_tai"] <= _LATEST_MJD


_LATEST_MJD = 200_000.0  # in the year 2406


def _with_healpix(alerts: pa.Table) -> pa.Table:
    finite = pc.and_(pc.is_finite(alerts["ra_deg"]), pc.is_finite(alerts["dec_deg"]))
    on_sky = pc.and_(finite, pc.less_equal(pc.abs(alerts["dec_deg"]), 90.0))
    placed = np.asarray(on_sky.fill_null(False))  # noqa: FBT003 - Arrow takes it by position
    cells = np.zeros(alerts.num_rows, np.int64)
    if placed.any():
        cells[placed] = healpix_of(
            alerts["ra_deg"].to_numpy()[placed], alerts["dec_deg"].to_numpy()[placed]
        )
    return alerts.append_column("healpix", pa.array(cells, mask=~placed))


def _n_lost_of(part: Row, places: frozenset[Where]) -> int:
    """Return how many of the places Kafka has removed before the range of `part` was read."""
    lost = range(part["kafka_offset"], part["kafka_offset"] + part["n_lost"])
    mine = part["topic"], part["kafka_partition"]
    return sum(where[:2] == mine and where[2] in lost for where in places)


def _by_partition(rows: list[Row]) -> dict[tuple[str, int], int]:
    counts: dict[tuple[str, int], int] = {}
    for row in rows:
        key = (row["topic"], row["kafka_partition"])
        counts[key] = counts.get(key, 0) + 1
    return counts


def _candidates(alerts: list[Row]) -> Candidates:
    def numbers(name: str) -> NDArray[np.float64]:
        return np.array([alert[name] for alert in alerts], np.float64)

    return Candidates(
        np.array([alert["object_id"] for alert in alerts], np.int64),
        numbers("entropy"),
        numbers("novelty"),
        numbers("margin"),
        np.array([alert["n_points"] for alert in alerts], np.int64),
    )
