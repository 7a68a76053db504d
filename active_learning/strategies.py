"""Which alerts are worth a spectrum: pure functions from scores to utilities.

A strategy never spends budget and never learns; it only says how much a label would be worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lightcurves.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class Candidates(NamedTuple):
    """Scored alerts that could be asked for; one row each, arrays of equal length.

    ``object_id`` int64, ``entropy`` (nats), ``novelty`` and ``margin`` float64, ``n_points`` int64.
    """

    object_id: NDArray[np.int64]
    entropy: NDArray[np.float64]
    novelty: NDArray[np.float64]
    margin: NDArray[np.float64]
    n_points: NDArray[np.int64]


def entropy_utility(candidates: Candidates) -> NDArray[np.float64]:
    """Return the entropy: ask where the model is least sure.

    Lewis & Gale 1994, SIGIR, section 3 (uncertainty sampling), with Shannon's entropy.
    """
    return candidates.entropy


STRATEGIES: Final[dict[str, Callable[[Candidates], NDArray[np.float64]]]] = {
    "entropy": entropy_utility,
}
"""Permanent names of the strategies."""


def choose(
    candidates: Candidates,
    *,
    strategy: str,
    budget: int,
    min_points: int,
    min_utility: float,
    asked: frozenset[int],
) -> NDArray[np.int64]:
    """Return the rows to request, best first: at most `budget`, each object once.

    Parameters
    ----------
    candidates
        What can be chosen from; rows with a NaN utility never are.
    strategy
        A name in :data:`STRATEGIES`.
    budget
        Requests that are left; 0 or less chooses nothing.
    min_points
        Objects with fewer points are left to ripen.
    min_utility
        What a request must at least be worth.
    asked
        Objects that have been asked for or are labelled.

    Raises
    ------
    ConfigurationError
        No strategy has this name.
    """
    if strategy not in STRATEGIES:
        raise ConfigurationError(f"no strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    utility = STRATEGIES[strategy](candidates)
    new = np.array([object_id not in asked for object_id in candidates.object_id.tolist()], bool)
    usable = new & (candidates.n_points >= min_points) & (utility >= min_utility)
    rows = np.flatnonzero(usable)
    best_first = rows[np.lexsort((candidates.object_id[rows], -utility[rows]))]
    _, first = np.unique(candidates.object_id[best_first], return_index=True)
    return best_first[np.sort(first)][: max(budget, 0)]
