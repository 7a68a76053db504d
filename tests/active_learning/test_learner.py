"""The learner end to end: labels and their alerts in, a trial and perhaps a promotion out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sqlalchemy as sa

from active_learning import learner
from active_learning.learner import (
    LearnerConfig,
    Listener,
    Trial,
    learn_once,
    register,
    training_moments,
)
from lightcurves.alerts import read_alerts
from lightcurves.errors import ConfigurationError
from lightcurves.folders import read_light_curves, write_light_curves
from models.artifact import read_manifest, save_model
from models.inputs import Inputs
from models.scoring import load_model
from models.training import moments_of, train
from simulator.packets import SimulatedAlerts
from store import registry, tables
from store.delta import LightCurveFile, commit_files, ensure_table
from store.labels import report_label
from stream.scoring import delta_schema, score_batch
from tests.sky import CLASSES, FAST, FIRST_ID, FLARE, make_sky, sky_table, write_sky

STREAM_ID = 2**61
FROZEN_ID = 2**62
KNOWN = tuple(label for label in CLASSES if label != FLARE)


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A champion that has never seen a flare, its training folder, and a frozen set with flares."""
    folder = tmp_path_factory.mktemp("night")
    write_sky(folder / "training", 30, classes=KNOWN)
    write_sky(folder / "frozen", 48, seed=3, first_id=FROZEN_ID)
    moments = moments_of(read_light_curves(folder / "training"), FAST.moments)
    save_model(train(moments, FAST), folder / "champion")
    write_delta(folder / "delta", sky_table(40, seed=2, first_id=STREAM_ID), folder / "champion")
    return folder


def write_delta(folder: Path, objects: pa.Table, champion: Path) -> None:
    """What the stream leaves of the objects' alerts, in two batches, the first replayed."""
    alerts = read_alerts(list(SimulatedAlerts(objects)))
    ensure_table(folder, delta_schema())
    half = alerts.num_rows // 2
    for batch, part in ((0, alerts[:half]), (0, alerts[:half]), (1, alerts[half:])):
        n = part.num_rows
        where = {
            "topic": pa.array(["alerts"] * n),
            "kafka_partition": pa.array([0] * n, pa.int32()),
            "kafka_offset": pa.array(np.arange(n) + 10_000 * batch),
            **{name: pa.array([1] * n, pa.int64()) for name in ("arrival_ms", "processed_ms")},
            "run_id": pa.array(["live"] * n),
        }
        file = LightCurveFile(folder)
        file.append(score_batch(Inputs(part), {"lsst": load_model(champion)}).for_delta(where))
        written = file.close()
        assert written is not None
        commit_files(folder, [written], "run", batch)


@pytest.fixture
def config(night: Path, tmp_path: Path, engine: sa.Engine) -> LearnerConfig:
    """A learner with a promoted champion and a fresh database."""
    models = tmp_path / "models"
    manifest = read_manifest(night / "champion")
    models.mkdir()
    (models / manifest.model_version).symlink_to(night / "champion")
    with engine.begin() as connection:
        register(connection, manifest, models / manifest.model_version)
        registry.promote(connection, "champion", manifest.model_version, reason="first", now_ms=1)
    return LearnerConfig(
        models_folder=models,
        delta_folder=night / "delta",
        training_folder=night / "training",
        frozen_folder=night / "frozen",
        alias="champion",
        retrain_every=20,
        confidence=0.9,
        training=FAST,
    )


def label(
    engine: sa.Engine, n: int, wrong: Callable[[int], int] | None = None, survey: str = "lsst"
) -> None:
    """The truth, or what `wrong` makes of it, of the first `n` streamed objects."""
    objects, _ = make_sky(40, seed=2, first_id=STREAM_ID)
    with engine.begin() as connection:
        for row in objects.to_pylist()[:n]:
            class_id = wrong(row["class_id"]) if wrong else row["class_id"]
            report_label(connection, survey=survey, object_id=row["object_id"], class_id=class_id,
                         reporter="telescope", now_ms=2)  # fmt: skip


def rows(engine: sa.Engine, table: sa.Table) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def champion(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        named = registry.champion(connection, "champion")
    assert named is not None
    return str(named["model_version"])


def test_labels_make_a_better_model_champion(engine: sa.Engine, config: LearnerConfig) -> None:
    first = champion(engine)
    label(engine, 40)
    told: list[float] = []
    trial = learn_once(engine, config, progress=lambda _what, done: told.append(done))
    assert isinstance(trial, Trial)
    assert trial.promoted
    assert trial.n_labels == 40
    assert trial.gate.n_objects == 48
    assert trial.gate.gain_lower > 0
    assert told
    assert champion(engine) == trial.challenger != first
    model = load_model(config.models_folder / trial.challenger)
    assert model.manifest.model_version == trial.challenger
    assert model.manifest.class_ids == tuple(sorted(CLASSES))  # it has learnt what a flare is
    (row,) = rows(engine, tables.trials)
    assert (row["champion_version"], row["challenger_version"]) == (first, trial.challenger)
    assert (row["promoted"], row["n_labels"]) == (True, 40)
    assert row["gate"] == trial.gate.as_dict()
    promotions = rows(engine, tables.promotions)
    assert [p["model_version"] for p in promotions] == [first, trial.challenger]
    assert promotions[1]["gate"] == trial.gate.as_dict()
    assert "40 labels" in promotions[1]["reason"]
    assert {m["model_version"] for m in rows(engine, tables.models)} == {first, trial.challenger}
    assert learn_once(engine, config) is None  # nothing new since


def test_wrong_labels_lose_the_trial_and_change_nothing_served(
    engine: sa.Engine, config: LearnerConfig
) -> None:
    first = champion(engine)
    label(engine, 40, wrong=lambda c: CLASSES[(CLASSES.index(c) + 1) % 4])
    trial = learn_once(engine, replace(config, training_folder=None))
    assert trial is not None
    assert not trial.promoted
    assert champion(engine) == first
    assert [row["promoted"] for row in rows(engine, tables.trials)] == [False]
    assert len(rows(engine, tables.promotions)) == 1
    assert len(rows(engine, tables.models)) == 2  # tried, so known


def test_few_new_labels_are_waited_with_unless_forced(
    engine: sa.Engine, config: LearnerConfig
) -> None:
    label(engine, 19)
    label(engine, 19, survey="ztf")
    assert learn_once(engine, config) is None
    assert rows(engine, tables.trials) == []
    trial = learn_once(engine, config, force=True)
    assert trial is not None
    assert trial.n_labels == 19
    assert learn_once(engine, replace(config, retrain_every=1)) is None


def test_without_a_champion_or_a_frozen_set_nothing_is_tried(
    engine: sa.Engine, config: LearnerConfig
) -> None:
    label(engine, 40)
    with pytest.raises(ConfigurationError, match="no model is promoted as 'night'"):
        learn_once(engine, replace(config, alias="night"))
    with pytest.raises(ConfigurationError, match=r"learning\.frozen_folder is not set"):
        learn_once(engine, replace(config, frozen_folder=None))
    assert rows(engine, tables.trials) == []


class Notes(Listener):
    """Writes down what the learner tells."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def looked(self, n_new: int) -> None:
        self.told.append(n_new)

    def training(self) -> None:
        self.told.append("training")

    def tried(self, trial: Trial, seconds: float) -> None:
        assert seconds > 0
        self.told.append(trial)

    def failed(self, seconds: float) -> None:
        assert seconds >= 0
        self.told.append("failed")


def test_whoever_listens_is_told_of_each_step(
    engine: sa.Engine, config: LearnerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    label(engine, 19)
    learn_once(engine, config, listener=notes)
    label(engine, 24)
    with monkeypatch.context() as patch:
        patch.setattr(learner, "train", lambda *_: die_of("train"))
        with pytest.raises(DiedError):
            learn_once(engine, config, listener=notes)
    trial = learn_once(engine, config, listener=notes)
    learn_once(engine, config, listener=notes)
    assert notes.told == [19, 24, "training", "failed", 24, "training", trial, 0]


def die_of(step: str) -> None:
    raise DiedError(step)


class DiedError(RuntimeError):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", ["train", "store_artifact", "compare", "register"])
def test_a_crash_leaves_nothing_in_the_tables(
    step: str, engine: sa.Engine, config: LearnerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {
        table.name: rows(engine, table)
        for table in (tables.trials, tables.promotions, tables.models)
    }
    label(engine, 24)

    def die(*_: Any, **__: Any) -> None:
        raise DiedError(step)

    with monkeypatch.context() as patch:
        patch.setattr(learner, step, die)
        with pytest.raises(DiedError):
            learn_once(engine, config)
    for table in (tables.trials, tables.promotions, tables.models):
        assert rows(engine, table) == before[table.name]


def test_a_crash_between_trial_and_promotion_leaves_neither(
    engine: sa.Engine, config: LearnerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = champion(engine)
    label(engine, 40)

    def die(*_: Any, **__: Any) -> None:
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(registry, "promote", die)
        with pytest.raises(DiedError):
            learn_once(engine, config)
    assert rows(engine, tables.trials) == []
    assert champion(engine) == first
    trial = learn_once(engine, config)  # started again, it finds its work undone and does it
    assert trial is not None
    assert trial.promoted
    assert champion(engine) == trial.challenger


def test_the_same_labels_train_the_same_model(engine: sa.Engine, config: LearnerConfig) -> None:
    label(engine, 24)
    versions = {
        trial.challenger
        for trial in (learn_once(engine, config, force=True) for _ in range(2))
        if trial is not None
    }
    assert len(versions) == 1
    assert len(rows(engine, tables.trials)) == 2
    kept = {model["model_version"] for model in rows(engine, tables.models)}
    assert {path.name for path in config.models_folder.iterdir()} == kept  # and no draft


def test_training_joins_the_folder_and_the_labelled_alerts(config: LearnerConfig) -> None:
    folder_only = training_moments(config, {})
    assert set(folder_only["class_id"].to_pylist()) == set(KNOWN)
    both = training_moments(
        config, {("lsst", STREAM_ID): FLARE, ("lsst", 77): FLARE}
    )  # 77 was never seen
    added = both.filter(pc.equal(both["object_id"], STREAM_ID))
    assert both.num_rows == folder_only.num_rows + added.num_rows
    assert 0 < added.num_rows <= FAST.moments
    assert set(added["class_id"].to_pylist()) == {FLARE}
    alone = training_moments(replace(config, training_folder=None), {("lsst", STREAM_ID): FLARE})
    assert alone.to_pylist() == added.to_pylist()


def test_a_label_of_another_survey_is_no_label_of_ours(config: LearnerConfig) -> None:
    folder_only = training_moments(config, {})
    theirs = training_moments(config, {("ztf", STREAM_ID): FLARE})
    assert theirs.equals(folder_only)


def test_labels_alone_without_a_folder_need_alerts(config: LearnerConfig) -> None:
    bare = replace(config, training_folder=None)
    for current in ({}, {("lsst", 77): FLARE}):
        with pytest.raises(ConfigurationError, match="nothing to train on"):
            training_moments(bare, current)
    nowhere = replace(config, delta_folder=config.models_folder / "none yet")
    assert training_moments(nowhere, {("lsst", STREAM_ID): FLARE}).num_rows > 0


def test_no_frozen_object_is_ever_trained_on(config: LearnerConfig, tmp_path: Path) -> None:
    """Neither by a label of one, nor by a training folder that holds some."""
    frozen, points = make_sky(40, seed=2, first_id=STREAM_ID)
    write_light_curves(tmp_path / "frozen", frozen[:5], points[:0])
    objects, measured = make_sky(30, classes=KNOWN)
    shared = pa.concat_tables([objects, frozen[:1]])
    write_light_curves(tmp_path / "training", shared, measured)
    leaky = replace(
        config, frozen_folder=tmp_path / "frozen", training_folder=tmp_path / "training"
    )
    names = frozen["object_id"].to_pylist()
    moments = training_moments(leaky, {("lsst", name): FLARE for name in names[:8]})
    found = set(moments["object_id"].to_pylist())
    assert not found & set(names[:5])
    assert found & set(names[5:8]) == set(names[5:8])
    assert FIRST_ID in found
