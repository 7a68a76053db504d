"""Positions on the sky: HEALPix cells to find objects by, separations to be sure.

All angles are degrees, ICRS. Cells are of the nested scheme at order 12, 51 arcseconds wide, as
int64: the cells within any coarser cell are one range, which an index finds at once.
"""

from __future__ import annotations

from typing import Final

import cdshealpix
import numpy as np
import numpy.typing as npt
from astropy import units  # type: ignore[import-untyped]
from astropy.coordinates import Latitude, Longitude  # type: ignore[import-untyped]

ORDER: Final = 12
_ORDER_0_DEG: Final = 58.6
"""Width of one of the 12 cells of order 0; every order halves it."""

_CELLS_ACROSS: Final = 8
"""A cone is covered by cells of about an eighth of its radius: some 100 ranges, of which SQLite
takes 1,000 in a condition, and few cells that only touch it."""

_PADDING_DEG: Final = 1e-7
"""Rounding of the cover may not lose an object at the very edge; 0.4 milliarcseconds."""

Floats = npt.NDArray[np.float64]


def healpix_of(ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The cell of every position.

    Parameters
    ----------
    ra_deg, dec_deg
        Arrays of equal shape; right ascension in any turn, declination from -90 to 90.

    Raises
    ------
    ValueError
        A coordinate is NaN or infinite, or a declination lies beyond a pole.
    """
    ra, dec = _checked(ra_deg, dec_deg)
    if ra.size == 0:
        return np.empty(ra.shape, dtype=np.int64)
    cells = cdshealpix.lonlat_to_healpix(
        Longitude(ra, units.deg), Latitude(dec, units.deg), ORDER, num_threads=1
    )
    return np.asarray(cells, dtype=np.int64).reshape(ra.shape)


def cone_ranges(ra_deg: float, dec_deg: float, radius_deg: float) -> list[tuple[int, int]]:
    """Ranges of cells, both ends included, that hold every position within a cone, and some more.

    Raises
    ------
    ValueError
        A coordinate is NaN or infinite, a declination lies beyond a pole, or the radius is not
        between 0 and 180.
    """
    ra, dec = _checked(ra_deg, dec_deg)
    if not 0 <= radius_deg <= 180:  # noqa: PLR2004 - half a turn
        raise ValueError(f"a radius of {radius_deg} degrees is not between 0 and 180")
    cells, orders, _ = cdshealpix.cone_search(
        Longitude(float(ra), units.deg),
        Latitude(float(dec), units.deg),
        (radius_deg + _PADDING_DEG) * units.deg,
        _cover_order(radius_deg),
    )
    shift = 2 * (ORDER - np.asarray(orders, dtype=np.int64))
    first = np.asarray(cells, dtype=np.int64) << shift
    return _joined(first, first + (1 << shift))


def _cover_order(radius_deg: float) -> int:
    """The order whose cells are about as wide as the cover of such a cone needs."""
    width_deg = max(radius_deg / _CELLS_ACROSS, _ORDER_0_DEG / 2**ORDER)
    return max(0, int(np.log2(_ORDER_0_DEG / width_deg)))


def _joined(first: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch made one."""
    by_cell = np.argsort(first)
    first, end = first[by_cell], end[by_cell]
    apart = np.flatnonzero(first[1:] > end[:-1])
    starts = first[np.r_[0, apart + 1]]
    lasts = end[np.r_[apart, -1]] - 1
    return list(zip(starts.tolist(), lasts.tolist(), strict=True))


def separation_deg(
    ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, ra0_deg: float, dec0_deg: float
) -> Floats:
    """Angle between positions and one position, by the haversine formula.

    Exact to rounding for small angles, to 1e-6 degrees for positions nearly opposite.
    """
    ra, dec, ra0, dec0 = map(np.radians, (ra_deg, dec_deg, ra0_deg, dec0_deg))
    across = np.cos(dec) * np.cos(dec0) * np.sin((ra - ra0) / 2) ** 2
    haversine = np.sin((dec - dec0) / 2) ** 2 + across
    angle: Floats = np.degrees(2 * np.arcsin(np.sqrt(np.clip(haversine, 0, 1))))
    return angle


def _checked(ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> tuple[Floats, Floats]:
    ra, dec = np.broadcast_arrays(
        np.asarray(ra_deg, dtype=np.float64), np.asarray(dec_deg, dtype=np.float64)
    )
    if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
        raise ValueError("a position is NaN or infinite")
    if (np.abs(dec) > 90).any():  # noqa: PLR2004 - the poles
        raise ValueError("a declination lies beyond a pole")
    return np.mod(ra, 360.0), dec
