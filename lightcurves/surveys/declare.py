"""What a survey declares, as data: its packets' fields, its bands, its site, its framing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from lightcurves.columns import (
    ALERT_TARGETS,
    CUTOUTS,
    FLAGS,
    HISTORY_TARGETS,
    KIND_FORCED,
    KIND_SOURCE,
    Source,
    Space,
    Target,
)
from lightcurves.errors import ConfigurationError

FEATURE_BANDS: Final = ("u", "g", "r", "i", "z", "y")
"""The bands that features know, from blue to red: LSST's, whose places the bands of other surveys take."""

RAW: Final = {"sign", "zero_point"}
"""Needed for conversions alone: the sign of a difference (`Units.MAGNITUDE`), the zero point of counts."""

_RAW_OF: Final = {"nJy": set(), "magnitude": {"sign"}, "counts": {"zero_point"}}


class Units(StrEnum):
    """The units of a packet's fluxes, see :mod:`lightcurves.units`."""

    NJY = "nJy"
    MAGNITUDE = "magnitude"
    COUNTS = "counts"


class Framing(StrEnum):
    """How a survey's packets are framed in Kafka's messages."""

    CONFLUENT = "Confluent frames"
    """Byte 0, the schema's id in 4 bytes, the Avro body."""
    CONTAINER = "whole Avro container files"
    """Each message contains its schema."""


_LONGEST_BAND: Final = 8  # bytes; the interpreter compares that many


@dataclass(frozen=True)
class Band:
    """A band of a survey.

    Attributes
    ----------
    name
        In noctule's tables; unique among all surveys' bands.
    wavelength_nm
        Effective wavelength.
    counts_as
        The one of :data:`FEATURE_BANDS` whose place it takes among the features. A model is trained on one
        survey, so what matters is that a survey's bands keep their order.
    in_packets
        Its name in packets, up to 8 bytes; a number as text if packets number their bands. By default
        `name`.
    """

    name: str
    wavelength_nm: float
    counts_as: str
    in_packets: str = ""

    def __post_init__(self) -> None:
        """Fill in `in_packets`; refuse an unknown feature band, or a name that packets cannot have."""
        if self.counts_as not in FEATURE_BANDS:
            known = ", ".join(FEATURE_BANDS)
            raise ConfigurationError(f"band {self.name} counts as {self.counts_as}: not of {known}")
        object.__setattr__(self, "in_packets", self.in_packets or self.name)
        if not 0 < len(self.in_packets.encode()) <= _LONGEST_BAND:
            raise ConfigurationError(f"band {self.name}: packets spell it in 1 to 8 bytes")


@dataclass(frozen=True)
class Site:
    """Where a survey observes.

    Attributes
    ----------
    name
        For people.
    longitude_deg, latitude_deg, height_m
        Geodetic, east and north positive.
    night_turns
        Fraction of a day (MJD, in [0, 1)) at which one night ends and the next begins, around noon at
        the site.
    """

    name: str
    longitude_deg: float
    latitude_deg: float
    height_m: float
    night_turns: float


@dataclass(frozen=True)
class History:
    """One array of the packet whose items are points of the light curve.

    `columns` names every column of a point: a column that a survey does not have gets a path that its
    packets do not have, and is null. Of :data:`RAW` it names the columns that its `units` need. `flags`
    names the booleans that set bits of :data:`FLAGS`.
    """

    path: str
    kind: int
    columns: dict[str, str]
    units: Units = Units.NJY
    flags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a history in which a column of a point has no path."""
        needed = set(HISTORY_TARGETS) - RAW | _RAW_OF[self.units]
        if set(self.columns) != needed:
            wanted = [name for name in HISTORY_TARGETS if name in needed]
            raise ConfigurationError(f"{self.path} must name {', '.join(wanted)}")


@dataclass(frozen=True)
class Survey:
    """A survey as noctule reads it.

    Attributes
    ----------
    name
        ``survey`` in the tables.
    alert
        Column name to dotted path of the field in the packet.
    histories
        The arrays that contain the light curve.
    required
        Dotted paths of the fields that its schemas must have and by which they are recognised, whatever the
        schemas' names; any other absent path is read as null.
    bands
        Its bands, from blue to red.
    site
        Where it observes; its nights are those of an alert.
    framing
        How its packets are framed in Kafka's messages.
    schema_names
        The names of its schemas, a regular expression; its groups are a schema's version.
    numbered_bands
        Packets number their bands.
    names
        Dotted paths of texts that are converted to numbers, see :attr:`lightcurves.columns.Source.NAME`.
    units
        Of the alert's own flux.
    cutouts
        Dotted paths of :data:`CUTOUTS`, which only :meth:`with_cutouts` reads; empty if packets have
        none.
    flags
        Name in :data:`FLAGS` to the dotted path of its boolean for the alert's own source.
    time_zero, time_scale
        What is added to the packet's times to make them MJD, and whether they are TAI or UTC.
    """

    name: str
    alert: dict[str, str]
    histories: tuple[History, ...]
    required: tuple[str, ...]
    bands: tuple[Band, ...]
    site: Site
    framing: Framing
    schema_names: str
    numbered_bands: bool = False
    names: frozenset[str] = frozenset()
    units: Units = Units.NJY
    cutouts: tuple[str, ...] = ()
    time_zero: float = 0.0
    time_scale: str = "tai"
    flags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse histories that cannot be distinguished."""
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
        """Return the mapping that reads the cutouts too, if packets have any."""
        return replace(self, alert={**self.alert, **dict(zip(CUTOUTS, self.cutouts, strict=False))})

    def without_history(self) -> Survey:
        """Return the mapping that skips the histories: a light curve has only the alert's own point."""
        return replace(self, histories=())

    @property
    def is_raw(self) -> bool:
        """Whether units must be converted, see :mod:`lightcurves.units`."""
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
            _plant(root, path, self._target(ALERT_TARGETS[column], path))
        for flag, path in self.flags.items():
            _plant(root, path, Target(Space.ALERT_FLAG, FLAGS.index(flag)))
        for part in self.histories:
            _plant(root, f"{part.path}.[]", part.kind)
            for column, name in part.columns.items():
                path = f"{part.path}.{name}"
                _plant(root, path, self._target(HISTORY_TARGETS[column], path))
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
