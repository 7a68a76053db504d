"""Periods are those of the textbook periodogram, and of made-up variables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from astropy.timeseries import LombScargle, LombScargleMultiband  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lightcurves.features import period
from lightcurves.features.declare import NO_VARIATION
from lightcurves.features.period import PERIOD, Periods, find_periods, multiband_power
from lightcurves.features.table import feature_arrays
from tests.lightcurves.light_curves_made import (
    ODD,
    Bare,
    among_unknown_bands,
    bare,
    joined,
    made_of,
    table_of,
    taken,
    together,
)


def times(n: int, span: float, chance: np.random.Generator) -> NDArray[np.float64]:
    """Visits at night, to 1/4096 d so that shifting them is exact."""
    nights = chance.choice(int(span), n, replace=n > span)
    return np.sort(60_000 + nights + chance.integers(0, 1_600, n) / 4096)


def variable(
    days: float, seed: int, n: int = 90, span: float = 300.0, noise: float = 10.0, bands: int = 6
) -> Bare:
    """A sinusoid in each band, with its own mean, amplitude and phase."""
    chance = np.random.default_rng(seed)
    t = times(n, span, chance)
    band = chance.integers(0, bands, n)
    sigma = noise * chance.uniform(0.3, 2.0, n)
    wave = np.sin(2 * np.pi * (t - 60_000) / days + 0.3 * band)
    flux = 1_000 - 80 * band + (100 + 15 * band) * wave + sigma * chance.normal(size=n)
    return Bare(t, band.astype(np.int8), flux, sigma)


def found(*curves: Bare) -> Periods:
    return find_periods(*together(*curves))


def textbook(curve: Bare, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
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
    work = period._workspace_for(np.array([0, 40]), curve.t, 2)
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
    more = Bare(at, np.full(n, 5, np.int8), 1e6 * np.cos(np.arange(n)), np.ones(n))
    both = joined(curve, more)
    order = np.argsort(both.t, kind="stable")
    both = taken(both, order)
    pairs: Any = zip(found(curve), found(both), strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(before, after, rtol=1e-12)


def test_points_of_unknown_bands_are_left_out() -> None:
    curve = variable(2.9, 13)
    more = among_unknown_bands(curve, variable(0.7, 14))
    pairs: Any = zip(found(curve), found(more), strict=True)
    for before, after in pairs:
        np.testing.assert_array_equal(before, after)


# -- invariances -----------------------------------------------------------------------------------


def test_a_bands_mean_and_name_change_nothing() -> None:
    curve = variable(3.3, 14, bands=3)
    moved = curve._replace(flux=curve.flux + 4096.0 * curve.band)
    named = curve._replace(band=np.array([6, 1, 8], np.int8)[curve.band])
    for other in (moved, named):
        pairs: Any = zip(found(curve), found(other), strict=True)
        for before, after in pairs:
            np.testing.assert_allclose(before, after, rtol=1e-6)


# -- what light curves may look like ---------------------------------------------------------------


def test_numbers_of_odd_light_curves_are_in_bounds() -> None:
    told = [odd.curve for odd in ODD.values() if odd.period is None]
    values, _ = feature_arrays(table_of(told), (PERIOD,))
    for curve, (days, power, ratio, amplitude) in zip(told, values, strict=True):
        assert 0.05 * (1 - 1e-9) <= days <= np.ptp(curve.t) * (1 + 1e-9)
        assert 0 < power <= 1
        assert 0 <= ratio <= 1
        assert amplitude > 0


def test_a_point_that_counts_alone_does_not_vary() -> None:
    """Each weight is 1e20 of the next."""
    one = bare(made_of(60, flux=np.sin(np.arange(60)), band=np.arange(60) % 3))
    assert found(one).why[0] == 0
    assert found(one._replace(sigma=10.0 ** np.linspace(-300, 300, 60))).why[0] == NO_VARIATION


def test_a_frequency_that_sees_every_point_at_one_phase_explains_nothing() -> None:
    daily = bare(ODD["every day"].curve)
    assert multiband_power(*daily, np.array([0.0, 1.0, 2.0, 7.0])) == pytest.approx(0, abs=1e-9)
    assert np.isnan(multiband_power(*bare(ODD["two points"].curve), np.ones(3))).all()


def test_a_frequency_that_sees_two_phases_explains_one_combination() -> None:
    """Sine and cosine are then one; twice their normal matrix's rounding was the power once."""
    daily = bare(made_of(60, t=60_000 + np.arange(60), band=0, flux=3.0 * (np.arange(60) % 2)))
    near = multiband_power(*daily, np.array([0.5, 0.5 + 1e-12, 1.5]))
    np.testing.assert_allclose(near, 1.0, rtol=1e-6)


def test_ten_thousand_points() -> None:
    curve = variable(0.31, 18, n=10_000, span=60.0)
    result = found(curve)
    assert result.period[0] == pytest.approx(0.31, rel=1e-4)
