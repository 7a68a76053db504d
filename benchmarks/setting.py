"""What the benchmarks share: the data folder, packets, the last line of JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lightcurves.alerts import framed_packets
from lightcurves.folders import read_light_curves
from lightcurves.imports import import_plasticc, plasticc_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[1]
FRAME_BYTES = 5


def data_folder() -> Path:
    """Return the folder of real packets; ends the program if there is none."""
    folder = Path(os.environ.get("NOCTULE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        sys.exit(
            f"no data in {folder}: set NOCTULE_DATA to the folder that has lsst/real_v10_0.avro"
        )
    return folder


def real_packets() -> list[bytes]:
    """Return the 64 real LSST packets, framed."""
    return list(framed_packets(data_folder() / "lsst" / "real_v10_0.avro"))


def with_id(packet: bytes, dia_source_id: int) -> bytes:
    """Return the LSST packet with another diaSourceId: first of all fields, and first in diaSource.

    Two optional texts lie between them.
    """
    first = _after_integer(packet, FRAME_BYTES)
    second = first
    for _ in range(2):
        has_text = packet[second] != 0
        second += 1
        if has_text:
            second += 1 + (packet[second] >> 1)  # shorter than 64 bytes in every packet seen
    fresh, rest = zigzag(dia_source_id), packet[_after_integer(packet, second) :]
    return packet[:FRAME_BYTES] + fresh + packet[first:second] + fresh + rest


def _after_integer(packet: bytes, at: int) -> int:
    while packet[at] >= 0x80:
        at += 1
    return at + 1


def zigzag(value: int) -> bytes:
    """Return Avro's encoding of a non-negative long."""
    value <<= 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def plasticc(folder: Path) -> pa.Table:
    """Return PLAsTiCC's training set, imported into `folder` from the installed package."""
    import_plasticc(plasticc_source(), folder)
    return read_light_curves(folder)


def split(table: pa.Table, fraction: float, seed: int) -> tuple[pa.Table, pa.Table]:
    """Split a table of objects by chance: the first part has about `fraction` of the rows."""
    inside = np.random.default_rng(seed).random(table.num_rows) < fraction
    return table.filter(pa.array(inside)), table.filter(pa.array(~inside))


def best_s(work: Callable[[], Any], repeats: int = 5) -> float:
    """Return the shortest time of `work`, in seconds; the first run is not counted."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def shortest_s(work: Callable[[], Any], budget_s: float = 4.0) -> float:
    """Return the shortest time of `work`, in seconds, of the runs that the budget allows.

    At least two and at most a hundred are timed; the first run is not.
    """
    work()
    times: list[float] = []
    while len(times) < 2 or (len(times) < 100 and sum(times) < budget_s):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def peak_mb(work: Callable[[], Any]) -> float:
    """Return the most memory that Python and numpy had allocated at once while `work` ran, in MB.

    Arrow's own buffers and numba's are not counted; pages that were allocated but never touched are.
    """
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table in Markdown, its first column left, the others right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
    for first, *others in (head, rule, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("| " + " | ".join([first.ljust(widths[0]), *cells]) + " |")
    print()


def finish(result: dict[str, Any]) -> None:
    """Print the last line."""
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps({**result, "machine": machine}))
