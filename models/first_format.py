"""Translates manifests from before models were made of parts: such models load and score as before."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

FORMAT: Final = 1
_CLASSIFIER: Final = "classifier.txt"
_FOREST: Final = "forest.npz"


def version_of(raw: dict[str, Any]) -> str:
    """Return the digest that such a manifest has as its version."""
    content = {
        "files": raw["files"],
        "features": raw["feature_digest"],
        "classes": raw["class_ids"],
        "calibration": raw["calibration"],
        "sets": [raw["set_threshold"], raw["coverage"]],
        "novelty": raw["novelty"],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def translated(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the content of such a manifest in the present format."""
    raw = dict(raw)
    files, calibration, scale = (raw.pop(name) for name in ("files", "calibration", "novelty"))
    sets = {"threshold": raw.pop("set_threshold"), "coverage": raw.pop("coverage")}
    names = raw["features"]

    def part(
        role: str,
        kind: str,
        settings: dict[str, Any],
        file: str = "",
        features: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        own = {file: files[file]} if file else {}
        return {
            "role": role, "kind": kind, "settings": settings, "features": list(features), "reads": [],
            "files": own, "cost_us": None,
        }  # fmt: skip

    reference = {"isolation_forest": scale["isolation"], "entropy": scale["entropy"]}
    return {
        **raw,
        "parts": [
            part("classifier", "lightgbm", {"class_ids": raw["class_ids"]}, _CLASSIFIER, names),
            part("combiner", "linear_pool", {"weights": [1.0]}),
            part("calibration", "vector_scaling", calibration),
            part("sets", "least_ambiguous", sets),
            part("detector", "isolation_forest", {}, _FOREST, names),
            part("detector", "entropy", {}),
            part("novelty", "rank_product", {"reference": reference, "novelty": scale["novelty"]}),
        ],
    }
