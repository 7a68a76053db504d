"""Which fields of a survey's packets become which of noctule's columns. Data, not code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from lightcurves.bands import BAND_CODES, LSST_BANDS
from lightcurves.errors import ConfigurationError
from lightcurves.plan import Source, Space, Target

# Slots of the output arrays; decode.Columns holds the same.
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

A bit is set where a packet says so, and not where it says no or nothing. ``detected`` is said by no
field: a difference-image source is a detection.
"""
DETECTED: Final = 1 << FLAGS.index("detected")
NEGATIVE: Final = 1 << FLAGS.index("negative")
RAW: Final = {"sign", "zero_point"}
"""What only a conversion needs: the sign of a difference (`Units.MAGNITUDE`), the zero point of counts."""

_ALERT_COLUMNS: Final = {
    **{name: Target(Space.ALERT_INT64, slot) for slot, name in enumerate(ALERT_INT64)},
    **{name: Target(Space.ALERT_FLOAT64, slot) for slot, name in enumerate(ALERT_FLOAT64)},
    "band": Target(Space.ALERT_BAND, 0),
}
_HISTORY_COLUMNS: Final = {
    **{name: Target(Space.HISTORY_FLOAT64, slot) for slot, name in enumerate(HISTORY_FLOAT64)},
    **{name: Target(Space.HISTORY_FLOAT32, slot) for slot, name in enumerate(HISTORY_FLOAT32)},
    **{name: Target(Space.HISTORY_INT64, slot) for slot, name in enumerate(HISTORY_INT64)},
    "band": Target(Space.HISTORY_BAND, 0),
}
_RAW_OF: Final = {"nJy": set(), "magnitude": {"sign"}, "counts": {"zero_point"}}


class Units(StrEnum):
    """What a packet calls flux, see :mod:`lightcurves.units`."""

    NJY = "nJy"
    MAGNITUDE = "magnitude"
    COUNTS = "counts"


@dataclass(frozen=True)
class History:
    """One array of the packet whose items are points of the light curve.

    `columns` names every column of a point: one that a survey lacks gets a path that its packets
    lack, and is null. Of :data:`RAW` it names what its `units` need. `flags` names the booleans that
    set bits of :data:`FLAGS`.
    """

    path: str
    kind: int
    columns: dict[str, str]
    units: Units = Units.NJY
    flags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a point with a column that nothing would fill."""
        needed = set(_HISTORY_COLUMNS) - RAW | _RAW_OF[self.units]
        if set(self.columns) != needed:
            wanted = [name for name in _HISTORY_COLUMNS if name in needed]
            raise ConfigurationError(f"{self.path} must name {', '.join(wanted)}")


@dataclass(frozen=True)
class Survey:
    """A survey's packets as noctule reads them.

    Attributes
    ----------
    name
        ``survey`` in the tables.
    alert
        Column name to dotted path of the field in the packet.
    histories
        The arrays that hold the light curve.
    required
        Dotted paths that a schema must have; any other absent path is read as null.
    bands
        Band name in the packet to noctule's code; where packets number their bands, the numbers as
        text.
    numbered_bands
        Packets number their bands.
    names
        Dotted paths of texts that stand for numbers, see :attr:`lightcurves.plan.Source.NAME`.
    units
        Of the alert's own flux.
    cutouts
        Dotted paths of :data:`CUTOUTS`, which only :meth:`with_cutouts` reads; empty where packets have
        none.
    flags
        Name in :data:`FLAGS` to the dotted path of the boolean that says so of the alert's own source.
    time_zero, time_scale
        What is added to the packet's times to make them MJD, and whether they are TAI or UTC.
    """

    name: str
    alert: dict[str, str]
    histories: tuple[History, ...]
    required: tuple[str, ...]
    bands: dict[str, int]
    numbered_bands: bool = False
    names: frozenset[str] = frozenset()
    units: Units = Units.NJY
    cutouts: tuple[str, ...] = ()
    time_zero: float = 0.0
    time_scale: str = "tai"
    flags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse histories that could not be told apart."""
        kinds = [part.kind for part in self.histories]
        if len(set(kinds)) < len(kinds) or not set(kinds) <= {KIND_FORCED, KIND_SOURCE}:
            raise ConfigurationError(f"{self.name}: each history needs a kind of its own")
        inside = tuple(f"{part.path}." for part in self.histories)
        outside = [
            *self.alert.values(),
            *self.flags.values(),
            *(part.path for part in self.histories),
        ]
        if any(path.startswith(inside) for path in outside):
            raise ConfigurationError(
                f"{self.name}: a history lies within another, or holds a column"
            )
        paths = [*self.paths(), *inside]
        if len(set(paths)) < len(paths):
            raise ConfigurationError(f"{self.name}: two columns have one path")

    def with_cutouts(self) -> Survey:
        """Return the mapping that reads the cutouts too, where packets have some."""
        return replace(self, alert={**self.alert, **dict(zip(CUTOUTS, self.cutouts, strict=False))})

    def without_history(self) -> Survey:
        """Return the mapping that steps over the histories: a light curve has the alert's own point."""
        return replace(self, histories=())

    @property
    def is_raw(self) -> bool:
        """Whether anything must be converted, see :mod:`lightcurves.units`."""
        flux = {self.units, *(part.units for part in self.histories)} - {Units.NJY}
        return bool(flux or self.time_zero or self.time_scale != "tai" or self.numbered_bands)

    def paths(self) -> tuple[str, ...]:
        """Return every dotted path that is wanted."""
        points = (
            f"{part.path}.{name}"
            for part in self.histories
            for name in (*part.columns.values(), *part.flags.values())
        )
        return (*self.alert.values(), *self.flags.values(), *points)

    def tree(self) -> dict[str, Any]:
        """Return the wanted fields as nested dictionaries that end in targets."""
        root: dict[str, Any] = {}
        for column, path in self.alert.items():
            _plant(root, path, self._target(_ALERT_COLUMNS[column], path))
        for flag, path in self.flags.items():
            _plant(root, path, Target(Space.ALERT_FLAG, FLAGS.index(flag)))
        for part in self.histories:
            _plant(root, f"{part.path}.[]", part.kind)
            for column, name in part.columns.items():
                path = f"{part.path}.{name}"
                _plant(root, path, self._target(_HISTORY_COLUMNS[column], path))
            for flag, name in part.flags.items():
                bit = FLAGS.index(flag)
                _plant(root, f"{part.path}.{name}", Target(Space.HISTORY_FLAG, bit))
        return root

    def _target(self, target: Target, path: str) -> Target:
        if path in self.cutouts:
            return replace(target, special=Source.BYTES)
        return replace(target, special=Source.NAME if path in self.names else None)


def _plant(root: dict[str, Any], path: str, leaf: Any) -> None:
    *branches, last = path.split(".")
    for branch in branches:
        root = root.setdefault(branch, {})
    root[last] = leaf


_LSST_POINT: Final = {
    "t_mjd_tai": "midpointMjdTai",
    "visit": "visit",
    "band": "band",
    "flux_njy": "psfFlux",
    "sigma_njy": "psfFluxErr",
}
_LSST_FLAGS: Final = {
    "negative": "isNegative",
    "flux_flag": "psfFlux_flag",
    "edge": "pixelFlags_edge",
    "saturated": "pixelFlags_saturated",
    "bad": "pixelFlags_bad",
    "cosmic_ray": "pixelFlags_cr",
}

LSST: Final = Survey(
    name="lsst",
    alert={
        "dia_source_id": "diaSource.diaSourceId",
        "object_id": "diaSource.diaObjectId",
        "ss_object_id": "diaSource.ssObjectId",
        "ra_deg": "diaSource.ra",
        "dec_deg": "diaSource.dec",
        **{column: f"diaSource.{name}" for column, name in _LSST_POINT.items()},
    },
    histories=(
        History("prvDiaForcedSources", KIND_FORCED, _LSST_POINT),
        History("prvDiaSources", KIND_SOURCE, _LSST_POINT, flags=_LSST_FLAGS),
    ),
    required=tuple(
        f"diaSource.{name}" for name in ("diaSourceId", "midpointMjdTai", "psfFlux", "band")
    ),
    bands={name: BAND_CODES[name] for name in LSST_BANDS},
    cutouts=("cutoutDifference", "cutoutScience", "cutoutTemplate"),
    flags={flag: f"diaSource.{name}" for flag, name in _LSST_FLAGS.items()},
)

_ZTF_POINT: Final = {"t_mjd_tai": "jd", "visit": "pid", "band": "fid"}
_ZTF_MAGNITUDE: Final = {
    **_ZTF_POINT,
    "flux_njy": "magpsf",
    "sigma_njy": "sigmapsf",
    "sign": "isdiffpos",
}
_ZTF_COUNTS: Final = {
    **_ZTF_POINT,
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
        **{column: f"candidate.{name}" for column, name in _ZTF_MAGNITUDE.items()},
    },
    histories=(
        History("prv_candidates", KIND_SOURCE, _ZTF_MAGNITUDE, Units.MAGNITUDE),
        History("fp_hists", KIND_FORCED, _ZTF_COUNTS, Units.COUNTS),
    ),
    required=("candid", *(f"candidate.{name}" for name in _ZTF_MAGNITUDE.values())),
    bands={"1": BAND_CODES["ztf_g"], "2": BAND_CODES["ztf_r"], "3": BAND_CODES["ztf_i"]},
    numbered_bands=True,
    names=frozenset({"objectId", "candidate.isdiffpos", "prv_candidates.isdiffpos"}),
    units=Units.MAGNITUDE,
    cutouts=tuple(f"cutout{name}.stampData" for name in ("Difference", "Science", "Template")),
    time_zero=-2_400_000.5,
    time_scale="utc",
)
"""ZTF alerts, schemas 1.x to 4.x (Masci et al. 2019, PASP 131, 018003; Bellm et al. 2019).

Times are the exposures' starts. ``object_id`` is the name in base 36: ``int("ZTF18abxhyqv", 36)``.
Upper limits of ``prv_candidates`` have no flux and are left out by the light-curve rules.
"""

SURVEYS: Final = {survey.name: survey for survey in (LSST, ZTF)}


def survey_of(schema: Any) -> Survey:
    """Return the survey that a writer's schema belongs to, by its name; LSST where no name says."""
    name = str(schema.get("name", "")) if isinstance(schema, dict) else ""
    return SURVEYS.get(name.partition(".")[0], LSST)
