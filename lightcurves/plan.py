"""Compile a writer's Avro schema and a survey's mapping into a table of skip and store steps.

A packet has about 100,000 values, of which noctule needs 5,000. The plan says, once per schema,
which bytes to skip and which to store; runs of equal steps are fused, straight runs of steps are
collected in segments, and :mod:`lightcurves.interpreter` walks the table without ever creating a Python
object.

The table is an ``int64`` array of rows ``(op, a, b, c, d)``; see :class:`Op` for what they mean.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lightcurves.columns import Source, Space, Target
from lightcurves.errors import ConfigurationError
from lightcurves.surveys import band_codes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from lightcurves.surveys.declare import Survey

Schema = Any
"""A parsed Avro schema is JSON: a name, a list (union) or an object."""


class Op(IntEnum):
    """What one step of a plan does; ``a`` to ``d`` are its operands."""

    END = 0
    """The packet ends here."""
    SEGMENT = 1
    """The next ``a`` steps, each a SKIP or a STORE, form a segment; continue after them.

    ``b`` is the segment's number, its stores are ``stores[c:c + d]``."""
    SKIP = 2
    """Skip ``a`` values of :class:`Shape` ``b`` with, if fixed, ``c`` bytes.

    ``d`` is the null branch of two-branch unions of null and such a value, -1 where there is none."""
    STORE = 3
    """Store one value, as for SKIP, where the segment's next store says."""
    STORE_NULL = 4
    """No value; store null where the segment's next store says."""
    UNION = 5
    """Read a branch below ``a`` and continue at ``jumps[b + branch]``."""
    JUMP = 6
    """Continue at step ``a``."""
    ARRAY = 7
    """An array or map begins; the next step is its LOOP."""
    LOOP = 8
    """Next item, or continue at ``a`` after the last.

    ``b`` is the history group whose rows the items are, or -1; ``c`` the fewest bytes of an item."""


class Shape(IntEnum):
    """How many bytes a value takes."""

    FIXED = 0
    """As many as the step says."""
    VARINT = 1
    """A variable-length integer."""
    SIZED = 2
    """A length and that many bytes."""


_PRIMITIVE: Final[dict[str, tuple[Shape, int]]] = {
    "null": (Shape.FIXED, 0),
    "boolean": (Shape.FIXED, 1),
    "float": (Shape.FIXED, 4),
    "double": (Shape.FIXED, 8),
    "int": (Shape.VARINT, 0),
    "long": (Shape.VARINT, 0),
    "string": (Shape.SIZED, 0),
    "bytes": (Shape.SIZED, 0),
}
_SOURCES: Final = {
    "int": Source.VARINT,
    "long": Source.VARINT,
    "float": Source.FLOAT,
    "double": Source.DOUBLE,
    "string": Source.STRING,
    "boolean": Source.BOOLEAN,
    "bytes": Source.BYTES,
}
_BAND_SPACES: Final = {Space.ALERT_BAND, Space.HISTORY_BAND}
_INTEGER_SPACES: Final = {Space.ALERT_INT64, Space.HISTORY_INT64}
_FLAG_SPACES: Final = {Space.ALERT_FLAG, Space.HISTORY_FLAG}
_ROW_SPACES: Final = {
    Space.HISTORY_FLOAT64,
    Space.HISTORY_FLOAT32,
    Space.HISTORY_INT64,
    Space.HISTORY_BAND,
}
"""What holds whatever the memory held before, unless each row fills it."""

# Nested arrays deeper than this do not occur in any alert schema; the interpreter's stack is fixed.
MAX_DEPTH: Final = 8
# Named types are written out wherever they are used: 30 that each use the next one twice are 2**30
# values. LSST v10.0 has 404.
MAX_VALUES: Final = 100_000
# Types within types, far from the end of Python's own stack; LSST nests 4, the random ones of the
# tests 10.
MAX_NESTED: Final = 64
# Each keeps 16 KiB of layouts while packets are decoded. LSST v10.0 has 7.
MAX_SEGMENTS: Final = 2_000
NOT_OPTIONAL: Final = -1


_CHECKED: Final = Target(Space.NOWHERE, 0)

# The errors from reading something as a schema that is not one.
_NOT_AVRO: Final = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


@dataclass(frozen=True)
class Plan:
    """A compiled schema.

    Attributes
    ----------
    survey
        The mapping that it was compiled for.
    steps
        int64 array (n_steps, 5): the table.
    stores
        int64 array (n_stores, 4): :class:`Source`, :class:`Space`, slot and, for an enum, number of
        symbols of each store.
    jumps
        int64 array: branch targets of the unions.
    n_segments
        How many segments the table has.
    band_names, band_codes
        uint8 array (n_bands, 8) of zero-padded names as the packet spells them, int8 codes.
    min_history_bytes, min_packet_bytes
        The fewest bytes that one history row can take, which bounds the rows that a packet can hold;
        and a whole packet, which bounds the packets that a block can hold.
    stored, stored_types
        Dotted paths that are read, and their Avro types.
    missing, skipped
        Dotted paths that are wanted but absent from the schema (null), and those that are skipped.
    """

    survey: Survey
    steps: NDArray[np.int64]
    stores: NDArray[np.int64]
    jumps: NDArray[np.int64]
    n_segments: int
    band_names: NDArray[np.uint8]
    band_codes: NDArray[np.int8]
    min_history_bytes: int
    min_packet_bytes: int
    stored: tuple[str, ...]
    stored_types: tuple[str, ...]
    missing: tuple[str, ...]
    skipped: tuple[str, ...]


def compile_plan(schema: Schema, survey: Survey) -> Plan:
    """Compile `schema` for the columns that `survey` wants.

    Parameters
    ----------
    schema
        The writer's schema as JSON objects, named types defined before use.
    survey
        Which fields become which columns.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigurationError
        The schema is recursive, is not a record, lacks a field that the survey requires,
        or has a type that the survey's column cannot take.
    """
    compiler = _Compiler(survey.numbered_bands)
    with _refusing_what_is_no_schema():
        compiler.walk(schema, survey.tree())
        absent = sorted(set(survey.required).difference(compiler.stored, compiler.skipped))
        if absent:
            raise ConfigurationError(
                f"schema {schema['name']} lacks the required field(s) {', '.join(absent)}"
            )
        return compiler.plan(schema, survey)


def fields_of(schema: Schema) -> frozenset[str]:
    """Return the dotted paths of all fields of a schema that are a single value.

    Raises
    ------
    ConfigurationError
        The schema is recursive, or is not a record.
    """
    compiler = _Compiler()
    with _refusing_what_is_no_schema():
        compiler.walk(schema, {})
    return frozenset(compiler.skipped)


@contextmanager
def _refusing_what_is_no_schema() -> Iterator[None]:
    """Translate the errors of what is not a schema at all, which nobody has checked before."""
    try:
        yield
    except _NOT_AVRO as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"no Avro schema: {said}") from error


@dataclass
class _Compiler:
    numbered_bands: bool = False
    steps: list[list[int]] = field(default_factory=list)
    stores: list[list[int]] = field(default_factory=list)
    segment: int | None = None
    n_segments: int = 0
    jumps: list[int] = field(default_factory=list)
    names: dict[str, Schema] = field(default_factory=dict)
    open_names: list[str] = field(default_factory=list)
    depth: int = 0
    nested: int = 0
    n_values: int = 0
    min_history_bytes: int = 1 << 30
    fewest: dict[str, int] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    stored_types: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def walk(self, schema: Schema, wanted: dict[str, Any]) -> None:
        """Emit the steps of a whole packet; `wanted` is a survey's tree."""
        if not isinstance(schema, dict) or schema.get("type") not in {"record", "error"}:
            raise ConfigurationError("an alert's schema must be a record")
        self.value(schema, wanted, "")
        self.emit(Op.END)

    def plan(self, schema: Schema, survey: Survey) -> Plan:
        bands = band_codes(survey)
        names = np.zeros((len(bands), 8), np.uint8)
        for row, name in enumerate(bands):
            letters = np.frombuffer(name.encode(), np.uint8)
            names[row, : letters.size] = letters
        return Plan(
            survey=survey,
            steps=np.array(self.steps, np.int64),
            stores=np.array(self.stores or [[0] * 4], np.int64),
            n_segments=self.n_segments,
            jumps=np.array(self.jumps or [0], np.int64),
            band_names=names,
            band_codes=np.array(list(bands.values()), np.int8),
            min_history_bytes=self.min_history_bytes,
            min_packet_bytes=self.fewest_bytes(schema),
            stored=tuple(self.stored),
            stored_types=tuple(self.stored_types),
            missing=tuple(path for path in survey.paths() if path not in self.stored),
            skipped=tuple(self.skipped),
        )

    # -- emitting ------------------------------------------------------------------------------

    def emit(self, op: Op, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
        """Add a step that decides where to go on: it ends the segment before it."""
        self.segment = None
        self.steps.append([int(op), int(a), int(b), int(c), int(d)])
        return len(self.steps) - 1

    def emit_member(self, op: Op, shape: Shape, size: int, null: int) -> None:
        """Add a step to the segment, or begin one with it; skips of the same are fused."""
        if self.segment is None:
            segment = self.emit(Op.SEGMENT, 0, self.n_segments, len(self.stores))
            self.n_segments += 1
            if self.n_segments > MAX_SEGMENTS:
                raise ConfigurationError(f"schemas of more than {MAX_SEGMENTS} parts are refused")
            self.segment = segment
        last = self.steps[-1]
        if op == Op.SKIP == last[0] and last[2:] == [shape, size, null]:
            last[1] += 1
            return
        self.steps.append([int(op), 1, int(shape), size, null])
        self.steps[self.segment][1] += 1

    def emit_skip(self, shape: Shape, size: int = 0, null: int = NOT_OPTIONAL) -> None:
        if shape != Shape.FIXED or null != NOT_OPTIONAL:
            self.emit_member(Op.SKIP, shape, size, null)
        elif size:  # bytes are bytes: neighbours of any size become one step
            self.emit_member(Op.SKIP, Shape.FIXED, 1, NOT_OPTIONAL)
            self.steps[-1][1] += size - 1

    def emit_unwanted(self, kind: str, null: int = NOT_OPTIONAL, symbols: int = 0) -> None:
        """Skip a value, or check it without storing it."""
        if kind == "string" or symbols:
            self.emit_store(kind, _CHECKED, null, symbols)
        else:
            self.emit_skip(*_PRIMITIVE[kind], null)

    def emit_store(
        self, kind: str, target: Target, null: int = NOT_OPTIONAL, symbols: int = 0
    ) -> None:
        self.emit_member(Op.STORE, *_PRIMITIVE[kind], null)
        source = _SOURCES[kind] if target.special is None else target.special
        self.add_store(Source.SYMBOL if symbols else source, target, symbols)

    def emit_null(self, target: Target) -> None:
        self.emit_member(Op.STORE_NULL, Shape.FIXED, 0, NOT_OPTIONAL)
        self.add_store(Source.VARINT, target, 0)

    def add_store(self, source: Source, target: Target, symbols: int) -> None:
        self.stores.append([int(source), int(target.space), target.slot, symbols])
        if self.segment is not None:
            self.steps[self.segment][4] += 1

    def here(self) -> int:
        """Return the next step's number and make it a jump target: it begins a segment of its own."""
        self.segment = None
        return len(self.steps)

    # -- walking the schema --------------------------------------------------------------------

    def value(self, schema: Schema, target: Any, path: str) -> None:
        self.n_values += 1
        if self.n_values > MAX_VALUES:
            raise ConfigurationError(f"schemas of more than {MAX_VALUES} values are refused")
        self.nested += 1
        if self.nested > MAX_NESTED:
            raise ConfigurationError(f"types nested deeper than {MAX_NESTED} are refused")
        schema = self.resolve(schema)
        if isinstance(schema, list):
            self.union(schema, target, path)
        elif isinstance(schema, str):
            self.primitive(schema, target, path)
        else:
            self.complex(schema, target, path)
        self.nested -= 1

    def resolve(self, schema: Schema) -> Schema:
        """Unwrap ``{"type": "long", "logicalType": ...}`` and references to named types."""
        while True:
            if isinstance(schema, str) and schema in self.names and schema not in _PRIMITIVE:
                schema = self.names[schema]
            elif isinstance(schema, dict) and (
                isinstance(schema["type"], list | dict) or schema["type"] in _PRIMITIVE
            ):
                schema = schema["type"]
            else:
                return schema

    def complex(self, schema: dict[str, Any], target: Any, path: str) -> None:
        kind = schema["type"]
        if kind in {"record", "error"}:
            self.record(schema, target, path)
        elif kind in {"array", "map"}:
            self.array(schema, target, path)
        elif kind == "enum":
            self.remember(schema)
            self.leaf("int", target, path, symbols=n_symbols(schema, path))
        elif kind == "fixed":
            self.remember(schema)
            self.refuse_target(target, path, "fixed")
            self.emit_skip(Shape.FIXED, fixed_size(schema, path))
        else:
            raise ConfigurationError(f"schema type {kind!r} at {path} is not Avro")

    def remember(self, schema: dict[str, Any]) -> str:
        name = str(schema["name"])
        if "." not in name and schema.get("namespace"):
            name = f"{schema['namespace']}.{name}"
        self.names[name] = schema
        return name

    def record(self, schema: dict[str, Any], target: Any, path: str) -> None:
        name = self.remember(schema)
        if name in self.open_names:
            raise ConfigurationError(
                f"schema {name} contains itself at {path}: recursive schemas are refused"
            )
        wanted: Mapping[str, Any] = target if isinstance(target, dict) else {}
        if target is not None and not isinstance(target, dict):
            raise ConfigurationError(f"{path} is a record where a single value is wanted")
        if "[]" in wanted:
            raise ConfigurationError(f"{path} is a record where an array is wanted")
        self.open_names.append(name)
        for item in schema["fields"]:
            if not isinstance(item["name"], str):
                raise ConfigurationError(f"a field of {name} has the name {item['name']!r}")
            below = f"{path}.{item['name']}" if path else item["name"]
            self.value(item["type"], wanted.get(item["name"]), below)
        present = {item["name"] for item in schema["fields"]}
        self.null_out({key: below for key, below in wanted.items() if key not in present})
        self.open_names.pop()

    def array(self, schema: dict[str, Any], target: Any, path: str) -> None:
        group = -1
        if isinstance(target, Target):
            raise ConfigurationError(f"{path} is an array where a single value is wanted")
        if isinstance(target, dict):
            if "[]" not in target:
                raise ConfigurationError(f"{path} is an array where a record is wanted")
            group = target["[]"]
            target = {key: value for key, value in target.items() if key != "[]"}
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigurationError(f"{path}: arrays nested deeper than {MAX_DEPTH} are refused")
        items = schema["items"] if schema["type"] == "array" else schema["values"]
        fewest = self.fewest_bytes(items) + (schema["type"] == "map")
        if fewest == 0:
            group, target = -1, None  # items without bytes are no measurements, and have no bound
        if group >= 0:
            self.min_history_bytes = min(self.min_history_bytes, fewest)
        self.emit(Op.ARRAY)
        loop = self.emit(Op.LOOP, 0, group, fewest)
        self.here()
        if schema["type"] == "map":
            self.emit_unwanted("string")
        self.value(items, target, path)
        self.emit(Op.JUMP, loop)
        self.steps[loop][1] = self.here()
        self.depth -= 1

    def union(self, branches: list[Schema], target: Any, path: str) -> None:
        if not branches:
            raise ConfigurationError(f"{path} is a union without branches")
        if self.simple_optional(branches, target, path):
            return
        table = len(self.jumps)
        self.jumps.extend([0] * len(branches))
        self.emit(Op.UNION, len(branches), table)
        exits = []
        for index, branch in enumerate(branches):
            self.jumps[table + index] = self.here()
            if self.resolve(branch) == "null":
                self.null_out(target)
            else:
                self.value(branch, target, path)
            exits.append(self.emit(Op.JUMP))
        end = self.here()
        for step in exits:
            self.steps[step][1] = end

    def simple_optional(self, branches: list[Schema], target: Any, path: str) -> bool:
        """Emit one fused step for ``["null", primitive]``; say whether that was possible."""
        resolved = [self.resolve(branch) for branch in branches]
        if len(resolved) != 2 or "null" not in resolved:  # noqa: PLR2004 - null and one other
            return False
        null = resolved.index("null")
        value = resolved[1 - null]
        symbols = 0
        if isinstance(value, dict) and value["type"] == "enum":
            self.remember(value)
            symbols = n_symbols(value, path)
            value = "int"
        if not isinstance(value, str) or value not in _PRIMITIVE or value == "null":
            return False
        self.leaf(value, target, path, null, symbols)
        return True

    def primitive(self, kind: str, target: Any, path: str) -> None:
        if kind not in _PRIMITIVE:
            raise ConfigurationError(f"{path} names the unknown type {kind!r}")
        if kind == "null" and target is not None:  # it might as well not be there
            self.null_out(target)
        else:
            self.leaf(kind, target, path)

    def leaf(
        self, kind: str, target: Any, path: str, null: int = NOT_OPTIONAL, symbols: int = 0
    ) -> None:
        if target is None:
            self.skipped.append(path)
            self.emit_unwanted(kind, null, symbols)
            return
        if not isinstance(target, Target):
            raise ConfigurationError(f"{path} is a single value where a record is wanted")
        if not self.takes(target, _SOURCES.get(kind)):
            raise ConfigurationError(f"{path} has type {kind}, which its column cannot take")
        self.stored.append(path)
        self.stored_types.append(kind if null == NOT_OPTIONAL else f"null or {kind}")
        self.emit_store(kind, target, null, symbols)

    def takes(self, target: Target, source: Source | None) -> bool:
        """Say whether a column can take a value of `source`."""
        if target.special is not None:
            return source == (Source.STRING if target.special == Source.NAME else target.special)
        if target.space in _BAND_SPACES:
            return source == (Source.VARINT if self.numbered_bands else Source.STRING)
        if target.space in _FLAG_SPACES:
            return source == Source.BOOLEAN
        if target.space in _INTEGER_SPACES:
            return source in {Source.VARINT, Source.BOOLEAN}
        return source not in {None, Source.STRING, Source.BYTES}

    def null_out(self, target: Any) -> None:
        """Put null into the columns below `target`.

        Only a history row needs it: the alert columns start as null, flags as unset, and an array
        that is absent has no rows at all.
        """
        if isinstance(target, Target) and target.space in _ROW_SPACES:
            self.emit_null(target)
        elif isinstance(target, dict) and "[]" not in target:
            for below in target.values():
                self.null_out(below)

    def refuse_target(self, target: Any, path: str, kind: str) -> None:
        if target is not None:
            raise ConfigurationError(f"{path} has type {kind}, which no column can take")
        self.skipped.append(path)

    def fewest_bytes(self, schema: Schema, inside: tuple[str, ...] = ()) -> int:
        """Return the fewest bytes that a value of `schema` can take."""
        if isinstance(schema, str) and schema in inside:
            return 0
        if len(inside) > MAX_NESTED:
            raise ConfigurationError(f"types nested deeper than {MAX_NESTED} are refused")
        schema = self.resolve(schema)
        if isinstance(schema, list):
            return 1 + min(self.fewest_bytes(branch, (*inside, "")) for branch in schema)
        if isinstance(schema, str):
            # A type that is named only within an array is not known here: 0.
            return {"null": 0, "float": 4, "double": 8}.get(schema, int(schema in _PRIMITIVE))
        kind = schema["type"]
        if kind == "fixed":
            return fixed_size(schema, "")
        if kind in {"record", "error"}:
            name = self.remember(schema)
            if name not in self.fewest:
                inner = (*inside, name)
                parts = [self.fewest_bytes(item["type"], inner) for item in schema["fields"]]
                self.fewest[name] = sum(parts)
            return self.fewest[name]
        return 1


def n_symbols(schema: dict[str, Any], path: str) -> int:
    """Return how many symbols an enum has; one without any has no value."""
    symbols = schema["symbols"]
    if not isinstance(symbols, list) or not symbols:
        raise ConfigurationError(f"{path} is an enum without symbols")
    return len(symbols)


def fixed_size(schema: dict[str, Any], path: str) -> int:
    """Return the size of a fixed type in bytes, after checking it."""
    size = schema["size"]
    if not isinstance(size, int) or not 0 <= size < 1 << 31:
        raise ConfigurationError(f"{path or 'a fixed type'} has the impossible size {size!r}")
    return size
