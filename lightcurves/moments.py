"""What a packet contains at a given moment: the history that was visible then, and no later point.

The simulator and the training set use the same rule, so that a model learns from what it will score.
The rule is ELAsTiCC's: earlier detections are always there; forced photometry appears once the
object has been known for a day, and reaches back 30 days before its discovery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lightcurves.columns import KIND_ALERT, KIND_FORCED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightcurves.arrays import LightCurves

FORCED_DELAY_DAYS: Final = 1.0
FORCED_REACH_DAYS: Final = 30.0


def detections(curves: LightCurves) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the light curve and the point number of every detection, in order.

    Returns
    -------
    curve, point
        int64: detection d is point ``point[d]`` of the flat arrays and lies in light curve
        ``curve[d]``.
    """
    owner = np.repeat(np.arange(len(curves)), curves.counts())
    point = np.flatnonzero(curves.kind != KIND_FORCED)
    return owner[point], point


def as_of(curves: LightCurves, curve: NDArray[np.int64], point: NDArray[np.int64]) -> LightCurves:
    """Return the light curves as the packets of the given detections show them.

    Parameters
    ----------
    curves
        Whole light curves in time order.
    curve, point
        From :func:`detections`, or a part of it: one new light curve for each.

    Returns
    -------
    LightCurves
        The alert's own detection has kind "alert"; nothing is later than it.
    """
    known, first_point = detections(curves)
    first = np.full(len(curves), np.nan)
    first[known[::-1]] = curves.t_mjd_tai[first_point[::-1]]
    pieces = [
        _visible(curves, int(k), int(p), float(first[k])) for k, p in zip(curve, point, strict=True)
    ]
    offsets = np.concatenate([[0], np.cumsum([piece.size for piece in pieces])]).astype(np.int64)
    rows = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    shown = curves.take(rows, offsets)
    shown.kind[offsets[1:] - 1] = KIND_ALERT
    return shown


def _visible(curves: LightCurves, curve: int, point: int, first: float) -> NDArray[np.int64]:
    """Return the points that the packet of detection `point` shows, its own last."""
    now = curves.t_mjd_tai[point]
    rows = np.arange(curves.offsets[curve], curves.offsets[curve + 1])
    t = curves.t_mjd_tai[rows]
    forced = curves.kind[rows] == KIND_FORCED
    known_long_enough = now - first >= FORCED_DELAY_DAYS
    shown = (t <= now) & (rows != point)
    shown &= ~forced | (known_long_enough & (t >= first - FORCED_REACH_DAYS))
    return np.append(rows[shown], point)
