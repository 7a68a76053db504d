"""Train a model on labelled light curves: folds by object, calibrated out of fold, seeded."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.arrays import LightCurves, light_curve_column, light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.features.declare import NOT_PROVIDED, Context
from lightcurves.features.registry import declared, feature_digest
from lightcurves.moments import as_of, detections
from models.artifact import Trained
from models.calibration import fit_calibration
from models.evaluation import expected_calibration_error, log_loss, macro_f1
from models.inputs import Inputs
from models.kinds import kind_of
from models.novelty import RankProduct
from models.pool import LinearPool
from models.rows import TrainingRows, TrainingSettings
from models.sets import LeastAmbiguousSets, conformal_threshold
from models.shift import target_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.parts import Classifier, Detector, Sets

CONTEXT_COLUMNS: Final = tuple(n for n in Context._fields if n not in {"ra_deg", "dec_deg"})
"""What a light-curve folder may have of an object that LSST's packets do not carry."""


def train(
    moments: pa.Table,
    settings: TrainingSettings | None = None,
    progress: Callable[[str, float], None] | None = None,
    *,
    target: pa.Table | None = None,
    threads: int = 2,
) -> Trained:
    """Train classifiers and detectors, combiner, calibration, prediction sets and novelty.

    Parameters
    ----------
    moments
        From :func:`moments_of` or :func:`moments_of_alerts`, or both: labelled light curves, an
        object's at several moments; rows without a label are left out.
    settings
        See :class:`TrainingSettings`.
    progress
        Called with the name of the step and the fraction done.
    target
        Moments of unlabelled objects like those that the model is to score. Combiner, calibration and sets
        are then fitted to labelled rows weighted to match their distribution, see :mod:`models.shift`;
        classifiers and detectors are fitted without these weights. Its ``class_id`` is not read.
    threads
        At most this many folds are trained at a time, each on one core: the model is the same to the bit, and
        no thread waits, spinning, for a core that another process uses (two threads in one booster, beside
        Spark, took four times as long as one).

    Raises
    ------
    ConfigurationError
        Fewer than two classes have as many objects as there are folds.
    """
    settings = settings or TrainingSettings()
    report = progress or (lambda _what, _fraction: None)
    moments, class_ids = labelled(moments, settings.folds)
    moments = in_order(moments)
    report("features", 0.0)
    rows = training_rows(moments, class_ids, settings)
    fold = object_folds(rows, settings)
    weights = rows.weights if target is None else weights_for(rows, fold, target, settings)
    raw = [np.zeros((len(rows.truth), len(class_ids))) for _ in settings.classifiers]
    unseen = [rows.take(fold[rows.owner] == k) for k in range(settings.folds)]
    fitted = []
    with ThreadPoolExecutor(threads) as pool:
        parts = [fold[rows.owner] != k for k in range(settings.folds)]
        everything = np.ones(len(rows.truth), bool)
        grown = pool.map(lambda some: _grow(rows, some, class_ids, settings), [*parts, everything])
        for k, part in enumerate(parts):
            report(f"fold {k + 1} of {settings.folds}", k / (settings.folds + 1))
            fitted.append(next(grown))
            for p, classifier in zip(raw, fitted[k].classifiers, strict=True):
                p[~part] = classifier.probabilities(unseen[k].inputs)
        report("final model", settings.folds / (settings.folds + 1))
        final = next(grown)
    combiner = LinearPool.fit(raw, rows.truth, weights)
    combined = combiner.combine(raw)
    calibration = fit_calibration(combined, rows.truth, weights)
    p = calibration.apply(combined)
    threshold = conformal_threshold(p, rows.truth, weights, settings.coverage)
    sets = LeastAmbiguousSets(threshold, settings.coverage)
    strangeness = {kind: np.zeros(len(p)) for kind in settings.detectors}
    for part, of_fold, held_out in zip(parts, fitted, unseen, strict=True):
        for detector in of_fold.detectors:
            strangeness[detector.kind][~part] = detector.strangeness(held_out.inputs, p[~part])
    return Trained(
        class_ids=class_ids,
        parts=(
            *final.classifiers,
            combiner,
            calibration,
            sets,
            *final.detectors,
            RankProduct.fit(strangeness),
        ),
        training={
            "digest": data_digest(moments, settings, target),
            "n_objects": int(rows.owner.max()) + 1,
            "n_rows": len(rows.truth),
            "settings": asdict(settings),
        },
        metrics=_metrics(p, rows, sets),
    )


def labelled(moments: pa.Table, fewest: int) -> tuple[pa.Table, tuple[int, ...]]:
    """Return the rows whose class has at least `fewest` objects, and these classes, ascending."""
    if "class_id" not in moments.column_names:
        raise ConfigurationError("training needs objects with a class_id")
    pairs = (
        moments.select(["object_id", "class_id"]).group_by(["object_id", "class_id"]).aggregate([])
    )
    classes, counts = np.unique(pairs["class_id"].drop_null().to_numpy(), return_counts=True)
    usable = classes[counts >= fewest]
    if usable.size < 2:  # noqa: PLR2004 - with one class there is nothing to decide
        raise ConfigurationError(
            f"training needs at least 2 classes with {fewest} labelled objects each, found {usable.size}"
        )
    chosen = pc.is_in(moments["class_id"], value_set=pa.array(usable, pa.int32()))
    return moments.filter(chosen), tuple(int(c) for c in usable)


MOMENT_COLUMNS: Final = ("object_id", "class_id", *Context._fields, "light_curve")


def moments_of(table: pa.Table, at_most: int = TrainingSettings.moments) -> pa.Table:
    """Return each object of a light-curve folder at several moments of its life, and as a whole.

    Parameters
    ----------
    table
        From ``read_light_curves``.
    at_most
        Moments of each object, besides the whole; see :func:`choose_moments`.
    """
    curves = light_curves_of(table)
    curve, point = choose_moments(curves, at_most)
    early = with_light_curves(table, as_of(curves, curve, point), curve)
    return pa.concat_tables([_moment_columns(t) for t in (early, table)])


def moments_of_alerts(alerts: pa.Table, at_most: int = TrainingSettings.moments) -> pa.Table:
    """Return several alerts of each object, exactly as the stream saw them.

    Parameters
    ----------
    alerts
        ``object_id``, ``class_id`` (int32), ``t_mjd_tai``, ``ra_deg``, ``dec_deg`` and
        ``light_curve`` of alerts; packets do not carry a host redshift, so it is null.
    at_most
        Alerts of each object, densest early on; see :func:`choose_moments`.
    """
    alerts = alerts.sort_by([("object_id", "ascending"), ("t_mjd_tai", "ascending")])
    _, first, counts = np.unique(
        alerts["object_id"].to_numpy(), return_index=True, return_counts=True
    )
    rows = [f + early_dense(n, at_most) for f, n in zip(first, counts, strict=True)]
    at = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    chosen = with_light_curves(alerts, light_curves_of(alerts.take(pa.array(at))), at)
    return _moment_columns(chosen)


def _moment_columns(table: pa.Table) -> pa.Table:
    """Return :data:`MOMENT_COLUMNS`; columns that `table` lacks are null."""
    for name in Context._fields:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.float64()))
    return table.select(list(MOMENT_COLUMNS))


def as_in_packets(table: pa.Table) -> pa.Table:
    """Return `table` without what packets do not carry: what the stream will see."""
    return table.drop_columns([name for name in CONTEXT_COLUMNS if name in table.column_names])


def training_rows(
    moments: pa.Table, class_ids: tuple[int, ...], settings: TrainingSettings
) -> TrainingRows:
    """Return the rows of `moments`; in a seeded part of them hide what packets do not carry.

    It is hidden in the columns, too, so that no part can read it from them; nor can a part see whose
    rows they are, or their classes.
    """
    rng = np.random.default_rng(settings.seed)
    everything = Inputs(moments)
    values, why = everything.features(settings.names), everything.why(settings.names)
    some = np.flatnonzero(~np.isnan(everything.ages()))
    moments, values, why = moments.take(pa.array(some)), values[some], why[some]
    hidden = rng.random(len(values)) < settings.hide_host
    for name in CONTEXT_COLUMNS:
        at = moments.schema.get_field_index(name)
        shown = pc.if_else(pa.array(hidden), pa.scalar(None, pa.float64()), moments[name])
        moments = moments.set_column(at, name, shown)
        cells = np.ix_(hidden, np.array(settings.names) == name)
        values[cells], why[cells] = np.nan, NOT_PROVIDED
    _, owner = np.unique(moments["object_id"].to_numpy(), return_inverse=True)
    return TrainingRows(
        Inputs.of_features(
            moments.drop_columns(["object_id", "class_id"]), settings.names, values, why
        ),
        settings.names,
        np.searchsorted(class_ids, moments["class_id"].to_numpy()),
        owner,
        1.0 / np.bincount(owner)[owner],
    )


def choose_moments(
    curves: LightCurves, at_most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose detections of each light curve: the first, then at growing intervals, and the last.

    The stream scores objects mostly at early epochs, so these are taken densely: detections 1, 2, 3,
    ... up to the last in geometric steps.
    """
    curve, point = detections(curves)
    first = np.searchsorted(curve, np.arange(len(curves)))
    counts = np.diff(np.append(first, curve.size))
    chosen = [first[k] + early_dense(n, at_most) for k, n in enumerate(counts) if n > 0]
    at = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return curve[at], point[at]


def early_dense(n: int, at_most: int) -> NDArray[np.int64]:
    """Return up to `at_most` of 0 .. n-1 in geometric steps, the first and the last among them."""
    steps: NDArray[np.int64] = np.unique(np.geomspace(1, n, at_most).round().astype(np.int64)) - 1
    return steps


def with_light_curves(table: pa.Table, curves: LightCurves, owner: NDArray[np.int64]) -> pa.Table:
    """Return row ``owner[k]`` of `table` with light curve k in place of its own."""
    rows = table.drop_columns(["light_curve"]).take(pa.array(owner))
    return rows.append_column("light_curve", light_curve_column(curves))


def weights_for(
    rows: TrainingRows, fold: NDArray[np.int64], target: pa.Table, settings: TrainingSettings
) -> NDArray[np.float64]:
    """Return the weights of `rows` that match the distribution of `target`."""
    inputs = Inputs(target)
    values = inputs.features(rows.names)[~np.isnan(inputs.ages())]
    return rows.weights * target_weights(rows.values, fold[rows.owner], values, seed=settings.seed)


def object_folds(rows: TrainingRows, settings: TrainingSettings) -> NDArray[np.int64]:
    """Distribute the objects of each class over the folds in a seeded order; an object is in one fold."""
    rng = np.random.default_rng(settings.seed + 1)
    truth = np.zeros(rows.owner.max() + 1, np.int64)
    truth[rows.owner] = rows.truth
    fold = np.zeros(truth.size, np.int64)
    for label in np.unique(truth):
        members = rng.permutation(np.flatnonzero(truth == label))
        fold[members] = np.arange(members.size) % settings.folds
    return fold


class _Grown(NamedTuple):
    classifiers: tuple[Classifier, ...]
    detectors: tuple[Detector, ...]


def _grow(
    rows: TrainingRows,
    some: NDArray[np.bool_],
    class_ids: tuple[int, ...],
    settings: TrainingSettings,
) -> _Grown:
    """Fit classifiers and detectors, the parts that learn from inputs, on some of the rows."""
    inside = rows.take(some)

    def fitted(role: str, kinds: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(kind_of(role, kind).fit(inside, class_ids, settings) for kind in kinds)

    return _Grown(
        fitted("classifier", settings.classifiers), fitted("detector", settings.detectors)
    )


def _metrics(p: NDArray[np.float64], rows: TrainingRows, sets: Sets) -> dict[str, float]:
    members = sets.members(p)
    covered = members[np.arange(len(p)), rows.truth]
    return {
        "out_of_fold_log_loss": log_loss(p, rows.truth, rows.weights),
        "out_of_fold_macro_f1": macro_f1(p.argmax(axis=1), rows.truth, p.shape[1], rows.weights),
        "out_of_fold_ece": expected_calibration_error(p, rows.truth, rows.weights),
        "out_of_fold_coverage": float(np.average(covered, weights=rows.weights)),
        "out_of_fold_set_size": float(np.average(members.sum(axis=1), weights=rows.weights)),
    }


def in_order(moments: pa.Table) -> pa.Table:
    """Return the rows sorted by object and number of points, so that neither the order of a folder
    nor that of the labels changes a model.
    """  # noqa: D205 - one sentence
    counts = light_curves_of(moments).counts()
    return moments.take(pa.array(np.lexsort((counts, moments["object_id"].to_numpy()))))


def data_digest(
    moments: pa.Table, settings: TrainingSettings, target: pa.Table | None = None
) -> str:
    """Return 16 hexadecimal digits of features, settings, objects, labels and measurements."""
    digest = hashlib.sha256(feature_digest(declared(settings.names)).encode())
    digest.update(repr(asdict(settings)).encode())
    for table in (moments, target):
        if table is not None:
            _add_rows(digest, table)
    return digest.hexdigest()[:16]


def _add_rows(digest: Any, moments: pa.Table) -> None:
    for name in MOMENT_COLUMNS[:-1]:
        column = moments[name].combine_chunks()
        digest.update(np.asarray(column.is_null()).tobytes())
        digest.update(column.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    curves = light_curves_of(moments)
    for array in (curves.offsets, curves.t_mjd_tai, curves.band, curves.flux_njy, curves.sigma_njy):
        digest.update(array.tobytes())
