"""Features do what they declare, equal their textbook twins, and never choke on a light curve."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba.core.dispatcher import Dispatcher
from numba.core.runtime import _nrt_python as _nrt  # type: ignore[attr-defined]
from numpy.typing import NDArray

import lightcurves
import models
from lightcurves.alerts import read_alerts
from lightcurves.arrays import light_curves_of
from lightcurves.columns import DETECTED
from lightcurves.errors import ConfigurationError
from lightcurves.features.declare import (
    REASON_CODES,
    Context,
    Cost,
    Family,
    Feature,
    Input,
    Scaling,
)
from lightcurves.features.fit import FIT
from lightcurves.features.gp import GP
from lightcurves.features.period import PERIOD
from lightcurves.features.registry import (
    ALL_FAMILIES,
    FAMILIES,
    FEATURE_DIGEST,
    FEATURES,
    default_families,
    feature_digest,
    names_in,
    prepare,
)
from lightcurves.features.table import compute_features, feature_arrays
from tests.lightcurves.features_twin import Curve, twin
from tests.lightcurves.light_curves_made import (
    ODD,
    Objects,
    full,
    joined,
    made_of,
    objects,
    sparse,
    supernova,
    table_of,
    taken,
    unknown,
)
from tests.sky import sky_table

FITTED = {feature.name for feature in FIT.features}
LATITUDE = "abs_galactic_latitude_deg"
NAMES = names_in(default_families())
TWINNED = [name for name in NAMES if name != LATITUDE]
AT = {name: column for column, name in enumerate(NAMES)}
COLUMNS = [AT[name] for name in TWINNED]
LIGHT = {Input.TIME, Input.BAND, Input.FLUX, Input.SIGMA, Input.FLAGS}


@dataclass(frozen=True, repr=False)
class Group:
    """Families that are computed together, and the light curves on which laws hold them.

    These are `n`, of less than `most` points; each feature has a number in `least_share` of them.
    """

    name: str
    families: tuple[Family, ...]
    n: int
    most: int
    least_share: float

    @property
    def names(self) -> list[str]:
        return [family.name for family in self.families]

    @property
    def features(self) -> list[Feature]:
        return [feature for family in self.families for feature in family.features]

    @cached_property
    def made(self) -> Objects:
        return objects(self.n, 11, self.most)

    @cached_property
    def before(self) -> NDArray[np.float64]:
        """The features of what was made, before a law changes it."""
        return self.values(self.made)

    def values(self, made: Objects) -> NDArray[np.float64]:
        """The features; so many of them are numbers that a law about them can be broken."""
        values, _ = self.arrays(made)
        share = np.isfinite(values).mean(axis=0)
        assert (share > self.least_share).all(), (share.min(), self.features[share.argmin()].name)
        return values

    def arrays(self, made: Objects) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        values, why = feature_arrays(table_of(*made), self.families)
        assert ((why == 0) == np.isfinite(values)).all()
        return values, why


GROUPS = (
    Group("default", FAMILIES, 400, 40, 0.02),
    Group("period", (PERIOD,), 60, 80, 0.3),
    Group("gp", (GP,), 60, 80, 0.05),
)
DEFAULT = GROUPS[0]
HELD = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
"""To a law: every family is."""


def test_every_family_is_held_to_the_laws() -> None:
    assert tuple(family for group in GROUPS for family in group.families) == ALL_FAMILIES


def twins(made: Objects) -> Iterator[tuple[NDArray[np.float64], list[str | None]]]:
    """Of each light curve the textbook's numbers and reasons, in the order of TWINNED."""
    curves, context = made
    for k, curve in enumerate(curves):
        told = twin(curve, {name: float(context[name][k]) for name in Context._fields[2:]})
        assert set(told) == set(TWINNED)
        row = [told[name] for name in TWINNED]
        reasons = [value if isinstance(value, str) else None for value in row]
        yield np.array([np.nan if isinstance(v, str) else v for v in row]), reasons


def check_twins(made: Objects, rtol: float) -> None:
    values, why = feature_arrays(table_of(*made))
    for row, codes, (expected, reasons) in zip(values, why, twins(made), strict=True):
        differ = [
            (name, REASON_CODES[code], reason)
            for name, code, reason in zip(TWINNED, codes[COLUMNS], reasons, strict=True)
            if REASON_CODES[code] != reason
        ]
        assert not differ
        check_close(row[COLUMNS], expected, rtol)


def check_close(values: NDArray[np.float64], expected: NDArray[np.float64], tol: float) -> None:
    differ = ~np.isclose(values, expected, tol, tol, equal_nan=True)
    columns = np.flatnonzero(differ)
    assert not differ.any(), [(TWINNED[k], values[k], expected[k]) for k in columns]


def test_every_feature_equals_its_textbook_twin() -> None:
    check_twins(objects(150, seed=2), 1e-9)


def test_long_light_curves_equal_their_twins() -> None:
    check_twins(objects(8, seed=3, most=400), 1e-9)


def test_real_light_curves_equal_their_twins(real_packets: list[bytes]) -> None:
    alerts = read_alerts(real_packets)
    curves = []
    for points in alerts["light_curve"].to_pylist():
        columns = {name: [point[name] for point in points] for name in points[0]}
        curves.append(
            Curve(
                np.array(columns["t_mjd_tai"]),
                np.array(["ugrizy".index(name) for name in columns["band"]], np.int8),
                np.array(columns["flux_njy"], np.float32),
                np.array(columns["sigma_njy"], np.float32),
                np.array(columns["flags"], np.int8),
            )
        )
    check_twins((curves, unknown(len(curves))), 1e-7)
    np.testing.assert_array_equal(
        feature_arrays(alerts)[0][:, AT["n_points"]], [len(c.t) for c in curves]
    )


def test_float32_measurements_cost_less_than_a_thousandth() -> None:
    """Against twins that never rounded a flux; an excess is a root of a difference, so not 1e-6.

    Fits are compared on flares: with other light curves they may stop anywhere.
    """
    flares = [full(supernova(seed, n=60)) for seed in range(30)], unknown(30)
    unfitted = ~np.isin(TWINNED, list(FITTED))
    for made, compared in ((objects(75, seed=4), unfitted), (flares, np.ones_like(unfitted))):
        exact = changed(made, unrounded, 4)
        values, _ = feature_arrays(table_of(*exact))
        for row, (expected, _) in zip(values[:, COLUMNS], twins(exact), strict=True):
            told = compared & np.isfinite(expected)
            check_close(np.where(told, row, np.nan), np.where(told, expected, np.nan), 1e-3)


def unrounded(curve: Curve, chance: np.random.Generator) -> Curve:
    return curve._replace(
        flux=curve.flux.astype(np.float64) + chance.uniform(0, 1e-3, len(curve.t)),
        sigma=curve.sigma.astype(np.float64) + chance.uniform(0, 1e-3, len(curve.t)),
    )


# -- declarations ----------------------------------------------------------------------------------


def changed(
    made: Objects, change: Callable[[Curve, np.random.Generator], Curve], seed: int
) -> Objects:
    chance = np.random.default_rng(seed)
    return [change(curve, chance) for curve in made[0]], made[1]


def elsewhere(made: Objects, *names: str) -> Objects:
    chance = np.random.default_rng(5)
    size = len(made[0])
    drawn = {name: chance.uniform(0, 80, size) for name in names}
    return made[0], {**made[1], **drawn}


def jitter(curve: Curve, chance: np.random.Generator) -> Curve:
    """Times move by up to five days, so that their order changes too."""
    moved = curve.t + chance.integers(-5 * 1024, 5 * 1024, len(curve.t)) / 1024
    return curve._replace(t=moved)


def flagged(curve: Curve, chance: np.random.Generator) -> Curve:
    """Every fifth point's flags become others."""
    some = chance.integers(0, 128, len(curve.t)) * (chance.random(len(curve.t)) < 0.2)
    return curve._replace(flags=curve.flags ^ some.astype(np.int8))


PERTURB: dict[Input, Callable[[Objects], Objects]] = {
    Input.TIME: lambda made: changed(made, jitter, 6),
    Input.BAND: lambda made: changed(
        made, lambda c, r: c._replace(band=r.integers(0, 9, len(c.t)).astype(np.int8)), 7
    ),
    Input.FLUX: lambda made: changed(
        made,
        lambda c, r: c._replace(flux=(c.flux * r.uniform(-2, 2, len(c.t))).astype(np.float32)),
        8,
    ),
    Input.SIGMA: lambda made: changed(
        made,
        lambda c, r: c._replace(sigma=(c.sigma * r.uniform(0.1, 9, len(c.t))).astype(np.float32)),
        9,
    ),
    Input.FLAGS: lambda made: changed(made, flagged, 10),
    Input.POSITION: lambda made: elsewhere(made, "ra_deg", "dec_deg"),
    Input.HOST_Z: lambda made: elsewhere(made, "host_z_phot"),
    Input.HOST_Z_ERR: lambda made: elsewhere(made, "host_z_phot_err"),
    Input.HOST_OFFSET: lambda made: elsewhere(made, "host_offset_arcsec"),
    Input.EXTINCTION: lambda made: elsewhere(made, "mw_ebv"),
}


def test_every_input_is_perturbed() -> None:
    assert set(PERTURB) == set(Input)


@HELD
@pytest.mark.parametrize("what", list(Input), ids=lambda what: what.name)
def test_a_feature_depends_on_what_it_declares_and_on_nothing_else(
    group: Group, what: Input
) -> None:
    """What merely appears or vanishes is no answer: a number becomes another one."""
    before, (after, _) = group.before, group.arrays(PERTURB[what](group.made))
    # Sums in another order differ in their last bits.
    equal = np.isclose(before, after, rtol=1e-9, atol=1e-9, equal_nan=True)
    both = np.isfinite(before) & np.isfinite(after)
    names = np.array([feature.name for feature in group.features])
    declared = {feature.name for feature in group.features if what in feature.inputs}
    assert set(names[~equal.all(axis=0)]) == declared
    assert set(names[(both & ~equal).any(axis=0)]) == declared


@HELD
@pytest.mark.parametrize("factor", [2.0**-100, 3.0, 2.0**100], ids=["tiny", "3", "huge"])
def test_fluxes_and_errors_scale_as_declared(group: Group, factor: float) -> None:
    """Sums of numbers three times as large are rounded otherwise; a fit to no flare then ends elsewhere."""
    scaled = changed(
        group.made, lambda c, _: c._replace(flux=c.flux * factor, sigma=c.sigma * factor), 0
    )
    before, after = group.before, group.arrays(scaled)[0]
    for column, feature in enumerate(group.features):
        if factor != 3.0 or feature.name not in FITTED:
            expected = before[:, column] * (factor if feature.scaling == Scaling.LINEAR else 1.0)
            rtol = 1e-9 if factor == 3.0 else 0.0
            np.testing.assert_allclose(after[:, column], expected, rtol, err_msg=feature.name)


@HELD
@pytest.mark.parametrize("days", [4_096.25, -50_000.25])
def test_a_shift_in_time_changes_nothing(group: Group, days: float) -> None:
    later = changed(group.made, lambda c, _: c._replace(t=c.t + days), 0)
    np.testing.assert_array_equal(group.before, group.values(later))


def test_a_detection_has_the_flag_or_five_sigma() -> None:
    point = Curve(np.array([60_000.0]), np.array([2], np.int8), np.array([5.0], np.float32),
                  np.array([1.0], np.float32), np.array([0], np.int8))  # fmt: skip
    at = AT["n_detections"]
    weak = point._replace(flux=np.array([4.99], np.float32))
    negative = point._replace(flux=-point.flux)
    listed = weak._replace(flags=np.array([DETECTED], np.int8))
    spoilt = weak._replace(flags=np.array([127 - DETECTED], np.int8))
    values, _ = feature_arrays(table_of([point, weak, negative, listed, spoilt]))
    assert values[:, at].tolist() == [1, 0, 1, 1, 0]


@HELD
def test_fewer_points_than_declared_give_null(group: Group) -> None:
    """And so many, or one more, may be enough."""
    made = sparse(8 * group.n, seed=14)
    values, _ = group.arrays(made)
    counts = np.array([np.bincount(curve.band, minlength=6) for curve in made[0]])
    for column, feature in enumerate(group.features):
        seen = ["ugrizy".index(letter) for letter in feature.bands or "ugrizy"]
        least = counts[:, seen].sum(axis=1)[np.isfinite(values[:, column])].min(initial=99)
        assert feature.min_points <= least <= feature.min_points + 1, feature.name


# -- invariances -----------------------------------------------------------------------------------


@HELD
def test_the_order_of_the_points_does_not_matter(group: Group) -> None:
    # A few equal times, in the same band and in others.
    tied = changed(group.made, lambda c, _: c._replace(t=np.round(2 * c.t) / 2), 0)
    for made in (group.made, tied):
        mixed = changed(made, lambda c, r: taken(c, r.permutation(len(c.t))), 16)
        np.testing.assert_array_equal(group.values(made), group.values(mixed))


@HELD
@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 16), max_size=5).map(sorted))
def test_batches_may_be_split_anywhere(group: Group, cuts: list[int]) -> None:
    whole = table_of(*group.made)[:16]
    expected, why = feature_arrays(whole, group.families)
    bounds = [0, *cuts, 16]
    parts = [feature_arrays(whole[a:b], group.families) for a, b in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate([values for values, _ in parts]), expected)
    np.testing.assert_array_equal(np.concatenate([reasons for _, reasons in parts]), why)


@HELD
@pytest.mark.parametrize("band", range(6))
def test_a_band_changes_the_features_that_look_at_it_and_no_others(group: Group, band: int) -> None:
    before = group.before
    then = group.values(changed(group.made, lambda c, r: added(c, band, r), 18))
    for column, feature in enumerate(group.features):
        light = not feature.inputs or feature.inputs & LIGHT
        looks = light and "ugrizy"[band] in (feature.bands or "ugrizy")
        same = np.array_equal(before[:, column], then[:, column], equal_nan=True)
        assert same != bool(looks), feature.name


def told_twice(curve: Curve, chance: np.random.Generator) -> Curve:
    n = len(curve.t)
    rows = np.append(np.arange(n), chance.integers(0, n, n // 2 + 1))
    return taken(curve, chance.permutation(rows))


@HELD
def test_points_that_are_told_twice_count_once(group: Group) -> None:
    twice = changed(group.made, told_twice, 22)
    np.testing.assert_array_equal(group.before, group.values(twice))


@HELD
def test_what_needs_variation_has_none_where_nothing_varies(group: Group) -> None:
    n = 60
    flat = made_of(n, flux=500.0, sigma=np.linspace(1, 3, n), t=60_000 + np.arange(n) / 8)
    _, why = feature_arrays(table_of([flat]), group.families)
    for column, feature in enumerate(group.features):
        reason = REASON_CODES[why[0, column]]
        assert (reason == "no_variation") == feature.varies, (feature.name, reason)


def added(curve: Curve, band: int, chance: np.random.Generator) -> Curve:
    n = 5
    more = Curve(
        60_000 + chance.integers(0, 60 * 1024, n) / 1024 + 1 / 4096,
        np.full(n, band, np.int8),
        chance.normal(0, 5_000, n).astype(np.float32),
        chance.uniform(1, 9, n).astype(np.float32),
        np.zeros(n, np.int8),
    )
    return joined(curve, more)


@HELD
def test_ztf_shares_the_features_of_lsst(group: Group) -> None:
    """Those of its bands, that is: the others have none."""
    lsst = changed(group.made, lambda c, _: c._replace(band=c.band % 3 + 1), 0)
    ztf = changed(group.made, lambda c, _: c._replace(band=c.band % 3 + 6), 0)
    values, _ = group.arrays(lsst)
    assert np.isfinite(values).any(axis=0).mean() > 0.5
    np.testing.assert_array_equal(values, group.arrays(ztf)[0])


# -- what light curves may look like ---------------------------------------------------------------


@HELD
def test_an_odd_light_curve_gives_numbers_or_reasons(group: Group) -> None:
    with np.errstate(all="raise"):
        _, why = group.arrays(([odd.curve for odd in ODD.values()], {}))
    for codes, (name, odd) in zip(why, ODD.items(), strict=True):
        told, reason = {REASON_CODES[code] for code in codes}, getattr(odd, group.name)
        assert told == {reason} if reason else None in told, name


@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if not odd.default])
def test_an_odd_light_curve_equals_its_twin(name: str) -> None:
    check_twins(([ODD[name].curve], unknown(1)), 1e-6)


def test_equal_fluxes_have_no_variation() -> None:
    """The weighted mean of equal fluxes is not always that flux; once their noise was a feature."""
    for name in ("all equal", "all equal and faint", "equal in one band"):
        row = compute_features(table_of([ODD[name].curve])).to_pylist()[0]
        reasons = {pair["feature"]: pair["reason"] for pair in row["reasons"]}
        assert row["chi2_constant"] == 0.0
        assert reasons["stetson_k"] == reasons["von_neumann"] == "no_variation"


@HELD
def test_a_wild_light_curve_gives_numbers_or_reasons(group: Group) -> None:
    """Any bits as fluxes and errors, many points at equal times."""
    chance = np.random.default_rng(26)
    curves = []
    for n in chance.integers(0, 90, 120).tolist():
        flux, sigma = chance.integers(0, 2**32, (2, n), np.uint32).view(np.float32)
        narrow = chance.random() < 0.5
        curves.append(
            made_of(
                n,
                t=60_000 + chance.integers(0, chance.integers(1, 99), n),
                band=chance.integers(-1, 9, n) if narrow else 2,
                flux=flux,
                sigma=np.abs(sigma),
            )
        )
    values, _ = group.arrays((curves, {}))
    assert (np.isfinite(values).mean(axis=0) > 0.01).mean() > 0.9


FLUXES = st.floats(width=32, allow_subnormal=True)
TIMES = st.integers(0, 100 * 1024).map(lambda k: 60_000 + k / 1024) | st.just(float("nan"))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 12))
def test_any_light_curve_gives_numbers_or_reasons(data: st.DataObject, n: int) -> None:
    def draw(dtype: Any, elements: st.SearchStrategy[Any]) -> NDArray[Any]:
        return data.draw(hnp.arrays(dtype, n, elements=elements))

    curve = Curve(
        draw(np.float64, TIMES),
        draw(np.int8, st.integers(-1, 8)),
        draw(np.float32, FLUXES),
        draw(np.float32, FLUXES),
        draw(np.int8, st.integers(0, 127)),
    )
    values, why = feature_arrays(table_of([curve]), ALL_FAMILIES)
    assert ((why == 0) == np.isfinite(values)).all()


@HELD
def test_a_null_light_curve_has_no_feature(group: Group) -> None:
    table = table_of([ODD["all nine bands"].curve])
    rows = pa.array([None, *table["light_curve"].to_pylist()], table["light_curve"].type)
    _, why = feature_arrays(pa.table({"light_curve": rows}), group.families)
    assert (why[0] != 0).all()
    assert (why[1] == 0).any()


# -- the table -------------------------------------------------------------------------------------


@HELD
def test_the_table_has_every_feature_and_a_reason_for_every_null(group: Group) -> None:
    whole = sky_table(20)
    table = compute_features(whole, group.names)
    names = [feature.name for feature in group.features]
    assert table.column_names == ["object_id", "class_id", *names, "reasons"]
    assert table["object_id"].equals(whole["object_id"])
    for row in table.to_pylist():
        absent = [name for name in names if row[name] is None]
        assert [pair["feature"] for pair in row["reasons"]] == absent
        assert all(pair["reason"] for pair in row["reasons"])
    assert any(table[name].null_count for name in names)
    assert any(table[name].null_count < 20 for name in names)


def test_families_are_computed_by_name() -> None:
    whole = sky_table(20)
    for family in ALL_FAMILIES:
        table = compute_features(whole, families=[family.name])
        names = [feature.name for feature in family.features]
        assert table.column_names == ["object_id", "class_id", *names, "reasons"]
        if family in FAMILIES:
            assert table.select(names).equals(compute_features(whole).select(names))
    both = compute_features(whole, families=["period", "gp"])
    assert both["gp_length_days"].null_count < 20
    with pytest.raises(ConfigurationError, match="called colour: sampling, "):
        compute_features(whole, families=["colour"])
    assert compute_features(whole, families=[]).column_names == ["object_id", "class_id", "reasons"]


def test_an_expensive_family_is_not_computed_unasked() -> None:
    names = {feature.name for feature in FEATURES}
    for family in ALL_FAMILIES:
        assert (family.cost == Cost.CHEAP) == names.issuperset(f.name for f in family.features)


@HELD
def test_an_empty_table_has_the_same_columns(group: Group) -> None:
    whole = sky_table(3)
    empty = compute_features(whole[:0], group.names)
    assert empty.schema == compute_features(whole, group.names).schema
    assert compute_features(read_alerts([]), group.names).num_rows == 0


@HELD
def test_rejected_packets_have_no_feature(group: Group, real_packets: list[bytes]) -> None:
    longest = max(real_packets, key=len)
    values, why = feature_arrays(read_alerts([longest, b"", longest[:-1]]), group.families)
    assert np.isfinite(values).any(axis=1).tolist() == [True, False, False]
    assert why[1:].all()


@HELD
def test_host_and_position_may_be_absent(group: Group) -> None:
    whole = sky_table(5)
    bare = compute_features(whole.select(["object_id", "light_curve"]), group.names)
    there = [f.name for f in group.features if not f.inputs or f.inputs & LIGHT]
    known = [f.name for f in group.features if f.name not in there]
    assert len(known) == 5 * (group is DEFAULT)
    assert bare.select(known).to_pylist() == [dict.fromkeys(known)] * 5
    assert bare.select(there).equals(compute_features(whole, group.names).select(there))


def test_galactic_latitude_is_astropys() -> None:
    chance = np.random.default_rng(20)
    n = 500
    ra, dec = chance.uniform(0, 360, n), np.degrees(np.arcsin(chance.uniform(-1, 1, n)))
    ra[:3], dec[:3] = (0.0, 192.85948, 12.85948), (90.0, 27.12825, -27.12825)
    table = table_of([ODD["one point"].curve] * n, {"ra_deg": ra, "dec_deg": dec})
    latitude = feature_arrays(table)[0][:, AT[LATITUDE]]
    expected = np.abs(SkyCoord(ra, dec, unit="deg", frame="icrs").galactic.b.deg)
    np.testing.assert_allclose(latitude, expected, atol=2e-5)


# -- the list --------------------------------------------------------------------------------------


def test_features_have_names_units_and_formulas_of_their_own() -> None:
    features = [feature for family in ALL_FAMILIES for feature in family.features]
    assert len(FEATURES) >= 30
    assert len({feature.name for feature in features}) == len(features)
    for feature in features:
        assert feature.formula
        assert (feature.scaling == Scaling.LINEAR) == feature.unit.startswith("nJy")
        assert feature.name.endswith("_njy") == (feature.unit == "nJy")
        assert not feature.paper or "doi:" in feature.paper or "ApJ" in feature.paper


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"}, {"unit": "d"}, {"inputs": frozenset({Input.TIME})},
        {"formula": "another"}, {"scaling": Scaling.LINEAR}, {"min_points": 9}, {"paper": "x"},
        {"bands": "g"}, {"varies": True},
    ],
)  # fmt: skip
def test_the_digest_changes_with_any_declaration(change: dict[str, Any]) -> None:
    assert feature_digest() == FEATURE_DIGEST
    other: tuple[Feature, ...] = (replace(FEATURES[0], **change), *FEATURES[1:])
    assert feature_digest(other) != FEATURE_DIGEST


def test_the_digest_changes_with_order_and_number() -> None:
    assert feature_digest((FEATURES[1], FEATURES[0], *FEATURES[2:])) != FEATURE_DIGEST
    assert feature_digest(FEATURES[:-1]) != FEATURE_DIGEST


def kernels() -> dict[str, Dispatcher]:
    """Every numba kernel of the two rooms, by where it is found."""
    found = {}
    for package in (lightcurves, models):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, Dispatcher):
                    found[f"{module.name}.{name}"] = value
    assert len(found) > 10
    return found


def test_no_kernel_may_forget_what_is_not_a_number() -> None:
    """Fast mathematics in whole lets the compiler assume that there is no NaN and no infinity."""
    for kernel in kernels().values():
        allowed = kernel.targetoptions.get("fastmath") or set()
        assert isinstance(allowed, set)
        assert not allowed & {"fast", "nnan", "ninf"}
        assert not kernel.targetoptions.get("parallel")


def allocated() -> int:
    count: int = _nrt.memsys_get_stats_alloc()
    return count


@pytest.mark.parametrize("family", ALL_FAMILIES, ids=lambda family: family.name)
def test_nothing_is_allocated_for_each_light_curve(family: Family) -> None:
    curves, context = objects(20, seed=27, most=80)
    width = len(family.features)
    counts = []
    _nrt.memsys_enable_stats()
    for times in (1, 10):
        points = prepare(light_curves_of(table_of(curves * times)))
        known = Context(*(np.tile(context[name], times) for name in Context._fields))
        out, why = np.zeros((20 * times, width)), np.zeros((20 * times, width), np.int8)
        before = allocated()
        family.kernel(points, known, out, why)
        counts.append(allocated() - before)
    _nrt.memsys_disable_stats()
    assert counts[0] == counts[1] > 0


def test_no_kernel_calls_one_of_another_file() -> None:
    """Numba's cache looks at a kernel's own file alone: the old one would go on being called."""
    for place, kernel in kernels().items():
        names = kernel.py_func.__code__.co_names
        called = [kernel.py_func.__globals__.get(name) for name in names]
        for other in called:
            if isinstance(other, Dispatcher):
                assert other.py_func.__module__ == kernel.py_func.__module__, place
