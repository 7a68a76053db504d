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
from lightcurves.features.registry import FEATURE_DIGEST, default_families, names_in
from models.artifact import (
    Trained,
    load_parts,
    note_costs,
    read_manifest,
    save_model,
    version_of,
)
from models.folder import MANIFEST_FILE
from models.scoring import Model, load_model
from tests.models.altered import edit, settings_of, vouch

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


FOREST_FILE = "isolation_forest.npz"


def test_a_model_scores_to_the_bit_as_before_it_was_saved(
    parts: Trained, model: Model, copy: Path, unseen: pa.Table
) -> None:
    fresh = Model(model.manifest, parts.parts)
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


def test_the_manifest_says_what_the_model_is(parts: Trained, artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert manifest.features == names_in(default_families())
    assert manifest.feature_digest == FEATURE_DIGEST
    assert manifest.class_ids == parts.class_ids == (111, 122, 212, 221)
    assert [(e.role, e.kind) for e in manifest.parts] == [(p.role, p.kind) for p in parts.parts]
    for entry, part in zip(manifest.parts, parts.parts, strict=True):
        packed = part.pack()
        assert (entry.features, entry.reads) == (packed.features, packed.reads)
        assert json.dumps(entry.settings) == json.dumps(packed.settings)
    assert manifest.training["n_objects"] == 80
    assert set(manifest.libraries) >= {"lightgbm", "numpy"}
    assert set(manifest.files) == {p.name for p in artifact.iterdir()} - {MANIFEST_FILE}
    assert manifest.licence
    assert len(manifest.model_version) == 12


def test_equal_parts_have_equal_versions_and_bytes(
    parts: Trained, artifact: Path, tmp_path: Path
) -> None:
    again = save_model(parts, tmp_path / "again")
    assert again.model_version == read_manifest(artifact).model_version
    for file in artifact.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_another_model_has_another_version(parts: Trained, tmp_path: Path) -> None:
    known = {save_model(parts, tmp_path / "m").model_version}
    of: dict[str, Any] = {part.kind: part for part in parts.parts}

    def with_other(kind: str, **changes: Any) -> Trained:
        other = {**of, kind: replace(of[kind], **changes)}
        return replace(parts, parts=tuple(other.values()))

    forest = of["isolation_forest"].forest
    others = [
        with_other("least_ambiguous", threshold=of["least_ambiguous"].threshold + 1e-9),
        with_other("least_ambiguous", coverage=0.91),
        replace(parts, class_ids=(1, 2, 3, 4)),
        with_other("vector_scaling", slope=of["vector_scaling"].slope + 1e-9),
        with_other("rank_product", novelty=(0.0, 1.0)),
        with_other("isolation_forest", forest=forest._replace(scale=forest.scale + 1e-9)),
        with_other("linear_pool", weights=(0.5,)),
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
        lambda raw: settings_of(raw, "least_ambiguous").update(threshold=0.01),
        lambda raw: settings_of(raw, "vector_scaling").update(slope=3.0),
        lambda raw: raw.update(class_ids=[122, 111, 212, 221]),
        lambda raw: settings_of(raw, "rank_product").update(novelty=[0.0, 9.0]),
        lambda raw: settings_of(raw, "least_ambiguous").update(coverage=0.5),
        lambda raw: raw["parts"].reverse(),
        lambda raw: raw["metrics"].update(out_of_fold_macro_f1=1.0),
        lambda raw: raw["training"].update(n_objects=10**6),
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
        (lambda raw: raw.update(format=3), "model format 3"),
        (lambda raw: raw.pop("class_ids"), "no model manifest of this version: .*class_ids"),
        (lambda raw: raw.update(new="field"), "no model manifest of this version: .*new"),
        (lambda raw: raw["parts"][0].update(new="field"), "no model manifest of this version"),
        (lambda raw: raw["parts"][0]["files"].clear(), "not the manifest that was saved"),
    ],
)
def test_another_kind_of_model_is_refused(
    change: Callable[[dict[str, Any]], Any], said: str, copy: Path
) -> None:
    edit(copy, change)
    with pytest.raises(ConfigurationError, match=said):
        load_model(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(feature_digest="0" * 12), "trained on features 0{12}.*train again"),
        (lambda raw: raw["features"].__setitem__(3, "charm"), "computes no feature charm: train"),
        (lambda raw: raw["features"].reverse(), "declares them otherwise .*train again"),
        (
            lambda raw: raw["parts"][0]["features"].append("charm"),
            "its part lightgbm reads charm, which the model lacks",
        ),
        (
            lambda raw: settings_of(raw, "lightgbm").update(class_ids=[122, 111, 212, 221]),
            r"its part lightgbm tells \(122, 111, 212, 221\) apart, the model \(111, 122",
        ),
        (
            lambda raw: settings_of(raw, "lightgbm").update(class_ids=[111, 122]),
            "its part lightgbm: it tells 4 classes apart, not 2",
        ),
        (
            lambda raw: raw["parts"][0].update(kind="oracle"),
            "no kind of classifier is called 'oracle': lightgbm, logistic",
        ),
        (lambda raw: raw["parts"].pop(1), "it has 0 parts as combiner"),
        (lambda raw: raw["parts"].append(raw["parts"][2]), "it has 2 parts as calibration"),
        (
            lambda raw: raw["parts"][0]["files"].update({"../secret": "0"}),
            "secret is missing or not the file that was saved",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_by_its_name(
    change: Callable[[dict[str, Any]], Any], said: str, copy: Path
) -> None:
    """Even where whoever wrote the manifest has made its version fit."""
    edit(copy, change)
    vouch(copy)
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
    (copy / FOREST_FILE).unlink()
    with pytest.raises(ConfigurationError, match=r"forest\.npz is missing"):
        load_parts(copy)


def test_no_file_of_a_model_can_execute_code(artifact: Path) -> None:
    """Text, JSON and plain arrays; a pickle begins with opcode 0x80 or holds an object array."""
    for file in artifact.iterdir():
        assert not file.read_bytes().startswith(b"\x80"), file
        assert file.suffix in {".json", ".txt", ".npz"}
    with zipfile.ZipFile(artifact / FOREST_FILE) as archive:
        for name in archive.namelist():
            assert archive.read(name).startswith(b"\x93NUMPY"), name
    with np.load(artifact / FOREST_FILE, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "if" for name in arrays.files)


class Malice:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def test_a_pickle_in_the_arrays_is_not_opened(artifact: Path, copy: Path, tmp_path: Path) -> None:
    """Even where whoever made it has made the manifest fit."""
    with np.load(copy / FOREST_FILE) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    content["medians"] = np.array([Malice(tmp_path / "executed")], object)
    np.savez(copy / FOREST_FILE, **content)
    digest = hashlib.sha256((copy / FOREST_FILE).read_bytes()).hexdigest()
    at = [part.kind for part in read_manifest(artifact).parts].index("isolation_forest")
    edit(copy, lambda raw: raw["parts"][at]["files"].update({FOREST_FILE: digest}))
    vouch(copy)
    read_manifest(copy)
    with pytest.raises(ConfigurationError, match=r"isolation_forest: .*allow_pickle"):
        load_model(copy)
    assert not (tmp_path / "executed").exists()


def test_saving_replaces_the_whole_folder_and_leaves_no_draft(
    parts: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "m"
    save_model(parts, folder)
    (folder / "old").write_text("of an older format")
    save_model(parts, folder)
    assert {p.name for p in folder.iterdir()} == {MANIFEST_FILE, "lightgbm.txt", FOREST_FILE}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_save_that_fails_leaves_the_old_model(
    parts: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    version = save_model(parts, folder).model_version

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.parts.np.savez", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(parts, folder)
    assert load_model(folder).manifest.model_version == version
    assert list(tmp_path.iterdir()) == [folder]


def test_what_parts_cost_is_noted_and_changes_no_version(copy: Path, unseen: pa.Table) -> None:
    before, scores = read_manifest(copy), load_model(copy).score(unseen)
    noted = note_costs(copy, {"lightgbm": 31.5})
    assert noted.model_version == before.model_version
    again = {part.kind: part.cost_us for part in read_manifest(copy).parts}
    assert again.pop("lightgbm") == 31.5
    assert set(again.values()) == {None}
    assert load_model(copy).score(unseen).equals(scores)


def test_two_parts_of_one_kind_are_refused(parts: Trained, tmp_path: Path) -> None:
    """Their files would have one name."""
    twice = replace(parts, parts=(parts.parts[0], *parts.parts))
    with pytest.raises(ConfigurationError, match="two parts of one kind: lightgbm, lightgbm"):
        save_model(twice, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_detectors_and_their_ranks_belong_together(parts: Trained, tmp_path: Path) -> None:
    without = replace(parts, parts=tuple(p for p in parts.parts if p.kind != "entropy"))
    save_model(without, tmp_path / "m")
    with pytest.raises(ConfigurationError, match="ranks entropy, isolation_forest, and its detec"):
        load_model(tmp_path / "m")


def test_a_setting_decides_whatever_its_name(artifact: Path) -> None:
    """A part may be built on another model, and name it."""
    manifest = read_manifest(artifact)
    entries = [
        replace(manifest.parts[0], settings={**manifest.parts[0].settings, "model_version": name})
        for name in ("one", "two")
    ]
    versions = {version_of(replace(manifest, parts=(e, *manifest.parts[1:]))) for e in entries}
    assert len(versions) == 2
