"""Outgoing messages encoded from columns, against fastavro row by row: ``python -m benchmarks.encoding``.

Classifications with 14 classes, everything scored; both give the same bytes, which is checked first.
"""

from __future__ import annotations

import argparse
import io
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from benchmarks.setting import finish, print_table, shortest_s
from models.record import RECORD, Kind
from stream.avro import encode
from stream.messages import CLASSIFICATION, NAMED_PROBABILITIES

N_CLASSES = 14


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000, help="rows of a batch")
    table = classifications(parser.parse_args().rows)
    record, rows = CLASSIFICATION.record, table.to_pylist()
    schema = fastavro.schema.parse_schema(record)
    assert encode(record, table).to_pylist() == by_row(schema, rows)
    took_us = {
        "noctule, by column": shortest_s(lambda: encode(record, table)) / len(rows) * 1e6,
        "fastavro, by row": shortest_s(lambda: by_row(schema, rows)) / len(rows) * 1e6,
    }
    ours, theirs = took_us.values()
    print_table(
        ("encoder", "us an alert", "noctule is times as fast"),
        [(name, f"{us:.2f}", f"{us / ours:.1f}") for name, us in took_us.items()],
    )
    finish({"us_an_alert": took_us, "times_fastavro": theirs / ours})


def by_row(schema: Any, rows: list[dict[str, Any]]) -> list[bytes]:
    """Return each row as fastavro writes it."""
    values = []
    for row in rows:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, row)
        values.append(body.getvalue())
    return values


def classifications(n: int) -> pa.Table:
    """Return `n` scored alerts with random values."""
    rng = np.random.default_rng(1)
    ends = pa.array(np.arange(n + 1, dtype=np.int32) * N_CLASSES)
    ids = pa.array(np.tile(np.arange(N_CLASSES, dtype=np.int32), n))
    named = pa.StructArray.from_arrays(
        [ids, pa.array(rng.random(n * N_CLASSES))], fields=list(NAMED_PROBABILITIES.value_type)
    )
    columns = {
        Kind.INT64: pa.array(rng.integers(0, 2**62, n)),
        Kind.INT32: pa.array(rng.integers(0, 1000, n).astype(np.int32)),
        Kind.FLOAT64: pa.array(rng.random(n)),
        Kind.TEXT: pa.array([f"{value:016x}" for value in rng.integers(0, 2**62, n)]),
        Kind.CLASS_IDS: pa.array([[111, 221]] * n, pa.list_(pa.int32())),
        Kind.PROBABILITIES: pa.ListArray.from_arrays(ends, named),
    }
    return pa.table({field.name: columns[field.kind] for field in RECORD})


if __name__ == "__main__":
    main()
