"""Decoding LSST packets on one thread: noctule beside fastavro and other readers, in one run.

The other readers take part where they are importable, see :mod:`benchmarks.readers`: install them
into a folder of their own and name it in PYTHONPATH.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fastavro
import numpy as np

import noctule
from benchmarks.readers import compare_readers, projected, written_out
from benchmarks.setting import (
    FRAME_BYTES,
    ROOT,
    data_folder,
    finish,
    peak_mb,
    print_table,
    real_packets,
    shortest_s,
)
from lightcurves.decode import Decoder, Packets, decode_columns, packets_of
from lightcurves.plan import Plan
from lightcurves.schemas import package_schemas
from lightcurves.surveys import LSST

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA_ID: Final = 1000
FASTAVRO: Final = "fastavro, full decode"
READ_ALERTS: Final = "noctule.read_alerts, table and light-curve rules included"
BARE: Final = "the bare decode into columns"

HISTORY_ROWS: Final = (0, 10, 100, 1_000, 10_000)
STORED_COLUMNS: Final = len(LSST.histories[0].columns)
BATCH_BYTES: Final = 16 << 20


def main() -> None:
    """Run and print."""
    packets = real_packets()
    schema = package_schemas().schema(SCHEMA_ID)
    plan = Decoder(package_schemas()).plan(SCHEMA_ID)
    assert isinstance(plan, Plan)
    real = real_packets_s(packets, schema, plan)
    sizes = {rows: history_size(packets, schema, plan, rows) for rows in HISTORY_ROWS}
    print_sizes(sizes)
    bodies = bodies_of(packets)
    rows = int(decode_columns(plan, bodies).offsets[-1]) - len(packets)
    ones = {
        "s of the bare decode for a kept value": real[BARE] * len(packets) / rows / STORED_COLUMNS,
        "times faster with two threads": two_threads(plan, bodies),
    }
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        ones |= start_s(packets[1], Path(name))
        print("".join(f"{value:10.3g} {what}\n" for what, value in ones.items()))
        readers = compare_readers(packets, schema, Path(name), real[FASTAVRO])
    finish({**real, **ones, "rows of history": sizes, "readers": readers})


def bodies_of(packets: list[bytes]) -> Packets:
    """Lay packets out as the bare decode wants them: without frames."""
    laid = packets_of(packets)
    return Packets(laid.data, laid.starts + FRAME_BYTES, laid.ends)


def fastavro_all(packets: list[bytes], schema: Any, reader_schema: Any = None) -> None:
    """Decode every packet into Python objects."""
    for packet in packets:
        fastavro.schemaless_reader(io.BytesIO(packet[FRAME_BYTES:]), schema, reader_schema)


def works_of(packets: list[bytes], schema: Any, plan: Plan) -> dict[str, Callable[[], Any]]:
    """Return what is compared at every size."""
    bodies = bodies_of(packets)
    return {
        FASTAVRO: lambda: fastavro_all(packets, schema),
        READ_ALERTS: lambda: noctule.read_alerts(packets),
        BARE: lambda: decode_columns(plan, bodies),
    }


def real_packets_s(packets: list[bytes], schema: Any, plan: Plan) -> dict[str, float]:
    """Print the table of the real packets; return seconds a packet."""
    spelled = written_out(schema)
    wanted = projected(spelled, LSST.tree())
    data = packets_of(packets).data
    words = data[: data.size // 8 * 8].view(np.uint64)
    works = works_of(packets, schema, plan)
    works = {
        FASTAVRO: works.pop(FASTAVRO),
        "fastavro, the wanted fields by a reader schema": lambda: fastavro_all(
            packets, spelled, wanted
        ),
        **works,
        "noctule.read_alerts of their file as it comes, deflated": lambda: noctule.read_alerts(
            data_folder() / "lsst" / "real_v10_0.avro"
        ),
        "a plain pass over the bytes": lambda: np.bitwise_xor.reduce(words),
    }
    results = {name: shortest_s(work) / len(packets) for name, work in works.items()}
    mean_mb = data.size / len(packets) / 1e6
    rows = [
        (name, f"{1e3 * s:.3f}", f"{mean_mb / s:,.0f}", f"{results[FASTAVRO] / s:,.1f}")
        for name, s in results.items()
    ]
    print_table(("the real packets", "ms a packet", "MB/s", "x fastavro"), rows)
    return results


def history_size(packets: list[bytes], schema: Any, plan: Plan, rows: int) -> dict[str, Any]:
    """Time and weigh packets with a history of `rows` rows."""
    packet = with_history(max(packets, key=len), schema, rows)
    batch = [packet] * min(64, BATCH_BYTES // len(packet))
    one = works_of([packet], schema, plan)
    results: dict[str, Any] = {"packet_mb": len(packet) / 1e6}
    for name, work in works_of(batch, schema, plan).items():
        results[name] = {"s": shortest_s(work, 1.0) / len(batch), "peak_mb": peak_mb(one[name])}
    columns = decode_columns(plan, bodies_of([packet]))
    assert columns.offsets[-1] == rows + 1  # and the alert's own source
    return results


def with_history(packet: bytes, schema: Any, rows: int) -> bytes:
    """Return the packet with its earlier sources cut or repeated to `rows`, and no forced ones.

    Each repeat lies a year before the last, so that times ascend and no visit comes twice.
    """
    alert: Any = fastavro.schemaless_reader(io.BytesIO(packet[FRAME_BYTES:]), schema, None)
    real = alert["prvDiaSources"]
    history = []
    for number in range(rows):
        years, place = divmod(number, len(real))
        row = real[-1 - place]
        t_mjd_tai, visit = row["midpointMjdTai"] - 365.0 * years, row["visit"] - 10**10 * years
        history.append({**row, "midpointMjdTai": t_mjd_tai, "visit": visit})
    out = io.BytesIO()
    changed = {**alert, "prvDiaSources": history[::-1], "prvDiaForcedSources": []}
    fastavro.schemaless_writer(out, schema, changed)
    return packet[:FRAME_BYTES] + out.getvalue()


def print_sizes(sizes: dict[int, dict[str, Any]]) -> None:
    """Print time, rate, ratio and memory of every size."""
    head = ("rows of history", "KB", "decoder", "us a packet", "MB/s", "x fastavro", "peak MB")
    short = {FASTAVRO: "fastavro", READ_ALERTS: "read_alerts", BARE: "bare"}
    table = [
        (
            f"{rows:,}",
            f"{1e3 * results['packet_mb']:,.0f}",
            label,
            f"{1e6 * results[name]['s']:,.1f}",
            f"{results['packet_mb'] / results[name]['s']:,.0f}",
            f"{results[FASTAVRO]['s'] / results[name]['s']:,.1f}",
            f"{results[name]['peak_mb']:.2f}",
        )
        for rows, results in sizes.items()
        for name, label in short.items()
    ]
    print_table(head, table)


def two_threads(plan: Plan, bodies: Packets) -> float:
    """Return how many times faster two threads are, each with half of the packets."""
    halves = [
        Packets(bodies.data, np.tile(bodies.starts[half::2], 8), np.tile(bodies.ends[half::2], 8))
        for half in range(2)
    ]
    decode = partial(decode_columns, plan)
    alone = shortest_s(lambda: [decode(half) for half in halves])
    with ThreadPoolExecutor(2) as pool:
        return alone / shortest_s(lambda: list(pool.map(decode, halves)))


def start_s(packet: bytes, folder: Path) -> dict[str, float]:
    """Return what a process's first packet costs, without and with numba's cache on disk."""
    path = folder / "packet"
    path.write_bytes(packet)
    code = f"from benchmarks.decoding import print_start; print_start({str(path)!r})"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "numba")}
    plan, kept, cold = _run(code, environment)
    _, _, cached = _run(code, environment)
    return {
        "s to read a schema and compile its plan": plan,
        "s for the plan once it is kept": kept,
        "s for the first packet, numba's cache empty": cold,
        "s for the first packet, numba's cache on disk": cached,
    }


def _run(code: str, environment: dict[str, str]) -> list[float]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return [float(seconds) for seconds in json.loads(done.stdout)]


def print_start(path: str) -> None:
    """Print how long this process takes for a plan, for the plan again and for one packet."""
    decoder = Decoder(package_schemas())
    packet = packets_of([Path(path).read_bytes()])
    marks = [time.perf_counter()]
    for work in (
        lambda: decoder.plan(SCHEMA_ID),
        lambda: decoder.plan(SCHEMA_ID),
        lambda: decoder.decode(packet),
    ):
        work()
        marks.append(time.perf_counter())
    print(json.dumps(np.diff(marks).tolist()))


if __name__ == "__main__":
    main()
