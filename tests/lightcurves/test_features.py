"""Features do what they declare, equal their textbook twins, and never choke on a light curve."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

import lightcurves
import models
from lightcurves.alerts import read_alerts
from lightcurves.arrays import LightCurves, light_curve_column
from lightcurves.errors import ConfigurationError
from lightcurves.features.declare import REASON_CODES, Context, Cost, Feature, Input, Scaling
from lightcurves.features.registry import (
    ALL_FAMILIES,
    FAMILIES,
    FEATURE_DIGEST,
    FEATURE_NAMES,
    FEATURES,
    feature_digest,
)
from lightcurves.features.table import compute_features, feature_arrays
from lightcurves.surveys import DETECTED
from tests.lightcurves.features_twin import Curve, twin
from tests.sky import sky_table

Objects = tuple[list[Curve], dict[str, NDArray[np.float64]]]
LATITUDE = "abs_galactic_latitude_deg"


def objects(n: int = 250, seed: int = 1, most: int = 40) -> Objects:
    """Light curves of 1 to `most` points with all that a real one may have, and their contexts.

    Times lie on a grid of 1/1024 d, so that shifting them is exact.
    """
    chance = np.random.default_rng(seed)
    curves = []
    for _ in range(n):
        size = int(chance.integers(1, most))
        sigma = chance.uniform(1, 300, size)
        source = chance.random(size) < chance.choice((0.0, 0.1, 0.6))
        used = chance.choice(9, int(chance.integers(1, 9)), replace=False)
        shape = chance.choice((0.0, 300.0, 3_000.0)) * chance.normal(size=size)
        times = np.sort(chance.choice(60 * 1024, size, replace=False))
        curves.append(
            Curve(
                60_000 + times / 1024,
                chance.choice(used, size).astype(np.int8),
                (shape + sigma * chance.normal(size=size)).astype(np.float32),
                sigma.astype(np.float32),
                np.where(source, DETECTED, 0).astype(np.int8),
            )
        )
    context = {name: chance.uniform(0, 1, n) for name in Context._fields}
    context["dec_deg"] = chance.uniform(-90, 90, n)
    context["ra_deg"] = chance.uniform(0, 360, n)
    for values in list(context.values())[2:]:
        values[chance.random(n) < 0.3] = np.nan
    return curves, context


def table_of(
    curves: list[Curve], context: dict[str, NDArray[np.float64]] | None = None
) -> pa.Table:
    offsets = np.cumsum([0, *(len(curve.t) for curve in curves)])
    dtypes = (np.float64, np.int8, np.float32, np.float32, np.int8)
    t, band, flux, sigma, flags = (
        np.concatenate([np.zeros(0), *(curve[k] for curve in curves)]).astype(dtype)
        for k, dtype in enumerate(dtypes)
    )
    kind = np.zeros(len(t), np.int8)
    column = light_curve_column(LightCurves(offsets, t, band, flux, sigma, kind, flags))
    return pa.table({"light_curve": column, **(context or {})})


def features_of(made: Objects) -> NDArray[np.float64]:
    return feature_arrays(table_of(*made))[0]


def twins(curves: list[Curve], context: dict[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    names = Context._fields[2:]
    return [
        twin(curve, {name: float(context[name][k]) for name in names})
        for k, curve in enumerate(curves)
    ]


def check_twins(curves: list[Curve], context: dict[str, NDArray[np.float64]], rtol: float) -> None:
    values, why = feature_arrays(table_of(curves, context))
    for row, expected in enumerate(twins(curves, context)):
        for column, name in enumerate(FEATURE_NAMES):
            if name == LATITUDE:
                continue
            reason = REASON_CODES[why[row, column]]
            told = expected[name]
            if isinstance(told, str):
                assert reason == told, (row, name)
            else:
                assert reason is None, (row, name, reason, told)
                assert values[row, column] == pytest.approx(told, rel=rtol, abs=rtol), (row, name)


def test_every_feature_equals_its_textbook_twin() -> None:
    curves, context = objects(300, seed=2)
    assert set(twins(curves[:1], context)[0]) == set(FEATURE_NAMES) - {LATITUDE}
    check_twins(curves, context, 1e-9)


def test_long_light_curves_equal_their_twins() -> None:
    check_twins(*objects(8, seed=3, most=400), 1e-9)


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
    nothing = {name: np.full(len(curves), np.nan) for name in Context._fields}
    check_twins(curves, nothing, 1e-7)
    np.testing.assert_array_equal(
        feature_arrays(alerts)[0][:, FEATURE_NAMES.index("n_points")], [len(c.t) for c in curves]
    )


def test_float32_measurements_cost_less_than_a_thousandth() -> None:
    """Against twins that never rounded a flux; an excess is a root of a difference, so not 1e-6."""
    chance = np.random.default_rng(4)
    exact, context = objects(150, seed=4)
    exact = [
        curve._replace(
            flux=curve.flux.astype(np.float64) + chance.uniform(0, 1e-3, len(curve.t)),
            sigma=curve.sigma.astype(np.float64) + chance.uniform(0, 1e-3, len(curve.t)),
        )
        for curve in exact
    ]
    values, _ = feature_arrays(table_of(exact, context))
    for row, expected in enumerate(twins(exact, context)):
        for column, name in enumerate(FEATURE_NAMES):
            if name != LATITUDE and not isinstance(expected[name], str):
                assert values[row, column] == pytest.approx(expected[name], rel=1e-3, abs=1e-3)


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
    Input.FLAGS: lambda made: changed(
        made, lambda c, r: c._replace(flags=r.integers(0, 128, len(c.t)).astype(np.int8)), 10
    ),
    Input.POSITION: lambda made: elsewhere(made, "ra_deg", "dec_deg"),
    Input.HOST_Z: lambda made: elsewhere(made, "host_z_phot"),
    Input.HOST_Z_ERR: lambda made: elsewhere(made, "host_z_phot_err"),
    Input.HOST_OFFSET: lambda made: elsewhere(made, "host_offset_arcsec"),
    Input.EXTINCTION: lambda made: elsewhere(made, "mw_ebv"),
}


def test_every_input_is_perturbed() -> None:
    assert set(PERTURB) == set(Input)


@pytest.mark.parametrize("what", list(Input), ids=lambda what: what.name)
def test_a_feature_depends_on_what_it_declares_and_on_nothing_else(what: Input) -> None:
    made = objects(250, seed=11)
    before, after = features_of(made), features_of(PERTURB[what](made))
    # Sums in another order differ in their last bits.
    equal = np.isclose(before, after, rtol=1e-9, atol=1e-9, equal_nan=True)
    depends = {name for k, name in enumerate(FEATURE_NAMES) if not equal[:, k].all()}
    declared = {feature.name for feature in FEATURES if what in feature.inputs}
    assert depends == declared


def test_fluxes_and_errors_scale_as_declared() -> None:
    made = objects(200, seed=12)
    before = features_of(made)
    for factor in (2.0**-9, 2.0**7):  # exact in float32
        scaled = changed(
            made, lambda c, _, k=factor: c._replace(flux=c.flux * k, sigma=c.sigma * k), 0  # type: ignore[misc]
        )  # fmt: skip
        after = features_of(scaled)
        for column, feature in enumerate(FEATURES):
            expected = before[:, column] * (factor if feature.scaling == Scaling.LINEAR else 1.0)
            np.testing.assert_allclose(after[:, column], expected, rtol=1e-11, err_msg=feature.name)


def test_a_shift_in_time_changes_nothing() -> None:
    made = objects(200, seed=13)
    later = changed(made, lambda c, _: c._replace(t=c.t + 4_096.25), 0)
    np.testing.assert_array_equal(features_of(made), features_of(later))


def test_a_detection_has_the_flag_or_five_sigma() -> None:
    point = Curve(np.array([60_000.0]), np.array([2], np.int8), np.array([5.0], np.float32),
                  np.array([1.0], np.float32), np.array([0], np.int8))  # fmt: skip
    at = FEATURE_NAMES.index("n_detections")
    weak = point._replace(flux=np.array([4.99], np.float32))
    negative = point._replace(flux=-point.flux)
    listed = weak._replace(flags=np.array([DETECTED], np.int8))
    spoilt = weak._replace(flags=np.array([127 - DETECTED], np.int8))
    values, _ = feature_arrays(table_of([point, weak, negative, listed, spoilt]))
    assert values[:, at].tolist() == [1, 0, 1, 1, 0]


def test_fewer_points_than_declared_give_null() -> None:
    curves, context = objects(300, seed=14, most=3)
    values, _ = feature_arrays(table_of(curves, context))
    single = np.array([len(curve.t) == 1 for curve in curves])
    assert single.sum() > 50
    for column, feature in enumerate(FEATURES):
        if feature.min_points > 1:
            assert np.isnan(values[single, column]).all(), feature.name


# -- invariances -----------------------------------------------------------------------------------


def test_the_order_of_the_points_does_not_matter() -> None:
    made = objects(200, seed=15)
    # A few equal times, in the same band and in others.
    tied = [c._replace(t=np.round(c.t / 4) * 4) for c in made[0]]
    for curves in (made[0], tied):
        chance = np.random.default_rng(16)
        orders = [chance.permutation(len(curve.t)) for curve in curves]
        mixed = [taken(curve, order) for curve, order in zip(curves, orders, strict=True)]
        np.testing.assert_array_equal(features_of((curves, made[1])), features_of((mixed, made[1])))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 80), max_size=5).map(sorted))
def test_batches_may_be_split_anywhere(cuts: list[int]) -> None:
    whole = sky_table(80)
    expected, why = feature_arrays(whole)
    bounds = [0, *cuts, 80]
    parts = [feature_arrays(whole[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]  # noqa: RUF007
    np.testing.assert_array_equal(np.concatenate([values for values, _ in parts]), expected)
    np.testing.assert_array_equal(np.concatenate([reasons for _, reasons in parts]), why)


@pytest.mark.parametrize("band", range(6))
def test_a_band_does_not_change_features_of_the_others(band: int) -> None:
    made = objects(150, seed=17)
    after = changed(made, lambda c, r: added(c, band, r), 18)
    before, then = features_of(made), features_of(after)
    letter = "ugrizy"[band]
    others = [k for k, f in enumerate(FEATURES) if f.bands and letter not in f.bands]
    assert len(others) > 80
    np.testing.assert_array_equal(before[:, others], then[:, others])
    for column, feature in enumerate(FEATURES):
        if letter in feature.bands:
            assert not np.array_equal(before[:, column], then[:, column], equal_nan=True)


def test_points_that_are_told_twice_count_once() -> None:
    made = objects(150, seed=21)
    chance = np.random.default_rng(22)
    twice = [
        taken(curve, chance.permutation(np.append(np.arange(n), chance.integers(0, n, n // 2 + 1))))
        for curve, n in ((curve, len(curve.t)) for curve in made[0])
    ]
    np.testing.assert_array_equal(features_of(made), features_of((twice, made[1])))


def test_what_needs_variation_has_none_where_nothing_varies() -> None:
    n = 60
    flat = made_of(n, flux=500.0, sigma=np.linspace(1, 3, n), t=60_000 + np.arange(n) / 8)
    _, why = feature_arrays(table_of([flat]))
    for column, feature in enumerate(FEATURES):
        reason = REASON_CODES[why[0, column]]
        assert (reason == "no_variation") == feature.varies, (feature.name, reason)


def taken(curve: Curve, order: NDArray[np.int64]) -> Curve:
    columns: list[Any] = [column[order] for column in curve]
    return Curve(*columns)


def added(curve: Curve, band: int, chance: np.random.Generator) -> Curve:
    n = 5
    more = Curve(
        60_000 + chance.integers(0, 60 * 1024, n) / 1024 + 1 / 4096,
        np.full(n, band, np.int8),
        chance.normal(0, 5_000, n).astype(np.float32),
        chance.uniform(1, 9, n).astype(np.float32),
        np.zeros(n, np.int8),
    )
    columns: Any = zip(curve, more, strict=True)
    return Curve(*(np.concatenate(pair) for pair in columns))


def test_ztf_shares_the_features_of_lsst() -> None:
    curves, context = objects(60, seed=19)
    lsst = [c._replace(band=(c.band % 3 + 1).astype(np.int8)) for c in curves]
    ztf = [c._replace(band=(c.band % 3 + 6).astype(np.int8)) for c in curves]
    np.testing.assert_array_equal(features_of((lsst, context)), features_of((ztf, context)))


# -- what light curves may look like ---------------------------------------------------------------


def made_of(n: int, **columns: Any) -> Curve:
    usual = {
        "t": 60_000 + np.arange(n) / 4,
        "band": np.arange(n) % 6,
        "flux": np.linspace(-50, 900, n),
        "sigma": np.full(n, 10.0),
        "flags": np.arange(n) % 2,
    }
    dtypes = (np.float64, np.int8, np.float32, np.float32, np.int8)
    parts = {**usual, **columns}
    return Curve(
        *(np.broadcast_to(parts[name], n).astype(dtype)
          for name, dtype in zip(Curve._fields, dtypes, strict=True))
    )  # fmt: skip


ODD = {
    "no point": made_of(0),
    "one point": made_of(1),
    "two points": made_of(2),
    "two in one band": made_of(2, band=3),
    "one band": made_of(30, band=2),
    "all equal": made_of(30, flux=0.1, sigma=np.linspace(1, 3, 30)),
    "all zero": made_of(30, flux=0.0),
    "equal in one band": made_of(9, flux=1 / 3, band=1, sigma=np.linspace(1, 9, 9)),
    "all not a number": made_of(30, flux=np.nan),
    "infinite flux": made_of(30, flux=np.inf),
    "infinite error": made_of(30, sigma=np.inf),
    "zero error": made_of(30, sigma=0.0),
    "negative error": made_of(30, sigma=-1.0),
    "unknown band": made_of(30, band=-1),
    "no time": made_of(30, t=np.nan),
    "equal times": made_of(30, t=60_000.0),
    "equal times and bands": made_of(30, t=60_000.0, band=0),
    "ten thousand points": made_of(10_000, flux=np.random.default_rng(1).normal(0, 99, 10_000)),
    "huge": made_of(30, flux=3e38 * (-1.0) ** np.arange(30), sigma=1e-45),
    "tiny": made_of(30, flux=1e-45 * np.arange(30), sigma=1e-45),
    "mostly broken": made_of(30, flux=np.where(np.arange(30) % 10 == 3, 5.0, np.nan)),
}
NOTHING = {"no point", "all not a number", "infinite flux", "infinite error", "zero error",
           "negative error", "unknown band", "no time"}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_light_curve_gives_numbers_or_reasons(name: str) -> None:
    with np.errstate(all="raise"):
        values, why = feature_arrays(table_of([ODD["two points"], ODD[name], ODD["one point"]]))
    assert ((why == 0) == np.isfinite(values)).all()
    if name in NOTHING:
        assert {REASON_CODES[code] for code in why[1]} == {"too_few_points"}
    else:
        check_twins([ODD[name]], {n: np.full(1, np.nan) for n in Context._fields}, 1e-6)


def test_equal_fluxes_have_no_variation() -> None:
    """The weighted mean of equal fluxes is not always that flux; once their noise was a feature."""
    for name in ("all equal", "equal in one band"):
        row = compute_features(table_of([ODD[name]])).to_pylist()[0]
        reasons = {pair["feature"]: pair["reason"] for pair in row["reasons"]}
        assert row["chi2_constant"] == 0.0
        assert reasons["stetson_k"] == reasons["von_neumann"] == "no_variation"


FLUXES = st.floats(width=32, allow_subnormal=True)
TIMES = st.integers(0, 100 * 1024).map(lambda k: 60_000 + k / 1024) | st.just(float("nan"))


@settings(max_examples=150, deadline=None)
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
    values, why = feature_arrays(table_of([curve]))
    assert ((why == 0) == np.isfinite(values)).all()


def test_a_null_light_curve_has_no_feature() -> None:
    table = table_of([ODD["one band"]])
    rows = pa.array([None, *table["light_curve"].to_pylist()], table["light_curve"].type)
    _, why = feature_arrays(pa.table({"light_curve": rows}))
    assert (why[0] != 0).all()
    assert (why[1] == 0).any()


# -- the table -------------------------------------------------------------------------------------


def test_the_table_has_every_feature_and_a_reason_for_every_null() -> None:
    whole = sky_table(20)
    table = compute_features(whole)
    assert table.column_names == ["object_id", "class_id", *FEATURE_NAMES, "reasons"]
    assert table["object_id"].equals(whole["object_id"])
    for row in table.to_pylist():
        absent = [name for name in FEATURE_NAMES if row[name] is None]
        assert [pair["feature"] for pair in row["reasons"]] == absent
        assert all(pair["reason"] for pair in row["reasons"])
    assert any(table[name].null_count for name in FEATURE_NAMES)


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


def test_a_dear_family_is_not_computed_unasked() -> None:
    names = {feature.name for feature in FEATURES}
    for family in ALL_FAMILIES:
        assert (family.cost == Cost.CHEAP) == names.issuperset(f.name for f in family.features)


def test_an_empty_table_has_the_same_columns() -> None:
    whole = sky_table(3)
    assert compute_features(whole[:0]).schema == compute_features(whole).schema
    assert compute_features(read_alerts([])).num_rows == 0


def test_rejected_packets_have_no_feature(made_up: list[bytes]) -> None:
    table = compute_features(read_alerts([made_up[0], b"", made_up[0][:-1]]))
    nulls = [sum(row[name] is None for name in FEATURE_NAMES) for row in table.to_pylist()]
    assert nulls[1] == nulls[2] == len(FEATURE_NAMES) > nulls[0]


def test_host_and_position_may_be_absent() -> None:
    whole = sky_table(5)
    bare = whole.select(["object_id", "light_curve"])
    names = [*(feature.name for feature in FAMILIES[-1].features)]
    assert compute_features(bare).select(names).to_pylist() == [dict.fromkeys(names)] * 5
    rest = [name for name in FEATURE_NAMES if name not in names]
    assert compute_features(bare).select(rest).equals(compute_features(whole).select(rest))


def test_galactic_latitude_is_astropys() -> None:
    chance = np.random.default_rng(20)
    n = 500
    ra, dec = chance.uniform(0, 360, n), np.degrees(np.arcsin(chance.uniform(-1, 1, n)))
    ra[:3], dec[:3] = (0.0, 192.85948, 12.85948), (90.0, 27.12825, -27.12825)
    table = table_of([ODD["one point"]] * n, {"ra_deg": ra, "dec_deg": dec})
    latitude = feature_arrays(table)[0][:, FEATURE_NAMES.index(LATITUDE)]
    expected = np.abs(SkyCoord(ra, dec, unit="deg", frame="icrs").galactic.b.deg)
    np.testing.assert_allclose(latitude, expected, atol=2e-5)


# -- the list --------------------------------------------------------------------------------------


def test_features_have_names_units_and_formulas_of_their_own() -> None:
    assert len(FEATURES) >= 30
    assert len(set(FEATURE_NAMES)) == len(FEATURES)
    for feature in FEATURES:
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


def test_no_kernel_calls_one_of_another_file() -> None:
    """Numba's cache looks at a kernel's own file alone: the old one would go on being called."""
    for place, kernel in kernels().items():
        names = kernel.py_func.__code__.co_names
        called = [kernel.py_func.__globals__.get(name) for name in names]
        for other in called:
            if isinstance(other, Dispatcher):
                assert other.py_func.__module__ == kernel.py_func.__module__, place
