"""Writes ``docs/features.md`` from the declarations: ``python -m lightcurves.features.page``."""

from __future__ import annotations

import sys

from lightcurves.features.declare import Family, Feature
from lightcurves.features.registry import ALL_FAMILIES, FAMILIES, FEATURE_DIGEST, FEATURES

_HEAD = """# Features

Made by `python -m lightcurves.features.page > docs/features.md`; a test keeps it true.
{n} features in {families} families make the default set, digest `{digest}`; the dear families
are computed where they are asked for: `noctule.compute_features(table, families=["period", "gp"])`.
Fluxes are difference fluxes in nJy, times MJD TAI in days. A value that cannot be evaluated is null,
with a reason (see [reasons](reasons.md)). "Scaling" says what happens when all fluxes are multiplied by
one number. Bands are LSST's six; each of another survey's takes the place of one, and its wavelength
([which](alerts.md#surveys)).
"""


def page() -> str:
    """Return the page as Markdown."""
    head = _HEAD.format(n=len(FEATURES), families=len(FAMILIES), digest=FEATURE_DIGEST)
    return "\n".join([head, *(_section(family) for family in ALL_FAMILIES)])


def _section(family: Family) -> str:
    lines = [
        f"## {family.name} ({family.cost})",
        "",
        "| feature | unit | formula | depends on | bands | needs | least points | scaling | source |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(feature) for feature in family.features),
        "",
    ]
    return "\n".join(lines)


def _line(feature: Feature) -> str:
    inputs = ", ".join(sorted(feature.inputs)) or "nothing"
    formula = feature.formula.replace("|", "\\|")
    cells = (
        f"`{feature.name}`",
        feature.unit,
        formula,
        inputs,
        " ".join(feature.bands) or "all",
        ", ".join(feature.needs),
        str(feature.min_points),
        feature.scaling,
    )
    return "| " + " | ".join((*cells, feature.paper)) + " |"


if __name__ == "__main__":
    sys.stdout.write(page() + "\n")
