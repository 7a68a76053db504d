"""How strange an object is: isolated in feature space, and claimed by no class.

An isolation forest alone finds what lies at the edge of the features, mostly bright variables that
every class explains well; the classifier's entropy alone finds what lies between known classes.
What no class explains is both: the score is the product of the two ranks among training objects.
``docs/decisions/0005-novelty.md`` has the comparison, ``python -m benchmarks.novelty`` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_N_QUANTILES: Final = 501


@dataclass(frozen=True)
class NoveltyScale:
    """Reference distributions of training rows that the model in question has not seen.

    Each is a list of quantiles at equally spaced ranks, ascending.
    """

    isolation: tuple[float, ...]
    entropy: tuple[float, ...]
    novelty: tuple[float, ...]

    def novelty_of(
        self, isolation: NDArray[np.float64], entropy: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the novelty score in [0, 1]; larger is stranger."""
        return _rank(self.isolation, isolation) * _rank(self.entropy, entropy)

    def false_alarm_rate(self, novelty: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fraction of training rows that are at least this strange."""
        return 1.0 - _rank(self.novelty, novelty)


def fit_novelty(isolation: NDArray[np.float64], entropy: NDArray[np.float64]) -> NoveltyScale:
    """Return the scale of out-of-fold isolation scores and entropies of the training rows."""
    draft = NoveltyScale(_quantiles(isolation), _quantiles(entropy), (0.0, 1.0))
    return NoveltyScale(
        draft.isolation, draft.entropy, _quantiles(draft.novelty_of(isolation, entropy))
    )


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
