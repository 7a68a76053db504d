"""Scores: one row for each row, the same however the rows come, null with a reason and never 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcurves.alerts import read_alerts
from lightcurves.features.registry import FEATURE_DIGEST
from lightcurves.folders import attach_light_curves
from models.artifact import save_model
from models.evaluation import evaluate
from models.inputs import Inputs
from models.scoring import Model, load_model
from models.training import moments_of, train
from simulator.packets import SimulatedAlerts
from tests.sky import CLASSES, FAST, FLARE, PULSATOR, make_sky, sky_table, trained

SCORES = ("novelty", "novelty_far", "entropy", "margin")


@pytest.fixture(scope="module")
def alerts() -> pa.Table:
    """Alerts of a made-up night, with rejected ones, solar system objects and orphans among them."""
    packets = list(SimulatedAlerts(sky_table(12, seed=5)))[:60]
    return read_alerts([b"", *packets[:30], packets[0][:99], *packets[30:], b"\0\0\0\0\1"])


def with_ids(alerts: pa.Table, object_id: int | None, ss_object_id: int | None) -> pa.Table:
    """The same alerts under other identifiers."""
    for name, value in (("object_id", object_id), ("ss_object_id", ss_object_id)):
        column = pa.array([value] * alerts.num_rows, pa.int64())
        alerts = alerts.set_column(alerts.schema.get_field_index(name), name, column)
    return alerts


def readable(alerts: pa.Table) -> pa.Table:
    return alerts.filter(alerts["reject_reason"].is_null())


def test_a_score_has_all_that_is_promised(model: Model, unseen: pa.Table) -> None:
    table = model.score(unseen)
    classes = [f"p_{name}" for name in model.manifest.class_ids]
    assert table.column_names == [
        "object_id", *classes, "prediction_set", *SCORES, "reason", "model_version", "feature_digest",
        "days_since_first_detection", "raw_entropy",
    ]  # fmt: skip
    assert table["object_id"].equals(unseen["object_id"])
    assert table["reason"].null_count == table.num_rows
    p = np.column_stack([table[name].to_numpy() for name in classes])
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (p > 0).all()
    ages = table["days_since_first_detection"].to_numpy()
    np.testing.assert_array_equal(ages, Inputs(unseen).ages())
    top = np.sort(p, axis=1)
    np.testing.assert_allclose(table["margin"].to_numpy(), top[:, -1] - top[:, -2])
    np.testing.assert_allclose(table["entropy"].to_numpy(), -np.sum(p * np.log(p), axis=1))
    for name in ("novelty", "novelty_far"):
        values = table[name].to_numpy()
        assert ((values >= 0) & (values <= 1)).all()
    assert set(table["model_version"].to_pylist()) == {model.manifest.model_version}
    assert set(table["feature_digest"].to_pylist()) == {FEATURE_DIGEST}


def test_sets_hold_the_likeliest_and_all_above_the_threshold(
    model: Model, unseen: pa.Table
) -> None:
    for row in model.score(unseen).to_pylist():
        p = {name: row[f"p_{name}"] for name in model.manifest.class_ids}
        likely = {name for name, value in p.items() if value >= model.only("sets").threshold}
        assert set(row["prediction_set"]) == likely | {max(p, key=lambda name: p[name])}
        assert row["prediction_set"] == sorted(row["prediction_set"])


def test_the_model_has_learnt_something(model: Model, unseen: pa.Table) -> None:
    found = evaluate(model.score(unseen), unseen.select(["object_id", "class_id"]))
    assert found["log_loss"] < 0.8 * np.log(4)
    assert found["macro_f1"] > 0.7
    assert found["coverage"] == pytest.approx(0.9, abs=0.1)


def test_what_no_class_explains_is_novel(tmp_path: Path) -> None:
    """A model that has never seen flares finds them stranger than what it knows."""
    others = sky_table(80, classes=tuple(c for c in CLASSES if c != FLARE))
    save_model(train(moments_of(others, FAST.moments), FAST), tmp_path)
    everything = sky_table(80, seed=7)
    scores = load_model(tmp_path).score(everything)
    found = evaluate(scores, everything.select(["object_id", "class_id"]))
    assert found["novelty_auroc"] > 0.65
    assert set(found["novelty_auroc_by_class"]) == {"M-dwarf flare"}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_and_any_order_give_the_same_bits(
    data: st.DataObject, model: Model, alerts: pa.Table
) -> None:
    n = alerts.num_rows
    expected = model.score(alerts).to_pylist()
    order = data.draw(st.permutations(range(n)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    shuffled = alerts.take(pa.array(order))
    rows: list[dict[str, Any]] = []
    for low, high in zip([0, *cuts], [*cuts, n], strict=True):
        rows += model.score(shuffled[low:high]).to_pylist()
    assert rows == [expected[at] for at in order]


def test_the_input_is_not_changed(model: Model, alerts: pa.Table) -> None:
    before = alerts.to_pylist()
    first = model.score(alerts)
    assert alerts.to_pylist() == before
    assert model.score(alerts).equals(first)


def test_truth_never_reaches_a_score(model: Model, unseen: pa.Table) -> None:
    expected = model.score(unseen)
    n = unseen.num_rows
    for name in ("true_z", "tflux_g", "sim_x", "p_111", "target"):
        unseen = unseen.append_column(name, pa.array(np.random.default_rng(1).normal(size=n)))
    relabelled = unseen.set_column(
        unseen.schema.get_field_index("class_id"), "class_id", pa.array([PULSATOR] * n, pa.int32())
    )
    for other in (unseen, relabelled, unseen.drop_columns(["class_id"])):
        assert model.score(other).equals(expected)


def check_null(row: dict[str, Any], reason: str) -> None:
    given = {name: value for name, value in row.items() if value is not None}
    ids = {"object_id", "dia_source_id", "model_version", "feature_digest"}
    age = {"days_since_first_detection"}  # known of whatever has a usable point
    assert set(given) - ids - age == {"reason"}
    assert given["reason"] == reason


def test_rejected_packets_keep_their_reason_and_have_no_score(
    model: Model, alerts: pa.Table
) -> None:
    rows = model.score(alerts).to_pylist()
    reasons = alerts["reject_reason"].to_pylist()
    assert {"empty_message", "truncated", "unknown_schema"} < set(reasons)
    for row, reason in zip(rows, reasons, strict=True):
        if reason is None:
            assert row["reason"] is None
            assert row["novelty"] is not None
        else:
            check_null(row, reason)
            assert row["days_since_first_detection"] is None


@pytest.mark.parametrize(
    ("object_id", "ss_object_id", "reason"),
    [
        (0, 7, "solar_system_object"),
        (None, 7, "solar_system_object"),
        (0, 0, "no_object"),
        (None, None, "no_object"),
        (5, 7, None),
        (5, 0, None),
        (5, None, None),
    ],
)
def test_what_belongs_to_no_object_is_not_scored(
    model: Model, alerts: pa.Table, object_id: int | None, ss_object_id: int | None, reason: str | None
) -> None:  # fmt: skip
    some = with_ids(readable(alerts)[:4], object_id, ss_object_id)
    for row in model.score(some).to_pylist():
        if reason is None:
            assert row["reason"] is None
        else:
            check_null(row, reason)


def test_an_object_without_a_usable_point_is_not_scored(model: Model) -> None:
    objects, points = make_sky(3, seed=8)
    nothing = pa.array(np.full(points.num_rows, np.nan, np.float32))
    broken = attach_light_curves(objects, points.set_column(3, "flux_njy", nothing))
    empty = attach_light_curves(objects, points[:0])
    for table in (broken, empty):
        for row in model.score(table).to_pylist():
            check_null(row, "no_finite_flux")


def test_one_point_is_enough(model: Model) -> None:
    objects, points = make_sky(1, seed=8)
    row = model.score(attach_light_curves(objects, points[:1])).to_pylist()[0]
    assert row["reason"] is None
    assert row["entropy"] > 0


def test_a_host_may_be_unknown(model: Model, unseen: pa.Table) -> None:
    names = ["host_z_phot", "host_z_phot_err", "mw_ebv", "ra_deg", "dec_deg"]
    bare = model.score(unseen.drop_columns(names))
    assert bare["reason"].null_count == unseen.num_rows
    nulls = unseen
    for name in names:
        at = nulls.schema.get_field_index(name)
        nulls = nulls.set_column(at, name, pa.nulls(nulls.num_rows, pa.float64()))
    assert model.score(nulls).equals(bare)
    assert not model.score(unseen).equals(bare)


def test_no_rows_are_an_empty_table(model: Model, unseen: pa.Table, alerts: pa.Table) -> None:
    for table in (unseen, alerts):
        empty, some = model.score(table[:0]), model.score(table[:2])
        assert empty.num_rows == 0
        assert empty.schema == some.schema


def test_a_loaded_model_is_the_trained_one(model: Model) -> None:
    assert model.manifest.class_ids == trained().class_ids
