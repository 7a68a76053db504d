"""What one Spark task does, in a Python worker that stays: consume, score, write, hand on.

Everything dear is module state, made once in a worker's life: consumers with their position and
prefetched messages, compiled plans, models. That is why this module must be importable by name:
Spark then pickles a reference to it, and a worker that runs the next task finds its state.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from store.clock import now_ms
from store.delta import LightCurveFile
from stream.consumer import Range, RangeReader, offset_of
from stream.rows import MESSAGE, RANGE, fill
from stream.scoring import Scored, Scorer, ScorerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka import Message


READERS_KEPT: Final = 4
"""Each fetches up to 64 MB ahead, and Spark may give a worker any partition."""


@dataclass(frozen=True)
class WorkerConfig:
    """All that a task needs beside its range.

    Attributes
    ----------
    client
        librdkafka settings.
    scorer
        See :class:`stream.scoring.ScorerConfig`.
    delta_folder
        Where Parquet files of light curves and features are written; empty writes none.
    run_id
        Of the checkpoint that this run belongs to.
    timeout_s
        How long a silent broker is waited for.
    chunk
        Messages that are decoded and scored together; bounds a worker's memory.
    """

    client: dict[str, Any]
    scorer: ScorerConfig
    delta_folder: str
    run_id: str
    timeout_s: float = 30.0
    chunk: int = 256

    def to_options(self) -> dict[str, str]:
        """Return the same as text, for Spark to carry to the workers."""
        return {"client": json.dumps(self.client), "worker": json.dumps(asdict(self))}

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> WorkerConfig:
        """Read what :meth:`to_options` wrote."""
        values = json.loads(options["worker"])
        return cls(**{**values, "scorer": ScorerConfig(**values["scorer"])})


@dataclass
class _Kept:
    """A worker's state."""

    scorer: Scorer
    readers: OrderedDict[tuple[str, int], RangeReader] = field(default_factory=OrderedDict)

    def reader(self, part: Range, config: WorkerConfig) -> RangeReader:
        key = (part.topic, part.partition)
        if key not in self.readers:
            self.readers[key] = RangeReader(*key, config.client, config.timeout_s)
        self.readers.move_to_end(key)
        while len(self.readers) > READERS_KEPT:
            self.readers.popitem(last=False)[1].close()
        return self.readers[key]


_KEPT: dict[str, _Kept] = {}


def run(part: Range, version: str, options: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """Run a task; the function that the data source's option ``run`` names."""
    yield from run_range(part, version, WorkerConfig.from_options(options))


def run_range(part: Range, version: str, config: WorkerConfig) -> Iterator[pa.RecordBatch]:
    """Consume `part`, score it with model `version`, give the rows of :mod:`stream.rows`.

    The messages' rows come in offset order; the range's own row comes last.
    """
    started_ms = now_ms()
    kept = _KEPT.setdefault(repr(config), _Kept(Scorer(config.scorer)))
    file = LightCurveFile(Path(config.delta_folder)) if config.delta_folder else None
    batches = []
    for messages in kept.reader(part, config).read(part.start, part.end, config.chunk):
        packets = [message.value() or b"" for message in messages]
        scored = kept.scorer.score_packets(packets, version)
        where = read_where(part, messages)
        if file is not None:
            run = pa.array([config.run_id] * len(messages))
            file.append(scored.to_keep({**where, "run_id": run}))
        batches.append(message_rows(where, packets, scored))
    yield from batches
    written = file.close() if file is not None else None
    n_read = sum(batch.num_rows for batch in batches)
    yield fill(
        {
            "kind": pa.array([RANGE]),
            "topic": pa.array([part.topic]),
            "kafka_partition": pa.array([part.partition]),
            "kafka_offset": pa.array([part.start]),
            "end_offset": pa.array([part.end]),
            "n_read": pa.array([n_read]),
            "started_ms": pa.array([started_ms]),
            "delta_file": pa.array([written.name if written else None], pa.string()),
            "delta_bytes": pa.array([written.n_bytes if written else None], pa.int64()),
            "delta_rows": pa.array([written.n_rows if written else None], pa.int64()),
        },
        1,
    )


def read_where(part: Range, messages: list[Message]) -> dict[str, pa.Array]:
    """Return where and when each message was read."""
    n = len(messages)
    return {
        "topic": pa.array([part.topic] * n),
        "kafka_partition": pa.array([part.partition] * n, pa.int32()),
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
    return fill(columns, len(packets))
