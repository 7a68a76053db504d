"""The rise and the fall of the brightest band: what tells a transient from a variable."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.features.declare import NO_VARIATION, TOO_FEW_POINTS, Family, Feature, Input

_SHAPE: Final = frozenset({Input.TIME, Input.BAND, Input.FLUX, Input.SIGMA})


@nb.njit(nogil=True, cache=True)
def _shape(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    for k in range(out.shape[0]):
        out[k, :] = np.nan
        low = points.offsets[k]
        peak = low
        for i in range(low, points.offsets[k + 1]):
            if abs(points.flux[i]) / points.sigma[i] > abs(points.flux[peak]) / points.sigma[peak]:
                peak = i
        b = points.band[peak]
        members = points.by_band[points.band_offsets[k, b] : points.band_offsets[k, b + 1]]
        n = members.size
        if n < 2:
            why[k, :] = TOO_FEW_POINTS
            continue
        top = 0
        for position in range(n):
            if abs(points.flux[members[position]]) > abs(points.flux[members[top]]):
                top = position
        height = points.flux[members[top]]
        t_top = points.t[members[top]]
        if height == 0:
            why[k, :] = NO_VARIATION
            continue
        begin = members[0]
        end = members[n - 1]
        if top > 0 and t_top > points.t[begin]:
            out[k, 0] = (height - points.flux[begin]) / height / (t_top - points.t[begin])
        else:
            why[k, 0] = TOO_FEW_POINTS
        if top < n - 1 and points.t[end] > t_top:
            out[k, 1] = (height - points.flux[end]) / height / (points.t[end] - t_top)
        else:
            why[k, 1] = TOO_FEW_POINTS
        above = 0.0
        crossings = 0
        for position in range(1, n):
            a = points.flux[members[position - 1]] / height > 0.5
            c = points.flux[members[position]] / height > 0.5
            if a and c:
                above += points.t[members[position]] - points.t[members[position - 1]]
            if a != c:
                crossings += 1
        out[k, 2] = above
        out[k, 3] = crossings


SHAPE: Final = Family(
    "shape",
    (
        Feature(
            "rise_rate",
            "1/d",
            _SHAPE,
            "in the band of the best |f|/sigma: (f_top - f_first)/f_top/(t_top - t_first), top = largest |f|",
            min_points=2,
        ),
        Feature(
            "decline_rate", "1/d", _SHAPE, "the same from the top to the last point", min_points=2
        ),
        Feature(
            "above_half_days",
            "d",
            _SHAPE,
            "time between neighbouring points that are both above half of f_top",
            min_points=2,
        ),
        Feature("half_crossings", "1", _SHAPE, "how often f passes half of f_top", min_points=2),
    ),
    _shape,
)
