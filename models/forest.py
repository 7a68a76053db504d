"""An isolation forest as plain arrays: trained by scikit-learn, scored by one numba loop.

scikit-learn's own form can only be saved by pickle, which executes code; these arrays need no pickle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

import numba as nb
import numpy as np

from models.parts import Packed, arrays_of, arrays_to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inputs import Inputs
    from models.rows import TrainingRows, TrainingSettings

N_TREES: Final = 200
_EULER: Final = 0.5772156649015329


class Forest(NamedTuple):
    """Isolation trees, concatenated.

    Attributes
    ----------
    roots
        int32 (trees): where each tree's nodes begin.
    feature, left, right
        int32 (nodes): the split's column (-1 in a leaf) and the children's positions.
    threshold
        float64 (nodes): ``value <= threshold`` goes left.
    length
        float64 (nodes): in a leaf, the expected path length of the rows that end there.
    medians
        float64 (features): used in place of values that were not evaluated.
    scale
        float64 (1): the average path length of the training sample, c(psi).
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    threshold: NDArray[np.float64]
    length: NDArray[np.float64]
    medians: NDArray[np.float64]
    scale: NDArray[np.float64]


@dataclass(frozen=True)
class IsolationDetector:
    """How easily a row is cut off from the training rows; see :func:`isolation`."""

    role: ClassVar[str] = "detector"
    kind: ClassVar[str] = "isolation_forest"

    features: tuple[str, ...]
    forest: Forest = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a forest of another number of features."""
        if (n := self.forest.medians.size) != len(self.features):
            raise ValueError(f"its forest has {n} features, not {len(self.features)}")

    @classmethod
    def fit(
        cls,
        rows: TrainingRows,
        class_ids: tuple[int, ...],  # noqa: ARG003 - a detector may look at classes
        settings: TrainingSettings,
    ) -> Self:
        """Grow the forest; see :func:`train_forest`."""
        return cls(rows.names, train_forest(rows.inputs.features(rows.names), settings.seed))

    def strangeness(
        self,
        inputs: Inputs,
        probabilities: NDArray[np.float64],  # noqa: ARG002 - see models.parts.Detector
    ) -> NDArray[np.float64]:
        """Return the anomaly score of each row; see :class:`models.parts.Detector`."""
        return isolation(self.forest, inputs.features(self.features))

    def pack(self) -> Packed:
        """Return the detector in the form that is saved."""
        return Packed({}, {"npz": arrays_to_bytes(**self.forest._asdict())}, self.features)

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        """Return the detector that :meth:`pack` packed."""
        return cls(packed.features, Forest(**arrays_of(packed.files["npz"])))


def average_path_length(n: NDArray[Any]) -> NDArray[np.float64]:
    """Return c(n), the mean path length of an unsuccessful search in a binary tree of n points.

    Liu, Ting & Zhou 2008, ICDM, eq. 1 (doi:10.1109/ICDM.2008.17): ``2 H(n-1) - 2 (n-1)/n``, with
    c(2) = 1 and c(1) = 0.
    """
    n = np.asarray(n, np.float64)
    safe = np.maximum(n, 3.0)
    general = 2.0 * (np.log(safe - 1.0) + _EULER) - 2.0 * (safe - 1.0) / safe
    return np.where(n > 2, general, np.where(n == 2, 1.0, 0.0))


def train_forest(values: NDArray[np.float64], seed: int) -> Forest:
    """Grow a forest on (rows, features) `values`; NaN counts as the column's median."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - serving does not need scikit-learn

    medians = np.array(
        [np.median(c[~np.isnan(c)]) if (~np.isnan(c)).any() else 0.0 for c in values.T]
    )
    filled = np.where(np.isnan(values), medians, values)
    # scikit-learn compares in 32 bits; our comparisons must have the same results.
    sample = min(256, len(filled))
    fitted = IsolationForest(n_estimators=N_TREES, max_samples=sample, random_state=seed).fit(
        filled.astype(np.float32)
    )
    trees = [estimator.tree_ for estimator in fitted.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])]).astype(np.int32)

    def joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
        return np.concatenate(parts).astype(dtype)

    leaf = joined([tree.children_left < 0 for tree in trees], bool)
    samples = joined([tree.n_node_samples for tree in trees], np.float64)
    depth = joined([_depths(tree.children_left, tree.children_right) for tree in trees], np.float64)
    columns = joined(
        [
            chosen[tree.feature]
            for tree, chosen in zip(trees, fitted.estimators_features_, strict=True)
        ],
        np.int32,
    )
    return Forest(
        roots=roots,
        feature=np.where(leaf, -1, columns).astype(np.int32),
        left=joined([t.children_left + r for t, r in zip(trees, roots, strict=True)], np.int32),
        right=joined([t.children_right + r for t, r in zip(trees, roots, strict=True)], np.int32),
        threshold=joined([tree.threshold for tree in trees], np.float64),
        length=np.where(leaf, depth + average_path_length(samples), 0.0),
        medians=medians,
        scale=average_path_length(np.array([sample])),
    )


def _depths(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """Return each node's number of edges from the root; parents come before children."""
    depth = np.zeros(left.size, np.int64)
    for node in range(left.size):
        if left[node] >= 0:
            depth[left[node]] = depth[right[node]] = depth[node] + 1
    return depth


@nb.njit(nogil=True, cache=True)
def _score(
    values: Any,
    roots: Any,
    feature: Any,
    left: Any,
    right: Any,
    threshold: Any,
    length: Any,
    medians: Any,
    scale: Any,
) -> Any:
    out = np.empty(values.shape[0])
    for row in range(values.shape[0]):
        total = 0.0
        for root in roots:
            node = root
            while feature[node] >= 0:
                value = values[row, feature[node]]
                if np.isnan(value):
                    value = medians[feature[node]]
                node = left[node] if np.float32(value) <= threshold[node] else right[node]
            total += length[node]
        out[row] = 2.0 ** (-total / roots.size / scale[0])
    return out


def isolation(forest: Forest, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the anomaly score of each row, in (0, 1); larger is stranger.

    ``s = 2^(-E[h(x)] / c(psi))``, Liu, Ting & Zhou 2008, eq. 2 (doi:10.1109/ICDM.2008.17), over the
    trees' path lengths h.

    Parameters
    ----------
    forest
        From :func:`train_forest` or loaded from an artifact.
    values
        float64 (rows, features); NaN counts as the training median.
    """
    scored: NDArray[np.float64] = _score(values, *forest)
    return scored
