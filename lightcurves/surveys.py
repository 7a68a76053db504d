"""Which fields of a survey's packets become which of noctule's columns. Data, not code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lightcurves.bands import BAND_CODES, LSST_BANDS
from lightcurves.errors import ConfigurationError
from lightcurves.plan import Space, Target

# Slots of the output arrays; decode.Decoded names the same columns.
ALERT_INT64: Final = ("dia_source_id", "object_id", "ss_object_id", "visit")
ALERT_FLOAT64: Final = ("t_mjd_tai", "ra_deg", "dec_deg", "flux_njy", "sigma_njy")
HISTORY_FLOAT64: Final = ("t_mjd_tai",)
HISTORY_FLOAT32: Final = ("flux_njy", "sigma_njy")
HISTORY_INT64: Final = ("visit",)

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


@dataclass(frozen=True)
class History:
    """One array of the packet whose items are points of the light curve.

    `columns` names every column of a point: one that a survey lacks gets a path that its packets
    lack, and is null.
    """

    path: str
    kind: int
    columns: dict[str, str]

    def __post_init__(self) -> None:
        """Refuse a point with a column that nothing would fill."""
        if set(self.columns) != set(_HISTORY_COLUMNS):
            raise ConfigurationError(f"{self.path} must name {', '.join(_HISTORY_COLUMNS)}")


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
        Band name in the packet to noctule's code.
    """

    name: str
    alert: dict[str, str]
    histories: tuple[History, ...]
    required: tuple[str, ...]
    bands: dict[str, int]

    def paths(self) -> tuple[str, ...]:
        """Return every dotted path that is wanted."""
        points = (
            f"{part.path}.{field}" for part in self.histories for field in part.columns.values()
        )
        return (*self.alert.values(), *points)

    def tree(self) -> dict[str, Any]:
        """Return the wanted fields as nested dictionaries that end in targets."""
        root: dict[str, Any] = {}
        for column, path in self.alert.items():
            _plant(root, path, _ALERT_COLUMNS[column])
        for part in self.histories:
            _plant(root, f"{part.path}.[]", part.kind)
            for column, name in part.columns.items():
                _plant(root, f"{part.path}.{name}", _HISTORY_COLUMNS[column])
        return root


def _plant(root: dict[str, Any], path: str, leaf: Any) -> None:
    *branches, last = path.split(".")
    for branch in branches:
        root = root.setdefault(branch, {})
    root[last] = leaf


KIND_FORCED: Final = 0
KIND_SOURCE: Final = 1
KIND_ALERT: Final = 2
KIND_NAMES: Final = ("forced", "source", "alert")
"""Kinds of a point: forced photometry, an earlier difference-image source, the alert's own."""

_LSST_POINT: Final = {
    "t_mjd_tai": "midpointMjdTai",
    "visit": "visit",
    "band": "band",
    "flux_njy": "psfFlux",
    "sigma_njy": "psfFluxErr",
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
        History("prvDiaSources", KIND_SOURCE, _LSST_POINT),
    ),
    required=tuple(
        f"diaSource.{name}" for name in ("diaSourceId", "midpointMjdTai", "psfFlux", "band")
    ),
    bands={name: BAND_CODES[name] for name in LSST_BANDS},
)

SURVEYS: Final = {LSST.name: LSST}
