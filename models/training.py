"""Train a model on labelled light curves: folds by object, calibrated out of fold, seeded."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import lightgbm
import numpy as np
import pyarrow as pa

from lightcurves.arrays import LightCurves, light_curve_column, light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.features.registry import FEATURE_DIGEST, FEATURE_NAMES
from lightcurves.features.table import feature_arrays
from lightcurves.moments import as_of, detections
from models.artifact import Parts
from models.calibration import conformal_threshold, fit_calibration, prediction_sets
from models.evaluation import expected_calibration_error, log_loss, macro_f1
from models.forest import isolation, train_forest
from models.novelty import entropy_of, fit_novelty

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

HOST_COLUMNS: Final = ("host_z_phot", "host_z_phot_err")


@dataclass(frozen=True)
class TrainingSettings:
    """All that a training depends on beside its data.

    Attributes
    ----------
    seed
        Of folds, moments, masks and trees.
    folds
        Out-of-fold predictions come from this many parts, split by object.
    rounds
        Boosting rounds.
    learning_rate, leaves, min_rows
        LightGBM's ``learning_rate``, ``num_leaves``, ``min_data_in_leaf``.
    moments
        At most this many moments of each light curve are learnt from, besides the whole.
    hide_host
        Fraction of rows whose host redshift is hidden, since real packets seldom carry one.
    coverage
        Of the prediction sets.
    threads
        Cores to use.
    """

    seed: int = 20260310
    folds: int = 3
    rounds: int = 120
    learning_rate: float = 0.08
    leaves: int = 24
    min_rows: int = 12
    moments: int = 6
    hide_host: float = 0.5
    coverage: float = 0.9
    threads: int = 2


class TrainingRows(NamedTuple):
    """Feature rows of training objects.

    ``values`` float64 (rows, features); ``truth`` int64, column of the class; ``owner`` int64, the
    object's row in the table; ``weights`` float64, an object's rows sum to 1.
    """

    values: NDArray[np.float64]
    truth: NDArray[np.int64]
    owner: NDArray[np.int64]
    weights: NDArray[np.float64]


def train(
    table: pa.Table,
    settings: TrainingSettings | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Parts:
    """Train classifier, calibration, prediction sets and novelty on the labelled rows of `table`.

    Parameters
    ----------
    table
        From ``read_light_curves``, with ``class_id``; rows without a label are left out.
    settings
        See :class:`TrainingSettings`.
    progress
        Called with what is being done and the fraction done.

    Raises
    ------
    ConfigurationError
        Fewer than two classes have as many objects as there are folds.
    """
    settings = settings or TrainingSettings()
    report = progress or (lambda _what, _fraction: None)
    table, class_ids = labelled(table, settings.folds)
    report("features", 0.0)
    rows = training_rows(table, class_ids, settings)
    fold = object_folds(rows, table.num_rows, settings)
    p = np.zeros((len(rows.truth), len(class_ids)))
    isolated = np.zeros(len(rows.truth))
    for k in range(settings.folds):
        report(f"fold {k + 1} of {settings.folds}", (k + 1) / (settings.folds + 2))
        inside, outside = fold[rows.owner] != k, fold[rows.owner] == k
        p[outside] = _predict(_boost(rows, inside, len(class_ids), settings), rows.values[outside])
        forest = train_forest(rows.values[inside], settings.seed)
        isolated[outside] = isolation(forest, rows.values[outside])
    calibration = fit_calibration(p, rows.truth, rows.weights)
    calibrated = calibration.apply(p)
    threshold = conformal_threshold(calibrated, rows.truth, rows.weights, settings.coverage)
    report("final model", (settings.folds + 1) / (settings.folds + 2))
    everything = np.ones(len(rows.truth), bool)
    return Parts(
        booster=_boost(rows, everything, len(class_ids), settings),
        forest=train_forest(rows.values, settings.seed),
        calibration=calibration,
        class_ids=class_ids,
        set_threshold=threshold,
        coverage=settings.coverage,
        novelty=fit_novelty(isolated, entropy_of(calibrated)),
        training={
            "digest": data_digest(table),
            "n_objects": table.num_rows,
            "n_rows": len(rows.truth),
            "settings": asdict(settings),
        },
        metrics=_metrics(calibrated, rows, threshold),
    )


def labelled(table: pa.Table, fewest: int) -> tuple[pa.Table, tuple[int, ...]]:
    """Return the rows whose class has at least `fewest` objects, and these classes, ascending."""
    if "class_id" not in table.column_names:
        raise ConfigurationError("training needs objects with a class_id")
    labels = table["class_id"].combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False)
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    kept = classes[counts >= fewest]
    if kept.size < 2:  # noqa: PLR2004 - one class is no question
        raise ConfigurationError(
            f"training needs at least 2 classes with {fewest} labelled objects each, found {kept.size}"
        )
    return table.filter(pa.array(np.isin(labels, kept))), tuple(int(c) for c in kept)


def training_rows(
    table: pa.Table, class_ids: tuple[int, ...], settings: TrainingSettings
) -> TrainingRows:
    """Return feature rows of each object at several moments of its life, and of its whole."""
    rng = np.random.default_rng(settings.seed)
    curves = light_curves_of(table)
    curve, point = choose_moments(curves, settings.moments)
    early = as_of(curves, curve, point)
    owner = np.concatenate([curve, np.arange(table.num_rows)])
    values = np.concatenate(
        [feature_arrays(with_light_curves(table, early, curve))[0], feature_arrays(table)[0]]
    )
    empty = np.isnan(values).all(axis=1)
    values, owner = values[~empty], owner[~empty]
    hidden = rng.random(len(values)) < settings.hide_host
    columns = [FEATURE_NAMES.index(name) for name in HOST_COLUMNS]
    values[np.ix_(hidden, columns)] = np.nan
    labels = table["class_id"].to_numpy()[owner]
    per_object = np.bincount(owner, minlength=table.num_rows)
    return TrainingRows(values, np.searchsorted(class_ids, labels), owner, 1.0 / per_object[owner])


def choose_moments(
    curves: LightCurves, at_most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose detections of each light curve: the first, then ever rarer, and the last.

    Early epochs are what the stream asks about most, so they are taken densely: detections 1, 2, 3,
    ... up to the last in geometric steps.
    """
    curve, point = detections(curves)
    first = np.searchsorted(curve, np.arange(len(curves)))
    counts = np.diff(np.append(first, curve.size))
    chosen = [
        first[k] + np.unique(np.geomspace(1, n, at_most).round().astype(np.int64)) - 1
        for k, n in enumerate(counts)
        if n > 0
    ]
    at = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return curve[at], point[at]


def with_light_curves(table: pa.Table, curves: LightCurves, owner: NDArray[np.int64]) -> pa.Table:
    """Return row ``owner[k]`` of `table` with light curve k in place of its own."""
    rows = table.drop_columns(["light_curve"]).take(pa.array(owner))
    return rows.append_column("light_curve", light_curve_column(curves))


def object_folds(
    rows: TrainingRows, n_objects: int, settings: TrainingSettings
) -> NDArray[np.int64]:
    """Deal the objects of each class over the folds in a seeded order; an object is in one fold."""
    rng = np.random.default_rng(settings.seed + 1)
    truth = np.full(n_objects, -1)
    truth[rows.owner] = rows.truth
    fold = np.zeros(n_objects, np.int64)
    for label in np.unique(truth):
        members = rng.permutation(np.flatnonzero(truth == label))
        fold[members] = np.arange(members.size) % settings.folds
    return fold


def _boost(
    rows: TrainingRows, inside: NDArray[np.bool_], n_classes: int, settings: TrainingSettings
) -> lightgbm.Booster:
    data = lightgbm.Dataset(
        rows.values[inside],
        rows.truth[inside],
        weight=rows.weights[inside] * 1.0,
        feature_name=list(FEATURE_NAMES),
        free_raw_data=True,
    )
    parameters: dict[str, Any] = {
        "objective": "multiclass",
        "num_class": n_classes,
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_rows,
        "min_sum_hessian_in_leaf": 0.1,
        "feature_fraction": 0.4,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "max_bin": 127,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads,
        "verbosity": -1,
    }
    return lightgbm.train(parameters, data, settings.rounds)


def _predict(booster: lightgbm.Booster, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(booster.predict(values), np.float64).reshape(len(values), -1)


def _metrics(p: NDArray[np.float64], rows: TrainingRows, threshold: float) -> dict[str, float]:
    members = prediction_sets(p, threshold)
    covered = members[np.arange(len(p)), rows.truth]
    return {
        "out_of_fold_log_loss": log_loss(p, rows.truth, rows.weights),
        "out_of_fold_macro_f1": macro_f1(p.argmax(axis=1), rows.truth, p.shape[1]),
        "out_of_fold_ece": expected_calibration_error(p, rows.truth, rows.weights),
        "out_of_fold_coverage": float(np.average(covered, weights=rows.weights)),
        "out_of_fold_set_size": float(np.average(members.sum(axis=1), weights=rows.weights)),
    }


def data_digest(table: pa.Table) -> str:
    """Return 16 hexadecimal digits of the objects, labels and measurements, whatever their order."""
    digest = hashlib.sha256(FEATURE_DIGEST.encode())
    table = table.sort_by("object_id")
    for name in sorted(set(table.column_names) - {"light_curve"}):
        column = table[name].combine_chunks()
        digest.update(name.encode())
        digest.update(repr(column.null_count).encode())
        digest.update(
            np.ascontiguousarray(column.fill_null(0).to_numpy(zero_copy_only=False)).tobytes()
        )
    curves = light_curves_of(table)
    for array in (curves.offsets, curves.t_mjd_tai, curves.band, curves.flux_njy, curves.sigma_njy):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
