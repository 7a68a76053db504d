"""The Spark job: one source, one foreachBatch. It returns its query; only the entry point waits."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from lightcurves.errors import ConfigurationError, UnavailableError
from models.artifact import read_manifest
from store import registry
from store.clock import now_ms
from store.database import open_database, reading
from store.delta import Written, commit_files, ensure_table
from stream.commit import BatchId, Committed, RequestPolicy, commit_sql, where_of
from stream.outputs import Outputs, Topics
from stream.report import BatchReport, Differing, Refused, Requested
from stream.rows import MESSAGE, RANGE, SCORE_SPARK_SCHEMA, unpack
from stream.scoring import Scorer, delta_schema
from stream.source import SOURCE_NAME, AlertSource
from stream.stages import WORKER_STAGES, Stages
from stream.worker import WorkerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa
    import sqlalchemy as sa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.query import StreamingQuery

RUN_FILE: Final = "noctule-run-id"
LOCK_FILE: Final = "noctule-lock"
LOG_SETTINGS: Final = Path(__file__).with_name("log4j2.properties")


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
        The database, and the alias whose version scores ("champion").
    worker
        What the workers need.
    outgoing
        Topics to send to; None sends nothing.
    policy
        How label requests are chosen.
    settings_digest
        Stamped into the accounting.
    behind
        Where more than so many alerts wait, a batch looks ahead for what cannot; 0: never. What that is,
        the worker's priority says.
    lost
        "stop" or "skip": what to do where Kafka has removed offsets before they were read.
    trigger_s, busy_timeout_s
        Seconds between batches, and how long to wait for another writer's lock.
    offsets, version
        Of a backfill: which offsets are read, ``[start, end)`` by ``topic:partition``, and the version
        that scores them. What another run has said of an offset then stays.
    """

    topics: tuple[str, ...]
    starting: str
    max_alerts: int
    checkpoint: Path
    store_url: str = field(repr=False)
    alias: str
    worker: WorkerConfig
    outgoing: Topics | None
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


@dataclass(frozen=True)
class Executors:
    """What the job takes of a cluster; a local master makes do with what it has.

    Attributes
    ----------
    n
        How many executors, each for one task at a time.
    cores
        Of each, for its task's threads.
    memory
        Of each one's JVM, which passes bytes on; the Python worker's is beside it.
    """

    n: int = 1
    cores: int = 2
    memory: str = "1g"


def open_session(
    master: str, *, driver_memory: str, log_file: Path, executors: Executors | None = None
) -> SparkSession:
    """Start Spark, a local one on the loopback interface alone.

    What it and its workers print goes to `log_file`. A cluster's executors must see the state
    folder and have noctule installed, under the same path as here.

    Raises
    ------
    UnavailableError
        The cluster does not answer, or has nothing free.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = _session_settings(driver_memory)
    local = master.startswith("local")
    if local:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    else:
        settings |= _executor_settings(executors or Executors())
    builder = SparkSession.builder.master(master).appName("noctule")
    for key, value in settings.items():
        builder = builder.config(key, value)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _standard_error_to(log_file):
            session = builder.getOrCreate()
        session.sparkContext.setLogLevel("WARN")
        if not local:
            _await_executor(session, master, executors or Executors())
    except Py4JJavaError as error:
        if local:
            raise
        raise UnavailableError("Spark", _REFUSED_BY.format(master=master, log=log_file)) from error
    session.dataSource.register(AlertSource)
    return session


def _await_executor(session: SparkSession, master: str, wanted: Executors) -> None:
    """Wait for the first executor: without one a batch would wait for ever, and say nothing."""
    context: Any = session.sparkContext._jsc.sc()  # noqa: SLF001 - Python is told of no executors
    deadline = time.monotonic() + context.getConf().getTimeAsSeconds(_EXECUTOR_WAIT, "30s")
    while context.getExecutorMemoryStatus().size() <= _DRIVER:
        if time.monotonic() > deadline:
            session.stop()
            raise UnavailableError("Spark", _NO_EXECUTOR.format(master=master, wanted=wanted))
        time.sleep(_LOOK_S)


_EXECUTOR_WAIT: Final = "spark.scheduler.maxRegisteredResourcesWaitingTime"
_LOOK_S: Final = 0.1
_DRIVER: Final = 1
"""Spark counts it among the executors."""
_REFUSED_BY: Final = (
    "{master} does not answer, or its executors do not start: is it running, and is stream.master right? "
    "Its workers' logs, and {log}, say more"
)
_NO_EXECUTOR: Final = (
    "{master} has given no executor: it needs a worker with {wanted.cores} cores (stream.threads) and "
    "{wanted.memory} of memory (stream.executor_memory) free"
)


def _session_settings(driver_memory: str) -> dict[str, str]:
    return {
        "spark.driver.memory": driver_memory,
        # A batch of nothing but rejected packets comes through the driver, bytes and all.
        "spark.driver.maxResultSize": "0",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG_SETTINGS} {_LITTLE_WORK}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
        # A worker that ended after its task would open consumers and load models for each.
        "spark.python.worker.reuse": "true",
        "spark.executorEnv.GLIBC_TUNABLES": _KEEP_MEMORY,
        "spark.redaction.regex": "(?i)secret|password|token|url|client|worker",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    }


def _executor_settings(wanted: Executors) -> dict[str, str]:
    return {
        "spark.executor.memory": wanted.memory,
        "spark.executor.cores": str(wanted.cores),
        # One task at a time on each, or two workers would share its cores and its partitions.
        "spark.task.cpus": str(wanted.cores),
        # No more executors than tasks: one that has nothing to do still takes partitions away from others.
        "spark.cores.max": str(wanted.n * wanted.cores),
        "spark.executor.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG_SETTINGS} {_LITTLE_WORK}",
    }


_LITTLE_WORK: Final = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""The JVM plans batches and passes bytes on; compiling it thoroughly costs more than it ever saves."""
_KEEP_MEMORY: Final = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in (
        ("mmap_threshold", 1 << 30),
        ("trim_threshold", 1 << 33),
        ("top_pad", 1 << 26),
        ("arena_max", 2),
    )
)
"""Memory stays with a worker when packets are freed: asking the kernel anew for each, page by page, took
a third of its time. Nor do its threads get heaps of their own, one of which each consumer of Kafka's would
leave behind half empty: workers grew by gigabytes. Only glibc reads it."""


@contextmanager
def _standard_error_to(file: Path) -> Iterator[None]:
    """Let the JVM that is started inside write its standard error into `file`."""
    sys.stderr.flush()
    kept = os.dup(2)
    with file.open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def choose_version(options: Mapping[str, str]) -> str:
    """Return the version that scores the batch being planned: the one given, or what the alias names.

    Called by the data source on the driver's side; see :mod:`stream.source`.
    """
    if options.get("version"):
        return options["version"]
    url, alias = options["store_url"], options["alias"]
    with reading(_engine(url)) as connection:
        found = registry.champion(connection, alias)
    if found is None:
        raise ConfigurationError(NO_MODEL.format(alias=alias))
    version = str(found["model_version"])
    if version not in _VERIFIED:  # what goes into the checkpoint must load, now and at a replay
        read_manifest(Path(found["path"]))
        _VERIFIED.add(version)
    return version


NO_MODEL: Final = (
    "no model is promoted as '{alias}': run 'noctule train --data FOLDER --out MODEL', "
    "then 'noctule promote MODEL'"
)
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
    if config.version:
        read_manifest(Path(config.worker.scorer.models_folder) / config.version)
    else:
        choose_version({"store_url": config.store_url, "alias": config.alias})
    if config.worker.delta_folder:
        ensure_table(Path(config.worker.delta_folder), delta_schema())
    rows = spark.readStream.format(SOURCE_NAME).options(**source_options(config)).load()
    # The source keeps the pace.
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
                config.policy,
                self._class_ids(rows),
                now_ms(),
                fill=bool(config.offsets),
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

    def _class_ids(self, rows: pa.Table) -> tuple[int, ...]:
        versions = rows["model_version"].drop_null().unique().to_pylist()
        if not versions:
            return ()
        folder = Path(self._config.worker.scorer.models_folder)
        return read_manifest(folder / versions[0]).class_ids


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


def report_of(
    rows: pa.Table,
    batch: BatchId,
    committed: Committed,
    stages: Stages,
    total_s: float,
    committed_ms: int,
) -> BatchReport:
    """Return what is told of a batch; `stages` are the driver's so far."""
    is_range = pc.equal(rows["kind"], RANGE)
    tasks = rows.filter(is_range)["stages_s"].drop_null().to_pylist()
    for spent in tasks:
        stages.add(dict(zip(WORKER_STAGES, spent, strict=False)))
    longest = max((spent[-1] for spent in tasks), default=0.0)
    stages.seconds["handover"] = max(0.0, stages.seconds["handover"] - longest)
    early_ms = np.array([row["arrival_ms"] for row in committed.early], np.int64)
    messages = rows.filter(pc.equal(rows["kind"], MESSAGE))
    bad = pc.is_valid(messages["reject_reason"])
    readable = messages.filter(pc.invert(bad))
    refused = messages.filter(bad).select([*_REFUSED]).slice(0, _TOLD).to_pylist()
    versions = messages["model_version"].drop_null().unique().to_pylist()
    return BatchReport(
        batch.run_id,
        batch.batch_id,
        committed.counts,
        dict(stages.seconds),
        total_s,
        _latency_s(readable["arrival_ms"].to_numpy(), committed_ms),
        versions[0] if versions else "",
        tuple(Refused(*row.values()) for row in refused),
        committed_ms,
        _latency_s(early_ms, committed_ms),
        tuple(
            Requested(row["object_id"], row["dia_source_id"]) for row in committed.requested[:_TOLD]
        ),
        tuple(
            Differing(row["dia_source_id"], *where_of(row), row["differs"])
            for row in committed.differing[:_TOLD]
        ),
    )


def _latency_s(arrival_ms: NDArray[np.int64], committed_ms: int) -> NDArray[np.float64]:
    return np.maximum(0.0, (committed_ms - arrival_ms) / 1000)


_REFUSED: Final = ("topic", "kafka_partition", "kafka_offset", "reject_reason")
_TOLD: Final = 20


def score_with_spark(frame: DataFrame, scorer: Scorer, version: str) -> DataFrame:
    """Score the column ``packet`` of any frame by ``mapInArrow``: re-scoring and backfills."""
    config = scorer.config
    return frame.select("packet").mapInArrow(
        lambda batches: Scorer(config).score_arrow(batches, version), SCORE_SPARK_SCHEMA
    )
