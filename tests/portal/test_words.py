"""How values read."""

from __future__ import annotations

import doctest

import pytest

from portal import client, serve, views, words


@pytest.mark.parametrize("module", [words, views, client, serve])
def test_examples_in_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_null_is_a_dash_and_never_zero() -> None:
    for filter_ in (words.number, words.mjd, words.magnitude, words.days, words.calendar):
        assert filter_(None) == words.NOTHING
    assert words.figure(None) == words.NOTHING
    assert words.number(float("nan")) == words.NOTHING
    assert words.magnitude(float("inf")) == words.NOTHING
    assert words.calendar(1e300) == words.NOTHING


def test_numbers_group_and_sign() -> None:
    assert words.number(-1234567.5, 1) == "\N{MINUS SIGN}1\N{THIN SPACE}234\N{THIN SPACE}567.5"
    assert words.mjd(61_109.123456) == "61109.12346"
    assert words.figure(0.5) == "0.500"
    assert words.figure(True) == "yes"  # noqa: FBT003
    assert words.percent(None) == "0.0%"
    assert words.percent(1.7) == "100.0%"


def test_coordinates_carry_over() -> None:
    assert words.sexagesimal_ra(359.9999999) == "00:00:00.00"
    assert words.sexagesimal_dec(59.99999999) == "+60:00:00.0"
    assert words.sexagesimal_dec(-0.5) == "\N{MINUS SIGN}00:30:00.0"


def test_reasons_are_words() -> None:
    assert words.reason_words("solar_system_object") == "solar system object"
    assert words.reason_sentence("solar_system_object").startswith("The alert belongs to a solar")
    assert words.reason_sentence("brand_new") == "brand new"


def test_nested_numbers_are_flattened() -> None:
    values = {"log_loss": 0.5, "by": {"n_objects": 3}, "by_days": [1]}
    assert words.flat(values) == [("log loss", 0.5), ("by n objects", 3)]
    assert words.flat(None) == []
