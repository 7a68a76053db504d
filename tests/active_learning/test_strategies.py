"""Choosing what to ask: within the budget, each object once, the worthiest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from active_learning.strategies import STRATEGIES, Candidates, choose
from lightcurves.errors import ConfigurationError

LAW = settings(max_examples=150, deadline=None)
USUAL: dict[str, Any] = {
    "strategy": "entropy", "budget": 5, "min_points": 3, "min_utility": 0.0, "asked": frozenset(),
}  # fmt: skip


def made(rows: list[tuple[int, float, int]]) -> Candidates:
    """Candidates of (object, entropy, points)."""
    n = len(rows)
    return Candidates(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64),
        np.full(n, 0.5),
        np.full(n, 0.5),
        np.array([row[2] for row in rows], np.int64),
    )


def candidates() -> st.SearchStrategy[Candidates]:
    entropy = st.sampled_from((0.0, 0.2, 0.2, 0.7, 1.3, float("nan")))
    return st.lists(st.tuples(st.integers(1, 9), entropy, st.integers(0, 6)), max_size=25).map(made)


def options() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "strategy": st.sampled_from(sorted(STRATEGIES)),
            "budget": st.integers(-2, 12),
            "min_points": st.integers(0, 5),
            "min_utility": st.sampled_from((0.0, 0.2, 0.5)),
            "asked": st.frozensets(st.integers(1, 9), max_size=4),
        }
    )


@LAW
@given(candidates(), options())
def test_every_choice_obeys_every_rule(some: Candidates, wanted: dict[str, Any]) -> None:
    utility = STRATEGIES[wanted["strategy"]](some)
    rows = choose(some, **wanted)
    assert len(rows) <= max(wanted["budget"], 0)
    names = some.object_id[rows].tolist()
    assert len(set(names)) == len(names)
    assert not set(names) & wanted["asked"]
    assert (some.n_points[rows] >= wanted["min_points"]).all()
    assert (utility[rows] >= wanted["min_utility"]).all()
    assert (np.diff(utility[rows]) <= 0).all()


@LAW
@given(candidates(), options())
def test_nothing_worthier_is_left_behind(some: Candidates, wanted: dict[str, Any]) -> None:
    """The twin: sort what may be asked, take each object's best row, as many as the budget has."""
    utility = STRATEGIES[wanted["strategy"]](some).tolist()
    best: dict[int, float] = {}
    for name, value, n in zip(
        some.object_id.tolist(), utility, some.n_points.tolist(), strict=True
    ):
        may = name not in wanted["asked"] and n >= wanted["min_points"]
        if may and value >= wanted["min_utility"]:
            best[name] = max(value, best.get(name, value))
    order = sorted(best, key=lambda name: (-best[name], name))[: max(wanted["budget"], 0)]
    rows = choose(some, **wanted)
    assert some.object_id[rows].tolist() == order
    assert [utility[row] for row in rows] == [best[name] for name in order]


@LAW
@given(st.data(), candidates(), options())
def test_the_order_of_the_candidates_does_not_matter(
    data: st.DataObject, some: Candidates, wanted: dict[str, Any]
) -> None:
    order = np.array(data.draw(st.permutations(range(len(some.object_id)))), np.int64)
    columns: list[Any] = [column[order] for column in some]
    mixed = Candidates(*columns)
    chosen = [c.object_id[choose(c, **wanted)].tolist() for c in (some, mixed)]
    assert chosen[0] == chosen[1]


@LAW
@given(candidates(), options())
def test_asking_spends_nothing_and_changes_nothing(
    some: Candidates, wanted: dict[str, Any]
) -> None:
    before = [column.copy() for column in some]
    first = choose(some, **wanted)
    np.testing.assert_array_equal(choose(some, **wanted), first)
    for column, copy in zip(some, before, strict=True):
        np.testing.assert_array_equal(column, copy)


@LAW
@given(candidates(), options(), st.integers(0, 6))
def test_a_night_in_parts_asks_what_a_whole_one_does(
    some: Candidates, wanted: dict[str, Any], cut: int
) -> None:
    whole = some.object_id[choose(some, **wanted)].tolist()
    first = some.object_id[
        choose(some, **{**wanted, "budget": min(cut, wanted["budget"])})
    ].tolist()
    rest = {
        **wanted,
        "budget": wanted["budget"] - len(first),
        "asked": wanted["asked"] | set(first),
    }
    assert first + some.object_id[choose(some, **rest)].tolist() == whole


def test_entropy_asks_where_the_model_is_least_sure() -> None:
    some = made([(1, 0.1, 9), (2, 0.9, 9), (3, 0.5, 9), (4, float("nan"), 9)])
    assert choose(some, **{**USUAL, "budget": 2}).tolist() == [1, 2]
    assert choose(some, **USUAL).tolist() == [1, 2, 0]


def test_identifiers_are_not_rounded() -> None:
    """Two identifiers beyond 2**53 that a double could not tell apart."""
    some = made([(2**60, 0.9, 9), (2**60 + 1, 0.8, 9)])
    asked = frozenset({2**60 + 1})
    assert choose(some, **USUAL).tolist() == [0, 1]
    assert choose(some, **{**USUAL, "asked": asked}).tolist() == [0]


def test_nobody_to_ask_is_an_empty_choice() -> None:
    assert choose(made([]), **USUAL).tolist() == []


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no strategy 'luck': choose one of .*entropy"):
        choose(made([(1, 0.1, 9)]), **{**USUAL, "strategy": "luck"})
