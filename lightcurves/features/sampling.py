"""How the object was observed: counts, spans and gaps. No flux but what decides a detection."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.bands import LSST_BANDS
from lightcurves.features.declare import TOO_FEW_POINTS, Family, Feature, Input

_TIME: Final = frozenset({Input.TIME})
_DETECTIONS: Final = frozenset({Input.FLUX, Input.SIGMA, Input.KIND})
_TIMED_DETECTIONS: Final = _DETECTIONS | _TIME
_N_BANDS: Final = len(LSST_BANDS)


@nb.njit(nogil=True, cache=True)
def _sampling(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    for k in range(out.shape[0]):
        low, high = points.offsets[k], points.offsets[k + 1]
        first = points.first[k]
        detections = 0
        before = 0
        last_before = np.nan
        last_detection = np.nan
        bands = 0
        for b in range(_N_BANDS):
            for i in points.by_band[points.band_offsets[k, b] : points.band_offsets[k, b + 1]]:
                if points.detected[i]:
                    bands += 1
                    break
        for i in range(low, high):
            if points.detected[i]:
                detections += 1
                last_detection = points.t[i]
            elif points.t[i] < first:
                before += 1
                last_before = points.t[i]
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


SAMPLING: Final = Family(
    "sampling",
    (
        Feature("n_points", "1", frozenset(), "number of points"),
        Feature(
            "n_detections",
            "1",
            _DETECTIONS,
            "number of detections: kind source or alert, or |f|/sigma >= 5",
        ),
        Feature("n_bands", "1", _DETECTIONS | {Input.BAND}, "bands with a detection"),
        Feature("detected_fraction", "1", _DETECTIONS, "n_detections / n_points"),
        Feature("span_days", "d", _TIME, "time from the first to the last point"),
        Feature(
            "age_days", "d", _TIMED_DETECTIONS, "time from the first detection to the last point"
        ),
        Feature("n_before", "1", _TIMED_DETECTIONS, "points before the first detection"),
        Feature(
            "gap_before_days",
            "d",
            _TIMED_DETECTIONS,
            "time from the last point before the first detection to it",
            min_points=2,
        ),
        Feature(
            "detection_cadence_days",
            "d",
            _TIMED_DETECTIONS,
            "time from the first to the last detection, divided by n_detections - 1",
            min_points=2,
        ),
    ),
    _sampling,
)
