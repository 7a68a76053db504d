"""Light curves as flat arrays with offsets: the form that every kernel works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from lightcurves.bands import BAND_CODES, BAND_NAMES
from lightcurves.columns import DETECTED, KIND_FORCED, KIND_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BAND_TYPE: Final = pa.dictionary(pa.int8(), pa.string())
KIND_TYPE: Final = pa.dictionary(pa.int8(), pa.string())
POINT_TYPE: Final = pa.struct(
    [
        ("t_mjd_tai", pa.float64()),
        ("band", BAND_TYPE),
        ("flux_njy", pa.float32()),
        ("sigma_njy", pa.float32()),
        ("kind", KIND_TYPE),
        ("flags", pa.int8()),
    ]
)
LIGHT_CURVE_TYPE: Final = pa.list_(POINT_TYPE)


@dataclass(frozen=True)
class LightCurves:
    """Many light curves, one after the other.

    Attributes
    ----------
    offsets
        int64 (n + 1): the points of light curve k are ``offsets[k]:offsets[k + 1]``.
    t_mjd_tai
        float64 (points): MJD TAI, days; ascending within a light curve.
    band
        int8: codes of :mod:`lightcurves.bands`, -1 unknown.
    flux_njy, sigma_njy
        float32: difference flux and its standard error, nJy.
    kind
        int8: index into :data:`lightcurves.columns.KIND_NAMES`.
    flags
        int8: bits of :data:`lightcurves.columns.FLAGS`.
    """

    offsets: NDArray[np.int64]
    t_mjd_tai: NDArray[np.float64]
    band: NDArray[np.int8]
    flux_njy: NDArray[np.float32]
    sigma_njy: NDArray[np.float32]
    kind: NDArray[np.int8]
    flags: NDArray[np.int8]

    def __len__(self) -> int:
        """Return the number of light curves."""
        return self.offsets.size - 1

    def counts(self) -> NDArray[np.int64]:
        """Return the number of points of each light curve."""
        return np.diff(self.offsets)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """Return the points' arrays, in the order of the attributes."""
        return (self.t_mjd_tai, self.band, self.flux_njy, self.sigma_njy, self.kind, self.flags)

    def take(self, points: NDArray[np.int64], offsets: NDArray[np.int64]) -> LightCurves:
        """Return new light curves made of the numbered `points`, cut at `offsets`."""
        return LightCurves(offsets, *(column[points] for column in self.columns()))

    def of(self, curves: NDArray[np.int64]) -> LightCurves:
        """Return the numbered light curves, one after the other."""
        counts = self.counts()[curves]
        offsets = _offsets(counts)
        points = np.arange(offsets[-1]) + np.repeat(self.offsets[curves] - offsets[:-1], counts)
        return self.take(points, offsets)


def joined(parts: list[LightCurves]) -> LightCurves:
    """Return the light curves of all `parts`, at least one; of a single one without copying."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part.columns() for part in parts), strict=True)
    offsets = _offsets(np.concatenate([part.counts() for part in parts]))
    return LightCurves(offsets, *(np.concatenate(column) for column in columns))


def no_light_curves(n: int) -> LightCurves:
    """Return `n` empty light curves."""
    points, codes, values = np.zeros(0), np.zeros(0, np.int8), np.zeros(0, np.float32)
    return LightCurves(np.zeros(n + 1, np.int64), points, codes, values, values, codes, codes)


def _offsets(counts: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def dictionary_column(codes: NDArray[np.int8], names: Sequence[str]) -> pa.DictionaryArray:
    """Return text as an Arrow dictionary array over `codes`; a negative code is null."""
    indices = pa.array(codes, mask=codes < 0) if (codes < 0).any() else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names))


def light_curve_column(curves: LightCurves, mask: NDArray[np.bool_] | None = None) -> pa.ListArray:
    """Return `curves` as an Arrow column of :data:`LIGHT_CURVE_TYPE`, without copying the points.

    `mask` is True where the row is null.
    """
    points = pa.StructArray.from_arrays(
        [
            pa.array(curves.t_mjd_tai),
            dictionary_column(curves.band, BAND_NAMES),
            pa.array(curves.flux_njy),
            pa.array(curves.sigma_njy),
            dictionary_column(curves.kind, KIND_NAMES),
            pa.array(curves.flags),
        ],
        fields=list(POINT_TYPE),
    )
    return pa.ListArray.from_arrays(
        pa.array(curves.offsets.astype(np.int32)),
        points,
        type=LIGHT_CURVE_TYPE,
        mask=None if mask is None or not mask.any() else pa.array(mask),
    )


def light_curves_of(table: pa.Table) -> LightCurves:
    """Return the ``light_curve`` column of `table` as flat arrays.

    Accepts band and kind as dictionaries or as plain text (a table that went through Parquet);
    a null row is an empty light curve, a null flux NaN. Points without flags count as detected
    unless they are forced photometry.
    """
    column = table["light_curve"]
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    counts = np.asarray(array.value_lengths().fill_null(0), np.int64)
    offsets = _offsets(counts)
    points = array.flatten()
    fields = {field.name: points.field(index) for index, field in enumerate(points.type)}
    kind = codes_of(fields["kind"], {name: code for code, name in enumerate(KIND_NAMES)})
    flags = np.where(kind > KIND_FORCED, DETECTED, 0).astype(np.int8)
    if "flags" in fields:
        told = fields["flags"].cast(pa.int8())
        flags = np.where(told.is_null(), flags, _numbers(told.fill_null(0), np.int8))
    return LightCurves(
        offsets,
        _numbers(fields["t_mjd_tai"], np.float64),
        codes_of(fields["band"], BAND_CODES),
        _numbers(fields["flux_njy"], np.float32),
        _numbers(fields["sigma_njy"], np.float32),
        kind,
        flags,
    )


def codes_of(column: pa.Array, codes: dict[str, int]) -> NDArray[np.int8]:
    """Return the int8 code of each text in `column`; -1 where it is null or not in `codes`."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    table = np.array(
        [codes.get(name, -1) for name in column.dictionary.to_pylist()] + [-1], np.int8
    )
    indices = np.asarray(column.indices.fill_null(len(table) - 1), np.int64)
    return table[indices]


def _numbers(column: pa.Array, dtype: Any) -> NDArray[Any]:
    if column.null_count:
        column = column.fill_null(float("nan"))
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False), dtype)
