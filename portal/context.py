"""What every endpoint works with, handed to it by the application that it belongs to."""

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
    """The parts that the portal was made of.

    Attributes
    ----------
    engine
        The database.
    light_curve
        Gives the light curve of an object, or None.
    token
        What a reporter of labels has to show; None refuses all.
    alias
        Which model the pages call the model.
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
