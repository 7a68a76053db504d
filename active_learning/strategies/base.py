"""What a strategy is: how much a spectrum of each candidate would be worth, and why.

A strategy never spends budget and never learns; :mod:`active_learning.requests` chooses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Worth(NamedTuple):
    """What a strategy says of candidates, one of each in their order.

    Attributes
    ----------
    utility
        float64; compares within one strategy. NaN: not worth a spectrum.
    why
        The same for people, one line each; what is said of a NaN is not used.
    """

    utility: NDArray[np.float64]
    why: list[str]


class Strategy(Protocol):
    """How candidates are ranked; a frozen dataclass whose fields are its thresholds.

    A threshold's name is that of the setting in the section ``learning`` that gives its value.
    """

    name: ClassVar[str]
    features: ClassVar[tuple[str, ...]]
    """Features that it wants to see, in the struct column ``features`` of the candidates."""

    def worth(self, candidates: pa.Table) -> Worth:
        """Return what each candidate is worth.

        Parameters
        ----------
        candidates
            One scored alert a row: the columns of :data:`active_learning.requests.CANDIDATE_COLUMNS`,
            and ``features``.
        """
        ...


def numbers(candidates: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as float64; NaN where it is null."""
    column = candidates[name].cast(pa.float64()).combine_chunks().fill_null(float("nan"))
    return np.asarray(column, np.float64)
