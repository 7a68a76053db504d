from __future__ import annotations

import numpy as np
from hypothesis import given

from lightcurves.arrays import LightCurves
from lightcurves.columns import KIND_ALERT, KIND_FORCED, KIND_SOURCE
from lightcurves.moments import as_of, detections
from tests.simulator.skies import LAW, any_curves, curves_of

Points = list[tuple[float, float, int]]


def points_of(curves: LightCurves) -> list[Points]:
    """Time, flux and kind of each light curve's points."""
    rows = zip(
        curves.t_mjd_tai.tolist(), curves.flux_njy.tolist(), curves.kind.tolist(), strict=True
    )
    flat = list(rows)
    return [flat[a:b] for a, b in zip(curves.offsets[:-1], curves.offsets[1:], strict=True)]


def textbook(points: Points, own: Points) -> Points:
    """The rule in words: earlier detections; after a day the forced points of 30 days before."""
    now, first = own[0][0], min(t for t, _, kind in points if kind != KIND_FORCED)
    shown = []
    for t, flux, kind in points:
        if t >= now:
            continue
        if kind == KIND_FORCED and (now - first < 1 or t < first - 30):
            continue
        shown.append((t, flux, kind))
    return [*shown, (now, own[0][1], KIND_ALERT)]


@LAW
@given(any_curves())
def test_as_of_equals_the_textbook(curves: LightCurves) -> None:
    whole = points_of(curves)
    expected = [
        textbook(points, [point]) for points in whole for point in points if point[2] != KIND_FORCED
    ]
    assert points_of(as_of(curves, *detections(curves))) == expected


@LAW
@given(any_curves())
def test_nothing_is_later_than_the_alert(curves: LightCurves) -> None:
    for points in points_of(as_of(curves, *detections(curves))):
        *_, (now, _, kind) = points
        assert kind == KIND_ALERT
        assert all(t < now for t, _, _ in points[:-1])


@LAW
@given(any_curves())
def test_a_history_only_grows(curves: LightCurves) -> None:
    """Packet k shows what packet k - 1 of the object showed, and at least one point more."""
    curve, point = detections(curves)
    shown = [{flux for _, flux, _ in points} for points in points_of(as_of(curves, curve, point))]
    for k in range(1, len(shown)):
        if curve[k] == curve[k - 1]:
            assert shown[k - 1] < shown[k]


@LAW
@given(any_curves())
def test_what_comes_later_changes_nothing(curves: LightCurves) -> None:
    """A history cut off at the alert gives the packet that the whole history gives."""
    curve, point = detections(curves)
    whole = points_of(as_of(curves, curve, point))
    for k, (row, last) in enumerate(zip(curve, point, strict=True)):
        start = curves.offsets[row]
        cut = curves.take(np.arange(start, last + 1), np.array([0, last + 1 - start]))
        alone = as_of(cut, np.array([0]), np.array([last - start]))
        assert points_of(alone) == [whole[k]]


@LAW
@given(any_curves())
def test_any_part_of_the_detections_gives_that_part(curves: LightCurves) -> None:
    curve, point = detections(curves)
    whole = points_of(as_of(curves, curve, point))
    assert points_of(as_of(curves, curve[::2], point[::2])) == whole[::2]


def test_forced_photometry_appears_after_a_day_and_reaches_back_thirty() -> None:
    forced, source = KIND_FORCED, KIND_SOURCE
    curves = curves_of(
        [(69.9, forced), (70.0, forced), (100.0, source), (100.5, source), (101.0, source)]
    )
    shown = points_of(as_of(curves, *detections(curves)))
    assert [[t for t, _, _ in points] for points in shown] == [
        [100.0],
        [100.0, 100.5],
        [70.0, 100.0, 100.5, 101.0],
    ]


def test_objects_without_a_detection_cause_no_alert() -> None:
    curves = curves_of([], [(100.0, KIND_FORCED)])
    assert len(as_of(curves, *detections(curves))) == 0
