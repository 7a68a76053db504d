"""Every classifier and every detector, by the contract; and models of several of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from active_learning.gate import compare
from lightcurves.arrays import light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.features import registry
from lightcurves.features.declare import Family, Feature, Input
from models import kinds
from models.artifact import read_manifest, save_model
from models.inputs import Inputs
from models.kinds import kinds_of
from models.parts import Packed
from models.pool import LinearPool
from models.rows import TrainingRows, TrainingSettings
from models.scaling import fit_scale, scaled
from models.scoring import load_model
from models.training import moments_of, train
from tests.models.contract import CLASS_IDS, SETTINGS, Contract, answers, rows, unseen
from tests.sky import FAST, sky_table

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", kinds_of("classifier").values(), ids=lambda kind: kind.kind)
class TestClassifiers(Contract):
    def test_probabilities_are_probabilities(self, kind: Any) -> None:
        part = self.fitted(kind)
        p = answers(part)(Inputs(unseen()))
        assert part.class_ids == CLASS_IDS
        assert p.shape == (unseen().num_rows, len(CLASS_IDS))
        assert (p >= 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)

    def test_it_learns_what_can_be_learnt(self, kind: Any) -> None:
        seen, fresh = rows(), rows(seed=5)
        part = kind.fit(seen, CLASS_IDS, replace(SETTINGS, rounds=25))
        right = part.probabilities(fresh.inputs).argmax(axis=1) == fresh.truth
        assert np.average(right, weights=fresh.weights) > 0.7

    def test_a_class_that_a_fold_lacks_is_still_a_column(self, kind: Any) -> None:
        some = rows().take(rows().truth != 1)
        p = kind.fit(some, CLASS_IDS, SETTINGS).probabilities(rows().inputs)
        assert p.shape[1] == len(CLASS_IDS)
        assert np.isfinite(p).all()
        assert (p[:, 1] < 0.5).all()


@pytest.mark.parametrize("kind", kinds_of("detector").values(), ids=lambda kind: kind.kind)
class TestDetectors(Contract):
    def test_the_strange_are_stranger(self, kind: Any) -> None:
        part = self.fitted(kind)
        names = part.pack().features
        ordinary = rows(seed=5).inputs
        chance = np.full((len(ordinary), len(CLASS_IDS)), 1 / len(CLASS_IDS))
        if names:
            values = ordinary.features(names)
            far = Inputs.of_features(ordinary.table, names, values * 50 + 1e3)
            strange = part.strangeness(far, chance)
            assert np.median(strange) > np.quantile(part.strangeness(ordinary, chance), 0.95)
        sure = np.eye(len(CLASS_IDS))[np.zeros(len(ordinary), int)]
        assert (part.strangeness(ordinary, sure) <= part.strangeness(ordinary, chance)).all()


@pytest.mark.parametrize(
    "reached",
    [
        lambda inputs: inputs.features(registry.names_in(registry.default_families())),
        lambda inputs: inputs.light_curves.flux_njy,
        lambda inputs: inputs.light_curves.offsets,
        lambda inputs: inputs.context.mw_ebv,
    ],
    ids=["features", "light_curves", "offsets", "context"],
)
def test_the_contract_finds_who_writes_to_its_inputs(reached: Callable[[Inputs], Any]) -> None:
    class Meddler(CountingClassifier):
        def probabilities(self, inputs: Inputs) -> NDArray[np.float64]:
            array = reached(inputs)
            array += 1
            return super().probabilities(inputs)

        def pack(self) -> Packed:
            names = registry.names_in(registry.default_families())
            return replace(super().pack(), features=names)

    with pytest.raises((AssertionError, ValueError), match=r"changed (features|offsets)|read-only"):
        Contract().test_its_inputs_stay_as_they_were(Meddler)


def test_every_kind_has_one_name_and_role() -> None:
    names = [(kind.role, kind.kind) for kind in kinds.KINDS]
    assert len(set(names)) == len(names)
    assert len({kind.kind for kind in kinds.KINDS}) == len(names)  # files are named after them


def test_the_regression_is_scikit_learns() -> None:
    part: Any = Contract.fitted(kinds_of("classifier")["logistic"])
    seen = rows()
    z = scaled(seen.values, *fit_scale(seen.values))
    oracle = LogisticRegression(C=1.0, max_iter=500).fit(z, seen.truth, sample_weight=seen.weights)
    np.testing.assert_allclose(part.probabilities(seen.inputs), oracle.predict_proba(z), atol=1e-6)


def test_the_distance_is_the_textbooks() -> None:
    part: Any = Contract.fitted(kinds_of("detector")["mahalanobis"])
    inputs = Inputs(unseen())
    z = scaled(inputs.features(part.features), part.median, part.scale)
    inverse = part.whitening.T @ part.whitening
    apart = z[:, None, :] - part.means[None]
    textbook = np.sqrt(np.einsum("rcj,jk,rck->rc", apart, inverse, apart).min(axis=1))
    np.testing.assert_allclose(answers(part)(inputs), textbook, rtol=1e-8)


@given(data=st.data())
def test_taken_rows_have_the_same_light_curves_flat_or_not(data: st.DataObject) -> None:
    table = unseen()[:8]
    flat, packed = Inputs(table, light_curves_of(table)), Inputs(table)
    for _ in range(data.draw(st.integers(0, 3))):
        at = st.integers(0, max(0, len(flat) - 1))
        rows = np.array(data.draw(st.lists(at, max_size=8 if len(flat) else 0)), np.int64)
        flat, packed = flat.take(rows), packed.take(rows)
    assert len(flat) == len(packed) == len(flat.light_curves)
    one, other = flat.light_curves, packed.light_curves
    np.testing.assert_array_equal(one.offsets, other.offsets)
    for mine, theirs in zip(one.columns(), other.columns(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_pool_trusts_who_is_right() -> None:
    chance = np.random.default_rng(1)
    truth = chance.integers(0, 3, 2_000)
    good = np.full((2_000, 3), 0.1)
    good[np.arange(2_000), truth] = 0.8
    bad = np.full((2_000, 3), 1 / 3)
    pool = LinearPool.fit([good, bad], truth, np.ones(2_000))
    assert pool.weights[0] > 0.95
    assert sum(pool.weights) == pytest.approx(1.0)
    np.testing.assert_allclose(pool.combine([good, bad]).sum(axis=1), 1.0)
    assert LinearPool.fit([good], truth, np.ones(2_000)).combine([good]) is good


EVERYTHING = replace(
    FAST,
    rounds=6,
    classifiers=tuple(kinds_of("classifier")),
    detectors=tuple(kinds_of("detector")),
)


def test_a_model_may_have_all_parts_there_are(tmp_path: Path) -> None:
    trained = train(moments_of(sky_table(48), 3), EVERYTHING)
    manifest = save_model(trained, tmp_path / "model")
    assert {part.kind for part in manifest.parts} == {kind.kind for kind in kinds.KINDS}
    model = load_model(tmp_path / "model")
    scores = model.score(unseen())
    table = unseen()
    alone = pa.concat_tables([model.score(table[k : k + 1]) for k in range(table.num_rows)])
    assert alone.combine_chunks().equals(scores.combine_chunks())
    assert set(model.only("novelty").reference) == set(kinds_of("detector"))


def test_a_model_may_read_a_few_features_and_expensive_ones(tmp_path: Path) -> None:
    names = ("age_days", "n_points", *registry.names_in((registry.REGISTERED["period"],))[:2])
    trained = train(moments_of(sky_table(24), 2), replace(FAST, rounds=4, features=names))
    manifest = save_model(trained, tmp_path / "model")
    assert manifest.features == names
    scores = load_model(tmp_path / "model").score(unseen())
    assert scores["reason"].to_pylist() == ["no_finite_flux"] + [None] * (unseen().num_rows - 1)


# -- models that were made before ------------------------------------------------------------------


def test_a_model_of_the_first_format_scores_as_ever() -> None:
    """Made by the version before a model had parts: ``tests/models/data/make_first_format.py``."""
    folder = DATA / "first_format"
    model = load_model(folder)
    assert (model.manifest.model_version, model.manifest.survey) == ("c54fc8679ad8", "lsst")
    scores = model.score(moments_of(sky_table(8, seed=99, first_id=2**61), 2))
    expected = json.loads((folder / "scores.json").read_text())
    for row, then in zip(scores.to_pylist(), expected, strict=True):
        for name, value in then.items():
            assert row[name] == (
                pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            )


def test_a_changed_model_of_the_first_format_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DATA / "first_format", tmp_path / "copy"))
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"coverage": 0.9', '"coverage": 0.8'))
    with pytest.raises(ConfigurationError, match="not the manifest that was saved"):
        load_model(folder)
    (folder / "manifest.json").write_text(text)
    (folder / "forest.npz").write_bytes(b"PK")
    with pytest.raises(ConfigurationError, match=r"forest\.npz is missing or not the file"):
        load_model(folder)


# -- what is added while others stay ----------------------------------------------------------------


def _brightest(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    for k in range(out.shape[0]):
        out[k, 0] = points.flux[points.offsets[k] : points.offsets[k + 1]].max()


BRIGHTEST = Family(
    "brightest",
    (Feature("brightest_njy", "nJy", frozenset({Input.FLUX}), "max flux"),),
    _brightest,
)


@pytest.fixture
def one_feature_more(monkeypatch: pytest.MonkeyPatch) -> Family:
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))
    registry.register(BRIGHTEST)
    return BRIGHTEST


def test_a_new_feature_leaves_every_model_as_it_is(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    trained = train(moments_of(sky_table(24), 2), replace(FAST, rounds=4))
    save_model(trained, tmp_path / "old")
    before = load_model(tmp_path / "old").score(unseen())
    request.getfixturevalue("one_feature_more")
    old = load_model(tmp_path / "old")
    assert old.score(unseen()).equals(before)
    new = train(moments_of(sky_table(24), 2), replace(FAST, rounds=4))
    manifest = save_model(new, tmp_path / "new")
    assert manifest.features == (*old.manifest.features, "brightest_njy")
    assert manifest.feature_digest != old.manifest.feature_digest
    load_model(tmp_path / "new").score(unseen())
    assert old.score(unseen()).equals(before)


@pytest.mark.usefixtures("one_feature_more")
def test_a_feature_that_is_gone_is_missed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(train(moments_of(sky_table(24), 2), replace(FAST, rounds=2)), tmp_path / "new")
    changed = replace(BRIGHTEST, features=(replace(BRIGHTEST.features[0], formula="max"),))
    monkeypatch.setitem(registry.REGISTERED, "brightest", changed)
    with pytest.raises(ConfigurationError, match="declares them otherwise"):
        load_model(tmp_path / "new")
    monkeypatch.delitem(registry.REGISTERED, "brightest")
    with pytest.raises(ConfigurationError, match="no feature brightest_njy: train again"):
        read_manifest(tmp_path / "new")


@pytest.mark.usefixtures("one_feature_more")
def test_names_of_features_are_taken_once() -> None:
    for family, said in (
        (BRIGHTEST, "brightest_njy is taken"),
        (replace(BRIGHTEST, name="another"), "brightest_njy is taken"),
        (replace(BRIGHTEST, features=()), "brightest is taken"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            registry.register(family)


def test_no_feature_is_looked_up_by_its_place() -> None:
    """A model carries its own list of names: no module knows a list of all, or a place in it."""
    rooms = {path.parent for path in ROOT.glob("*/__init__.py")} - {ROOT / "tests"}
    assert {ROOT / "lightcurves", ROOT / "models", ROOT / "stream", ROOT / "benchmarks"} <= rooms
    files = [path for room in rooms for path in room.rglob("*.py")]
    place = re.compile(r"FEATURE_NAMES|names\.index\(")
    assert [path for path in files if place.search(path.read_text())] == []


def test_a_new_feature_leaves_the_gate_working(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A champion of before and a challenger that reads the new feature are compared."""
    moments = moments_of(sky_table(24), 2)
    save_model(train(moments, replace(FAST, rounds=2)), tmp_path / "champion")
    request.getfixturevalue("one_feature_more")
    save_model(train(moments, replace(FAST, rounds=30)), tmp_path / "challenger")
    frozen = moments_of(sky_table(40, seed=3, first_id=2**62), 2)
    champion, challenger = (load_model(tmp_path / name) for name in ("champion", "challenger"))
    found = compare(champion, challenger, frozen, confidence=0.9, seed=1)
    assert found.n_objects == 40
    assert found.passed


@dataclass(frozen=True)
class CountingClassifier:
    """Reads light curves: the more points, the surer of the first class."""

    role: ClassVar[str] = "classifier"
    kind: ClassVar[str] = "counting"

    class_ids: tuple[int, ...]

    @classmethod
    def fit(
        cls, _rows: TrainingRows, class_ids: tuple[int, ...], _settings: TrainingSettings
    ) -> Self:
        return cls(class_ids)

    def probabilities(self, inputs: Inputs) -> NDArray[np.float64]:
        counts = inputs.light_curves.counts()[:, None]
        first = np.arange(len(self.class_ids)) == 0
        return np.where(first, counts + 1.0, 1.0) / (counts + len(self.class_ids))

    def pack(self) -> Packed:
        return Packed({"class_ids": list(self.class_ids)}, reads=("light_curves",))

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        return cls(tuple(packed.settings["class_ids"]))


def test_a_part_may_read_light_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class in a file of its own, and a line in the registry."""
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, CountingClassifier))
    settings = replace(FAST, rounds=4, classifiers=("lightgbm", "counting"))
    save_model(train(moments_of(sky_table(24), 2), settings), tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.reads_light_curves
    table = unseen()
    alone = pa.concat_tables([model.score(table[k : k + 1]) for k in range(table.num_rows)])
    assert alone.combine_chunks().equals(model.score(table).combine_chunks())
