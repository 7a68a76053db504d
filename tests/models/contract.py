"""What every classifier and every detector promises, whatever it is made of.

A new kind is tested by its line in ``models.kinds``: the classes below run over all that stand there.
"""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lightcurves.errors import ConfigurationError
from lightcurves.folders import attach_light_curves
from models.artifact import Trained, read_manifest, save_model
from models.folder import MANIFEST_FILE
from models.inputs import Inputs
from models.rows import TrainingRows
from models.scoring import load_model
from models.training import moments_of, train, training_rows
from tests.models.artifacts import edit, settings_of, vouch
from tests.sky import CLASSES, FAST, make_sky, sky_table

CLASS_IDS = tuple(sorted(CLASSES))
SETTINGS = replace(FAST, rounds=8)
Answers = Callable[[Inputs], NDArray[np.float64]]


@cache
def rows(seed: int = 1) -> TrainingRows:
    return training_rows(moments_of(sky_table(48, seed=seed), 3), CLASS_IDS, SETTINGS)


@cache
def unseen() -> pa.Table:
    """Objects that nothing was fitted on; among them one without a point, and one with a single one."""
    objects, points = make_sky(14, seed=9, first_id=2**61)
    ids = points["object_id"].to_numpy()
    first = np.flatnonzero(ids == ids[0])
    keep = np.ones(ids.size, bool)
    keep[first] = False
    keep[np.flatnonzero(ids == np.unique(ids)[1])[1:]] = False
    return attach_light_curves(objects, points.filter(pa.array(keep))).drop_columns(["class_id"])


def answers(part: Any) -> Answers:
    """What a part says of inputs: its probabilities, or its strangeness where all classes are alike."""
    if part.role == "classifier":
        return part.probabilities  # type: ignore[no-any-return]
    even = 1.0 / len(CLASS_IDS)

    def strangeness(inputs: Inputs) -> NDArray[np.float64]:
        chance = np.full((len(inputs), len(CLASS_IDS)), even)
        found: NDArray[np.float64] = part.strangeness(inputs, chance)
        return found

    return strangeness


@cache
def artifact(kind: Any) -> tuple[Path, Trained]:
    """Return the folder of a small model that has a part of this kind, and the model as it was trained."""
    only: dict[str, Any] = {f"{kind.role}s": (kind.kind,)}
    settings = replace(SETTINGS, **only)
    trained = train(moments_of(sky_table(48, seed=1), 2), settings)
    folder = Path(mkdtemp(prefix="noctule-contract-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    save_model(trained, folder / "model")
    return folder / "model", trained


class Contract:
    """Inherited by the tests of classifiers and of detectors; `kind` is the class under test."""

    @staticmethod
    @cache
    def fitted(kind: Any) -> Any:
        return kind.fit(rows(), CLASS_IDS, SETTINGS)

    def test_it_comes_back_as_it_went(self, kind: Any) -> None:
        part = self.fitted(kind)
        again = kind.unpack(part.pack())
        assert repr(again.pack()) == repr(part.pack())
        np.testing.assert_array_equal(
            answers(again)(Inputs(unseen())), answers(part)(Inputs(unseen()))
        )

    def test_a_model_of_it_is_read_from_its_folder_to_the_bit(self, kind: Any) -> None:
        folder, trained = artifact(kind)
        (before,) = [part for part in trained.parts if part.kind == kind.kind]
        (after,) = [part for part in load_model(folder).parts if part.kind == kind.kind]
        np.testing.assert_array_equal(
            answers(after)(Inputs(unseen())), answers(before)(Inputs(unseen()))
        )

    def test_a_file_of_it_that_was_changed_is_refused_by_its_name(
        self, kind: Any, tmp_path: Path
    ) -> None:
        manifest = read_manifest(artifact(kind)[0])
        (entry,) = [part for part in manifest.parts if part.kind == kind.kind]
        for name in entry.files:
            folder = copytree(artifact(kind)[0], tmp_path / name)
            content = bytearray((folder / name).read_bytes())
            content[len(content) // 2] ^= 1
            (folder / name).write_bytes(content)
            with pytest.raises(ConfigurationError, match=rf"{name} is missing or not the file"):
                load_model(folder)

    def test_a_feature_that_its_model_lacks_is_named(self, kind: Any, tmp_path: Path) -> None:
        folder = copytree(artifact(kind)[0], tmp_path / "model")

        def charm(raw: dict[str, Any]) -> None:
            (mine,) = [part for part in raw["parts"] if part["kind"] == kind.kind]
            mine["features"].append("charm")

        edit(folder, charm)
        vouch(folder)
        with pytest.raises(ConfigurationError, match=rf"part {kind.kind} reads charm, which"):
            load_model(folder)

    def test_classes_in_another_order_are_refused(self, kind: Any, tmp_path: Path) -> None:
        folder = copytree(artifact(kind)[0], tmp_path / "model")
        knows_classes = "class_ids" in settings_of(
            json.loads((folder / MANIFEST_FILE).read_text()), kind.kind
        )
        assert knows_classes == hasattr(self.fitted(kind), "class_ids")
        if knows_classes:
            edit(folder, lambda raw: settings_of(raw, kind.kind)["class_ids"].reverse())
        else:
            edit(folder, lambda raw: raw["class_ids"].reverse())
        vouch(folder)
        with pytest.raises(
            ConfigurationError, match=r"its part \w+ tells \(.* apart, the model \("
        ):
            load_model(folder)

    def test_what_travels_is_text_and_numbers(self, kind: Any) -> None:
        for suffix, content in self.fitted(kind).pack().files.items():
            assert suffix in {"txt", "npz", "json", "onnx"}
            assert not content.startswith(b"\x80")

    def test_equal_rows_and_settings_give_equal_bits(self, kind: Any) -> None:
        assert repr(kind.fit(rows(), CLASS_IDS, SETTINGS).pack()) == repr(self.fitted(kind).pack())

    def test_a_row_alone_says_what_it_says_among_others(self, kind: Any) -> None:
        said = answers(self.fitted(kind))
        table = unseen()
        alone = [said(Inputs(table[k : k + 1])) for k in range(table.num_rows)]
        np.testing.assert_array_equal(np.concatenate(alone), said(Inputs(table)))

    def test_the_order_of_the_rows_does_not_matter(self, kind: Any) -> None:
        said, table = answers(self.fitted(kind)), unseen()
        order = np.random.default_rng(1).permutation(table.num_rows)
        shuffled = said(Inputs(table.take(pa.array(order))))
        np.testing.assert_array_equal(shuffled, said(Inputs(table))[order])
        np.testing.assert_array_equal(said(Inputs(table).take(order)), shuffled)

    def test_its_inputs_stay_as_they_were(self, kind: Any) -> None:
        part, inputs = self.fitted(kind), Inputs(unseen())
        names = part.pack().features
        before = inputs.features(names).copy()
        table = pa.table({name: inputs.column(name) for name in inputs.table.column_names})
        curves = [np.array(column) for column in inputs.light_curves.columns()]
        offsets = inputs.light_curves.offsets.copy()
        told = table.to_pylist()
        first = answers(part)(inputs)
        np.testing.assert_array_equal(inputs.features(names), before)
        np.testing.assert_array_equal(inputs.light_curves.offsets, offsets)
        for now, then in zip(inputs.light_curves.columns(), curves, strict=True):
            np.testing.assert_array_equal(now, then)
        assert repr(inputs.table.to_pylist()) == repr(told)
        np.testing.assert_array_equal(answers(part)(inputs), first)

    def test_it_reads_what_it_declares_and_nothing_else(self, kind: Any) -> None:
        packed = self.fitted(kind).pack()
        everything = Inputs(unseen())
        names, columns = packed.features, {"object_id"}
        columns |= {name.removeprefix("column:") for name in packed.reads if ":" in name}
        columns |= {"light_curve"} if "light_curves" in packed.reads else set()
        less = Inputs.of_features(
            everything.table.select(sorted(columns)), names, everything.features(names)
        )
        said = answers(self.fitted(kind))
        np.testing.assert_array_equal(said(less), said(everything))

    def test_it_is_fitted_on_rows_that_do_not_name_their_class(self, kind: Any) -> None:
        assert not {"class_id", "object_id"} & set(rows().inputs.table.column_names)
        self.fitted(kind)

    def test_nothing_known_of_a_row_is_no_error(self, kind: Any) -> None:
        part = self.fitted(kind)
        names = part.pack().features
        table = unseen()
        nothing = Inputs.of_features(table, names, np.full((table.num_rows, len(names)), np.nan))
        assert np.isfinite(answers(part)(nothing)).all()

    def test_no_rows_give_no_rows(self, kind: Any) -> None:
        assert len(answers(self.fitted(kind))(Inputs(unseen()[:0]))) == 0

    def test_one_point_is_enough(self, kind: Any) -> None:
        objects, points = make_sky(1, seed=8)
        said = answers(self.fitted(kind))(Inputs(attach_light_curves(objects, points[:1])))
        assert np.isfinite(said).all()
        assert len(said) == 1
