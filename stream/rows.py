"""What a worker hands to the driver: one small row per message, one per range that was read.

Spark does not see these rows: it passes packed record batches on unchanged, see :func:`pack`.

Light curves and features are not among the columns: they are in the Parquet file that the worker wrote.
The original packets of good alerts are not passed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from models.record import ROW_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

RANGE: Final = "range"
MESSAGE: Final = "message"
EARLY: Final = "early"
"""An urgent message found by looking ahead, see :mod:`stream.priority`; its fields are those of a message."""

_WHERE: Final = [
    ("kind", pa.string()),
    ("topic", pa.string()),
    ("kafka_partition", pa.int32()),
    ("kafka_offset", pa.int64()),
]
_RANGE_FIELDS: Final = [
    ("end_offset", pa.int64()),
    ("n_read", pa.int64()),
    ("n_lost", pa.int64()),
    ("started_ms", pa.int64()),
    ("delta_file", pa.string()),
    ("delta_bytes", pa.int64()),
    ("delta_rows", pa.int64()),
    ("stages_s", pa.list_(pa.float64())),
]
_MESSAGE_FIELDS: Final = [
    ("arrival_ms", pa.int64()),
    ("processed_ms", pa.int64()),
    ("reject_reason", pa.string()),
    ("detail", pa.string()),
    ("packet", pa.binary()),
]
_SCORE_FIELDS: Final = [(field.name, field.arrow) for field in ROW_FIELDS]

_DRIVER_FIELDS: Final = [
    ("healpix", pa.int64()),
    ("strategy_features", pa.list_(pa.float64())),
]
"""What only the driver needs of an alert: its cell of the sky, and the features that the strategy of
requests reads, in the order in which it names them."""

ROWS_SCHEMA: Final = pa.schema(
    [*_WHERE, *_RANGE_FIELDS, *_MESSAGE_FIELDS, *_SCORE_FIELDS, *_DRIVER_FIELDS]
)
"""``kind`` says which fields are filled: a range row has the range's, a message row the others'.

A range row's ``kafka_offset`` is its first offset, ``end_offset`` one past its last; ``stages_s`` are
the seconds of the task's :data:`stream.stages.WORKER_STAGES`, then of the task in all.
``probabilities`` are in the order of the model's classIds.
"""

SCORE_COLUMNS: Final = tuple(name for name, _ in _SCORE_FIELDS)

_SPARK_TYPES: Final = {
    pa.string(): "string",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.binary(): "binary",
    pa.list_(pa.float64()): "array<double>",
    pa.list_(pa.int32()): "array<int>",
}
PACKED_SCHEMA: Final = pa.schema([("rows", pa.binary())])
"""The rows that Spark sees: record batches of :data:`ROWS_SCHEMA` as Arrow IPC streams, one per row.

As Spark's own rows they would be converted in the JVM, there and back, which took as long as scoring.
"""
PACKED_SPARK_SCHEMA: Final = "rows binary"
_LARGEST_PACK: Final = 64 << 20
SCORE_SPARK_SCHEMA: Final = ", ".join(
    f"{name} {_SPARK_TYPES[kind]}" for name, kind in _SCORE_FIELDS
)
"""The score fields alone."""


def padded(columns: dict[str, pa.Array], n: int) -> pa.RecordBatch:
    """Return `columns` as a record batch of :data:`ROWS_SCHEMA`; absent columns are null."""
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(n, field.type)
        for field in ROWS_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS_SCHEMA)


def pack(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield `batch` of :data:`ROWS_SCHEMA` as rows of :data:`PACKED_SCHEMA`, none of them too large."""
    if batch.nbytes > _LARGEST_PACK and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from pack(batch[:half])
        yield from pack(batch[half:])
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ROWS_SCHEMA) as writer:
        writer.write_batch(batch)
    packed = sink.getvalue()
    bounds = pa.py_buffer(np.array([0, packed.size], np.int32))
    column = pa.Array.from_buffers(pa.binary(), 1, [None, bounds, packed])
    yield pa.RecordBatch.from_arrays([column], schema=PACKED_SCHEMA)


def unpack(packed: pa.Table) -> pa.Table:
    """Return the rows that :func:`pack` packed."""
    parts = [pa.ipc.open_stream(cell.as_buffer()).read_all() for cell in packed["rows"]]
    return pa.concat_tables([ROWS_SCHEMA.empty_table(), *parts])
