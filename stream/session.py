"""Starts Spark, on this machine or on a cluster, with settings that keep its overhead small."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from lightcurves.errors import UnavailableError
from stream.source import AlertSource

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG_SETTINGS: Final = Path(__file__).with_name("log4j2.properties")


@dataclass(frozen=True)
class Executors:
    """What the job requests from a cluster; a local master ignores it.

    Attributes
    ----------
    n
        How many executors, each for one task at a time.
    cores
        Cores of each, for its task's threads.
    memory
        Memory of each one's JVM, which passes bytes on; the Python worker's is not included.
    """

    n: int = 1
    cores: int = 2
    memory: str = "1g"


def open_session(
    master: str, *, driver_memory: str, log_file: Path, executors: Executors | None = None
) -> SparkSession:
    """Start Spark, a local one only on the loopback interface.

    What it and its workers print goes to `log_file`. A cluster's executors must see the state
    folder and have noctule installed, under the same paths as this machine.

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
    """Wait for the first executor: without one a batch would wait forever, silently."""
    context: Any = session.sparkContext._jsc.sc()  # noqa: SLF001 - PySpark has no list of executors
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
        # If workers ended after each task, each task would open consumers and load models again.
        "spark.python.worker.reuse": "true",
        "spark.executorEnv.GLIBC_TUNABLES": KEEP_MEMORY,
        "spark.redaction.regex": "(?i)secret|password|token|url|client|worker",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    }


def _executor_settings(wanted: Executors) -> dict[str, str]:
    return {
        "spark.executor.memory": wanted.memory,
        "spark.executor.cores": str(wanted.cores),
        # One task at a time on each executor, or two workers would share its cores and its partitions.
        "spark.task.cpus": str(wanted.cores),
        # No more executors than tasks: an idle one would still take partitions away from others.
        "spark.cores.max": str(wanted.n * wanted.cores),
        "spark.executor.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG_SETTINGS} {_LITTLE_WORK}",
    }


_LITTLE_WORK: Final = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""The JVM plans batches and passes bytes on; optimising it fully costs more than it ever saves."""
KEEP_MEMORY: Final = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in (
        ("mmap_threshold", 1 << 30),
        ("trim_threshold", 1 << 33),
        ("top_pad", 1 << 26),
        ("arena_max", 2),
    )
)
"""A worker keeps memory when packets are freed: requesting it from the kernel again, page by page, took a
third of its time. Its threads do not get heaps of their own either: each Kafka consumer would leave one
half empty, and workers grew by gigabytes. Only glibc reads these settings."""


@contextmanager
def _standard_error_to(file: Path) -> Iterator[None]:
    """Let the JVM that is started inside write its standard error into `file`."""
    sys.stderr.flush()
    original = os.dup(2)
    with file.open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
