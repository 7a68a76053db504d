"""A model on disk: the same when it comes back, refused when it is not what was saved."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightcurves.errors import ConfigurationError
from lightcurves.features.registry import FEATURE_DIGEST, FEATURE_NAMES
from models.artifact import MANIFEST_FILE, Parts, load_parts, read_manifest, save_model, version_of
from models.scoring import Model, load_model
from models.trees import read_trees

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((folder / MANIFEST_FILE).read_text())
    change(raw)
    (folder / MANIFEST_FILE).write_text(json.dumps(raw))


def test_a_model_scores_to_the_bit_as_before_it_was_saved(
    parts: Parts, model: Model, copy: Path, unseen: pa.Table
) -> None:
    fresh = Model(model.manifest, read_trees(parts.booster.model_to_string()), parts.forest)
    expected = fresh.score(unseen)
    assert load_model(copy).score(unseen).equals(expected)
    assert model.score(unseen).equals(expected)


def test_another_process_scores_to_the_bit_the_same(
    model: Model, copy: Path, unseen: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(unseen, tmp_path / "unseen.parquet")
    program = (
        "import sys; from pathlib import Path; import pyarrow.parquet as pq\n"
        "from models.scoring import load_model\n"
        "folder = Path(sys.argv[1])\n"
        "table = pq.read_table(folder / 'unseen.parquet')\n"
        "pq.write_table(load_model(folder / 'copy').score(table), folder / 'scores.parquet')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, cwd=REPOSITORY, env=environment
    )
    assert pq.read_table(tmp_path / "scores.parquet").to_pylist() == model.score(unseen).to_pylist()
    assert copy.is_dir()


def test_the_manifest_says_what_the_model_is(parts: Parts, artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert manifest.features == FEATURE_NAMES
    assert manifest.feature_digest == FEATURE_DIGEST
    assert manifest.class_ids == parts.class_ids == (111, 122, 212, 221)
    assert manifest.calibration == parts.calibration
    assert manifest.novelty == parts.novelty
    assert manifest.training["n_objects"] == 80
    assert set(manifest.libraries) >= {"lightgbm", "numpy"}
    assert set(manifest.files) == {p.name for p in artifact.iterdir()} - {MANIFEST_FILE}
    assert manifest.licence
    assert len(manifest.model_version) == 12


def test_equal_parts_have_equal_versions_and_bytes(
    parts: Parts, artifact: Path, tmp_path: Path
) -> None:
    again = save_model(parts, tmp_path / "again")
    assert again.model_version == read_manifest(artifact).model_version
    for file in artifact.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_another_model_has_another_version(parts: Parts, tmp_path: Path) -> None:
    known = {save_model(parts, tmp_path / "m").model_version}
    calibration = replace(parts.calibration, slope=parts.calibration.slope + 1e-9)
    others = [
        replace(parts, set_threshold=parts.set_threshold + 1e-9),
        replace(parts, coverage=0.91),
        replace(parts, class_ids=(1, 2, 3, 4)),
        replace(parts, calibration=calibration),
        replace(parts, novelty=replace(parts.novelty, entropy=(0.0, 1.0))),
        replace(parts, forest=parts.forest._replace(scale=parts.forest.scale + 1e-9)),
    ]
    known |= {save_model(other, tmp_path / "m").model_version for other in others}
    assert len(known) == 1 + len(others)


def test_any_changed_byte_is_refused(copy: Path) -> None:
    chance = np.random.default_rng(1)
    for file in sorted(copy.iterdir()):
        good = file.read_bytes()
        if file.name == MANIFEST_FILE:
            continue
        for at in chance.integers(0, len(good), 20).tolist():
            file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises(ConfigurationError, match=f"{file.name} is missing or not the file"):
                load_model(copy)
        for bad in (good[:-1], good + b"\n", b""):
            file.write_bytes(bad)
            with pytest.raises(ConfigurationError, match="not the file that was saved"):
                load_model(copy)
        file.write_bytes(good)
        load_model(copy)


def test_a_changed_manifest_is_refused(copy: Path) -> None:
    """What it says decides scores, so it vouches for itself too: by the version."""
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda raw: raw.update(set_threshold=0.01),
        lambda raw: raw["calibration"].update(slope=3.0),
        lambda raw: raw.update(class_ids=[122, 111, 212, 221]),
        lambda raw: raw["novelty"].update(entropy=[0.0, 9.0]),
        lambda raw: raw.update(coverage=0.5),
        lambda raw: raw.update(model_version="0" * 12),
    ]
    good = (copy / MANIFEST_FILE).read_text()
    for change in changes:
        edit(copy, change)
        with pytest.raises(ConfigurationError, match="not the manifest that was saved"):
            load_model(copy)
        (copy / MANIFEST_FILE).write_text(good)
    load_model(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(feature_digest="0" * 12), "trained on features 0{12}.*train again"),
        (lambda raw: raw.update(format=2), "model format 2"),
        (lambda raw: raw.pop("class_ids"), "no model manifest of this version"),
        (lambda raw: raw.update(new="field"), "no model manifest of this version"),
        (lambda raw: raw["files"].update({"../secret": "0"}), "not the manifest that was saved"),
        (lambda raw: raw["files"].clear(), "not the manifest that was saved"),
    ],
)
def test_another_kind_of_model_is_refused(
    change: Callable[[dict[str, Any]], Any], said: str, copy: Path
) -> None:
    edit(copy, change)
    with pytest.raises(ConfigurationError, match=said):
        load_model(copy)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"no model at {tmp_path}"):
        load_model(tmp_path)
    for text in ("", "{", "[]", "null", '"x"'):
        (tmp_path / MANIFEST_FILE).write_text(text)
        with pytest.raises(ConfigurationError, match="no model manifest of this version"):
            load_model(tmp_path)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "forest.npz").unlink()
    with pytest.raises(ConfigurationError, match=r"forest\.npz is missing"):
        load_parts(copy)


def test_no_file_of_a_model_can_execute_code(artifact: Path) -> None:
    """Text, JSON and plain arrays; a pickle begins with opcode 0x80 or holds an object array."""
    for file in artifact.iterdir():
        assert not file.read_bytes().startswith(b"\x80"), file
        assert file.suffix in {".json", ".txt", ".npz"}
    with zipfile.ZipFile(artifact / "forest.npz") as archive:
        for name in archive.namelist():
            assert archive.read(name).startswith(b"\x93NUMPY"), name
    with np.load(artifact / "forest.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "if" for name in arrays.files)


class Malice:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def test_a_pickle_in_the_arrays_is_not_opened(artifact: Path, copy: Path, tmp_path: Path) -> None:
    """Even where whoever made it has made the manifest fit."""
    with np.load(copy / "forest.npz") as arrays:
        content = {name: arrays[name] for name in arrays.files}
    content["medians"] = np.array([Malice(tmp_path / "executed")], object)
    np.savez(copy / "forest.npz", **content)
    digest = hashlib.sha256((copy / "forest.npz").read_bytes()).hexdigest()
    honest = read_manifest(artifact)
    forged = replace(honest, files={**honest.files, "forest.npz": digest})
    edit(copy, lambda raw: raw.update(files=forged.files, model_version=version_of(forged)))
    read_manifest(copy)
    with pytest.raises(ValueError, match="allow_pickle"):
        load_model(copy)
    assert not (tmp_path / "executed").exists()


def test_saving_replaces_the_whole_folder_and_leaves_no_draft(parts: Parts, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    save_model(parts, folder)
    (folder / "old").write_text("of an older format")
    save_model(parts, folder)
    assert {p.name for p in folder.iterdir()} == {MANIFEST_FILE, "classifier.txt", "forest.npz"}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_save_that_fails_leaves_the_old_model(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    version = save_model(parts, folder).model_version

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.artifact.np.savez", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(parts, folder)
    assert load_model(folder).manifest.model_version == version
    assert list(tmp_path.iterdir()) == [folder]
