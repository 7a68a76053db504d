"""A model on disk: a folder of plain files and the manifest that vouches for them. No code in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lightcurves.errors import ConfigurationError
from lightcurves.features.registry import FEATURE_DIGEST, FEATURE_NAMES
from models.calibration import Calibration
from models.forest import Forest
from models.novelty import NoveltyScale
from models.trees import Trees, read_trees

if TYPE_CHECKING:
    import lightgbm
    from numpy.typing import NDArray

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
CLASSIFIER_FILE: Final = "classifier.txt"
FOREST_FILE: Final = "forest.npz"
LICENCE: Final = "the model's weights: CC-BY-4.0, as far as its training data allow"


@dataclass(frozen=True)
class Manifest:
    """What a model says of itself.

    Attributes
    ----------
    model_version
        12 hexadecimal digits of the files and constants below: equal training gives equal versions.
    features, feature_digest
        The ordered features that the model was trained on, and their declarations' digest.
    class_ids
        DESC classIds in the order of the classifier's outputs.
    calibration, set_threshold, coverage
        See :mod:`models.calibration`.
    novelty
        What isolation scores and entropies of unseen training rows look like.
    training
        Digest, numbers of objects and rows, settings and seed.
    libraries
        Versions that trained it.
    metrics
        Out-of-fold figures.
    files
        File name to SHA-256.
    """

    model_version: str
    features: tuple[str, ...]
    feature_digest: str
    class_ids: tuple[int, ...]
    calibration: Calibration
    set_threshold: float
    coverage: float
    novelty: NoveltyScale
    training: dict[str, Any]
    libraries: dict[str, str]
    metrics: dict[str, float]
    files: dict[str, str]
    licence: str = LICENCE
    format: int = FORMAT


@dataclass(frozen=True)
class Parts:
    """The trained estimators before they are written."""

    booster: lightgbm.Booster
    forest: Forest
    calibration: Calibration
    class_ids: tuple[int, ...]
    set_threshold: float
    coverage: float
    novelty: NoveltyScale
    training: dict[str, Any]
    metrics: dict[str, float]


def save_model(parts: Parts, folder: Path) -> Manifest:
    """Write `parts` as the artifact `folder`, whole or not at all; replace what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".model-") as name:
        draft = Path(name) / "draft"
        draft.mkdir()
        (draft / CLASSIFIER_FILE).write_text(parts.booster.model_to_string())
        np.savez(draft / FOREST_FILE, **parts.forest._asdict())
        manifest = _manifest(
            parts, {name: _sha256(draft / name) for name in (CLASSIFIER_FILE, FOREST_FILE)}
        )
        text = json.dumps(asdict(manifest), indent=1)
        (draft / MANIFEST_FILE).write_text(text + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)  # noqa: PTH105 - a rename in one step is the point
    return manifest


def version_of(manifest: Manifest) -> str:
    """Return the digest of everything in `manifest` that decides a score."""
    content = {
        "files": manifest.files,
        "features": manifest.feature_digest,
        "classes": manifest.class_ids,
        "calibration": asdict(manifest.calibration),
        "sets": [manifest.set_threshold, manifest.coverage],
        "novelty": asdict(manifest.novelty),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _manifest(parts: Parts, files: dict[str, str]) -> Manifest:
    unnamed = Manifest(
        model_version="",
        features=FEATURE_NAMES,
        feature_digest=FEATURE_DIGEST,
        class_ids=parts.class_ids,
        calibration=parts.calibration,
        set_threshold=parts.set_threshold,
        coverage=parts.coverage,
        novelty=parts.novelty,
        training=parts.training,
        libraries={"lightgbm": version("lightgbm"), "numpy": np.__version__},
        metrics=parts.metrics,
        files=files,
    )
    return replace(unnamed, model_version=version_of(unnamed))


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of the artifact `folder`.

    Raises
    ------
    ConfigurationError
        There is no model, its format is unknown, a file was changed, or it was trained on other
        features than this installation computes.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"no model at {folder}: train one with 'noctule train' or name another"
        )
    try:
        raw = json.loads(path.read_text())
        raw["calibration"] = Calibration(**_tuples(raw["calibration"]))
        raw["novelty"] = NoveltyScale(**_tuples(raw["novelty"]))
        manifest = Manifest(**_tuples(raw))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is no model manifest of this version: {error}") from error
    _check(manifest, folder)
    return manifest


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}


def _check(manifest: Manifest, folder: Path) -> None:
    if manifest.format != FORMAT:
        raise ConfigurationError(
            f"{folder}: model format {manifest.format}, this version reads {FORMAT}"
        )
    if manifest.feature_digest != FEATURE_DIGEST:
        raise ConfigurationError(
            f"{folder}: trained on features {manifest.feature_digest}, this version computes "
            f"{FEATURE_DIGEST}: train again"
        )
    if manifest.model_version != version_of(manifest):
        raise ConfigurationError(f"{folder / MANIFEST_FILE} is not the manifest that was saved")
    for name, digest in manifest.files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            raise ConfigurationError(f"{folder / name} is missing or not the file that was saved")


def load_parts(folder: Path) -> tuple[Manifest, Trees, Forest]:
    """Load and verify an artifact; see :func:`read_manifest` for the errors."""
    manifest = read_manifest(folder)
    trees = read_trees((folder / CLASSIFIER_FILE).read_text())
    with np.load(folder / FOREST_FILE, allow_pickle=False) as arrays:
        forest = Forest(**{name: _owned(arrays[name]) for name in Forest._fields})
    return manifest, trees, forest


def _owned(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
