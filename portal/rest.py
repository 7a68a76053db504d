"""The REST interface, below /api; docs/api.md describes it."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Header, Path, Query

from lightcurves.surveys import LSST
from portal import shapes, views
from portal.context import Portal, PortalDep
from portal.errors import ApiError, ErrorCode, unavailable
from store import accounting_queries, object_queries, registry, request_queries, requests
from store.database import reading
from store.labels import report_label

MAX_LIMIT: Final = 1000
MAX_RADIUS_ARCSEC: Final = 36_000.0  # 10 degrees: every object in the cone is read to sort it

_FAILURES: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"model": shapes.ErrorEnvelope, "description": "Any error, in the envelope."}
}

router = APIRouter(prefix="/api", responses=_FAILURES)

ObjectId = Annotated[int, Path(ge=shapes.INT64_MIN, le=shapes.INT64_MAX)]
RequestId = Annotated[int, Path(ge=shapes.INT64_MIN, le=shapes.INT64_MAX)]
Survey = Annotated[
    shapes.Name | None, Query(description="Survey of the object; required if several have this id.")
]
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
def show_object(
    portal: PortalDep, object_id: ObjectId, survey: Survey = None
) -> shapes.ObjectDetail:
    """One object with its alerts, light curve, labels and requests."""
    with reading(portal.engine) as connection:
        survey = object_queries.survey_of(connection, object_id, survey)
    points = portal.light_curve(survey, object_id)
    with reading(portal.engine) as connection:
        return views.object_detail(connection, survey, object_id, points)


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
    open: Annotated[bool, Query(description="Leave out closed requests.")] = True,  # noqa: A002, FBT002 - the parameter's name in the URL
    limit: Limit = 100,
    program: Annotated[
        shapes.Name | None, Query(description="Only the requests of this program.")
    ] = None,
) -> list[shapes.LabelRequest]:
    """Requests for spectra, the most useful first."""
    with reading(portal.engine) as connection:
        return views.label_requests(connection, only_open=open, limit=limit, program=program)


def _may_report(portal: PortalDep, authorization: Annotated[str, Header()] = "") -> None:
    """Refuse a client that does not send the token."""
    if portal.token is None:
        message = "reports are not taken over HTTP: set portal.token (NOCTULE_PORTAL__TOKEN)"
        raise ApiError(403, ErrorCode.LABELS_DISABLED, message)
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given:
        message = "send the header Authorization: Bearer TOKEN"
        wanted = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, ErrorCode.UNAUTHORIZED, message, headers=wanted)
    if not secrets.compare_digest(given.strip().encode(), portal.token.encode()):
        raise ApiError(403, ErrorCode.FORBIDDEN, "the token is wrong")


@router.post("/labels", status_code=201, dependencies=[Depends(_may_report)])
def add_label(portal: PortalDep, report: shapes.LabelReport) -> shapes.Label:
    """Add a label to the ledger; answers the open requests for its object."""
    with portal.engine.begin() as connection:
        survey = object_queries.survey_of(connection, report.object_id, report.survey)
        _refuse_unknown(connection, survey, report)
        values = report.model_dump() | {"survey": survey}
        label_id = report_label(connection, **values, now_ms=portal.clock())
        return views.label_list([request_queries.label_row(connection, label_id)])[0]


def _refuse_unknown(connection: sa.Connection, survey: str, report: shapes.LabelReport) -> None:
    views.object_summary(connection, survey, report.object_id)
    if report.request_id is None:
        return
    known = request_queries.requests_of(connection, survey, report.object_id)
    if report.request_id not in {request["request_id"] for request in known}:
        message = f"request_id: no request {report.request_id} for object {report.object_id}"
        detail = [{"field": "request_id", "message": "belongs to no request for this object"}]
        raise ApiError(422, ErrorCode.INVALID_REQUEST, message, detail=detail)


@router.post("/queue/{request_id}/events", status_code=201, dependencies=[Depends(_may_report)])
def add_event(
    portal: PortalDep, request_id: RequestId, report: shapes.EventReport
) -> shapes.RequestEvent:
    """Write down what became of a request."""
    with portal.engine.begin() as connection:
        values = report.model_dump() | {"at_ms": portal.clock()}
        try:
            row = requests.append_event(connection, request_id, **values)
        except requests.RefusedEventError as error:
            raise _refused(error, request_id) from error
        return shapes.RequestEvent(**row)


def _refused(error: requests.RefusedEventError, request_id: int) -> ApiError:
    detail = {"request_id": str(request_id)}
    if error.state is None:
        return ApiError(404, ErrorCode.UNKNOWN_REQUEST, str(error), detail=detail)
    detail["state"] = error.state
    return ApiError(409, ErrorCode.REQUEST_CLOSED, str(error), detail=detail)


@router.get("/models")
def list_models(portal: PortalDep) -> shapes.Models:
    """Model versions, promotions, trials, and which version each survey has."""
    with reading(portal.engine) as connection:
        return views.all_models(connection, portal.alias)


@router.get("/status")
def show_status(portal: PortalDep) -> shapes.Status:
    """Counts of what was read, by outcome."""
    with reading(portal.engine) as connection:
        counts = accounting_queries.counts(connection)
        champions = views.champion_versions(connection, portal.alias)
    return shapes.Status(
        alerts=counts.alerts,
        scored=counts.scored,
        not_evaluated=dict(counts.not_evaluated),
        rejected=dict(counts.rejected),
        duplicates=counts.duplicates,
        queue_open=counts.queue_open,
        labels=counts.labels,
        champion=champions[LSST.name],
        champions=champions,
    )


@router.get("/health")
def show_health(portal: PortalDep) -> shapes.Health:
    """200 if the database answers and has its tables."""
    _check_tables(portal)
    return shapes.Health()


def _check_tables(portal: Portal) -> None:
    try:
        with reading(portal.engine) as connection:
            registry.champion(connection, portal.alias)
    except sa.exc.DBAPIError as error:
        message = "the database answers but cannot be read: its tables are missing or damaged"
        raise unavailable(message) from error
