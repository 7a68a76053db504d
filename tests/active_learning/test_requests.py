"""Choosing what to ask: within the budget, each object once, the worthiest first."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from active_learning.requests import (
    CANDIDATE_COLUMNS,
    RequestPolicy,
    candidates_of,
    choose_requests,
    wishes_of,
)
from active_learning.strategies import STRATEGIES, strategy_of
from active_learning.strategies.entropy import EntropyStrategy
from active_learning.strategies.margin import MarginStrategy
from lightcurves.errors import ConfigurationError
from models.record import RECORD
from store.keys import keys_of

LAW = settings(max_examples=150, deadline=None)
THRESHOLDS = {"min_entropy": 0.2, "max_margin": 0.5}
POLICY = RequestPolicy(EntropyStrategy(0.0), nightly_budget=5, min_points=3)
NIGHTS = (60000, 60001)
USUAL: tuple[Any, ...] = (60000, "lsst", 0.2)
FIELDS: list[Any] = [(field.name, field.arrow) for field in RECORD]
FIELDS.append(("healpix", pa.int64()))
SCHEMA = pa.schema(FIELDS)


def made(rows: list[tuple[Any, ...]]) -> pa.Table:
    """Candidates of (object, entropy, points, night, survey, margin); the last three may be left out."""
    alerts = []
    for k, row in enumerate(rows):
        name, entropy, points, night, survey, margin = (*row, *USUAL[len(row) - 3 :])
        alerts.append(
            {
                "dia_source_id": 100 + k, "object_id": name, "survey": survey, "t_mjd_tai": night + 0.9,
                "n_points": points, "entropy": entropy, "margin": margin, "probability": 0.6,
                "ra_deg": 10.0, "dec_deg": -20.0, "healpix": 17, "model_version": "m1",
            }
        )  # fmt: skip
    return candidates_of(pa.Table.from_pylist(alerts, schema=SCHEMA))


def choose(some: pa.Table, policy: RequestPolicy, asked: Any, spent: Any) -> pa.Table:
    rows = some.drop_columns(["night"])
    return choose_requests(wishes_of(rows, policy), asked, spent)


def candidates() -> st.SearchStrategy[pa.Table]:
    uncertain = st.sampled_from((0.0, 0.2, 0.2, 0.7, 1.3, None))
    margin = st.sampled_from((0.0, 0.1, 0.1, 0.6, None))
    survey = st.sampled_from(("lsst", "lsst", "ztf"))
    row = st.tuples(
        st.integers(1, 9), uncertain, st.integers(0, 6), st.sampled_from(NIGHTS), survey, margin
    )
    return st.lists(row, max_size=25).map(made)


def policies() -> st.SearchStrategy[RequestPolicy]:
    strategies = st.sampled_from(sorted(STRATEGIES)).map(lambda name: strategy_of(name, THRESHOLDS))
    return st.builds(RequestPolicy, strategies, st.integers(-2, 12), st.integers(0, 5))


ASKED = st.frozensets(st.tuples(st.just("lsst"), st.integers(1, 9)), max_size=4)
SPENT = st.dictionaries(st.sampled_from(NIGHTS), st.integers(0, 6))


@LAW
@given(candidates(), policies(), ASKED, SPENT)
def test_every_choice_obeys_every_rule(
    some: pa.Table, policy: RequestPolicy, asked: frozenset[Any], spent: dict[int, int]
) -> None:
    chosen = choose(some, policy, asked, spent)
    keys = keys_of(chosen, "object_id")
    assert len(set(keys)) == len(keys)
    assert not set(keys) & asked
    nights = chosen["night"].to_numpy()
    assert (np.diff(nights) >= 0).all()
    worth = dict(
        zip(some["dia_source_id"].to_pylist(), policy.strategy.worth(some).utility, strict=True)
    )
    points = dict(zip(some["dia_source_id"].to_pylist(), some["n_points"].to_pylist(), strict=True))
    for night in np.unique(nights):
        tonight = chosen.filter(pa.array(nights == night))
        assert tonight.num_rows <= max(policy.nightly_budget - spent.get(int(night), 0), 0)
        assert (np.diff(tonight["utility"].to_numpy()) <= 0).all()
    for row in chosen.to_pylist():
        assert row["utility"] == worth[row["dia_source_id"]]
        assert points[row["dia_source_id"]] >= policy.min_points
        assert (row["program"], row["strategy"]) == ("noctule", policy.strategy.name)
        assert row["why"].startswith(policy.strategy.name)


@LAW
@given(candidates(), policies(), ASKED, SPENT)
def test_nothing_worthier_is_left_out(
    some: pa.Table, policy: RequestPolicy, asked: frozenset[Any], spent: dict[int, int]
) -> None:
    """The twin: night by night, each object's best, sorted, as many as the budget has left."""
    utility = policy.strategy.worth(some).utility.tolist()
    taken, order = set(asked), []
    for night in NIGHTS:
        best: dict[Any, float] = {}
        for row, key, value in zip(
            some.to_pylist(), keys_of(some, "object_id"), utility, strict=True
        ):
            may = key not in taken and row["n_points"] >= policy.min_points
            if may and row["night"] == night and value == value:  # noqa: PLR0124 - NaN
                best[key] = max(value, best.get(key, value))
        left = max(policy.nightly_budget - spent.get(night, 0), 0)
        wanted = sorted(best, key=lambda key: (-best[key], key[1]))
        values = [best[key] for key in wanted[:left]]
        order += values
        got = choose(some, policy, asked, spent)
        mine = got.filter(pa.array(got["night"].to_numpy() == night))
        assert mine["utility"].to_pylist() == values
        taken |= set(keys_of(mine, "object_id"))
    assert len(order) == got.num_rows


@LAW
@given(st.data(), candidates(), policies(), ASKED)
def test_the_order_of_the_candidates_does_not_matter(
    data: st.DataObject, some: pa.Table, policy: RequestPolicy, asked: frozenset[Any]
) -> None:
    order = data.draw(st.permutations(range(some.num_rows)))
    mixed = some.take(pa.array(order, pa.int64()))
    chosen = [choose(c, policy, asked, {}).to_pylist() for c in (some, mixed)]
    assert chosen[0] == chosen[1]


@LAW
@given(candidates(), policies(), ASKED)
def test_asking_spends_nothing_and_changes_nothing(
    some: pa.Table, policy: RequestPolicy, asked: frozenset[Any]
) -> None:
    before = some.to_pylist()
    first = choose(some, policy, asked, {})
    assert choose(some, policy, asked, {}).equals(first)
    assert repr(some.to_pylist()) == repr(before)


@LAW
@given(candidates(), policies(), ASKED, st.integers(0, 6))
def test_a_night_in_parts_asks_what_a_whole_one_does(
    some: pa.Table, policy: RequestPolicy, asked: frozenset[Any], cut: int
) -> None:
    some = some.filter(pa.array(some["night"].to_numpy() == NIGHTS[0]))
    whole = choose(some, policy, asked, {})
    first = choose(some, replace(policy, nightly_budget=min(cut, policy.nightly_budget)), asked, {})
    spent = {NIGHTS[0]: first.num_rows}
    rest = choose(some, policy, asked | set(keys_of(first, "object_id")), spent)
    assert keys_of(first, "object_id") + keys_of(rest, "object_id") == keys_of(whole, "object_id")


def test_entropy_asks_where_the_model_is_least_sure() -> None:
    some = made([(1, 0.1, 9), (2, 0.9, 9), (3, 0.5, 9), (4, None, 9)])
    chosen = choose(some, replace(POLICY, nightly_budget=2), frozenset(), {})
    assert chosen["object_id"].to_pylist() == [2, 3]
    assert chosen["why"][0].as_py() == "entropy 0.90 nats, likeliest class 60%"
    picky = replace(POLICY, strategy=EntropyStrategy(0.5))
    assert choose(some, picky, frozenset(), {})["object_id"].to_pylist() == [2, 3]


def test_margin_asks_where_two_classes_contend() -> None:
    rows: list[tuple[Any, ...]] = [
        (1, 0.9, 9, 60000, "lsst", 0.5),
        (2, 0.1, 9, 60000, "lsst", 0.02),
    ]
    rows += [(3, 0.5, 9, 60000, "lsst", 0.1), (4, 0.5, 9, 60000, "lsst", None)]
    policy = replace(POLICY, strategy=MarginStrategy(0.3))
    chosen = choose(made(rows), policy, frozenset(), {})
    assert chosen["object_id"].to_pylist() == [2, 3]
    assert chosen["utility"].to_pylist() == [0.98, 0.9]
    assert chosen["why"][0].as_py() == "margin 0.02 between the two likeliest classes, 60% and 58%"


def test_what_nobody_can_point_at_is_no_candidate() -> None:
    some = made([(1, 0.9, 9)])
    for name, value in (
        ("object_id", None),
        ("reason", "no_object"),
        ("healpix", None),
        ("t_mjd_tai", 1e300),
        ("t_mjd_tai", -1.0),
    ):
        column = pa.array([value], SCHEMA.field(name).type)
        changed = some.drop_columns(["night"]).set_column(
            SCHEMA.get_field_index(name), name, column
        )
        assert candidates_of(changed).num_rows == 0, name
    assert set(some.column_names) == set(CANDIDATE_COLUMNS)


def test_identifiers_are_not_rounded() -> None:
    """Two identifiers beyond 2**53 that a double could not tell apart."""
    some = made([(2**60, 0.9, 9), (2**60 + 1, 0.8, 9)])
    asked = frozenset({("lsst", 2**60 + 1)})
    assert choose(some, POLICY, frozenset(), {}).num_rows == 2
    assert choose(some, POLICY, asked, {})["object_id"].to_pylist() == [2**60]


def test_nobody_to_ask_is_an_empty_choice() -> None:
    assert choose(made([]), POLICY, frozenset(), {}).num_rows == 0


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no strategy 'luck': choose one of entropy, margin"
    ):
        strategy_of("luck", THRESHOLDS)


def test_every_strategy_owns_its_thresholds() -> None:
    for name, kind in STRATEGIES.items():
        made_of = strategy_of(name, THRESHOLDS)
        assert made_of.name == name == kind.name
        assert all(getattr(made_of, f.name) == THRESHOLDS[f.name] for f in fields(kind))
