"""Read alert packets from anywhere into one table: the front door of decoding."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import fastavro
import numpy as np
import pyarrow as pa

from lightcurves.decode import (
    CHUNK_BYTES,
    Decoder,
    Packets,
    decode_columns,
    packets_of,
    plan_of,
    read_bodies,
    rejected_table,
)
from lightcurves.errors import ConfigurationError
from lightcurves.reasons import RejectReason
from lightcurves.schemas import BROKEN_AVRO, CONTAINER_MAGIC, SchemaSource, package_schemas
from lightcurves.surveys import LSST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightcurves.plan import Plan

_SYNC_BYTES: Final = 16

Source: TypeAlias = (
    str | Path | bytes | list[bytes] | pa.BinaryArray | pa.LargeBinaryArray | pa.ChunkedArray
)


def read_alerts(
    source: Source, *, schemas: SchemaSource | None = None, cutouts: bool = False
) -> pa.Table:
    """Read alert packets into a table, one row per packet in the order given.

    Parameters
    ----------
    source
        A path (Avro container file, file with one framed packet, or a folder of them, read in the
        order of their names), the bytes of one of these, a list of framed packets, or an Arrow
        binary array (or chunked array) of them. A framed packet is byte 0, a 4-byte big-endian
        schema id, the Avro body.
    schemas
        Where schemas come from; the installed ``lsst-alert-packet`` by default. Container files
        contain their own.
    cutouts
        Add the cutouts as they are in the packet (FITS, gzipped by ZTF): binary columns
        ``cutout_difference``, ``cutout_science`` and ``cutout_template``, null where there is none.

    Returns
    -------
    pyarrow.Table
        Columns of :data:`lightcurves.decode.ALERT_SCHEMA`: identifiers int64, times MJD TAI in
        days, angles in degrees (ICRS), fluxes in nJy, and ``light_curve`` after the rules of
        :mod:`lightcurves.rules`. Identifiers are as in the packet: LSST writes 0 where an alert
        has no object or no solar system object. A packet that cannot be read is a row whose
        ``reject_reason`` is set and whose other columns are null; so is a broken container file in a
        folder, after the alerts that could be read from it.

    Raises
    ------
    ConfigurationError
        The path does not exist, or it is a container file that is broken or whose schema cannot be
        used.
    UnavailableError
        `schemas` is unavailable now.

    Examples
    --------
    >>> read_alerts([b"no packet"])["reject_reason"].to_pylist()
    ['bad_frame']
    """
    decoder = _package_decoder(cutouts) if schemas is None else Decoder(schemas, cutouts=cutouts)
    if isinstance(source, str | Path):
        return _read_path(Path(source), decoder)
    if isinstance(source, bytes):
        return _read_bytes(source, decoder)
    if isinstance(source, pa.ChunkedArray):
        source = source.combine_chunks()
    return decoder.decode(packets_of(source))


@cache
def _package_decoder(cutouts: bool) -> Decoder:  # noqa: FBT001 - a key of the cache
    """Return the decoder of the official schemas, which caches their plans: compiling one takes 0.01 s."""
    return Decoder(package_schemas(), cutouts=cutouts)


def _read_path(path: Path, decoder: Decoder) -> pa.Table:
    try:
        if not path.is_dir():
            return _read_bytes(alert_files(path)[0].read_bytes(), decoder)
        files = alert_files(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    tables = [_read_among(file, decoder) for file in files]
    return pa.concat_tables([decoder.schema.empty_table(), *tables])


def _read_among(file: Path, decoder: Decoder) -> pa.Table:
    try:
        content = file.read_bytes()
    except OSError:
        return rejected_table([RejectReason.UNREADABLE_FILE], decoder.schema)
    return _read_bytes(content, decoder, among=True)


def alert_files(path: Path) -> list[Path]:
    """Return the file at `path`, or all files below the folder `path` in the order of their names.

    Raises
    ------
    ConfigurationError
        There is nothing at `path`.
    """
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if not path.is_file():
        raise ConfigurationError(f"no alert file or folder at {path}")
    return [path]


def _read_bytes(content: bytes, decoder: Decoder, *, among: bool = False) -> pa.Table:
    """Read a file's content; if a file `among` others is broken, the last row says so."""
    if not content.startswith(CONTAINER_MAGIC):
        return decoder.decode(packets_of([content]))
    tables = [decoder.schema.empty_table()]
    try:
        for block in _blocks(content, cutouts=decoder.cutouts):
            read = read_bodies(
                block.plan, block.packets, block.schema_id, decoder.schema, chained=True
            )
            tables.append(read.alerts)
    except ConfigurationError as error:
        if not among:
            raise
        broken = isinstance(error, _BrokenContainerError)
        reason = RejectReason.BAD_CONTAINER if broken else RejectReason.UNUSABLE_SCHEMA
        tables.append(rejected_table([reason], decoder.schema))
    return pa.concat_tables(tables)


class _BrokenContainerError(ConfigurationError):
    """A container file cannot be read, or not any further."""


class _Blocks(NamedTuple):
    """Some blocks of a container file: records one after the other."""

    schema_id: int | None
    plan: Plan
    packets: Packets


def _blocks(content: bytes, *, cutouts: bool = False) -> Iterator[_Blocks]:
    """Yield a container's blocks, also those before the place where it is broken."""
    try:
        reader = fastavro.block_reader(io.BytesIO(content))
    except BROKEN_AVRO as error:
        raise _broken(error) from error
    plan = plan_of(reader.writer_schema, cutouts=cutouts)
    schema_id = schema_id_of(reader.writer_schema)
    group = _Group(content if reader.codec == "null" else None)
    broken = None
    while broken is None:
        try:
            block = next(reader)
            body = block.bytes_.getvalue()  # type: ignore[attr-defined]
            if not 0 <= block.num_records * max(plan.min_packet_bytes, 1) <= len(body):
                raise ValueError(f"{block.num_records} records in {len(body)} bytes")
        except (StopIteration, *BROKEN_AVRO) as error:
            broken = error
        else:
            group.add(body, block.num_records, block.offset + block.size - _SYNC_BYTES)
        if group.counts and (broken or group.n_bytes > CHUNK_BYTES):
            yield _Blocks(schema_id, plan, group.packets())
            group = _Group(group.content)
    if not isinstance(broken, StopIteration):
        raise _broken(broken) from broken


def _broken(error: Exception) -> _BrokenContainerError:
    return _BrokenContainerError(f"broken Avro container file: {error}")


@dataclass
class _Group:
    """Blocks that are decoded together.

    Blocks of a file without compression are used where they are in its `content`: copying them costs
    as much as decoding them.
    """

    content: bytes | None
    n_bytes: int = 0
    bodies: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, body: bytes, n_records: int, end_in_file: int) -> None:
        """Add a block, unless it has no records."""
        if n_records == 0:
            return
        if self.content is None:
            self.bodies.append(body)
        end = self.n_bytes + len(body) if self.content is None else end_in_file
        self.begins.append(end - len(body))
        self.ends.append(end)
        self.counts.append(n_records)
        self.n_bytes += len(body)

    def packets(self) -> Packets:
        """Lay the records out as :func:`lightcurves.interpreter.run_plan` takes chained ones."""
        data = memoryview(b"".join(self.bodies) if self.content is None else self.content)
        low, high = self.begins[0], self.ends[-1]
        starts = np.full(sum(self.counts), -1, np.int64)
        starts[np.append(0, np.cumsum(self.counts)[:-1])] = np.array(self.begins) - low
        ends = np.repeat(np.array(self.ends, np.int64) - low, self.counts)
        return Packets(np.frombuffer(data[low:high], np.uint8), starts, ends)


def schema_id_of(schema: Any) -> int | None:
    """Return Rubin's id (major * 100 + minor) of an alert schema, or None for any other schema."""
    name = str(schema.get("name")) if isinstance(schema, dict) else ""
    match = re.fullmatch(LSST.schema_names, name)
    return int(match[1]) * 100 + int(match[2]) if match else None


def framed_packets(path: Path) -> Iterator[bytes]:
    """Yield every packet below `path` with its frame, bytes of the body unchanged.

    A container file's records are cut out of it and framed with Rubin's id of its schema; any other
    file is taken for one framed packet and returned unchanged, whatever it contains.

    Raises
    ------
    ConfigurationError
        Nothing at `path`, a broken container file, or one whose schema has no id of Rubin's.
    """
    for file in alert_files(path):
        content = file.read_bytes()
        if not content.startswith(CONTAINER_MAGIC):
            yield content
            continue
        for block in _blocks(content):
            yield from _cut(block, file)


def _cut(block: _Blocks, file: Path) -> Iterator[bytes]:
    if block.schema_id is None:
        raise ConfigurationError(f"{file}: its schema is none of Rubin's alert schemas")
    frame = b"\0" + block.schema_id.to_bytes(4, "big")
    columns = decode_columns(block.plan, block.packets, chained=True)
    for error, start, end in zip(
        columns.errors, block.packets.starts, block.packets.ends, strict=True
    ):
        if error:
            raise ConfigurationError(f"{file}: a record of this container file cannot be read")
        yield frame + block.packets.data[start:end].tobytes()
