"""The embedded Kafka: Apache Kafka itself, broker and controller in one child process (KRaft)."""

from __future__ import annotations

import base64
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy import watchdog
from deploy.java import find_java
from deploy.kafka_jars import kafka_jars
from lightcurves.errors import ConfigurationError, UnavailableError
from stream.access import check_access

HOST = "127.0.0.1"
LARGEST_MESSAGE = 16 * 1024**2  # alerts are 262 KB on average and reach 2 MB

BROKER_SETTINGS: Mapping[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "message.max.bytes": LARGEST_MESSAGE,
    "replica.fetch.max.bytes": LARGEST_MESSAGE,
    "socket.request.max.bytes": 4 * LARGEST_MESSAGE,
    "num.partitions": 1,
    "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
    # One node: nothing to replicate to, and few partitions of Kafka's own to open at the start.
    "default.replication.factor": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    "num.network.threads": 2,
    "num.io.threads": 4,
    # A week, or 4 GiB per partition, whichever is reached first; small segments free space sooner.
    "log.retention.hours": 168,
    "log.retention.bytes": 4 * 1024**3,
    "log.segment.bytes": 256 * 1024**2,
    # At full rate the default, five minutes, would let 50 GB accumulate beyond the limit.
    "log.retention.check.interval.ms": 20_000,
}

JVM_OPTIONS = (
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.apache.logging.log4j.level=INFO",
)

START_TIMEOUT_S = 60.0
START_TRIES = 3
STOP_TIMEOUT_S = 20.0
FOLDER_TIMEOUT_S = watchdog.GRACE_S + 2.0
LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Security:
    """How clients connect to a Kafka that does not accept everybody.

    Attributes
    ----------
    protocol
        ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
    broker
        Further lines of ``server.properties``: key store, mechanisms, users.
    client
        librdkafka settings of a client that may connect, used to check whether Kafka is up.
    """

    protocol: str
    broker: Mapping[str, str] = field(repr=False)
    client: Mapping[str, str] = field(repr=False)

    def settings(self) -> dict[str, str]:
        """Return the lines of ``server.properties``."""
        return {
            "listener.security.protocol.map": (
                f"CONTROLLER:PLAINTEXT,{self.protocol}:{self.protocol}"
            ),
            "security.inter.broker.protocol": self.protocol,
            **self.broker,
        }


OPEN: Final = Security("PLAINTEXT", {}, {})
"""Everybody on this machine may connect."""


class EmbeddedKafka:
    """One Apache Kafka on the loopback interface; it ends with the Python process that started it.

    Parameters
    ----------
    data_dir
        Folder for its topics and the log of its last start, ``kafka.log``; a later start resumes
        from it.
    port
        Port of the broker; a free one by default.
    heap
        Largest heap of the JVM, as ``-Xmx`` takes it.
    jars
        Folder with Kafka's jars; by default that of `kafka_jars`.
    progress
        Called with a line of text at each step that takes time.
    security
        Who may connect; by default everybody on this machine.

    Raises
    ------
    ConfigurationError
        When entered: Java is missing, or the port or the folder is in use.
    UnavailableError
        When entered: Kafka did not start; the message has the end of its log.

    Notes
    -----
    The JVM ends when this process does, however it ends: see `deploy.watchdog`.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        heap: str = "512m",
        jars: Path | None = None,
        progress: Callable[[str], None] | None = None,
        security: Security = OPEN,
    ) -> None:
        self.data_dir = Path(data_dir)
        self.log = self.data_dir / "kafka.log"
        self.bootstrap_servers = ""
        self._port = port
        self._heap = heap
        self._jars = jars
        self._progress = progress
        self._security = security
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Leader of the process group of the JVM and its watchdog; None while stopped."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start Kafka and wait until it answers.

        A free port may be taken by another program before the JVM has it; unless a port was given, it tries
        others.
        """
        for tries_left in reversed(range(1 if self._port else START_TRIES)):
            try:
                self._start_once()
                break
            except UnavailableError:
                if not tries_left:
                    raise

    def _start_once(self) -> None:
        java = find_java()
        ports = choose_ports(self._port)
        jars = self._jars or kafka_jars(progress=self._progress)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self.data_dir)
        try:
            self._run([str(java), f"-Xmx{self._heap}", *JVM_OPTIONS, "-cp", f"{jars}/*"], *ports)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop Kafka: SIGTERM, then SIGKILL; does nothing if it is already stopped."""
        process, self._process = self._process, None
        if process is not None:
            end_group(process)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _run(self, run_class: list[str], port: int, controller_port: int) -> None:
        self.bootstrap_servers = f"{HOST}:{port}"
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        settings = self._write_settings(port, controller_port)
        self._format(run_class, settings)
        self._process = self._launch([*run_class, "kafka.Kafka", str(settings)])
        self._wait_until_up()

    def _write_settings(self, port: int, controller_port: int) -> Path:
        clients = f"{self._security.protocol}://{HOST}:{port}"
        settings = {
            **BROKER_SETTINGS,
            **self._security.settings(),
            "listeners": f"{clients},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": clients,
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
            "log.dirs": self._topics,
        }
        path = self.data_dir / "server.properties"
        path.touch(mode=0o600)  # it may hold passwords
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path

    @property
    def _topics(self) -> Path:
        return self.data_dir.resolve() / "topics"

    def _format(self, run_class: list[str], settings: Path) -> None:
        """Give an empty folder the identity that KRaft requires; once per folder."""
        if (self._topics / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        arguments = ["format", "--cluster-id", f"{cluster}", "--config", str(settings)]
        process = self._launch([*run_class, "kafka.tools.StorageTool", *arguments])
        if process.wait(START_TIMEOUT_S):
            raise self._failure("could not format its storage")

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Run under the watchdog, in its own session: Ctrl-C reaches this process alone, which stops it."""
        watched = [sys.executable, "-I", watchdog.__file__, str(os.getpid()), *command]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                watched,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=() if self._lock is None else (self._lock,),  # held until Kafka is gone
            )

    def _wait_until_up(self) -> None:
        admin = _admin(self.bootstrap_servers, self._security.client)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(admin):
            if self._process is None or self._process.poll() is not None:
                raise self._failure("ended by itself")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {START_TIMEOUT_S:.0f} s")
            time.sleep(LOOK_EVERY_S)

    def _failure(self, what: str) -> UnavailableError:
        return UnavailableError(
            "embedded Kafka", f"it {what}; {self.log} ends: {log_end(self.log)}"
        )


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the leader of a process group: SIGTERM, and SIGKILL for the whole group if that fails."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def lock_folder(folder: Path) -> int:
    """Lock a folder for one Kafka; returns the file descriptor that holds the lock.

    Waits for a Kafka whose parent was killed: its watchdog is about to end it.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + FOLDER_TIMEOUT_S
    while not _is_locked(lock):
        if time.monotonic() > deadline:
            os.close(lock)
            raise ConfigurationError(
                f"another Kafka runs in {folder}: stop it, or choose another folder"
            )
        time.sleep(LOOK_EVERY_S)
    return lock


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def choose_ports(port: int | None) -> tuple[int, int]:
    """The broker's port, or a free one for None, and a free one for the controller."""
    with ExitStack() as held:  # both held at once, so that they differ
        sockets = [held.enter_context(_bound(wanted)) for wanted in (port or 0, 0)]
        broker, controller = (each.getsockname()[1] for each in sockets)
        return broker, controller


def _bound(port: int) -> socket.socket:
    candidate = socket.socket()
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka itself does
    try:
        candidate.bind((HOST, port))
    except OSError as error:
        candidate.close()
        raise ConfigurationError(
            f"port {port} on {HOST} is taken ({error.strerror}): stop the program that has it, or "
            "choose another port"
        ) from error
    return candidate


def log_end(log: Path, lines: int = 3) -> str:
    """The end of a log in one line: its last errors, or its last lines if it has none."""
    text = log.read_text(errors="replace").splitlines() if log.exists() else []
    told = [line.strip() for line in text if line.strip() and not line.startswith("\tat ")]
    errors = [line for line in told if "ERROR" in line or "Exception" in line]
    return " | ".join((errors or told)[-lines:]) or "(empty)"


def create_topics(
    bootstrap_servers: str,
    partitions: Mapping[str, int],
    settings: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
    client: Mapping[str, str] | None = None,
) -> None:
    """Create the topics that do not exist yet; existing ones are left as they are.

    Parameters
    ----------
    bootstrap_servers
        Any Kafka, embedded or not; topics get that broker's own default replication.
    partitions
        Topic name to number of partitions.
    settings
        Topic settings such as ``{"retention.ms": "-1"}``, the same for all of them.
    client
        Further librdkafka settings, for example for TLS and SASL.

    Raises
    ------
    UnavailableError
        Kafka does not answer or refuses; a refused login or certificate is reported at once.
    """
    topics = [
        NewTopic(name, num_partitions=count, config=dict(settings or {}))
        for name, count in partitions.items()
    ]
    if topics:
        check_access({"bootstrap.servers": bootstrap_servers, **(client or {})}, timeout_s)
        admin = _admin(bootstrap_servers, client)  # has to outlive the answers
        for name, outcome in admin.create_topics(topics, request_timeout=timeout_s).items():
            _await_topic(bootstrap_servers, name, outcome)


def _await_topic(bootstrap_servers: str, name: str, outcome: Future[None]) -> None:
    try:
        outcome.result()
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            service = f"Kafka at {bootstrap_servers}"
            raise UnavailableError(service, f"creating topic {name}: {reason.str()}") from error


def _admin(bootstrap_servers: str, client: Mapping[str, str] | None = None) -> AdminClient:
    """An admin client that reports through its return values and does not write to the terminal."""
    return AdminClient(
        {
            "bootstrap.servers": bootstrap_servers,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
            **(client or {}),
        }
    )


def _answers(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=1.0).brokers)
    except KafkaException:
        return False
