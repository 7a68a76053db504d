"""A Spark standalone cluster on the loopback interface, made of the jars that pyspark brings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import pyspark

from deploy.kafka import HOST
from tests.stream.running import free_port

SPARK_HOME: Final = Path(pyspark.__file__).parent
PACKAGE: Final = "org.apache.spark.deploy"
LONGEST_S: Final = 60.0
"""A test fails that waits longer; what it waits for takes seconds."""


class Task(NamedTuple):
    """A task as Spark's event log tells of it: in which stage, which of its tasks, where, how it ended."""

    stage: int
    number: int
    executor: str
    host: str
    failed: bool


class Cluster:
    """A Master and some Workers, each a process of its own that ends with the block.

    Parameters
    ----------
    folder
        Of logs, of what executors write, and of Spark's own settings.
    workers, cores, memory
        How many Workers, and what each offers.
    environment
        Of the Workers and their executors, beside our own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        cores: int = 1,
        memory: str = "700m",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._environment = dict(environment or {})
        self._n_workers = workers
        self._offer = ("--cores", str(cores), "--memory", memory)
        self._master: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.url = ""
        self._page = ""

    def __enter__(self) -> Self:
        self._events.mkdir(parents=True)
        port, page = free_port(), free_port()
        self.url, self._page = f"spark://{HOST}:{port}", f"http://{HOST}:{page}/json/"
        try:
            where = ("--host", HOST, "--port", str(port), "--webui-port", str(page))
            self._master = self._start("master.Master", *where)
            self.until(lambda: self._told() is not None, "a master")
            for _ in range(self._n_workers):
                self.add_worker()
            self.until(lambda: self.n_alive() == self._n_workers, "all workers")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end()

    def add_worker(self) -> None:
        """Start another Worker."""
        where = ("--host", HOST, "--port", "0", "--webui-port", "0")
        work = ("--work-dir", str(self._folder / "work"))
        self.workers.append(self._start("worker.Worker", *where, *self._offer, *work, self.url))

    def executors(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Return the processes of a Worker's executors: its children."""
        return [pid for pid, parent in _parents().items() if parent == worker.pid]

    def kill_machine(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGKILL a Worker and all that it started, as when a machine loses its power."""
        self.workers.remove(worker)
        _kill_all(worker)

    def n_alive(self) -> int:
        """Return how many Workers the Master knows."""
        told = self._told() or {}
        return sum(worker["state"] == "ALIVE" for worker in told.get("workers", ()))

    def environment(self, **spark: str) -> dict[str, str]:
        """Return what a driver beside this cluster needs in its environment.

        Parameters
        ----------
        spark
            Further settings of Spark, dots as underscores.
        """
        conf = Path(tempfile.mkdtemp(dir=self._folder, prefix="conf-"))
        more = {name.replace("_", "."): value for name, value in spark.items()}
        lines = [f"{name} {value}" for name, value in (_logging_to(self._events) | more).items()]
        (conf / "spark-defaults.conf").write_text("\n".join(lines) + "\n")
        return {"SPARK_CONF_DIR": str(conf), "SPARK_LOCAL_IP": HOST}

    def tasks(self) -> list[Task]:
        """Return the tasks of all applications that have ended or go on, as Spark has logged them."""
        lines = [line for log in self._events.iterdir() for line in log.read_text().splitlines()]
        ended = [event for line in lines if (event := json.loads(line))["Event"] == _TASK_END]
        return [
            Task(
                event["Stage ID"],
                event["Task Info"]["Index"],
                event["Task Info"]["Executor ID"],
                event["Task Info"]["Host"],
                event["Task Info"]["Failed"],
            )
            for event in ended
        ]

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition, as long as the cluster lives."""
        deadline = time.monotonic() + LONGEST_S
        while not condition():
            for process in self._processes():
                assert process.poll() is None, f"died before {what}:\n{self.log()}"
            assert time.monotonic() < deadline, f"no {what} within {LONGEST_S:.0f} s:\n{self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        """Return the end of what the processes said."""
        return (self._folder / "log").read_text()[-4000:]

    @property
    def _events(self) -> Path:
        return self._folder / "events"

    def _processes(self) -> list[subprocess.Popen[bytes]]:
        return [*self.workers, *([self._master] if self._master else [])]

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(SPARK_HOME / "bin" / "spark-class"), f"{PACKAGE}.{what}", *arguments]
        scratch = self._folder / "scratch"  # what is killed leaves its files
        scratch.mkdir(exist_ok=True)
        environment = {
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_LOCAL_IP": HOST,
            "SPARK_LOCAL_DIRS": str(scratch),
            "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={scratch}",
            **_SMALL,
            **self._environment,
        }
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                env={**_without_spark(os.environ), **environment},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def _told(self) -> dict[str, Any] | None:
        with suppress(OSError):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(self._page, timeout=LONGEST_S) as answer:
                told: dict[str, Any] = json.load(answer)
                return told
        return None

    def _end(self) -> None:
        for process in self._processes():
            _kill_all(process)
        self.workers, self._master = [], None


_TASK_END: Final = "SparkListenerTaskEnd"
_SMALL: Final = {
    "SPARK_DAEMON_MEMORY": "256m",
    "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


def _logging_to(folder: Path) -> dict[str, str]:
    """Return the settings with which Spark logs its events, one JSON object a line."""
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": str(folder),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }


def _without_spark(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what pyspark has set in a process that has a session of its own."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("SPARK_", "PYSPARK_"))
    }


def _parents() -> dict[int, int]:
    """Return the parent of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                found[int(entry.name)] = int(fields[1])
    return found


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on."""
    children = defaultdict(list)
    for child, parent in _parents().items():
        children[parent].append(child)
    found = [pid]
    for each in found:
        found += children[each]
    return found[1:]


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
