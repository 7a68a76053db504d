"""What a decoded packet means, in plain Python: slow, short and independent of the kernels."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

BANDS = ("u", "g", "r", "i", "z", "y")
KINDS = ("forced", "source", "alert")


DETECTED, NEGATIVE, FLUX_FLAG, EDGE, SATURATED, BAD, COSMIC_RAY = (1 << bit for bit in range(7))
FLAGS = {
    "isNegative": NEGATIVE,
    "psfFlux_flag": FLUX_FLAG,
    "pixelFlags_edge": EDGE,
    "pixelFlags_saturated": SATURATED,
    "pixelFlags_bad": BAD,
    "pixelFlags_cr": COSMIC_RAY,
}


class Point(NamedTuple):
    """A measurement; kind 0 is forced, 1 an earlier source, 2 the alert's own."""

    t: float
    visit: int
    band: int
    flux: float
    sigma: float
    kind: int
    flags: int = 0


def chosen(points: list[Point], alert_t: float) -> tuple[list[Point], Counter[str]]:
    """The light curve with the flags of each visit and band, and how many points were left out why."""
    left_out: Counter[str] = Counter()
    best: dict[tuple[int, int], Point] = {}
    usable = []
    for point in points:
        if not point.t <= alert_t:
            left_out["later_than_alert"] += 1
        elif not (math.isfinite(point.flux) and 0 < point.sigma < math.inf):
            left_out["no_finite_flux"] += 1
        else:
            usable.append(point)
    for point in usable:
        key = (point.visit, point.band)
        if key not in best or point.kind < best[key].kind:
            best[key] = point
    for point in usable:
        winner = best[point.visit, point.band]
        if point is not winner:
            left_out["duplicate" if point.kind == winner.kind else "superseded"] += 1
    flags: dict[tuple[int, int], int] = {}
    for point in points:
        if point.t <= alert_t:
            key = (point.visit, point.band)
            flags[key] = flags.get(key, 0) | point.flags
    order = sorted(best.values(), key=lambda point: (point.visit, point.band))
    order = [point._replace(flags=flags[point.visit, point.band]) for point in order]
    return sorted(order, key=lambda point: (point.t, point.band, point.kind)), left_out


def number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def point_of(record: dict[str, Any], kind: int) -> Point:
    """A measurement as LSST's packets write it."""
    t = number(record["midpointMjdTai"])
    visit = record.get("visit")
    flags = sum(bit for name, bit in FLAGS.items() if record.get(name))
    with np.errstate(over="ignore"):
        flux = float(np.float32(number(record["psfFlux"])))
    flags |= DETECTED if kind > 0 and math.isfinite(flux) else 0
    return Point(
        t,
        int(np.float64(t).view(np.int64)) if visit is None else visit,
        BANDS.index(record["band"]) if record["band"] in BANDS else -1,
        number(record["psfFlux"]),
        number(record["psfFluxErr"]),
        kind,
        flags,
    )


def points_of(record: dict[str, Any]) -> list[Point]:
    """All that LSST's packet measured."""
    points = [point_of(record["diaSource"], 2)]
    points += [point_of(p, 1) for p in record.get("prvDiaSources") or ()]
    return points + [point_of(p, 0) for p in record.get("prvDiaForcedSources") or ()]


def row_of(record: dict[str, Any], schema_id: int = 1000) -> dict[str, Any]:
    """The row of `read_alerts` for LSST's packet that fastavro has read."""
    own = record["diaSource"]
    t = own["midpointMjdTai"]
    if t is None or not math.isfinite(t):
        return rejected("no_time")
    curve, _ = chosen(points_of(record), t)
    return {
        "survey": "lsst",
        "schema_id": schema_id,
        "dia_source_id": own["diaSourceId"],
        "object_id": own["diaObjectId"],
        "ss_object_id": own["ssObjectId"],
        "t_mjd_tai": t,
        "ra_deg": known(own["ra"]),
        "dec_deg": known(own["dec"]),
        "band": own["band"] if own["band"] in BANDS else None,
        "flux_njy": known(own["psfFlux"]),
        "sigma_njy": known(own["psfFluxErr"]),
        "light_curve": [
            {
                "t_mjd_tai": point.t,
                "band": BANDS[point.band] if point.band >= 0 else None,
                "flux_njy": point.flux,
                "sigma_njy": point.sigma,
                "kind": KINDS[point.kind],
                "flags": point.flags,
            }
            for point in curve
        ],
        "reject_reason": None,
    }


def known(value: float | None) -> float | None:
    """A number as the table has it: what is not a number is null."""
    return None if value is None or math.isnan(value) else value


def rejected(reason: str) -> dict[str, Any]:
    names = ("survey", "schema_id", "dia_source_id", "object_id", "ss_object_id", "t_mjd_tai")
    more = ("ra_deg", "dec_deg", "band", "flux_njy", "sigma_njy", "light_curve")
    return {**dict.fromkeys((*names, *more)), "reject_reason": reason}
