"""Read an exact range of offsets, again and again, from a consumer that stays open between tasks.

Opening a consumer costs more than a small batch, so a Python worker keeps one for each partition.
A consumer fetches ahead; what it has read beyond a range belongs to the next batch and is kept.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from lightcurves.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka import Message

_ANSWER_S: Final = 1.0


class Range(NamedTuple):
    """Offsets ``[start, end)`` of one partition."""

    topic: str
    partition: int
    start: int
    end: int


class RangeReader:
    """A consumer of one partition that reads ranges.

    Parameters
    ----------
    topic, partition
        What to read.
    client
        librdkafka settings, ``bootstrap.servers`` among them.
    timeout_s
        How long nothing may arrive before the broker counts as away.
    """

    def __init__(
        self, topic: str, partition: int, client: Mapping[str, Any], timeout_s: float
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._timeout_s = timeout_s
        self._consumer = Consumer(consumer_settings(client))
        self._position: int | None = None
        self._ahead: deque[Message] = deque()
        self._end_seen = -1  # where the partition ended when the broker last said so

    def read(self, start: int, end: int, at_most: int) -> Iterator[list[Message]]:
        """Give the messages of ``[start, end)`` in lists of up to `at_most`.

        Raises
        ------
        UnavailableError
            Nothing arrived for `timeout_s`, or the range is no longer (or not yet) in the topic.
        """
        self._seek(start)
        position = start
        while position < end:
            messages = self._take(end, at_most)
            if messages:
                position = offset_of(messages[-1]) + 1
                self._position = position
                yield messages
            else:
                position = end  # only offsets without a message were left: control records, say
        self._position = end

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def _seek(self, start: int) -> None:
        if self._position == start:
            return
        self._ahead.clear()
        self._end_seen = -1
        self._consumer.assign([TopicPartition(self._topic, self._partition, start)])
        self._position = start

    def _take(self, end: int, at_most: int) -> list[Message]:
        """Return the next messages below `end`; an empty list where the range has no more."""
        if not self._ahead:
            self._fetch(end, at_most)
        taken: list[Message] = []
        while self._ahead and len(taken) < at_most and offset_of(self._ahead[0]) < end:
            taken.append(self._ahead.popleft())
        return taken

    def _fetch(self, end: int, at_most: int) -> None:
        """Fetch until there is a message, or the partition's end at or beyond `end` is reached."""
        deadline = time.monotonic() + self._timeout_s
        while not self._ahead and self._end_seen < end:
            for message in self._consumer.consume(at_most, _ANSWER_S):
                error = message.error()
                if error is None:
                    self._ahead.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name
                    self._end_seen = offset_of(message)
                elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
                    raise UnavailableError("Kafka", f"{self._where()}: {error.str()}")
            if not self._ahead and self._end_seen < end and time.monotonic() > deadline:
                raise UnavailableError(
                    "Kafka", f"{self._where()}: no message for {self._timeout_s:g} s"
                )

    def _where(self) -> str:
        return f"{self._topic}[{self._partition}] at offset {self._position}"


def offset_of(message: Message) -> int:
    """Return the offset of a message that was received, which always has one."""
    offset = message.offset()
    assert offset is not None  # noqa: S101 - only a message that is yet to be sent has none
    return offset


def consumer_settings(client: Mapping[str, Any]) -> dict[str, Any]:
    """Return librdkafka settings for reading ranges; `client` wins where both speak."""
    return {
        "group.id": "noctule-ranges",  # required by the client; offsets live in Spark's checkpoint
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,  # tells offsets without a message from a broker that is silent
        # The default of 1000 ms stalls a full prefetch queue for a second at a time.
        "fetch.queue.backoff.ms": 2,
        "queued.max.messages.kbytes": 64 * 1024,
        "fetch.message.max.bytes": 32 << 20,
        "receive.message.max.bytes": 256 << 20,
        "fetch.wait.max.ms": 20,
        "check.crcs": True,
        "log_level": 2,  # what goes wrong is raised; librdkafka's own lines go nowhere useful
        **client,
    }


class Watermarks:
    """Which partitions topics have, and which offsets these hold now.

    Parameters
    ----------
    topics
        Their names.
    client
        librdkafka settings, ``bootstrap.servers`` among them.
    timeout_s
        For each question to the broker.
    """

    def __init__(self, topics: list[str], client: Mapping[str, Any], timeout_s: float) -> None:
        self._topics = topics
        self._timeout_s = timeout_s
        self._consumer = Consumer(consumer_settings(client))

    def now(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Return (topic, partition) to (first offset, one past the last).

        Raises
        ------
        UnavailableError
            The broker does not answer, or a topic does not exist.
        """
        try:
            return {
                (topic, partition): self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=self._timeout_s
                )
                for topic in self._topics
                for partition in self._partitions(topic)
            }
        except KafkaException as error:
            raise UnavailableError("Kafka", _explain(error)) from error

    def _partitions(self, topic: str) -> list[int]:
        found = self._consumer.list_topics(topic, timeout=self._timeout_s).topics[topic]
        if found.error is not None:
            raise UnavailableError(
                "Kafka", f"topic {topic}: {found.error.str()}: create it or set kafka.alert_topics"
            )
        return sorted(found.partitions)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _explain(error: KafkaException) -> str:
    return f"{error.args[0].str()}: is it running, and is kafka.bootstrap_servers right?"
