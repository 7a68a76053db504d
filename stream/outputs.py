"""The messages that are sent to Kafka after a batch: at least once, identical bytes for a repeat.

Messages are Avro preceded by a frame (byte 0, schema id; see :mod:`stream.messages`), keyed by survey and
identifier; DESC's form has no frame, because its readers expect none; rejected packets are sent unchanged,
with their reason in the headers. All of it is in the tables by (run, batch), including the routes
that the batch used, so that a replay sends the same bytes again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import sqlalchemy as sa
from confluent_kafka import KafkaException, Producer

from lightcurves.errors import UnavailableError
from models.record import RECORD, Kind
from store import tables
from store.database import reading
from store.keys import of_batch
from stream.access import Troubles
from stream.messages import NAMED_PROBABILITIES
from stream.routes import CLASSIFIED, REJECTED, REQUESTED, Message, Outgoing, Route, messages_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FLUSH_S: Final = 0.5


def outgoing(
    connection: sa.Connection,
    run_id: str,
    batch_id: int,
    routes: tuple[Route, ...],
    classified: pa.Table | None = None,
) -> Iterator[Message]:
    """Yield the messages of a batch, in a fixed order.

    Parameters
    ----------
    connection
        A connection, in any transaction.
    run_id, batch_id
        Which batch.
    routes
        Its routes; those that are stored with the batch, if any, are used instead.
    classified
        Its rows of ``classifications`` in the order of their key, if they are in memory; else they are
        read.
    """
    routes = stored_routes(connection, run_id, batch_id) or routes
    others = {
        name: read_rows(connection, table, run_id, batch_id)
        for name, table in (
            (REQUESTED, tables.label_requests),
            (REJECTED, tables.rejected),
        )
    }
    if classified is None:
        classified = read_rows(connection, tables.classifications, run_id, batch_id)
    yield from messages_of(routes, {CLASSIFIED: classified, **others})


def stored_routes(connection: sa.Connection, run_id: str, batch_id: int) -> tuple[Route, ...]:
    """Return the routes that a batch was committed with; empty if its release stored none."""
    query = sa.select(tables.batches.c.routes).where(of_batch(tables.batches, run_id, batch_id))
    stored = connection.execute(query).scalar()
    return tuple(Route.from_json(route) for route in stored or ())


_ARROW: Final = {
    sa.BigInteger: pa.int64(),
    sa.Integer: pa.int32(),
    sa.Double: pa.float64(),
    sa.Text: pa.string(),
    sa.LargeBinary: pa.binary(),
}


def schema_of(table: sa.Table) -> pa.Schema:
    """Return the Arrow columns of an SQL table; probabilities have their classes named."""
    kinds = {field.name: field for field in RECORD}

    def arrow(column: sa.Column[Any]) -> pa.DataType:
        if column.name in kinds:
            field = kinds[column.name]
            return NAMED_PROBABILITIES if field.kind is Kind.PROBABILITIES else field.arrow
        return next(kind for of, kind in _ARROW.items() if isinstance(column.type, of))

    return pa.schema([(column.name, arrow(column)) for column in table.c])


def read_rows(connection: sa.Connection, table: sa.Table, run_id: str, batch_id: int) -> pa.Table:
    """Return the rows of a batch, in the order of their key."""
    query = sa.select(table).where(of_batch(table, run_id, batch_id))
    key = table.primary_key.columns
    rows = [dict(row) for row in connection.execute(query.order_by(*key)).mappings()]
    for row in rows:
        if row.get("probabilities") is not None:
            by_class = sorted((int(class_id), p) for class_id, p in row["probabilities"].items())
            row["probabilities"] = [{"classId": c, "probability": p} for c, p in by_class]
    return pa.Table.from_pylist(rows, schema=schema_of(table))


class Outputs:
    """Sends batches to Kafka.

    Parameters
    ----------
    client
        librdkafka settings, ``bootstrap.servers`` among them.
    switched
        Which routes are used, and with what.
    timeout_s
        How long a batch may take to be acknowledged.

    Attributes
    ----------
    routes
        The routes of a batch that is committed now.

    Raises
    ------
    UnavailableError
        The schema registry does not answer; see :meth:`stream.schema_ids.Registry.ids`.
    ConfigurationError
        It refuses the schemas.
    """

    def __init__(self, client: Mapping[str, Any], switched: Outgoing, timeout_s: float) -> None:
        self.routes = switched.routes()
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
        classified: pa.Table | None = None,
    ) -> int:
        """Send the messages of a committed batch; return their number.

        `classified` is the table that :func:`stream.commit.commit_sql` returned; None: read it.

        Raises
        ------
        UnavailableError
            Not everything was acknowledged in time; sending again is safe.
        """
        self._failures.clear()
        n = 0
        with reading(engine) as connection:
            for message in outgoing(connection, run_id, batch_id, self.routes, classified):
                self._produce(message)
                n += 1
        self._await_all()
        return n

    def _await_all(self) -> None:
        """Wait for every acknowledgement; stop if Kafka refuses the connection or time runs out."""
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
