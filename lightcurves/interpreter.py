"""The one numba loop that walks a compiled plan over the bytes of many packets.

Records repeat: 20,000 rows of real histories have only 21 layouts, which depend on their nulls and the
lengths of their integers. So the first record of a segment is walked value by value, and its *layout* is
recorded byte for byte: which bits decide where values begin, and the values of those bits. The next
record is compared with the few stored layouts, each in one vectorised pass (12 ns for 325 bytes). If one
matches, the position of every value is known, and only the wanted values are read. If none matches, the
record is walked (1,000 ns), and its layout replaces the oldest. A pass compares every bit on which
the walk would have branched, so both give the same result.

Every read is checked against the end of its own packet before it happens: a malicious packet leads to
an error code, never to a read outside its bytes, and its neighbours are not affected.
"""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.columns import Source, Space
from lightcurves.plan import MAX_DEPTH, Op, Shape
from lightcurves.reasons import RejectReason

# Numba freezes module globals into the compiled code, so enumerations become plain integers here.
_STORE: Final = int(Op.STORE)
_STORE_NULL: Final = int(Op.STORE_NULL)
_SEGMENT: Final = int(Op.SEGMENT)
_UNION: Final = int(Op.UNION)
_JUMP: Final = int(Op.JUMP)
_ARRAY: Final = int(Op.ARRAY)
_LOOP: Final = int(Op.LOOP)
_FIXED: Final = int(Shape.FIXED)
_INTEGER: Final = int(Shape.VARINT)
_VARINT: Final = int(Source.VARINT)
_FLOAT: Final = int(Source.FLOAT)
_DOUBLE: Final = int(Source.DOUBLE)
_STRING: Final = int(Source.STRING)
_SYMBOL: Final = int(Source.SYMBOL)
_NAME: Final = int(Source.NAME)
_BYTES: Final = int(Source.BYTES)
_ALERT_FLOAT64: Final = int(Space.ALERT_FLOAT64)
_ALERT_INT64: Final = int(Space.ALERT_INT64)
_ALERT_BAND: Final = int(Space.ALERT_BAND)
_HISTORY_FLOAT64: Final = int(Space.HISTORY_FLOAT64)
_HISTORY_FLOAT32: Final = int(Space.HISTORY_FLOAT32)
_HISTORY_INT64: Final = int(Space.HISTORY_INT64)
_HISTORY_BAND: Final = int(Space.HISTORY_BAND)
_NOWHERE: Final = int(Space.NOWHERE)
_ALERT_FLAG: Final = int(Space.ALERT_FLAG)
_HISTORY_FLAG: Final = int(Space.HISTORY_FLAG)
_DEPTH: Final = MAX_DEPTH

OK: Final = 0
ERRORS: Final = (
    RejectReason.TRUNCATED,
    RejectReason.BAD_VARINT,
    RejectReason.BAD_LENGTH,
    RejectReason.BAD_UNION_BRANCH,
    RejectReason.TOO_MANY_ITEMS,
    RejectReason.TRAILING_BYTES,
    RejectReason.BAD_TEXT,
    RejectReason.BAD_SYMBOL,
)
"""``ERRORS[code - 1]`` is the reason of a non-zero code."""
_TRUNCATED: Final = 1
_BAD_VARINT: Final = 2
_BAD_LENGTH: Final = 3
_BAD_BRANCH: Final = 4
_TOO_MANY: Final = 5
_TRAILING: Final = 6
_BAD_TEXT: Final = 7
_BAD_SYMBOL: Final = 8

NULL_INT64: Final = np.iinfo(np.int64).min
"""Marks a null integer in the int64 arrays: no identifier or visit has this value."""
NULL_BAND: Final = -1

_LAYOUT_BYTES: Final = 2048
"""A longer record's layout is not stored: comparing a cutout's would cost more than walking it."""
_LAYOUTS: Final = 4
"""Layouts stored per segment. Of the real rows 14 % match none of 1, 4 % none of 2, 1.5 % none of 4."""
_DECIDES: Final = 0xFF  # all of a branch or a length
_CONTINUES: Final = 0x80  # does the integer go on with the next byte
_TENTH: Final = 0xFE  # the last byte of a ten-byte integer is 0 or 1

_MAX_EMPTY_ITEMS: Final = 1 << 12  # of zero bytes (nulls) in a packet, besides as many as its bytes


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


@nb.njit(nogil=True, cache=True, inline="always")
def _note(data: Any, begin: int, at: int, after: int, mask: Any, value: Any) -> None:
    """Record that all bytes from `at` to `after` decide the layout."""
    for place in range(at - begin, min(after - begin, mask.size)):
        mask[place] = _DECIDES
        value[place] = data[begin + place]


@nb.njit(nogil=True, cache=True, inline="always")
def _note_varint(data: Any, begin: int, at: int, after: int, mask: Any, value: Any) -> None:
    """Record where an integer ends; its value does not matter for the layout."""
    for place in range(at - begin, min(after - begin, mask.size)):
        mask[place] = _TENTH if begin + place == at + 9 else _CONTINUES
        value[place] = data[begin + place] & _CONTINUES


@nb.njit(nogil=True, cache=True, inline="always")
def _walk_value(shape: int, data: Any, begin: int, at: int, end: int, mask: Any, value: Any) -> Any:
    """Skip an integer or text and record its layout; return the next position or an error code."""
    number, after = _varint(data, at, end)
    if after < 0:
        return after
    if shape == _INTEGER:
        _note_varint(data, begin, at, after, mask, value)
        return after
    _note(data, begin, at, after, mask, value)
    if number < 0:
        return -_BAD_LENGTH
    if number > end - after:
        return -_TRUNCATED
    return after + number


@nb.njit(nogil=True, cache=True)
def _walk(steps: Any, places: Any, data: Any, begin: int, end: int, mask: Any, value: Any) -> Any:
    """Walk the steps of a segment and record its layout; return its end, or an error code.

    ``places`` receives where each stored value begins, counted from the segment's begin, -1 for
    null. `mask` and `value` receive as much of the layout as they have room for: a record matches if
    ``byte & mask == value`` throughout.
    """
    mask[:] = 0
    value[:] = 0
    at = begin
    store = 0
    for step in range(steps.shape[0]):
        op = steps[step, 0]
        shape = steps[step, 2]
        size = steps[step, 3]
        null = steps[step, 4]
        if op == _STORE_NULL:
            places[store] = -1
            store += 1
            continue
        count = steps[step, 1]
        if shape == _FIXED and null < 0:
            size *= count
            count = 1
        for _ in range(count):
            there = True
            if null >= 0:
                # A call costs ten times this (its arrays are counted): written out.
                if at < end and (data[at] == 0 or data[at] == 2):
                    if at - begin < mask.size:
                        mask[at - begin] = _DECIDES
                        value[at - begin] = data[at]
                    there = (data[at] >> 1) != null
                    at += 1
                else:
                    there, after = _optional(data, at, end, null)
                    if after < 0:
                        return after
                    _note(data, begin, at, after, mask, value)
                    at = after
            if op == _STORE:
                places[store] = at - begin if there else -1
                store += 1
            if there and shape == _FIXED:
                if size > end - at:
                    return -_TRUNCATED
                at += size
            elif there:
                at = _walk_value(shape, data, begin, at, end, mask, value)
                if at < 0:
                    return at
    return at


@nb.njit(nogil=True, cache=True, inline="always")
def _agrees(data: Any, at: int, length: int, masks: Any, values: Any, layout: int) -> Any:
    """Compare `length` bytes with a layout; unsigned bytes all the way, so that it vectorises."""
    begin = np.uintp(at)
    row = np.uintp(layout)
    wrong = np.uint8(0)
    for k in range(np.uintp(length)):
        decides = np.uint8(data[begin + k] & masks[row, k])
        wrong = np.uint8(wrong | np.uint8(decides ^ values[row, k]))
    return wrong == 0


@nb.njit(nogil=True, cache=True)
def _is_utf8(data: Any, at: int, length: int) -> bool:
    """Say whether bytes are UTF-8 as RFC 3629 has it: no overlong forms, no surrogates."""
    end = at + length
    while at < end:
        lead = int(data[at])
        more = 0 if lead < 0x80 else 1 if lead < 0xE0 else 2 if lead < 0xF0 else 3
        if 0x80 <= lead < 0xC2 or lead > 0xF4 or more >= end - at:
            return False
        if more > 0:
            second = int(data[at + 1])
            low = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
            high = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
            if second < low or second > high:
                return False
        for k in range(2, more + 1):
            if int(data[at + k]) & 0xC0 != 0x80:
                return False
        at += 1 + more
    return True


@nb.njit(nogil=True, cache=True)
def _number_of_name(data: Any, at: int, length: int) -> Any:
    """Return text of letters and digits as a number in base 36, as Python's ``int(text, 36)``."""
    if length < 1 or length > 12:  # 36**12 is below 2**63
        return NULL_INT64
    number = np.int64(0)
    for k in range(length):
        byte = np.int64(data[at + k])
        if 0x30 <= byte <= 0x39:
            digit = byte - 0x30
        elif 0x41 <= byte <= 0x5A:
            digit = byte - 0x41 + 10
        elif 0x61 <= byte <= 0x7A:
            digit = byte - 0x61 + 10
        else:
            return NULL_INT64
        number = number * 36 + digit
    return number


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
    stores: Any,
    jumps: Any,
    n_segments: int,
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
    history_flags: Any,
    offsets: Any,
    errors: Any,
    own_kind: int,
    chained: bool,
) -> int:
    """Decode packets ``data[starts[k]:ends[k]]`` into the columns; return the history rows written.

    Parameters
    ----------
    steps, stores, jumps, n_segments, band_names, band_codes
        The fields of a :class:`lightcurves.plan.Plan`.
    data
        uint8: the bytes of all packets; `starts` and `ends` are int64 positions in it.
    alert_f64, alert_i64, alert_band
        (columns, packets) float64 and int64, (packets,) int8; filled with null beforehand.
    history_f64, history_f32, history_i64
        (columns, capacity); `history_band`, `history_kind` and `history_flags` int8 (capacity,). The
        capacity must be at least the bytes of all packets divided by the plan's
        ``min_history_bytes``, plus one row a packet.
    offsets
        int64 (packets + 1): history rows of packet k are ``offsets[k]:offsets[k + 1]``.
    errors
        int8 (packets): 0, or 1 + the index in :data:`ERRORS`; such a packet has no history rows and
        its alert columns are meaningless.
    own_kind
        Each packet's first history row is reserved for the alert's own source and gets this kind.
    chained
        Records follow each other without lengths, as in an Avro container's blocks: a packet
        whose start is negative begins where the previous one ended, `ends` holds the end of its block,
        and both receive the packet's own.
    """
    remaining = np.zeros(_DEPTH, np.int64)
    word32 = np.zeros(1, np.uint32)
    word64 = np.zeros(1, np.uint64)
    float32 = word32.view(np.float32)
    float64 = word64.view(np.float64)
    lengths = np.full(n_segments * _LAYOUTS, -1, np.int64)
    masks = np.zeros((n_segments * _LAYOUTS, _LAYOUT_BYTES), np.uint8)
    values = np.zeros((n_segments * _LAYOUTS, _LAYOUT_BYTES), np.uint8)
    places = np.zeros((_LAYOUTS, stores.shape[0]), np.int64)
    latest = np.zeros(n_segments, np.int64)  # the layout that matched last
    newest = np.zeros(n_segments, np.int64)  # the layout that was recorded last
    row = 0
    offsets[0] = 0
    for packet in range(starts.size):
        if starts[packet] < 0:
            starts[packet] = ends[packet - 1] if errors[packet - 1] == OK else ends[packet]
        at = starts[packet]
        end = ends[packet]
        first_row = row
        history_kind[row] = own_kind
        history_flags[row] = 0
        row += 1  # from here on `row` is one past the current history row
        depth = 0
        step = 0
        empty_items = 0
        while at >= 0:
            op = steps[step, 0]
            if op == _SEGMENT:
                count = steps[step, 1]
                segment = steps[step, 2]
                store = steps[step, 3]
                first = segment * _LAYOUTS
                layout = -1
                length = 0
                for k in range(_LAYOUTS):
                    trial = (latest[segment] + k) % _LAYOUTS
                    length = lengths[first + trial]
                    if 0 <= length <= end - at and _agrees(
                        data, at, length, masks, values, first + trial
                    ):
                        layout = trial
                        break
                if layout < 0:
                    layout = (newest[segment] + 1) % _LAYOUTS
                    newest[segment] = layout
                    lengths[first + layout] = -1
                    after = _walk(
                        steps[step + 1 : step + 1 + count],
                        places[layout, store:],
                        data,
                        at,
                        end,
                        masks[first + layout],
                        values[first + layout],
                    )
                    if after < 0:
                        at = after
                        continue
                    length = after - at
                    if length <= _LAYOUT_BYTES:
                        lengths[first + layout] = length
                latest[segment] = layout
                wrong = OK
                for k in range(store, store + steps[step, 4]):
                    source = stores[k, 0]
                    space = stores[k, 1]
                    slot = stores[k, 2]
                    real = np.nan
                    whole = NULL_INT64
                    band = NULL_BAND
                    if places[layout, k] >= 0:
                        place = at + places[layout, k]
                        if source == _FLOAT:
                            word32[0] = (
                                np.uint32(data[place])
                                | np.uint32(data[place + 1]) << np.uint32(8)
                                | np.uint32(data[place + 2]) << np.uint32(16)
                                | np.uint32(data[place + 3]) << np.uint32(24)
                            )
                            real = float(float32[0])
                        elif source == _DOUBLE:
                            bits = np.uint64(0)
                            for byte in range(8):
                                bits |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
                            word64[0] = bits
                            real = float64[0]
                        elif source == _VARINT:
                            whole, _ = _varint(data, place, end)
                            real = float(whole)
                            band = whole if 0 <= whole <= 127 else NULL_BAND
                        elif source in (_STRING, _NAME):
                            size, place = _varint(data, place, end)
                            for byte in range(size):
                                if data[place + byte] >= 0x80:  # not ASCII: look closer
                                    if not _is_utf8(data, place, size):
                                        wrong = _BAD_TEXT
                                    break
                            if source == _NAME:
                                whole = _number_of_name(data, place, size)
                            elif space != _NOWHERE:
                                band = _band_code(data, place, size, band_names, band_codes)
                        elif source == _BYTES:
                            size, place = _varint(data, place, end)
                            whole = ((place - starts[packet]) << 32) | size
                        elif source == _SYMBOL:
                            whole, _ = _varint(data, place, end)
                            real = float(whole)
                            if whole < 0 or whole >= stores[k, 3]:
                                wrong = _BAD_SYMBOL
                        else:
                            whole = int(data[place] != 0)
                            real = float(whole)
                    if space == _HISTORY_FLOAT32:
                        history_f32[slot, row - 1] = real
                    elif space == _HISTORY_FLOAT64:
                        history_f64[slot, row - 1] = real
                    elif space == _HISTORY_INT64:
                        history_i64[slot, row - 1] = whole
                    elif space == _HISTORY_BAND:
                        history_band[row - 1] = band
                    elif space == _ALERT_FLOAT64:
                        alert_f64[slot, packet] = real
                    elif space == _ALERT_INT64:
                        alert_i64[slot, packet] = whole
                    elif space == _ALERT_BAND:
                        alert_band[packet] = band
                    elif whole == 1 and space == _HISTORY_FLAG:
                        history_flags[row - 1] |= np.int8(1 << slot)
                    elif whole == 1 and space == _ALERT_FLAG:
                        history_flags[first_row] |= np.int8(1 << slot)
                at = at + length if wrong == OK else -wrong
                step += 1 + count
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
                    if fewest == 0:
                        limit = _MAX_EMPTY_ITEMS + at - starts[packet] - empty_items
                    else:
                        limit = (end - at) // fewest
                    if count < 0 or count > limit:
                        at = -_TOO_MANY
                        continue
                    if fewest == 0:
                        empty_items += count
                    remaining[depth - 1] = count
                remaining[depth - 1] -= 1
                kind = steps[step, 2]
                if kind >= 0:
                    # The plan assumed longer items than this one; each packet to come needs a row.
                    if row >= history_kind.size - (starts.size - packet - 1):
                        at = -_TOO_MANY
                        continue
                    history_kind[row] = kind
                    history_flags[row] = 0
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
