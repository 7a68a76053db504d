"""Read an exact range of offsets, again and again, from a consumer that stays open between tasks.

Opening a consumer costs more than a small batch, so a Python worker keeps one for each partition. It
goes on fetching and working beyond the range, so that no core waits while a batch is committed.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from lightcurves.errors import UnavailableError
from stream.access import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor, Future

    from confluent_kafka import Message

Result = TypeVar("Result")

_ANSWER_S: Final = 1.0
_FILL_S: Final = 0.05
"""librdkafka waits at most this long for a full list: the delay of an alert in a quiet stream."""


class Range(NamedTuple):
    """Offsets ``[start, end)`` of one partition; `n_lost` offsets before `start` are gone from Kafka."""

    topic: str
    partition: int
    start: int
    end: int
    n_lost: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read and nothing was lost."""
        return self.start - self.n_lost == self.end


@dataclass
class _Piece(Generic[Result]):
    """Consecutive messages, and the result of the work on them."""

    offsets: list[int]
    result: Future[Result]


class Limits(NamedTuple):
    """Limits of a :class:`RangeReader`.

    Attributes
    ----------
    chunk
        Messages that are worked on together.
    prefetch
        Messages beyond the range that may be worked on before they are requested.
    timeout_s
        How long nothing may arrive before the broker counts as unavailable.
    """

    chunk: int
    prefetch: int
    timeout_s: float


class RangeReader(Generic[Result]):
    """Reads ranges of one partition, and prefetches beyond them.

    A thread of its own fetches messages and hands them to `pool`; prefetched messages beyond a range
    belong to the next one, whose work is then usually done already. A range that begins
    elsewhere, or is to be worked on for another version, discards them.

    Parameters
    ----------
    where
        Topic and partition.
    client
        librdkafka settings, ``bootstrap.servers`` among them.
    work
        ``work(messages, version)`` turns a list of messages into the result that :meth:`read` yields;
        called in `pool`.
    pool
        Runs the work; shared by readers.
    budget
        Shared by readers: at most this many lists may be fetched and not yet worked on.
    limits
        How much is worked on at a time and prefetched, and how long to wait for a silent broker.
    """

    def __init__(
        self,
        where: tuple[str, int],
        client: Mapping[str, Any],
        work: Callable[[list[Message], str], Result],
        pool: Executor,
        budget: threading.Semaphore,
        limits: Limits,
    ) -> None:
        self._where = where
        self._work = work
        self._pool = pool
        self._budget = budget
        self._limits = limits
        self._troubles = Troubles()
        self._consumer = Consumer(consumer_settings(client) | {"error_cb": self._troubles})
        self._changed = threading.Condition()
        self._pieces: deque[_Piece[Result]] = deque()
        self._n_prefetched = 0
        self._position = -1  # the offset that read() yields next
        self._version = ""
        self._wanted: int | None = None  # the offset from which the thread is to start again
        self._resting = False  # whether the thread is to drop what it has fetched
        self._end_seen = -1  # where the partition ended when the broker last reported it
        self._error: Exception | None = None
        self._open = True
        self._thread = threading.Thread(target=self._fetch, name=f"fetch-{where}", daemon=True)
        self._thread.start()

    def begin(self, start: int, version: str = "") -> None:
        """Fetch and work from `start` on, unless that is already in progress."""
        with self._changed:
            if self._error is None and (self._position, self._version) == (start, version):
                return
            self._wanted = self._position = start
            self._resting = False
            self._version = version
            self._pieces.clear()
            self._n_prefetched = 0
            self._error = None
            self._troubles.forget()
            self._end_seen = -1
            self._changed.notify_all()

    def rest(self) -> None:
        """Hold and fetch nothing until the next :meth:`begin`; the connection stays."""
        with self._changed:
            if self._position < 0:
                return
            self._position, self._wanted, self._resting = -1, None, True
            self._pieces.clear()
            self._n_prefetched = 0
            self._changed.notify_all()

    def read(self, start: int, end: int, version: str = "") -> Iterator[tuple[Result, int, int]]:
        """Yield the results of the messages of ``[start, end)``, in their order.

        Each is the result of a list of messages, with the bounds of the range's messages in the list.

        Raises
        ------
        UnavailableError
            Nothing arrived for `timeout_s`, or the range is no longer (or not yet) in the topic.
        """
        self.begin(start, version)
        while self._position < end:
            piece = self._next(end)
            if piece is None:  # only offsets without a message are left, such as control records
                break
            low = bisect_left(piece.offsets, self._position)
            high = bisect_left(piece.offsets, end)
            try:
                result = piece.result.result()
            except BaseException:
                self._position = -1  # the next read does the work again
                raise
            with self._changed:
                self._position = piece.offsets[high - 1] + 1
                self._n_prefetched -= high - low
                if high == len(piece.offsets):
                    self._pieces.popleft()
                self._changed.notify_all()
            yield result, low, high
        self._position = end

    def close(self) -> None:
        """End the thread and close the consumer."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._thread.join()
        self._consumer.close()

    def _next(self, end: int) -> _Piece[Result] | None:
        """Wait for the next messages; None if the range has no more."""
        deadline = time.monotonic() + self._limits.timeout_s
        with self._changed:
            while not self._pieces:
                if self._error is not None:
                    raise self._error
                if self._end_seen >= end:
                    return None
                if time.monotonic() > deadline:
                    raise self._unavailable(f"no message for {self._limits.timeout_s:g} s")
                self._changed.wait(_ANSWER_S)
            return self._pieces[0] if self._pieces[0].offsets[0] < end else None

    # -- in the thread -------------------------------------------------------------------------

    def _fetch(self) -> None:
        while True:
            with self._changed:
                while self._open and not (
                    self._wanted is not None or self._resting or self._may_fetch()
                ):
                    self._changed.wait()
                if not self._open:
                    return
                wanted, self._wanted = self._wanted, None
                resting, self._resting = self._resting, False
            if resting:
                self._consumer.unassign()
                continue
            try:
                if wanted is not None:
                    self._consumer.assign([TopicPartition(*self._where, wanted)])
                messages = self._consumer.consume(self._limits.chunk, _FILL_S)
            except (KafkaException, RuntimeError) as error:
                messages = []
                with self._changed:
                    self._error = self._unavailable(str(error))
                    self._changed.notify_all()
            if self._troubles.refused:
                with self._changed:
                    self._error = self._unavailable(self._troubles.hint())
                    self._changed.notify_all()
            if messages:
                self._budget.acquire()
                with self._changed:
                    if self._wanted is not None or self._position < 0 or not self._take(messages):
                        self._budget.release()
                    self._changed.notify_all()

    def _may_fetch(self) -> bool:
        return (
            self._position >= 0
            and self._error is None
            and self._n_prefetched < self._limits.prefetch
        )

    def _take(self, messages: list[Message]) -> bool:
        """Hand messages to the pool; return whether there were any."""
        good = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name
                self._end_seen = offset_of(message)
            elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
                self._error = self._unavailable(error.str())
        if good:
            result = self._pool.submit(self._work, good, self._version)
            result.add_done_callback(lambda _: self._budget.release())
            self._pieces.append(_Piece([offset_of(message) for message in good], result))
            self._n_prefetched += len(good)
        return bool(good)

    def _unavailable(self, why: str) -> UnavailableError:
        topic, partition = self._where
        return UnavailableError("Kafka", f"{topic}[{partition}] at offset {self._position}: {why}")


def offset_of(message: Message) -> int:
    """Return the offset of a message that was received, which always has one."""
    offset = message.offset()
    assert offset is not None  # noqa: S101 - only a message that is yet to be sent has none
    return offset


def consumer_settings(client: Mapping[str, Any]) -> dict[str, Any]:
    """Return librdkafka settings for reading ranges; those in `client` take precedence."""
    return {
        "group.id": "noctule-ranges",  # required by the client; offsets live in Spark's checkpoint
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,  # distinguishes offsets without a message from a silent broker
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
    """Queries the partitions of topics, and the offsets that they hold now.

    Parameters
    ----------
    topics
        Their names.
    client
        librdkafka settings, ``bootstrap.servers`` among them.
    timeout_s
        For each request to the broker.
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

    def at(self, stamp_ms: int, ends: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Return the first offset of each partition that is stamped `stamp_ms` or later; else its end.

        Raises
        ------
        UnavailableError
            The broker does not answer.
        """
        stamps = [TopicPartition(*key, stamp_ms) for key in ends]
        try:
            answer = self._consumer.offsets_for_times(stamps, timeout=self._timeout_s)
        except KafkaException as error:
            raise UnavailableError("Kafka", _explain(error)) from error
        offsets = {(one.topic, one.partition): one.offset for one in answer}
        return {
            key: end if offsets[key] < 0 else min(offsets[key], end) for key, end in ends.items()
        }

    def _partitions(self, topic: str) -> list[int]:
        answer = self._consumer.list_topics(topic, timeout=self._timeout_s).topics[topic]
        if answer.error is not None:
            raise UnavailableError(
                "Kafka",
                f"topic {topic}: {answer.error.str()}: create it or set kafka.alert_topics",
            )
        return sorted(answer.partitions)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _explain(error: KafkaException) -> str:
    return f"{error.args[0].str()}: is it running, and is kafka.bootstrap_servers right?"
