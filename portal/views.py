"""From rows to shapes: what the REST interface and the pages both show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from lightcurves.bands import BAND_NAMES
from lightcurves.taxonomy import class_name
from models.evaluation import PROBABILITY_FLOOR
from portal import shapes
from store import labels, portal_queries, queries, registry

Row = portal_queries.AnyRow


def name_of(class_id: int | None) -> str | None:
    """The name of a class; None of none."""
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
        rows = queries.newest_objects(connection, limit, class_id=class_id)
    else:
        ranking: portal_queries.Ranking = "novelty" if order == "strangest" else "entropy"
        rows = portal_queries.ranked_objects(connection, ranking, limit, class_id=class_id)
    return [summary(row) for row in portal_queries.with_newest_alert(connection, rows)]


def objects_near(
    connection: sa.Connection, ra_deg: float, dec_deg: float, radius_arcsec: float, limit: int
) -> list[shapes.ObjectNear]:
    """Objects within a cone, the nearest first."""
    near = queries.cone_search(connection, ra_deg, dec_deg, radius_arcsec, limit)
    rows = portal_queries.with_newest_alert(connection, near)
    return [shapes.ObjectNear(**_summary_values(row)) for row in rows]


def object_summary(connection: sa.Connection, object_id: int) -> shapes.ObjectSummary | None:
    """One object, or None."""
    row = queries.object_row(connection, object_id)
    if row is None:
        return None
    return summary(portal_queries.with_newest_alert(connection, [row])[0])


def object_detail(
    connection: sa.Connection, object_id: int, points: pa.Table | None
) -> shapes.ObjectDetail | None:
    """One object with all that is known about it, or None."""
    found = object_summary(connection, object_id)
    if found is None:
        return None
    alerts = history(connection, object_id)
    return shapes.ObjectDetail(
        object=found,
        classes=newest_classes(alerts),
        history=alerts,
        light_curve=light_curve_by_band(points),
        labels=label_list(labels.label_history(connection, object_id)),
        request=request_of(connection, object_id),
    )


def history(connection: sa.Connection, object_id: int) -> list[shapes.Alert]:
    """Every alert of an object, by its time."""
    rows = queries.object_history(connection, object_id)
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
    """A light curve as arrays per band, bands in order of wavelength; None where there is none."""
    if points is None:
        return None
    points = points.sort_by("t_mjd_tai")
    bands = np.array(points["band"].to_pylist(), object)
    found = set(bands.tolist())
    order = [band for band in BAND_NAMES if band in found]
    order += sorted(str(band) for band in found.difference(order))
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


def current_of(history: Sequence[shapes.Label]) -> shapes.Label | None:
    """The label of an object that counts, by the fold that `store.labels` describes."""
    return max(history, key=_weight, default=None)


def _weight(label: shapes.Label) -> tuple[float, int]:
    stated = label.confidence is not None
    confidence = label.confidence if stated else labels.UNSTATED_CONFIDENCE
    return confidence or 0.0, label.label_id


def label_requests(
    connection: sa.Connection, *, only_open: bool, limit: int
) -> list[shapes.LabelRequest]:
    """The queue, the most useful first."""
    rows = labels.label_queue(connection, only_open=only_open, limit=limit)
    return [_label_request(row) for row in rows]


def request_of(connection: sa.Connection, object_id: int) -> shapes.LabelRequest | None:
    """The request for an object, answered or not, or None."""
    row = portal_queries.request_of(connection, object_id)
    if row is None:
        return None
    current = current_of(label_list(labels.label_history(connection, object_id)))
    answer = current.class_id if current else None
    return _label_request({**row, "answered": answer is not None, "answer": answer})


def _label_request(row: Row) -> shapes.LabelRequest:
    return shapes.LabelRequest(**{**row, "answer_name": name_of(row["answer"])})


def all_models(connection: sa.Connection, alias: str) -> shapes.Models:
    """The models and how they came to be used."""
    champion = registry.champion(connection, alias)
    version = None if champion is None else str(champion["model_version"])
    return shapes.Models(
        alias=alias,
        champion=version,
        score_so_far=None if version is None else score_so_far(connection, version),
        versions=[shapes.ModelVersion(**row) for row in registry.list_models(connection)],
        promotions=promotions(connection, alias),
        trials=trials(connection),
    )


def promotions(connection: sa.Connection, alias: str) -> list[shapes.Promotion]:
    """Every promotion and rollback of an alias, the newest first."""
    return [shapes.Promotion(**row) for row in registry.promotion_history(connection, alias)]


def trials(connection: sa.Connection) -> list[shapes.Trial]:
    """The newest trials, the newest first."""
    return [shapes.Trial(**row) for row in registry.trial_history(connection)]


def score_so_far(connection: sa.Connection, model_version: str) -> shapes.ScoreSoFar:
    """How good a model's scores before the labels were."""
    return judge(portal_queries.scores_before_labels(connection, model_version))


def judge(scored: Sequence[tuple[int, Mapping[int, float]]]) -> shapes.ScoreSoFar:
    """Accuracy and log-loss of (true class, probabilities); null without any.

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
