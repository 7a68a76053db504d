from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.sky import cone_ranges, healpix_of, separation_deg

ra = st.floats(0, 360) | st.sampled_from([0.0, 1e-9, 359.999999999, 360.0, -5.0, 180.0])
dec = st.floats(-90, 90) | st.sampled_from([-90.0, -89.9999999, 0.0, 41.8103, 89.9999999, 90.0])
radius = st.floats(1e-6, 180) | st.sampled_from([0.0, 1 / 3600, 180.0])
bearing = st.floats(0, 360)


def place(ra0: float, dec0: float, angle: float, towards: float) -> tuple[float, float]:
    """The position at an angle from another, all in degrees."""
    d0, a, b = map(math.radians, (dec0, angle, towards))
    sine = math.sin(d0) * math.cos(a) + math.cos(d0) * math.sin(a) * math.cos(b)
    d = math.asin(max(-1.0, min(1.0, sine)))
    turn = math.atan2(
        math.sin(b) * math.sin(a) * math.cos(d0), math.cos(a) - math.sin(d0) * math.sin(d)
    )
    return (ra0 + math.degrees(turn)) % 360, math.degrees(d)


@given(ra, dec, radius, st.floats(0, 1), bearing)
def test_a_cone_covers_every_position_in_it(
    ra0: float, dec0: float, radius_deg: float, share: float, towards: float
) -> None:
    ra1, dec1 = place(ra0, dec0, radius_deg * share, towards)
    if separation_deg(ra1, dec1, ra0, dec0) <= radius_deg:
        assert covers(cone_ranges(ra0, dec0, radius_deg), int(healpix_of(ra1, dec1)))


def covers(ranges: list[tuple[int, int]], cell: int) -> bool:
    return any(first <= cell <= last for first, last in ranges)


@pytest.mark.parametrize(
    ("cone", "position"),
    [
        ((0.0, -21.185916714411476, 8.850887552162266), (0.0, -30.000779751985196)),
        ((90.0, 24.108490824242608, 5.918587452776609), (90.0, 30.007113712093535)),
        ((0.0, 0.0, 177.0), (180.0, 3.0)),
    ],
)
def test_a_cone_covers_what_cdshealpix_leaves_out(
    cone: tuple[float, float, float], position: tuple[float, float]
) -> None:
    """Positions well inside of a cone, in cells that it enters by a corner."""
    assert separation_deg(*position, *cone[:2]) <= cone[2]
    assert covers(cone_ranges(*cone), int(healpix_of(*position)))


@given(ra, dec, radius)
def test_the_ranges_are_in_order_apart_and_few(ra0: float, dec0: float, radius_deg: float) -> None:
    ranges = cone_ranges(ra0, dec0, radius_deg)
    flat = [cell for ends in ranges for cell in ends]
    assert flat == sorted(flat)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(ranges))
    assert len(ranges) < 200
    assert flat[0] >= 0
    assert flat[-1] < 12 * 4**12


@pytest.mark.parametrize("radius_deg", [0.001, 0.1, 10.0])
def test_a_cone_covers_little_more_than_itself(radius_deg: float) -> None:
    cells = sum(last - first + 1 for first, last in cone_ranges(150.0, 2.0, radius_deg))
    area = cells * 41_253 / (12 * 4**12)
    one_cell = 41_253 / (12 * 4**12)
    assert area < 2 * math.pi * radius_deg**2 + 9 * one_cell


def test_the_whole_sky_is_one_range() -> None:
    assert cone_ranges(10.0, 10.0, 180.0) == [(0, 12 * 4**12 - 1)]


@given(ra, dec, st.floats(0, 179), bearing)
def test_a_separation_is_the_angle_that_was_gone(
    ra0: float, dec0: float, angle: float, towards: float
) -> None:
    found = separation_deg(*place(ra0, dec0, angle, towards), ra0, dec0)
    assert found == pytest.approx(angle, abs=2e-5 if abs(dec0) > 89 else 1e-6)


def test_a_separation_near_zero_is_exact() -> None:
    milliarcsecond = 1e-3 / 3600
    assert separation_deg(0.0, 45.0 + milliarcsecond, 0.0, 45.0) == pytest.approx(
        milliarcsecond, rel=1e-5
    )


@given(ra, dec)
def test_a_whole_turn_changes_no_cell(ra0: float, dec0: float) -> None:
    assert healpix_of(math.fmod(ra0, 360.0), dec0) == healpix_of(ra0, dec0)


def test_cells_keep_the_shape_of_the_positions() -> None:
    cells = healpix_of(np.zeros((2, 3)), 45.0)
    assert cells.shape == (2, 3)
    assert cells.dtype == np.int64
    assert healpix_of([], []).shape == (0,)
    assert healpix_of(0.0, 0.0).shape == ()


@pytest.mark.parametrize(
    ("ra_deg", "dec_deg"),
    [(math.nan, 0), (0, math.nan), (math.inf, 0), (0, 90.0001), (0, -91), ([1, math.nan], [0, 0])],
)
def test_what_is_no_position_is_an_error(ra_deg: float, dec_deg: float) -> None:
    with pytest.raises(ValueError, match=r"position|declination"):
        healpix_of(ra_deg, dec_deg)


@pytest.mark.parametrize("radius_deg", [-1.0, 181.0, math.nan])
def test_what_is_no_radius_is_an_error(radius_deg: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        cone_ranges(0.0, 0.0, radius_deg)
