"""Training: seeded, by object, blind to the truth, and honest about what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcurves.arrays import light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.features.table import feature_arrays
from lightcurves.folders import attach_light_curves, read_light_curves, write_light_curves
from models import training, trees
from models.artifact import Trained, save_model
from models.rows import TrainingSettings
from models.shift import LARGEST_WEIGHT, target_weights
from models.training import (
    CONTEXT_COLUMNS,
    MOMENT_COLUMNS,
    data_digest,
    early_dense,
    in_order,
    labelled,
    moments_of,
    moments_of_alerts,
    object_folds,
    train,
    training_rows,
)
from tests.sky import CLASSES, FAST, make_sky, sky_table, write_sky

TINY = replace(FAST, rounds=3, moments=2)


@pytest.fixture
def short_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten trees: what these tests show does not depend on their number."""
    monkeypatch.setattr("models.forest.N_TREES", 10)


def version(parts: Trained, folder: Path) -> str:
    return save_model(parts, folder / "model").model_version


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


@pytest.mark.usefixtures("short_forest")
def test_equal_training_gives_equal_models_in_any_order_of_rows(tmp_path: Path) -> None:
    objects, points = make_sky(40)
    write_light_curves(tmp_path / "a", objects, points)
    write_light_curves(tmp_path / "b", shuffled(objects, 1), shuffled(points, 2))
    parts = [
        train(moments_of(read_light_curves(tmp_path / name), 2), TINY) for name in ("a", "a", "b")
    ]
    assert len({version(part, tmp_path) for part in parts}) == 1
    assert len({part.training["digest"] for part in parts}) == 1


@pytest.mark.usefixtures("short_forest")
def test_cores_do_not_change_a_model(tmp_path: Path) -> None:
    moments = moments_of(sky_table(40), 2)
    one, three = (train(moments, TINY, threads=n) for n in (1, 3))
    assert version(one, tmp_path) == version(three, tmp_path)


@pytest.mark.usefixtures("short_forest")
def test_other_settings_and_other_data_give_other_models(tmp_path: Path) -> None:
    moments = moments_of(sky_table(40), 2)
    changes: list[dict[str, Any]] = [{}, {"seed": 7}, {"rounds": 4}, {"coverage": 0.8}]
    parts = [train(moments, replace(TINY, **change)) for change in changes]
    parts.append(train(moments_of(sky_table(40, seed=2), 2), TINY))
    assert len({version(part, tmp_path) for part in parts}) == len(parts)
    assert len({part.training["digest"] for part in parts}) == len(parts)


@pytest.mark.usefixtures("short_forest")
def test_truth_in_the_folder_changes_nothing(tmp_path: Path) -> None:
    plain, spiked = (write_sky(tmp_path / name, 30) for name in ("plain", "spiked"))
    for file in ("objects.parquet", "light_curves.parquet"):
        table = pq.read_table(spiked / file)
        noise = np.random.default_rng(1).normal(size=(3, table.num_rows))
        for name, column in zip(("true_z", "tflux_g", "sim_x"), noise, strict=True):
            table = table.append_column(name, pa.array(column))
        pq.write_table(table, spiked / file)
    parts = [train(moments_of(read_light_curves(folder), 2), TINY) for folder in (plain, spiked)]
    assert version(parts[0], tmp_path) == version(parts[1], tmp_path)


def test_labels_are_no_feature() -> None:
    table = sky_table(30)
    at = table.schema.get_field_index("class_id")
    other = table.set_column(at, "class_id", pa.array([111] * 30, pa.int32()))
    for a, b in zip(feature_arrays(table), feature_arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)


# -- rows ------------------------------------------------------------------------------------------


def test_an_object_lies_in_one_fold_and_classes_in_all() -> None:
    moments = moments_of(sky_table(50), 4)
    for folds in (2, 3, 5):
        options = TrainingSettings(folds=folds)
        rows = training_rows(moments, tuple(sorted(CLASSES)), options)
        fold = object_folds(rows, options)
        assert fold.size == len(np.unique(rows.owner)) == 50
        for label in range(len(CLASSES)):
            of_class = np.unique(rows.owner[rows.truth == label])
            counts = np.bincount(fold[of_class], minlength=folds)
            assert counts.max() - counts.min() <= 1


def test_an_objects_rows_weigh_1_together() -> None:
    rows = training_rows(moments_of(sky_table(20), 5), tuple(sorted(CLASSES)), FAST)
    np.testing.assert_allclose(np.bincount(rows.owner, rows.weights), 1.0)


def test_the_host_is_hidden_in_a_part_of_the_rows() -> None:
    moments = moments_of(sky_table(60), 5)
    columns = np.flatnonzero(np.isin(FAST.names, CONTEXT_COLUMNS))
    shown = training_rows(moments, tuple(sorted(CLASSES)), replace(FAST, hide_host=0.0))
    some = training_rows(moments, tuple(sorted(CLASSES)), replace(FAST, hide_host=0.5))
    none = training_rows(moments, tuple(sorted(CLASSES)), replace(FAST, hide_host=1.0))
    known = np.isfinite(shown.values[:, columns]).all(axis=1)
    assert known.mean() > 0.5
    hidden = np.isnan(some.values[known][:, columns]).all(axis=1).mean()
    assert hidden == pytest.approx(0.5, abs=0.15)
    assert np.isnan(none.values[:, columns]).all()
    rest = np.delete(np.arange(len(FAST.names)), columns)
    np.testing.assert_array_equal(some.values[:, rest], shown.values[:, rest])


def test_out_of_fold_rows_are_predicted_by_who_has_not_seen_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every boosting but one leaves the objects of a fold out, rows and all."""
    seen: list[set[int]] = []
    grow, boost = training._grow, trees.boost

    def watched(rows: Any, some: Any, *others: Any) -> Any:
        assert not set(rows.owner[some]) & set(rows.owner[~some])
        return grow(rows, some, *others)

    def spy(rows: Any, *others: Any) -> Any:
        seen.append(set(rows.owner.tolist()))
        return boost(rows, *others)

    monkeypatch.setattr("models.forest.N_TREES", 2)
    monkeypatch.setattr(training, "_grow", watched)
    monkeypatch.setattr(trees, "boost", spy)
    train(moments_of(sky_table(24), 3), replace(TINY, folds=3))
    folds = sorted(seen, key=len)  # they are trained side by side: any may begin first
    everything = folds.pop()
    assert len(folds) == 3
    assert everything == set(range(24))
    left_out = [everything - fold for fold in folds]
    assert set.union(*left_out) == everything
    assert sum(map(len, left_out)) == 24


@pytest.mark.usefixtures("short_forest")
def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    table = sky_table(40)
    labels = table["class_id"].to_pylist()
    at = table.schema.get_field_index("class_id")
    some = [None if k % 4 == k // 4 % 4 else label for k, label in enumerate(labels)]
    partly = table.set_column(at, "class_id", pa.array(some, pa.int32()))
    known = partly.filter(partly["class_id"].is_valid())
    assert 0 < known.num_rows < 40
    both = [train(moments_of(part, 2), TINY) for part in (partly, known)]
    assert both[0].training["n_objects"] == known.num_rows
    assert version(both[0], tmp_path) == version(both[1], tmp_path)


def test_rows_without_a_point_are_left_out() -> None:
    objects, points = make_sky(20)
    mute = objects["object_id"][3].as_py()
    others = points.filter(pa.array([name != mute for name in points["object_id"].to_pylist()]))
    moments = moments_of(attach_light_curves(objects, others), 3)
    rows = training_rows(moments, tuple(sorted(CLASSES)), FAST)
    assert len(np.unique(rows.owner)) == 19


def test_a_class_needs_as_many_objects_as_folds() -> None:
    table = sky_table(9)  # 3, 2, 2, 2
    kept, classes = labelled(moments_of(table, 2), 2)
    assert classes == tuple(sorted(CLASSES))
    assert set(kept["class_id"].to_pylist()) == set(CLASSES)
    with pytest.raises(ConfigurationError, match="at least 2 classes with 3 labelled objects each"):
        labelled(moments_of(table, 2), 3)


@pytest.mark.parametrize("classes", [(111,), (111, 111)], ids=["one class", "one class, twice"])
def test_one_class_is_no_question(classes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="training needs at least 2 classes"):
        train(moments_of(sky_table(20, classes=classes)), TINY)


def test_training_without_labels_says_what_it_needs() -> None:
    table = sky_table(8)
    nameless = moments_of(table, 2).drop_columns(["class_id"])
    with pytest.raises(ConfigurationError, match="needs objects with a class_id"):
        train(nameless, TINY)
    at = table.schema.get_field_index("class_id")
    unlabelled = table.set_column(at, "class_id", pa.nulls(8, pa.int32()))
    with pytest.raises(ConfigurationError, match="at least 2 classes"):
        train(moments_of(unlabelled, 2), TINY)


@pytest.mark.usefixtures("short_forest")
def test_progress_is_told_in_order() -> None:
    told: list[tuple[str, float]] = []
    train(moments_of(sky_table(16), 2), TINY, lambda what, done: told.append((what, done)))
    assert [done for _, done in told] == sorted(done for _, done in told)
    assert all(0 <= done < 1 for _, done in told)
    assert any("fold 1" in what for what, _ in told)


# -- moments ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3_000), st.integers(1, 12))
def test_early_moments_are_dense(n: int, at_most: int) -> None:
    steps = early_dense(n, at_most)
    assert 1 <= steps.size <= at_most
    assert steps[0] == 0
    assert steps[-1] == (n - 1 if at_most > 1 else 0)
    assert (np.diff(steps) > 0).all()
    if n > at_most > 3:
        assert np.diff(steps)[0] <= np.diff(steps)[-1]


def test_a_moment_is_what_was_known_then() -> None:
    table = sky_table(10)
    moments = moments_of(table, 4)
    assert tuple(moments.column_names) == MOMENT_COLUMNS
    whole = {row["object_id"]: row["light_curve"] for row in table.to_pylist()}
    for row in moments.to_pylist():
        full = whole[row["object_id"]]
        times = [point["t_mjd_tai"] for point in full]
        for point in row["light_curve"]:
            twin = full[times.index(point["t_mjd_tai"])]
            assert point | {"kind": None} == twin | {"kind": None}
    counts = np.bincount(np.unique(moments["object_id"].to_numpy(), return_inverse=True)[1])
    assert (counts >= 2).all()
    assert counts.max() == 5  # four moments and the whole


def test_alerts_become_the_same_rows_in_any_order() -> None:
    table = moments_of(sky_table(6), 5)[:-6]  # without the whole light curves
    t = [curve[-1]["t_mjd_tai"] for curve in table["light_curve"].to_pylist()]
    alerts = table.append_column("t_mjd_tai", pa.array(t))
    alerts = alerts.drop_columns(["host_z_phot", "host_z_phot_err", "mw_ebv"])
    chosen = moments_of_alerts(alerts, 3)
    assert tuple(chosen.column_names) == MOMENT_COLUMNS
    assert (
        in_order(moments_of_alerts(shuffled(alerts, 3), 3)).to_pylist()
        == in_order(chosen).to_pylist()
    )
    assert chosen["host_z_phot"].null_count == chosen.num_rows
    counts = np.bincount(np.unique(chosen["object_id"].to_numpy(), return_inverse=True)[1])
    assert counts.max() <= 3


def test_the_digest_is_of_the_data_and_nothing_else() -> None:
    moments = in_order(moments_of(sky_table(10), 3))
    digest = data_digest(moments, FAST)
    assert digest == data_digest(in_order(shuffled(moments, 1)), FAST)
    at = moments.schema.get_field_index("class_id")
    labels = moments["class_id"].to_pylist()
    for k in (0, 7):
        other = [*labels[:k], 113, *labels[k + 1 :]]
        assert (
            data_digest(moments.set_column(at, "class_id", pa.array(other, pa.int32())), FAST)
            != digest
        )
    assert data_digest(moments[1:], FAST) != digest
    assert data_digest(moments, replace(FAST, seed=1)) != digest
    curves = light_curves_of(moments)
    brighter = replace(curves, flux_njy=curves.flux_njy * np.float32(1.0001))
    owner = np.arange(moments.num_rows)
    assert data_digest(training.with_light_curves(moments, brighter, owner), FAST) != digest


# -- a target --------------------------------------------------------------------------------------


def fainter(table: pa.Table) -> pa.Table:
    """The same objects, four times as far away."""
    curves = light_curves_of(table)
    faint = replace(curves, flux_njy=curves.flux_njy / np.float32(16))
    return training.with_light_curves(table, faint, np.arange(table.num_rows))


@pytest.mark.usefixtures("short_forest")
def test_a_target_weighs_calibration_and_leaves_the_trees_alone() -> None:
    moments = moments_of(sky_table(80), 3)
    target = moments_of(fainter(sky_table(40, seed=3, first_id=2**61)), 3)
    plain, aimed, again = (train(moments, FAST, target=t) for t in (None, target, target))
    of_plain, of_aimed, of_again = (
        {part.kind: part.pack() for part in model.parts} for model in (plain, aimed, again)
    )
    assert of_aimed["lightgbm"] == of_plain["lightgbm"]
    assert of_aimed["vector_scaling"] != of_plain["vector_scaling"]
    assert of_aimed == of_again
    at = target.schema.get_field_index("class_id")
    lied = target.set_column(at, "class_id", pa.array([111] * target.num_rows, pa.int32()))
    of_lied = {part.kind: part.pack() for part in train(moments, FAST, target=lied).parts}
    assert of_lied == of_aimed


def test_rows_like_the_target_weigh_more() -> None:
    chance = np.random.default_rng(1)
    labelled_rows = chance.normal(size=(600, 3))
    target = chance.normal(size=(600, 3)) + np.array([1.5, 0, 0])
    fold = np.arange(600) % 3
    weights = target_weights(labelled_rows, fold, target, seed=1)
    assert weights.mean() == pytest.approx(1)
    assert weights.max() / weights.min() <= LARGEST_WEIGHT**2 + 1e-9
    assert np.corrcoef(weights, labelled_rows[:, 0])[0, 1] > 0.6
    assert abs(np.corrcoef(weights, labelled_rows[:, 1])[0, 1]) < 0.2
    same = target_weights(labelled_rows, fold, chance.normal(size=(600, 3)), seed=1)
    assert same.std() < 0.5 * weights.std()
