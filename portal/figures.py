"""The two figures of an object: its light curve and its class probabilities over time.

They are drawn for one colour scheme; the page requests them again when the reader's scheme changes. Both
share their time axis, so that panning one moves the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from bokeh.embed import json_item
from bokeh.layouts import column
from bokeh.models import (
    BasicTickFormatter,
    BoxZoomTool,
    ColumnDataSource,
    HoverTool,
    LinearAxis,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.models.annotations import Legend, LegendItem, Span
from bokeh.models.renderers import DataRenderer
from bokeh.plotting import figure
from numpy.typing import NDArray

from lightcurves.bands import BAND_NAMES
from lightcurves.taxonomy import class_name
from portal.palette import BAND_MARKERS, SCHEMES, Scheme, SchemeName

SHOWN_PROBABILITY: Final = 0.05
"""A class is drawn if it was ever more probable than this."""

_MARGIN: Final = 0.04  # of the span, on either side
_FONT: Final = "system-ui, Inter, sans-serif"
_LEGEND_ROW_PX: Final = 26


@dataclass(frozen=True)
class Layout:
    """What differs between a wide page and a phone: sizes in pixels, and columns of the legend."""

    light_curve_px: int
    probabilities_px: int
    legend_columns: int
    legend_spacing_px: int
    legend_glyph_px: int


_WIDE: Final = Layout(400, 280, 6, 10, 24)
_NARROW: Final = Layout(340, 220, 2, 3, 17)


@dataclass(frozen=True)
class Moment:
    """The score of one alert: its time and the probability of each class; empty if null."""

    t_mjd_tai: float
    probabilities: Mapping[int, float]


@dataclass(frozen=True)
class Times:
    """The common time axis."""

    mjd: Range1d
    since_first: Range1d
    first_mjd_tai: float


def draw(
    points: pa.Table | None,
    moments: Sequence[Moment],
    first_mjd_tai: float,
    *,
    scheme: SchemeName,
    narrow: bool = False,
) -> dict[str, Any] | None:
    """Return what BokehJS embeds: both figures, one above the other.

    Parameters
    ----------
    points
        The light curve: ``t_mjd_tai``, ``band``, ``flux_njy``, ``sigma_njy``, ``kind``. Points
        without a finite flux are not drawn; an error that is not finite gives no error bar.
    moments
        The scores, in order of time. A moment without probabilities is a gap.
    first_mjd_tai
        Zero of the upper axis.

    Returns
    -------
    dict or None
        None if there is nothing to draw.
    """
    drawn = _finite(points)
    t = np.concatenate([drawn["t_mjd_tai"].to_numpy(), [m.t_mjd_tai for m in moments]])
    if t.size == 0:
        return None
    times, look = _times(t, first_mjd_tai), SCHEMES[scheme]
    layout = _NARROW if narrow else _WIDE
    above = light_curve_figure(drawn, times, look, layout)
    below = probability_figure(moments, times, look, layout)
    both = column(above, below, sizing_mode="stretch_width", spacing=8)
    item: dict[str, Any] = json_item(both)  # type: ignore[assignment]
    return item


def _finite(points: pa.Table | None) -> pa.Table:
    if points is None:
        points = _NO_POINTS
    flux = points["flux_njy"].to_numpy()
    return points.filter(pa.array(np.isfinite(flux)))


_NO_POINTS: Final = pa.table(
    {
        "t_mjd_tai": pa.array([], pa.float64()),
        "band": pa.array([], pa.string()),
        "flux_njy": pa.array([], pa.float32()),
        "sigma_njy": pa.array([], pa.float32()),
        "kind": pa.array([], pa.string()),
    }
)


def _times(t: NDArray[np.float64], first: float) -> Times:
    margin = max(_MARGIN * np.ptp(t), 0.5)
    low, high = float(t.min() - margin), float(t.max() + margin)
    return Times(Range1d(start=low, end=high), Range1d(start=low - first, end=high - first), first)


def light_curve_figure(points: pa.Table, times: Times, look: Scheme, layout: Layout) -> figure:
    """Difference flux against time: detections filled, forced photometry hollow."""
    plot = _figure("light_curve", times, look, height=layout.light_curve_px)
    plot.y_range = _flux_range(points["flux_njy"].to_numpy())
    plot.yaxis.axis_label = "difference flux (nJy)"
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.add_layout(Span(location=0, dimension="width", line_color=look.muted, line_width=1))
    items = [
        LegendItem(label=band, renderers=_draw_band(plot, band, points, times, look))
        for band in _bands_in(points)
    ]
    _add_hover(plot, "@band  @flux{0,0.0} ± @sigma{0,0.0} nJy, @kind")
    _add_legend(plot, items, look, layout, columns=max(len(items), 1))
    _add_days_axis(plot, times, look, labelled=True)
    return plot


def _bands_in(points: pa.Table) -> list[str]:
    present = set(points["band"].to_pylist())
    known = [band for band in BAND_NAMES if band in present]
    return known + sorted(str(band) for band in present.difference(known))


def _flux_range(flux: NDArray[Any]) -> Range1d:
    low, high = min(flux.min(initial=0.0), 0.0), max(flux.max(initial=0.0), 0.0)
    margin = 0.12 * (high - low) or 1.0
    return Range1d(start=float(low - margin), end=float(high + margin))


def _draw_band(plot: figure, band: str, points: pa.Table, times: Times, look: Scheme) -> list[Any]:
    chosen = points.filter(pa.array([each == band for each in points["band"].to_pylist()]))
    colour, marker = look.band(band), BAND_MARKERS.get(band.lower(), "x")
    renderers = []
    for forced in (True, False):
        source = _point_source(chosen, times, forced=forced)
        fill = look.paper if forced else colour
        renderers += [
            plot.segment(
                "t", "low", "t", "high", source=source, color=colour, alpha=0.55, line_width=1
            ),
            plot.scatter(
                "t",
                "flux",
                source=source,
                marker=marker,
                size=10 if marker == "star" else 7.5,
                line_color=colour,
                fill_color=fill,
                line_width=1.25,
                name="point",
            ),
        ]
    return renderers


def _point_source(points: pa.Table, times: Times, *, forced: bool) -> ColumnDataSource:
    is_forced = np.array([kind == "forced" for kind in points["kind"].to_pylist()], bool)
    chosen = points.filter(pa.array(is_forced == forced))
    t, flux, sigma = (
        chosen[name].to_numpy().astype(np.float64)
        for name in ("t_mjd_tai", "flux_njy", "sigma_njy")
    )
    return ColumnDataSource(
        {
            "t": t,
            "days": t - times.first_mjd_tai,
            "flux": flux,
            "sigma": sigma,
            "low": flux - sigma,
            "high": flux + sigma,
            "band": [str(band) for band in chosen["band"].to_pylist()],
            "kind": [_KIND_WORDS.get(kind, str(kind)) for kind in chosen["kind"].to_pylist()],
        }
    )


_KIND_WORDS: Final = {
    "forced": "forced photometry",
    "source": "detection",
    "alert": "detection of this alert",
}


def probability_figure(
    moments: Sequence[Moment], times: Times, look: Scheme, layout: Layout
) -> figure:
    """Class probabilities against time: one line per class that ever mattered."""
    shown = shown_classes(moments)
    legend_px = _LEGEND_ROW_PX * -(-len(shown) // layout.legend_columns)
    height = layout.probabilities_px + legend_px
    plot = _figure("probabilities", times, look, height=height)
    plot.y_range = Range1d(start=-0.02, end=1.02, bounds=(-0.02, 1.02))
    plot.yaxis.axis_label = "probability"
    plot.xaxis.axis_label = "time (MJD, TAI)"
    items = [
        LegendItem(
            label=class_name(class_id),
            renderers=_draw_class(plot, class_id, moments, times, look),
        )
        for class_id in shown
    ]
    _add_hover(plot, "@name  @p{0.00}")
    _add_legend(plot, items, look, layout, columns=layout.legend_columns)
    _add_days_axis(plot, times, look, labelled=False)
    return plot


def shown_classes(moments: Sequence[Moment]) -> list[int]:
    """The classes that ever exceeded `SHOWN_PROBABILITY`, the one with the highest maximum first."""
    highest: dict[int, float] = {}
    for moment in moments:
        for class_id, p in moment.probabilities.items():
            highest[class_id] = max(p, highest.get(class_id, 0.0))
    return sorted(
        (class_id for class_id, p in highest.items() if p > SHOWN_PROBABILITY),
        key=lambda class_id: (-highest[class_id], class_id),
    )


def _draw_class(
    plot: figure, class_id: int, moments: Sequence[Moment], times: Times, look: Scheme
) -> list[Any]:
    t = np.array([moment.t_mjd_tai for moment in moments])
    p = np.array([moment.probabilities.get(class_id, np.nan) for moment in moments])
    name = [class_name(class_id)] * len(moments)
    source = ColumnDataSource({"t": t, "p": p, "days": t - times.first_mjd_tai, "name": name})
    colour, dash = look.of_class(class_id)
    return [
        plot.line("t", "p", source=source, color=colour, line_width=1.75, line_dash=dash),
        plot.scatter(
            "t",
            "p",
            source=source,
            line_color=colour,
            fill_color=colour if dash == "solid" else look.paper,
            size=5,
            name="point",
        ),
    ]


def _figure(name: str, times: Times, look: Scheme, *, height: int) -> figure:
    plot = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_range=times.mjd,
        tools=[PanTool(), BoxZoomTool(), WheelZoomTool(), ResetTool(), SaveTool()],
        active_scroll=None,
        background_fill_color=look.paper,
        border_fill_color=look.paper,
        outline_line_color=look.rule,
        min_border_left=64,
        min_border_right=14,
    )
    plot.extra_x_ranges = {"days": times.since_first}
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.grid.grid_line_color = look.rule
    plot.grid.grid_line_alpha = 0.7
    plot.xaxis.formatter = BasicTickFormatter(use_scientific=False)
    for axis in plot.axis:
        _dress_axis(axis, look)
    return plot


def _dress_axis(axis: Any, look: Scheme) -> None:
    axis.axis_line_color = look.rule
    axis.major_tick_line_color = look.muted
    axis.minor_tick_line_color = None
    axis.major_label_text_color = look.muted
    axis.axis_label_text_color = look.ink
    axis.axis_label_text_font_style = "normal"
    axis.axis_label_text_font = axis.major_label_text_font = _FONT
    axis.axis_label_text_font_size = "13px"
    axis.major_label_text_font_size = "12px"


def _add_days_axis(plot: figure, times: Times, look: Scheme, *, labelled: bool) -> None:
    label = "days since first detection" if labelled else None
    axis = LinearAxis(x_range_name="days", axis_label=label)
    _dress_axis(axis, look)
    plot.add_layout(axis, "above")
    at = Span(location=times.first_mjd_tai, dimension="height", line_color=look.rule)
    plot.add_layout(at)


def _add_hover(plot: figure, text: str) -> None:
    when = "MJD @t{0.00000}, day @days{0.00}"
    tips = f'<div class="tip">{text}<br>{when}</div>'
    points = [each for each in plot.renderers if isinstance(each, DataRenderer) and each.name]
    plot.add_tools(HoverTool(renderers=points, tooltips=tips))


def _add_legend(
    plot: figure, items: list[LegendItem], look: Scheme, layout: Layout, *, columns: int
) -> None:
    legend = Legend(
        items=items,
        orientation="horizontal",
        location="top_left",
        ncols=columns,
        click_policy="hide",
        border_line_color=None,
        background_fill_color=None,
        label_text_color=look.ink,
        label_text_font=_FONT,
        label_text_font_size="12px",
        glyph_width=layout.legend_glyph_px,
        margin=0,
        spacing=layout.legend_spacing_px,
    )
    plot.add_layout(legend, "below")
