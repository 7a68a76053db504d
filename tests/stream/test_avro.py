"""Columns into Avro: fastavro's bytes, whatever stands in them."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.avro import encode
from stream.messages import CLASSIFICATION, DESC, LABEL_REQUEST, MessageSchema

LONG = st.integers(-(2**63), 2**63 - 1)
INT = st.integers(-(2**31), 2**31 - 1)
DOUBLE = st.floats(allow_nan=True, width=64)
FLOAT = st.floats(allow_nan=False, width=32)
TEXT = st.text(max_size=40)
BOTH = st.fixed_dictionaries({"classId": INT, "probability": DOUBLE})
INNER = {
    "type": "record",
    "name": "Both",
    "fields": [{"name": "classId", "type": "int"}, {"name": "probability", "type": "double"}],
}
KINDS: dict[str, tuple[Any, pa.DataType, st.SearchStrategy[Any]]] = {
    "long": ("long", pa.int64(), LONG),
    "int": ("int", pa.int32(), INT),
    "stamp": ({"type": "long", "logicalType": "timestamp-millis"}, pa.int64(), LONG),
    "double": ("double", pa.float64(), DOUBLE),
    "float": ("float", pa.float64(), FLOAT),
    "string": ("string", pa.string(), TEXT),
    "ints": ({"type": "array", "items": "int"}, pa.list_(pa.int32()), st.lists(INT, max_size=5)),
    "records": (
        {"type": "array", "items": INNER},
        pa.list_(pa.struct([("classId", pa.int32()), ("probability", pa.float64())])),
        st.lists(BOTH, max_size=5),
    ),
}


def fastavros(schema: Any, row: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.schema.parse_schema(schema), row)
    return body.getvalue()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_rows_are_fastavros_bytes(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    nullable = [data.draw(st.booleans()) for _ in names]
    fields, arrow, drawn = [], [], []
    for k, (name, may_be_null) in enumerate(zip(names, nullable, strict=True)):
        kind, arrow_type, values = KINDS[name]
        kind = json.loads(json.dumps(kind).replace('"Both"', f'"Both{k}"'))
        fields.append({"name": f"f{k}", "type": ["null", kind] if may_be_null else kind})
        arrow.append((f"f{k}", arrow_type))
        drawn.append(st.none() | values if may_be_null else values)
    schema = {"type": "record", "name": "Row", "fields": fields}
    row = st.fixed_dictionaries({f"f{k}": values for k, values in enumerate(drawn)})
    rows = data.draw(st.lists(row, max_size=6))
    table = pa.Table.from_pylist(rows, schema=pa.schema(arrow))
    low = data.draw(st.integers(0, len(rows)))
    encoded = encode(schema, table[low:], b"\0frame").to_pylist()
    plain = json.loads(json.dumps(schema).replace(', "logicalType": "timestamp-millis"', ""))
    assert encoded == [b"\0frame" + fastavros(plain, row) for row in rows[low:]]


@pytest.mark.parametrize("schema", [CLASSIFICATION, LABEL_REQUEST, DESC], ids=lambda s: s.file)
def test_every_schema_of_ours_can_be_encoded(schema: MessageSchema) -> None:
    record = json.loads(schema.text)
    columns = [(f["name"], arrow_of(f["type"])) for f in record["fields"]]
    assert encode(record, pa.schema(columns).empty_table()).to_pylist() == []


def arrow_of(kind: Any) -> pa.DataType:
    kind = kind[1] if isinstance(kind, list) else kind
    told = kind["type"] if isinstance(kind, dict) else kind
    if told == "array":
        items = kind["items"]
        if isinstance(items, dict):
            inner = pa.struct([(f["name"], arrow_of(f["type"])) for f in items["fields"]])
            return pa.list_(inner)
        return pa.list_(arrow_of(items))
    return {"long": pa.int64(), "int": pa.int32(), "string": pa.string()}.get(told, pa.float64())


def test_what_cannot_be_said_is_refused_by_name() -> None:
    def of(kind: Any) -> dict[str, Any]:
        return {"type": "record", "name": "Row", "fields": [{"name": "x", "type": kind}]}

    with pytest.raises(ValueError, match="x is null in 1 rows"):
        encode(of("long"), pa.table({"x": pa.array([1, None], pa.int64())}))
    with pytest.raises(ValueError, match="Avro's bytes is not supported"):
        encode(of("bytes"), pa.table({"x": [b"a"]}))
    with pytest.raises(ValueError, match="union"):
        encode(of(["string", "null"]), pa.table({"x": ["a"]}))
    with pytest.raises(KeyError, match="x"):
        encode(of("long"), pa.table({"y": [1]}))
