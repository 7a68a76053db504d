"""How the object was observed: counts, spans and gaps. No flux but what decides a detection."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS
from lightcurves.features.declare import DETECTION, TOO_FEW_POINTS, Family, Feature, Input

_TIME: Final = frozenset({Input.TIME})
_TIMED_DETECTION: Final = DETECTION | _TIME
_N_BANDS: Final = len(LSST_BANDS)
_LIMIT_SNR: Final = 5.0


@nb.njit(nogil=True, cache=True)
def _sampling(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    seen = np.zeros(_N_BANDS, np.int64)
    for k in range(out.shape[0]):
        low, high = points.offsets[k], points.offsets[k + 1]
        head = points.first[k]
        first = points.t[head]
        detections = 0
        before = 0
        last_before = np.nan
        deep = 0
        last_deep = np.nan
        last_detection = np.nan
        longest = 0.0
        seen[:] = 0
        for i in range(low, high):
            if i > low:
                longest = max(longest, points.t[i] - points.t[i - 1])
            if points.detected[i]:
                detections += 1
                last_detection = points.t[i]
                seen[points.band[i]] = 1
            elif points.t[i] < first:
                before += 1
                last_before = points.t[i]
                if points.band[i] == points.band[head] and _LIMIT_SNR * points.sigma[i] < abs(
                    points.flux[head]
                ):
                    deep += 1
                    last_deep = points.t[i]
        bands = seen.sum()
        out[k, 0] = high - low
        out[k, 1] = detections
        out[k, 2] = bands
        out[k, 3] = detections / (high - low)
        out[k, 4] = points.t[high - 1] - points.t[low]
        out[k, 5] = points.t[high - 1] - first
        out[k, 6] = before
        out[k, 7] = first - last_before
        if before == 0:
            why[k, 7] = TOO_FEW_POINTS
        out[k, 8] = np.nan
        if detections > 1:
            out[k, 8] = (last_detection - first) / (detections - 1)
        else:
            why[k, 8] = TOO_FEW_POINTS
        out[k, 9] = deep
        out[k, 10] = first - last_deep
        if deep == 0:
            why[k, 10] = TOO_FEW_POINTS
        out[k, 11] = longest


SAMPLING: Final = Family(
    "sampling",
    (
        Feature("n_points", "1", frozenset(), "number of points"),
        Feature(
            "n_detections",
            "1",
            DETECTION,
            "number of detections: flag detected, or |f|/sigma >= 5",
        ),
        Feature("n_bands", "1", DETECTION | {Input.BAND}, "bands with a detection"),
        Feature("detected_fraction", "1", DETECTION, "n_detections / n_points"),
        Feature("span_days", "d", _TIME, "time from the first to the last point"),
        Feature(
            "age_days", "d", _TIMED_DETECTION, "time from the first detection to the last point"
        ),
        Feature("n_before", "1", _TIMED_DETECTION, "points before the first detection"),
        Feature(
            "gap_before_days",
            "d",
            _TIMED_DETECTION,
            "time from the last point before the first detection to it",
            min_points=2,
        ),
        Feature(
            "detection_cadence_days",
            "d",
            _TIMED_DETECTION,
            "time from the first to the last detection, divided by n_detections - 1",
            min_points=2,
        ),
        Feature(
            "n_deep_before",
            "1",
            _TIMED_DETECTION | {Input.BAND},
            "points before the first detection, in its band, with 5 sigma < |f| of that detection",
        ),
        Feature(
            "gap_deep_before_days",
            "d",
            _TIMED_DETECTION | {Input.BAND},
            "time from the last of them to the first detection",
            min_points=2,
        ),
        Feature("longest_gap_days", "d", _TIME, "longest time between neighbouring points"),
    ),
    _sampling,
)
