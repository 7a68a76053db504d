"""Score alerts again, from the Delta table or from Kafka, beside the live stream and without Spark.

One model scores the alerts of one survey; those of others are skipped. The live stream's results
stay: rows go to a target of their own (:mod:`store.rescored`), one for each alert and model version.
If the version is the same, scores equal those of the live path to the last bit, because the same
function is applied to the same packet, light curve or features.

A chunk of alerts at a time is looked up, scored and added, so memory is bounded, and a run that was
killed can be started again: alerts that have a row are skipped. An alert that was read from several offsets
counts at the one that the live stream classified; the others are repeats.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from lightcurves.errors import ConfigurationError, UnavailableError
from lightcurves.reasons import NotEvaluated
from lightcurves.surveys import LSST
from models.inputs import Inputs
from models.scoring import score_columns
from store import tables
from store.clock import now_ms
from store.database import reading
from store.delta import dataset_of
from store.keys import Key, keys_of, of_keys
from stream.consumer import Limits, RangeReader, Watermarks
from stream.scoring import Scorer, delta_schema
from stream.versions import Versions
from stream.worker import PREFETCH_KB, read_where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from confluent_kafka import Message
    from numpy.typing import NDArray

    from models.scoring import Model, Scores
    from store.rescored import Target

By = Literal["arrival", "observation"]

CHUNK: Final = 8192
"""Alerts that are looked up, scored and added together; with light curves some 100 MB."""
LISTED: Final = 20
"""At most this many rejected packets are listed one by one."""
_SCORED_TOGETHER: Final = 128
_FEATURE_READS: Final = ("features",)
_CURVE_READS: Final = ("light_curve",)


@dataclass(frozen=True)
class Times:
    """A range of times: alerts from `since` on and before `until`; None is no bound.

    Attributes
    ----------
    since, until
        Kafka's stamp in Unix milliseconds, or the observation's time (MJD TAI, days).
    by
        Which of the two.
    """

    since: float | None = None
    until: float | None = None
    by: By = "arrival"

    def expression(self) -> pc.Expression:
        """Return the same as a filter of rows."""
        name = pc.field("arrival_ms" if self.by == "arrival" else "t_mjd_tai")
        within = pc.scalar(True)  # noqa: FBT003 - Arrow takes it by position
        if self.since is not None:
            within &= name >= self.since
        if self.until is not None:
            within &= name < self.until
        return within


class Gone(NamedTuple):
    """Offsets ``[start, end)`` that Kafka no longer has, and that, as far as is known, were to be read."""

    topic: str
    partition: int
    start: int
    end: int

    def __str__(self) -> str:
        offsets = f"{self.topic}[{self.partition}] offsets {self.start} to {self.end - 1}"
        return f"{offsets} are no longer in Kafka"


class RejectedPacket(NamedTuple):
    """A packet that could not be read again."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str


@dataclass
class Outcome:
    """The results of a re-scoring; each alert that was read is counted once more below `n_read`.

    Attributes
    ----------
    n_read
        Alerts of the survey that were read.
    n_scored
        Rows with a score that were added.
    not_evaluated
        Rows without a score that were added, by reason.
    n_present
        Alerts that already had a row of this version.
    n_repeated
        Alerts that count at another offset.
    rejected
        Packets that could not be read, by reason.
    listed
        The first :data:`LISTED` of them.
    gone
        Offsets that Kafka no longer has.
    """

    n_read: int = 0
    n_scored: int = 0
    not_evaluated: Counter[str] = field(default_factory=Counter)
    n_present: int = 0
    n_repeated: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    listed: list[RejectedPacket] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)


def rescored_schema() -> pa.Schema:
    """Return the columns of re-scored rows: those of the live table except the nested ones."""
    live = delta_schema()
    flat = [column for column in live if column.name not in {"light_curve", "features"}]
    return pa.schema(flat)


@dataclass
class Rescoring:
    """One run: alerts in, rows into `target`.

    Attributes
    ----------
    engine
        The database, which knows at which offset an alert counts.
    scorer, version
        The scorer, and the version of the model.
    target
        Receives the rows.
    run_id
        Written into the rows.
    progress
        Called with the number of alerts read, and their total.
    survey
        The survey whose alerts are scored.
    """

    engine: sa.Engine
    scorer: Scorer
    version: str
    target: Target
    run_id: str
    progress: Callable[[int, int], None] = lambda _done, _total: None
    survey: str = LSST.name
    outcome: Outcome = field(default_factory=Outcome, init=False)

    @property
    def model(self) -> Model:
        """The model that scores."""
        return self.scorer.models(self.versions)[self.survey]

    @property
    def versions(self) -> str:
        """The version as a text for :meth:`stream.scoring.Scorer.score_packets`."""
        return str(Versions({self.survey: self.version}))

    def take(self, alerts: pa.Table, score: Callable[[pa.Table], pa.Table]) -> None:
        """Score with `score` those of `alerts` that count and have no row yet, and add the rows."""
        self.outcome.n_read += alerts.num_rows
        counting = alerts.filter(pa.array(self._counting(alerts)))
        self.outcome.n_repeated += alerts.num_rows - counting.num_rows
        while True:
            present = self.target.present(counting["dia_source_id"].to_numpy())
            rows = rescored_schema().empty_table()
            if not present.all():
                rows = score(counting.filter(pa.array(~present))).select(rows.column_names)
                rows = rows.cast(rescored_schema()).combine_chunks()
            if self.target.add(rows):
                break
        reasons = Counter(rows["reason"].drop_null().to_pylist())
        self.outcome.n_present += int(present.sum())
        self.outcome.not_evaluated += reasons
        self.outcome.n_scored += rows.num_rows - reasons.total()

    def _counting(self, alerts: pa.Table) -> NDArray[np.bool_]:
        """Return which rows count: the first row of each alert at the offset where the alert counts."""
        where = list(zip(*(alerts[name].to_pylist() for name in _WHERE), strict=True))
        keys = keys_of(alerts, "dia_source_id")
        with reading(self.engine) as connection:
            classified = classified_at(connection, keys)
        at_offset = [classified.get(key, at) == at for key, at in zip(keys, where, strict=True)]
        rows = np.flatnonzero(np.array(at_offset, np.bool_))
        _, first = np.unique(alerts["dia_source_id"].to_numpy()[rows], return_index=True)
        counting = np.zeros(alerts.num_rows, np.bool_)
        counting[rows[first]] = True
        return counting


_WHERE: Final = ("topic", "kafka_partition", "kafka_offset")


def classified_at(connection: sa.Connection, keys: list[Key]) -> dict[Key, tuple[str, int, int]]:
    """Return topic, partition and offset of those of the alerts that the live stream has classified."""
    table = tables.classifications.c
    columns = sa.select(*(table[name] for name in ("survey", "dia_source_id", *_WHERE)))
    return {
        (row[0], row[1]): (row[2], row[3], row[4])
        for condition in of_keys(table.dia_source_id, keys)
        for row in connection.execute(columns.where(condition))
    }


# -- from Delta ------------------------------------------------------------------------------------


def rescore_delta(
    rescoring: Rescoring, folder: Path, times: Times, *, recompute: bool = False
) -> Outcome:
    """Score again what the Delta table at `folder` holds now.

    Stored features are used if the model that scored them reads the same ones (equal digests), and no
    part of the new model reads light curves too; else they are computed from the light curve. If that is
    no longer stored, the row's reason states it.

    Parameters
    ----------
    rescoring
        The run: what scores, and where rows go.
    folder
        Folder of the live table.
    times
        Which alerts.
    recompute
        Compute features from the light curve wherever one is stored.

    Raises
    ------
    ConfigurationError
        There is no table.
    UnavailableError
        A file of the table was removed while it was read.
    """
    try:
        dataset = dataset_of(DeltaTable(str(folder)), folder)
    except TableNotFoundError as error:
        raise ConfigurationError(
            f"no Delta table at {folder}: the stream has written nothing yet; try --from kafka"
        ) from error
    within = times.expression() & (pc.field("survey") == rescoring.survey)
    model = rescoring.model
    read_by_parts = [name[7:] for name in model.manifest.reads if name.startswith("column:")]
    if absent := sorted(set(read_by_parts).difference(dataset.schema.names)):
        raise ConfigurationError(
            f"the model reads {', '.join(absent)}, which the Delta table does not have: try --from kafka"
        )
    stored = pc.field("feature_digest") == model.manifest.feature_digest
    if model.reads_light_curves:
        stored = pc.scalar(False)  # noqa: FBT003 - Arrow takes it by position
    elif recompute:
        stored &= pc.field("light_curve").is_null()
    computed = stored.is_null() | ~stored
    score = _FromDelta(rescoring)
    try:
        total = dataset.count_rows(filter=within)
        for condition, read, score_rows in (
            (stored, _FEATURE_READS, score.from_features),
            (computed, _CURVE_READS, score.from_light_curves),
        ):
            names = dict.fromkeys((*rescored_schema().names, *read, *read_by_parts))
            # A table of the release before may lack a field of the score, which is made anew in any case.
            columns = [n for n in names if n in dataset.schema.names]
            for alerts in _chunks_of(dataset, columns, within & condition):
                rescoring.take(alerts, score_rows)
                rescoring.progress(rescoring.outcome.n_read, total)
    except FileNotFoundError as error:
        raise UnavailableError(
            "Delta table",
            f"{error}: maintenance replaced the file; start again, it goes on from here",
        ) from error
    return rescoring.outcome


def _chunks_of(dataset: Any, columns: list[str], condition: pc.Expression) -> Iterator[pa.Table]:
    """Read rows, about :data:`CHUNK` at a time, with little read-ahead."""
    batches = dataset.to_batches(
        columns=columns,
        filter=condition,
        batch_size=CHUNK,
        batch_readahead=1,
        fragment_readahead=1,
    )
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= CHUNK:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


@dataclass
class _FromDelta:
    """Rows of the live table into rows of the new one."""

    rescoring: Rescoring

    def from_features(self, alerts: pa.Table) -> pa.Table:
        scores = self.rescoring.model.score_inputs(Inputs.of_stored(alerts))
        return self._rows(alerts, scores)

    def from_light_curves(self, alerts: pa.Table) -> pa.Table:
        scores = self.rescoring.model.score_arrays(alerts)
        not_kept = np.asarray(alerts["light_curve"].is_null())
        no_points = scores.reason == str(NotEvaluated.NO_FINITE_FLUX)
        scores.reason[not_kept & no_points] = str(NotEvaluated.LIGHT_CURVE_NOT_KEPT)
        return self._rows(alerts, scores)

    def _rows(self, alerts: pa.Table, scores: Scores) -> pa.Table:
        n = alerts.num_rows
        columns = {n: alerts[n] for n in rescored_schema().names if n in alerts.column_names}
        columns |= score_columns(self.rescoring.model, scores)
        columns["reason"] = pa.array(scores.reason, pa.string())
        columns["processed_ms"] = pa.array([now_ms()] * n, pa.int64())
        columns["run_id"] = pa.array([self.rescoring.run_id] * n, pa.string())
        return pa.table(columns)


# -- from Kafka ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KafkaPlace:
    """Where and how packets are read.

    Attributes
    ----------
    topics, client
        The alert topics, and librdkafka's settings.
    timeout_s
        How long to wait for a silent broker.
    threads
        At most this many lists of packets are decoded and scored at a time.
    """

    topics: tuple[str, ...]
    client: Mapping[str, Any] = field(repr=False)
    timeout_s: float = 30.0
    threads: int = 2


def rescore_kafka(rescoring: Rescoring, place: KafkaPlace, times: Times) -> Outcome:
    """Score again what Kafka holds of a time range, with consumers of its own.

    The range begins at the first message that is stamped at `since` or later and ends before the
    first that is stamped at `until` or later, so ranges that meet in time meet in offsets.

    Parameters
    ----------
    rescoring
        The run: what scores, and where rows go.
    place
        Where packets are read.
    times
        Which alerts, by arrival.

    Raises
    ------
    UnavailableError
        Kafka does not answer.
    """
    marks = Watermarks(list(place.topics), place.client, place.timeout_s)
    try:
        ranges, gone = offsets_between(rescoring.engine, marks, times)
        rescoring.outcome.gone += gone
        total = sum(end - start for start, end in ranges.values())
        done = 0
        for (topic, partition), (start, end) in ranges.items():
            reading_ = _PartitionReading(rescoring, place, marks, (topic, partition), end)
            for at in reading_.run(start):
                rescoring.progress(done + at - start, total)
            done += end - start
    finally:
        marks.close()
    return rescoring.outcome


def offsets_between(
    engine: sa.Engine, marks: Watermarks, times: Times
) -> tuple[dict[tuple[str, int], tuple[int, int]], list[Gone]]:
    """Return which offsets of each partition arrived within `times`, and which of them are gone.

    The tables hold the arrival times of removed offsets that a stream has read; those of unknown time
    count as gone. Without a `since`, whatever Kafka holds was requested, and nothing is gone.
    """
    bounds = marks.now()
    starts = {key: low for key, (low, _) in bounds.items()}
    ends = {key: high for key, (_, high) in bounds.items()}
    gone = []
    if times.since is not None:
        starts |= marks.at(round(times.since), ends)
        for (topic, partition), (low, _) in bounds.items():
            first = _after(engine, topic, partition, low, times.since)
            if starts[topic, partition] == low > first:
                gone.append(Gone(topic, partition, first, low))
    if times.until is not None:
        ends = marks.at(round(times.until), ends)
    return {key: (starts[key], max(starts[key], ends[key])) for key in bounds}, gone


def _after(engine: sa.Engine, topic: str, partition: int, low: int, since_ms: float) -> int:
    """Return the offset after the last one below `low` that is known to have arrived too early."""
    last = -1
    with reading(engine) as connection:
        for table in tables.HOLDING:
            known = table.c
            early = sa.and_(
                known.topic == topic,
                known.kafka_partition == partition,
                known.kafka_offset < low,
                known.arrival_ms < since_ms,
            )
            newest = sa.select(known.kafka_offset).where(early).order_by(known.kafka_offset.desc())
            offset = connection.execute(newest.limit(1)).scalar()
            last = last if offset is None else max(last, int(offset))
    return last + 1


@dataclass
class _PartitionReading:
    """Reads one partition up to `end`, chunk by chunk."""

    rescoring: Rescoring
    place: KafkaPlace
    marks: Watermarks
    where: tuple[str, int]
    end: int

    def run(self, start: int) -> Iterator[int]:
        """Read, score and add from `start` on; yield the next offset after each chunk."""
        budget = threading.Semaphore(2 * self.place.threads)
        limits = Limits(_SCORED_TOGETHER, 2 * CHUNK, self.place.timeout_s)
        client = {"queued.max.messages.kbytes": PREFETCH_KB, **self.place.client}
        with ThreadPoolExecutor(self.place.threads, "rescore") as pool:
            reader = RangeReader(self.where, client, self._work, pool, budget, limits)
            try:
                while start < self.end:
                    start = self._step(reader, start)
                    yield start
            finally:
                reader.close()

    def _step(self, reader: RangeReader[pa.Table], start: int) -> int:
        """Read, score and add the next chunk; return where the one after it begins."""
        low = self.marks.now()[self.where][0]
        if low > start:  # Kafka's retention overtook this run
            self.rescoring.outcome.gone.append(Gone(*self.where, start, min(low, self.end)))
            return min(low, self.end)
        stop = min(start + CHUNK, self.end)
        try:
            pieces = reader.read(start, stop, self.rescoring.versions)
            parts = [rows.slice(first, last - first) for rows, first, last in pieces]
        except UnavailableError:
            if self.marks.now()[self.where][0] > start:
                return start  # the next step reports what is gone
            raise
        if parts:
            self._take(pa.concat_tables(parts))
        return stop

    def _take(self, messages: pa.Table) -> None:
        good = messages["reject_reason"].is_null()
        self._note(messages.filter(pc.invert(good)))
        ours = pc.and_(good, pc.equal(messages["survey"], self.rescoring.survey))
        self.rescoring.take(messages.filter(ours), lambda rows: rows)

    def _note(self, rejected: pa.Table) -> None:
        outcome = self.rescoring.outcome
        outcome.n_read += rejected.num_rows
        outcome.rejected.update(rejected["reject_reason"].to_pylist())
        names = (*_WHERE, "reject_reason", "detail")
        for row in rejected.select(names).to_pylist()[: LISTED - len(outcome.listed)]:
            outcome.listed.append(RejectedPacket(*(row[name] for name in names)))

    def _work(self, messages: list[Message], versions: str) -> pa.Table:
        """Decode and score packets as the live stream does; called in a thread."""
        packets = [message.value() or b"" for message in messages]
        scored = self.rescoring.scorer.score_packets(packets, versions)
        run = pa.array([self.rescoring.run_id] * len(packets), pa.string())
        columns = {**scored.rows, **read_where(messages), "run_id": run}
        why = [("reject_reason", pa.string()), ("detail", pa.string())]
        schema = pa.schema([*rescored_schema(), *why])
        return pa.table(
            [columns[name].cast(schema.field(name).type) for name in schema.names], schema
        )
