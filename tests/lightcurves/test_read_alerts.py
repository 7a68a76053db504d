"""Packets to rows: every value is fastavro's, in whatever form the packets come."""

from __future__ import annotations

import gc
import io
import random
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcurves import alerts, decode
from lightcurves.alerts import framed_packets, read_alerts, schema_id_of
from lightcurves.decode import ALERT_SCHEMA, CUTOUT_SCHEMA, Decoder, packets_in_place, packets_of
from lightcurves.errors import ConfigurationError
from lightcurves.plan import compile_plan
from lightcurves.schemas import package_schemas
from lightcurves.surveys import LSST
from tests.lightcurves.avro import decode as fastavro_value
from tests.lightcurves.avro import encode
from tests.lightcurves.twin import rejected, row_of

SMALL = [
    b"\0\0\0\3\xe8" + encode(package_schemas().schema(1000), random.Random(seed))
    for seed in range(12)
]
VERSIONS = (500, 600, 601, 700, 701, 702, 703, 704, 800, 900, 1000, 1100, 1101)
NOISE = [b"", b"\0\0", b"\0\0\0\0\7 nobody's", SMALL[0][:-3], SMALL[1] + b"\0", b"Obj"]


def test_real_packets_are_read_as_fastavro_reads_them(
    real_file: Path, real_records: list[Any]
) -> None:
    table = read_alerts(real_file)
    assert table.schema == ALERT_SCHEMA
    assert table.num_rows == len(real_records) == 64
    for row, record in zip(table.to_pylist(), real_records, strict=True):
        assert row == row_of(record)
    points = [point for curve in table["light_curve"].to_pylist() for point in curve]
    assert len(points) > 20_000
    assert {point["kind"] for point in points} == {"forced", "source", "alert"}


def test_made_up_packets_are_read_as_fastavro_reads_them(made_up: list[bytes], v10: Any) -> None:
    expected = [row_of(fastavro_value(v10, packet[5:])) for packet in made_up]
    assert read_alerts(made_up).to_pylist() == expected
    lengths = [len(row["light_curve"]) for row in expected if row["light_curve"]]
    assert sum(length > 2 for length in lengths) > 10


def test_every_version_of_the_schema_is_read_as_fastavro_reads_it() -> None:
    """From 5.0, whose visits have no number yet, in one batch."""
    packets, expected = [], []
    for number in range(15):
        for schema_id in VERSIONS:
            schema = package_schemas().schema(schema_id)
            body = encode(schema, random.Random(number))
            packets.append(b"\0" + schema_id.to_bytes(4, "big") + body)
            expected.append(row_of(fastavro_value(schema, body), schema_id))
    assert read_alerts(packets).to_pylist() == expected


def test_a_version_without_a_field_that_is_needed_names_all_three() -> None:
    schema = package_schemas().schema(300)
    with pytest.raises(ConfigurationError, match=r"lsst\.v3_0\.alert lacks .*diaSource\.psfFlux"):
        compile_plan(schema, LSST)
    assert read_alerts([b"\0" + (300).to_bytes(4, "big") + b"x"])["reject_reason"].to_pylist() == [
        "unusable_schema"
    ]


def test_every_form_of_the_real_packets_gives_the_same_table(
    real_file: Path, real_packets: list[bytes], tmp_path: Path
) -> None:
    expected = read_alerts(real_packets)
    folder = tmp_path / "packets"
    for number, packet in enumerate(real_packets):
        file = folder / f"{number // 10}" / f"{number:03}.avro"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(packet)
    padded = [b"before", *real_packets, b"after"]
    forms = {
        "path": real_file,
        "text": str(real_file),
        "bytes": real_file.read_bytes(),
        "binary": pa.array(real_packets, pa.binary()),
        "large binary": pa.array(real_packets, pa.large_binary()),
        "a slice": pa.array(padded, pa.binary())[1:-1],
        "a large slice": pa.array(padded, pa.large_binary())[1:-1],
        "folder": folder,
    }
    for name, form in forms.items():
        assert read_alerts(form).equals(expected), name
    assert list(framed_packets(folder)) == list(framed_packets(real_file)) == real_packets
    single = pa.concat_tables([read_alerts(packet) for packet in real_packets[:3]])
    assert single.equals(expected[:3])


def test_a_folder_may_hold_containers_and_packets(v10: Any, tmp_path: Path) -> None:
    records = [fastavro_value(v10, packet[5:]) for packet in SMALL[:5]]
    for codec in ("null", "deflate"):
        buffer = io.BytesIO()
        fastavro.writer(buffer, v10, records[:4], codec=codec, sync_interval=1_000)
        (tmp_path / f"a-{codec}.avro").write_bytes(buffer.getvalue())
    (tmp_path / "b.avro").write_bytes(SMALL[4])
    rows = [row_of(record) for record in records]
    assert read_alerts(tmp_path).to_pylist() == [*rows[:4], *rows[:4], rows[4]]


@given(
    order=st.permutations(range(len(SMALL + NOISE))),
    cuts=st.lists(st.integers(0, len(SMALL + NOISE)), max_size=4).map(sorted),
    large=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_rows_depend_on_no_order_and_no_split(
    order: list[int], cuts: list[int], *, large: bool
) -> None:
    alone = [read_alerts([packet]).to_pylist()[0] for packet in SMALL + NOISE]
    packets = [(SMALL + NOISE)[at] for at in order]
    column = pa.array(packets, pa.large_binary() if large else pa.binary())
    bounds = [0, *cuts, len(packets)]
    rows = []
    for low, high in pairwise(bounds):
        rows += read_alerts(column[low:high]).to_pylist()
    assert rows == [alone[at] for at in order]
    assert read_alerts(packets).to_pylist() == rows


def test_a_large_batch_is_worked_off_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_alerts(SMALL + NOISE).to_pylist()
    monkeypatch.setattr(decode, "CHUNK_BYTES", 1_500)
    packets = packets_of(SMALL + NOISE)
    assert len(decode._chunks(packets)) > 4
    assert Decoder(package_schemas()).decode(packets).to_pylist() == whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*SMALL, *NOISE, b"", SMALL[0][:40]]), max_size=30))
def test_messages_are_read_where_they_lie(messages: list[bytes]) -> None:
    """Copies are scattered over the heap, and only what was laid out keeps them alive."""
    decoder = Decoder(package_schemas())
    expected = decoder.decode(packets_of(messages))
    laid = packets_in_place([bytes(bytearray(message)) for message in messages])
    gc.collect()
    assert decoder.decode(laid).equals(expected)
    ends = laid.starts + np.minimum(laid.ends - laid.starts, 3)  # cut short: never read beyond
    cut = decoder.decode(laid._replace(ends=ends))
    assert cut.equals(decoder.decode(packets_of([message[:3] for message in messages])))


@pytest.mark.parametrize(
    "nothing", [[], pa.array([], pa.binary()), pa.array([], pa.large_binary())]
)
def test_no_packets_are_an_empty_table(nothing: Any) -> None:
    assert read_alerts(nothing).equals(ALERT_SCHEMA.empty_table())


def test_an_empty_folder_is_an_empty_table(tmp_path: Path) -> None:
    assert read_alerts(tmp_path).equals(ALERT_SCHEMA.empty_table())


def test_a_null_message_is_empty_whatever_lies_below_it() -> None:
    values = pa.array([SMALL[0], SMALL[2], SMALL[5]], pa.binary())
    mask = pa.array([True, False, True]).buffers()[1]
    column = pa.Array.from_buffers(pa.binary(), 3, [mask, *values.buffers()[1:]])
    assert column.null_count == 1
    reasons = read_alerts(column)["reject_reason"].to_pylist()
    assert reasons == [None, "empty_message", None]
    assert read_alerts(pa.nulls(2, pa.binary()))["reject_reason"].to_pylist() == [reasons[1]] * 2


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "empty_message"),
        (b"\0", "bad_frame"),
        (b"\0\0\0\3", "bad_frame"),
        (b"\1" + SMALL[0][1:], "bad_frame"),
        (b"\0\0\0\3\xe8", "truncated"),
        (b"\0\0\0\0\1" + SMALL[0][5:], "unknown_schema"),
        (b"\0\xff\xff\xff\xff" + SMALL[0][5:], "unknown_schema"),
        (SMALL[0][:-1], "truncated"),
        (SMALL[0] + b"\0", "trailing_bytes"),
    ],
)
def test_a_packet_that_cannot_be_read_is_a_row_with_its_reason(packet: bytes, reason: str) -> None:
    assert read_alerts([packet]).to_pylist() == [rejected(reason)]
    assert read_alerts(packet).to_pylist() == [rejected(reason)]
    between = read_alerts([SMALL[0], packet, SMALL[2]]).to_pylist()
    assert between == [*read_alerts(SMALL[:1]).to_pylist(), rejected(reason),
                       *read_alerts(SMALL[2:3]).to_pylist()]  # fmt: skip


def test_a_packet_above_the_limit_is_not_looked_at() -> None:
    length = len(SMALL[0])
    for limit, reasons in ((length, [None]), (length - 1, ["too_large"])):
        decoder = Decoder(package_schemas(), max_packet_bytes=limit)
        assert decoder.decode(packets_of(SMALL[:1]))["reject_reason"].to_pylist() == reasons


def test_an_alert_without_a_time_is_rejected(v10: Any) -> None:
    record = fastavro_value(v10, SMALL[0][5:])
    for t in (float("nan"), float("inf"), -float("inf")):
        record["diaSource"]["midpointMjdTai"] = t
        buffer = io.BytesIO(SMALL[0][:5])
        buffer.seek(5)
        fastavro.schemaless_writer(buffer, v10, record)
        assert read_alerts(buffer.getvalue()).to_pylist() == [rejected("no_time")]


def test_identifiers_are_exact() -> None:
    """A double holds 53 bits of the 63 that identifiers have."""
    ids = read_alerts(SMALL)["dia_source_id"].to_pylist()
    assert any(name is not None and int(float(name)) != name for name in ids)


def test_nothing_at_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no alert file or folder at .*nowhere"):
        read_alerts(tmp_path / "nowhere")


def container(schema: Any, records: list[Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, records)
    return buffer.getvalue()


def test_a_container_of_another_schema_says_what_it_lacks(tmp_path: Path) -> None:
    other = {"type": "record", "name": "x", "fields": [{"name": "diaSourceId", "type": "long"}]}
    file = tmp_path / "other.avro"
    file.write_bytes(container(other, [{"diaSourceId": 1}]))
    for read in (read_alerts, lambda path: list(framed_packets(path))):
        with pytest.raises(
            ConfigurationError, match=r"no survey's alert: it has no field that lsst"
        ):
            read(file)


def test_a_container_whose_schema_has_no_id_is_read_but_not_framed(
    v10: Any, tmp_path: Path
) -> None:
    record = fastavro_value(v10, SMALL[0][5:])
    file = tmp_path / "mine.avro"
    file.write_bytes(container({**v10, "name": "mine"}, [record]))
    assert read_alerts(file).to_pylist() == [{**row_of(record), "schema_id": None}]
    with pytest.raises(ConfigurationError, match="none of Rubin's alert schemas"):
        list(framed_packets(file))
    assert schema_id_of({"name": "lsst.v12_3.alert"}) == 1203


def test_a_container_with_any_wrong_byte_is_read_or_refused(v10: Any) -> None:
    """Never another exception, and never the memory that a wrong count asks for."""
    chance = random.Random(4)
    records = [fastavro_value(v10, packet[5:]) for packet in SMALL[:4]]
    buffer = io.BytesIO()
    fastavro.writer(buffer, v10, records, codec="deflate")
    outcomes = set()
    for good in (container(v10, records), buffer.getvalue()):
        for _ in range(400):
            bad = bytearray(good)
            data_begins = good.rindex(b"avro.codec")
            at = chance.randrange(*chance.choice(((4, data_begins), (data_begins, len(bad)))))
            bad[at] = chance.randrange(256)
            if chance.random() < 0.2:
                del bad[at:]
            try:
                read_alerts(bytes(bad))
                outcomes.add("read")
            except ConfigurationError as error:
                assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_block_that_claims_a_million_million_records_is_refused(v10: Any) -> None:
    good = container(v10, [fastavro_value(v10, SMALL[0][5:])])
    sync = good[-16:]
    head = good[: good.index(sync) + 16]
    for claim in (b"\x80" * 5 + b"\x7f", b"\x03"):
        block = claim + b"\x02" + b"\0" + sync
        with pytest.raises(ConfigurationError, match="broken Avro container"):
            read_alerts(head + block)


def test_a_block_cannot_claim_more_records_than_its_bytes_hold(v10: Any) -> None:
    """A record of LSST has 143 bytes at least: a small compressed file would make a large table."""
    good = container(v10, [fastavro_value(v10, SMALL[0][5:])])
    sync = good[-16:]
    head = good[: good.index(sync) + 16]
    least = compile_plan(v10, LSST).min_packet_bytes
    body = bytes(10 * least)
    for claim in (10, 11):
        block = len_varint(claim) + len_varint(len(body)) + body + sync
        if claim == 10:
            assert read_alerts(head + block).num_rows == claim
        else:
            with pytest.raises(ConfigurationError, match="11 records in"):
                read_alerts(head + block)


def test_a_broken_container_stops_no_other_file_of_its_folder(v10: Any, tmp_path: Path) -> None:
    records = [fastavro_value(v10, packet[5:]) for packet in SMALL[:3]]
    buffer = io.BytesIO()
    writer = fastavro.write.Writer(buffer, v10)
    for record in records:
        writer.write(record)
        writer.dump()
    whole = buffer.getvalue()
    other = {"type": "record", "name": "x", "fields": [{"name": "diaSourceId", "type": "long"}]}
    contents = {
        "a-whole.avro": whole,
        "b-cut.avro": whole[:-30],
        "c-header.avro": whole[:40],
        "d-other.avro": container(other, [{"diaSourceId": 1}]),
        "e-packet.avro": SMALL[3],
        "f-noise.txt": b"notes",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    rows = [row_of(record) for record in records]
    expected = [
        *rows,
        *rows[:2],
        rejected("bad_container"),
        rejected("bad_container"),
        rejected("unusable_schema"),
        *read_alerts(SMALL[3]).to_pylist(),
        rejected("bad_frame"),
    ]
    assert read_alerts(tmp_path).to_pylist() == expected
    with_cutouts = read_alerts(tmp_path, cutouts=True)
    assert with_cutouts.drop_columns(list(with_cutouts.column_names[-3:])).to_pylist() == expected
    for name in ("b-cut.avro", "c-header.avro"):
        with pytest.raises(ConfigurationError, match="broken Avro container"):
            read_alerts(tmp_path / name)


def test_a_container_of_a_strange_codec_or_version_breaks_nothing(v10: Any) -> None:
    record = fastavro_value(v10, SMALL[0][5:])
    good = container(v10, [record])
    other = good.replace(b"avro.codec\x08null", b"avro.codec\x04xz")
    assert other != good
    with pytest.raises(ConfigurationError, match="broken Avro container"):
        read_alerts(other)
    for name in ("lsst.v99999999999999999999_0.alert", "lsst.v1_100.alert", "lsst.v\u0661_0.alert"):
        assert schema_id_of({"name": name}) is None
    strange = container({**v10, "name": "lsst.v" + "9" * 5_000 + "_0.alert"}, [record])
    assert read_alerts(strange)["schema_id"].to_pylist() == [None]


def test_only_binary_arrays_are_packets() -> None:
    expected = read_alerts(SMALL)
    assert read_alerts(pa.array(SMALL, pa.binary_view())).equals(expected)
    for other in (pa.array(["text"]), pa.array([1]), pa.array([b"four"], pa.binary(4)), (b"", b"")):
        with pytest.raises(ConfigurationError, match="packets must be"):
            read_alerts(other)


def test_a_path_that_no_system_takes_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read|no alert file or folder"):
        read_alerts("x" * 300)


def test_a_file_that_vanished_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.avro").write_bytes(SMALL[0])
    (tmp_path / "b.avro").write_bytes(SMALL[1])
    real = Path.read_bytes

    def gone(path: Path) -> bytes:
        if path.name == "a.avro":
            raise FileNotFoundError(2, "No such file")
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", gone)
        rows = read_alerts(tmp_path).to_pylist()
    assert rows == [rejected("unreadable_file"), *read_alerts(SMALL[1]).to_pylist()]


def test_a_broken_record_in_a_container_is_a_row_but_cannot_be_cut_out(
    v10: Any, tmp_path: Path
) -> None:
    record = fastavro_value(v10, SMALL[0][5:])
    good = container(v10, [record, record])
    sync = good[-16:]
    body = SMALL[0][5:]
    bad = body[:8] + b"\x7f" * 30  # no boolean, no branch, no length makes sense of it
    head = good[: good.index(sync) + 16]
    block = b"\x04" + len_varint(len(body + bad)) + body + bad + sync
    rows = read_alerts(head + block).to_pylist()
    assert rows[0] == row_of(record)
    assert rows[1]["reject_reason"] is not None
    assert rows[1] == rejected(rows[1]["reject_reason"])
    (tmp_path / "bad.avro").write_bytes(head + block)
    with pytest.raises(ConfigurationError, match="a record of this container"):
        list(framed_packets(tmp_path))


def len_varint(value: int) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, "long", value)
    return buffer.getvalue()


def test_cutouts_are_read_where_they_are_asked_for(
    real_file: Path, real_packets: list[bytes], real_records: list[Any]
) -> None:
    names = {f"cutout_{name.lower()}": f"cutout{name}" for name in CUTOUTS}
    for source in (real_file, [b"", *real_packets, b"no packet"]):
        table = read_alerts(source, cutouts=True)
        assert table.drop_columns(list(names)).equals(read_alerts(source))
        assert table.column_names[-3:] == list(names)
        framed = isinstance(source, list)
        for column, name in names.items():
            expected = [record[name] for record in real_records]
            assert table[column].to_pylist() == ([None, *expected, None] if framed else expected)


CUTOUTS = ("Difference", "Science", "Template")


@pytest.mark.parametrize("source", [[], [b""], [b"no packet", b""]])
def test_cutouts_have_their_columns_where_nothing_is_read(source: list[bytes]) -> None:
    table = read_alerts(source, cutouts=True)
    assert table.schema == CUTOUT_SCHEMA
    assert table.schema.metadata == ALERT_SCHEMA.metadata
    assert table.num_rows == len(source)


def test_a_survey_without_cutouts_has_null_for_them() -> None:
    packets = packets_of(SMALL)
    plain = Decoder(package_schemas(), replace(LSST, cutouts=()), cutouts=True).decode(packets)
    assert plain.schema == CUTOUT_SCHEMA
    assert plain["cutout_science"].null_count == len(SMALL)


def test_a_record_that_cannot_be_read_costs_its_own_block_at_most(
    v10: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records lie without lengths: behind a bad one the next block is the first that is found."""
    records = [fastavro_value(v10, packet[5:]) for packet in SMALL[:6]]
    for record in records:
        record["observation_reason"] = "a marked reason"
    buffer = io.BytesIO()
    writer = fastavro.write.Writer(buffer, v10, sync_interval=1 << 30)
    for number, record in enumerate(records):
        writer.write(record)
        if number % 2:
            writer.dump()  # two records a block
    writer.flush()
    file = tmp_path / "six.avro"
    file.write_bytes(buffer.getvalue())
    expected = read_alerts(file).to_pylist()
    assert [row["reject_reason"] for row in expected] == [None] * 6
    marks = [match.start() for match in re.finditer(b"a marked reason", buffer.getvalue())]
    spoilt = bytearray(buffer.getvalue())
    spoilt[marks[2] - 2] = 8  # the union's branch, before the length of the text
    file.write_bytes(spoilt)
    for at_a_time in (1, 1 << 25):
        monkeypatch.setattr(alerts, "CHUNK_BYTES", at_a_time)
        rows = read_alerts(file).to_pylist()
        assert rows[:2] + rows[4:] == expected[:2] + expected[4:]
        assert [row["reject_reason"] for row in rows[2:4]] == ["bad_union_branch", "truncated"]
