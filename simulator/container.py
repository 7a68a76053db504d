"""Writes framed packets as one Avro container file, the form in which alerts are shared."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from fastavro.write import Writer

from lightcurves.errors import ConfigurationError
from lightcurves.schemas import SchemaSource
from simulator.packets import FRAME, SCHEMA_ID, alert_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

_PACKETS_PER_BLOCK: Final = 100


class _Block(NamedTuple):
    """A block that is already encoded, in the form that fastavro's writer accepts."""

    num_records: int
    bytes_: io.BytesIO


def write_container(
    path: Path, packets: Iterable[bytes], schemas: SchemaSource | None = None
) -> int:
    """Write framed packets of schema 10.0 as an Avro container file, without decoding them.

    Parameters
    ----------
    path
        The file; overwritten, its folder is made.
    packets
        Any number; consumed a hundred at a time.
    schemas
        Where the schema comes from; the installed ``lsst-alert-packet`` by default.

    Returns
    -------
    int
        The number of packets.

    Raises
    ------
    ConfigurationError
        A packet has another schema or no frame, or there is no schema 10.0.
    """
    schema, remaining, total = alert_schema(schemas), iter(packets), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = Writer(file, schema)
        while bodies := [_body(packet) for packet in islice(remaining, _PACKETS_PER_BLOCK)]:
            writer.write_block(_Block(len(bodies), io.BytesIO(b"".join(bodies))))
            total += len(bodies)
        writer.flush()
    return total


def _body(packet: bytes) -> bytes:
    if not packet.startswith(FRAME):
        raise ConfigurationError(f"not a framed packet of schema {SCHEMA_ID}: {packet[:5].hex()}")
    return packet[len(FRAME) :]
