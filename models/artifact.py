"""A model on disk: a folder of plain files, and a manifest with their digests. It holds no code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lightcurves.errors import ConfigurationError
from lightcurves.features.registry import declared, feature_digest
from lightcurves.surveys import LSST
from models import first_format
from models.folder import MANIFEST_FILE
from models.kinds import kind_of
from models.parts import ROLES, SEVERAL, Packed

if TYPE_CHECKING:
    from models.parts import Part

FORMAT: Final = 2
LICENCE: Final = "the model's weights: CC-BY-4.0, as far as its training data allow"
_LIBRARIES: Final = ("lightgbm", "numpy", "scikit-learn", "scipy")
_DECIDES_NOTHING: Final = {"model_version", "libraries", "licence"}


@dataclass(frozen=True)
class PartEntry:
    """A manifest's entry for one part.

    Attributes
    ----------
    role, kind
        See :mod:`models.parts` and :mod:`models.kinds`.
    settings, features, reads
        See :class:`models.parts.Packed`.
    files
        Name in the folder to SHA-256.
    cost_us
        Microseconds per object, as ``python -m benchmarks.parts`` last measured them; None: never measured.
    """

    role: str
    kind: str
    settings: dict[str, Any]
    features: tuple[str, ...]
    reads: tuple[str, ...]
    files: dict[str, str]
    cost_us: float | None = None


@dataclass(frozen=True)
class Manifest:
    """The description of a model, saved with it.

    Attributes
    ----------
    model_version
        12 hexadecimal digits of a digest of all that follows but libraries, licence and costs: equal training
        gives equal versions.
    class_ids
        DESC classIds in the order of the probabilities.
    features, feature_digest
        The features that the parts read, in the order of the registry, and their declarations' digest.
    parts
        The model's parts, in the order of :data:`models.parts.ROLES`.
    training
        Digest of the data, numbers of objects and rows, and settings with the seed.
    metrics
        Out-of-fold figures.
    libraries
        Versions of the libraries that trained it.
    """

    model_version: str
    class_ids: tuple[int, ...]
    features: tuple[str, ...]
    feature_digest: str
    parts: tuple[PartEntry, ...]
    training: dict[str, Any]
    metrics: dict[str, float]
    libraries: dict[str, str] = field(default_factory=dict)
    licence: str = LICENCE
    format: int = FORMAT

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of every file of the folder but the manifest, by name."""
        return {name: digest for part in self.parts for name, digest in part.files.items()}

    @property
    def reads(self) -> frozenset[str]:
        """What its parts read besides features, see :data:`models.inputs.READS`."""
        return frozenset(name for part in self.parts for name in part.reads)

    @property
    def survey(self) -> str:
        """The survey that it was trained for; LSST if its settings name none, as in old manifests."""
        return str(self.training.get("settings", {}).get("survey", LSST.name))


@dataclass(frozen=True)
class Trained:
    """A model before it is written: its parts, and what the manifest records of its training."""

    class_ids: tuple[int, ...]
    parts: tuple[Part, ...]
    training: dict[str, Any]
    metrics: dict[str, float]


def save_model(trained: Trained, folder: Path) -> Manifest:
    """Write a model as the artifact `folder`, whole or not at all; replace an existing folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".model-") as name:
        draft = Path(name) / "draft"
        draft.mkdir()
        manifest = _manifest(trained, tuple(_write_part(part, draft) for part in trained.parts))
        _check_parts(manifest, folder)
        _write_manifest(manifest, draft)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)  # noqa: PTH105 - a rename in one step is the point
    return manifest


def _write_part(part: Part, folder: Path) -> PartEntry:
    packed = part.pack()
    files = {}
    for suffix, content in packed.files.items():
        name = f"{part.kind}.{suffix}"
        (folder / name).write_bytes(content)
        files[name] = hashlib.sha256(content).hexdigest()
    return PartEntry(part.role, part.kind, packed.settings, packed.features, packed.reads, files)


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=1) + "\n")


def _manifest(trained: Trained, parts: tuple[PartEntry, ...]) -> Manifest:
    names = tuple(dict.fromkeys(name for part in parts for name in part.features))
    unnamed = Manifest(
        model_version="",
        class_ids=trained.class_ids,
        features=names,
        feature_digest=feature_digest(declared(names)),
        parts=parts,
        training=trained.training,
        metrics=trained.metrics,
        libraries={name: version(name) for name in _LIBRARIES},
    )
    return replace(unnamed, model_version=version_of(unnamed))


def version_of(manifest: Manifest) -> str:
    """Return the digest of all in `manifest` that decides a score or records how the model was trained."""
    told = {k: v for k, v in asdict(manifest).items() if k not in _DECIDES_NOTHING}
    parts = [{k: v for k, v in part.items() if k != "cost_us"} for part in told["parts"]]
    text = json.dumps({**told, "parts": parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def note_costs(folder: Path, cost_us: Mapping[str, float]) -> Manifest:
    """Write the cost of each kind of part into a saved model; its version does not change."""
    manifest = read_manifest(folder)
    if manifest.format != FORMAT:
        raise ConfigurationError(f"{folder}: a model of format {manifest.format} holds no costs")
    parts = tuple(
        replace(part, cost_us=cost_us.get(part.kind, part.cost_us)) for part in manifest.parts
    )
    noted = replace(manifest, parts=parts)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".costs-") as name:
        _write_manifest(noted, Path(name))
        os.replace(Path(name) / MANIFEST_FILE, folder / MANIFEST_FILE)  # noqa: PTH105 - in one step
    return noted


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of the artifact `folder`.

    Raises
    ------
    ConfigurationError
        There is no model, its format is unknown, a file was changed, or this version no longer computes
        its features, or declares them differently.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"no model at {folder}: train one with 'noctule train' or name another"
        )
    try:
        raw = json.loads(path.read_text())
        file_format = raw["format"]
        if file_format not in {first_format.FORMAT, FORMAT}:
            raise ConfigurationError(
                f"{folder}: model format {file_format}, this version reads {FORMAT} and older"
            )
        if file_format == first_format.FORMAT:
            expected, raw = first_format.version_of(raw), first_format.translated(raw)
            manifest = _read(raw)
        else:
            manifest = _read(raw)
            expected = version_of(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is no model manifest of this version: {error}") from error
    if manifest.model_version != expected:
        raise ConfigurationError(f"{path} is not the manifest that was saved")
    _check_files(manifest, folder)
    _check_parts(manifest, folder)
    return manifest


def _read(raw: dict[str, Any]) -> Manifest:
    if unknown := raw.keys() ^ {f.name for f in fields(Manifest)}:
        raise ValueError(f"fields missing or unknown: {', '.join(sorted(unknown))}")
    parts = tuple(PartEntry(**_tuples(part)) for part in raw["parts"])
    return Manifest(**{**_tuples(raw), "parts": parts})


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}


def _check_files(manifest: Manifest, folder: Path) -> None:
    for name, digest in manifest.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file() or _sha256(path) != digest:
            raise ConfigurationError(f"{path} is missing or not the file that was saved")


def _check_parts(manifest: Manifest, folder: Path) -> None:
    roles = [part.role for part in manifest.parts]
    for role in ROLES:
        if roles.count(role) != 1 and (role not in SEVERAL or not roles.count(role)):
            raise ConfigurationError(f"{folder}: it has {roles.count(role)} parts as {role}")
    kinds = [part.kind for part in manifest.parts]
    if len(set(kinds)) < len(kinds):  # files and strangenesses are named after the kind
        raise ConfigurationError(f"{folder}: it has two parts of one kind: {', '.join(kinds)}")
    try:
        digest = feature_digest(declared(manifest.features))
    except ConfigurationError as error:
        raise ConfigurationError(f"{folder}: {error}: train again") from error
    if digest != manifest.feature_digest:
        raise ConfigurationError(
            f"{folder}: trained on features {manifest.feature_digest}, this version declares them "
            f"otherwise ({digest}): train again"
        )
    for part in manifest.parts:
        if lacking := sorted(set(part.features) - set(manifest.features)):
            raise ConfigurationError(
                f"{folder}: its part {part.kind} reads {', '.join(lacking)}, which the model lacks"
            )


def load_parts(folder: Path) -> tuple[Manifest, tuple[Part, ...]]:
    """Load and verify an artifact.

    Raises
    ------
    ConfigurationError
        See :func:`read_manifest`; or a part cannot be read, or its classes are not the model's.
    """
    manifest = read_manifest(folder)
    parts = tuple(_load_part(entry, manifest, folder) for entry in manifest.parts)
    asked = {part.kind for part in parts if part.role == "detector"}
    for part in parts:
        known = set(getattr(part, "detectors", asked))
        if known != asked:
            raise ConfigurationError(
                f"{folder}: its part {part.kind} ranks {', '.join(sorted(known))}, and its detectors are "
                f"{', '.join(sorted(asked))}"
            )
    return manifest, parts


def _load_part(entry: PartEntry, manifest: Manifest, folder: Path) -> Part:
    files = {name.rpartition(".")[2]: (folder / name).read_bytes() for name in entry.files}
    try:
        part: Part = kind_of(entry.role, entry.kind).unpack(
            Packed(entry.settings, files, entry.features, entry.reads)
        )
    except (ConfigurationError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder}: its part {entry.kind}: {error}") from error
    class_ids = getattr(part, "class_ids", manifest.class_ids)
    if class_ids != manifest.class_ids:
        raise ConfigurationError(
            f"{folder}: its part {entry.kind} tells {class_ids} apart, the model {manifest.class_ids}"
        )
    return part


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
