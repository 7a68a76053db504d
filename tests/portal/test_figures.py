"""The figures hold what they were given, and survive what they might be given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import portal
from lightcurves.bands import BAND_NAMES
from lightcurves.taxonomy import CLASS_NAMES
from portal.figures import Moment, draw, shown_classes
from portal.palette import BAND_MARKERS, SCHEMES
from portal.words import drawn_as
from tests.portal import night

MOMENTS = [Moment(61_001.0, {111: 0.7, 112: 0.28, 113: 0.02}), Moment(61_002.0, {})]


def found(item: Any, kind: str) -> list[dict[str, Any]]:
    """All models of a kind in a drawing."""
    if isinstance(item, list):
        return [each for part in item for each in found(part, kind)]
    if not isinstance(item, dict):
        return []
    here = [item] if item.get("name") == kind and "attributes" in item else []
    return here + [each for part in item.values() for each in found(part, kind)]


def drawn(**changes: Any) -> Any:
    parts = {"points": night.light_curve("lsst", 1), "moments": MOMENTS, "first_mjd_tai": 61_000.0}
    item = draw(**{"scheme": "light", **parts, **changes})
    assert item is not None
    json.dumps(item, allow_nan=False)
    return item


def test_two_figures_share_one_time_axis() -> None:
    figures = found(drawn(), "Figure")
    assert [each["attributes"]["name"] for each in figures] == ["light_curve", "probabilities"]
    ranges = [each["attributes"]["x_range"]["id"] for each in figures]
    assert ranges[0] == ranges[1]


def test_every_band_and_shown_class_has_a_legend_entry() -> None:
    labels = [each["attributes"]["label"]["value"] for each in found(drawn(), "LegendItem")]
    assert labels == ["u", "g", "r", "i", "z", "y", "SN Ia", "SN Ib/c"]


def test_classes_that_never_mattered_are_left_out() -> None:
    assert shown_classes(MOMENTS) == [111, 112]
    assert shown_classes([Moment(1.0, {111: 0.05})]) == []


def test_days_count_from_the_first_detection() -> None:
    figure = found(drawn(), "Figure")[0]["attributes"]
    mjd = figure["x_range"]["attributes"]
    days = dict(figure["extra_x_ranges"]["entries"])["days"]["attributes"]
    assert mjd["start"] - days["start"] == pytest.approx(61_000.0)
    assert mjd["end"] - days["end"] == pytest.approx(61_000.0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("narrow", [False, True])
def test_odd_points_are_drawn(scheme: str, *, narrow: bool) -> None:
    nan, inf = math.nan, math.inf
    points = night.points(
        [1.0, 2.0, 3.0, 4.0],
        ["g", "ztf_r", "mauve", "g"],
        [nan, 1.0, -3.0, inf],
        [1.0, nan, inf, 1.0],
        ["source", "forced", "alert", "unheard-of"],
    )
    assert drawn(points=points, scheme=scheme, narrow=narrow)


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_points_are_drawn(n: int) -> None:
    assert drawn(points=night.light_curve("lsst", 1).slice(0, n))


def test_one_of_both_is_enough() -> None:
    assert drawn(points=None)
    assert drawn(moments=[])


def test_nothing_is_no_drawing() -> None:
    assert draw(None, [], 61_000.0, scheme="light") is None


def test_every_band_has_a_marker_of_its_own() -> None:
    assert set(BAND_MARKERS) == set(BAND_NAMES)
    assert len(set(BAND_MARKERS.values())) == len(BAND_MARKERS)


@pytest.mark.parametrize("look", SCHEMES.values())
def test_every_class_has_a_line_of_its_own(look: Any) -> None:
    assert len({look.of_class(class_id) for class_id in CLASS_NAMES}) == len(CLASS_NAMES)


@pytest.mark.parametrize("look", SCHEMES.values())
def test_text_contrasts_with_the_paper(look: Any) -> None:
    assert contrast(look.ink, look.paper) >= 7
    assert contrast(look.muted, look.paper) >= 4.5
    assert all(contrast(colour, look.paper) >= 3 for colour in look.classes)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_band_has_a_mark_in_tables() -> None:
    style = (Path(portal.__file__).parent / "static" / "noctule.css").read_text()
    for name in BAND_NAMES:
        assert f'.band-mark[data-band="{drawn_as(name)}"]' in style
