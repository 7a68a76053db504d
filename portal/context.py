"""What every endpoint works with; its application passes it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
import sqlalchemy as sa
from fastapi import Depends, Request

from store.clock import now_ms

LightCurve = Callable[[str, int], "pa.Table | None"]
"""The light curve of a survey's object: ``t_mjd_tai``, ``band``, ``flux_njy``, ``sigma_njy``, ``kind``."""


@dataclass(frozen=True)
class Portal:
    """The parts of a portal.

    Attributes
    ----------
    engine
        The database.
    light_curve
        Returns the light curve of an object, or None.
    token
        Secret that clients must send to report labels or events; None refuses all.
    alias
        The alias whose model the pages show.
    clock
        Milliseconds since 1970 UTC.
    """

    engine: sa.Engine
    light_curve: LightCurve
    token: str | None
    alias: str
    clock: Callable[[], int] = now_ms


def _portal_of(request: Request) -> Portal:
    portal: Portal = request.app.state.portal
    return portal


PortalDep = Annotated[Portal, Depends(_portal_of)]
