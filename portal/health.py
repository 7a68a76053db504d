"""Whether the portal is well: ``/healthz`` says whether to restart it, ``/readyz`` whether to use it."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import APIRouter, Response
from pydantic import BaseModel

from lightcurves.errors import UnavailableError
from portal.context import Portal, PortalDep
from store import accounting_queries, registry
from store.database import is_current, reading
from watch.health import Health, Status

router = APIRouter()


class Condition(BaseModel):
    """How the portal is, with some facts about the rest.

    Attributes
    ----------
    status, healthy, ready, reasons
        The verdict, and why it is not ``ok``.
    champion
        The promoted model; null if there is none. The portal works without one.
    last_batch_age_s
        Seconds since the stream's last commit; null if there is none. The stream reports its own health.
    """

    status: Status
    healthy: bool
    ready: bool
    reasons: list[str]
    champion: str | None = None
    last_batch_age_s: float | None = None


@router.get("/healthz", responses={503: {"model": Condition}})
def show_live(portal: PortalDep, response: Response) -> Condition:
    """200 if this process and its database answer, else 503."""
    now = condition(portal)
    response.status_code = 200 if now.healthy else 503
    return now


@router.get("/readyz", responses={503: {"model": Condition}})
def show_ready(portal: PortalDep, response: Response) -> Condition:
    """200 if the database also has the tables of this version, else 503."""
    now = condition(portal)
    response.status_code = 200 if now.ready else 503
    return now


def condition(portal: Portal) -> Condition:
    """Query the database for the portal's condition."""
    return Condition(**_health(portal).to_json())


def _health(portal: Portal) -> Health:
    try:
        if not is_current(portal.engine):
            return _not_ready("the tables are missing or of another version: restart the portal")
        with reading(portal.engine) as connection:
            champion = registry.champion(connection, portal.alias)
            batch = accounting_queries.last_batch(connection)
    except UnavailableError as error:
        return Health(healthy=False, ready=False, reasons=(str(error),))
    except sa.exc.TimeoutError:
        return _not_ready("the database has no connection left: try again in a moment")
    except sa.exc.DBAPIError:
        return _not_ready("the database answers but cannot be read: restore it from a backup")
    facts = {
        "champion": None if champion is None else champion["model_version"],
        "last_batch_age_s": None if batch is None else (portal.clock() - batch.committed_ms) / 1000,
    }
    return Health(healthy=True, ready=True, facts=facts)


def _not_ready(reason: str) -> Health:
    return Health(healthy=True, ready=False, reasons=(reason,))
