"""Makes shapes from rows, for the REST interface and the pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from active_learning.which_model import alias_of, champions
from lightcurves.bands import BAND_NAMES
from lightcurves.surveys import LSST, SURVEYS
from lightcurves.taxonomy import class_name
from models.evaluation import PROBABILITY_FLOOR
from portal import shapes
from portal.errors import unknown_object
from store import object_queries, registry, request_queries

Row = object_queries.AnyRow


def name_of(class_id: int | None) -> str | None:
    """The name of a class; None for None."""
    return None if class_id is None else class_name(class_id)


def summary(row: Row) -> shapes.ObjectSummary:
    """An object, from a row with its newest alert."""
    return shapes.ObjectSummary(**_summary_values(row))


def _summary_values(row: Row) -> dict[str, Any]:
    return {
        **row,
        "class_name": name_of(row["class_id"]),
        "label_class_id": row["label"],
        "label_class_name": name_of(row["label"]),
    }


def list_objects(
    connection: sa.Connection, order: shapes.Order, limit: int, class_id: int | None = None
) -> list[shapes.ObjectSummary]:
    """Objects in one of the three orders."""
    rows: Sequence[Row]
    if order == "newest":
        rows = object_queries.newest_objects(connection, limit, class_id=class_id)
    else:
        ranking: object_queries.Ranking = "novelty" if order == "strangest" else "entropy"
        rows = object_queries.ranked_objects(connection, ranking, limit, class_id=class_id)
    return [summary(row) for row in object_queries.with_newest_alert(connection, rows)]


def objects_near(
    connection: sa.Connection, ra_deg: float, dec_deg: float, radius_arcsec: float, limit: int
) -> list[shapes.ObjectNear]:
    """Objects within a cone, the nearest first."""
    near = object_queries.cone_search(connection, ra_deg, dec_deg, radius_arcsec, limit)
    rows = object_queries.with_newest_alert(connection, near)
    return [shapes.ObjectNear(**_summary_values(row)) for row in rows]


def object_summary(connection: sa.Connection, survey: str, object_id: int) -> shapes.ObjectSummary:
    """One object.

    Raises
    ------
    ApiError
        There is no such object.
    """
    key = (survey, object_id)
    by_key = object_queries.objects_of(connection, [key])
    if key not in by_key:
        raise unknown_object(object_id)
    return summary(by_key[key])


def object_detail(
    connection: sa.Connection, survey: str, object_id: int, points: pa.Table | None
) -> shapes.ObjectDetail:
    """One object with all that is known about it.

    Raises
    ------
    ApiError
        There is no such object.
    """
    of_object = object_summary(connection, survey, object_id)
    alerts = history(connection, survey, object_id)
    requests = requests_of(connection, survey, object_id)
    return shapes.ObjectDetail(
        object=of_object,
        classes=newest_classes(alerts),
        history=alerts,
        light_curve=light_curve_by_band(points),
        labels=label_list(request_queries.label_history(connection, survey, object_id)),
        request=requests[0] if requests else None,
        requests=requests,
    )


def history(connection: sa.Connection, survey: str, object_id: int) -> list[shapes.Alert]:
    """Every alert of an object, by its time."""
    rows = object_queries.object_history(connection, survey, object_id)
    return [shapes.Alert(**{**row, "class_name": name_of(row["class_id"])}) for row in rows]


def newest_classes(alerts: Sequence[shapes.Alert]) -> list[shapes.ClassProbability]:
    """The classes of the newest alert that has a score, the most probable first."""
    for alert in reversed(alerts):
        if alert.probabilities is not None:
            return _classes(alert.probabilities, alert.prediction_set or [])
    return []


def _classes(
    probabilities: Mapping[int, float], members: Sequence[int]
) -> list[shapes.ClassProbability]:
    return [
        shapes.ClassProbability(
            class_id=class_id,
            class_name=class_name(class_id),
            probability=p,
            in_prediction_set=class_id in members,
        )
        for class_id, p in sorted(probabilities.items(), key=lambda item: (-item[1], item[0]))
    ]


def light_curve_by_band(points: pa.Table | None) -> dict[str, shapes.BandCurve] | None:
    """A light curve as arrays per band, bands in order of wavelength; None if there is none."""
    if points is None:
        return None
    points = points.sort_by("t_mjd_tai")
    bands = np.array(points["band"].to_pylist(), object)
    present = set(bands.tolist())
    order = [band for band in BAND_NAMES if band in present]
    order += sorted(str(band) for band in present.difference(order))
    return {band: _band_curve(points.filter(pa.array(bands == band))) for band in order}


def _band_curve(points: pa.Table) -> shapes.BandCurve:
    return shapes.BandCurve(
        t_mjd_tai=points["t_mjd_tai"].to_pylist(),
        flux_njy=_finite_or_none(points["flux_njy"].to_pylist()),
        sigma_njy=_finite_or_none(points["sigma_njy"].to_pylist()),
        kind=points["kind"].to_pylist(),
    )


def _finite_or_none(values: Iterable[float | None]) -> list[float | None]:
    return [value if value is not None and math.isfinite(value) else None for value in values]


def label_list(rows: Iterable[Row]) -> list[shapes.Label]:
    """Labels, in the order given."""
    return [shapes.Label(**{**row, "class_name": class_name(row["class_id"])}) for row in rows]


def label_requests(
    connection: sa.Connection, *, only_open: bool, limit: int, program: str | None = None
) -> list[shapes.LabelRequest]:
    """The queue, the most useful first."""
    rows = request_queries.label_queue(
        connection, only_open=only_open, limit=limit, program=program
    )
    return [shapes.LabelRequest(**_request_values(row)) for row in rows]


def requests_of(
    connection: sa.Connection, survey: str, object_id: int
) -> list[shapes.RequestDetail]:
    """The requests for an object, open or not, each with its events."""
    rows = request_queries.requests_of(connection, survey, object_id)
    ids = [row["request_id"] for row in rows]
    events = [shapes.RequestEvent(**row) for row in request_queries.event_history(connection, ids)]
    return [
        shapes.RequestDetail(
            **_request_values(row),
            events=[each for each in events if each.request_id == row["request_id"]],
        )
        for row in rows
    ]


def _request_values(row: Row) -> dict[str, Any]:
    return {**row, "answer_name": name_of(row["answer"])}


def all_models(connection: sa.Connection, alias: str) -> shapes.Models:
    """The models and how they came to be used."""
    versions = champion_versions(connection, alias)
    version = versions[LSST.name]
    return shapes.Models(
        alias=alias,
        champion=version,
        champions=versions,
        score_so_far=None if version is None else score_so_far(connection, version),
        versions=[shapes.ModelVersion(**row) for row in registry.list_models(connection)],
        promotions=promotions(connection, alias),
        trials=trials(connection),
    )


def champion_versions(connection: sa.Connection, alias: str) -> dict[str, str | None]:
    """Which version scores each survey's alerts; null where none does. `alias` names LSST's."""
    named = champions(connection, alias)
    return {key: str(named[key]["model_version"]) if key in named else None for key in SURVEYS}


def promotions(connection: sa.Connection, alias: str) -> list[shapes.Promotion]:
    """Every promotion and rollback of the surveys' champions, the newest first; `alias` names LSST's."""
    rows = [
        row
        for survey in SURVEYS
        for row in registry.promotion_history(connection, alias_of(alias, survey))
    ]
    rows.sort(key=lambda row: -row["promotion_id"])
    return [shapes.Promotion(**row) for row in rows]


def trials(connection: sa.Connection) -> list[shapes.Trial]:
    """The newest trials, the newest first."""
    return [shapes.Trial(**row) for row in registry.trial_history(connection)]


def score_so_far(connection: sa.Connection, model_version: str) -> shapes.ScoreSoFar:
    """How good a model's scores before the labels were."""
    return judge(object_queries.scores_before_labels(connection, model_version))


def judge(scored: Sequence[tuple[int, Mapping[int, float]]]) -> shapes.ScoreSoFar:
    """Accuracy and log-loss of pairs (true class, probabilities); null if there are none.

    A class that the model does not know counts as `models.evaluation.PROBABILITY_FLOOR`.

    Examples
    --------
    >>> judge([(111, {111: 0.5, 112: 0.5}), (113, {111: 1.0})]).accuracy
    0.5
    """
    if not scored:
        return shapes.ScoreSoFar(n_labels=0, accuracy=None, log_loss=None)
    right = [max(p, key=lambda class_id: p[class_id]) == truth for truth, p in scored]
    given = [max(p.get(truth, 0.0), PROBABILITY_FLOOR) for truth, p in scored]
    return shapes.ScoreSoFar(
        n_labels=len(scored),
        accuracy=sum(right) / len(right),
        log_loss=-sum(map(math.log, given)) / len(given),
    )
