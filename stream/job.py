"""The Spark job: one source, one foreachBatch. It returns its query; only the entry point waits."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from active_learning.requests import RequestPolicy, wishes_of
from active_learning.which_model import champions, model_of_alias
from lightcurves.errors import ConfigurationError
from lightcurves.surveys import LSST
from models.artifact import read_manifest
from store.clock import now_ms
from store.database import open_database, reading
from store.delta import Written, commit_files, ensure_table
from stream.commit import BatchId, commit_sql
from stream.outputs import Outputs
from stream.report import BatchReport, report_of
from stream.rows import RANGE, unpack
from stream.scoring import delta_schema
from stream.source import SOURCE_NAME
from stream.stages import Stages
from stream.versions import Versions
from stream.worker import WorkerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa
    import sqlalchemy as sa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from stream.routes import Outgoing

RUN_FILE: Final = "noctule-run-id"
LOCK_FILE: Final = "noctule-lock"


@dataclass(frozen=True)
class JobConfig:
    """All that the job depends on, as plain values.

    Attributes
    ----------
    topics, starting, max_alerts, tasks
        What is read: topics, where a new checkpoint begins, the most alerts of one batch, and how many
        tasks share it.
    checkpoint
        Spark's folder; it also keeps the run's id.
    store_url, alias
        The database, and the alias whose version scores LSST's alerts ("champion"); those of other surveys
        are named after it, see :func:`active_learning.which_model.alias_of`.
    worker
        What the workers need.
    outgoing
        What is sent to Kafka; None: nothing.
    policy
        How label requests are chosen.
    settings_digest
        Stamped into the accounting.
    behind
        If more than this many alerts wait, a batch looks ahead for urgent ones, as the worker's priority
        defines them; 0: never.
    lost
        "stop" or "skip": what to do if Kafka has removed offsets before they were read.
    trigger_s, busy_timeout_s
        Seconds between batches, and how long to wait for another writer's lock.
    offsets, version
        Of a backfill: which offsets are read, ``[start, end)`` by ``topic:partition``, and the versions
        that score them, see :mod:`stream.versions`. Another run's result for an offset is then kept.
    """

    topics: tuple[str, ...]
    starting: str
    max_alerts: int
    checkpoint: Path
    store_url: str = field(repr=False)
    alias: str
    worker: WorkerConfig
    outgoing: Outgoing | None
    policy: RequestPolicy
    settings_digest: str
    tasks: int = 1
    behind: int = 0
    lost: str = "stop"
    trigger_s: float = 1.0
    busy_timeout_s: float = 30.0
    offsets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    version: str = ""


def run_id_of(checkpoint: Path) -> str:
    """Return the id of the run that `checkpoint` belongs to; a new checkpoint gets one."""
    file = checkpoint / RUN_FILE
    if not file.is_file():
        checkpoint.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(uuid.uuid4().hex)
        draft.rename(file)
    return file.read_text()


@contextmanager
def sole_user(checkpoint: Path) -> Iterator[None]:
    """Hold `checkpoint` for this process; the lock goes when the process does, however it ends.

    Raises
    ------
    ConfigurationError
        Another stream holds it: two on one checkpoint would plan the same offsets twice.
    """
    checkpoint.mkdir(parents=True, exist_ok=True)
    with (checkpoint / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigurationError(
                f"another stream ({file.read()}) uses the checkpoint {checkpoint}: stop it, or give this "
                "one a NOCTULE_STATE of its own"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def choose_version(options: Mapping[str, str]) -> str:
    """Return the versions that score the batch being planned: those given, or every survey's champion.

    Called by the data source on the driver's side; see :mod:`stream.source` and :mod:`stream.versions`.

    Raises
    ------
    ConfigurationError
        No survey has a champion, or one does not verify.
    """
    if options.get("version"):
        return options["version"]
    url, alias = options["store_url"], options["alias"]
    with reading(_engine(url)) as connection:
        models = champions(connection, alias) or {LSST.name: model_of_alias(connection, alias)}
    named = {survey: str(model["model_version"]) for survey, model in models.items()}
    for survey, version in named.items():
        if version not in _VERIFIED:  # what goes into the checkpoint must load, now and at a replay
            read_manifest(Path(models[survey]["path"]))
            _VERIFIED.add(version)
    return str(Versions(named))


_ENGINES: dict[str, sa.Engine] = {}
_VERIFIED: set[str] = set()


def _engine(url: str, busy_timeout_s: float = 30.0) -> sa.Engine:
    if url not in _ENGINES:
        _ENGINES[url] = open_database(url, busy_timeout_s=busy_timeout_s)
    return _ENGINES[url]


def start(
    spark: SparkSession,
    config: JobConfig,
    *,
    once: bool = False,
    on_batch: Callable[[BatchReport], None] | None = None,
) -> StreamingQuery:
    """Start the query; with `once` it ends when it has read what is in the topics now.

    Raises
    ------
    ConfigurationError
        No model is promoted, or it does not verify.
    """
    for version in Versions.parse(config.version).by_survey.values():
        read_manifest(Path(config.worker.scorer.models_folder) / version)
    if not config.version:
        choose_version({"store_url": config.store_url, "alias": config.alias})
    if config.worker.delta_folder:
        ensure_table(Path(config.worker.delta_folder), delta_schema())
    rows = spark.readStream.format(SOURCE_NAME).options(**source_options(config)).load()
    # The source sets the pace.
    trigger: dict[str, Any] = {"availableNow": True} if once else {"processingTime": "0 seconds"}
    return (
        rows.writeStream.foreachBatch(Sink(config, on_batch))
        .option("checkpointLocation", str(config.checkpoint))
        .trigger(**trigger)
        .start()
    )


def source_options(config: JobConfig) -> dict[str, str]:
    """Return the options of the data source; see :mod:`stream.source`."""
    looks = config.worker.priority is not None and not (config.worker.careful or config.offsets)
    return {
        **config.worker.to_options(),
        "topics": json.dumps(config.topics),
        "starting": config.starting,
        "checkpoint": str(config.checkpoint),
        "offsets": json.dumps(dict(config.offsets)),
        "version": config.version,
        "max_alerts": str(config.max_alerts),
        "behind": str(config.behind if looks else 0),
        "tasks": str(config.tasks),
        "lost": config.lost,
        "pace_s": str(config.trigger_s),
        "timeout_s": str(config.worker.timeout_s),
        "store_url": config.store_url,
        "alias": config.alias,
        "run": "stream.worker:run",
        "choose_version": "stream.job:choose_version",
    }


class Sink:
    """The foreachBatch: rows of a batch into SQL, Delta and Kafka; see :mod:`stream.commit`.

    Parameters
    ----------
    config
        The job's.
    on_batch
        Called after everything was written.
    """

    def __init__(self, config: JobConfig, on_batch: Callable[[BatchReport], None] | None) -> None:
        self._config = config
        self._on_batch = on_batch
        self._class_ids: dict[str, tuple[int, ...]] = {}
        self._outputs: Outputs | None = None
        if config.outgoing is not None:
            self._outputs = Outputs(config.worker.client, config.outgoing, config.worker.timeout_s)

    def __call__(self, frame: DataFrame, batch_id: int) -> None:
        """Write one batch."""
        stages = Stages()
        begin = time.perf_counter()
        with stages("handover"):
            rows = unpack(frame.toArrow())
        if rows.num_rows == 0:
            return
        config = self._config
        engine = _engine(config.store_url, config.busy_timeout_s)
        batch = BatchId(config.worker.run_id, batch_id, config.settings_digest)
        with stages("sql"):
            committed = commit_sql(
                engine,
                rows,
                batch,
                wishes_of(rows, config.policy),
                self._classes_of(rows),
                now_ms(),
                routes=self._outputs.routes if self._outputs is not None else (),
                keep_stored=bool(config.offsets),
            )
            committed_ms = now_ms()
        if config.worker.delta_folder:
            with stages("delta"):
                folder = Path(config.worker.delta_folder)
                commit_files(folder, written_files(rows), f"noctule-{batch.run_id}", batch_id)
        if self._outputs is not None:
            with stages("kafka"):
                self._outputs.send(engine, batch.run_id, batch_id, committed.classified)
        if self._on_batch is not None:
            total_s = time.perf_counter() - begin
            self._on_batch(report_of(rows, batch, committed, stages, total_s, committed_ms))

    def _classes_of(self, rows: pa.Table) -> Mapping[str, tuple[int, ...]]:
        """Return the classes of each version, at least of those that scored `rows`."""
        folder = Path(self._config.worker.scorer.models_folder)
        for version in rows["model_version"].drop_null().unique().to_pylist():
            if version not in self._class_ids:
                self._class_ids[version] = read_manifest(folder / version).class_ids
        return self._class_ids


def written_files(rows: pa.Table) -> list[Written]:
    """Return the Parquet files that the batch's workers wrote."""
    ranges = (
        rows.filter(pc.equal(rows["kind"], RANGE))
        .select(["delta_file", "delta_bytes", "delta_rows"])
        .to_pylist()
    )
    return [
        Written(row["delta_file"], row["delta_bytes"], row["delta_rows"])
        for row in ranges
        if row["delta_file"] is not None
    ]
