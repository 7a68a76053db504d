"""The gate: a challenger is promoted only if it is proven better on objects that it never saw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.errors import ConfigurationError
from models.evaluation import macro_f1, row_losses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.scoring import Model

_RESAMPLES: Final = 2000
_TOLERATED_F1_LOSS: Final = 0.02
FEWEST_OBJECTS: Final = 20
"""Fewer frozen objects prove nothing: of two objects that both gain, every resample gains too."""


@dataclass(frozen=True)
class Gate:
    """The result of the comparison.

    Attributes
    ----------
    n_objects
        Frozen objects that both models scored.
    champion_log_loss, challenger_log_loss
        Mean over objects; a class that a model does not know costs ``-ln 0.001``.
    gain, gain_lower
        Mean improvement of the log-loss, and the lower end of its one-sided bootstrap interval.
    confidence
        Confidence of that interval.
    champion_macro_f1, challenger_macro_f1
        Over all classes of the frozen set.
    passed
        ``gain_lower > 0`` and the macro F1 fell by no more than 0.02.
    """

    n_objects: int
    champion_log_loss: float
    challenger_log_loss: float
    gain: float
    gain_lower: float
    confidence: float
    champion_macro_f1: float
    challenger_macro_f1: float
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a row in the database; None for those that are not finite."""
        plain = asdict(self)
        return {
            k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in plain.items()
        }


def compare(
    champion: Model, challenger: Model, frozen: pa.Table, *, confidence: float, seed: int
) -> Gate:
    """Compare two models on the frozen moments.

    The improvement is averaged within each object and bootstrapped over objects (paired), so that many
    moments of one object do not count as independent: Efron & Tibshirani 1993, An Introduction
    to the Bootstrap, chapter 13 (percentile interval).

    Parameters
    ----------
    champion, challenger
        The models.
    frozen
        From ``models.training.moments_of``, of objects that neither model was trained on; those without
        a class are left out.
    confidence
        Confidence of the one-sided interval.
    seed
        Seed of the resampling.

    Raises
    ------
    ConfigurationError
        No frozen object has a usable light curve.
    """
    frozen = frozen.filter(pc.is_valid(frozen["class_id"]))
    old, new = _judge(champion, frozen), _judge(challenger, frozen)
    both = np.isfinite(old.losses) & np.isfinite(new.losses)
    _, owner = np.unique(frozen["object_id"].to_numpy()[both], return_inverse=True)
    old_losses, new_losses = (
        _by_object(losses[both], owner) for losses in (old.losses, new.losses)
    )
    if not old_losses.size:
        raise ConfigurationError("no object of the frozen set can be scored: nothing to compare on")
    gains = old_losses - new_losses
    lower = bootstrap_lower(gains, confidence, seed)
    f1_old, f1_new = old.macro_f1(both), new.macro_f1(both)
    return Gate(
        n_objects=gains.size,
        champion_log_loss=float(old_losses.mean()),
        challenger_log_loss=float(new_losses.mean()),
        gain=float(gains.mean()),
        gain_lower=lower,
        confidence=confidence,
        champion_macro_f1=f1_old,
        challenger_macro_f1=f1_new,
        passed=bool(lower > 0.0 and f1_new >= f1_old - _TOLERATED_F1_LOSS),
    )


@dataclass(frozen=True)
class _Judged:
    losses: NDArray[np.float64]
    guess: NDArray[np.int64]
    labels: NDArray[np.int64]

    def macro_f1(self, rows: NDArray[np.bool_]) -> float:
        classes, truth = np.unique(self.labels[rows], return_inverse=True)
        guess = np.searchsorted(classes, self.guess[rows])
        known = np.isin(self.guess[rows], classes)
        return macro_f1(np.where(known, guess, -1), truth, classes.size)


def _judge(model: Model, frozen: pa.Table) -> _Judged:
    p = model.score_arrays(frozen).probabilities
    labels = frozen["class_id"].to_numpy().astype(np.int64)
    class_ids = np.array(model.manifest.class_ids)
    known = np.isin(labels, class_ids)
    truth = np.where(known, np.searchsorted(class_ids, labels), -1)
    scored = np.isfinite(p).all(axis=1)
    losses = np.where(scored, row_losses(np.nan_to_num(p), truth), np.nan)
    return _Judged(losses, class_ids[np.nan_to_num(p).argmax(axis=1)], labels)


def _by_object(losses: NDArray[np.float64], owner: NDArray[np.int64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.bincount(owner, losses) / np.bincount(owner)
    return means


def bootstrap_lower(gains: NDArray[np.float64], confidence: float, seed: int) -> float:
    """Return the lower end of the one-sided percentile interval of the mean gain.

    Minus infinity for fewer than :data:`FEWEST_OBJECTS` objects, which prove nothing.
    """
    if gains.size < FEWEST_OBJECTS:
        return float("-inf")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, gains.size, (_RESAMPLES, gains.size))
    return float(np.quantile(gains[picks].mean(axis=1), 1.0 - confidence))
