"""The columns of decoded packets: where each value of a packet is stored, and the arrays of columns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CUTOUTS: Final = ("cutout_difference", "cutout_science", "cutout_template")
ALERT_INT64: Final = ("dia_source_id", "object_id", "ss_object_id", "visit", "sign", *CUTOUTS)
ALERT_FLOAT64: Final = ("t_mjd_tai", "ra_deg", "dec_deg", "flux_njy", "sigma_njy")
HISTORY_FLOAT64: Final = ("t_mjd_tai",)
HISTORY_FLOAT32: Final = ("flux_njy", "sigma_njy", "zero_point")
HISTORY_INT64: Final = ("visit", "sign")
KIND_FORCED: Final = 0
KIND_SOURCE: Final = 1
KIND_ALERT: Final = 2
KIND_NAMES: Final = ("forced", "source", "alert")
"""Kinds of a point: forced photometry, an earlier difference-image source, the alert's own."""

FLAGS: Final = ("detected", "negative", "flux_flag", "edge", "saturated", "bad", "cosmic_ray")
"""Bits of a point's flags, the first the lowest; see ``docs/alerts.md``.

A bit is set if the packet says so, and not set if it says no or does not say. No field says
``detected``: every difference-image source is a detection.
"""
DETECTED: Final = 1 << FLAGS.index("detected")
NEGATIVE: Final = 1 << FLAGS.index("negative")


class Source(IntEnum):
    """How a value is stored in the packet."""

    VARINT = 0
    FLOAT = 1
    DOUBLE = 2
    STRING = 3
    BOOLEAN = 4
    SYMBOL = 5
    """An enum's, a number."""
    NAME = 6
    """Text that stands for a number: up to 12 letters and digits, read in base 36."""
    BYTES = 7
    """Where bytes are: their start, counted from the packet's, times 2**32, plus their number."""


class Space(IntEnum):
    """Which output array a value is stored in, with one row per alert or per history row."""

    ALERT_FLOAT64 = 0
    ALERT_INT64 = 1
    ALERT_BAND = 2
    HISTORY_FLOAT64 = 3
    HISTORY_FLOAT32 = 4
    HISTORY_INT64 = 5
    HISTORY_BAND = 6
    NOWHERE = 7
    """The value is checked but not stored: is the text UTF-8, does the enum have the symbol."""
    ALERT_FLAG = 8
    """Sets a bit of the flags, as HISTORY_FLAG: of the row that is kept for the alert's own source."""
    HISTORY_FLAG = 9


@dataclass(frozen=True)
class Target:
    """Where one field of the packet goes; `special` where it is read as a NAME or as BYTES."""

    space: Space
    slot: int
    special: Source | None = None


ALERT_TARGETS: Final = {
    **{name: Target(Space.ALERT_INT64, slot) for slot, name in enumerate(ALERT_INT64)},
    **{name: Target(Space.ALERT_FLOAT64, slot) for slot, name in enumerate(ALERT_FLOAT64)},
    "band": Target(Space.ALERT_BAND, 0),
}
HISTORY_TARGETS: Final = {
    **{name: Target(Space.HISTORY_FLOAT64, slot) for slot, name in enumerate(HISTORY_FLOAT64)},
    **{name: Target(Space.HISTORY_FLOAT32, slot) for slot, name in enumerate(HISTORY_FLOAT32)},
    **{name: Target(Space.HISTORY_INT64, slot) for slot, name in enumerate(HISTORY_INT64)},
    "band": Target(Space.HISTORY_BAND, 0),
}


class Columns(NamedTuple):
    """Decoded packets before the light-curve rules: (columns, packets) and (columns, rows)."""

    alert_f64: NDArray[np.float64]
    alert_i64: NDArray[np.int64]
    alert_band: NDArray[np.int8]
    history_f64: NDArray[np.float64]
    history_f32: NDArray[np.float32]
    history_i64: NDArray[np.int64]
    history_band: NDArray[np.int8]
    history_kind: NDArray[np.int8]
    history_flags: NDArray[np.int8]
    offsets: NDArray[np.int64]
    errors: NDArray[np.int8]
