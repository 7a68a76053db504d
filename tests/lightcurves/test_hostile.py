"""Bytes that nobody meant well: a reason or the right value, never a crash, never a neighbour harmed."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightcurves.alerts import read_alerts
from lightcurves.decode import Decoder, packets_of
from lightcurves.reasons import RejectReason
from lightcurves.surveys import LSST
from tests.lightcurves.avro import encode, varint
from tests.lightcurves.conftest import FRAME
from tests.lightcurves.mutations import (
    AT_A_TIME,
    NOCTULE_ALONE_REJECTS,
    compare,
    fastavro_row,
    shortened,
    spoilt,
    try_mutations,
)

REPOSITORY = Path(__file__).parents[2]
N_SPOILT = 100_000
REAL_SEED = 20


def test_a_spoilt_packet_is_rejected_or_read_as_fastavro_reads_it(
    made_up: list[bytes], v10: Any
) -> None:
    told = compare(spoilt(made_up, 4_000, seed=8), v10)
    assert told["equal"] > 300
    assert told["both reject"] > 1_000
    assert told.keys() >= NOCTULE_ALONE_REJECTS - {"bad_length", "too_many_items"}


@pytest.mark.slow
def test_a_hundred_thousand_spoilt_real_packets(real_packets: list[bytes], v10: Any) -> None:
    told = try_mutations(shortened(real_packets, v10), N_SPOILT, REAL_SEED, every=10)
    assert told.total() == N_SPOILT
    assert told["equal"] > 10_000
    assert told["both reject"] > 5_000


def test_a_wrong_block_size_is_refused_though_nobody_needs_it(v10: Any) -> None:
    source_type = next(f for f in v10["fields"] if f["name"] == "diaSource")["type"]
    source = encode(source_type, random.Random(1))
    block = varint(1) + varint(-1) + varint(-7) + source + varint(0)
    packet = body_with(v10, "prvDiaSources", block)
    assert fastavro_row(v10, packet)[0] is not None
    assert read_alerts([packet])["reject_reason"].to_pylist() == ["bad_length"]


def test_every_reason_occurs(made_up: list[bytes]) -> None:
    reasons = set(read_alerts(spoilt(made_up, 4_000, seed=9))["reject_reason"].to_pylist())
    of_the_frame = {"empty_message", "bad_frame", "too_large", "unknown_schema", "unusable_schema"}
    of_the_frame |= {"bad_container", "unreadable_file"}  # files, no packets
    of_the_frame |= {"container_message"}  # test_surveys has it
    of_the_frame |= {"no_id"}  # one id in 2**64; the next test has it
    of_the_frame |= {"bad_symbol"}  # LSST has no enum; test_plan has some
    of_the_frame |= {"failed"}  # a defect of the program, if ever; tests/stream/test_poison has it
    assert reasons - {None} == {str(reason) for reason in RejectReason} - of_the_frame


def test_an_alert_without_an_id_is_rejected(v10: Any, made_up: list[bytes]) -> None:
    smallest = b"\xff" * 9 + b"\x01"  # zig-zag of -2**63, which stands for null here
    packet = packet_with(v10, "diaSourceId", smallest)
    assert read_alerts([packet, made_up[0]])["reject_reason"].to_pylist() == ["no_id", None]


def test_a_spoilt_packet_never_changes_its_neighbours(made_up: list[bytes]) -> None:
    good = [packet for packet in made_up if read_alerts(packet)["reject_reason"][0].as_py() is None]
    alone = {packet: read_alerts(packet).to_pylist()[0] for packet in good}
    chance = random.Random(10)
    batch = []
    for bad in spoilt(made_up, 1_500, seed=11):
        batch += [bad, chance.choice(good)]
    rows = read_alerts(batch).to_pylist()
    assert rows[1::2] == [alone[packet] for packet in batch[1::2]]
    assert [row["reject_reason"] for row in rows[::2]] == (
        read_alerts(batch[::2])["reject_reason"].to_pylist()
    )


def test_a_packet_cut_at_any_byte_is_truncated(made_up: list[bytes]) -> None:
    packet = min(made_up, key=len)
    cuts = [packet[:end] for end in range(5, len(packet))]
    assert set(read_alerts(cuts)["reject_reason"].to_pylist()) <= {"truncated", "too_many_items"}


def test_a_real_packet_cut_anywhere_is_truncated(real_packets: list[bytes]) -> None:
    chance = random.Random(12)
    packets = sorted(real_packets, key=len)[:4]
    cuts = [p[: chance.randrange(5, len(p))] for p in packets for _ in range(25)]
    assert set(read_alerts(cuts)["reject_reason"].to_pylist()) <= {"truncated", "too_many_items"}


def test_a_real_packet_with_a_wrong_byte_stays_among_its_own(real_packets: list[bytes]) -> None:
    chance = random.Random(13)
    good = min(real_packets, key=len)
    expected = read_alerts(good).to_pylist()[0]
    batch = []
    for _ in range(40):
        bad = bytearray(good)
        bad[chance.randrange(5, len(bad))] ^= 1 << chance.randrange(8)
        batch += [bytes(bad), good]
    assert all(row == expected for row in read_alerts(batch).to_pylist()[1::2])


def body_with(v10: Any, name: str, content: bytes) -> bytes:
    """A packet whose field `name` is `content` and whose other nullable fields are null."""
    chance = random.Random(14)
    parts = {"diaSourceId": varint(1), name: content}
    for field in v10["fields"]:
        if field["name"] == "diaSource":
            parts["diaSource"] = encode(field["type"], chance)
    return FRAME + b"".join(parts.get(field["name"], varint(0)) for field in v10["fields"])


BOMBS = {
    "a count of 2**62": (varint(1) + varint(1 << 62), "too_many_items"),
    "the largest count": (varint(1) + varint((1 << 63) - 1), "too_many_items"),
    "the least count": (varint(1) + varint(-(1 << 63)) + varint(5), "too_many_items"),
    "a negative count": (varint(1) + varint(-(1 << 40)) + varint(5), "too_many_items"),
    "a negative block size": (varint(1) + varint(-1) + varint(-5), "bad_length"),
    "one item more than bytes": (varint(1) + varint(500), "too_many_items"),
    "a branch of 2": (varint(2), "bad_union_branch"),
    "a branch of -1": (varint(-1), "bad_union_branch"),
    "a branch of 2**40": (varint(1 << 40), "bad_union_branch"),
    "a branch of 11 bytes": (b"\x80" * 10 + b"\0", "bad_varint"),
    "a branch beyond 64 bits": (b"\xff" * 9 + b"\x02", "bad_varint"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", ["prvDiaSources", "prvDiaForcedSources"])
def test_a_bomb_in_the_history_is_refused_at_once(name: str, bomb: str, v10: Any) -> None:
    content, reason = BOMBS[bomb]
    began = time.monotonic()
    assert read_alerts([body_with(v10, name, content)])["reject_reason"].to_pylist() == [reason]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("length", "reason"),
    [(-1, "bad_length"), (1 << 62, "truncated"), (-(1 << 63), "bad_length"), (10_000, "truncated")],
)
@pytest.mark.parametrize("name", ["observation_reason", "cutoutScience"])
def test_a_wrong_length_is_refused(name: str, length: int, reason: str, v10: Any) -> None:
    packet = body_with(v10, name, varint(1) + varint(length))
    assert read_alerts([packet])["reject_reason"].to_pylist() == [reason]


def test_a_varint_may_be_padded(v10: Any) -> None:
    """The standard does not forbid zeros at the end of a number, up to ten bytes."""
    plain = body_with(v10, "target_name", varint(0))
    padded = FRAME + b"\x82\x80\x80\x80\x80\x80\x80\x80\x80\x00" + plain[6:]
    assert read_alerts([padded]).to_pylist() == read_alerts([plain]).to_pylist()
    padded = body_with(v10, "target_name", b"\x80\x80\x00")
    assert read_alerts([padded]).to_pylist() == read_alerts([plain]).to_pylist()


def packet_with(v10: Any, name: str, content: bytes) -> bytes:
    """A packet whose diaSource has `content` as its field `name`; all else is null where it may be."""
    record = next(f for f in v10["fields"] if f["name"] == "diaSource")["type"]
    parts = [
        content if f["name"] == name
        else b"\0" if isinstance(f["type"], list)
        else encode(f["type"], random.Random(1))
        for f in record["fields"]
    ]  # fmt: skip
    rest = [varint(0)] * (len(v10["fields"]) - 4)
    return FRAME + varint(1) + varint(0) * 2 + b"".join(parts) + b"".join(rest)


def test_a_band_with_a_zero_byte_is_no_band(v10: Any) -> None:
    """Names are kept padded with zeros; "r" and a zero is not "r"."""
    for text in ("r", "r\0", "", "\0", "rr", "12345678", "123456789"):
        packet = packet_with(v10, "band", varint(1) + varint(len(text)) + text.encode())
        row = read_alerts([packet]).to_pylist()[0]
        assert row["reject_reason"] is None
        assert row["band"] == ("r" if text == "r" else None), text


class OneSchema:
    """Knows one schema under every id."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def schema(self, _schema_id: int) -> Any:
        return self._schema


def with_field(v10: Any, kind: Any) -> Decoder:
    return Decoder(OneSchema({**v10, "fields": [*v10["fields"], {"name": "more", "type": kind}]}))


def reason_of(decoder: Decoder, packet: bytes) -> str | None:
    reason: str | None = decoder.decode(packets_of([packet]))["reject_reason"][0].as_py()
    return reason


def test_items_without_bytes_cannot_keep_a_worker_busy(v10: Any) -> None:
    """A null takes no byte: only a limit of its own bounds how many a packet may claim."""
    plain = body_with(v10, "target_name", varint(0))
    nulls = with_field(v10, {"type": "array", "items": "null"})
    assert reason_of(nulls, plain + varint(1_000) + varint(0)) is None
    began = time.monotonic()
    for claim in (varint(1 << 62), varint(1 << 12) + varint(9_999), varint(-(1 << 50)) + varint(0)):
        assert reason_of(nulls, plain + claim + varint(0)) == "too_many_items"
    nested = with_field(v10, {"type": "array", "items": {"type": "array", "items": "null"}})
    many = varint(1 << 11) + varint(0)
    assert reason_of(nested, plain + varint(3) + many * 3 + varint(0)) == "too_many_items"
    assert time.monotonic() - began < 5


def test_a_history_of_items_without_bytes_has_no_rows(v10: Any) -> None:
    """Rows are bounded by bytes; these have none, and once wrote past the arrays' end."""
    empty = {"type": "record", "name": "nothing", "fields": [{"name": "x", "type": "null"}]}
    fields = [
        {**f, "type": ["null", {"type": "array", "items": empty}]}
        if f["name"] == "prvDiaSources"
        else f
        for f in v10["fields"]
    ]
    decoder = Decoder(OneSchema({**v10, "fields": fields}))
    packet = body_with(v10, "prvDiaSources", varint(1) + varint(4_000) + varint(0))
    plain = body_with(v10, "prvDiaSources", varint(0))
    table = decoder.decode(packets_of([plain, packet, plain]))
    assert table["reject_reason"].null_count == 3
    assert table[1:2].to_pylist() == table[:1].to_pylist()


def test_noise_is_never_read(v10: Any) -> None:
    noise = np.random.default_rng(15)
    packets = [FRAME + noise.bytes(int(n)) for n in noise.integers(0, 3_000, 2_000)]
    reasons = Counter(read_alerts(packets)["reject_reason"].to_pylist())
    assert reasons[None] == 0
    assert v10["name"].startswith(LSST.name)


BOUNDS = """
import pickle, sys
from lightcurves.alerts import read_alerts
with open(sys.argv[1], "rb") as file:
    packets = pickle.load(file)
print(read_alerts(packets)["reject_reason"].null_count)
"""


@pytest.fixture
def corpus(made_up: list[bytes], v10: Any, request: pytest.FixtureRequest) -> list[bytes]:
    """Made-up packets and, where there are any, the same real ones as above; good and spoilt."""
    packets = made_up + spoilt(made_up, 3_000, seed=16)
    try:
        real = request.getfixturevalue("real_packets")
    except pytest.skip.Exception:
        return packets
    short = shortened(real, v10)
    for begin in range(0, N_SPOILT, AT_A_TIME):
        packets += spoilt(short, AT_A_TIME, REAL_SEED + begin)
    return packets


@pytest.mark.slow
def test_no_kernel_leaves_its_arrays(corpus: list[bytes], tmp_path: Path) -> None:
    """The same packets with numba's bounds checks on: an access outside is an IndexError."""
    (tmp_path / "packets").write_bytes(pickle.dumps(corpus))
    environment = {
        **os.environ,
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }
    ran = subprocess.run(
        [sys.executable, "-c", BOUNDS, str(tmp_path / "packets")],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert int(ran.stdout) == read_alerts(corpus)["reject_reason"].null_count
