"""Rows come through Spark as they were."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import rows
from stream.rows import MESSAGE, PACKED_SCHEMA, ROWS_SCHEMA, pack, padded, unpack

messages = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.just(MESSAGE),
            "topic": st.text(max_size=5),
            "kafka_offset": st.integers(0, 2**63 - 1),
            "packet": st.none() | st.binary(max_size=300),
            "entropy": st.none() | st.floats(allow_nan=False),
            "probabilities": st.none() | st.lists(st.floats(0, 1), max_size=4),
            "prediction_set": st.none() | st.lists(st.integers(0, 999), max_size=3),
        }
    ),
    max_size=40,
)


@settings(deadline=None)
@given(drawn=st.lists(messages, max_size=4), largest=st.sampled_from([1, 500, 1 << 26]))
def test_what_is_packed_comes_out(drawn: list[list[dict[str, object]]], largest: int) -> None:
    batches = [
        batch
        for part in drawn
        for batch in pa.Table.from_pylist(part, schema=ROWS_SCHEMA).to_batches()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_LARGEST_PACK", largest)
        packed = [row for batch in batches for row in pack(batch)]
    table = pa.Table.from_batches(packed, PACKED_SCHEMA)
    assert unpack(table).equals(pa.Table.from_batches(batches, ROWS_SCHEMA))
    if largest == 1:  # none is larger than it has to be
        assert len(packed) == sum(map(len, drawn))


def test_absent_columns_are_null() -> None:
    batch = padded({"kind": pa.array([MESSAGE])}, 1)
    (row,) = unpack(pa.Table.from_batches(pack(batch))).to_pylist()
    assert {name for name, value in row.items() if value is not None} == {"kind"}
