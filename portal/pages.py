"""The pages: each renders its data, and renders it again as a fragment when the browser requests it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

import bokeh
import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse

from active_learning.which_model import alias_of
from lightcurves.taxonomy import CLASS_NAMES
from portal import figures, shapes, views
from portal.context import PortalDep
from portal.palette import SchemeName
from portal.rest import ObjectId, Survey
from portal.templating import Pages
from portal.words import number
from store import accounting_queries, object_queries, registry, request_queries
from store.database import reading

OVERVIEW_OBJECTS: Final = 12
OVERVIEW_REQUESTS: Final = 8
OVERVIEW_EVENTS: Final = 9
QUEUE_REQUESTS: Final = 200
QUEUE_LABELS: Final = 20
HISTORY_ALERTS: Final = 300

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

Values = dict[str, Any]


def _pages_of(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


PagesDep = Annotated[Pages, Depends(_pages_of)]


@router.get("/")
def show_overview(portal: PortalDep, pages: PagesDep) -> str:
    """The overview."""
    values = _overview(portal)
    return pages.render("overview.html", here="/", live_url="/fragments/overview", **values)


@router.get("/fragments/overview")
def refresh_overview(portal: PortalDep, pages: PagesDep) -> str:
    """The live sections of the overview."""
    return pages.render("fragments/overview.html", **_overview(portal))


def _overview(portal: PortalDep) -> Values:
    with reading(portal.engine) as connection:
        champion = registry.champion(connection, portal.alias)
        version = None if champion is None else str(champion["model_version"])
        trials = views.trials(connection)
        return {
            "now_ms": portal.clock(),
            "alias": portal.alias,
            "totals": accounting_queries.books(connection),
            "n_open": request_queries.request_queue(connection).n_open,
            "n_labels": request_queries.n_labels(connection),
            "champion": champion,
            "so_far": views.score_so_far(connection, version) if version else None,
            "last_trial": trials[0] if trials else None,
            "newest": views.list_objects(connection, "newest", OVERVIEW_OBJECTS),
            "strangest": views.list_objects(connection, "strangest", OVERVIEW_OBJECTS),
            "queue": _queue(connection, OVERVIEW_REQUESTS),
            "events": timeline(views.promotions(connection, portal.alias), trials, portal.alias),
        }


@dataclass(frozen=True)
class Event:
    """One line of the timeline."""

    time_ms: int
    kind: Literal["promotion", "trial"]
    text: str


def timeline(
    promotions: list[shapes.Promotion], trials: list[shapes.Trial], alias: str = "champion"
) -> list[Event]:
    """What happened to the models, the newest first; a trial that was won is its promotion.

    A promotion to another alias than `alias` names it.
    """
    events = [Event(each.promoted_ms, "promotion", _promoted(each, alias)) for each in promotions]
    events += [Event(each.tried_ms, "trial", _tried(each)) for each in trials if not each.promoted]
    return sorted(events, key=lambda event: -event.time_ms)[:OVERVIEW_EVENTS]


def _promoted(promotion: shapes.Promotion, alias: str) -> str:
    where = "" if promotion.alias == alias else f" to {promotion.alias}"
    return f"{promotion.model_version} promoted{where}: {promotion.reason}"


def _tried(trial: shapes.Trial) -> str:
    gain = trial.gate.get("gain")
    gained = f", log-loss gain {number(gain, 3)}" if isinstance(gain, float) else ""
    return f"{trial.challenger_version} tried with {trial.n_labels} labels{gained}: not enough"


def _queue(connection: sa.Connection, limit: int) -> list[Values]:
    """Open requests, each with the score that its object has now."""
    requests = views.label_requests(connection, only_open=True, limit=limit)
    keys = [(each.survey, each.object_id) for each in requests]
    objects = object_queries.objects_of(connection, keys)
    nothing = {"class_id": None, "probability": None, "reason": "no_object"}
    return [
        {
            **{name: objects.get(key, nothing)[name] for name in nothing},
            **each.model_dump(),
            "object_id": each.object_id,
            "requested_band": each.band,
        }
        for key, each in zip(keys, requests, strict=True)
    ]


@router.get("/queue")
def show_queue(
    portal: PortalDep,
    pages: PagesDep,
    object_id: Annotated[int | None, Query(ge=shapes.INT64_MIN, le=shapes.INT64_MAX)] = None,
    survey: Survey = None,
) -> str:
    """The label queue, and the form that reports a label."""
    form = {
        "object_id": object_id,
        "survey": survey,
        "classes": CLASS_NAMES,
        "can_report": portal.token is not None,
    }
    values = _queue_values(portal) | form
    return pages.render("queue.html", here="/queue", live_url="/fragments/queue", **values)


@router.get("/fragments/queue")
def refresh_queue(portal: PortalDep, pages: PagesDep) -> str:
    """The live sections of the queue page."""
    return pages.render("fragments/queue.html", **_queue_values(portal))


def _queue_values(portal: PortalDep) -> Values:
    with reading(portal.engine) as connection:
        newest = request_queries.newest_labels(connection, QUEUE_LABELS)
        return {
            "now_ms": portal.clock(),
            "queue": _queue(connection, QUEUE_REQUESTS),
            "labels": views.label_list(newest),
        }


@router.get("/models")
def show_models(portal: PortalDep, pages: PagesDep) -> str:
    """Versions, promotions and trials."""
    values = _models_values(portal)
    return pages.render("models.html", here="/models", live_url="/fragments/models", **values)


@router.get("/fragments/models")
def refresh_models(portal: PortalDep, pages: PagesDep) -> str:
    """The live sections of the models page."""
    return pages.render("fragments/models.html", **_models_values(portal))


def _models_values(portal: PortalDep) -> Values:
    with reading(portal.engine) as connection:
        models = views.all_models(connection, portal.alias)
    aliases = {alias_of(models.alias, survey): named for survey, named in models.champions.items()}
    return {"now_ms": portal.clock(), "all": models, "aliases": aliases}


@router.get("/objects/{object_id}")
def show_object(
    portal: PortalDep, pages: PagesDep, object_id: ObjectId, survey: Survey = None
) -> str:
    """One object."""
    values = _object_values(portal, object_id, survey) | {"bokeh_version": bokeh.__version__}
    live_url = f"/fragments/objects/{object_id}?{urlencode({'survey': values['object'].survey})}"
    return pages.render("object.html", here="", live_url=live_url, **values)


@router.get("/fragments/objects/{object_id}")
def refresh_object(
    portal: PortalDep, pages: PagesDep, object_id: ObjectId, survey: Survey = None
) -> str:
    """The live sections of an object's page."""
    values = _object_values(portal, object_id, survey)
    headline = pages.render("fragments/object_headline.html", **values)
    return headline + pages.render("fragments/object.html", **values)


def _object_values(portal: PortalDep, object_id: int, survey: str | None) -> Values:
    with reading(portal.engine) as connection:
        survey = object_queries.survey_of(connection, object_id, survey)
        summary = views.object_summary(connection, survey, object_id)
        alerts = views.history(connection, survey, object_id)
        return {
            "now_ms": portal.clock(),
            "object": summary,
            "classes": views.newest_classes(alerts),
            "history": alerts[-HISTORY_ALERTS:],
            "labels": views.label_list(
                request_queries.label_history(connection, survey, object_id)
            ),
            "requests": views.requests_of(connection, survey, object_id),
        }


@router.get("/objects/{object_id}/figures", response_class=JSONResponse)
def draw_figures(
    portal: PortalDep,
    object_id: ObjectId,
    *,
    survey: Survey = None,
    scheme: SchemeName = "light",
    narrow: bool = False,
) -> JSONResponse:
    """The figures of an object, for BokehJS to embed; null if there is nothing to draw."""
    with reading(portal.engine) as connection:
        survey = object_queries.survey_of(connection, object_id, survey)
        summary = views.object_summary(connection, survey, object_id)
        alerts = views.history(connection, survey, object_id)
    item = figures.draw(
        portal.light_curve(survey, object_id),
        list(_moments(alerts)),
        first_detection(alerts, summary.first_mjd_tai),
        scheme=scheme,
        narrow=narrow,
    )
    return JSONResponse({"figures": item})


def _moments(alerts: list[shapes.Alert]) -> Iterator[figures.Moment]:
    return (figures.Moment(each.t_mjd_tai, each.probabilities or {}) for each in alerts)


def first_detection(alerts: list[shapes.Alert], first_alert_mjd_tai: float) -> float:
    """Time of the first detection (MJD, TAI) according to the alerts, else that of the first alert.

    An alert's history can go further back than the first alert that noctule has read.
    """
    told = [
        each.t_mjd_tai - each.days_since_first_detection
        for each in alerts
        if each.days_since_first_detection is not None
    ]
    return min([first_alert_mjd_tai, *told])
