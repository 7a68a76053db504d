"""The gate: only what is proven better on objects nobody trained on passes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from active_learning.gate import FEWEST_OBJECTS, bootstrap_lower, compare
from lightcurves.errors import ConfigurationError
from models.scoring import Model, Scores

CLASSES = (111, 112, 113)


class Oracle(Model):
    """A model whose probabilities are given: how much the true class gets, row by row."""

    def __init__(self, class_ids: tuple[int, ...], p_true: NDArray[np.float64]) -> None:
        manifest: Any = Named(class_ids)
        super().__init__(manifest, ())
        object.__setattr__(self, "p_true", p_true)

    def score_arrays(self, table: pa.Table) -> Scores:
        labels = table["class_id"].to_pylist()
        class_ids = self.manifest.class_ids
        p_true: NDArray[np.float64] = self.__dict__["p_true"][: len(labels)]
        p = np.empty((len(labels), len(class_ids)))
        for row, label in enumerate(labels):
            if label in class_ids:
                p[row] = (1 - p_true[row]) / (len(class_ids) - 1)
                p[row, class_ids.index(label)] = p_true[row]
            else:
                p[row] = 1 / len(class_ids)
        p[np.isnan(p_true)] = np.nan
        empty: Any = None
        return Scores(empty, p, empty, {}, empty)


class Named:
    """What the gate reads of a manifest."""

    def __init__(self, class_ids: tuple[int, ...]) -> None:
        self.class_ids = class_ids


def frozen(n_objects: int, rows_each: int = 3, classes: tuple[int, ...] = CLASSES) -> pa.Table:
    ids = np.repeat(2**60 + np.arange(n_objects), rows_each)
    labels = np.repeat(np.resize(np.array(classes), n_objects), rows_each)
    return pa.table({"object_id": ids, "class_id": pa.array(labels, pa.int32())})


def given(table: pa.Table, p: float, spread: float = 0.1, seed: int = 1) -> NDArray[np.float64]:
    """Probabilities of the true class around `p`, alike for an object's rows."""
    chance = np.random.default_rng(seed)
    _, owner = np.unique(table["object_id"].to_numpy(), return_inverse=True)
    of_object = np.clip(p + chance.uniform(-spread, spread, owner.max() + 1), 0.02, 0.98)
    return np.asarray(of_object[owner])


def gate(old: Model, new: Model, table: pa.Table, seed: int = 1) -> Any:
    return compare(old, new, table, confidence=0.9, seed=seed)


def test_a_better_model_passes() -> None:
    table = frozen(90)
    found = gate(Oracle(CLASSES, given(table, 0.5)), Oracle(CLASSES, given(table, 0.7)), table)
    assert found.passed
    assert 0 < found.gain_lower < found.gain
    assert found.n_objects == 90
    assert found.gain == pytest.approx(found.champion_log_loss - found.challenger_log_loss)


def test_an_equal_model_never_passes() -> None:
    for seed in range(20):
        table = frozen(60)
        same = Oracle(CLASSES, given(table, 0.6, seed=seed))
        found = gate(same, same, table, seed)
        assert found.gain == found.gain_lower == 0.0
        assert not found.passed


def test_a_worse_model_never_passes() -> None:
    for seed in range(20):
        table = frozen(60)
        old, new = (Oracle(CLASSES, given(table, p, seed=seed)) for p in (0.7, 0.6))
        assert not gate(old, new, table, seed).passed


def test_chance_passes_no_more_often_than_it_may() -> None:
    """Two models that are equally good on the whole, each better on other objects."""
    passed = 0
    for seed in range(300):
        table = frozen(60, rows_each=1)
        old, new = (Oracle(CLASSES, given(table, 0.6, 0.3, seed + k)) for k in (0, 10_000))
        passed += gate(old, new, table).passed
    assert passed / 300 < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)
    assert passed > 0


def test_few_objects_prove_nothing() -> None:
    for n in (1, 2, 5, FEWEST_OBJECTS - 1):
        table = frozen(n, rows_each=50)
        old, new = (Oracle(CLASSES, np.full(50 * n, p)) for p in (0.1, 0.9))
        found = gate(old, new, table)
        assert found.gain > 1
        assert not found.passed
    table = frozen(FEWEST_OBJECTS)
    old, new = (Oracle(CLASSES, np.full(3 * FEWEST_OBJECTS, p)) for p in (0.1, 0.9))
    assert gate(old, new, table).passed


def test_many_moments_of_an_object_are_one_proof() -> None:
    """One object gains on a thousand moments, the others lose a little."""
    table = pa.concat_tables([frozen(1, 1_000), frozen(60, 1)[1:]])
    p_new = np.where(np.arange(table.num_rows) < 1_000, 0.95, 0.55)
    old = Oracle(CLASSES, np.full(table.num_rows, 0.6))
    found = gate(old, Oracle(CLASSES, p_new), table)
    assert found.n_objects == 60
    assert not found.passed


def test_an_unknown_class_costs_the_floor() -> None:
    table = frozen(60, rows_each=1)
    full = Oracle(CLASSES, np.full(60, 0.5))
    blind = Oracle(CLASSES[:2], np.full(60, 0.5))
    found = gate(blind, full, table)
    assert found.champion_log_loss == pytest.approx((2 * np.log(2) - np.log(0.001)) / 3)
    assert found.challenger_log_loss == pytest.approx(np.log(2))
    assert found.passed
    assert not gate(full, blind, table).passed


def test_a_class_may_not_be_given_up_for_the_others() -> None:
    """The log-loss gains, but one class of three is never guessed any more."""
    table = frozen(90, rows_each=1)
    third = np.array(table["class_id"].to_pylist()) == 113
    old = Oracle(CLASSES, np.full(90, 0.55))
    new = Oracle(CLASSES, np.where(third, 0.30, 0.98))
    found = gate(old, new, table)
    assert found.gain_lower > 0
    assert found.challenger_macro_f1 < found.champion_macro_f1 - 0.02
    assert not found.passed


def test_what_one_model_cannot_score_is_left_out_for_both() -> None:
    table = frozen(60, rows_each=1)
    p = given(table, 0.7)
    holes = np.where(np.arange(60) < 20, np.nan, p)
    found = gate(Oracle(CLASSES, given(table, 0.5)), Oracle(CLASSES, holes), table)
    assert found.n_objects == 40


def test_nothing_to_compare_on_is_said() -> None:
    table = frozen(3)
    mute = Oracle(CLASSES, np.full(9, np.nan))
    for old, new, rows in ((mute, mute, table), (mute, mute, table[:0])):
        with pytest.raises(ConfigurationError, match="no object of the frozen set can be scored"):
            gate(old, new, rows)


def test_objects_without_a_class_are_left_out() -> None:
    table = frozen(60, rows_each=1)
    labels = [None if k >= 40 else c for k, c in enumerate(table["class_id"].to_pylist())]
    partly = table.set_column(1, "class_id", pa.array(labels, pa.int32()))
    old, new = (Oracle(CLASSES, np.full(60, p)) for p in (0.5, 0.7))
    assert gate(old, new, partly) == gate(old, new, table[:40])


def test_the_bootstrap_is_seeded_and_ordered() -> None:
    gains = np.random.default_rng(1).normal(0.05, 0.2, 100)
    assert bootstrap_lower(gains, 0.9, 7) == bootstrap_lower(gains, 0.9, 7)
    assert bootstrap_lower(gains, 0.9, 7) != bootstrap_lower(gains, 0.9, 8)
    bounds = [bootstrap_lower(gains, confidence, 7) for confidence in (0.5, 0.8, 0.95, 0.99)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == pytest.approx(gains.mean(), abs=0.01)
    expected = gains.mean() - 1.645 * gains.std() / 10
    assert bounds[2] == pytest.approx(expected, abs=0.008)


def test_the_findings_fit_into_a_row_of_the_database() -> None:
    table = frozen(30)
    found = gate(Oracle(CLASSES, given(table, 0.5)), Oracle(CLASSES, given(table, 0.7)), table)
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
