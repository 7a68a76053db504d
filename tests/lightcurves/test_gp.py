"""The filter is the dense Gaussian process to rounding, and its fit is the most likely one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from lightcurves.bands import BANDS, wavelengths_nm
from lightcurves.features import gp
from lightcurves.features.declare import NO_VARIATION, NOT_IN_BAND
from lightcurves.features.gp import GP, Processes, fit_gp, predict_gp
from lightcurves.features.table import feature_arrays
from tests.lightcurves.light_curves_made import (
    ODD,
    Bare,
    among_unknown_bands,
    bare,
    full,
    supernova,
    table_of,
    taken,
    together,
)

NAMES = [feature.name for feature in GP.features]


def matern(x: Any) -> Any:
    return (1 + np.sqrt(3) * x) * np.exp(-np.sqrt(3) * x)


def kernel(one: Any, other: Any, amplitude: float, length: float) -> NDArray[np.float64]:
    """A^2 m(|dt|/l) m(|dw|/600 nm) between two sets of times and bands."""
    wave = wavelengths_nm()
    in_time = matern(np.abs(one[0][:, None] - other[0][None, :]) / length)
    across = matern(np.abs(wave[one[1]][:, None] - wave[other[1]][None, :]) / 600)
    product: NDArray[np.float64] = amplitude**2 * in_time * across
    return product


def noise_of(curve: Bare) -> NDArray[np.float64]:
    best = np.argmax(np.abs(curve.flux) / curve.sigma)
    noise: NDArray[np.float64] = np.maximum(curve.sigma, 1e-4 * np.abs(curve.flux[best]))
    return noise


def likelihood(curve: Bare, amplitude: float, length: float) -> float:
    """By Cholesky's factor of the whole matrix."""
    k = kernel(curve, curve, amplitude, length) + np.diag(noise_of(curve) ** 2)
    factor = np.linalg.cholesky(k)
    z = np.linalg.solve(factor, curve.flux)
    return float(-0.5 * z @ z - np.log(np.diag(factor)).sum() - z.size * np.log(2 * np.pi) / 2)


def constants(curve: Bare) -> float:
    """The ln likelihood of a weighted mean in each band."""
    noise, total = noise_of(curve), 0.0
    for b in np.unique(curve.band):
        flux, s = curve.flux[curve.band == b], noise[curve.band == b]
        pull = (flux - np.average(flux, weights=s**-2)) / s
        total -= 0.5 * np.sum(pull**2 + np.log(2 * np.pi * s**2))
    return total


def dense(curve: Bare, amplitude: float, length: float, t: Any, band: Any) -> tuple[Any, Any]:
    """Mean and standard deviation by the textbook (Rasmussen & Williams 2006, eq. 2.25, 2.26)."""
    k = kernel(curve, curve, amplitude, length) + np.diag(noise_of(curve) ** 2)
    cross = kernel((t, band), curve, amplitude, length)
    variance = amplitude**2 - np.sum(cross * np.linalg.solve(k, cross.T).T, axis=1)
    return cross @ np.linalg.solve(k, curve.flux), np.sqrt(variance)


def drawn(
    seed: int, n: int = 60, length: float = 20.0, span: float = 120.0, error: float = 20.0
) -> Bare:
    """A light curve from the prior with A = 500 nJy; times lie on a grid of 1/1024 d."""
    chance = np.random.default_rng(seed)
    t = 60_000 + np.sort(chance.choice(int(span * 1024), n, replace=False)) / 1024
    band = chance.integers(0, 6, n).astype(np.int8)
    k = kernel((t, band), (t, band), 500.0, length) + 1e-6 * np.eye(n)
    sigma = error * chance.uniform(0.5, 2, n)
    flux = np.linalg.cholesky(k) @ chance.normal(size=n) + sigma * chance.normal(size=n)
    return Bare(t, band, flux, sigma)


def codes(bands: Any) -> NDArray[np.int8]:
    return np.array(bands, np.int8)


def fitted(*curves: Bare) -> Processes:
    return fit_gp(*together(*curves))


def features(curve: Bare) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    values, why = feature_arrays(table_of([full(curve)]), (GP,))
    return values[0], why[0]


def likelihood_here(curve: Bare, amplitude: float, length: float) -> float:
    """The module's own likelihood."""
    n = len(curve.t)
    work = gp._workspace(n, gp._kernel_between(wavelengths_nm()))
    points, bands, _, scale = gp._load(*curve, work)
    value = gp._filter(amplitude / scale, length, points, bands, work)
    return float(value - n * np.log(scale))


# -- the process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0.3, 5.0, 40.0, 900.0])
@pytest.mark.parametrize("amplitude", [3.0, 400.0, 20_000.0])
def test_the_likelihood_is_the_dense_one(amplitude: float, length: float) -> None:
    for curve in (drawn(1), supernova(2), drawn(3)._replace(band=np.arange(60, dtype=np.int8) % 9)):
        here, there = (f(curve, amplitude, length) for f in (likelihood_here, likelihood))
        assert here == pytest.approx(there, rel=1e-8)


def test_the_likelihood_is_exact_up_to_the_best_signal_to_noise() -> None:
    """Where errors are 1e-4 of the flux, covariances are all but singular."""
    curve = drawn(4, n=100, span=20.0, error=1e-3)
    for length in (1.0, 20.0, 300.0):
        here, there = (f(curve, 500.0, length) for f in (likelihood_here, likelihood))
        assert here == pytest.approx(there, rel=1e-6)


def test_the_likelihood_of_points_at_equal_times_is_the_dense_one() -> None:
    curve = drawn(5)
    tied = curve._replace(t=np.round(curve.t / 8) * 8)
    assert likelihood_here(tied, 300, 9) == pytest.approx(likelihood(tied, 300, 9), rel=1e-8)


@pytest.mark.parametrize("length", [0.5, 8.0, 60.0])
def test_the_prediction_is_the_dense_one(length: float) -> None:
    curve = drawn(6)
    chance = np.random.default_rng(7)
    t = np.concatenate([chance.uniform(59_900, 60_300, 150), curve.t[:20]])
    band = chance.integers(0, 9, 170).astype(np.int8)
    mean, sd = predict_gp(*curve, 450.0, length, t, band)
    expected_mean, expected_sd = dense(curve, 450.0, length, t, band)
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=450 * 1e-8)
    np.testing.assert_allclose(sd, expected_sd, rtol=0, atol=450 * 1e-8)


def test_one_band_is_that_of_scikit_learn() -> None:
    curve = drawn(8)._replace(band=np.full(60, 3, np.int8))
    model = GaussianProcessRegressor(
        ConstantKernel(300.0**2) * Matern(12.0, nu=1.5), alpha=curve.sigma**2, optimizer=None
    ).fit(curve.t[:, None], curve.flux)
    assert likelihood_here(curve, 300, 12) == pytest.approx(
        model.log_marginal_likelihood_value_, rel=1e-8
    )
    t = np.linspace(59_990, 60_130, 70)
    mean, sd = predict_gp(*curve, 300.0, 12.0, t, codes([3]))
    expected_mean, expected_sd = model.predict(t[:, None], return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=300 * 1e-8)
    np.testing.assert_allclose(sd, expected_sd, rtol=0, atol=300 * 1e-6)


def test_predictions_have_the_shape_asked_for() -> None:
    curve = drawn(9)
    t = np.linspace(60_000, 60_100, 5)
    band = np.arange(3, dtype=np.int8)[:, None]
    mean, sd = predict_gp(*curve, 400.0, 20.0, t, band)
    assert mean.shape == sd.shape == (3, 5)
    pairs = predict_gp(*curve, 400.0, 20.0, t, np.full(5, 2, np.int8))
    np.testing.assert_allclose(mean[2], pairs[0], rtol=1e-9)
    order = np.random.default_rng(1).permutation(60)
    mixed = taken(curve, order)
    np.testing.assert_array_equal(predict_gp(*mixed, 400.0, 20.0, t, band)[0], mean)
    assert predict_gp(*curve, 400.0, 20.0, t[:0], codes([2]))[0].size == 0


def test_where_no_point_is_the_prior_is() -> None:
    nothing = taken(drawn(10), slice(0))
    far = np.array([10_000.0, 99_000.0])
    for curve in (nothing, drawn(10)):
        mean, sd = predict_gp(*curve, 400.0, 20.0, far, codes([1]))
        assert mean.tolist() == [0, 0]
        assert sd.tolist() == [400, 400]


@pytest.mark.parametrize(
    ("amplitude", "length", "band"),
    [(0.0, 1.0, 0), (1.0, -1.0, 0), (np.nan, 1.0, 0), (1.0, np.inf, 0), (1.0, 1.0, len(BANDS)),
     (1.0, 1.0, -1)],
)  # fmt: skip
def test_a_prediction_needs_numbers_that_mean_something(
    amplitude: float, length: float, band: int
) -> None:
    with pytest.raises(ValueError, match=r"amplitude|band_grid"):
        predict_gp(*drawn(11), amplitude, length, np.ones(2), codes([band]))


# -- the fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_no_search_finds_a_likelier_process(seed: int) -> None:
    """Four simplices with more patience gain less than a thousandth of ln likelihood."""
    chance = np.random.default_rng(seed)
    length = float(10 ** chance.uniform(-0.5, 2.3))
    for curve in (drawn(seed, n=int(chance.integers(6, 60)), length=length), supernova(seed)):
        fit = fitted(curve)
        scale = np.abs(curve.flux[np.argmax(np.abs(curve.flux) / curve.sigma)])
        low, high = np.log([1e-3 * scale, 0.1]), np.log([100 * scale, 1000])

        def less(p: Any, curve: Bare = curve, low: Any = low, high: Any = high) -> float:
            return -likelihood_here(curve, *np.exp(np.clip(p, low, high)))

        best = max(
            -minimize(less, np.log([a, days]), method="Nelder-Mead", options={"maxiter": 150}).fun
            for a in (0.3 * scale, 3 * scale)
            for days in (1.0, 50.0)
        )
        n = len(curve.t)
        assert n * fit.log_likelihood[0] > best - 1e-3
        there = likelihood(curve, fit.amplitude[0], fit.length[0])
        assert fit.log_likelihood[0] == pytest.approx(there / n, rel=1e-8)
        assert fit.gain[0] == pytest.approx((there - constants(curve)) / n, rel=1e-8)


@pytest.mark.parametrize("length", [2.0, 15.0])
def test_what_was_drawn_is_recovered(length: float) -> None:
    fits = fitted(*(drawn(seed, n=250, length=length, span=200) for seed in range(12)))
    assert np.median(fits.length) == pytest.approx(length, rel=0.2)
    assert np.median(fits.amplitude) == pytest.approx(500, rel=0.2)
    assert np.ptp(np.log(fits.length)) < 1.2
    assert (fits.gain > 0.5).all()


def test_noise_is_no_process() -> None:
    chance = np.random.default_rng(12)
    curves = [c._replace(flux=c.sigma * chance.normal(size=60)) for c in map(drawn, range(40))]
    fits = fitted(*curves)
    assert np.mean(fits.why == NO_VARIATION) > 0.8
    assert np.isnan(fits.length[fits.why != 0]).all()


def test_a_level_that_never_changes_has_the_longest_length() -> None:
    curve = drawn(13)
    level = curve._replace(flux=np.full(60, 800.0), band=np.zeros(60, np.int8))
    fit = fitted(level)
    assert fit.length[0] == pytest.approx(gp.MAX_DAYS, rel=1e-9)
    assert -0.2 < fit.gain[0] <= 0


def test_the_peak_is_that_of_the_prediction() -> None:
    for seed in range(6):
        curve = supernova(seed)
        values = dict(zip(NAMES, features(curve)[0], strict=True))
        length, amplitude = values["gp_length_days"], values["gp_amplitude_njy"]
        at = curve.t[0] + values["gp_days_to_peak"]
        bands = np.unique(curve.band)
        t = np.linspace(curve.t[0], curve.t[-1], 2_000)
        mean = predict_gp(*curve, amplitude, length, t, bands[:, None])[0]
        assert values["gp_peak_njy"] == pytest.approx(mean.max(), rel=1e-4)
        assert at == pytest.approx(t[mean.max(axis=0).argmax()], abs=0.2)
        f = predict_gp(*curve, amplitude, length, at, np.arange(6, dtype=np.int8))[0]
        assert f.max() == pytest.approx(values["gp_peak_njy"], rel=1e-8)
        for pair, (blue, red) in enumerate(zip("ugriz", "grizy", strict=True)):
            expected = (f[pair] - f[pair + 1]) / (abs(f[pair]) + abs(f[pair + 1]))
            assert values[f"{blue}{red}_contrast_gp"] == pytest.approx(expected, abs=1e-8)


def test_a_fading_source_peaks_downwards() -> None:
    curve = supernova(14)
    up, down = features(curve)[0], features(curve._replace(flux=-curve.flux))[0]
    sign = np.array([-1 if n == "gp_peak_njy" or "contrast" in n else 1 for n in NAMES])
    np.testing.assert_array_equal(down, up * sign)


def test_a_colour_needs_points_in_both_bands() -> None:
    curve = supernova(15)
    some = curve._replace(band=np.array([1, 2, 4], np.int8)[curve.band % 3])
    values, why = features(some)
    assert why.tolist() == [0] * 5 + [NOT_IN_BAND, 0, NOT_IN_BAND, NOT_IN_BAND, NOT_IN_BAND]
    assert ((why == 0) == np.isfinite(values)).all()


# -- what light curves may look like ---------------------------------------------------------------


def test_points_of_unknown_bands_are_left_out() -> None:
    curve = drawn(16)
    more = among_unknown_bands(curve, drawn(17))
    pairs: Any = zip(fitted(curve), fitted(more), strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(before, after, rtol=1e-9)


def test_numbers_of_odd_light_curves_are_in_bounds() -> None:
    told = [odd.curve for odd in ODD.values() if odd.gp is None]
    values, _ = feature_arrays(table_of(told), (GP,))
    for curve, row in zip(told, values, strict=True):
        assert gp.MIN_DAYS * (1 - 1e-9) <= row[0] <= gp.MAX_DAYS * (1 + 1e-9)
        assert row[1] > 0
        assert 0 <= row[4] <= np.ptp(curve.t)


def test_predictions_of_extreme_points_are_finite() -> None:
    for odd in ODD.values():
        if odd.gp is None and len(odd.curve.t) < 1_000:
            curve = bare(odd.curve)
            amplitude, length = (v[0] for v in fitted(curve)[:2])
            t = np.linspace(curve.t[0] - 5, curve.t[-1] + 5, 40)
            mean, sd = predict_gp(*curve, amplitude, length, t, codes([[0], [8]]))
            assert np.isfinite(mean).all()
            assert ((sd >= 0) & (sd <= amplitude * (1 + 1e-9))).all()
