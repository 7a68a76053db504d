"""Several classifiers as one: a weighted mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

import numpy as np

from models.parts import PlainPart

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS: Final = 200
_FLOOR: Final = 1e-12


@dataclass(frozen=True)
class LinearPool(PlainPart):
    """The linear opinion pool, ``p = sum_k w_k p_k``.

    The weights maximise the likelihood of out-of-fold rows as those of a mixture do, by expectation
    maximisation: Dempster, Laird & Rubin 1977, JRSS B 39, 1, section 4.3. One classifier has weight 1,
    and its probabilities pass unchanged.

    Attributes
    ----------
    weights
        One number per classifier, in their order; they add up to 1.
    """

    role: ClassVar[str] = "combiner"
    kind: ClassVar[str] = "linear_pool"

    weights: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        outputs: Sequence[NDArray[np.float64]],
        truth: NDArray[np.int64],
        weights: NDArray[np.float64],
    ) -> Self:
        """Return the pool fitted to out-of-fold probabilities; see :class:`models.parts.Combiner`."""
        rows = np.arange(truth.size)
        likelihood = np.stack([np.maximum(p[rows, truth], _FLOOR) for p in outputs])
        pool = np.full(len(outputs), 1.0 / len(outputs))
        for _ in range(_STEPS if len(outputs) > 1 else 0):
            share = pool[:, None] * likelihood
            pool = np.average(share / share.sum(axis=0), axis=1, weights=weights)
        return cls(tuple(pool.tolist()))

    def combine(self, outputs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the weighted mean; see :class:`models.parts.Combiner`."""
        if len(outputs) == 1:
            return outputs[0]
        total = np.zeros_like(outputs[0])
        for weight, p in zip(self.weights, outputs, strict=True):
            total += weight * p
        return total
