"""``noctule stream``: runs the Spark job, restarts it after an outage, serves its health and metrics."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from deploy.places import open_store
from deploy.terminal import stop_event
from deploy.wiring import check_kafka, job_config, kafka_client, open_spark
from lightcurves.errors import ConfigurationError, NoctuleError, UnavailableError
from store.accounting_queries import read_positions
from store.database import reading
from stream.consumer import Watermarks
from stream.health import Monitor
from stream.journal import log_batch
from stream.lag import Lag, offsets_of
from stream.metrics import StreamMetrics
from watch.endpoint import telling
from watch.health import PAUSE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql.streaming.query import StreamingQuery

    from deploy.sections import Settings
    from stream.job import JobConfig
    from stream.report import BatchReport

LOG: Final = logging.getLogger("noctule")

# After an outage of Kafka or the database the query is restarted from its checkpoint, each time after
# twice as long a wait.
_FIRST_PAUSE_S: Final = 1.0

_LOOK_S: Final = 0.2  # between two checks that the query still runs
_LOOKS_A_REPORT: Final = 5  # every how many checks the progress is read too
_ASK_KAFKA_S: Final = 5.0
_DIED: Final = "Python worker exited unexpectedly"
_LOST: Final = "ExecutorLostFailure"
_NO_SPACE: Final = "No space left on device"
_GOODBYE_S: Final = 5.0  # how long a pending answer from Kafka may delay the end


def run_stream(settings: Settings, *, once: bool) -> None:
    """Run the Spark job until it is stopped, or with `once` until it has read what is in the topics now.

    Raises
    ------
    ConfigurationError
        No broker, no model, no Java, or the port for metrics is in use.
    UnavailableError
        Kafka or the database is unavailable at the start (later the job waits and tries again), or with
        `once`.
    """
    from deploy.java import find_java  # noqa: PLC0415 - before Spark is imported
    from stream.job import sole_user  # noqa: PLC0415 - Spark is slow to import

    find_java()
    with sole_user(settings.stream.checkpoint), ExitStack() as stack:
        watch = Watch.of(settings)
        if settings.stream.metrics_port and not once:
            stack.enter_context(watch.telling())
        with watch.monitor.until_death():
            _run_stream(settings, watch, once=once)


@dataclass(frozen=True)
class Watch:
    """Reports on a stream: to Prometheus, to its health endpoints, to the log."""

    settings: Settings
    monitor: Monitor
    metrics: StreamMetrics

    @classmethod
    def of(cls, settings: Settings) -> Watch:
        """Return a watch over a stream that has not started yet."""
        stream = settings.stream
        lag = Lag({}, from_start=stream.starting == "earliest")
        monitor = Monitor(lag, stalled_s=stream.stalled_s)
        return cls(settings, monitor, StreamMetrics(monitor, slow_batch_s=stream.slow_batch_s))

    def telling(self) -> Any:
        """Return the server of metrics and health, to be entered."""
        stream = self.settings.stream
        return telling(self.metrics, self.monitor, stream.metrics_host, stream.metrics_port)

    def batch(self, report: BatchReport) -> None:
        """Report a batch; an error in here must not end the query that calls it."""
        try:
            self.monitor.batch(report)
            self.metrics.observe(report)
            log_batch(report, self.settings.stream.slow_batch_s)
        except Exception:
            LOG.exception("batch %d could not be told of", report.batch_id)

    def look(self, query: StreamingQuery) -> None:
        """Record how far the query has read; an answer that cannot be used is not an error of the query."""
        try:
            offsets = offsets_of(query.lastProgress)
        except Exception:
            LOG.debug("the query did not say how far it is", exc_info=True)
            offsets = {}
        self.monitor.looked(offsets)

    @contextmanager
    def asking_kafka(self) -> Iterator[None]:
        """Record what Kafka holds, while the block runs."""
        done = threading.Event()
        thread = threading.Thread(target=self._ask_kafka, args=(done,), name="lag", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(_GOODBYE_S)

    def _ask_kafka(self, done: threading.Event) -> None:
        kafka = self.settings.kafka
        marks = Watermarks(list(kafka.alert_topics), kafka_client(self.settings), kafka.timeout_s)
        try:
            while not done.is_set():
                try:
                    self.monitor.kafka(marks.now())
                except NoctuleError as error:
                    self.monitor.kafka_is_away(str(error))
                done.wait(_ASK_KAFKA_S)
        finally:
            marks.close()


def _run_stream(settings: Settings, watch: Watch, *, once: bool) -> None:
    from stream.job import choose_version  # noqa: PLC0415 - see run_stream

    config = job_config(settings)
    engine = open_store(settings)
    with reading(engine) as connection:
        watch.monitor.looked(read_positions(connection, config.worker.run_id))
    engine.dispose()
    check_kafka(settings)
    choose_version({"store_url": config.store_url, "alias": config.alias})
    stop = stop_event()
    spark = open_spark(settings, "spark")
    try:
        with nullcontext() if once else watch.asking_kafka():
            run_on(spark, config, watch, stop, once=once)
    finally:
        spark.stop()


def run_on(
    spark: Any, config: JobConfig, watch: Watch, stop: threading.Event, *, once: bool
) -> None:
    """Run queries, one after the other, until one ends by itself or is told to stop.

    After a worker has died, the next query is careful until it is past all packets that the worker may have
    been reading in their turn. A packet that killed it while looking ahead may be anywhere, so from then on
    no query looks ahead.
    """
    pause_s = _FIRST_PAUSE_S
    careful = False
    while not stop.is_set():
        progressed = threading.Event()
        as_now = replace(config, worker=replace(config.worker, careful=careful))
        try:
            if _run_query(spark, as_now, watch, once=once, stop=stop, progressed=progressed):
                break
            careful = False
        except UnavailableError as error:
            if once and (careful or not isinstance(error, WorkerDiedError)):
                raise
            was_careful, careful = careful, careful or isinstance(error, WorkerDiedError)
            if careful and config.behind:
                config = replace(config, behind=0)
                LOG.warning(
                    "urgent alerts come in their turn from now on, until this process is started again"
                )
            soon = progressed.is_set() or (isinstance(error, WorkerDiedError) and not was_careful)
            pause_s = _FIRST_PAUSE_S if soon else min(PAUSE_S, 2 * pause_s)
            LOG.warning("%s; trying again from the checkpoint in %.0f s", error, pause_s)
            watch.monitor.waiting(str(error))
            stop.wait(pause_s)
    watch.monitor.stopped()


def _run_query(
    spark: Any,
    config: JobConfig,
    watch: Watch,
    *,
    once: bool,
    stop: threading.Event,
    progressed: threading.Event,
) -> bool:
    """Run the query until it ends; set `progressed` once a batch is finished.

    Returns
    -------
    bool
        Whether that was all; False if a careful query has done its work.

    Raises
    ------
    NoctuleError
        See :func:`raise_failure`.
    """
    from stream.job import start  # noqa: PLC0415 - see run_stream

    beyond = threading.Event()
    worker = config.worker
    n_suspect = config.max_alerts + worker.prefetch + worker.chunk
    n_read = 0

    def on_batch(report: BatchReport) -> None:
        nonlocal n_read
        if worker.careful and n_read >= n_suspect:
            beyond.set()  # this batch may be replayed: Spark has yet to commit it
        n_read += report.counts.n_read
        progressed.set()
        watch.batch(report)

    query = start(spark, config, once=once, on_batch=on_batch)
    watch.monitor.running()
    looks = 0
    while not stop.is_set() and query.isActive and not beyond.is_set():
        looks += 1
        if looks % _LOOKS_A_REPORT == 0:
            watch.look(query)
        stop.wait(_LOOK_S)
    if not query.isActive:
        raise_failure(query, config)
        return True
    query.stop()
    if stop.is_set():
        watch.monitor.stopped()
    return stop.is_set()


class WorkerDiedError(UnavailableError):
    """A Python worker of Spark has died, because of its packets or for another reason."""


def raise_failure(query: StreamingQuery, config: JobConfig, job: str = "stream") -> None:
    """Raise the error that ended the query, if it failed; `job` is its name for operators.

    Raises
    ------
    UnavailableError
        A service is unavailable: it is worth trying again.
    ConfigurationError
        Anything else: trying again would fail in the same way.
    """
    if query.exception() is None:
        return
    text = str(query.exception())
    LOG.debug("%s", text)
    if UnavailableError.__name__ in text:
        raise UnavailableError(job, _cause(text))
    if _DIED in text:
        raise WorkerDiedError(job, "a Python worker died; each packet is looked at by itself")
    if _LOST in text:
        hint = "Spark lost one executor after the other: their machines' memory and logs say why"
        raise UnavailableError(job, hint)
    if _NO_SPACE in text:  # said by Spark, which writes into the checkpoint
        hint = f"{config.checkpoint}: {_NO_SPACE}: make room on the disk"
        raise UnavailableError(job, hint)
    raise ConfigurationError(f"the {job} cannot go on: {_cause(text)}")


def _cause(text: str) -> str:
    """Return the line of a failed query's message that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "Error: " in line and not line.startswith("org.apache")]
    return (told or lines or ["it ended without a word"])[-1]
