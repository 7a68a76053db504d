"""A small Avro writer that does what fastavro's never does, and what a packet means, told twice.

`encode` writes a random value of any schema in any of the forms that the standard allows: arrays
and maps in several blocks, with negative counts, unions in any branch. fastavro's *reader* is the
oracle for what the bytes mean.
"""

from __future__ import annotations

import io
import math
import random
import struct
from typing import Any, Final

import fastavro

BANDS: Final = ("u", "g", "r", "i", "z", "y")
BAND_LIKE: Final = ("", "rr", "R", "12345678", "123456789", "r\0", "ü")


def varint(value: int) -> bytes:
    """Zig-zag, as Avro writes int and long; longer than ten bytes where `value` needs it."""
    value = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def sized(content: bytes) -> bytes:
    return varint(len(content)) + content


def encode(schema: Any, chance: random.Random, names: dict[str, Any] | None = None) -> bytes:
    """A random value of a schema that fastavro has parsed."""
    if names is None:
        names = {}
        learn(schema, names)
    if isinstance(schema, list):
        branch = chance.randrange(len(schema))
        return varint(branch) + encode(schema[branch], chance, names)
    if isinstance(schema, dict):
        return _complex(schema, chance, names)
    return encode(names[schema], chance, names) if schema in names else _primitive(schema, chance)


def _complex(schema: dict[str, Any], chance: random.Random, names: dict[str, Any]) -> bytes:
    match schema["type"]:
        case "record":
            return b"".join(encode(field["type"], chance, names) for field in schema["fields"])
        case "enum":
            return varint(chance.randrange(len(schema["symbols"])))
        case "fixed":
            return chance.randbytes(schema["size"])
        case "array" | "map":
            return _blocks(schema, chance, names)
        case kind if "timestamp" in schema.get("logicalType", ""):
            assert kind == "long"
            return varint(chance.randrange(1 << 50))  # fastavro makes a datetime of it
        case kind:
            return encode(kind, chance, names)


def learn(schema: Any, names: dict[str, Any]) -> None:
    """Enter the named types of a schema."""
    if isinstance(schema, list):
        for branch in schema:
            learn(branch, names)
    elif isinstance(schema, dict):
        if "name" in schema:
            names[schema["name"]] = schema
        for field in schema.get("fields", ()):
            learn(field["type"], names)
        for below in ("items", "values"):
            if below in schema:
                learn(schema[below], names)


def _blocks(schema: dict[str, Any], chance: random.Random, names: dict[str, Any]) -> bytes:
    out = b""
    number = 0
    while chance.random() < 0.8 and number < 12:
        count = chance.randint(1, 3)
        items = b""
        for _ in range(count):
            if schema["type"] == "map":
                items += sized(f"key{number}".encode())
            items += encode(
                schema["items" if schema["type"] == "array" else "values"], chance, names
            )
            number += 1
        counted = varint(-count) + varint(len(items)) if chance.random() < 0.3 else varint(count)
        out += counted + items
    return out + varint(0)


def _primitive(kind: str, chance: random.Random) -> bytes:
    if kind == "null":
        return b""
    if kind == "boolean":
        return bytes([chance.randrange(2)])
    if kind in {"int", "long"}:
        bits = chance.randint(1, 31 if kind == "int" else 63)
        return varint(chance.choice((1, -1)) * chance.randrange(1 << bits))
    if kind in {"float", "double"}:
        unusual = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-300)
        value = chance.choice(unusual) if chance.random() < 0.1 else chance.gauss(500, 500)
        return struct.pack("<f" if kind == "float" else "<d", value)
    if kind == "string":
        return sized(chance.choice(BANDS if chance.random() < 0.7 else BAND_LIKE).encode())
    return sized(chance.randbytes(chance.choice((0, 1, 5, 200))))


def decode(schema: Any, body: bytes) -> Any:
    """What fastavro reads."""
    return fastavro.schemaless_reader(io.BytesIO(body), schema, None)


def at_path(value: Any, path: str) -> Any:
    """The value at a dotted path, None where a part of it is not there."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
