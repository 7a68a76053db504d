"""Manifests of models that were never trained, to register."""

from __future__ import annotations

from models.artifact import Manifest


def manifest(
    version: str,
    class_ids: tuple[int, ...] = (111,),
    metrics: dict[str, float] | None = None,
    *,
    n_objects: int = 1,
) -> Manifest:
    """Return the manifest of a model without parts."""
    training = {"digest": "t", "n_objects": n_objects}
    return Manifest(version, class_ids, (), "f", (), training, metrics or {})
