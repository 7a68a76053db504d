"""What every classifier and every detector promises, whatever it is made of.

A new kind is tested by its line in ``models.kinds``: the classes below run over all that stand there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lightcurves.arrays import light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.features import registry
from lightcurves.folders import attach_light_curves
from models.artifact import Trained, save_model
from models.inputs import Inputs
from models.novelty import RankProduct
from models.rows import TrainingRows
from models.scoring import Model, load_model
from models.training import moments_of, training_rows
from tests.models.altered import edit, entry_of, settings_of, vouch
from tests.sky import CLASSES, FAST, make_sky, sky_table, trained

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


def model_with(part: Any) -> Trained:
    """The small model of the session, with `part` in place of its own parts of that role."""
    model = trained()
    parts = [*(p for p in model.parts if p.role != part.role), part]
    if part.role == "detector":
        ranks = RankProduct.fit({part.kind: answers(part)(rows().inputs)})
        parts = [*(p for p in parts if p.role != ranks.role), ranks]
    return replace(model, parts=tuple(parts))


def all_that_is_in(inputs: Inputs, names: tuple[str, ...]) -> dict[str, Any]:
    """Copies of everything that a part can reach, so that a later change shows."""
    curves = inputs.light_curves
    arrays = {
        "features": inputs.features(names),
        "why": inputs.why(names),
        "ages": inputs.ages(),
        "offsets": curves.offsets,
        **{f"points {k}": column for k, column in enumerate(curves.columns())},
        **inputs.context._asdict(),
    }
    columns = {name: repr(inputs.column(name).to_pylist()) for name in inputs.table.column_names}
    return {**{name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}, **columns}


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
        """Features, light curves, context and columns: the next part is given the same arrays."""
        part, table = self.fitted(kind), unseen()
        names = part.pack().features
        for inputs in (Inputs(table), Inputs(table, light_curves_of(table))):
            before = all_that_is_in(inputs, names)
            first = answers(part)(inputs)
            after = all_that_is_in(inputs, names)
            changed = [name for name in before if after[name] != before[name]]
            assert not changed, f"{kind.kind} has changed {', '.join(changed)}"
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

    # -- as a part of a model on disk --------------------------------------------------------------

    @pytest.fixture
    def folder(self, kind: Any, tmp_path: Path) -> Path:
        """A saved model that has this part."""
        save_model(model_with(self.fitted(kind)), tmp_path / "model")
        return tmp_path / "model"

    def test_a_saved_model_with_it_scores_to_the_bit_as_before(
        self, kind: Any, folder: Path
    ) -> None:
        part, loaded = self.fitted(kind), load_model(folder)
        fresh = Model(loaded.manifest, model_with(part).parts)
        assert loaded.score(unseen()).equals(fresh.score(unseen()))
        (again,) = (p for p in loaded.all_of(kind.role) if p.kind == kind.kind)
        np.testing.assert_array_equal(
            answers(again)(Inputs(unseen())), answers(part)(Inputs(unseen()))
        )

    def test_its_changed_file_is_refused(self, kind: Any, folder: Path) -> None:
        for suffix, content in self.fitted(kind).pack().files.items():
            file = folder / f"{kind.kind}.{suffix}"
            half = len(content) // 2
            for bad in (content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :], b""):
                file.write_bytes(bad)
                with pytest.raises(ConfigurationError, match=f"{file.name} is missing or not the"):
                    load_model(folder)
            file.unlink()
            with pytest.raises(ConfigurationError, match=f"{file.name} is missing or not the file"):
                load_model(folder)
            file.write_bytes(content)
        load_model(folder)

    def test_its_changed_entry_is_refused(self, kind: Any, folder: Path) -> None:
        edit(folder, lambda raw: settings_of(raw, kind.kind).update(another=1))
        with pytest.raises(ConfigurationError, match="not the manifest that was saved"):
            load_model(folder)

    def test_a_feature_that_nobody_computes_is_missed_by_name(
        self, kind: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One of its own, or of the parts beside it if it reads none."""
        name = (self.fitted(kind).pack().features or load_model(folder).manifest.features)[-1]
        (family,) = registry.families_of([name])
        # A copy: put back into the dictionary itself, the family would come last from then on.
        rest = {key: each for key, each in registry.REGISTERED.items() if each is not family}
        monkeypatch.setattr(registry, "REGISTERED", rest)
        with pytest.raises(ConfigurationError, match=rf"no feature .*\b{name}\b.*: train again"):
            load_model(folder)
        other = tuple(
            replace(feature, formula="another") if feature.name == name else feature
            for feature in family.features
        )
        monkeypatch.setitem(registry.REGISTERED, family.name, replace(family, features=other))
        with pytest.raises(ConfigurationError, match=r"declares them otherwise .*: train again"):
            load_model(folder)

    def test_a_feature_that_the_model_lacks_is_refused(self, kind: Any, folder: Path) -> None:
        edit(folder, lambda raw: entry_of(raw, kind.kind)["features"].append("charm"))
        vouch(folder)
        said = f"its part {kind.kind} reads charm, which the model lacks"
        with pytest.raises(ConfigurationError, match=said):
            load_model(folder)

    def test_fewer_features_than_it_was_fitted_on_are_refused(
        self, kind: Any, folder: Path
    ) -> None:
        edit(folder, lambda raw: entry_of(raw, kind.kind)["features"].__delitem__(slice(1, None)))
        vouch(folder)
        if self.fitted(kind).pack().features:
            with pytest.raises(ConfigurationError, match=f"its part {kind.kind}: its "):
                load_model(folder)
        else:
            load_model(folder)

    def test_another_order_of_the_classes_is_refused(self, kind: Any, folder: Path) -> None:
        """A detector's model has a classifier, which knows its classes."""
        named = kind.kind if kind.role == "classifier" else "lightgbm"
        turned = CLASS_IDS[::-1]
        edit(folder, lambda raw: raw.update(class_ids=list(turned)))
        vouch(folder)
        said = re.escape(f"its part {named} tells {CLASS_IDS} apart, the model {turned}")
        with pytest.raises(ConfigurationError, match=said):
            load_model(folder)
