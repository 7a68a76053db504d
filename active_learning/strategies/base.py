"""The interface of strategies, which estimate how much a spectrum of each candidate is worth, and why.

A strategy never spends budget and never learns; :mod:`active_learning.requests` chooses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


class Worth(NamedTuple):
    """A strategy's judgement of candidates, one value each in their order.

    Attributes
    ----------
    utility
        float64; comparable only within one strategy. NaN: not worth a spectrum.
    why
        The same in words, one line each; unused where the utility is NaN.
    """

    utility: NDArray[np.float64]
    why: list[str]


class Strategy(Protocol):
    """How candidates are ranked; a frozen dataclass whose fields are its thresholds.

    A threshold's name is that of the setting in the section ``learning`` that gives its value.
    """

    name: ClassVar[str]
    features: ClassVar[tuple[str, ...]]
    """Features that it reads, in the struct column ``features`` of the candidates."""

    def worth(self, candidates: pa.Table) -> Worth:
        """Return the worth of each candidate.

        Parameters
        ----------
        candidates
            One scored alert per row, at least one: the columns of
            :data:`active_learning.requests.CANDIDATE_COLUMNS`, and ``features``. Alerts that were read
            before may be among them, so each row is judged by itself.
        """
        ...


def numbers(candidates: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as float64; NaN where it is null."""
    column = candidates[name].cast("float64").combine_chunks().fill_null(float("nan"))
    return np.asarray(column, np.float64)
