"""Score light curves: the one function that the stream, the command line and a notebook all call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from lightcurves.reasons import NotEvaluated, is_given
from models.artifact import Manifest, load_parts
from models.inputs import LIGHT_CURVES, Inputs
from models.novelty import entropy_of
from models.record import SCORE_FIELDS, Kind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.parts import Part

_IDS: Final = ("dia_source_id", "object_id")


@dataclass(frozen=True)
class Scores:
    """Scores as arrays; rows with a `reason` hold NaN and False.

    Attributes
    ----------
    inputs
        The objects that were scored.
    probabilities
        float64 (rows, classes): calibrated; each scored row sums to 1.
    members
        bool (rows, classes): the prediction set.
    reals
        Fields of :data:`models.record.SCORE_FIELDS` that are one number per row, by name, float64.
    reason
        object: a reason code where not evaluated, else None.
    """

    inputs: Inputs
    probabilities: NDArray[np.float64]
    members: NDArray[np.bool_]
    reals: dict[str, NDArray[np.float64]]
    reason: NDArray[np.object_]


@dataclass(frozen=True)
class Model:
    """A loaded model; made by :func:`load_model`."""

    manifest: Manifest
    parts: tuple[Part, ...]

    def all_of(self, role: str) -> tuple[Any, ...]:
        """Return the parts of one role; see :data:`models.parts.ROLES`."""
        return tuple(part for part in self.parts if part.role == role)

    def only(self, role: str) -> Any:
        """Return the one part of a role that has one."""
        (part,) = self.all_of(role)
        return part

    @cached_property
    def reads_light_curves(self) -> bool:
        """Whether a part reads light curves besides features."""
        return LIGHT_CURVES in self.manifest.reads

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
            are null), ``model_version``, ``feature_digest`` and the other fields of a score that
            ``docs/record.md`` lists, among them ``days_since_first_detection``.
        """
        return scores_table(self, self.score_arrays(table))

    def score_arrays(self, table: pa.Table) -> Scores:
        """Score `table` into arrays; see :meth:`score`."""
        return self.score_inputs(Inputs(table))

    def score_inputs(self, inputs: Inputs) -> Scores:
        """Score a batch of objects; see :meth:`score`.

        Every part sees only the rows that can be evaluated.
        """
        inputs.features(self.manifest.features)  # all that the parts will read, in one pass
        reason = not_evaluated(inputs)
        rows = np.flatnonzero(~is_given(reason))
        n, n_classes = len(inputs), len(self.manifest.class_ids)
        probabilities = np.full((n, n_classes), np.nan)
        members = np.zeros((n, n_classes), np.bool_)
        some = inputs if rows.size == n else inputs.take(rows)
        reals = self._judge(some, probabilities, members, rows) if rows.size else {}
        of_all = {"days_since_first_detection": inputs.ages()}
        for name in _REALS.difference(of_all):
            of_all[name] = np.full(n, np.nan)
            of_all[name][rows] = reals.get(name, np.nan)
        return Scores(inputs, probabilities, members, of_all, reason)

    def _judge(
        self,
        some: Inputs,
        probabilities: NDArray[np.float64],
        members: NDArray[np.bool_],
        rows: NDArray[np.int64],
    ) -> dict[str, NDArray[np.float64]]:
        """Fill in `rows` of probabilities and sets; return the scores that are one number per row."""
        raw = self.only("combiner").combine(
            [part.probabilities(some) for part in self.all_of("classifier")]
        )
        p = self.only("calibration").apply(raw)
        probabilities[rows] = p
        members[rows] = self.only("sets").members(p)
        strangeness = {d.kind: d.strangeness(some, p) for d in self.all_of("detector")}
        novelty = self.only("novelty").novelty_of(strangeness)
        top = np.sort(p, axis=1)
        return {
            "probability": p.max(axis=1),
            "entropy": entropy_of(p),
            "margin": top[:, -1] - (top[:, -2] if p.shape[1] > 1 else 0.0),
            "novelty": novelty,
            "novelty_far": self.only("novelty").false_alarm_rate(novelty),
            "raw_entropy": entropy_of(raw),
        }


_TOP: Final = {"class_id", "probability", "probabilities"}
"""The fields that ``p_<classId>`` already expresses."""
_REALS: Final = frozenset(f.name for f in SCORE_FIELDS if f.kind is Kind.FLOAT64)


def load_model(folder: Path) -> Model:
    """Load the artifact at `folder`, verified; see :func:`models.artifact.load_parts`."""
    return Model(*load_parts(folder))


def not_evaluated(inputs: Inputs) -> NDArray[np.object_]:
    """Return the reason why each row gets no score, or None if it gets one."""
    table = inputs.table
    reason = np.full(len(inputs), None, object)
    reason[np.isnan(inputs.ages())] = str(NotEvaluated.NO_FINITE_FLUX)
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


def _identified(table: pa.Table, name: str) -> NDArray[np.bool_]:
    ids: NDArray[Any] = table[name].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    identified: NDArray[np.bool_] = ids != 0
    return identified


def scores_table(model: Model, scores: Scores) -> pa.Table:
    """Return `scores` as the table that :meth:`Model.score` describes."""
    missing, table = is_given(scores.reason), scores.inputs.table
    columns: dict[str, Any] = {name: table[name] for name in _IDS if name in table.column_names}
    for k, class_id in enumerate(model.manifest.class_ids):
        columns[f"p_{class_id}"] = pa.array(
            np.ascontiguousarray(scores.probabilities[:, k]), mask=missing
        )
    named = score_columns(model, scores)
    return pa.table({**columns, **{name: named[name] for name in _GIVEN}})


_FIRST: Final = (
    *("prediction_set", "novelty", "novelty_far", "entropy", "margin", "reason"),
    *("model_version", "feature_digest"),
)
_GIVEN: Final = (
    *_FIRST,
    *(f.name for f in SCORE_FIELDS if f.name not in {*_FIRST, *_TOP}),
)
"""The fields of a score beside ``p_<classId>`` in the table: the first ones, then all that came later."""


def score_columns(model: Model, scores: Scores) -> dict[str, pa.Array]:
    """Return the fields of :data:`models.record.SCORE_FIELDS`, by name."""
    missing = is_given(scores.reason)
    n, n_classes = scores.probabilities.shape
    safe = np.where(missing[:, None], 0.0, scores.probabilities)
    class_ids = np.array(model.manifest.class_ids, np.int32)
    columns = {
        name: pa.array(values, mask=np.isnan(values)) for name, values in scores.reals.items()
    }
    return columns | {
        "reason": pa.array(scores.reason, pa.string()),
        "class_id": pa.array(class_ids[safe.argmax(axis=1)], mask=missing),
        "probabilities": pa.ListArray.from_arrays(
            pa.array(np.arange(n + 1, dtype=np.int32) * n_classes),
            pa.array(safe.ravel()),
            mask=pa.array(missing) if missing.any() else None,
        ),
        "prediction_set": _set_column(scores, class_ids, missing),
        "model_version": pa.repeat(pa.scalar(model.manifest.model_version), n),
        "feature_digest": pa.repeat(pa.scalar(model.manifest.feature_digest), n),
    }


def _set_column(
    scores: Scores, class_ids: NDArray[np.int32], missing: NDArray[np.bool_]
) -> pa.ListArray:
    """Return the prediction sets as lists of classIds; null where not evaluated."""
    counts = scores.members.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets),
        pa.array(class_ids[np.nonzero(scores.members)[1]], pa.int32()),
        mask=pa.array(missing) if missing.any() else None,
    )
