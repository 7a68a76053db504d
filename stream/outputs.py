"""What goes out to Kafka after a batch: at least once, identical bytes for a repeat.

Messages are Avro behind a frame (byte 0, schema id; see :mod:`stream.messages`), keyed by
:func:`stream.messages.key_of`; DESC's form has no frame, because its readers expect none; rejected
packets go out as they came in, with their reason in the headers. Everything is in the tables by (run,
batch), so that a replay sends the same bytes again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from confluent_kafka import KafkaException, Producer

from lightcurves.errors import UnavailableError
from store import tables
from store.database import reading
from stream.access import Troubles
from stream.messages import (
    CLASSIFICATION,
    LABEL_REQUEST,
    classification_body,
    desc_body,
    frame,
    key_of,
    label_request_body,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream.schema_ids import Registry

_FLUSH_S: Final = 0.5


@dataclass(frozen=True)
class Topics:
    """Where to, and in which form.

    Attributes
    ----------
    classified, novel, requests, rejected
        Names of topics.
    desc
        Topic for DESC's form of what was scored; empty sends none.
    novel_far
        The false-alarm rate at or below which an alert is novel.
    registry
        Where the frames' schema ids come from; None: they are the schemas' versions.
    """

    classified: str
    novel: str
    requests: str
    rejected: str
    desc: str = ""
    novel_far: float = 0.01
    registry: Registry | None = None

    def frames(self) -> dict[str, bytes]:
        """Return what precedes a message, by topic; asks the registry, if there is one."""
        schemas = {
            self.classified: CLASSIFICATION,
            self.novel: CLASSIFICATION,
            self.requests: LABEL_REQUEST,
        }
        if self.registry is None:
            ids = {topic: schema.default_id for topic, schema in schemas.items()}
        else:
            ids = self.registry.ids(schemas)
        return {topic: frame(schema_id) for topic, schema_id in ids.items()}


def outgoing(
    connection: sa.Connection,
    run_id: str,
    batch_id: int,
    topics: Topics,
    frames: Mapping[str, bytes] | None = None,
    classified: Iterable[Mapping[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Give the messages of a batch, in a fixed order.

    `frames` are :meth:`Topics.frames`, kept; `classified` the batch's rows of ``classifications`` by
    survey and diaSourceId, where they are at hand: else they are read.
    """
    frames = topics.frames() if frames is None else frames
    if classified is None:
        classified = _rows(connection, tables.classifications, run_id, batch_id)
    for row in classified:
        yield from _of_alert(row, topics, frames)
    for row in _rows(connection, tables.label_requests, run_id, batch_id):
        yield {
            "topic": topics.requests,
            "key": key_of(row["survey"], row["object_id"]),
            "value": frames[topics.requests] + label_request_body(row),
        }
    for row in _rows(connection, tables.rejected, run_id, batch_id):
        yield {"topic": topics.rejected, "value": row["packet"], "headers": _why_rejected(row)}


def _of_alert(
    row: Mapping[str, Any], topics: Topics, frames: Mapping[str, bytes]
) -> Iterator[dict[str, Any]]:
    key, body = key_of(row["survey"], row["dia_source_id"]), classification_body(row)
    yield {"topic": topics.classified, "key": key, "value": frames[topics.classified] + body}
    if row["novelty_far"] is not None and row["novelty_far"] <= topics.novel_far:
        yield {"topic": topics.novel, "key": key, "value": frames[topics.novel] + body}
    if topics.desc and row["probabilities"] is not None:
        yield {"topic": topics.desc, "key": key, "value": desc_body(row)}


def _rows(
    connection: sa.Connection, table: sa.Table, run_id: str, batch_id: int
) -> Iterator[Mapping[str, Any]]:
    mine = sa.and_(table.c.run_id == run_id, table.c.batch_id == batch_id)
    query = sa.select(table).where(mine).order_by(*table.primary_key.columns)
    yield from (dict(row) for row in connection.execute(query).mappings())


def _why_rejected(row: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    names = ("reason", "detail", "topic", "kafka_partition", "kafka_offset")
    return [(name, str(row[name]).encode()) for name in names]


class Outputs:
    """Sends batches to Kafka.

    Parameters
    ----------
    client
        librdkafka settings, ``bootstrap.servers`` among them.
    topics
        Where to.
    timeout_s
        How long a batch may take to be acknowledged.

    Raises
    ------
    UnavailableError
        The schema registry does not answer; see :meth:`stream.schema_ids.Registry.ids`.
    ConfigurationError
        It refuses the schemas.
    """

    def __init__(self, client: Mapping[str, Any], topics: Topics, timeout_s: float) -> None:
        self._topics = topics
        self._frames = topics.frames()
        self._timeout_s = timeout_s
        self._troubles = Troubles()
        self._producer = Producer(
            {
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": 2,
                "message.max.bytes": 32 << 20,
                "delivery.timeout.ms": int(timeout_s * 1000),
                **client,
                "error_cb": self._troubles,
            }
        )
        self._failures: list[str] = []

    def send(
        self,
        engine: sa.Engine,
        run_id: str,
        batch_id: int,
        classified: list[dict[str, Any]] | None = None,
    ) -> int:
        """Send what a committed batch has to say; return the number of messages.

        `classified` is what :func:`stream.commit.commit_sql` gave, None to read it from the tables.

        Raises
        ------
        UnavailableError
            Not everything was acknowledged in time; sending again is safe.
        """
        self._failures.clear()
        n = 0
        with reading(engine) as connection:
            given = (self._topics, self._frames, classified)
            for message in outgoing(connection, run_id, batch_id, *given):
                self._produce(message)
                n += 1
        self._await_all()
        return n

    def _await_all(self) -> None:
        """Wait for every acknowledgement, but not for one that we shall not get."""
        deadline = time.monotonic() + self._timeout_s
        while left := self._producer.flush(_FLUSH_S):
            if self._troubles.refused:
                raise UnavailableError("Kafka", self._troubles.hint())
            if time.monotonic() > deadline:
                break
        if left or self._failures:
            why = self._failures[0] if self._failures else f"{left} messages unacknowledged"
            raise UnavailableError("Kafka", f"{why}: is it running, and do the topics exist?")

    def _produce(self, message: dict[str, Any]) -> None:
        while True:
            try:
                self._producer.produce(on_delivery=self._delivered, **message)
            except BufferError:
                self._producer.poll(0.5)
            except KafkaException as error:
                raise UnavailableError("Kafka", str(error)) from error
            else:
                return

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failures.append(error.str())
