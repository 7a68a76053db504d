"""Request spectra of objects for which two classes are nearly equally likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from active_learning.strategies.base import Worth, numbers

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class MarginStrategy:
    """One minus the margin between the likeliest and the second likeliest class.

    Scheffer, Decomain & Wrobel 2001, IDA, section 4 (doi:10.1007/3-540-44816-0_31): a spectrum decides
    most if two classes are close, whatever the probabilities of the others.

    Attributes
    ----------
    max_margin
        A candidate with a larger margin is not worth a spectrum.
    """

    name: ClassVar[str] = "margin"
    features: ClassVar[tuple[str, ...]] = ()

    max_margin: float = 0.3

    def worth(self, candidates: pa.Table) -> Worth:
        """Return what each candidate is worth; see :class:`active_learning.strategies.base.Strategy`."""
        margin, likeliest = (numbers(candidates, name) for name in ("margin", "probability"))
        utility = np.where(margin <= self.max_margin, 1.0 - margin, np.nan)
        return Worth(
            utility,
            [
                f"margin {m:.2f} between the two likeliest classes, {p:.0%} and {p - m:.0%}"
                for m, p in zip(margin, likeliest, strict=True)
            ],
        )
