"""The light-curve rules: which of a packet's measurements make the light curve, and which do not.

1. Nothing later than the alert's own time.
2. A measurement without a finite flux and a positive, finite error is left out.
3. One point per visit and band: the forced photometry, else the difference-image source, else the
   alert's own source. Its flags are those of all measurements of the visit in the band, also of those
   without a finite flux, because the flags of a failed measurement say why it failed.
4. Ascending in time; equal times by band.

In a packet without visit numbers (they may be null) the time is used instead.
"""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

N_REMOVED: Final = 4
REMOVED_NAMES: Final = ("later_than_alert", "no_finite_flux", "superseded", "duplicate")
"""Why a measurement was left out; columns of the `removed` array."""
_LATE: Final = 0
_NOT_FINITE: Final = 1
_SUPERSEDED: Final = 2
_DUPLICATE: Final = 3


@nb.njit(nogil=True, cache=True, inline="always")
def _before(first: Any, band: Any, kind: Any, i: int, j: int) -> Any:
    if first[i] != first[j]:
        return first[i] < first[j]
    if band[i] != band[j]:
        return band[i] < band[j]
    return kind[i] < kind[j]


@nb.njit(nogil=True, cache=True)
def _sort_rows(rows: Any, spare: Any, first: Any, band: Any, kind: Any) -> None:
    """Sort row numbers by (first, band, kind): a bottom-up merge that skips what is in order.

    Packets list each kind in time order, so all merges but the last few are one comparison; the
    worst case stays n log n, whatever a malicious packet contains.
    """
    count = rows.size
    width = 1
    while width < count:
        for low in range(0, count - width, 2 * width):
            mid = low + width
            high = min(mid + width, count)
            if not _before(first, band, kind, rows[mid], rows[mid - 1]):
                continue
            i = low
            j = mid
            for k in range(low, high):
                if j >= high or (i < mid and not _before(first, band, kind, rows[j], rows[i])):
                    spare[k] = rows[i]
                    i += 1
                else:
                    spare[k] = rows[j]
                    j += 1
            rows[low:high] = spare[low:high]
        width *= 2


@nb.njit(nogil=True, cache=True, inline="always")
def _is_measured(flux: Any, sigma: Any, row: int) -> Any:
    return np.isfinite(flux[row]) and np.isfinite(sigma[row]) and sigma[row] > 0


@nb.njit(nogil=True, cache=True)
def _unite(row: int, rows: Any, visit: Any, band: Any, flags: Any) -> None:
    """Add the flags of `row` to the row of its visit and band in `rows`, which are sorted by these."""
    low = 0
    high = rows.size
    while low < high:
        middle = (low + high) // 2
        other = rows[middle]
        if visit[other] < visit[row] or (visit[other] == visit[row] and band[other] < band[row]):
            low = middle + 1
        else:
            high = middle
    if low < rows.size and visit[rows[low]] == visit[row] and band[rows[low]] == band[row]:
        flags[rows[low]] |= flags[row]


@nb.njit(nogil=True, cache=True)
def apply_rules(
    offsets: Any,
    t: Any,
    visit: Any,
    band: Any,
    flux: Any,
    sigma: Any,
    kind: Any,
    flags: Any,
    alert_t: Any,
    out_rows: Any,
    out_offsets: Any,
    removed: Any,
) -> int:
    """Choose the rows of each light curve; return how many were chosen in all.

    Parameters
    ----------
    offsets
        int64 (n + 1): measurements of packet k, the alert's own source among them.
    t, visit, band, flux, sigma, kind
        Flat measurements: float64 MJD TAI, int64, int8, float32 nJy, float32 nJy, int8.
    flags
        int8, one per measurement; a chosen row receives the flags of all others of its visit and band, also
        of those without a finite flux.
    alert_t
        float64 (n): the alerts' own times.
    out_rows
        int64, as long as the measurements: receives the chosen row numbers in time order.
    out_offsets
        int64 (n + 1): receives the light curves' bounds in `out_rows`.
    removed
        int64 (n, 4): receives what was left out, by the reasons of :data:`REMOVED_NAMES`.
    """
    total = 0
    out_offsets[0] = 0
    spare = np.empty(16, np.int64)
    for k in range(alert_t.size):
        begin = total
        failed = 0  # the flags of those without a finite flux
        for row in range(offsets[k], offsets[k + 1]):
            if not t[row] <= alert_t[k]:
                removed[k, _LATE] += 1
            elif not _is_measured(flux, sigma, row):
                removed[k, _NOT_FINITE] += 1
                failed |= flags[row]
            else:
                out_rows[total] = row
                total += 1
        count = total - begin
        if spare.size < count:
            spare = np.empty(2 * count, np.int64)
        rows = out_rows[begin:total]
        _sort_rows(rows, spare, visit, band, kind)
        kept = 0
        for i in range(count):
            row = rows[i]
            if kept > 0:
                last = rows[kept - 1]
                if visit[last] == visit[row] and band[last] == band[row]:
                    flags[last] |= flags[row]
                    removed[k, _DUPLICATE if kind[last] == kind[row] else _SUPERSEDED] += 1
                    continue
            rows[kept] = row
            kept += 1
        if failed:
            for row in range(offsets[k], offsets[k + 1]):
                if flags[row] and t[row] <= alert_t[k] and not _is_measured(flux, sigma, row):
                    _unite(row, rows[:kept], visit, band, flags)
        _sort_rows(rows[:kept], spare, t, band, kind)
        total = begin + kept
        out_offsets[k + 1] = total
    return total
