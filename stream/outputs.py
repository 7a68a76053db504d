"""What goes out to Kafka after a batch: at least once, identical bytes for a repeat.

Messages are JSON (identifiers as strings, null where not evaluated), keyed by diaSourceId; rejected
packets go out as they came in, with their reason in the headers. Everything is read back from the
tables by (run, batch), so that a replay sends the same bytes again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from confluent_kafka import KafkaException, Producer

from lightcurves.errors import UnavailableError
from store import tables
from store.database import reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_IDS: Final = frozenset({"dia_source_id", "object_id", "ss_object_id"})
_CLASSIFIED: Final = (
    "dia_source_id", "object_id", "ss_object_id", "survey", "t_mjd_tai", "arrival_ms", "ra_deg",
    "dec_deg", "reason", "class_id", "probability", "probabilities", "prediction_set", "entropy",
    "margin", "novelty", "novelty_far", "model_version", "feature_digest",
)  # fmt: skip
_REQUESTED: Final = (
    "request_id", "object_id", "dia_source_id", "night", "strategy", "utility", "why", "model_version",
    "ra_deg", "dec_deg", "band", "flux_njy", "t_mjd_tai",
)  # fmt: skip


@dataclass(frozen=True)
class Topics:
    """Names of the outgoing topics, and the false-alarm rate below which an alert is novel."""

    classified: str
    novel: str
    requests: str
    rejected: str
    novel_far: float = 0.01


def outgoing(
    connection: sa.Connection, run_id: str, batch_id: int, topics: Topics
) -> Iterator[dict[str, Any]]:
    """Give the messages of a batch, in a fixed order."""
    for row in _rows(connection, tables.classifications, run_id, batch_id):
        message = _json(row, _CLASSIFIED)
        yield {"topic": topics.classified, "key": str(row["dia_source_id"]), "value": message}
        if row["novelty_far"] is not None and row["novelty_far"] <= topics.novel_far:
            yield {"topic": topics.novel, "key": str(row["dia_source_id"]), "value": message}
    for row in _rows(connection, tables.label_requests, run_id, batch_id):
        yield {
            "topic": topics.requests,
            "key": str(row["object_id"]),
            "value": _json(row, _REQUESTED),
        }
    for row in _rows(connection, tables.rejected, run_id, batch_id):
        yield {"topic": topics.rejected, "value": row["packet"], "headers": _why_rejected(row)}


def _rows(
    connection: sa.Connection, table: sa.Table, run_id: str, batch_id: int
) -> Iterator[Mapping[str, Any]]:
    mine = sa.and_(table.c.run_id == run_id, table.c.batch_id == batch_id)
    query = sa.select(table).where(mine).order_by(*table.primary_key.columns)
    yield from (dict(row) for row in connection.execute(query).mappings())


def _json(row: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    values = {name: row[name] for name in names}
    texts = {
        name: None if values[name] is None else str(values[name]) for name in _IDS & values.keys()
    }
    return json.dumps({**values, **texts}, separators=(",", ":")).encode()


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
    """

    def __init__(self, client: Mapping[str, Any], topics: Topics, timeout_s: float) -> None:
        self._topics = topics
        self._timeout_s = timeout_s
        self._producer = Producer(
            {
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": 2,
                "message.max.bytes": 32 << 20,
                "delivery.timeout.ms": int(timeout_s * 1000),
                **client,
            }
        )
        self._failures: list[str] = []

    def send(self, engine: sa.Engine, run_id: str, batch_id: int) -> int:
        """Send what a committed batch has to say; return the number of messages.

        Raises
        ------
        UnavailableError
            Not everything was acknowledged in time; sending again is safe.
        """
        self._failures.clear()
        n = 0
        with reading(engine) as connection:
            for message in outgoing(connection, run_id, batch_id, self._topics):
                self._produce(message)
                n += 1
        left = self._producer.flush(self._timeout_s)
        if left or self._failures:
            why = self._failures[0] if self._failures else f"{left} messages unacknowledged"
            raise UnavailableError("Kafka", f"{why}: is it running, and do the topics exist?")
        return n

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
