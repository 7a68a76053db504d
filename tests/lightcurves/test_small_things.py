"""Nights, classes, reasons, and the examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import active_learning
import lightcurves
import models
from lightcurves.interpreter import ERRORS
from lightcurves.nights import night_of
from lightcurves.reasons import DESCRIPTIONS, NotEvaluated, RejectReason
from lightcurves.taxonomy import CLASS_NAMES, PLASTICC_CLASSES, class_name


def modules() -> list[ModuleType]:
    found = []
    for package in (lightcurves, models, active_learning):
        names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
        found += [importlib.import_module(name) for name in names]
    return found


def test_every_example_gives_what_it_prints() -> None:
    results = [doctest.testmod(module) for module in modules()]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 2


def test_every_module_says_what_it_is_for() -> None:
    assert [module.__name__ for module in modules() if not module.__doc__] == []


@given(st.floats(50_000, 80_000))
def test_a_night_lasts_from_noon_to_noon_in_utc(t_mjd_tai: float) -> None:
    night = night_of(t_mjd_tai)
    assert night + 0.5 <= t_mjd_tai < night + 1.5
    assert night_of(t_mjd_tai + 1) == night + 1


def test_nights_of_an_array_are_those_of_its_parts() -> None:
    times = np.random.default_rng(1).uniform(60_000, 60_010, 50)
    nights = night_of(times)
    assert nights.dtype == np.int64
    assert nights.tolist() == [night_of(t) for t in times.tolist()]
    assert isinstance(night_of(60_000.2), int)


def test_every_reason_is_described_and_unlike_every_other() -> None:
    codes = [*RejectReason, *NotEvaluated]
    assert set(codes) == set(DESCRIPTIONS)
    assert len({str(code) for code in codes}) == len(codes)
    assert len(set(ERRORS)) == len(ERRORS)
    assert all(text.endswith(".") for text in DESCRIPTIONS.values())


@pytest.mark.parametrize("class_id", sorted(set(PLASTICC_CLASSES.values())))
def test_every_class_of_plasticc_has_a_name(class_id: int) -> None:
    assert class_name(class_id) == CLASS_NAMES[class_id]


def test_a_class_without_a_name_is_its_number() -> None:
    assert class_name(999) == "class 999"
    assert len(set(PLASTICC_CLASSES.values())) == len(PLASTICC_CLASSES) == 14
