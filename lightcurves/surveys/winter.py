"""WINTER, the Wide-field Infrared Transient Explorer on Palomar: ZTF's fields, but its own bands.

Sources, all in the pipeline that makes the alerts, github.com/winter-telescope/mirar:

- fields: ``mirar/pipelines/winter/config/files/avro_schema/winter.alert*.avsc``, schemas 0.3 and 0.4.
  ``isdiffpos`` is a boolean; measurements have no visit number, so their time is used.
- bands by number, and the site: ``mirar/pipelines/winter/constants.py``. 4 is a dark frame.
- magnitudes are AB, like ZTF's: ``mirar/catalog/base/base_gaia.py`` converts 2MASS's to them.
- a message is a container file: ``mirar/processors/avro/ipac_avro_exporter.py``.

The pipeline gives no effective wavelengths: these are of the Y of Hillenbrand et al. (2002, PASP 114, 708)
and of 2MASS's J and H (Cohen et al. 2003, AJ 126, 1090), which the alerts are calibrated with.
"""

from __future__ import annotations

from typing import Final

from lightcurves.columns import KIND_SOURCE
from lightcurves.surveys.declare import Band, Framing, History, Site, Survey, Units

_POINT: Final = {
    "t_mjd_tai": "jd",
    "visit": "visit",
    "band": "fid",
    "flux_njy": "magpsf",
    "sigma_njy": "sigmapsf",
    "sign": "isdiffpos",
}

WINTER: Final = Survey(
    name="winter",
    alert={
        "dia_source_id": "candid",
        "object_id": "objectid",
        "ra_deg": "candidate.ra",
        "dec_deg": "candidate.dec",
        **{column: f"candidate.{name}" for column, name in _POINT.items()},
    },
    histories=(History("prv_candidates", KIND_SOURCE, _POINT, Units.MAGNITUDE),),
    required=(
        "candid",
        "objectid",
        "candidate.boardid",
        *(f"candidate.{name}" for name in _POINT.values() if name != "visit"),
    ),
    bands=(
        Band("winter_y", 1035.0, "i", "1"),
        Band("winter_j", 1235.0, "z", "2"),
        Band("winter_hs", 1662.0, "y", "3"),
    ),
    site=Site("Palomar, WINTER", -116.866222, 33.357083, 1696.0, night_turns=5 / 6),
    framing=Framing.CONTAINER,
    schema_names=r"winter\.alert",
    numbered_bands=True,
    names=frozenset({"objectid"}),
    units=Units.MAGNITUDE,
    cutouts=("cutout_difference", "cutout_science", "cutout_template"),
    time_zero=-2_400_000.5,
    time_scale="utc",
)
"""Its bands keep their order among the features: Y takes i's place, J z's, Hs y's."""
