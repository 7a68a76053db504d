"""Request spectra of objects whose class probabilities have the largest entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from active_learning.strategies.base import Worth, numbers

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class EntropyStrategy:
    """The entropy of the class probabilities.

    Lewis & Gale 1994, SIGIR, section 3 (uncertainty sampling), with Shannon's entropy.

    Attributes
    ----------
    min_entropy
        A candidate below it, in nats, is not worth a spectrum.
    """

    name: ClassVar[str] = "entropy"
    features: ClassVar[tuple[str, ...]] = ()

    min_entropy: float = 0.5

    def worth(self, candidates: pa.Table) -> Worth:
        """Return the entropy of each candidate; see :class:`active_learning.strategies.base.Strategy`."""
        entropy, likeliest = (numbers(candidates, name) for name in ("entropy", "probability"))
        utility = np.where(entropy >= self.min_entropy, entropy, np.nan)
        return Worth(
            utility,
            [
                f"entropy {e:.2f} nats, likeliest class {p:.0%}"
                for e, p in zip(entropy, likeliest, strict=True)
            ],
        )
