"""LightGBM's trees, scored as plain arrays by one numba loop: the same bits, a third of the time.

LightGBM walks all trees for one row, then for the next; its model is larger than a core's nearest cache,
so each row loads it again. Here a tree is walked for a block of rows, four at a time, whose loads wait
together instead of one after the other. Scoring needs no LightGBM, so serving does not either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

import numba as nb
import numpy as np

from lightcurves.errors import ConfigurationError
from models.parts import Packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightgbm
    from numpy.typing import NDArray

    from models.inputs import Inputs
    from models.rows import TrainingRows, TrainingSettings

_BLOCK: Final = 32
_ZERO: Final = float(np.float32(1e-35))
"""LightGBM treats values up to this size as 0 (kZeroThreshold)."""
_OBJECTIVE: Final = "multiclass"
# Bits of LightGBM's decision_type (include/LightGBM/tree.h).
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = 0, 1, 2


class Trees(NamedTuple):
    """Trees of a multi-class classifier, concatenated: round by round, and in each round class by class.

    Attributes
    ----------
    roots, leaf_roots
        int32 (trees + 1): where each tree's splits, and its leaves, begin.
    feature
        int32 (splits): the column.
    threshold
        float64 (splits): ``value <= threshold`` goes left.
    nan_left
        bool (splits): whether a value that was not evaluated goes left.
    child
        int32 (2 x splits): the right and the left child of each; if below 0, it is leaf ``~child``.
        Splits and leaves are counted from the first of their tree.
    value
        float64 (leaves).
    n_classes
        int64 (1).
    """

    roots: NDArray[np.int32]
    leaf_roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    nan_left: NDArray[np.bool_]
    child: NDArray[np.int32]
    value: NDArray[np.float64]
    n_classes: NDArray[np.int64]


@dataclass(frozen=True)
class TreeClassifier:
    """A multi-class LightGBM model.

    Attributes
    ----------
    features, class_ids
        Columns of its inputs, and of its probabilities.
    text
        LightGBM's own text form, which is saved.
    """

    role: ClassVar[str] = "classifier"
    kind: ClassVar[str] = "lightgbm"

    features: tuple[str, ...]
    class_ids: tuple[int, ...]
    text: str = field(repr=False)
    trees: Trees = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the trees; see :func:`read_trees`."""
        object.__setattr__(self, "trees", read_trees(self.text))
        n_classes = int(self.trees.n_classes[0])
        if n_classes != len(self.class_ids):
            raise ValueError(f"it tells {n_classes} classes apart, not {len(self.class_ids)}")
        if (last := int(self.trees.feature.max(initial=-1))) >= len(self.features):
            raise ValueError(f"its trees read feature {last + 1} of {len(self.features)} features")

    @classmethod
    def fit(
        cls, rows: TrainingRows, class_ids: tuple[int, ...], settings: TrainingSettings
    ) -> Self:
        """Grow the trees; see :func:`boost`."""
        booster = boost(rows, rows.names, len(class_ids), settings)
        return cls(rows.names, class_ids, booster.model_to_string())

    def probabilities(self, inputs: Inputs) -> NDArray[np.float64]:
        """Return the trees' probabilities of each row; see :class:`models.parts.Classifier`."""
        return probabilities(self.trees, inputs.features(self.features))

    def pack(self) -> Packed:
        """Return the classifier in the form that is saved."""
        settings = {"class_ids": list(self.class_ids)}
        return Packed(settings, {"txt": self.text.encode()}, self.features)

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        """Return the classifier that :meth:`pack` packed."""
        return cls(
            packed.features, tuple(packed.settings["class_ids"]), packed.files["txt"].decode()
        )


def boost(
    rows: TrainingRows, names: Sequence[str], n_classes: int, settings: TrainingSettings
) -> lightgbm.Booster:
    """Grow trees on the features `names` of the rows, on one core; the settings decide every bit."""
    import lightgbm  # noqa: PLC0415 - one second, for training only

    data = lightgbm.Dataset(
        rows.inputs.features(names),
        rows.truth,
        weight=rows.weights,
        feature_name=list(names),
        free_raw_data=True,
    )
    parameters: dict[str, Any] = {
        "objective": _OBJECTIVE,
        "num_class": n_classes,
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_rows,
        "min_sum_hessian_in_leaf": 0.1,
        "feature_fraction": 0.4,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "max_bin": 127,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    return lightgbm.train(parameters, data, settings.rounds)


def read_trees(text: str) -> Trees:
    """Read LightGBM's text form of a model, ``Booster.model_to_string()``.

    Raises
    ------
    ConfigurationError
        `text` is no multi-class model of this form, or a tree refers to nodes that it does not have.
    """
    try:
        head, *blocks = text.split("\nTree=")
        fields = _fields(head)
        n_classes, n_features = int(fields["num_class"]), int(fields["max_feature_idx"]) + 1
        if fields["objective"].split()[0] != _OBJECTIVE or n_classes < 1:
            raise ValueError(f"it is {fields['objective']} of {n_classes} classes")  # noqa: TRY301
        if not blocks or len(blocks) % n_classes:
            raise ValueError(f"{len(blocks)} trees for {n_classes} classes")  # noqa: TRY301
        trees = [_tree(_fields(block), n_features) for block in blocks]
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"not a classifier that noctule trained: {error}") from error

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([tree[name] for tree in trees])

    def starts(name: str) -> NDArray[np.int32]:
        return np.cumsum([0, *(tree[name].size for tree in trees)], dtype=np.int32)

    return Trees(
        roots=starts("feature"),
        leaf_roots=starts("value"),
        feature=joined("feature"),
        threshold=joined("threshold"),
        nan_left=joined("nan_left"),
        child=joined("child"),
        value=joined("value"),
        n_classes=np.array([n_classes]),
    )


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(fields: dict[str, str], n_features: int) -> dict[str, NDArray[Any]]:
    n_leaves = int(fields["num_leaves"])
    if int(fields["num_cat"]) or int(fields["is_linear"]):
        raise ValueError("a tree has categories or linear leaves")

    def numbers(name: str, dtype: Any, n: int) -> NDArray[Any]:
        values = np.array(fields[name].split() if n else [], dtype)
        if values.size != n:
            raise ValueError(f"{name} has {values.size} values, not {n}")
        return values

    n = n_leaves - 1
    feature, kind = (numbers(name, np.int32, n) for name in ("split_feature", "decision_type"))
    threshold = numbers("threshold", np.float64, n)
    left, right = (numbers(name, np.int32, n) for name in ("left_child", "right_child"))
    value = numbers("leaf_value", np.float64, n_leaves)
    missing = (kind >> _MISSING_SHIFT) & 3
    if (kind & _CATEGORICAL).any() or (missing == _MISSING_ZERO).any():
        raise ValueError("a split takes categories, or zero for missing")
    for child in (left, right):  # a split is older than its children, so no walk is endless
        if not ((child > np.arange(n)) | ((child < 0) & (~child < n_leaves))).all():
            raise ValueError("a split's child is not below it")
        if not (child < n).all():
            raise ValueError("a split's child does not exist")
    if not ((feature >= 0) & (feature < n_features)).all():
        raise ValueError("a split's feature does not exist")
    # If no value was missing in training, a missing one counts as 0.
    default = (kind & _DEFAULT_LEFT) != 0
    return {
        "feature": feature,
        "threshold": threshold,
        "nan_left": np.where(missing == _MISSING_NAN, default, threshold >= 0.0),
        "child": np.stack([right, left], axis=1).ravel(),
        "value": value,
    }


def probabilities(trees: Trees, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the classifier's probabilities of each row, not calibrated.

    Parameters
    ----------
    trees
        From :func:`read_trees`.
    values
        float64 (rows, features); NaN where not evaluated.

    Returns
    -------
    ndarray
        float64 (rows, classes), each row sums to 1: the softmax of :func:`raw_scores`.
    """
    raw = raw_scores(trees, values)
    _softmax(raw)
    return raw


def raw_scores(trees: Trees, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64 (rows, classes): the sums of the leaves, bit for bit those of LightGBM."""
    out = np.zeros((len(values), int(trees.n_classes[0])))
    values = np.ascontiguousarray(np.where(np.abs(values) <= _ZERO, 0.0, values))
    _walk(values, *trees[:-1], out)
    return out


@nb.njit(nogil=True, cache=True)
def _softmax(raw):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for i in range(raw.shape[0]):
        top = raw[i].max()
        total = 0.0
        for k in range(raw.shape[1]):
            raw[i, k] = np.exp(raw[i, k] - top)
            total += raw[i, k]
        for k in range(raw.shape[1]):
            raw[i, k] /= total


@nb.njit(nogil=True, cache=True)
def _step(values, i, at, root, feature, threshold, nan_left, child):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the child of split `at` that row `i` goes to; a leaf stays where it is."""
    if at < 0:
        return at
    j = root + at
    value = values[i, feature[j]]
    # Without a branch: which way a row goes cannot be predicted.
    left = (value <= threshold[j]) | ((value != value) & nan_left[j])  # noqa: PLR0124 - NaN
    return child[2 * j + left]


@nb.njit(nogil=True, cache=True)
def _walk(values, roots, leaf_roots, feature, threshold, nan_left, child, value, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    n, n_classes = out.shape
    for begin in range(0, n, _BLOCK):
        end = min(n, begin + _BLOCK)
        for tree in range(roots.size - 1):
            root, leaves, k = roots[tree], leaf_roots[tree], tree % n_classes
            first = np.int32(0 if roots[tree + 1] > root else -1)  # a tree may be one leaf
            i = begin
            while i + 4 <= end:
                a = b = c = d = first
                while (a & b & c & d) >= 0:  # not all of them are in leaves
                    a = _step(values, i, a, root, feature, threshold, nan_left, child)
                    b = _step(values, i + 1, b, root, feature, threshold, nan_left, child)
                    c = _step(values, i + 2, c, root, feature, threshold, nan_left, child)
                    d = _step(values, i + 3, d, root, feature, threshold, nan_left, child)
                out[i, k] += value[leaves + ~a]
                out[i + 1, k] += value[leaves + ~b]
                out[i + 2, k] += value[leaves + ~c]
                out[i + 3, k] += value[leaves + ~d]
                i += 4
            while i < end:
                a = first
                while a >= 0:
                    a = _step(values, i, a, root, feature, threshold, nan_left, child)
                out[i, k] += value[leaves + ~a]
                i += 1
