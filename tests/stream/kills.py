"""The stream without Spark, in a process that can be killed: cheap enough to be killed often.

A child process calls the data source, the worker's function and the sink as Spark does and in Spark's
order, over real Kafka, SQL and Delta, and keeps offsets and commits in a checkpoint as Spark does: first
the offsets of a batch, then the batch, then its commit. What it is about to do it tells its parent. It
comes from multiprocessing's fork server, which has imported everything and started nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame
from pyspark.sql.datasource import InputPartition

import stream.job
import stream.worker
from benchmarks.kills import PARTITIONS
from deploy.kafka import create_topics
from deploy.sections import Settings
from deploy.wiring import job_config, topic_partitions
from store.delta import LightCurveFile, Written, ensure_table
from stream.job import JobConfig, Sink, source_options
from stream.outputs import Outputs
from stream.rows import PACKED_SCHEMA
from stream.scoring import delta_schema
from stream.source import AlertStreamReader, PlannedTask
from tests.stream.conftest import Night

Watch = Callable[[str], None]

WINDOWS = ("worked", "sql", "delta", "half sent", "sent")
"""What has just been done; see :func:`watched`. "planned" comes before, "committed" after."""

_HALF = 5
"""Messages of a batch that are surely in Kafka when only a part is; batches here have more."""


class Rows(NamedTuple):
    """Of Spark's DataFrame, what the sink asks for."""

    rows: pa.Table

    def toArrow(self) -> pa.Table:  # noqa: N802 - Spark's
        return self.rows


def plain_stream(settings: Settings, watch: Watch, batches: int | None = None) -> None:
    """Read what is in the topics now, or at most `batches` batches of it, as Spark does."""
    config = job_config(settings)
    stream.job.choose_version(source_options(config))
    ensure_table(Path(config.worker.delta_folder), delta_schema())
    with watched(watch):
        _drain(config, watch, batches)


def _drain(config: JobConfig, watch: Watch, batches: int | None) -> None:
    reader = AlertStreamReader(source_options(config) | {"pace_s": "0"})
    sink = Sink(config, None)
    planned, done = (_Log(config.checkpoint / name) for name in ("offsets", "commits"))
    number = done.last() + 1
    while batches != 0:
        start = planned.read(number - 1) or reader.initialOffset()
        end = planned.read(number)
        if end is None:
            end = reader.latestOffset(start, reader.getDefaultReadLimit())
            if end == start:
                return
            planned.write(number, end)
        watch("planned")
        parts = [batch for task in reader.partitions(start, end) for batch in _read(reader, task)]
        sink(cast("DataFrame", Rows(pa.Table.from_batches(parts, PACKED_SCHEMA))), number)
        done.write(number, {})
        watch("committed")
        number += 1
        batches = None if batches is None else batches - 1


def _read(reader: AlertStreamReader, task: InputPartition) -> Iterator[pa.RecordBatch]:
    assert isinstance(task, PlannedTask)
    return reader.read(task)


class _Log:
    """Numbered files, each there as a whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def last(self) -> int:
        return max((int(file.name) for file in self._folder.glob("[0-9]*")), default=-1)

    def read(self, number: int) -> dict[str, Any] | None:
        file = self._folder / str(number)
        found: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
        return found

    def write(self, number: int, value: dict[str, Any]) -> None:
        draft = self._folder / ".draft"
        draft.write_text(json.dumps(value))
        draft.rename(self._folder / str(number))


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tell `watch` what has just been done of a batch, by the names in :data:`WINDOWS`.

    ``written`` besides, for a worker's Parquet file that nobody knows of yet.
    """
    with pytest.MonkeyPatch.context() as patch:
        commit_sql = stream.job.commit_sql  # type: ignore[attr-defined]
        commit_files = stream.job.commit_files  # type: ignore[attr-defined]
        close, send, produce = LightCurveFile.close, Outputs.send, Outputs._produce
        n = 0

        def watched_close(self: LightCurveFile) -> Written | None:
            written = close(self)
            watch("written")
            return written

        def watched_sql(*given: Any, **named: Any) -> Any:
            watch("worked")
            counts = commit_sql(*given, **named)
            watch("sql")
            return counts

        def watched_files(*given: Any, **named: Any) -> bool:
            made = commit_files(*given, **named)
            watch("delta")
            return made

        def watched_produce(self: Outputs, message: dict[str, Any]) -> None:
            nonlocal n
            produce(self, message)
            n += 1
            if n == _HALF:
                assert self._producer.flush(10) == 0
                watch("half sent")

        def watched_send(self: Outputs, *given: Any, **named: Any) -> int:
            nonlocal n
            n = 0
            sent = send(self, *given, **named)
            watch("sent")
            return sent

        patch.setattr(LightCurveFile, "close", watched_close)
        patch.setattr(stream.job, "commit_sql", watched_sql)
        patch.setattr(stream.job, "commit_files", watched_files)
        patch.setattr(Outputs, "_produce", watched_produce)
        patch.setattr(Outputs, "send", watched_send)
        yield


def _in_child(settings: Settings, tell: Connection, die_at: str | None) -> None:
    def watch(done: str) -> None:
        tell.send(done)
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    plain_stream(settings, watch)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "lightgbm", "pandas"])
    return context


class Life(NamedTuple):
    """How a child ended: killed or not, and all that it had told."""

    killed: bool
    told: list[str]


def live(
    settings: Settings, *, die_at: str | None = None, kill_after: tuple[str, float] | None = None
) -> Life:
    """Run the plain stream in a child until it has drained the topics or is killed.

    Parameters
    ----------
    settings
        Of the stream.
    die_at
        It kills itself when this has been done.
    kill_after
        A step and seconds: it is killed that long after the step was done for the first time.
    """
    hear, tell = multiprocessing.Pipe(duplex=False)
    child = _context().Process(target=_in_child, args=(settings, tell, die_at))
    child.start()
    tell.close()
    told: list[str] = []
    kill_at = None
    try:
        while True:
            left_s = None if kill_at is None else max(0.0, kill_at - time.monotonic())
            if not hear.poll(left_s):
                child.kill()
                break
            told.append(hear.recv())
            if kill_after is not None and told[-1] == kill_after[0] and kill_at is None:
                kill_at = time.monotonic() + kill_after[1]
        while hear.poll(_LAST_WORDS_S):
            told.append(hear.recv())
    except EOFError:
        pass
    finally:
        hear.close()
        child.join(60)
    status = child.exitcode
    child.close()
    assert status in {0, -signal.SIGKILL}, (status, told)
    return Life(status != 0, told)


_LAST_WORDS_S = 5.0
_MOMENTS = (("planned", 1.2), ("written", 0.2), ("written", 0.2))
"""When the clock of a kill starts, and how long it may run: a child's first batch loads a model and takes
a second, a batch after it a tenth of that."""


def kill_often(settings: Settings, kills: int, seed: int) -> Counter[str]:
    """Kill the plain stream `kills` times, at random moments within its batches.

    Returns
    -------
    Counter
        How many kills there were after what.
    """
    rng = random.Random(seed)
    where: Counter[str] = Counter()
    while (n := where.total()) < kills:
        start, span_s = rng.choice(_MOMENTS)
        life = live(settings, kill_after=(start, rng.uniform(0.0, span_s)))
        assert life.killed, f"drained after {n} kills: too few packets"
        where[life.told[-1]] += 1
    return where


def two_topics(night: Night, **stream: Any) -> Night:
    """Return a night that reads two new topics, with settings of the section ``stream``."""
    kafka = night.settings.kafka.model_dump()
    mark = uuid.uuid4().hex[:8]
    kafka["alert_topics"] = (f"alerts-{mark}", f"again-{mark}")
    state = night.settings.state.with_name(mark)
    settings = Settings(state=state, kafka=kafka, stream=stream)
    create_topics(str(settings.kafka.bootstrap_servers), topic_partitions(settings, PARTITIONS))
    return Night(settings, night.spark, night.models)
