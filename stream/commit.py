"""One batch into the tables: one SQL transaction, one Delta transaction, each exactly once.

Steps, in order:

1. SQL, one transaction: classifications, objects, duplicates, rejected, label requests, accounting.
   If the accounting rows of this (run, batch) exist, the batch is a replay: nothing is written.
   Urgent alerts found by looking ahead (:mod:`stream.priority`) are written with the batch that found them;
   the batch that reads them in turn accounts for them and takes over their rows. If its model is the same,
   the rows keep the time at which they were first scored.
2. Delta: the workers' files become part of the table, under (run, batch).
3. Kafka (:mod:`stream.outputs`): at least once; it sends the rows of step 1, from memory or,
   at a replay, from the tables: the bytes are the same.
4. Spark writes the batch's commit into its checkpoint.

What a crash leaves, and what the replay then does (``tests/stream/test_windows.py`` kills at each point):

- before 1: the workers' files, in no table; the replay writes new files, then everything;
- between 1 and 2: the rows; the replay finds its accounting rows, then writes to Delta and Kafka;
- between 2 and 3: rows and files; writing them is a no-op, Kafka gets everything;
- within 3: some messages; the replay sends all of them again, the same bytes;
- between 3 and 4: everything; the replay sends all messages again, the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from active_learning import requests as asking
from models.record import RECORD
from store import requests, tables
from store.keys import Key, is_key, keys_of, of_batch, of_keys, without_zero_ids
from store.objects import fold_objects
from store.upsert import upsert, upsert_table
from stream.messages import NAMED_PROBABILITIES
from stream.rows import EARLY, MESSAGE, RANGE
from stream.versions import Versions

if TYPE_CHECKING:
    from active_learning.requests import Wishes
    from stream.routes import Route

Row = dict[str, Any]
Where = tuple[str, int, int]
Partition = tuple[str, int]


@dataclass(frozen=True)
class BatchId:
    """What identifies a batch, and the settings it was made with.

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
    """How many alerts or offsets of a batch came to each outcome."""

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
    """The result of committing a batch.

    Attributes
    ----------
    counts
        How many alerts or offsets came to each outcome.
    classified
        Its rows of ``classifications`` in the order of their key, probabilities with their classes named;
        None at a replay.
    requested, differing
        The requests for spectra that it made, and the repeated alerts whose content differs.
    early_arrival_ms
        When the urgent alerts that it found by looking ahead had arrived.
    """

    counts: BatchCounts
    classified: pa.Table | None = None
    requested: Sequence[Row] = ()
    differing: Sequence[Row] = ()
    early_arrival_ms: Sequence[int] = ()


def commit_sql(
    engine: sa.Engine,
    rows: pa.Table,
    batch: BatchId,
    wishes: Wishes,
    class_ids: Mapping[str, tuple[int, ...]],
    now_ms: int,
    *,
    routes: Sequence[Route] = (),
    keep_stored: bool = False,
) -> Committed:
    """Write a batch into SQL in one transaction; see the module.

    Parameters
    ----------
    engine
        The database.
    rows
        Of :data:`stream.rows.ROWS_SCHEMA`.
    batch
        Which batch this is.
    wishes
        The spectra that are wanted of its alerts; of those that turn out to be new the best are requested.
    class_ids
        The classes of each model that scored the batch, by version, in the order of ``probabilities``.
    now_ms
        The commit's wall-clock time.
    routes
        The routes on which the batch will be sent.
    keep_stored
        Keep what the tables already hold for an offset and count the offset as a duplicate; otherwise the
        new result replaces the old.
    """
    with engine.begin() as connection:
        if _is_committed(connection, batch):
            return Committed(BatchCounts(replay=True))
        if routes:
            stored = [route.to_json() for route in routes]
            row = {"run_id": batch.run_id, "batch_id": batch.batch_id, "routes": stored}
            upsert(connection, tables.batches, [row], ("run_id", "batch_id"))
        return _Commit(connection, batch, class_ids, now_ms, keep_stored).write(rows, wishes)


def _is_committed(connection: sa.Connection, batch: BatchId) -> bool:
    mine = of_batch(tables.accounting, batch.run_id, batch.batch_id)
    return connection.execute(sa.select(sa.literal(1)).where(mine).limit(1)).first() is not None


class Split(NamedTuple):
    """The rows of a batch, each table in the order of offsets.

    Attributes
    ----------
    ranges
        The offset ranges that were read.
    alerts, rejected
        Messages that could be read, and those that could not.
    early
        Urgent alerts that were found by looking ahead.
    """

    ranges: list[Row]
    alerts: pa.Table
    rejected: pa.Table
    early: pa.Table


def split_rows(rows: pa.Table) -> Split:
    """Return the rows separated by kind."""
    rows = rows.sort_by([(name, "ascending") for name in _WHERE])
    is_message = pc.equal(rows["kind"], MESSAGE)
    bad = pc.is_valid(rows["reject_reason"])
    return Split(
        rows.filter(pc.equal(rows["kind"], RANGE)).to_pylist(),
        without_zero_ids(rows.filter(pc.and_(is_message, pc.invert(bad)))),
        rows.filter(pc.and_(is_message, bad)),
        without_zero_ids(rows.filter(pc.equal(rows["kind"], EARLY))),
    )


def places_of(rows: pa.Table) -> list[Where]:
    """Return topic, partition and offset of each row."""
    return list(zip(*(rows[name].to_pylist() for name in _WHERE), strict=True))


def _alert_keys(alerts: pa.Table) -> list[Key]:
    return keys_of(alerts, "dia_source_id")


def _only(rows: pa.Table, wanted: list[bool]) -> pa.Table:
    return rows if all(wanted) else rows.filter(pa.array(wanted, pa.bool_()))


class _Outcome(NamedTuple):
    """A batch's messages by outcome: alerts that count, repeats, rejects, and those already classified."""

    first: pa.Table
    repeated: list[Where]
    rejected: pa.Table
    already_classified: frozenset[Where]


@dataclass
class _Commit:
    """The work of one transaction. Alerts and scores stay columnar until they are inserted."""

    connection: sa.Connection
    batch: BatchId
    class_ids: Mapping[str, tuple[int, ...]]
    now_ms: int
    keep_stored: bool = False

    def write(self, rows: pa.Table, wishes: Wishes) -> Committed:
        ranges, alerts, rejected, early = split_rows(rows)
        stored = self._stored(ranges) if self.keep_stored else frozenset[Where]()
        skipped = [w for part in (alerts, rejected) for w in places_of(part) if w in stored]
        alerts, rejected = (
            _only(part, [place not in stored for place in places_of(part)])
            for part in (alerts, rejected)
        )
        known = self._known([*_alert_keys(alerts), *_alert_keys(early)])
        alerts = self._with_first_times(alerts, known)
        first, repeated, differing = _split_duplicates(alerts, known)
        early = _without_repeats(early, known.keys() | set(_alert_keys(first)))
        done = self._already_classified(ranges, alerts, rejected)
        rejected = _only(rejected, [place not in done for place in places_of(rejected)])
        for part in () if self.keep_stored else ranges:
            self._delete_within(part)
        self._delete_at(places_of(early))
        written = pa.concat_tables([first, early])
        self._forget_others([] if self.keep_stored else ranges, written)
        is_new = np.array([key not in known for key in _alert_keys(written)], bool)
        classified = self._put_classified(written)
        self._put(tables.duplicates, repeated, _DUPLICATE)
        self._put(tables.rejected, rejected, _REJECTED)
        fold_objects(self.connection, classified, is_new)
        requested = self._request(written.filter(pa.array(is_new)), wishes)
        outcome = _Outcome(first, places_of(repeated) + skipped, rejected, done)
        counts = self._account(ranges, outcome, alerts)
        counts = replace(counts, n_requested=len(requested), n_early=early.num_rows)
        key = [(column.name, "ascending") for column in tables.classifications.primary_key]
        in_order = classified.sort_by(key)
        arrivals = early["arrival_ms"].to_pylist()
        return Committed(counts, in_order, requested, differing, arrivals)

    def _stamped(self, rows: pa.Table) -> pa.Table:
        for name in ("run_id", "batch_id"):
            value = pa.scalar(getattr(self.batch, name))
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        return rows

    def _put(self, table: sa.Table, rows: pa.Table, columns: Mapping[str, str]) -> None:
        """Write rows, keyed by topic, partition and offset; `columns` maps the table's names to theirs."""
        renamed = pa.table({name: rows[source] for name, source in columns.items()})
        upsert_table(self.connection, table, self._stamped(renamed), _WHERE)

    def _put_classified(self, alerts: pa.Table) -> pa.Table:
        """Write scored alerts; return them with the table's columns, probabilities with classes named."""
        named = named_probabilities(alerts, self.class_ids)
        at = alerts.schema.get_field_index("probabilities")
        rows = alerts.set_column(at, "probabilities", named).select([*_CLASSIFIED, *_WHERE])
        for at, column in enumerate(rows.schema):
            if pa.types.is_floating(column.type):
                # SQLite has no -0.0, and a replay reads from there.
                rows = rows.set_column(at, column.name, pc.add(rows[column.name], 0.0))
        texts = self._stamped(rows)
        for name, text in (("probabilities", _named_json), ("prediction_set", _list_json)):
            at = texts.schema.get_field_index(name)
            texts = texts.set_column(at, name, text(texts[name]))
        upsert_table(self.connection, tables.classifications, texts, ("survey", "dia_source_id"))
        return rows

    def _forget_others(self, ranges: list[Row], alerts: pa.Table) -> None:
        """Remove alerts of earlier runs at these places that have another key now that they are read anew."""
        table = tables.classifications
        keys = dict(zip(places_of(alerts), _alert_keys(alerts), strict=True))
        columns = [table.c[name] for name in (*_WHERE, "survey", "dia_source_id")]
        for part in ranges:
            for row in self.connection.execute(
                sa.select(*columns).where(_inside(table, part))
            ).all():
                key = row.survey, row.dia_source_id
                if keys.get((row.topic, row.kafka_partition, row.kafka_offset), key) != key:
                    mine = is_key(table.c.dia_source_id, *key)
                    self.connection.execute(sa.delete(table).where(mine))

    def _delete_within(self, part: Row) -> None:
        """Delete an earlier run's rejects and duplicates in this range: the outcome may now differ."""
        for table in (tables.rejected, tables.duplicates):
            self.connection.execute(sa.delete(table).where(_inside(table, part)))

    def _stored(self, ranges: list[Row]) -> frozenset[Where]:
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
        """Return the alerts that are already classified: their offset, content, run, version and time."""
        table = tables.classifications.c
        names = (
            *("survey", "dia_source_id", *_WHERE, *_CONTENT),
            *("run_id", "model_version", "processed_ms"),
        )
        columns = sa.select(*(table[name] for name in names))
        return {
            (row["survey"], row["dia_source_id"]): dict(row)
            for condition in of_keys(table.dia_source_id, keys)
            for row in self.connection.execute(columns.where(condition)).mappings()
        }

    def _with_first_times(self, alerts: pa.Table, known: Mapping[Key, Row]) -> pa.Table:
        """Keep ``processed_ms`` of alerts that this run and version scored before: messages stay equal."""
        if not known:
            return alerts
        versions, times = (alerts[n].to_pylist() for n in ("model_version", "processed_ms"))
        for k, key in enumerate(_alert_keys(alerts)):
            stored = known.get(key)
            scored_by = self.batch.run_id, versions[k]
            if stored is not None and (stored["run_id"], stored["model_version"]) == scored_by:
                times[k] = stored["processed_ms"]
        at = alerts.schema.get_field_index("processed_ms")
        return alerts.set_column(at, "processed_ms", pa.array(times, pa.int64()))

    def _already_classified(
        self, ranges: list[Row], alerts: pa.Table, rejected: pa.Table
    ) -> frozenset[Where]:
        """Return the offsets that this run classified by looking ahead but cannot read in turn.

        Kafka has removed them, or they are rejected now: their classification stays.
        """
        if not (rejected.num_rows or any(part["n_lost"] for part in ranges)):
            return frozenset()
        table = tables.classifications
        of_this_run = table.c.run_id == self.batch.run_id
        classified = {
            (part["topic"], part["kafka_partition"], offset)
            for part in ranges
            for offset in self.connection.execute(
                sa.select(table.c.kafka_offset).where(_inside(table, part), of_this_run)
            ).scalars()
        }
        return frozenset(classified.difference(places_of(alerts)))

    def _delete_at(self, places: list[Where]) -> None:
        """Delete an earlier run's rejects and duplicates at these offsets."""
        for table in (tables.rejected, tables.duplicates):
            at_place = sa.and_(*(table.c[name] == sa.bindparam(f"at_{name}") for name in _WHERE))
            values = [
                {f"at_{name}": value for name, value in zip(_WHERE, place, strict=True)}
                for place in places
            ]
            if values:
                self.connection.execute(sa.delete(table).where(at_place), values)

    def _account(self, ranges: list[Row], outcome: _Outcome, alerts: pa.Table) -> BatchCounts:
        """Write each range's outcome and the models that scored `alerts`; return the sums."""
        first, done = outcome.first, outcome.already_classified
        scored = pc.is_null(first["reason"])
        parts = {
            "n_classified": _by_partition([*places_of(first.filter(scored)), *done]),
            "n_not_evaluated": _by_partition(places_of(first.filter(pc.invert(scored)))),
            "n_duplicate": _by_partition(outcome.repeated),
            "n_rejected": _by_partition(places_of(outcome.rejected)),
        }
        versions, digest = _scored_by(alerts)
        accounts = [
            {
                "run_id": self.batch.run_id,
                "batch_id": self.batch.batch_id,
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
                "model_version": versions,
                "feature_digest": digest,
                "settings_digest": self.batch.settings_digest,
                "started_ms": part["started_ms"],
                "committed_ms": self.now_ms,
            }
            for part in ranges
            for n_saved in [_n_lost_of(part, done)]
        ]
        upsert(self.connection, tables.accounting, accounts, _ACCOUNT)
        names = ("n_read", *parts, "n_lost")
        return BatchCounts(*(sum(account[name] for account in accounts) for name in names))

    def _request(self, new: pa.Table, wishes: Wishes) -> list[Row]:
        """Write requests for spectra of the objects that are chosen among new alerts."""
        places = set(places_of(new))
        alerts = _only(wishes.alerts, [at in places for at in places_of(wishes.alerts)])
        if not alerts.num_rows:
            return []
        program = wishes.policy.program
        asked = requests.asked(self.connection, keys_of(alerts, "object_id"), program)
        spent = requests.spent(self.connection, alerts["night"].unique().to_pylist(), program)
        chosen = asking.choose_requests(replace(wishes, alerts=alerts), asked, spent).to_pylist()
        stamp = {
            "run_id": self.batch.run_id,
            "batch_id": self.batch.batch_id,
            "requested_ms": self.now_ms,
        }
        rows = [{**request, **stamp} for request in chosen]
        requests.ask(self.connection, rows)
        return rows


_WHERE: Final = ("topic", "kafka_partition", "kafka_offset")
_ACCOUNT: Final = ("run_id", "batch_id", "topic", "kafka_partition")
_CLASSIFIED: Final = (*(field.name for field in RECORD), "healpix")
_CONTENT: Final = (
    "object_id", "ss_object_id", "t_mjd_tai", "ra_deg", "dec_deg", "band", "flux_njy", "sigma_njy",
    "n_points",
)  # fmt: skip
_DUPLICATE: Final = {n: n for n in (*_WHERE, "survey", "dia_source_id", "arrival_ms", "differs")}
_REJECTED: Final = {
    **{n: n for n in (*_WHERE, "arrival_ms", "processed_ms", "detail", "packet")},
    "reason": "reject_reason",
}


def _split_duplicates(
    alerts: pa.Table, known: Mapping[Key, Row]
) -> tuple[pa.Table, pa.Table, list[Row]]:
    """Split off alerts whose id was classified from another offset, earlier or in this batch.

    Returns the other alerts, the repeats with a column ``differs``, and the rows of those that differ.
    """
    keys, places = _alert_keys(alerts), places_of(alerts)
    seen = {key: _place(row) for key, row in known.items()}
    is_first = [seen.setdefault(key, at) == at for key, at in zip(keys, places, strict=True)]
    first = _only(alerts, is_first)
    repeated = alerts.filter(pa.array([not one for one in is_first], pa.bool_()))
    rows = repeated.to_pylist()
    originals = dict(known)
    wanted = set(_alert_keys(repeated)).difference(originals)
    in_batch = _only(first, [key in wanted for key in _alert_keys(first)]) if wanted else first[:0]
    originals |= zip(_alert_keys(in_batch), in_batch.to_pylist(), strict=True)
    for row in rows:
        row["differs"] = _difference(originals[row["survey"], row["dia_source_id"]], row)
    differs = pa.array([row["differs"] for row in rows], pa.string())
    differing = [row for row in rows if row["differs"] is not None]
    return first, repeated.append_column("differs", differs), differing


def _place(row: Row) -> Where:
    return row["topic"], row["kafka_partition"], row["kafka_offset"]


def _without_repeats(early: pa.Table, known: AbstractSet[Key]) -> pa.Table:
    """Return the first row of each alert that is not `known`."""
    taken = set(known)
    wanted = []
    for key in _alert_keys(early):
        wanted.append(key not in taken)
        taken.add(key)
    return _only(early, wanted)


def named_probabilities(alerts: pa.Table, class_ids: Mapping[str, tuple[int, ...]]) -> pa.ListArray:
    """Return ``probabilities`` with the classes of each row's model, by ascending classId.

    Null where an alert has no score.
    """
    column = alerts["probabilities"].combine_chunks().cast(pa.list_(pa.float64()))
    scored = np.asarray(column.is_valid())
    versions = np.array(alerts["model_version"].to_pylist(), object)
    values = np.asarray(column.flatten(), np.float64)
    counts = np.zeros(alerts.num_rows, np.int64)
    for version in set(versions[scored].tolist()):
        counts[scored & (versions == version)] = len(class_ids[version])
    ends = np.cumsum(counts)
    if ends.size and ends[-1] != values.size:
        raise ValueError("an alert does not have one probability for each class of its model")
    classes = np.zeros(values.size, np.int32)
    order = np.arange(values.size)
    for version in set(versions[scored].tolist()):
        rows = np.flatnonzero(scored & (versions == version))
        ids = np.array(class_ids[version], np.int32)
        ascending = np.argsort(ids)
        at = (ends[rows] - counts[rows])[:, None] + np.arange(ids.size)
        classes[at] = ids[ascending]
        order[at] = at[:, ascending]
    pairs = pa.StructArray.from_arrays(
        [pa.array(classes), pa.array(values[order])], fields=list(NAMED_PROBABILITIES.value_type)
    )
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pairs, mask=pa.array(~scored))


def _named_json(column: pa.ChunkedArray) -> pa.Array:
    """Return ``{"111": 0.6, ...}`` for each row: the text of `json.dumps`, in a third of its time."""
    array = column.combine_chunks()
    names = [f'"{class_id}": ' for class_id in array.flatten().field("classId").to_pylist()]
    values = array.flatten().field("probability").to_pylist()
    pairs = [name + repr(value) for name, value in zip(names, values, strict=True)]
    counts = array.value_lengths().to_pylist()
    texts: list[str | None] = []
    at = 0
    for count in counts:
        if count is None:
            texts.append(None)
            continue
        texts.append("{" + ", ".join(pairs[at : at + count]) + "}")
        at += count
    return pa.array(texts, pa.string())


def _list_json(column: pa.ChunkedArray) -> pa.Array:
    texts = [None if row is None else json.dumps(row) for row in column.to_pylist()]
    return pa.array(texts, pa.string())


def _inside(table: sa.Table, part: Row) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `table` is within the range."""
    where = part["topic"], part["kafka_partition"], part["kafka_offset"], part["end_offset"]
    return tables.within(table, *where)


def _difference(original: Row, alert: Row) -> str | None:
    """Return the columns in which two alerts of one id differ; None if there are none."""
    return ", ".join(name for name in _CONTENT if original[name] != alert[name]) or None


def _n_lost_of(part: Row, places: frozenset[Where]) -> int:
    """Return how many of `places` Kafka had removed before the range `part` was read."""
    lost = range(part["kafka_offset"], part["kafka_offset"] + part["n_lost"])
    partition = part["topic"], part["kafka_partition"]
    return sum(where[:2] == partition and where[2] in lost for where in places)


def _by_partition(places: list[Where]) -> dict[Partition, int]:
    counts: dict[Partition, int] = {}
    for topic, partition, _ in places:
        counts[topic, partition] = counts.get((topic, partition), 0) + 1
    return counts


def _scored_by(alerts: pa.Table) -> tuple[str, str]:
    """Return the versions that scored the alerts and their feature digests, each as one text."""
    digests = alerts["feature_digest"].drop_null().unique().to_pylist()
    return str(Versions.of_rows(alerts)), ",".join(sorted(digests))
