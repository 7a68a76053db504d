"""Colours and markers of the figures, for light and dark pages, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from lightcurves.bands import BAND_NAMES, BANDS
from lightcurves.taxonomy import CLASS_NAMES

SchemeName = Literal["light", "dark"]


@dataclass(frozen=True)
class Scheme:
    """The colours of one kind of page; ``paper`` and the inks are those of noctule.css."""

    paper: str
    ink: str
    muted: str
    rule: str
    bands: Mapping[str, str]
    classes: tuple[str, ...]

    def band(self, band: str) -> str:
        """The colour of a band; other surveys' bands have LSST's colours, but their own markers."""
        counts_as = {each.name: each.counts_as for each in BANDS}
        return self.bands.get(counts_as.get(band, band), self.muted)

    def of_class(self, class_id: int) -> tuple[str, str]:
        """Colour and dash of a class: the same on every page, whatever else is drawn."""
        at = _CLASS_AT.get(class_id, 0)
        dash = _DASHES[at // len(self.classes) % len(_DASHES)]
        return self.classes[at % len(self.classes)], dash


_CLASS_AT: Final = {class_id: at for at, class_id in enumerate(CLASS_NAMES)}
_DASHES: Final = ("solid", "dashed")

# Bands: Rubin's own palettes for white and for black backgrounds, RTN-045, "colorblind-friendly
# plots". Classes: ten hues that differ in lightness too; the second ten classes are dashed.
SCHEMES: Final[Mapping[SchemeName, Scheme]] = {
    "light": Scheme(
        paper="#fcfbf8",
        ink="#1e2430",
        muted="#5f6672",
        rule="#dfdcd3",
        bands={
            "u": "#1600ea",
            "g": "#31de1f",
            "r": "#b52626",
            "i": "#370201",
            "z": "#ba52ff",
            "y": "#61a2b3",
        },
        classes=(
            "#0b5fa5",
            "#c8501e",
            "#17805c",
            "#94458e",
            "#8a6d00",
            "#3d93c2",
            "#5b5f66",
            "#d1477f",
            "#7a4a2b",
            "#6d8f1f",
        ),
    ),
    "dark": Scheme(
        paper="#10141b",
        ink="#d9dde4",
        muted="#949cab",
        rule="#2a303b",
        bands={
            "u": "#3eb7ff",
            "g": "#30c39f",
            "r": "#ff7e00",
            "i": "#2af5ff",
            "z": "#a7f9c1",
            "y": "#fdc900",
        },
        classes=(
            "#6db3f2",
            "#f08a5d",
            "#57c79a",
            "#d79bd1",
            "#d9bd4a",
            "#a5d8ee",
            "#b9bdc6",
            "#ff8fb5",
            "#c9a27e",
            "#b4d455",
        ),
    ),
}

_MARKERS: Final = (
    "circle", "triangle", "inverted_triangle", "square", "star", "hex", "diamond", "plus", "square_pin",
    "triangle_pin", "asterisk", "y", "circle_dot", "triangle_dot", "square_dot", "star_dot", "hex_dot",
    "diamond_dot",
)  # fmt: skip
BAND_MARKERS: Final[Mapping[str, str]] = dict(zip(BAND_NAMES, _MARKERS, strict=False))
"""Marker of each band, LSST's after RTN-045; a band that is not listed is drawn as a cross."""
