"""Publishes packets to a Kafka topic: each once, at a chosen rate; no failure is silent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from lightcurves.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

LARGEST_MESSAGE: Final = 16 << 20
"""The broker must accept this size, too; LSST's largest alerts are near 2 MB."""

DELIVERY_TIMEOUT_S: Final = 60.0
_ANSWER_S: Final = 10.0
_POLL_S: Final = 0.1
_PROGRESS_EVERY_S: Final = 0.2

_ANY_PARTITION: Final = -1  # librdkafka's words for "choose one" and "now"
_NOW: Final = 0


class Publisher:
    """A producer that stays open: idempotent, with a bounded queue.

    Parameters
    ----------
    bootstrap_servers
        The Kafka to write to.
    topic
        The topic, which has to exist.
    client
        Further librdkafka settings (such as security); they take precedence over noctule's own.
    partition
        The partition of every packet; by default the client distributes them, without a key.
    timestamp_ms
        The messages' time, Unix milliseconds; by default the time of sending.

    Raises
    ------
    UnavailableError
        On construction: Kafka does not answer, or the topic does not exist.

    Notes
    -----
    Use it in a ``with`` block, which flushes at the end. After an error make a new one: packets
    queued after the failed one may be lost. Nothing is compressed, like Rubin's own alerts;
    `client` may set ``compression.type`` (lz4 leaves 59 % of a packet, zstd 50 %).
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        client: Mapping[str, Any] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        self._topic = topic
        self._producer = Producer(_producer_settings(bootstrap_servers, client or {}))
        self._errors: list[str] = []
        self._delivered = 0
        self._partition = _ANY_PARTITION if partition is None else partition
        self._timestamp_ms = _NOW if timestamp_ms is None else timestamp_ms
        self._check_topic()

    @property
    def delivered(self) -> int:
        """How many packets Kafka has acknowledged so far."""
        return self._delivered

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.flush()

    def send(self, packet: bytes) -> None:
        """Put a packet into the queue; while that is full, wait.

        Raises
        ------
        UnavailableError
            This packet or an earlier one cannot be delivered.
        """
        while True:
            try:
                self._produce(packet)
                break
            except BufferError:
                self._producer.poll(_POLL_S)
                self._raise_errors()
            except KafkaException as error:
                raise self._failure(error.args[0].str()) from error
        self._producer.poll(0)
        self._raise_errors()

    def _produce(self, packet: bytes) -> None:
        self._producer.produce(
            self._topic,
            packet,
            partition=self._partition,
            timestamp=self._timestamp_ms,
            on_delivery=self._on_delivery,
        )

    def flush(self, timeout_s: float = 2 * DELIVERY_TIMEOUT_S) -> None:
        """Wait until Kafka has acknowledged every packet.

        Raises
        ------
        UnavailableError
            A packet was not delivered, or not within `timeout_s`.
        """
        left = self._producer.flush(timeout_s)
        self._raise_errors()
        if left:
            raise self._failure(f"{left} packet(s) not acknowledged within {timeout_s:g} s")

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._delivered += 1
        else:
            self._errors.append(error.str())

    def _raise_errors(self) -> None:
        if self._errors:
            raise self._failure(f"{len(self._errors)} packet(s) not delivered: {self._errors[0]}")

    def _check_topic(self) -> None:
        try:
            answer = self._producer.list_topics(self._topic, timeout=_ANSWER_S).topics[self._topic]
        except KafkaException as error:
            raise self._failure(
                f"{error.args[0].str()}: is it running, and is kafka.bootstrap_servers right?"
            ) from error
        if answer.error is not None:
            raise self._failure(f"{answer.error.str()}: create the topic first")

    def _failure(self, hint: str) -> UnavailableError:
        return UnavailableError("Kafka", f"topic {self._topic}: {hint}")


def _producer_settings(bootstrap_servers: str, client: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap_servers,
        "enable.idempotence": True,
        "allow.auto.create.topics": False,
        "message.max.bytes": LARGEST_MESSAGE,
        "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
        "compression.type": "none",
        "linger.ms": 5,
        # Bounds of the queue: a slow broker slows the sender, and does not fill its memory.
        "queue.buffering.max.messages": 10_000,
        "queue.buffering.max.kbytes": 64 * 1024,
        "log_level": 0,  # what goes wrong is raised
        **client,
    }


def publish(
    packets: Iterable[bytes],
    *,
    bootstrap_servers: str,
    topic: str,
    rate_per_s: float | None = None,
    timestamp_ms: int | None = None,
    partition: int | None = None,
    client: Mapping[str, Any] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Publish packets in their order, and wait until Kafka has them all.

    Parameters
    ----------
    packets
        Taken one by one, as they are sent.
    bootstrap_servers, topic, client, partition, timestamp_ms
        As :class:`Publisher` takes them.
    rate_per_s
        At most this many packets per second; by default as fast as Kafka accepts them.
    on_progress
        Called with the number of packets sent, five times a second and at the end.

    Returns
    -------
    int
        How many packets were published.

    Raises
    ------
    UnavailableError
        Kafka does not answer, the topic does not exist, or a packet was not delivered. Earlier
        packets may have been.
    """
    sent, tell = 0, _Progress(on_progress)
    with Publisher(
        bootstrap_servers, topic, client=client, partition=partition, timestamp_ms=timestamp_ms
    ) as publisher:
        begin = time.monotonic()
        for packet in packets:
            if rate_per_s:
                time.sleep(max(0.0, begin + sent / rate_per_s - time.monotonic()))
            publisher.send(packet)
            sent += 1
            tell.now_and_then(sent)
    tell.at_once(sent)
    return sent


class _Progress:
    """Calls back, but not for every packet."""

    def __init__(self, call: Callable[[int], None] | None) -> None:
        self._call = call
        self._due = 0.0

    def now_and_then(self, sent: int) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _PROGRESS_EVERY_S
            self.at_once(sent)

    def at_once(self, sent: int) -> None:
        if self._call is not None:
            self._call(sent)
