"""Makes LSST alert packets, schema 10.0, Confluent framing, from the objects of a light-curve folder.

Each detection gives one packet, made only of what :func:`lightcurves.moments.as_of` shows at that
moment: the detection is ``diaSource``, earlier detections are ``prvDiaSources``, and measurements
that are not detections are ``prvDiaForcedSources``. (In Rubin's packets a detection has forced
photometry too; a light-curve folder has one measurement per visit, and so has the packet.)
``docs/simulator.md`` says how each field is filled.

A packet's bytes are those that fastavro writes for the whole record. They are put together from
the encodings of its parts, and fastavro encodes each measurement once per object: an object's
packets repeat its history, and encoding that again takes 4 ms per packet with 150 points, 40 ms with 1,000.
"""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import fastavro
import numpy as np

from lightcurves.arrays import LightCurves, light_curves_of
from lightcurves.bands import LSST_BANDS
from lightcurves.columns import KIND_FORCED
from lightcurves.errors import ConfigurationError
from lightcurves.folders import read_light_curves
from lightcurves.moments import as_of, detections
from lightcurves.schemas import SchemaSource, package_schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

SCHEMA_ID: Final = 1000
FRAME: Final = b"\0" + SCHEMA_ID.to_bytes(4, "big")

_MICROSECONDS_PER_DAY: Final = 86_400_000_000
_KEPT_OBJECTS: Final = 2_000  # 50 MB where an object has 180 points

_NULL: Final = b"\0"  # the first branch of ["null", ...]
_PRESENT: Final = b"\2"  # its second branch
_NO_MORE_BLOCKS: Final = b"\0"


def visit_of(t_mjd_tai: float) -> int:
    """Return the visit number of a time: microseconds since MJD 0.

    Increases with time and stays below 2**53 until the year 2144. Times that are less than a
    microsecond apart share a visit.
    """
    return round(t_mjd_tai * _MICROSECONDS_PER_DAY)


def measurement_id(object_id: int, number: int, *, forced: bool) -> int:
    """Return the identifier of an object's measurement: 63 bits of a hash, the same in every run.

    A hash accepts any int64 as object id, which arithmetic would not; two of a million
    measurements collide with probability 5e-8.

    Parameters
    ----------
    object_id
        Any int64.
    number
        Which of the object's detections, or of its forced measurements, counted in time from 0.
    forced
        Whether forced measurements are counted.
    """
    text = struct.pack(">qq?", object_id, number, forced)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def alert_schema(schemas: SchemaSource | None = None) -> dict[str, Any]:
    """Return LSST's alert schema 10.0, from the installed ``lsst-alert-packet`` by default.

    Raises
    ------
    ConfigurationError
        The source does not have it.
    """
    schema = (package_schemas() if schemas is None else schemas).schema(SCHEMA_ID)
    if schema is None:
        raise ConfigurationError("the schema source lacks LSST's alert schema 10.0 (id 1000)")
    return schema


class AlertWriter:
    """Encodes the parts of an alert, and puts them together into a framed packet.

    Parameters
    ----------
    schema
        The schema of LSST alerts, version 10.0.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        types = {field["name"]: field["type"] for field in schema["fields"]}
        self._fields = tuple(types)
        self._source = fastavro.parse_schema(types["diaSource"])
        self._forced = fastavro.parse_schema(types["prvDiaForcedSources"][1]["items"])
        self._object = fastavro.parse_schema(types["diaObject"][1])

    def source(self, record: dict[str, Any]) -> bytes:
        """Return an encoded ``diaSource``, which is also an item of ``prvDiaSources``."""
        return _encode(self._source, record)

    def forced(self, record: dict[str, Any]) -> bytes:
        """Return an encoded item of ``prvDiaForcedSources``."""
        return _encode(self._forced, record)

    def packet(
        self,
        dia_source_id: int,
        source: bytes,
        previous: list[bytes],
        forced: list[bytes],
        dia_object: dict[str, Any],
    ) -> bytes:
        """Return the framed packet of the encoded measurements; all other fields are null."""
        parts = {
            "diaSourceId": _encode("long", dia_source_id),
            "diaSource": source,
            "prvDiaSources": _array(previous),
            "prvDiaForcedSources": _array(forced),
            "diaObject": _PRESENT + _encode(self._object, dia_object),
        }
        return FRAME + b"".join(parts.get(name, _NULL) for name in self._fields)


def _encode(schema: Any, record: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def _array(items: list[bytes]) -> bytes:
    """Return a nullable array of encoded items in one block; an empty one is null."""
    if not items:
        return _NULL
    return b"".join([_PRESENT, _encode("long", len(items)), *items, _NO_MORE_BLOCKS])


class _Target(NamedTuple):
    """One object: its id, its position, all its measurements."""

    object_id: int
    ra_deg: float
    dec_deg: float
    curve: LightCurves


@dataclass(frozen=True)
class _History:
    """One object's measurements, each with its identifier and its encoding."""

    target: _Target
    ids: list[int]
    encoded: list[bytes]

    def visible(self, point: int) -> NDArray[np.int64]:
        """Return the points that the packet of detection `point` shows, its own last.

        :func:`~lightcurves.moments.as_of` does not look at the flux, so with a light curve
        whose fluxes are the numbers of its points, the result shows which it chose (exact to 2**24 points).
        """
        curve = self.target.curve
        numbered = replace(curve, flux_njy=np.arange(len(self.ids), dtype=np.float32))
        shown = as_of(numbered, np.zeros(1, np.int64), np.array([point]))
        return shown.flux_njy.astype(np.int64)

    def packet(self, point: int, writer: AlertWriter) -> bytes:
        """Return the packet of detection `point`."""
        *earlier, own = self.visible(point).tolist()
        is_forced = (self.target.curve.kind == KIND_FORCED).tolist()
        previous = [row for row in earlier if not is_forced[row]]
        return writer.packet(
            self.ids[own],
            self.encoded[own],
            [self.encoded[row] for row in previous],
            [self.encoded[row] for row in earlier if is_forced[row]],
            self._object_record([*previous, own]),
        )

    def _object_record(self, seen: list[int]) -> dict[str, Any]:
        first, last = self.target.curve.t_mjd_tai[[seen[0], seen[-1]]].tolist()
        return {
            "diaObjectId": self.target.object_id,
            "validityStartMjdTai": last,
            "ra": self.target.ra_deg,
            "dec": self.target.dec_deg,
            "firstDiaSourceMjdTai": first,
            "lastDiaSourceMjdTai": last,
            "nDiaSources": len(seen),
        }


class SimulatedAlerts:
    """Every alert of a set of objects, numbered in the order of time.

    Alerts with the same time are in the order of their objects' ids. A packet is made when it is requested;
    the encoded measurements of the last 2,000 objects are cached.

    Parameters
    ----------
    objects
        From :func:`lightcurves.folders.read_light_curves`: points of kind "source" are detections.
        A point without a finite flux or error goes into packets as null.
    schemas
        Where the schema comes from; the installed ``lsst-alert-packet`` by default.

    Attributes
    ----------
    object_id, t_mjd_tai
        int64 and float64 (alerts).

    Raises
    ------
    ConfigurationError
        An object has no position, which packets need, or there is no schema 10.0.
    """

    def __init__(self, objects: pa.Table, schemas: SchemaSource | None = None) -> None:
        self._curves = light_curves_of(objects)
        self._ids = objects["object_id"].to_numpy()
        self._position = np.stack([objects[name].to_numpy() for name in ("ra_deg", "dec_deg")])
        self._check_positions()
        self._writer = AlertWriter(alert_schema(schemas))
        self._history = lru_cache(_KEPT_OBJECTS)(self._encode_history)
        row, point = detections(self._curves)
        order = np.lexsort((point, self._ids[row], self._curves.t_mjd_tai[point]))
        self._row, self._point = row[order], point[order]
        self.object_id: NDArray[np.int64] = self._ids[self._row]
        self.t_mjd_tai: NDArray[np.float64] = self._curves.t_mjd_tai[self._point]

    @classmethod
    def of_folder(cls, folder: Path) -> SimulatedAlerts:
        """Return the alerts of a light-curve folder's objects."""
        return cls(read_light_curves(folder))

    def __len__(self) -> int:
        """Return the number of alerts."""
        return self._point.size

    def __iter__(self) -> Iterator[bytes]:
        """Yield every packet in the order of time."""
        return (self.packet(number) for number in range(len(self)))

    def packet(self, number: int) -> bytes:
        """Return the framed packet of an alert; the same bytes every time."""
        row = int(self._row[number])
        return self._history(row).packet(
            int(self._point[number] - self._curves.offsets[row]), self._writer
        )

    def digest(self) -> str:
        """Return a digest of which object has an alert when; a position in the stream belongs to a digest."""
        parts = self.object_id.tobytes() + self.t_mjd_tai.tobytes()
        return hashlib.sha256(parts).hexdigest()[:16]

    def _check_positions(self) -> None:
        lost = self._ids[~np.isfinite(self._position).all(axis=0)]
        if lost.size:
            raise ConfigurationError(
                f"{lost.size} object(s) have no ra_deg or dec_deg, {lost[0]} among them: an alert "
                "packet needs a position"
            )

    def _encode_history(self, row: int) -> _History:
        points = np.arange(self._curves.offsets[row], self._curves.offsets[row + 1])
        curve = self._curves.take(points, np.array([0, points.size]))
        ra_deg, dec_deg = self._position[:, row].tolist()
        target = _Target(int(self._ids[row]), ra_deg, dec_deg, curve)
        ids = _measurement_ids(target.object_id, curve.kind == KIND_FORCED)
        return _History(target, ids, _encode_points(self._writer, target, ids))


def _measurement_ids(object_id: int, forced: NDArray[np.bool_]) -> list[int]:
    number = np.where(forced, np.cumsum(forced), np.cumsum(~forced)) - 1
    return [
        measurement_id(object_id, which, forced=is_forced)
        for which, is_forced in zip(number.tolist(), forced.tolist(), strict=True)
    ]


def _encode_points(writer: AlertWriter, target: _Target, ids: list[int]) -> list[bytes]:
    """Return each measurement as the record of its kind."""
    place = {"diaObjectId": target.object_id, "ra": target.ra_deg, "dec": target.dec_deg}
    kinds = target.curve.kind.tolist()
    return [
        writer.forced({"diaForcedSourceId": name, **place, **record})
        if kind == KIND_FORCED
        else writer.source({"diaSourceId": name, **place, **record, **_detection_fields(record)})
        for name, record, kind in zip(ids, _shared_fields(target.curve), kinds, strict=True)
    ]


def _shared_fields(curve: LightCurves) -> Iterator[dict[str, Any]]:
    """Return the fields that a source and a forced measurement have in common.

    There is no image, so ``detector`` (and a source's ``x`` and ``y``) are 0; a measurement is
    processed at the very time it is made.
    """
    columns = (curve.t_mjd_tai, curve.band, curve.flux_njy, curve.sigma_njy)
    for t, band, flux, sigma in zip(*(column.tolist() for column in columns), strict=True):
        yield {
            "visit": visit_of(t),
            "detector": 0,
            "midpointMjdTai": t,
            "timeProcessedMjdTai": t,
            "band": LSST_BANDS[band] if 0 <= band < len(LSST_BANDS) else None,
            "psfFlux": flux if np.isfinite(flux) else None,
            "psfFluxErr": sigma if np.isfinite(sigma) else None,
        }


def _detection_fields(record: dict[str, Any]) -> dict[str, Any]:
    flux, sigma = record["psfFlux"], record["psfFluxErr"]
    return {"x": 0.0, "y": 0.0, "snr": abs(flux) / sigma if flux is not None and sigma else None}
