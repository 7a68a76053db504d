"""Packets to columns: frames, plans by schema id, the interpreter, the light-curve rules."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa

from lightcurves.arrays import (
    LIGHT_CURVE_TYPE,
    LightCurves,
    dictionary_column,
    joined,
    light_curve_column,
    no_light_curves,
)
from lightcurves.bands import BAND_NAMES
from lightcurves.columns import (
    ALERT_FLOAT64,
    ALERT_INT64,
    CUTOUTS,
    DETECTED,
    HISTORY_FLOAT32,
    HISTORY_FLOAT64,
    HISTORY_INT64,
    KIND_ALERT,
    KIND_FORCED,
    Columns,
)
from lightcurves.errors import ConfigurationError
from lightcurves.interpreter import ERRORS, NULL_BAND, NULL_INT64, run_plan
from lightcurves.plan import Plan, compile_plan
from lightcurves.reasons import RejectReason
from lightcurves.recognise import survey_of
from lightcurves.rules import N_REMOVED, apply_rules
from lightcurves.schemas import CONTAINER_MAGIC
from lightcurves.units import convert_alerts, convert_histories

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightcurves.plan import Schema
    from lightcurves.schemas import SchemaSource
    from lightcurves.surveys.declare import Survey

FRAME_BYTES: Final = 5
MAX_PACKET_BYTES: Final = 16 << 20

# One interpreter call works on about this many bytes, so that its history arrays mostly stay in the cache and
# memory does not grow with the batch.
CHUNK_BYTES: Final = 32 << 20

ALERT_SCHEMA: Final = pa.schema(
    [
        ("survey", pa.string()),
        ("schema_id", pa.int64()),
        ("dia_source_id", pa.int64()),
        ("object_id", pa.int64()),
        ("ss_object_id", pa.int64()),
        ("t_mjd_tai", pa.float64()),
        ("ra_deg", pa.float64()),
        ("dec_deg", pa.float64()),
        ("band", pa.dictionary(pa.int8(), pa.string())),
        ("flux_njy", pa.float32()),
        ("sigma_njy", pa.float32()),
        ("light_curve", LIGHT_CURVE_TYPE),
        ("reject_reason", pa.string()),
    ],
    metadata={"noctule.alerts": "2"},
)
"""The schema of :func:`lightcurves.alerts.read_alerts`, one row per packet; the version in the metadata
increases when columns change.
"""
CUTOUT_SCHEMA: Final = functools.reduce(
    lambda schema, name: schema.append(pa.field(name, pa.binary())), CUTOUTS, ALERT_SCHEMA
)
"""The same, followed by the cutouts."""


class Packets(NamedTuple):
    """Bytes of many packets in one buffer: packet k is ``data[starts[k]:ends[k]]``."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def packets_of(messages: list[bytes] | pa.BinaryArray | pa.LargeBinaryArray) -> Packets:
    """Lay messages out in one buffer: a list is joined, an Arrow array is used in place.

    Raises
    ------
    ConfigurationError
        An Arrow array of anything but binary, or neither list nor array.
    """
    if isinstance(messages, list):
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        ends = np.cumsum(lengths)
        return Packets(np.frombuffer(b"".join(messages), np.uint8), ends - lengths, ends)
    if not isinstance(messages, pa.Array):
        raise ConfigurationError(f"packets must be a list or an Arrow array, not {type(messages)}")
    if pa.types.is_binary_view(messages.type):
        messages = messages.cast(pa.large_binary())
    if not (pa.types.is_binary(messages.type) or pa.types.is_large_binary(messages.type)):
        raise ConfigurationError(f"packets must be binary, these are {messages.type}")
    width = np.int64 if pa.types.is_large_binary(messages.type) else np.int32
    _, offsets, values = messages.buffers()
    bounds = np.frombuffer(
        offsets, width, len(messages) + 1, messages.offset * np.dtype(width).itemsize
    )
    data = np.frombuffer(values, np.uint8) if values is not None else np.zeros(0, np.uint8)
    starts, ends = bounds[:-1].astype(np.int64), bounds[1:].astype(np.int64)
    if messages.null_count:  # a null may have bytes beneath it, which mean nothing
        ends = np.where(np.asarray(messages.is_null()), starts, ends)
    return Packets(data, starts, ends)


class _Memory:
    """A number of bytes from an address on, valid as long as `owner` lives; numpy can use it as an array."""

    def __init__(self, owner: list[bytes], address: int, n: int) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": (n,),
            "typestr": "|u1",
            "data": (address, True),
        }


def packets_in_place(messages: list[bytes]) -> Packets:
    """Use messages in place: nothing is copied, because copying new messages costs as much as decoding them.

    ``data`` spans the memory from the first message to the last, wherever the allocator put them. The memory
    between them is not ours: it may be read only within ``starts[k]:ends[k]``.
    """
    if not messages:
        return packets_of(messages)
    lengths = np.fromiter(map(len, messages), np.int64, len(messages))
    addresses = (
        ctypes.cast(ctypes.c_char_p(message), ctypes.c_void_p).value or 0 for message in messages
    )
    starts = np.fromiter(addresses, np.int64, len(messages))
    low, high = int(starts.min()), int((starts + lengths).max())
    data = np.asarray(_Memory(messages, low, high - low))
    return Packets(data, starts - low, starts - low + lengths)


def plan_of(
    schema: Schema, survey: Survey | None = None, *, cutouts: bool = False, history: bool = True
) -> Plan:
    """Return the plan of a schema for its own survey, or for another.

    Raises
    ------
    ConfigurationError
        The schema cannot be used; see :func:`~lightcurves.plan.compile_plan`.
    """
    survey = survey or survey_of(schema)
    survey = survey if history else survey.without_history()
    return compile_plan(schema, survey.with_cutouts() if cutouts else survey)


def decode_columns(plan: Plan, packets: Packets, *, chained: bool = False) -> Columns:
    """Run `plan` over `packets` (bodies, without frames); see :func:`~.interpreter.run_plan`."""
    n = packets.starts.size
    n_bytes = packets.data.size if chained else int((packets.ends - packets.starts).sum())
    capacity = n_bytes // plan.min_history_bytes + n + 1
    columns = Columns(
        alert_f64=np.full((len(ALERT_FLOAT64), n), np.nan),
        alert_i64=np.full((len(ALERT_INT64), n), NULL_INT64),
        alert_band=np.full(n, NULL_BAND, np.int8),
        history_f64=np.empty((len(HISTORY_FLOAT64), capacity)),
        history_f32=np.empty((len(HISTORY_FLOAT32), capacity), np.float32),
        history_i64=np.empty((len(HISTORY_INT64), capacity), np.int64),
        history_band=np.empty(capacity, np.int8),
        history_kind=np.empty(capacity, np.int8),
        history_flags=np.empty(capacity, np.int8),
        offsets=np.zeros(n + 1, np.int64),
        errors=np.zeros(n, np.int8),
    )
    run_plan(
        plan.steps,
        plan.stores,
        plan.jumps,
        plan.n_segments,
        plan.band_names,
        plan.band_codes,
        *packets,
        *columns,
        KIND_ALERT,
        chained,
    )
    if plan.survey.is_raw:
        convert_alerts(columns, plan.survey)
        convert_histories(columns, plan.survey)
    _place_own_source(columns)
    return columns


def _place_own_source(columns: Columns) -> None:
    """Fill the history row that is reserved in each readable packet for the alert's own source."""
    packets = np.flatnonzero(columns.errors == 0)
    rows = columns.offsets[packets]
    alert = dict(zip(ALERT_FLOAT64, columns.alert_f64[:, packets], strict=True))
    columns.history_f64[0, rows] = alert["t_mjd_tai"]
    # What is beyond float32 is infinite, which the rules leave out.
    with np.errstate(over="ignore", invalid="ignore"):
        columns.history_f32[0, rows] = alert["flux_njy"]
        columns.history_f32[1, rows] = alert["sigma_njy"]
    columns.history_i64[0, rows] = columns.alert_i64[ALERT_INT64.index("visit"), packets]
    columns.history_band[rows] = columns.alert_band[packets]
    visit = columns.history_i64[0, : columns.offsets[-1]]
    unnumbered = visit == NULL_INT64
    if unnumbered.any():
        t_mjd_tai = columns.history_f64[0, : columns.offsets[-1]][unnumbered]
        visit[unnumbered] = t_mjd_tai.view(np.int64)


def light_curves(
    columns: Columns, rejected: NDArray[np.bool_] | None = None
) -> tuple[LightCurves, NDArray[np.int64]]:
    """Apply the light-curve rules; also return what they removed, int64 (packets, 4).

    `rejected` packets have empty light curves.
    """
    n, n_rows = columns.errors.size, int(columns.offsets[-1])
    rows = np.empty(n_rows, np.int64)
    offsets = np.zeros(n + 1, np.int64)
    removed = np.zeros((n, N_REMOVED), np.int64)
    t_mjd_tai, visit = columns.history_f64[0], columns.history_i64[0]
    flux, sigma = columns.history_f32[:2]
    band, kind = columns.history_band, columns.history_kind
    flags = columns.history_flags[:n_rows].copy()
    flags[(kind[:n_rows] != KIND_FORCED) & np.isfinite(flux[:n_rows])] |= DETECTED
    measured = (t_mjd_tai, visit, band, flux, sigma, kind, flags)
    alert_t = columns.alert_f64[ALERT_FLOAT64.index("t_mjd_tai")]
    if rejected is not None and rejected.any():
        alert_t = np.where(rejected, np.nan, alert_t)  # everything is later than that
    total = apply_rules(columns.offsets, *measured, alert_t, rows, offsets, removed)
    everything = LightCurves(columns.offsets, t_mjd_tai, band, flux, sigma, kind, flags)
    return everything.take(rows[:total], offsets), removed


class Decoded(NamedTuple):
    """Alerts in both of their forms.

    Attributes
    ----------
    alerts
        One row per packet, with light curves as an Arrow column.
    curves
        The flat arrays that the column was made of, one light curve per row: what
        :func:`~.arrays.light_curves_of` would unpack from it. A rejected packet's is empty.
    """

    alerts: pa.Table
    curves: LightCurves


def read_bodies(
    plan: Plan,
    packets: Packets,
    schema_id: int | None,
    schema: pa.Schema = ALERT_SCHEMA,
    *,
    chained: bool = False,
) -> Decoded:
    """Return packets (bodies, without frames) as rows of `schema`.

    The schema is :data:`ALERT_SCHEMA`, or the one followed by cutouts.
    """
    columns = decode_columns(plan, packets, chained=chained)
    survey = plan.survey.name
    no_id, no_time = len(ERRORS) + 1, len(ERRORS) + 2
    reasons = np.array([None, *ERRORS, RejectReason.NO_ID, RejectReason.NO_TIME], object)
    integers = dict(zip(ALERT_INT64, columns.alert_i64, strict=True))
    reals = dict(zip(ALERT_FLOAT64, columns.alert_f64, strict=True))
    codes = np.where(integers["dia_source_id"] == NULL_INT64, no_id, 0)
    codes = np.where(np.isfinite(reals["t_mjd_tai"]), codes, no_time)
    codes = np.where(columns.errors == 0, codes, columns.errors)
    bad = codes != 0
    n = bad.size
    curves, _ = light_curves(columns, bad)
    band = np.where(bad, -1, columns.alert_band).astype(np.int8)
    arrays = {
        "survey": pa.array(np.full(n, survey, object), pa.string(), mask=bad),
        "schema_id": pa.array(np.full(n, schema_id, object), pa.int64(), mask=bad),
        "band": dictionary_column(band, BAND_NAMES),
        "light_curve": light_curve_column(curves, bad),
        "reject_reason": pa.array(reasons[codes], pa.string()),
    }
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name in CUTOUTS:
            arrays[name] = _cutouts(integers[name], packets, bad)
        elif name in integers:
            values = integers[name]
            arrays[name] = pa.array(values, mask=bad | (values == NULL_INT64))
        elif name in reals:
            values = reals[name]
            arrays[name] = pa.array(values, kind, mask=bad | np.isnan(values))
    table = pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)
    return Decoded(table, curves)


def _cutouts(where: NDArray[np.int64], packets: Packets, bad: NDArray[np.bool_]) -> pa.Array:
    """Return the bytes at `where` in their packets, see :attr:`~.columns.Source.BYTES`."""
    begins, sizes = packets.starts + (where >> 32), where & 0xFFFFFFFF
    there = (where != NULL_INT64) & ~bad
    cutouts = [
        packets.data[begin : begin + size].tobytes() if known else None
        for begin, size, known in zip(begins.tolist(), sizes.tolist(), there.tolist(), strict=True)
    ]
    return pa.array(cutouts, pa.binary())


def rejected_table(reasons: list[RejectReason], schema: pa.Schema = ALERT_SCHEMA) -> pa.Table:
    """Return one row of `schema` per reason, with all other columns null."""
    arrays = {field.name: pa.nulls(len(reasons), field.type) for field in schema}
    arrays["reject_reason"] = pa.array([str(reason) for reason in reasons], pa.string())
    return pa.Table.from_arrays(list(arrays.values()), schema=schema)


@dataclass
class Decoder:
    """Decodes framed packets to tables; compiles the plan of each schema id once.

    Parameters
    ----------
    schemas
        Where a schema id's schema comes from.
    survey
        The mapping to columns; by default that of the survey whose schema it is.
    max_packet_bytes
        Longer packets are rejected unread as ``too_large``.
    cutouts
        Read the cutouts too.
    history
        Read the history too; without it a light curve has the alert's own point, in a third of the time.
    """

    schemas: SchemaSource
    survey: Survey | None = None
    max_packet_bytes: int = MAX_PACKET_BYTES
    cutouts: bool = False
    history: bool = True
    _plans: dict[int, Plan | RejectReason] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """Of the tables that it gives."""
        return CUTOUT_SCHEMA if self.cutouts else ALERT_SCHEMA

    def without_history(self) -> Decoder:
        """Return a decoder that reads the same packets without their histories."""
        return replace(self, history=False, _plans={})

    def plan(self, schema_id: int) -> Plan | RejectReason:
        """Return the plan of `schema_id`, or the reason why there is none.

        Raises
        ------
        UnavailableError
            The schema source is unavailable now; nothing is remembered.
        """
        if schema_id in self._plans:
            return self._plans[schema_id]
        plan = self._compile(schema_id)
        if plan is not RejectReason.UNKNOWN_SCHEMA:  # the source may learn of it any time
            self._plans[schema_id] = plan
        return plan

    def _compile(self, schema_id: int) -> Plan | RejectReason:
        try:
            schema = self.schemas.schema(schema_id)
            if schema is None:
                return RejectReason.UNKNOWN_SCHEMA
            return plan_of(schema, self.survey, cutouts=self.cutouts, history=self.history)
        except ConfigurationError:  # anybody's message may name a schema that is no alert's
            return RejectReason.UNUSABLE_SCHEMA

    def decode(self, packets: Packets) -> pa.Table:
        """Return one row per packet, in the order given.

        Raises
        ------
        UnavailableError
            The schema source is unavailable now. Nothing is lost or remembered: decode the packets
            again later.
        """
        pieces = [self._decode_chunk(chunk).alerts() for chunk in _chunks(packets)]
        return pa.concat_tables([self.schema.empty_table(), *pieces])

    def decode_both(self, packets: Packets) -> Decoded:
        """Return what :meth:`decode` returns, and the light curves as flat arrays for the kernels."""
        alerts, curves = [self.schema.empty_table()], []
        for chunk in _chunks(packets):
            parts = self._decode_chunk(chunk)
            alerts.append(parts.alerts())
            curves.append(parts.curves())
        return Decoded(pa.concat_tables(alerts), joined(curves or [no_light_curves(0)]))

    def _decode_chunk(self, packets: Packets) -> _Parts:
        schema_ids, reasons = read_frames(packets, self.max_packet_bytes)
        pieces, order = [], []
        for schema_id in np.unique(schema_ids[schema_ids >= 0]):
            members = np.flatnonzero(schema_ids == schema_id)
            plan = self.plan(int(schema_id))
            if isinstance(plan, RejectReason):
                reasons.update(dict.fromkeys(members.tolist(), plan))
                continue
            body = Packets(
                packets.data, packets.starts[members] + FRAME_BYTES, packets.ends[members]
            )
            pieces.append(read_bodies(plan, body, int(schema_id), self.schema))
            order.append(members)
        if reasons:
            members = np.array(sorted(reasons))
            rejected = rejected_table([reasons[k] for k in members.tolist()], self.schema)
            pieces.append(Decoded(rejected, no_light_curves(len(reasons))))
            order.append(members)
        return _Parts(pieces, order)


class _Parts(NamedTuple):
    """Packets by schema, in their order within each, the rejected last; `order` has their numbers."""

    pieces: list[Decoded]
    order: list[NDArray[np.int64]]

    def alerts(self) -> pa.Table:
        """Return the rows in the order of the packets."""
        if len(self.pieces) == 1:
            return self.pieces[0].alerts
        return pa.concat_tables([piece.alerts for piece in self.pieces]).take(self._places())

    def curves(self) -> LightCurves:
        """Return the light curves in the same order."""
        whole = joined([piece.curves for piece in self.pieces])
        return whole if len(self.pieces) == 1 else whole.of(self._places())

    def _places(self) -> NDArray[np.int64]:
        return np.argsort(np.concatenate(self.order))


def read_frames(
    packets: Packets, max_packet_bytes: int
) -> tuple[NDArray[np.int64], dict[int, RejectReason]]:
    """Return each packet's schema id (-1 where there is none) and why, by packet number."""
    data, starts, ends = packets
    lengths = ends - starts
    ids = np.full(starts.size, -1, np.int64)
    framed = lengths >= FRAME_BYTES
    framed[framed] = data[starts[framed]] == 0
    fits = framed & (lengths <= max_packet_bytes)
    header = data[starts[fits, None] + np.arange(1, FRAME_BYTES)]
    ids[fits] = np.ascontiguousarray(header).view(">u4")[:, 0]
    unframed = np.flatnonzero(~framed).tolist()
    reasons = {
        k: RejectReason.CONTAINER_MESSAGE
        if data[starts[k] : ends[k]][: len(CONTAINER_MAGIC)].tobytes() == CONTAINER_MAGIC
        else RejectReason.BAD_FRAME
        for k in unframed
    }
    reasons.update(dict.fromkeys(np.flatnonzero(framed & ~fits).tolist(), RejectReason.TOO_LARGE))
    reasons.update(dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), RejectReason.EMPTY_MESSAGE))
    return ids, reasons


def _chunks(packets: Packets) -> list[Packets]:
    """Cut `packets` into runs of about :data:`CHUNK_BYTES`."""
    total = np.cumsum(packets.ends - packets.starts)
    chunk = total // CHUNK_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), total.size]
    return [
        Packets(packets.data, packets.starts[a:b], packets.ends[a:b])
        for a, b in pairwise(cuts)
        if b > a
    ]
