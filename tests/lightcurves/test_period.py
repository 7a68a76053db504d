"""Periods are those of the textbook periodogram, and of made-up variables; odd light curves get reasons."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from astropy.timeseries import LombScargle, LombScargleMultiband  # type: ignore[import-untyped]
from numba.core.runtime import _nrt_python as _nrt  # type: ignore[attr-defined]
from numpy.typing import NDArray

from lightcurves.arrays import LightCurves
from lightcurves.features import period
from lightcurves.features.declare import NO_VARIATION, TOO_FEW_POINTS, Cost, Input, Points, Scaling
from lightcurves.features.period import PERIOD, Periods, find_periods, multiband_power
from lightcurves.features.registry import prepare


class Curve(NamedTuple):
    t: NDArray[np.float64]
    band: NDArray[np.int8]
    flux: NDArray[np.float64]
    sigma: NDArray[np.float64]


def times(n: int, span: float, chance: np.random.Generator) -> NDArray[np.float64]:
    """Visits at night, to 1/4096 d so that shifting them is exact."""
    nights = chance.choice(int(span), n, replace=n > span)
    return np.sort(60_000 + nights + chance.integers(0, 1_600, n) / 4096)


def variable(
    days: float, seed: int, n: int = 90, span: float = 300.0, noise: float = 10.0, bands: int = 6
) -> Curve:
    """A sinusoid in each band, with its own mean, amplitude and phase."""
    chance = np.random.default_rng(seed)
    t = times(n, span, chance)
    band = chance.integers(0, bands, n)
    sigma = noise * chance.uniform(0.3, 2.0, n)
    wave = np.sin(2 * np.pi * (t - 60_000) / days + 0.3 * band)
    flux = 1_000 - 80 * band + (100 + 15 * band) * wave + sigma * chance.normal(size=n)
    return Curve(t, band.astype(np.int8), flux, sigma)


def flat(curves: list[Curve]) -> Points:
    """Points as the kernel reads them; a tuple of our own would end in numba's cache on disk."""
    columns: Any = zip(*curves, strict=True)
    offsets = np.cumsum([0, *(len(curve.t) for curve in curves)])
    t, band, flux, sigma = (np.concatenate(column) for column in columns)
    nothing = prepare(light_curves(np.zeros(1, np.int64), t[:0], band[:0], flux[:0], sigma[:0]))
    return nothing._replace(offsets=offsets, t=t, band=band, flux=flux, sigma=sigma)


def light_curves(offsets: Any, t: Any, band: Any, flux: Any, sigma: Any) -> LightCurves:
    seen = np.ones(t.size, np.int8)
    return LightCurves(
        offsets, t, band, flux.astype(np.float32), sigma.astype(np.float32), seen, seen
    )


def taken(curve: Curve, rows: Any) -> Curve:
    columns: list[Any] = [column[rows] for column in curve]
    return Curve(*columns)


def found(*curves: Curve) -> Periods:
    points = flat(list(curves))
    return find_periods(points.offsets, points.t, points.band, points.flux, points.sigma)


def features(curves: list[Curve]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    n = len(curves)
    out, why = np.zeros((n, len(PERIOD.features))), np.zeros((n, len(PERIOD.features)), np.int8)
    PERIOD.kernel(flat(curves), None, out, why)
    return out, why


def textbook(curve: Curve, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Astropy's single-band powers, put together by VanderPlas & Ivezic's formula."""
    gained, total = np.zeros(frequency.size), 0.0
    for b in np.unique(curve.band):
        t, _, flux, sigma = (column[curve.band == b] for column in curve)
        if len(np.unique(t)) < period.MIN_BAND_POINTS:
            continue
        chi2 = np.sum(((flux - np.average(flux, weights=sigma**-2)) / sigma) ** 2)
        single = LombScargle(t, flux, sigma, fit_mean=True, normalization="standard")
        gained += chi2 * single.power(frequency, method="slow")
        total += chi2
    power: NDArray[np.float64] = gained / total
    return power


# -- the power -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_power_is_the_textbooks(seed: int) -> None:
    """With a band of too few points, ones of few, and frequencies far above and below all periods."""
    curve = variable(1.7, seed, n=60 + 40 * seed)
    keep = (curve.band != 4) | (np.cumsum(curve.band == 4) < period.MIN_BAND_POINTS)
    curve = taken(curve, keep)
    frequency = np.geomspace(1e-3, 20, 2_000)
    power = multiband_power(*curve, frequency)
    np.testing.assert_allclose(power, textbook(curve, frequency), rtol=0, atol=1e-8)


def test_power_is_that_of_astropys_flexible_model() -> None:
    """Its base term is kept at 0 by a penalty. Its fast method weights bands by their squared power."""
    curve = variable(3.1, 5)
    frequency = np.linspace(0.01, 2, 200)
    model = LombScargleMultiband(
        curve.t, curve.flux, curve.band, curve.sigma,
        nterms_base=0, nterms_band=1, reg_base=1e6, reg_band=None,
    )  # fmt: skip
    expected = model.power(frequency, method="flexible")
    np.testing.assert_allclose(multiband_power(*curve, frequency), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("span", [90.0, 3_650.0])
def test_the_grids_recurrences_are_as_exact_as_sines(span: float) -> None:
    curve = variable(0.9, 6, n=40, span=span, bands=2)
    work = period._workspace_for(np.array([0, 40]), curve.t)
    bands, why, length, _ = period._load(*curve, work)
    n, step = period._frequencies(length)
    assert (bands, why) == (2, 0)
    assert n == math.floor(4 * length / 0.05 - 4 + 1)
    period._scan(bands, step, n, work)
    some = np.r_[:300, 1_000 : n - 300 : 97, n - 300 : n]
    power = work.power[some] / work.chi2[:bands].sum()
    expected = multiband_power(*curve, (4 + some) * step)
    np.testing.assert_allclose(power, expected, rtol=0, atol=1e-9)


def test_a_longer_light_curve_than_the_grid_has_room_for_gives_up_short_periods() -> None:
    n, step = period._frequencies(36_500.0)
    assert n == period.MAX_FREQUENCIES
    assert 1 / ((period.OVERSAMPLING + n - 1) * step) == pytest.approx(36_500 / 75_000, rel=1e-3)


def test_numbers_are_those_of_least_squares() -> None:
    curve = variable(2.3, 7)
    result = found(curve)
    squares = weights = left = total = 0.0
    for b in range(6):
        t, _, flux, sigma = (column[curve.band == b] for column in curve)
        angle = 2 * np.pi * (t - t[0]) / result.period[0]
        columns = np.stack([np.ones(len(t)), np.cos(angle), np.sin(angle)], axis=1)
        best = np.linalg.lstsq(columns / sigma[:, None], flux / sigma, rcond=None)[0]
        squares += np.sum(sigma**-2.0) * (best[1] ** 2 + best[2] ** 2)
        weights += np.sum(sigma**-2.0)
        left += np.sum(((flux - columns @ best) / sigma) ** 2)
        total += np.sum(((flux - np.average(flux, weights=sigma**-2)) / sigma) ** 2)
    assert result.amplitude[0] == pytest.approx(math.sqrt(squares / weights), rel=1e-6)
    assert result.power[0] == pytest.approx(1 - left / total, abs=1e-6)


# -- the search ------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [0.1, 0.1373, 0.35, 0.527, 0.7, 1.9, 4.2, 9.7, 31.0, 100.0])
def test_periods_are_recovered(days: float) -> None:
    result = found(*(variable(days, seed) for seed in range(3)))
    # A tenth of the width of a peak.
    np.testing.assert_allclose(1 / result.period, 1 / days, rtol=0, atol=0.1 / 300)
    assert (result.power > 0.9).all()
    assert (result.ratio < 0.99).all()
    np.testing.assert_allclose(result.amplitude, 140, rtol=0.2)


def test_a_faint_period_needs_many_points() -> None:
    faint = variable(0.61, 8, n=600, noise=130.0)
    assert found(faint).period[0] == pytest.approx(0.61, rel=1e-3)
    assert 0.2 < found(faint).power[0] < 0.6


def test_two_like_eclipses_give_half_the_period() -> None:
    curve = variable(5.2, 9, n=200)
    phase = (curve.t - 60_000) / 5.2 % 0.5
    eclipsed = curve._replace(flux=1_000 - 300 * np.exp(-0.5 * ((phase - 0.25) / 0.06) ** 2))
    assert found(eclipsed).period[0] == pytest.approx(2.6, rel=1e-3)


def test_a_trend_has_the_span_as_its_period() -> None:
    curve = variable(50.0, 10)
    rising = curve._replace(flux=(curve.t - 60_000) * 3)
    span = np.ptp(curve.t)
    assert span / 2 < found(rising).period[0] <= span * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_no_frequency_between_those_of_the_grid_is_better(seed: int) -> None:
    """Noise only: many peaks of like height."""
    curve = variable(1.0, 20 + seed, n=30, span=40.0, bands=2)
    curve = curve._replace(flux=np.random.default_rng(seed).normal(size=30))
    result = found(curve)
    span = np.ptp(curve.t)
    fine = multiband_power(*curve, np.arange(1 / span, 20, 1 / (60 * span)))
    assert result.power[0] > fine.max() - 1e-9
    at = multiband_power(*curve, 1 / result.period)[0]
    assert result.power[0] == pytest.approx(at, abs=1e-9)
    assert 0.5 < result.ratio[0] <= 1


def test_the_second_peak_is_that_of_the_second_period() -> None:
    one = variable(7.7, 11, n=300, noise=1.0)
    t = one.t + np.random.default_rng(11).uniform(0, 1, 300)  # day and night, so without aliases
    both = one._replace(t=t, flux=np.sin(2 * np.pi * t / 7.7) + 0.6 * np.sin(2 * np.pi * t / 0.4))
    result = found(both)
    assert result.period[0] == pytest.approx(7.7, rel=1e-2)
    second = multiband_power(*both, np.linspace(2.5 - 1 / 300, 2.5 + 1 / 300, 99)).max()
    assert result.ratio[0] == pytest.approx(second / result.power[0], abs=1e-3)


def test_bands_of_too_few_times_do_not_count() -> None:
    curve = variable(2.9, 12, bands=4)
    n = 3 * period.MIN_BAND_POINTS
    # As many points as one likes, but at too few times.
    at = np.sort(np.resize(curve.t[:: 90 // (period.MIN_BAND_POINTS - 1)][:5], n))
    more = Curve(at, np.full(n, 5, np.int8), 1e6 * np.cos(np.arange(n)), np.ones(n))
    columns: Any = zip(curve, more, strict=True)
    both = Curve(*(np.concatenate(pair) for pair in columns))
    order = np.argsort(both.t, kind="stable")
    both = taken(both, order)
    pairs: Any = zip(found(curve), found(both), strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(before, after, rtol=1e-12)


# -- invariances -----------------------------------------------------------------------------------


def several() -> list[Curve]:
    chance = np.random.default_rng(13)
    curves = [
        variable(10 ** chance.uniform(-1, 2), int(seed), n=int(chance.integers(15, 80)), span=60.0)
        for seed in range(25)
    ]
    curves[3] = taken(curves[3], slice(0))
    curves[4] = taken(curves[4], slice(3))
    return curves


def test_a_shift_in_time_changes_nothing() -> None:
    before, _ = features(several())
    after, _ = features([c._replace(t=c.t - 50_000.25) for c in several()])
    np.testing.assert_array_equal(before, after)


def test_fluxes_and_errors_scale_as_declared() -> None:
    before, _ = features(several())
    linear = np.array([f.scaling == Scaling.LINEAR for f in PERIOD.features])
    for factor, rtol in ((2.0**-130, 0), (2.0**90, 0), (1.7, 1e-7)):
        after, _ = features(
            [c._replace(flux=factor * c.flux, sigma=factor * c.sigma) for c in several()]
        )
        np.testing.assert_allclose(after, before * np.where(linear, factor, 1), rtol=rtol)


def test_a_bands_mean_and_name_change_nothing() -> None:
    curve = variable(3.3, 14, bands=3)
    moved = curve._replace(flux=curve.flux + 4096.0 * curve.band)
    named = curve._replace(band=np.array([6, 1, 8], np.int8)[curve.band])
    for other in (moved, named):
        pairs: Any = zip(found(curve), found(other), strict=True)
        for before, after in pairs:
            np.testing.assert_allclose(before, after, rtol=1e-6)


def test_batches_may_be_split_anywhere() -> None:
    curves = several()
    whole, why = features(curves)
    for cut in (1, 4, 13):
        parts = [features(curves[:cut]), features(curves[cut:])]
        np.testing.assert_array_equal(np.concatenate([values for values, _ in parts]), whole)
        np.testing.assert_array_equal(np.concatenate([reasons for _, reasons in parts]), why)


def test_the_order_of_rows_changes_nothing() -> None:
    """Through what sorts points for all kernels, ties included."""
    chance = np.random.default_rng(15)
    curves = [c._replace(t=np.round(c.t)) for c in several()[5:]]
    mixed = []
    for curve in curves:
        order = chance.permutation(len(curve.t))
        mixed.append(taken(curve, order))
    results = []
    for made in (curves, mixed):
        points = flat(made)
        points = prepare(
            light_curves(points.offsets, points.t, points.band, points.flux, points.sigma)
        )
        out, why = np.zeros((len(made), 4)), np.zeros((len(made), 4), np.int8)
        PERIOD.kernel(points, None, out, why)
        results.append(out)
    assert np.isfinite(results[0]).any(axis=0).all()
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("column", Curve._fields)
def test_every_feature_depends_on_what_it_declares(column: str) -> None:
    chance = np.random.default_rng(16)
    curve = variable(2.2, 17, n=80)
    changed = {
        "t": np.sort(curve.t + chance.uniform(-3, 3, 80)),
        "band": chance.permutation(curve.band),
        "flux": curve.flux * chance.uniform(-1, 2, 80),
        "sigma": curve.sigma * chance.uniform(0.1, 9, 80),
    }
    before, _ = features([curve])
    after, _ = features([curve._replace(**{column: changed[column]})])
    assert (np.abs(after - before) > 1e-9).all()
    declared = {"t": Input.TIME, "band": Input.BAND, "flux": Input.FLUX, "sigma": Input.SIGMA}
    for feature in PERIOD.features:
        assert feature.inputs == set(declared.values())
        assert feature.min_points == period.MIN_POINTS
    assert PERIOD.cost == Cost.DEAR


# -- what light curves may look like ---------------------------------------------------------------


def made_of(n: int, **columns: Any) -> Curve:
    usual = {
        "t": 60_000 + np.arange(n) * 1.37,
        "band": np.arange(n) % 3,
        "flux": 100 * np.sin(np.arange(n)),
        "sigma": np.full(n, 10.0),
    }
    dtypes = (np.float64, np.int8, np.float64, np.float64)
    parts = {**usual, **columns}
    return Curve(
        *(np.array(np.broadcast_to(parts[name], n), dtype)
          for name, dtype in zip(Curve._fields, dtypes, strict=True))
    )  # fmt: skip


FEW = {
    "no point": made_of(0),
    "one point": made_of(1),
    "two points": made_of(2),
    "nineteen": made_of(19, band=1),
    "equal times": made_of(60, t=60_000.0),
    "two times": made_of(60, t=60_000.0 + (np.arange(60) > 30)),
    "an hour": made_of(60, t=60_000 + np.arange(60) / 1440),
    "five in each band": made_of(30, band=np.arange(30) % 6),
    "unknown bands": made_of(60, band=np.where(np.arange(60) % 2, -1, 9)),
}
EQUAL = {
    "all equal": made_of(60, flux=0.1, sigma=np.linspace(1, 3, 60)),
    "all zero": made_of(60, flux=0.0),
    "equal in each band": made_of(60, flux=1 / 3 + np.arange(60) % 3),
    "one point counts, its weight 1e20 of the next": made_of(
        60, sigma=10.0 ** np.linspace(-300, 300, 60)
    ),
}
NUMBERS = {
    "twenty": made_of(20, band=1),
    "huge": made_of(60, flux=1e30 * np.sin(np.arange(60)), sigma=1e-40),
    "tiny": made_of(60, flux=1e-40 * np.sin(np.arange(60)), sigma=1e30),
    "huge and tiny": made_of(60, flux=10.0 ** np.linspace(-40, 30, 60)),
    "errors huge and tiny": made_of(60, sigma=10.0 ** np.linspace(-40, 30, 60)),
    "every day": made_of(60, t=60_000 + np.arange(60), band=0),
    "every quarter, one band ends early": made_of(
        400, t=60_000 + np.arange(400) / 4, band=np.arange(400) > 9
    ),
    "pairs of equal times": made_of(60, t=60_000 + np.arange(60) // 2 * 1.1),
    "a second long in a year": made_of(
        60, t=60_000 + np.where(np.arange(60) > 3, 365 + np.arange(60) / 5e6, 0), band=0
    ),
    "one point changes": made_of(60, flux=np.eye(60)[7]),
}


@pytest.mark.parametrize("name", [*FEW, *EQUAL, *NUMBERS])
def test_an_odd_light_curve_gives_numbers_or_reasons(name: str) -> None:
    curve = {**FEW, **EQUAL, **NUMBERS}[name]
    with np.errstate(all="raise"):
        values, why = features([FEW["two points"], curve, FEW["no point"]])
    assert ((why == 0) == np.isfinite(values)).all()
    expected = TOO_FEW_POINTS if name in FEW else NO_VARIATION if name in EQUAL else 0
    assert set(why[1]) == {expected}
    if name in NUMBERS:
        days, power, ratio, amplitude = values[1]
        assert days >= 0.05 * (1 - 1e-9)
        assert days <= np.ptp(curve.t) * (1 + 1e-9)
        assert 0 < power <= 1
        assert 0 <= ratio <= 1
        assert amplitude > 0


def test_a_frequency_that_sees_every_point_at_one_phase_explains_nothing() -> None:
    daily = made_of(60, t=60_000 + np.arange(60), band=0)
    assert multiband_power(*daily, np.array([0.0, 1.0, 2.0, 7.0])) == pytest.approx(0, abs=1e-9)
    assert np.isnan(multiband_power(*FEW["two points"], np.ones(3))).all()


def test_a_frequency_that_sees_two_phases_explains_one_combination() -> None:
    """Sine and cosine are then one; twice their normal matrix's rounding was the power once."""
    daily = made_of(60, t=60_000 + np.arange(60), band=0, flux=3.0 * (np.arange(60) % 2))
    near = multiband_power(*daily, np.array([0.5, 0.5 + 1e-12, 1.5]))
    np.testing.assert_allclose(near, 1.0, rtol=1e-6)


def test_ten_thousand_points() -> None:
    curve = variable(0.31, 18, n=10_000, span=60.0)
    result = found(curve)
    assert result.period[0] == pytest.approx(0.31, rel=1e-4)


def allocated() -> int:
    count: int = _nrt.memsys_get_stats_alloc()
    return count


def test_nothing_is_allocated_for_each_light_curve() -> None:
    _nrt.memsys_enable_stats()
    counts = []
    for many in (several(), several() * 10):
        points = flat(many)
        out, why = np.zeros((len(many), 4)), np.zeros((len(many), 4), np.int8)
        before = allocated()
        PERIOD.kernel(points, None, out, why)
        counts.append(allocated() - before)
    _nrt.memsys_disable_stats()
    assert counts[0] == counts[1] > 0
