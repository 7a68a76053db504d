"""Decoding real LSST packets on one thread: this decoder beside fastavro, in the same run."""

from __future__ import annotations

import io

import fastavro
import numpy as np

import noctule
from benchmarks.setting import FRAME_BYTES, best_s, finish, real_packets
from lightcurves.decode import Decoder, Packets, decode_columns, packets_of
from lightcurves.plan import Plan
from lightcurves.schemas import package_schemas


def main() -> None:
    """Run and print."""
    packets = real_packets()
    schemas = package_schemas()
    schema = schemas.schema(1000)
    plan = Decoder(schemas).plan(1000)
    assert schema is not None
    assert isinstance(plan, Plan)
    laid = packets_of(packets)
    words = laid.data[: laid.data.size // 8 * 8].view(np.uint64)
    bodies = Packets(laid.data, laid.starts + FRAME_BYTES, laid.ends)

    def fastavro_full() -> None:
        for packet in packets:
            fastavro.schemaless_reader(io.BytesIO(packet[FRAME_BYTES:]), schema, None)

    ms = {
        "fastavro, full decode": best_s(fastavro_full, 2),
        "noctule.read_alerts, table and light-curve rules included": best_s(
            lambda: noctule.read_alerts(packets)
        ),
        "the bare decode into columns": best_s(lambda: decode_columns(plan, bodies)),
        "a plain pass over the bytes": best_s(lambda: np.bitwise_xor.reduce(words)),
    }
    baseline = ms["fastavro, full decode"]
    for name, seconds in ms.items():
        each, rate = 1e3 * seconds / len(packets), laid.data.size / seconds / 1e6
        print(f"{name:60} {each:8.3f} ms a packet {rate:8.0f} MB/s {baseline / seconds:7.1f} x")
    finish({name: seconds / len(packets) for name, seconds in ms.items()})


if __name__ == "__main__":
    main()
