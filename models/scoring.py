"""Score light curves: the one function that the stream, the command line and a notebook all call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from lightcurves.features.table import feature_arrays
from lightcurves.reasons import NotEvaluated
from models.artifact import Manifest, load_parts
from models.calibration import prediction_sets
from models.forest import Forest, isolation
from models.novelty import entropy_of
from models.trees import Trees
from models.trees import probabilities as probabilities_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_IDS: Final = ("dia_source_id", "object_id")


@dataclass(frozen=True)
class Scores:
    """Scores as arrays; rows with a `reason` hold NaN and False.

    Attributes
    ----------
    probabilities
        float64 (rows, classes): calibrated; each scored row sums to 1.
    members
        bool (rows, classes): the prediction set.
    entropy
        float64, nats.
    margin
        float64: likeliest minus second likeliest probability.
    novelty, novelty_far
        float64: :mod:`models.novelty`'s score in [0, 1], and the fraction of training rows
        (moments of objects) that are at least as strange.
    reason
        object: a reason code where not evaluated, else None.
    features, why
        What :func:`lightcurves.features.table.feature_arrays` gave.
    """

    probabilities: NDArray[np.float64]
    members: NDArray[np.bool_]
    entropy: NDArray[np.float64]
    margin: NDArray[np.float64]
    novelty: NDArray[np.float64]
    novelty_far: NDArray[np.float64]
    reason: NDArray[np.object_]
    features: NDArray[np.float64]
    why: NDArray[np.int8]


@dataclass(frozen=True)
class Model:
    """A loaded model; made by :func:`load_model`."""

    manifest: Manifest
    trees: Trees
    forest: Forest

    def score(self, table: pa.Table) -> pa.Table:
        """Score the light curves in `table`.

        Parameters
        ----------
        table
            From ``read_alerts`` or ``read_light_curves``.

        Returns
        -------
        pyarrow.Table
            One row per row of `table`, in its order: its identifiers, ``p_<classId>`` per class
            (calibrated; float64, sums to 1), ``prediction_set`` (list of classIds that together
            cover the truth with the model's coverage), ``novelty`` (0 to 1, larger is stranger),
            ``novelty_far``, ``entropy`` (nats), ``margin``, ``reason`` (null, or why all of these
            are null), ``model_version``, ``feature_digest``.
        """
        return scores_table(self, table, self.score_arrays(table))

    def score_arrays(self, table: pa.Table) -> Scores:
        """Score `table` into arrays; see :meth:`score`."""
        return self.score_features(table, *feature_arrays(table))

    def score_features(
        self, table: pa.Table, features: NDArray[np.float64], why: NDArray[np.int8]
    ) -> Scores:
        """Score `table`, whose features are known; see :meth:`score`."""
        reason = not_evaluated(table, why)
        rows = np.flatnonzero(~is_given(reason))
        n_classes = len(self.manifest.class_ids)
        probabilities = np.full((table.num_rows, n_classes), np.nan)
        members = np.zeros((table.num_rows, n_classes), np.bool_)
        entropy, margin, strange, far = np.full((4, table.num_rows), np.nan)
        if rows.size:
            p = self.manifest.calibration.apply(probabilities_of(self.trees, features[rows]))
            probabilities[rows] = p
            members[rows] = prediction_sets(p, self.manifest.set_threshold)
            entropy[rows] = entropy_of(p)
            top = np.sort(p, axis=1)
            margin[rows] = top[:, -1] - (top[:, -2] if n_classes > 1 else 0.0)
            isolated = isolation(self.forest, features[rows])
            strange[rows] = self.manifest.novelty.novelty_of(isolated, entropy[rows])
            far[rows] = self.manifest.novelty.false_alarm_rate(strange[rows])
        return Scores(probabilities, members, entropy, margin, strange, far, reason, features, why)


def load_model(folder: Path) -> Model:
    """Load the artifact at `folder`, verified; see :func:`models.artifact.read_manifest`."""
    return Model(*load_parts(folder))


def is_given(reasons: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have a reason."""
    return np.fromiter((reason is not None for reason in reasons), np.bool_, len(reasons))


def not_evaluated(table: pa.Table, why: NDArray[np.int8]) -> NDArray[np.object_]:
    """Return the reason why each row gets no score, or None where it does."""
    reason = np.full(table.num_rows, None, object)
    reason[_no_points(table, why)] = str(NotEvaluated.NO_FINITE_FLUX)
    if "ss_object_id" in table.column_names:
        has_object = _identified(table, "object_id")
        reason[~has_object] = str(NotEvaluated.NO_OBJECT)
        reason[~has_object & _identified(table, "ss_object_id")] = str(
            NotEvaluated.SOLAR_SYSTEM_OBJECT
        )
    if "reject_reason" in table.column_names:
        rejected = table["reject_reason"].to_numpy(zero_copy_only=False)
        reason = np.where(is_given(rejected), rejected, reason)
    return reason


def _no_points(table: pa.Table, why: NDArray[np.int8]) -> NDArray[np.bool_]:
    none: NDArray[np.bool_] = (why != 0).all(axis=1) if table.num_rows else np.zeros(0, np.bool_)
    return none


def _identified(table: pa.Table, name: str) -> NDArray[np.bool_]:
    ids: NDArray[Any] = table[name].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    identified: NDArray[np.bool_] = ids != 0
    return identified


def scores_table(model: Model, table: pa.Table, scores: Scores) -> pa.Table:
    """Lay `scores` out as the table that :meth:`Model.score` promises."""
    missing = is_given(scores.reason)

    def real(values: NDArray[np.float64]) -> pa.Array:
        return pa.array(np.ascontiguousarray(values), mask=missing)

    columns: dict[str, Any] = {name: table[name] for name in _IDS if name in table.column_names}
    for k, class_id in enumerate(model.manifest.class_ids):
        columns[f"p_{class_id}"] = real(scores.probabilities[:, k])
    columns["prediction_set"] = set_column(scores, model.manifest.class_ids)
    for name in ("novelty", "novelty_far", "entropy", "margin"):
        columns[name] = real(getattr(scores, name))
    columns["reason"] = pa.array(scores.reason, pa.string())
    for name in ("model_version", "feature_digest"):
        columns[name] = pa.array([getattr(model.manifest, name)] * table.num_rows, pa.string())
    return pa.table(columns)


def set_column(scores: Scores, class_ids: tuple[int, ...]) -> pa.ListArray:
    """Return the prediction sets as lists of classIds; null where not evaluated."""
    missing = is_given(scores.reason)
    counts = scores.members.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    members = np.array(class_ids, np.int32)[np.nonzero(scores.members)[1]]
    return pa.ListArray.from_arrays(
        pa.array(offsets),
        pa.array(members, pa.int32()),
        mask=pa.array(missing) if missing.any() else None,
    )
