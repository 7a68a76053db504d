"""Positions on the sky: HEALPix cells to find objects, and exact separations.

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
"""A cone is covered by cells of about an eighth of its radius: about 20 ranges (SQLite allows 1,000 in a
condition), and few cells that only touch it."""

NOWHERE: Final = -1
_POLE_DEG: Final = 90.0
_ROUNDING_DEG: Final = 1e-5
"""More than the largest error of a separation of nearly 180 degrees."""

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


def cells_of(ra_deg: Floats, dec_deg: Floats) -> npt.NDArray[np.int64]:
    """The cell of every position; -1 where there is none.

    Parameters
    ----------
    ra_deg, dec_deg
        Arrays of equal shape; anything may stand there.
    """
    with np.errstate(invalid="ignore"):
        placed = np.isfinite(ra_deg) & np.isfinite(dec_deg) & (np.abs(dec_deg) <= _POLE_DEG)
    cells = np.full(ra_deg.shape, NOWHERE, np.int64)
    cells[placed] = healpix_of(ra_deg[placed], dec_deg[placed])
    return cells


def cone_ranges(ra_deg: float, dec_deg: float, radius_deg: float) -> list[tuple[int, int]]:
    """Ranges of cells, both ends included, that contain every position within a cone, and some others.

    Raises
    ------
    ValueError
        A coordinate is NaN or infinite, a declination lies beyond a pole, or the radius is not
        between 0 and 180.

    Notes
    -----
    From the 12 cells of order 0 down: a cell that may reach into the cone is split into its four.
    The cone search of cdshealpix 0.9 does the same but leaves out cells of which the cone covers only a
    corner: a cone of 8.85 degrees lost positions 0.036 degrees inside its edge.
    """
    ra, dec = _checked(ra_deg, dec_deg)
    if not 0 <= radius_deg <= 180:  # noqa: PLR2004 - half a turn
        raise ValueError(f"a radius of {radius_deg} degrees is not between 0 and 180")
    cells = np.arange(12)
    finest = _cover_order(radius_deg)
    for order in range(finest + 1):
        reach = radius_deg + _circumradius_deg(order) + _ROUNDING_DEG
        cells = cells[separation_deg(*_centres(cells, order), float(ra), float(dec)) <= reach]
        if order < finest:
            cells = (4 * cells[:, None] + np.arange(4)).ravel()
    size = 4 ** (ORDER - finest)
    return _joined(cells * size, (cells + 1) * size)


def _cover_order(radius_deg: float) -> int:
    """The finest order whose cells are wide enough to cover such a cone."""
    widths = ((order, _ORDER_0_DEG / 2**order) for order in range(ORDER, 0, -1))
    return next((order for order, width in widths if radius_deg < _CELLS_ACROSS * width), 0)


def _centres(cells: npt.NDArray[np.int64], order: int) -> tuple[Floats, Floats]:
    ra, dec = cdshealpix.healpix_to_lonlat(cells.astype(np.uint64), order, num_threads=1)
    return ra.deg, dec.deg


def _circumradius_deg(order: int) -> float:
    """Largest angle from the centre of a cell to its corners.

    Those of the cells on the border of cap and belt, as in ``max_pixrad`` of the HEALPix library;
    Gorski et al. 2005, equations 4 to 9, doi:10.1086/427976.
    """
    n_side = 2**order
    dec = np.degrees(np.arcsin([2 / 3, 1 - (1 - 1 / n_side) ** 2 / 3]))
    return float(separation_deg(45 / n_side, dec[0], 0.0, dec[1]))


def _joined(first: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges in order, with adjacent ones merged."""
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
