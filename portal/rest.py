"""The REST interface, below /api; docs/api.md says what it promises."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Header, Path, Query

from portal import shapes, views
from portal.context import Portal, PortalDep
from portal.errors import ApiError, ErrorCode, unavailable, unknown_object
from store import portal_queries, queries, registry
from store.database import reading
from store.labels import report_label

MAX_LIMIT: Final = 1000
MAX_RADIUS_ARCSEC: Final = 36_000.0  # 10 degrees: every object in the cone is read to sort it

_FAILURES: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"model": shapes.ErrorEnvelope, "description": "Any error, in the envelope."}
}

router = APIRouter(prefix="/api", responses=_FAILURES)

ObjectId = Annotated[int, Path(ge=shapes.INT64_MIN, le=shapes.INT64_MAX)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Largest number of rows.")]


@router.get("/objects")
def list_objects(
    portal: PortalDep,
    order: shapes.Order = "newest",
    limit: Limit = 50,
    class_id: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> list[shapes.ObjectSummary]:
    """Objects: the newest, the strangest or the most uncertain first."""
    with reading(portal.engine) as connection:
        return views.list_objects(connection, order, limit, class_id)


@router.get("/objects/{object_id}")
def show_object(portal: PortalDep, object_id: ObjectId) -> shapes.ObjectDetail:
    """One object with its alerts, light curve, labels and request."""
    points = portal.light_curve(object_id)
    with reading(portal.engine) as connection:
        found = views.object_detail(connection, object_id, points)
    if found is None:
        raise unknown_object(object_id)
    return found


@router.get("/cone")
def search_cone(
    portal: PortalDep,
    ra_deg: Annotated[float, Query(ge=0, le=360, allow_inf_nan=False)],
    dec_deg: Annotated[float, Query(ge=-90, le=90, allow_inf_nan=False)],
    radius_arcsec: Annotated[float, Query(gt=0, le=MAX_RADIUS_ARCSEC, allow_inf_nan=False)],
    limit: Limit = 100,
) -> list[shapes.ObjectNear]:
    """Objects around a position, the nearest first."""
    with reading(portal.engine) as connection:
        return views.objects_near(connection, ra_deg, dec_deg, radius_arcsec, limit)


@router.get("/queue")
def list_requests(
    portal: PortalDep,
    open: Annotated[bool, Query(description="Leave out answered requests.")] = True,  # noqa: A002, FBT002 - the parameter's name in the URL
    limit: Limit = 100,
) -> list[shapes.LabelRequest]:
    """Requests for spectra, the most useful first."""
    with reading(portal.engine) as connection:
        return views.label_requests(connection, only_open=open, limit=limit)


def _may_report(portal: PortalDep, authorization: Annotated[str, Header()] = "") -> None:
    """Refuse who does not show the token."""
    if portal.token is None:
        message = "labels are not taken over HTTP: set portal.token (NOCTULE_PORTAL__TOKEN)"
        raise ApiError(403, ErrorCode.LABELS_DISABLED, message)
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given:
        message = "send the header Authorization: Bearer TOKEN"
        wanted = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, ErrorCode.UNAUTHORIZED, message, headers=wanted)
    if not secrets.compare_digest(given.strip().encode(), portal.token.encode()):
        raise ApiError(403, ErrorCode.FORBIDDEN, "this is not the portal's token")


@router.post("/labels", status_code=201, dependencies=[Depends(_may_report)])
def add_label(portal: PortalDep, report: shapes.LabelReport) -> shapes.Label:
    """Add a label to the ledger; answers the request for its object, if there is one."""
    with portal.engine.begin() as connection:
        _refuse_unknown(connection, report)
        values = report.model_dump(exclude={"request_id"})
        label_id = report_label(connection, **values, now_ms=portal.clock())
        return views.label_list([portal_queries.label_row(connection, label_id)])[0]


def _refuse_unknown(connection: sa.Connection, report: shapes.LabelReport) -> None:
    if queries.object_row(connection, report.object_id) is None:
        raise unknown_object(report.object_id)
    if report.request_id is None:
        return
    request = portal_queries.request_of(connection, report.object_id)
    if request is None or request["request_id"] != report.request_id:
        message = f"request_id: no request {report.request_id} for object {report.object_id}"
        detail = [{"field": "request_id", "message": "belongs to no request for this object"}]
        raise ApiError(422, ErrorCode.INVALID_REQUEST, message, detail=detail)


@router.get("/models")
def list_models(portal: PortalDep) -> shapes.Models:
    """Model versions, promotions, trials, and which version is champion."""
    with reading(portal.engine) as connection:
        return views.all_models(connection, portal.alias)


@router.get("/status")
def show_status(portal: PortalDep) -> shapes.Status:
    """Counts of what was read and of what came of it."""
    with reading(portal.engine) as connection:
        counts = queries.counts(connection)
        champion = registry.champion(connection, portal.alias)
    return shapes.Status(
        alerts=counts.alerts,
        scored=counts.scored,
        not_evaluated=dict(counts.not_evaluated),
        rejected=dict(counts.rejected),
        duplicates=counts.duplicates,
        queue_open=counts.queue_open,
        labels=counts.labels,
        champion=None if champion is None else champion["model_version"],
    )


@router.get("/health")
def show_health(portal: PortalDep) -> shapes.Health:
    """200 where the database answers and has its tables."""
    _check_tables(portal)
    return shapes.Health()


def _check_tables(portal: Portal) -> None:
    try:
        with reading(portal.engine) as connection:
            registry.champion(connection, portal.alias)
    except sa.exc.DBAPIError as error:
        message = "the database answers but cannot be read: its tables are missing or damaged"
        raise unavailable(message) from error
