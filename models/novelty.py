"""How strange an object is: isolated in feature space, and not clearly of any class.

An isolation forest alone finds objects at the edge of feature space, mostly bright variables that
a known class explains well; the classifier's entropy alone finds objects between known classes.
Objects that no class explains are both: the score is the product of the two ranks among training objects.
``docs/decisions/0005-novelty.md`` has the comparison, ``python -m benchmarks.novelty`` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

import numpy as np

from models.parts import PlainPart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inputs import Inputs
    from models.rows import TrainingRows, TrainingSettings

_N_QUANTILES: Final = 501


@dataclass(frozen=True)
class RankProduct(PlainPart):
    """The product of the ranks, among training rows, of a row's strangeness by each detector.

    Attributes
    ----------
    reference
        By kind of detector, the quantiles (ascending, at equally spaced ranks) of its strangeness of
        training rows, each measured by a detector that was not trained on the row.
    novelty
        The same for the products.
    """

    role: ClassVar[str] = "novelty"
    kind: ClassVar[str] = "rank_product"

    reference: Mapping[str, tuple[float, ...]]
    novelty: tuple[float, ...]

    @property
    def detectors(self) -> tuple[str, ...]:
        """The kinds of the detectors that it ranks."""
        return tuple(self.reference)

    @classmethod
    def fit(cls, strangeness: Mapping[str, NDArray[np.float64]]) -> Self:
        """Return the quantiles of the detectors' out-of-fold strangeness, and of their products."""
        reference = {kind: _quantiles(values) for kind, values in strangeness.items()}
        products = cls(reference, (0.0, 1.0)).novelty_of(strangeness)
        return cls(reference, _quantiles(products))

    def novelty_of(self, strangeness: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the novelty score in [0, 1]; larger is stranger."""
        ranks = [_rank(self.reference[kind], strangeness[kind]) for kind in sorted(self.reference)]
        product: NDArray[np.float64] = np.prod(ranks, axis=0)
        return product

    def false_alarm_rate(self, novelty: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fraction of training rows that are at least this strange."""
        return 1.0 - _rank(self.novelty, novelty)


@dataclass(frozen=True)
class EntropyDetector(PlainPart):
    """Strange are objects that the classifier cannot decide: the entropy of calibrated probabilities."""

    role: ClassVar[str] = "detector"
    kind: ClassVar[str] = "entropy"

    @classmethod
    def fit(
        cls,
        rows: TrainingRows,  # noqa: ARG003 - see models.parts.Detector
        class_ids: tuple[int, ...],  # noqa: ARG003
        settings: TrainingSettings,  # noqa: ARG003
    ) -> Self:
        """Return the detector; it learns nothing."""
        return cls()

    def strangeness(
        self,
        inputs: Inputs,  # noqa: ARG002 - see models.parts.Detector
        probabilities: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the entropy of each row, in nats."""
        return entropy_of(probabilities)


def entropy_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``-sum p ln p`` of each row, in nats."""
    floor = np.finfo(np.float64).tiny
    entropy: NDArray[np.float64] = -np.sum(
        probabilities * np.log(np.maximum(probabilities, floor)), axis=1
    )
    return entropy


def _quantiles(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.quantile(values, np.linspace(0.0, 1.0, _N_QUANTILES)).tolist())


def _rank(quantiles: tuple[float, ...], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.interp(values, np.array(quantiles), np.linspace(0.0, 1.0, len(quantiles)))
