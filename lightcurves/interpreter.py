"""The one numba loop that walks a compiled plan over the bytes of many packets.

Every read is checked against the end of its own packet before it happens: a hostile packet ends in
an error code, never in a read outside its bytes, and its neighbours are not touched.
"""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.plan import MAX_DEPTH, Op, Source, Space
from lightcurves.reasons import RejectReason

# Numba freezes module globals into the compiled code, so enumerations become plain integers here.
_SKIP_FIXED: Final = int(Op.SKIP_FIXED)
_SKIP_VARINT: Final = int(Op.SKIP_VARINT)
_SKIP_SIZED: Final = int(Op.SKIP_SIZED)
_SKIP_OPTIONAL_FIXED: Final = int(Op.SKIP_OPTIONAL_FIXED)
_SKIP_OPTIONAL_VARINT: Final = int(Op.SKIP_OPTIONAL_VARINT)
_SKIP_OPTIONAL_SIZED: Final = int(Op.SKIP_OPTIONAL_SIZED)
_STORE: Final = int(Op.STORE)
_STORE_NULL: Final = int(Op.STORE_NULL)
_UNION: Final = int(Op.UNION)
_JUMP: Final = int(Op.JUMP)
_ARRAY: Final = int(Op.ARRAY)
_LOOP: Final = int(Op.LOOP)
_VARINT: Final = int(Source.VARINT)
_FLOAT: Final = int(Source.FLOAT)
_DOUBLE: Final = int(Source.DOUBLE)
_STRING: Final = int(Source.STRING)
_ALERT_FLOAT64: Final = int(Space.ALERT_FLOAT64)
_ALERT_INT64: Final = int(Space.ALERT_INT64)
_ALERT_BAND: Final = int(Space.ALERT_BAND)
_HISTORY_FLOAT64: Final = int(Space.HISTORY_FLOAT64)
_HISTORY_FLOAT32: Final = int(Space.HISTORY_FLOAT32)
_HISTORY_INT64: Final = int(Space.HISTORY_INT64)
_DEPTH: Final = MAX_DEPTH

OK: Final = 0
ERRORS: Final = (
    RejectReason.TRUNCATED,
    RejectReason.BAD_VARINT,
    RejectReason.BAD_LENGTH,
    RejectReason.BAD_UNION_BRANCH,
    RejectReason.TOO_MANY_ITEMS,
    RejectReason.TRAILING_BYTES,
)
"""``ERRORS[code - 1]`` is the reason of a non-zero code."""
_TRUNCATED: Final = 1
_BAD_VARINT: Final = 2
_BAD_LENGTH: Final = 3
_BAD_BRANCH: Final = 4
_TOO_MANY: Final = 5
_TRAILING: Final = 6

NULL_INT64: Final = np.iinfo(np.int64).min
"""Marks a null integer in the int64 arrays: no identifier or visit has this value."""
NULL_BAND: Final = -1

_MAX_EMPTY_ITEMS: Final = 1 << 20  # items of zero bytes (nulls): their number is a loop bound only


@nb.njit(nogil=True, cache=True, inline="always")
def _varint(data: Any, at: int, end: int) -> Any:
    """Return the zig-zag decoded integer and the next position, or a negative error code there."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while True:
        if at >= end:
            return 0, -_TRUNCATED
        byte = np.uint64(data[at])
        at += 1
        if shift == np.uint64(63) and byte > np.uint64(1):
            return 0, -_BAD_VARINT
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            break
        shift += np.uint64(7)
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at


@nb.njit(nogil=True, cache=True, inline="always")
def _skip_varint(data: Any, at: int, end: int) -> Any:
    _, after = _varint(data, at, end)
    return after


@nb.njit(nogil=True, cache=True, inline="always")
def _skip_sized(data: Any, at: int, end: int) -> Any:
    length, at = _varint(data, at, end)
    if at < 0:
        return at
    if length < 0:
        return -_BAD_LENGTH
    if length > end - at:
        return -_TRUNCATED
    return at + length


@nb.njit(nogil=True, cache=True, inline="always")
def _optional(data: Any, at: int, end: int, null: int) -> tuple[bool, int]:
    """Read the branch of a two-branch union: is there a value, and where does it begin."""
    if at >= end:
        return False, -_TRUNCATED
    byte = data[at]
    if byte >= 0x80:
        branch, after = _varint(data, at, end)
        if after < 0:
            return False, after
        if branch < 0 or branch > 1:
            return False, -_BAD_BRANCH
        return branch != null, after
    if byte != 0 and byte != 2:
        return False, -_BAD_BRANCH
    return (byte >> 1) != null, at + 1


@nb.njit(nogil=True, cache=True)
def _band_code(data: Any, at: int, length: int, names: Any, codes: Any) -> Any:
    if length > names.shape[1]:
        return NULL_BAND
    for row in range(names.shape[0]):
        same = length == names.shape[1] or names[row, length] == 0
        for k in range(length):
            if names[row, k] != data[at + k] or names[row, k] == 0:  # 0 is padding, no letter
                same = False
                break
        if same:
            return codes[row]
    return NULL_BAND


@nb.njit(nogil=True, cache=True)
def run_plan(
    steps: Any,
    jumps: Any,
    band_names: Any,
    band_codes: Any,
    data: Any,
    starts: Any,
    ends: Any,
    alert_f64: Any,
    alert_i64: Any,
    alert_band: Any,
    history_f64: Any,
    history_f32: Any,
    history_i64: Any,
    history_band: Any,
    history_kind: Any,
    offsets: Any,
    errors: Any,
    own_kind: int,
    chained: bool,
) -> int:
    """Decode packets ``data[starts[k]:ends[k]]`` into the columns; return the history rows written.

    Parameters
    ----------
    steps, jumps, band_names, band_codes
        The fields of a :class:`lightcurves.plan.Plan`.
    data
        uint8: the bytes of all packets; `starts` and `ends` are int64 positions in it.
    alert_f64, alert_i64, alert_band
        (columns, packets) float64 and int64, (packets,) int8; filled with null beforehand.
    history_f64, history_f32, history_i64
        (columns, capacity); `history_band` and `history_kind` int8 (capacity,). The capacity must
        be at least the bytes of all packets divided by the plan's ``min_history_bytes``, plus one
        row a packet.
    offsets
        int64 (packets + 1): history rows of packet k are ``offsets[k]:offsets[k + 1]``.
    errors
        int8 (packets): 0, or 1 + the index in :data:`ERRORS`; such a packet has no history rows and
        its alert columns are meaningless.
    own_kind
        Each packet's first history row is kept free for the alert's own source and gets this kind.
    chained
        Records lie one behind the other without lengths, as in an Avro container's block: a packet
        begins where the one before ended, and its end is written to `ends`.
    """
    remaining = np.zeros(_DEPTH, np.int64)
    word32 = np.zeros(1, np.uint32)
    word64 = np.zeros(1, np.uint64)
    float32 = word32.view(np.float32)
    float64 = word64.view(np.float64)
    row = 0
    offsets[0] = 0
    for packet in range(starts.size):
        if chained and packet > 0:
            starts[packet] = ends[packet - 1] if errors[packet - 1] == OK else ends[packet]
        at = starts[packet]
        end = ends[packet]
        first_row = row
        history_kind[row] = own_kind
        row += 1  # from here on `row` is one past the current history row
        depth = 0
        step = 0
        empty_items = 0
        while at >= 0:
            op = steps[step, 0]
            if op == _SKIP_OPTIONAL_FIXED:
                size = steps[step, 2]
                null_byte = steps[step, 3] * 2
                value_byte = 2 - null_byte
                for _ in range(steps[step, 1]):
                    if at >= end:
                        at = -_TRUNCATED
                        break
                    byte = data[at]
                    if byte == value_byte:
                        at += 1 + size
                    elif byte == null_byte:
                        at += 1
                    else:
                        there, at = _optional(data, at, end, null_byte >> 1)
                        if at < 0:
                            break
                        if there:
                            at += size
                if at > end:
                    at = -_TRUNCATED
                step += 1
            elif op == _STORE:
                source = steps[step, 1]
                space = steps[step, 2]
                slot = steps[step, 3]
                null = steps[step, 4]
                there = True
                if null >= 0:
                    there, at = _optional(data, at, end, null)
                    if at < 0:
                        continue
                real = np.nan
                whole = NULL_INT64
                band = NULL_BAND
                if there:
                    if source == _VARINT:
                        whole, at = _varint(data, at, end)
                        if at < 0:
                            continue
                        real = float(whole)
                    elif source == _DOUBLE:
                        if end - at < 8:
                            at = -_TRUNCATED
                            continue
                        bits = np.uint64(0)
                        for k in range(8):
                            bits |= np.uint64(data[at + k]) << np.uint64(8 * k)
                        word64[0] = bits
                        real = float64[0]
                        at += 8
                    elif source == _FLOAT:
                        if end - at < 4:
                            at = -_TRUNCATED
                            continue
                        word32[0] = (
                            np.uint32(data[at])
                            | np.uint32(data[at + 1]) << np.uint32(8)
                            | np.uint32(data[at + 2]) << np.uint32(16)
                            | np.uint32(data[at + 3]) << np.uint32(24)
                        )
                        real = float(float32[0])
                        at += 4
                    elif source == _STRING:
                        begin = at
                        at = _skip_sized(data, begin, end)
                        if at < 0:
                            continue
                        length, begin = _varint(data, begin, end)
                        band = _band_code(data, begin, length, band_names, band_codes)
                    else:
                        if at >= end:
                            at = -_TRUNCATED
                            continue
                        whole = int(data[at] != 0)
                        real = float(whole)
                        at += 1
                if space == _HISTORY_FLOAT32:
                    history_f32[slot, row - 1] = real
                elif space == _HISTORY_FLOAT64:
                    history_f64[slot, row - 1] = real
                elif space == _HISTORY_INT64:
                    history_i64[slot, row - 1] = whole
                elif space == _ALERT_FLOAT64:
                    alert_f64[slot, packet] = real
                elif space == _ALERT_INT64:
                    alert_i64[slot, packet] = whole
                elif space == _ALERT_BAND:
                    alert_band[packet] = band
                else:
                    history_band[row - 1] = band
                step += 1
            elif op == _SKIP_FIXED:
                at += steps[step, 1]
                if at > end:
                    at = -_TRUNCATED
                step += 1
            elif op == _SKIP_VARINT:
                for _ in range(steps[step, 1]):
                    at = _skip_varint(data, at, end)
                    if at < 0:
                        break
                step += 1
            elif op == _SKIP_OPTIONAL_VARINT:
                for _ in range(steps[step, 1]):
                    there, at = _optional(data, at, end, steps[step, 3])
                    if at >= 0 and there:
                        at = _skip_varint(data, at, end)
                    if at < 0:
                        break
                step += 1
            elif op == _SKIP_SIZED:
                for _ in range(steps[step, 1]):
                    at = _skip_sized(data, at, end)
                    if at < 0:
                        break
                step += 1
            elif op == _SKIP_OPTIONAL_SIZED:
                for _ in range(steps[step, 1]):
                    there, at = _optional(data, at, end, steps[step, 3])
                    if at >= 0 and there:
                        at = _skip_sized(data, at, end)
                    if at < 0:
                        break
                step += 1
            elif op == _LOOP:
                if remaining[depth - 1] == 0:
                    count, at = _varint(data, at, end)
                    if at < 0:
                        continue
                    if count == 0:
                        depth -= 1
                        step = steps[step, 1]
                        continue
                    if count < 0:
                        size, at = _varint(data, at, end)
                        if at < 0:
                            continue
                        if size < 0:
                            at = -_BAD_LENGTH
                            continue
                        count = -count
                    fewest = steps[step, 3]
                    if fewest > 0:
                        limit = (end - at) // fewest
                    else:
                        limit = _MAX_EMPTY_ITEMS - empty_items
                        empty_items += count
                    if count < 0 or count > limit:
                        at = -_TOO_MANY
                        continue
                    remaining[depth - 1] = count
                remaining[depth - 1] -= 1
                kind = steps[step, 2]
                if kind >= 0:
                    history_kind[row] = kind
                    row += 1
                step += 1
            elif op == _JUMP:
                step = steps[step, 1]
            elif op == _UNION:
                branch, at = _varint(data, at, end)
                if at < 0:
                    continue
                if branch < 0 or branch >= steps[step, 1]:
                    at = -_BAD_BRANCH
                    continue
                step = jumps[steps[step, 2] + branch]
            elif op == _ARRAY:
                remaining[depth] = 0
                depth += 1
                step += 1
            elif op == _STORE_NULL:
                space = steps[step, 2]
                slot = steps[step, 3]
                if space == _HISTORY_FLOAT32:
                    history_f32[slot, row - 1] = np.nan
                elif space == _HISTORY_FLOAT64:
                    history_f64[slot, row - 1] = np.nan
                elif space == _HISTORY_INT64:
                    history_i64[slot, row - 1] = NULL_INT64
                else:
                    history_band[row - 1] = NULL_BAND
                step += 1
            else:
                break
        if at == end or (chained and at > 0):
            errors[packet] = OK
            ends[packet] = at
        else:
            errors[packet] = -at if at < 0 else _TRAILING
            row = first_row
        offsets[packet + 1] = row
    return row
