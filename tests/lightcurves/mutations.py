"""Real packets with bytes changed: decoded as fastavro decodes them, or rejected; never accepted alone.

``python -m tests.lightcurves.mutations 1000000`` tries as many and counts what came of them; the
tests try a tenth. The packets are real ones, shortened (few history rows, small cutouts), so that
fastavro takes a tenth of a millisecond for each and a changed byte hits a value that is looked at.
"""

from __future__ import annotations

import io
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import fastavro

from benchmarks.setting import real_packets
from lightcurves.alerts import read_alerts
from lightcurves.schemas import package_schemas
from tests.lightcurves.avro import decode, varint
from tests.lightcurves.twin import row_of

FRAME = b"\0" + (1000).to_bytes(4, "big")
AT_A_TIME = 2_000

# Where fastavro says another thing than noctule, and why; anything else is a bug.
NOCTULE_ALONE_REJECTS = {
    "trailing_bytes",  # fastavro's schemaless reader stops after the last field
    "bad_varint",  # fastavro drops the bits that do not fit 64
    "bad_union_branch",  # fastavro takes a negative branch as Python's index from the end
    "bad_length",  # fastavro does not look at the size of a block
    "too_many_items",  # fastavro takes a count of -2**63, whose negative is no integer, for none
}
FASTAVRO_ALONE_REJECTS = {
    "OverflowError",  # fastavro makes datetimes of timestamps that nobody asked for
    "ValueError",  # the same
}


def mutated(packet: bytes, chance: random.Random) -> bytes:
    """A packet with some bytes changed, cut off, left out or put in; its frame stays."""
    body = bytearray(packet[5:])
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(6):
            case 0:
                del body[at:]
            case 1:
                del body[at : at + chance.randint(1, 9)]
            case 2:
                body[at:at] = chance.randbytes(chance.randint(1, 9))
            case 3:
                body[at : at + 1] = chance.choice(
                    (b"\xff", b"\x7f", b"\x80", b"\0", b"\1", b"\x03")
                )
            case 4:
                body[at : at + 1] = bytes([chance.randrange(256)])
            case _:
                body[at:at] = varint(chance.choice((1, -1)) * (1 << chance.randint(0, 70)))
    return FRAME + bytes(body)


def spoilt(packets: list[bytes], n: int, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    return [mutated(chance.choice(packets), chance) for _ in range(n)]


def fastavro_row(schema: Any, packet: bytes) -> tuple[dict[str, Any] | None, str]:
    """The row that fastavro's values make, or the name of its error."""
    try:
        return row_of(decode(schema, packet[5:])), ""
    except Exception as error:  # noqa: BLE001 - fastavro has no error of its own for bad bytes
        return None, type(error).__name__


def compare(packets: list[bytes], schema: Any, every: int = 1) -> Counter[str]:
    """Decode with both; count what both said, stop where noctule must not say it.

    Of what noctule rejects, fastavro is asked about one in `every`: that it would read it.
    """
    told: Counter[str] = Counter()
    for number, (packet, row) in enumerate(
        zip(packets, read_alerts(packets).to_pylist(), strict=True)
    ):
        if row["reject_reason"] is not None and number % every:
            told["rejected"] += 1
            continue
        expected, error = fastavro_row(schema, packet)
        reason = row["reject_reason"]
        if expected is None and reason is None:
            assert error in FASTAVRO_ALONE_REJECTS, packet.hex()
            told[error] += 1
        elif expected is None or row == expected:
            told["equal" if expected else "both reject"] += 1
        else:
            assert reason in NOCTULE_ALONE_REJECTS, packet.hex()
            told[reason] += 1
    return told


def shortened(packets: list[bytes], schema: Any) -> list[bytes]:
    """The packets with at most two rows of each history and the first bytes of the cutouts."""
    short = []
    for packet in packets:
        record = decode(schema, packet[5:])
        for name in ("prvDiaSources", "prvDiaForcedSources"):
            record[name] = record[name] and record[name][-2:]
        for name in ("cutoutDifference", "cutoutScience", "cutoutTemplate"):
            record[name] = record[name] and record[name][:8]
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, record)
        short.append(FRAME + buffer.getvalue())
    return short


def try_mutations(
    packets: list[bytes],
    n: int,
    seed: int,
    *,
    every: int = 1,
    tell: Callable[[int], None] = lambda _: None,
) -> Counter[str]:
    """Compare `n` mutations of `packets`, some at a time."""
    schema = package_schemas().schema(1000)
    told: Counter[str] = Counter()
    for begin in range(0, n, AT_A_TIME):
        told += compare(spoilt(packets, min(AT_A_TIME, n - begin), seed + begin), schema, every)
        tell(begin)
    return told


def main(n: int) -> None:
    began = time.monotonic()

    def tell(done: int) -> None:
        print(f"\r{done} of {n}, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)

    packets = shortened(real_packets(), package_schemas().schema(1000))
    told = try_mutations(packets, n, 0, tell=tell)
    print(f"\r{n} mutations of {len(packets)} real packets:", file=sys.stderr)
    for what, count in told.most_common():
        print(f"{count:9}  {what}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
