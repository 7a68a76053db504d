"""The Legacy Survey of Space and Time: Rubin's alerts, schemas 5.0 to 11.1."""

from __future__ import annotations

from typing import Final

from lightcurves.columns import KIND_FORCED, KIND_SOURCE
from lightcurves.surveys.declare import FEATURE_BANDS, Band, Framing, History, Site, Survey

_POINT: Final = {
    "t_mjd_tai": "midpointMjdTai",
    "visit": "visit",
    "band": "band",
    "flux_njy": "psfFlux",
    "sigma_njy": "psfFluxErr",
}
_FLAGS: Final = {
    "negative": "isNegative",
    "flux_flag": "psfFlux_flag",
    "edge": "pixelFlags_edge",
    "saturated": "pixelFlags_saturated",
    "bad": "pixelFlags_bad",
    "cosmic_ray": "pixelFlags_cr",
}
_WAVELENGTHS_NM: Final = (368.0, 478.0, 622.0, 754.0, 869.0, 971.0)

LSST: Final = Survey(
    name="lsst",
    alert={
        "dia_source_id": "diaSource.diaSourceId",
        "object_id": "diaSource.diaObjectId",
        "ss_object_id": "diaSource.ssObjectId",
        "ra_deg": "diaSource.ra",
        "dec_deg": "diaSource.dec",
        **{column: f"diaSource.{name}" for column, name in _POINT.items()},
    },
    histories=(
        History("prvDiaForcedSources", KIND_FORCED, _POINT),
        History("prvDiaSources", KIND_SOURCE, _POINT, flags=_FLAGS),
    ),
    required=tuple(
        f"diaSource.{name}" for name in ("diaSourceId", "midpointMjdTai", "psfFlux", "band")
    ),
    bands=tuple(
        Band(name, nm, name) for name, nm in zip(FEATURE_BANDS, _WAVELENGTHS_NM, strict=True)
    ),
    site=Site("Cerro Pachon", -70.749417, -30.244639, 2663.0, night_turns=0.5),
    framing=Framing.CONFLUENT,
    schema_names=r"lsst\.v([0-9]{1,5})_([0-9]{1,2})\.alert",
    cutouts=("cutoutDifference", "cutoutScience", "cutoutTemplate"),
    flags={flag: f"diaSource.{name}" for flag, name in _FLAGS.items()},
)
"""Wavelengths: Ivezic et al. 2019 (ApJ 873, 111). The night changes at 12:00 UTC, like Rubin's
``day_obs``: after sunrise on Cerro Pachon in every season, and long before sunset.
"""
