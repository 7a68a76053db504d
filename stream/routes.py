"""Routes of a batch: which of its rows are sent to which topic, in which form.

A kind of route has a table of the batch, a mask over it and a form; it is a function below and a line in
:data:`KINDS`, and ``kafka.NAME_topic`` is the setting of its topic. A route is a kind with a topic, numbers
and a schema id, as plain values: it is stored with every batch that used it, so that a replay sends the same
bytes whatever the settings are by then. To change a kind's mask or form, add a new version of it and keep
the old one: new batches take the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.errors import ConfigurationError
from store.keys import keys_of
from stream.avro import encode
from stream.messages import (
    CLASSIFICATION,
    DESC,
    LABEL_REQUEST,
    MessageSchema,
    as_of,
    for_desc,
    frame,
    key_of,
)

if TYPE_CHECKING:
    from stream.schema_ids import Registry

CLASSIFIED: Final = "classifications"
REQUESTED: Final = "label_requests"
REJECTED: Final = "rejected"

Message = dict[str, Any]
"""What Kafka's producer takes: topic, key, value, headers."""
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class RouteKind:
    """What a route does.

    Attributes
    ----------
    name, version
        Permanent; together they are a key of :data:`KINDS`.
    table
        A table of the batch: :data:`CLASSIFIED`, :data:`REQUESTED` or :data:`REJECTED`.
    form
        Makes messages from the route and its rows, in their order.
    schema
        The schema of the values; None if they are sent as they came.
    framed
        Whether the schema's id precedes a value.
    mask
        Says of each row of the table, from the route's numbers, whether it is sent; None: all are. A null is
        not sent.
    numbers
        What the mask is given, by its names in the section ``kafka`` of the settings.
    """

    name: str
    version: int
    table: str
    form: Callable[[Route, pa.Table], Iterator[Message]]
    schema: MessageSchema | None = None
    framed: bool = True
    mask: Callable[[Numbers, pa.Table], pa.ChunkedArray] | None = None
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """One route, as plain values.

    Attributes
    ----------
    kind, version
        A key of :data:`KINDS`.
    topic
        The topic to send to.
    schema
        Version of the values' schema.
    schema_id
        The id in the frame; None if there is no frame.
    numbers
        The thresholds of the mask.
    """

    kind: str
    topic: str
    version: int = 1
    schema: str = ""
    schema_id: int | None = None
    numbers: Numbers = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the same for the database."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Route:
        """Return the route that :meth:`to_json` gave."""
        return cls(**stored)

    def messages(self, rows: pa.Table) -> Iterator[Message]:
        """Yield the messages from `rows`, which are of the table that its kind names.

        Raises
        ------
        ConfigurationError
            This release knows no such kind or version.
        """
        kind = kind_of(self)
        yield from kind.form(
            self, rows if kind.mask is None else rows.filter(kind.mask(self.numbers, rows))
        )


def kind_of(route: Route) -> RouteKind:
    """Return the kind of a route; see :meth:`Route.messages`."""
    try:
        return KINDS[route.kind, route.version]
    except KeyError:
        known = ", ".join(f"{name} {version}" for name, version in KINDS)
        raise ConfigurationError(
            f"this release has no route {route.kind} of version {route.version}: {known}"
        ) from None


def _framed(route: Route, schema: MessageSchema, rows: pa.Table) -> list[bytes]:
    prefix = b"" if route.schema_id is None else frame(route.schema_id)
    record = as_of(schema, route.schema).record
    values: list[bytes] = encode(record, rows, prefix).to_pylist()
    return values


def _keys(rows: pa.Table, name: str) -> list[str]:
    return [key_of(*key) for key in keys_of(rows, name)]


def _keyed(topic: str, keys: list[str], values: list[bytes]) -> Iterator[Message]:
    for key, value in zip(keys, values, strict=True):
        yield {"topic": topic, "key": key, "value": value}


def _classified(route: Route, rows: pa.Table) -> Iterator[Message]:
    values = _framed(route, CLASSIFICATION, rows)
    yield from _keyed(route.topic, _keys(rows, "dia_source_id"), values)


def _is_novel(numbers: Numbers, rows: pa.Table) -> pa.ChunkedArray:
    return pc.less_equal(rows["novelty_far"], numbers["novel_far"])


def _desc(route: Route, rows: pa.Table) -> Iterator[Message]:
    values = _framed(route, DESC, for_desc(rows))
    yield from _keyed(route.topic, _keys(rows, "dia_source_id"), values)


def _is_scored(_numbers: Numbers, rows: pa.Table) -> pa.ChunkedArray:
    return pc.is_valid(rows["probabilities"])


def _requests(route: Route, rows: pa.Table) -> Iterator[Message]:
    values = _framed(route, LABEL_REQUEST, rows)
    yield from _keyed(route.topic, _keys(rows, "object_id"), values)


_WHY: Final = ("reason", "detail", "topic", "kafka_partition", "kafka_offset")


def _rejected(route: Route, rows: pa.Table) -> Iterator[Message]:
    for row in rows.select(["packet", *_WHY]).to_pylist():
        why = [(name, str(row[name]).encode()) for name in _WHY]
        yield {"topic": route.topic, "value": row["packet"], "headers": why}


KINDS: Final = {
    (kind.name, kind.version): kind
    for kind in (
        RouteKind("classified", 1, CLASSIFIED, _classified, CLASSIFICATION),
        RouteKind(
            "novel",
            1,
            CLASSIFIED,
            _classified,
            CLASSIFICATION,
            mask=_is_novel,
            numbers=("novel_far",),
        ),
        RouteKind("desc", 1, CLASSIFIED, _desc, DESC, framed=False, mask=_is_scored),
        RouteKind("requests", 1, REQUESTED, _requests, LABEL_REQUEST),
        RouteKind("rejected", 1, REJECTED, _rejected),
    )
}
"""Every kind of route by name and version, of each name the newest version last."""


@dataclass(frozen=True)
class Outgoing:
    """Which kinds of route the settings switch on.

    Attributes
    ----------
    settings
        The section ``kafka`` of the settings, or what it says of routes: ``{kind}_topic``, empty to send
        nothing, and numbers.
    registry
        Gives the frames' schema ids; None: they are derived from the schemas' versions.
    """

    settings: Mapping[str, Any]
    registry: Registry | None = None

    def topics(self) -> dict[str, str]:
        """Return the topic of each kind that is sent, by its name."""
        every = {name: self.settings.get(f"{name}_topic") for name, _ in KINDS}
        return {name: topic for name, topic in every.items() if topic}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes; gets the schemas' ids from the registry, if there is one."""
        newest = {kind.name: kind for kind in KINDS.values()}
        kinds = [(newest[name], topic) for name, topic in self.topics().items()]
        framed = {topic: kind.schema for kind, topic in kinds if kind.schema and kind.framed}
        if self.registry is None:
            ids = {topic: schema.default_id for topic, schema in framed.items()}
        else:
            ids = self.registry.ids(framed)
        return tuple(
            Route(
                kind.name,
                topic,
                kind.version,
                kind.schema.version if kind.schema else "",
                ids.get(topic) if kind.framed else None,
                {name: self.settings[name] for name in kind.numbers},
            )
            for kind, topic in kinds
        )


def messages_of(routes: tuple[Route, ...], tables: Mapping[str, pa.Table]) -> Iterator[Message]:
    """Yield the messages of a batch, route by route, each in the order of its table's key."""
    for route in routes:
        yield from route.messages(tables[kind_of(route).table])
