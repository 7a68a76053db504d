"""What one Spark task does, in a Python worker that Spark reuses: consume, score, write, pass on rows.

Everything expensive is module state, made once in a worker's life: consumers with their position and
prefetched messages, compiled plans, models. That is why this module must be importable by name:
Spark then pickles a reference to it, and a worker that runs the next task finds its state.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from store.clock import now_ms
from store.delta import LightCurveFile
from stream.consumer import Limits, Range, RangeReader, offset_of
from stream.isolated import IsolatedScorer
from stream.priority import Lookout, Priority
from stream.rows import EARLY, MESSAGE, RANGE, pack, padded
from stream.scoring import Scored, Scorer, ScorerConfig
from stream.stages import WORKER_STAGES, Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from stream.source import PlannedTask


PREFETCH_KB: Final = 128 * 1024
"""The consumers of a worker together prefetch at most this much; those that look ahead as much again."""
LOOK_AHEAD: Final = 512
"""At most this many messages of a partition are prefetched beyond those that a batch looks ahead at."""
TIDY_EVERY: Final = 50_000
"""After this many messages a worker returns free memory to the operating system. Kafka's client fetches in
pieces of up to 32 MB, and the free memory between what is in use slowly grows: see
:data:`stream.session.KEEP_MEMORY`."""
ROWS_A_GROUP: Final = 1024
"""Rows per row group of a Parquet file: a few large groups take half the work of many small ones."""


@dataclass(frozen=True)
class WorkerConfig:
    """All that a task needs besides its ranges.

    Attributes
    ----------
    client
        librdkafka settings.
    scorer
        See :class:`stream.scoring.ScorerConfig`.
    delta_folder
        Where Parquet files of light curves and features are written; empty: none are written.
    run_id
        Of the checkpoint that this run belongs to.
    timeout_s
        How long to wait for a silent broker.
    threads
        At most this many lists of messages are decoded and scored at a time.
    chunk
        Messages that are decoded and scored together; bounds a worker's memory.
    prefetch
        At most this many messages of a partition are scored before a batch requests them.
    careful
        Whether a separate process scores; see :mod:`stream.isolated`. Looking ahead is then off.
    priority
        The urgent alerts to look ahead for; None: do not look ahead.
    """

    client: dict[str, Any]
    scorer: ScorerConfig
    delta_folder: str
    run_id: str
    timeout_s: float = 30.0
    threads: int = 2
    chunk: int = 128
    prefetch: int = 2048
    careful: bool = False
    priority: Priority | None = None

    def to_options(self) -> dict[str, str]:
        """Return the same as text, for Spark to pass to the workers."""
        return {"client": json.dumps(self.client), "worker": json.dumps(asdict(self))}

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> WorkerConfig:
        """Read what :meth:`to_options` wrote."""
        values = json.loads(options["worker"])
        priority = values["priority"] and Priority(**values["priority"])
        return cls(**{**values, "scorer": ScorerConfig(**values["scorer"]), "priority": priority})


class Worked(NamedTuple):
    """The results of a list of messages.

    ``rows`` for Spark, ``for_delta`` for the readable ones, seconds by stage for the report.
    """

    rows: pa.RecordBatch
    for_delta: pa.Table
    stages_s: Mapping[str, float]

    def part(self, low: int, high: int) -> Worked:
        """Return the results of messages `low` to `high` (exclusive)."""
        if (low, high) == (0, self.rows.num_rows):
            return self
        share = (high - low) / self.rows.num_rows
        offsets = self.rows["kafka_offset"].to_numpy()
        first, last = np.searchsorted(
            self.for_delta["kafka_offset"].to_numpy(), (offsets[low], offsets[high - 1] + 1)
        )
        stages_s = {stage: share * seconds for stage, seconds in self.stages_s.items()}
        return Worked(self.rows[low:high], self.for_delta[int(first) : int(last)], stages_s)


class Found(NamedTuple):
    """The offsets of messages that were read by looking ahead, and Spark's rows of the urgent ones."""

    offsets: list[int]
    rows: pa.RecordBatch

    def part(self, low: int, high: int) -> pa.RecordBatch:
        """Return the rows of the urgent ones among messages `low` to `high` (exclusive)."""
        at = self.rows["kafka_offset"].to_numpy()
        first, last = np.searchsorted(at, (self.offsets[low], self.offsets[high - 1] + 1))
        return self.rows[int(first) : int(last)]


Piece = tuple[Worked, int, int]
Key = tuple[str, int]
Made = TypeVar("Made")


class _WorkerState:
    """A worker's state."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.scorer = (
            IsolatedScorer(config.scorer, Scorer) if config.careful else Scorer(config.scorer)
        )
        self.pool = ThreadPoolExecutor(config.threads, "score")
        # For each thread the list that it works on, and the next one.
        self.budget = threading.Semaphore(2 * config.threads)
        self.lookout: Lookout | None = None
        if config.priority is not None and isinstance(self.scorer, Scorer):
            self.lookout = Lookout(self.scorer, config.priority)
        self.readers: dict[Key, RangeReader[Worked]] = {}
        self.lookers: dict[Key, RangeReader[Found]] = {}
        self.n_untidied = 0

    def readers_of(self, parts: Sequence[Range]) -> dict[Range, RangeReader[Worked]]:
        """Return the readers of `parts`, all of the worker's partitions; close those of other partitions."""
        _close_others(self.readers, parts)
        _close_others(self.lookers, parts)
        return self._opened(self.readers, parts, self.work, self.config.prefetch)

    def lookers_of(self, look_ahead: Sequence[Range]) -> dict[Range, RangeReader[Found]]:
        """Return the readers that look ahead, which have consumers of their own.

        They stay open, at rest, while the stream keeps up: it may fall behind once a minute.
        """
        for key in self.lookers.keys() - {_key(part) for part in look_ahead}:
            self.lookers[key].rest()
        return self._opened(self.lookers, look_ahead, self.look, LOOK_AHEAD)

    def _opened(
        self,
        readers: dict[Key, RangeReader[Made]],
        parts: Sequence[Range],
        work: Callable[[list[Message], str], Made],
        prefetch: int,
    ) -> dict[Range, RangeReader[Made]]:
        wanted = {_key(part) for part in parts}
        limits = Limits(self.config.chunk, prefetch, self.config.timeout_s)
        share = {"queued.max.messages.kbytes": PREFETCH_KB // max(1, len(wanted))}
        for key in wanted - readers.keys():
            client = share | self.config.client
            readers[key] = RangeReader(key, client, work, self.pool, self.budget, limits)
        return {part: readers[_key(part)] for part in parts}

    def work(self, messages: list[Message], version: str) -> Worked:
        """Decode and score messages of one partition."""
        packets = [message.value() or b"" for message in messages]
        scored = self.scorer.score_packets(packets, version)
        stages = Stages()
        stages.add(scored.stages_s)
        with stages("rows"):
            where = read_where(messages)
            run = pa.array([self.config.run_id] * len(messages))
            for_delta = scored.for_delta({**where, "run_id": run})
            rows = message_rows(where, packets, scored)
        return Worked(rows, for_delta, stages.seconds)

    def look(self, messages: list[Message], version: str) -> Found:
        """Find and score the urgent alerts among messages of one partition."""
        assert self.lookout is not None  # noqa: S101 - without one there are no lookers
        chosen, scored = self.lookout.find([m.value() or b"" for m in messages], version)
        rows = padded({}, 0)
        if scored is not None:
            where = read_where([messages[k] for k in chosen])
            kind = pa.array([EARLY] * chosen.size)
            rows = padded({**scored.rows, **where, "kind": kind}, chosen.size)
        return Found([offset_of(message) for message in messages], rows)

    def tidy(self, n_messages: int) -> None:
        """Count `n_messages`; return free memory once :data:`TIDY_EVERY` messages have been counted."""
        self.n_untidied += n_messages
        if self.n_untidied >= TIDY_EVERY:
            self.n_untidied = 0
            if _malloc_trim is not None:
                _malloc_trim(0)

    def close(self) -> None:
        """Stop fetching and scoring."""
        for reader in self.readers.values():
            reader.close()
        for looker in self.lookers.values():
            looker.close()
        self.pool.shutdown(cancel_futures=True)
        if isinstance(self.scorer, IsolatedScorer):
            self.scorer.close()


def _key(part: Range) -> Key:
    return part.topic, part.partition


def _close_others(readers: dict[Key, RangeReader[Made]], parts: Sequence[Range]) -> None:
    """Close the readers of all partitions but those of `parts`."""
    for key in readers.keys() - {_key(part) for part in parts}:
        readers.pop(key).close()


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Only glibc has it."""
_STATES: dict[str, _WorkerState] = {}


def _state_for(config: WorkerConfig) -> _WorkerState:
    """Return the state for `config`; close that of another stream, which has ended."""
    key = repr(config)
    if key not in _STATES:
        while _STATES:
            _STATES.popitem()[1].close()
        _STATES[key] = _WorkerState(config)
    return _STATES[key]


def run(task: PlannedTask, options: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """Run a task, its rows packed; the function that the data source's option ``run`` names."""
    config = WorkerConfig.from_options(options)
    for rows in run_ranges(task.parts, task.version, config, task.look_ahead):
        yield from pack(rows)


def run_ranges(
    parts: Sequence[Range], version: str, config: WorkerConfig, look_ahead: Sequence[Range] = ()
) -> Iterator[pa.RecordBatch]:
    """Consume `parts`, score them with `version` (:mod:`stream.versions`), yield rows of :mod:`stream.rows`.

    An empty range means that its partition belongs to this worker too: it is prefetched.

    The urgent alerts among `look_ahead` come first, then the messages' rows, partition by partition in offset
    order, then the ranges' own rows; the first of these names the file that was written, and the seconds
    spent by stage.
    """
    started_ms = now_ms()
    stages = Stages()
    begin = time.perf_counter()
    state = _state_for(config)
    file = LightCurveFile(Path(config.delta_folder)) if config.delta_folder else None
    waiting: list[pa.Table] = []
    n_read = dict.fromkeys(parts, 0)
    readers = state.readers_of(parts)
    for part in parts:
        readers[part].begin(part.start, version)
    with stages("look"):
        urgent = list(_look(state, look_ahead, version))
    yield from urgent
    parts = [part for part in parts if not part.is_empty]
    for part in parts:
        pieces = readers[part].read(part.start, part.end, version)
        while piece := _next(pieces, stages):
            whole, low, high = piece
            worked = whole.part(low, high)
            stages.add(worked.stages_s)
            n_read[part] += worked.rows.num_rows
            if file is not None:
                waiting.append(worked.for_delta)
                if sum(table.num_rows for table in waiting) >= ROWS_A_GROUP:
                    with stages("write"):
                        file.append(pa.concat_tables(waiting))
                    waiting = []
            yield worked.rows
    written = None
    if file is not None:
        with stages("write"):
            if any(table.num_rows for table in waiting):
                file.append(pa.concat_tables(waiting))
            written = file.close()
    state.tidy(sum(part.end - part.start for part in (*parts, *look_ahead)))
    stages.seconds["task"] = time.perf_counter() - begin
    spent = [stages.seconds[stage] for stage in (*WORKER_STAGES, "task")]
    names = ([written] + [None] * len(parts))[: len(parts)]
    yield padded(
        {
            "kind": pa.array([RANGE] * len(parts)),
            "topic": pa.array([part.topic for part in parts]),
            "kafka_partition": pa.array([part.partition for part in parts]),
            "kafka_offset": pa.array([part.start - part.n_lost for part in parts]),
            "end_offset": pa.array([part.end for part in parts]),
            "n_read": pa.array([n_read[part] for part in parts]),
            "n_lost": pa.array([part.n_lost for part in parts]),
            "started_ms": pa.array([started_ms] * len(parts)),
            "delta_file": pa.array([w and w.name for w in names], pa.string()),
            "delta_bytes": pa.array([w and w.n_bytes for w in names], pa.int64()),
            "delta_rows": pa.array([w and w.n_rows for w in names], pa.int64()),
            "stages_s": pa.array([spent] + [None] * (len(parts) - 1), pa.list_(pa.float64())),
        },
        len(parts),
    )


def _look(
    state: _WorkerState, look_ahead: Sequence[Range], version: str
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of urgent alerts."""
    lookers = state.lookers_of(look_ahead if state.lookout is not None else ())
    for part, looker in lookers.items():
        looker.begin(part.start, version)
    for part, looker in lookers.items():
        if part.is_empty:
            continue
        for urgent, low, high in looker.read(part.start, part.end, version):
            rows = urgent.part(low, high)
            if rows.num_rows:
                yield rows


def _next(pieces: Iterator[Piece], stages: Stages) -> Piece | None:
    with stages("wait"):
        return next(pieces, None)


def read_where(messages: list[Message]) -> dict[str, pa.Array]:
    """Return the topic, partition, offset, arrival time and processing time of each message."""
    n = len(messages)
    return {
        "topic": pa.array([message.topic() for message in messages]),
        "kafka_partition": pa.array([message.partition() for message in messages], pa.int32()),
        "kafka_offset": pa.array([offset_of(message) for message in messages], pa.int64()),
        "arrival_ms": pa.array([message.timestamp()[1] for message in messages], pa.int64()),
        "processed_ms": pa.array([now_ms()] * n, pa.int64()),
    }


def message_rows(
    where: dict[str, pa.Array], packets: list[bytes], scored: Scored
) -> pa.RecordBatch:
    """Return one row per message; only a rejected one carries its bytes."""
    bytes_kept = [
        None if good else packet for good, packet in zip(scored.readable, packets, strict=True)
    ]
    kind = pa.array([MESSAGE] * len(packets))
    columns = {**scored.rows, **where, "kind": kind, "packet": pa.array(bytes_kept, pa.binary())}
    return padded(columns, len(packets))
