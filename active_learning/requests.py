"""Chooses which candidates to request spectra of, within each night's budget. Pure functions.

First the strategy judges the alerts of a batch (:func:`wishes_of`), which may take its time; then, while the
batch is committed, the best of what is new and unasked fills the budget (:func:`choose_requests`).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.strategies.base import Worth
from active_learning.strategies.entropy import EntropyStrategy
from lightcurves.nights import night_of
from models.record import RECORD
from store.keys import keys_of, without_zero_ids
from store.requests import PROGRAM

if TYPE_CHECKING:
    from active_learning.strategies.base import Strategy
    from store.keys import Key

CANDIDATE_COLUMNS: Final = (*(record.name for record in RECORD), "healpix", "night")
"""What is known of a candidate: the record of its score, its cell on the sky, and the night of its alert."""

_REQUESTED: Final = (
    *("survey", "object_id", "dia_source_id", "model_version", "ra_deg", "dec_deg", "band"),
    *("flux_njy", "t_mjd_tai", "night", "utility", "why"),
)
_MJDS: Final = (0.0, 200_000.0)  # up to the year 2406


@dataclass(frozen=True)
class RequestPolicy:
    """How requests are chosen.

    Attributes
    ----------
    strategy
        Ranks the candidates.
    nightly_budget
        At most this many requests per night, over all surveys.
    min_points
        An object with fewer points is not requested yet.
    program
        The program that makes the requests: each program may request an object once.
    """

    strategy: Strategy = field(default_factory=EntropyStrategy)
    nightly_budget: int = 20
    min_points: int = 2
    program: str = PROGRAM


@dataclass(frozen=True)
class Wishes:
    """The alerts of a batch that are worth a spectrum.

    Attributes
    ----------
    policy
        Whose judgement it is.
    alerts
        Columns of the batch, ``night``, and the strategy's ``utility`` and ``why``.
    """

    policy: RequestPolicy
    alerts: pa.Table


def wishes_of(rows: pa.Table, policy: RequestPolicy) -> Wishes:
    """Return what the policy's strategy wants of a batch.

    Parameters
    ----------
    rows
        Of :data:`stream.rows.ROWS_SCHEMA`, with the features that the strategy names.
    policy
        How to choose.
    """
    candidates = candidates_of(rows)
    if candidates.num_rows:
        worth = policy.strategy.worth(_with_features(candidates, policy.strategy.features))
    else:
        worth = Worth(np.zeros(0), [])
    wanted = np.isfinite(worth.utility)
    wanted &= candidates["n_points"].to_numpy() >= policy.min_points
    candidates = candidates.append_column("utility", pa.array(worth.utility))
    candidates = candidates.append_column("why", pa.array(worth.why, pa.string()))
    return Wishes(policy, candidates.filter(pa.array(wanted)))


def _with_features(candidates: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """Return candidates with the features that the strategy reads, as a struct."""
    if not names:
        return candidates
    values = candidates["strategy_features"]
    columns = [pc.list_element(values, k).combine_chunks() for k in range(len(names))]
    struct = pa.StructArray.from_arrays(columns, names=list(names))
    return candidates.append_column("features", struct)


def candidates_of(alerts: pa.Table) -> pa.Table:
    """Return the alerts whose objects can be requested, with their ``night``.

    These have an object, a score, a position on the sky, and a time within the years of valid nights.
    """
    alerts = without_zero_ids(alerts)
    t = alerts["t_mjd_tai"]
    able = pc.and_(pc.is_valid(alerts["object_id"]), pc.is_null(alerts["reason"]))
    able = pc.and_(able, pc.is_valid(alerts["healpix"]))
    able = pc.and_(able, pc.and_(pc.greater_equal(t, _MJDS[0]), pc.less_equal(t, _MJDS[1])))
    some = alerts.filter(able)
    nights = np.zeros(some.num_rows, np.int64)
    surveys = np.array(some["survey"].to_pylist(), object)
    for survey in np.unique(surveys):
        of_survey = surveys == survey
        nights[of_survey] = night_of(some["t_mjd_tai"].to_numpy()[of_survey], survey)
    return some.append_column("night", pa.array(nights))


def choose_requests(wishes: Wishes, asked: AbstractSet[Key], spent: Mapping[int, int]) -> pa.Table:
    """Choose requests night by night, the earliest first.

    Parameters
    ----------
    wishes
        From :func:`wishes_of`.
    asked
        Objects that this program has already requested, or that are labelled.
    spent
        By night, how many requests of the budget it has already made.

    Returns
    -------
    pyarrow.Table
        The requests, the earliest night first and within it the most useful first: columns copied from
        their alert, ``program``, ``strategy``, ``utility`` and ``why``.
    """
    alerts, policy = wishes.alerts, wishes.policy
    keys, taken, rows = keys_of(alerts, "object_id"), set(asked), []
    nights = alerts["night"].to_numpy()
    utility = alerts["utility"].to_numpy()
    ties = [alerts[name].to_numpy() for name in ("survey", "dia_source_id", "object_id")]
    order = np.lexsort((*ties, -utility))
    for night in np.unique(nights):
        left = policy.nightly_budget - spent.get(int(night), 0)
        for row in order[nights[order] == night].tolist():
            if left > 0 and keys[row] not in taken:
                rows.append(row)
                taken.add(keys[row])
                left -= 1
    chosen = alerts.select(_REQUESTED).take(pa.array(rows, pa.int64()))
    for name, value in (("program", policy.program), ("strategy", policy.strategy.name)):
        chosen = chosen.append_column(name, pa.repeat(pa.scalar(value), len(rows)))
    return chosen
