"""Chooses which candidates to request spectra of, within each night's budget. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.strategies.entropy import EntropyStrategy
from lightcurves.nights import night_of
from models.record import RECORD
from store.keys import keys_of
from store.requests import PROGRAM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from active_learning.strategies.base import Strategy, Worth
    from store.keys import Key

CANDIDATE_COLUMNS: Final = (*(record.name for record in RECORD), "healpix", "night")
"""What is known of a candidate: the record of its score, its cell on the sky, and the night of its alert."""

_REQUESTED: Final = (
    *("survey", "object_id", "dia_source_id", "model_version", "ra_deg", "dec_deg", "band"),
    *("flux_njy", "t_mjd_tai", "night"),
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


def candidates_of(alerts: pa.Table) -> pa.Table:
    """Return the alerts whose objects can be requested, with their ``night``.

    These have an object, a score, a position on the sky, and a time within the years of valid nights.
    """
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


def choose_requests(
    candidates: pa.Table, policy: RequestPolicy, asked: AbstractSet[Key], spent: Mapping[int, int]
) -> pa.Table:
    """Choose requests night by night, the earliest first.

    Parameters
    ----------
    candidates
        From :func:`candidates_of`.
    policy
        How to choose.
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
    worth = policy.strategy.worth(candidates)
    keys, taken, rows = keys_of(candidates, "object_id"), set(asked), []
    usable = np.isfinite(worth.utility) & _ripe(candidates, policy.min_points)
    nights = candidates["night"].to_numpy()
    ids = candidates["object_id"].to_numpy()
    for night in np.unique(nights):
        left = policy.nightly_budget - spent.get(int(night), 0)
        of_night = np.flatnonzero(usable & (nights == night))
        for row in of_night[np.lexsort((ids[of_night], -worth.utility[of_night]))].tolist():
            if left > 0 and keys[row] not in taken:
                rows.append(row)
                taken.add(keys[row])
                left -= 1
    return _requests(candidates, np.array(rows, np.int64), worth, policy)


def _ripe(candidates: pa.Table, min_points: int) -> NDArray[np.bool_]:
    ripe: NDArray[np.bool_] = candidates["n_points"].to_numpy() >= min_points
    return ripe


def _requests(
    candidates: pa.Table, rows: NDArray[np.int64], worth: Worth, policy: RequestPolicy
) -> pa.Table:
    chosen = candidates.select(_REQUESTED).take(pa.array(rows))
    columns = {
        "program": pa.repeat(pa.scalar(policy.program), rows.size),
        "strategy": pa.repeat(pa.scalar(policy.strategy.name), rows.size),
        "utility": pa.array(worth.utility[rows]),
        "why": pa.array([worth.why[row] for row in rows.tolist()], pa.string()),
    }
    for name, column in columns.items():
        chosen = chosen.append_column(name, column)
    return chosen
