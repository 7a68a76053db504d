"""The Zwicky Transient Facility: schemas 1.x to 4.x (Masci et al. 2019, PASP 131, 018003; Bellm et al. 2019).

Times are the exposures' starts. ``object_id`` is the name in base 36: ``int("ZTF18abxhyqv", 36)``. Upper
limits of ``prv_candidates`` have no flux and are left out by the light-curve rules.
"""

from __future__ import annotations

from typing import Final

from lightcurves.columns import KIND_FORCED, KIND_SOURCE
from lightcurves.surveys.declare import Band, Framing, History, Site, Survey, Units

_POINT: Final = {"t_mjd_tai": "jd", "visit": "pid", "band": "fid"}
_MAGNITUDE: Final = {
    **_POINT,
    "flux_njy": "magpsf",
    "sigma_njy": "sigmapsf",
    "sign": "isdiffpos",
}
_COUNTS: Final = {
    **_POINT,
    "flux_njy": "forcediffimflux",
    "sigma_njy": "forcediffimfluxunc",
    "zero_point": "magzpsci",
}

ZTF: Final = Survey(
    name="ztf",
    alert={
        "dia_source_id": "candid",
        "object_id": "objectId",
        "ra_deg": "candidate.ra",
        "dec_deg": "candidate.dec",
        **{column: f"candidate.{name}" for column, name in _MAGNITUDE.items()},
    },
    histories=(
        History("prv_candidates", KIND_SOURCE, _MAGNITUDE, Units.MAGNITUDE),
        History("fp_hists", KIND_FORCED, _COUNTS, Units.COUNTS),
    ),
    required=("candid", *(f"candidate.{name}" for name in _MAGNITUDE.values())),
    bands=(
        Band("ztf_g", 481.0, "g", "1"),
        Band("ztf_r", 644.0, "r", "2"),
        Band("ztf_i", 787.0, "i", "3"),
    ),
    site=Site(
        "Palomar, Samuel Oschin telescope", -116.858900, 33.357319, 1707.0, night_turns=5 / 6
    ),
    framing=Framing.CONTAINER,
    schema_names=r"ztf\.alert",
    numbered_bands=True,
    names=frozenset({"objectId", "candidate.isdiffpos", "prv_candidates.isdiffpos"}),
    units=Units.MAGNITUDE,
    cutouts=tuple(f"cutout{name}.stampData" for name in ("Difference", "Science", "Template")),
    time_zero=-2_400_000.5,
    time_scale="utc",
)
"""Wavelengths: SVO filter profiles, rounded to 1 nm. The night changes at 20:00 UTC, noon at Palomar."""
