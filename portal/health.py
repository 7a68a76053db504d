"""Whether the portal is well: ``/healthz`` for who restarts it, ``/readyz`` for who sends requests."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from fastapi import APIRouter, Response
from pydantic import BaseModel

from lightcurves.errors import UnavailableError
from portal.context import Portal, PortalDep
from store import accounting_queries, registry
from store.database import is_current, reading

router = APIRouter()


class Condition(BaseModel):
    """How the portal is, and what else is worth a look.

    Attributes
    ----------
    status, healthy, ready, reasons
        The verdict, and why it is not ``ok``.
    champion
        The promoted model; null where there is none. The portal works without.
    last_batch_age_s
        Since the stream's last commit; null where there is none. The stream tells its own health.
    """

    status: Literal["ok", "not ready", "unhealthy"]
    healthy: bool
    ready: bool
    reasons: list[str]
    champion: str | None = None
    last_batch_age_s: float | None = None


@router.get("/healthz", responses={503: {"model": Condition}})
def show_live(portal: PortalDep, response: Response) -> Condition:
    """200 where this process answers and so does its database, else 503."""
    found = condition(portal)
    response.status_code = 200 if found.healthy else 503
    return found


@router.get("/readyz", responses={503: {"model": Condition}})
def show_ready(portal: PortalDep, response: Response) -> Condition:
    """200 where the database also has the tables of this version, else 503."""
    found = condition(portal)
    response.status_code = 200 if found.ready else 503
    return found


def condition(portal: Portal) -> Condition:
    """Ask the database."""
    try:
        if not is_current(portal.engine):
            return _not_ready("the tables are missing or of another version: restart the portal")
        with reading(portal.engine) as connection:
            champion = registry.champion(connection, portal.alias)
            batch = accounting_queries.last_batch(connection)
    except UnavailableError as error:
        return Condition(status="unhealthy", healthy=False, ready=False, reasons=[str(error)])
    except sa.exc.TimeoutError:
        return _not_ready("the database has no connection left: try again in a moment")
    except sa.exc.DBAPIError:
        return _not_ready("the database answers but cannot be read: restore it from a backup")
    return Condition(
        status="ok",
        healthy=True,
        ready=True,
        reasons=[],
        champion=None if champion is None else champion["model_version"],
        last_batch_age_s=None if batch is None else (portal.clock() - batch.committed_ms) / 1000,
    )


def _not_ready(reason: str) -> Condition:
    return Condition(status="not ready", healthy=True, ready=False, reasons=[reason])
