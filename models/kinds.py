"""Every kind of part that a model may be made of: each has a file of its own, and a line in this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lightcurves.errors import ConfigurationError
from models.calibration import VectorScaling
from models.forest import IsolationDetector
from models.logistic import LogisticClassifier
from models.mahalanobis import MahalanobisDetector
from models.novelty import EntropyDetector, RankProduct
from models.pool import LinearPool
from models.sets import LeastAmbiguousSets
from models.trees import TreeClassifier

if TYPE_CHECKING:
    from models.parts import Part

KINDS: Final[tuple[type[Part], ...]] = (
    TreeClassifier,
    LogisticClassifier,
    LinearPool,
    VectorScaling,
    LeastAmbiguousSets,
    IsolationDetector,
    EntropyDetector,
    MahalanobisDetector,
    RankProduct,
)
"""Names of kinds are permanent: the manifests of saved models contain them."""


def kinds_of(role: str) -> dict[str, Any]:
    """Return the kinds of one role, by name."""
    return {kind.kind: kind for kind in KINDS if kind.role == role}


def kind_of(role: str, name: str) -> Any:
    """Return the class of a kind.

    Raises
    ------
    ConfigurationError
        There is none of that name and role.
    """
    known = kinds_of(role)
    if name not in known:
        raise ConfigurationError(f"no kind of {role} is called {name!r}: {', '.join(known)}")
    return known[name]
