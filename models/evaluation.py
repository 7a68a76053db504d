"""How good scores are: proper scores, calibration, and the novelty of objects of unknown classes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.errors import ConfigurationError
from lightcurves.reasons import is_given
from lightcurves.taxonomy import class_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROBABILITY_FLOOR: Final = 1e-3
"""The least probability that the log-loss counts, also for classes unknown to a model; bounds the loss."""
_N_BINS: Final = 15
DAY_EDGES: Final = (0.0, 1.0, 3.0, 7.0, 14.0, 30.0, 60.0, 180.0, np.inf)


def log_loss(
    p: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64] | None = None
) -> float:
    """Return the weighted mean of ``-ln p(true class)``, p floored; truth -1 is a class unknown to p.

    Parameters
    ----------
    p
        float64 (rows, classes).
    truth
        int64 (rows): column of the true class, or -1.
    weights
        float64 (rows); equal by default.
    """
    return float(np.average(row_losses(p, truth), weights=weights))


def row_losses(p: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``-ln max(p(true class), floor)`` of each row."""
    p_true = np.where(truth >= 0, p[np.arange(truth.size), np.maximum(truth, 0)], 0.0)
    losses: NDArray[np.float64] = -np.log(np.maximum(p_true, PROBABILITY_FLOOR))
    return losses


def macro_f1(
    guess: NDArray[Any],
    truth: NDArray[Any],
    n_classes: int,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Return the mean over classes (with a true member) of ``2 TP / (2 TP + FP + FN)``, weighted."""
    weights = np.ones(len(truth)) if weights is None else weights
    scores = []
    for k in range(n_classes):
        true_positive = weights[(guess == k) & (truth == k)].sum()
        wrong = weights[(guess == k) != (truth == k)].sum()
        if np.any(truth == k):
            scores.append(2 * true_positive / (2 * true_positive + wrong))
    return float(np.mean(scores)) if scores else float("nan")


def expected_calibration_error(
    p: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64] | None = None
) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins of confidence.

    Naeini, Cooper & Hauskrecht 2015, AAAI, eq. 2 (expected calibration error), of the top class.
    """
    weights = np.ones(len(p)) if weights is None else weights
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == truth
    cell = np.minimum((confidence * _N_BINS).astype(int), _N_BINS - 1)
    gap = np.bincount(cell, weights * (confidence - right), _N_BINS)
    return float(np.abs(gap).sum() / weights.sum())


def auroc(
    strange: NDArray[np.float64],
    ordinary: NDArray[np.float64],
    weights: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> float:
    """Return the probability that a strange score exceeds an ordinary one; ties count half.

    `weights` are those of the strange and the ordinary scores, equal by default. NaN if there are
    no strange or no ordinary scores.
    """
    if strange.size == 0 or ordinary.size == 0:
        return float("nan")
    of_strange, of_ordinary = weights or (np.ones(strange.size), np.ones(ordinary.size))
    order = np.argsort(ordinary)
    ranked, cumulated = ordinary[order], np.append(0.0, np.cumsum(of_ordinary[order]))
    below = sum(cumulated[np.searchsorted(ranked, strange, side)] for side in ("left", "right"))
    return float(np.average(below, weights=of_strange) / 2.0 / cumulated[-1])


def evaluate(scores: pa.Table, objects: pa.Table) -> dict[str, Any]:
    """Compare scores with the true classes.

    Parameters
    ----------
    scores
        From ``Model.score``, with ``object_id``; without ``days_since_first_detection`` if the rows are
        not moments of objects' lives.
    objects
        ``object_id`` and ``class_id``; rows without a class are left out.

    Returns
    -------
    dict
        ``n_rows``, ``n_not_evaluated`` by reason, ``log_loss``, ``macro_f1``, ``ece``,
        ``coverage`` and ``set_size`` of the prediction sets, over the classes that the model knows;
        ``novelty_auroc`` of the true classes that it does not know against those that it does,
        together and by class; the same by days since first detection under ``by_days``, if `scores`
        have that column. Weights: every object counts equally within a figure.

    Raises
    ------
    ConfigurationError
        No scored object has a class.
    """
    labels = true_classes(scores, objects)
    reasons = scores["reason"].to_numpy(zero_copy_only=False)
    usable = (labels >= 0) & ~is_given(reasons)
    if not usable.any():
        raise ConfigurationError("no scored object has a class_id: nothing to evaluate")
    not_scored, counts = np.unique(reasons[is_given(reasons)].astype(str), return_counts=True)
    result = {
        "n_rows": scores.num_rows,
        "n_not_evaluated": dict(zip(not_scored.tolist(), counts.tolist(), strict=True)),
        **_figures(scores.filter(pa.array(usable)), labels[usable]),
    }
    if "days_since_first_detection" in scores.column_names:
        days = scores["days_since_first_detection"].to_numpy()[usable]
        result["by_days"] = _by_days(scores.filter(pa.array(usable)), labels[usable], days)
    return result


def true_classes(scores: pa.Table, objects: pa.Table) -> NDArray[np.int64]:
    """Return the class of each row of `scores`, -1 where its object has none."""
    labelled = objects.filter(pc.is_valid(objects["class_id"]))
    at = pc.index_in(scores["object_id"], value_set=labelled["object_id"].combine_chunks())
    classes = labelled["class_id"].take(at).combine_chunks().cast(pa.int64()).fill_null(-1)
    class_ids: NDArray[np.int64] = classes.to_numpy(zero_copy_only=False)
    return class_ids


def _by_days(table: pa.Table, labels: NDArray[Any], days: NDArray[Any]) -> list[dict[str, Any]]:
    rows = []
    for low, high in pairwise(DAY_EDGES):
        inside = (days >= low) & (days < high)
        if inside.any():
            bounds = {"from_days": low, "to_days": high if np.isfinite(high) else None}
            rows.append({**bounds, **_figures(table.filter(pa.array(inside)), labels[inside])})
    return rows


def _figures(table: pa.Table, labels: NDArray[Any]) -> dict[str, Any]:
    class_ids = np.array(sorted(int(c[2:]) for c in table.column_names if c.startswith("p_")))
    p = np.column_stack([table[f"p_{c}"].to_numpy() for c in class_ids])
    known = np.isin(labels, class_ids)
    truth = np.where(known, np.searchsorted(class_ids, labels), -1)
    owners, owner = np.unique(table["object_id"].to_numpy(), return_inverse=True)
    weights = 1.0 / np.bincount(owner)[owner]
    figures: dict[str, Any] = {"n_objects": len(owners), "n_scored": len(labels)}
    if known.any():
        figures |= _known_figures(
            table.filter(pa.array(known)), p[known], truth[known], weights[known], class_ids
        )
    novelty = table["novelty"].to_numpy()
    if (~known).any():
        ordinary = novelty[known]
        figures["novelty_auroc"] = auroc(
            novelty[~known], ordinary, (weights[~known], weights[known])
        )
        figures["novelty_auroc_by_class"] = {
            class_name(int(c)): auroc(
                novelty[labels == c], ordinary, (weights[labels == c], weights[known])
            )
            for c in np.unique(labels[~known])
        }
    return figures


def _known_figures(
    table: pa.Table,
    p: NDArray[np.float64],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
    class_ids: NDArray[Any],
) -> dict[str, float]:
    sets = table["prediction_set"].to_pylist()
    covered = np.array([class_ids[t] in members for t, members in zip(truth, sets, strict=True)])
    sizes = np.array([len(members) for members in sets])
    return {
        "log_loss": log_loss(p, truth, weights),
        "macro_f1": macro_f1(p.argmax(axis=1), truth, p.shape[1], weights),
        "accuracy": float(np.average(p.argmax(axis=1) == truth, weights=weights)),
        "ece": expected_calibration_error(p, truth, weights),
        "coverage": float(np.average(covered, weights=weights)),
        "set_size": float(np.average(sizes, weights=weights)),
    }
