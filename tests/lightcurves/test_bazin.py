from __future__ import annotations

import doctest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import curve_fit, least_squares

from lightcurves.features import bazin
from lightcurves.features.bazin import (
    MARGIN_DAYS,
    MAX_DAYS,
    MIN_DAYS,
    BazinFits,
    bazin_flux,
    fit_bazin,
)
from lightcurves.features.declare import NO_FIT, NO_VARIATION, TOO_FEW_POINTS

LAW = settings(deadline=None, max_examples=50)
START = 60_000.0

Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def textbook(t: Any, a: Any, b: Any, t0: Any, rise: Any, fall: Any) -> Any:
    """Equation 1, as it is printed (with the minus sign)."""
    return a * np.exp(-(t - t0) / fall) / (1 + np.exp(-(t - t0) / rise)) + b


def made_up(
    seed: int, n: int = 40, snr: float = 30.0
) -> tuple[Curve, tuple[float, float, float, float, float]]:
    """A supernova in a season of 150 days, and its parameters."""
    random = np.random.default_rng(seed)
    fall = random.uniform(12, 40)
    rise = fall * random.uniform(0.05, 0.4)
    truth = (random.uniform(500, 5000), random.normal(0, 50), random.uniform(40, 70), rise, fall)
    t = np.sort(random.uniform(0, 150, n))
    sigma = truth[0] / snr * random.uniform(0.5, 2, n)
    flux = textbook(t, *truth) + sigma * random.normal(size=n)
    moved = (truth[0], truth[1], truth[2] + START, rise, fall)
    return (t + START, flux, sigma), moved


def together(curves: list[Curve]) -> tuple[Any, Any, Any, Any]:
    offsets = np.cumsum([0, *(curve[0].size for curve in curves)])
    t, flux, sigma = (np.concatenate(columns) for columns in zip(*curves, strict=True))
    return t, flux, sigma, offsets


def fit(*curves: Curve, starts: int = 3) -> BazinFits:
    return fit_bazin(*together(list(curves)), starts=starts)


def least_chi2(curve: Curve) -> float:
    """The slow twin: scipy from 24 starts, in the parameters and bounds that the kernel has."""
    t, flux, sigma = curve
    t = t - START
    rates = (-np.log(MAX_DAYS), -np.log(MIN_DAYS))

    def residuals(x: Any) -> Any:
        m, log_a, log_b, base, height = x
        a, b = np.exp(log_a), np.exp(log_b)
        u = t - m
        h = (a + b) / (a * np.exp(np.minimum(b * u, 600)) + b * np.exp(np.minimum(-a * u, 600)))
        return (base + height * h - flux) / sigma

    top = np.abs(flux).max()
    low = [t[0] - MARGIN_DAYS, rates[0], rates[0], -np.inf, 0.0]
    high = [t[-1] + MARGIN_DAYS, rates[1], rates[1], np.inf, np.inf]
    found = [
        least_squares(
            residuals,
            [m, -np.log(rise), -np.log(fall), 0.0, top],
            bounds=(low, high),
            x_scale=[10.0, 1.0, 1.0, top, top],
            max_nfev=200,
        ).cost
        for m in np.quantile(t, [0.15, 0.35, 0.5, 0.7])
        for rise in (1.5, 8.0)
        for fall in (6.0, 20.0, 80.0)
    ]
    return float(2 * min(found))


def test_what_was_put_in_comes_out() -> None:
    """Of 400 curves, each parameter lies within its error as often as a normal deviate does."""
    curves, truths = zip(*(made_up(seed) for seed in range(400)), strict=True)
    fits = fit(*curves)
    assert not fits.why.any()
    pulls = (fits.values - np.array(truths)) / fits.errors
    known = np.isfinite(fits.errors)
    assert known.mean() > 0.98
    for k in range(5):
        pull = pulls[known[:, k], k]
        assert np.mean(np.abs(pull) < 1) == pytest.approx(0.683, abs=0.08)
        assert np.mean(np.abs(pull) < 3) > 0.97
    assert np.mean(fits.reduced_chi2) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("snr", [2.0, 30.0, 1000.0])
def test_scipy_finds_nothing_better(snr: float) -> None:
    """With six starts no chi-square is larger than the twin's by more than 1e-3 of it and 0.01."""
    curves = [made_up(seed, n=25, snr=snr)[0] for seed in range(4)]
    found = fit(*curves, starts=6).reduced_chi2 * 20
    for chi2, curve in zip(found, curves, strict=True):
        assert chi2 <= 1.001 * least_chi2(curve) + 0.01


def test_errors_are_those_of_scipy() -> None:
    for seed in range(10):
        curve, _ = made_up(seed, snr=100.0)
        fits = fit(curve)
        moved = fits.values[0] - [0, 0, START, 0, 0]
        best, covariance = curve_fit(
            textbook, curve[0] - START, curve[1], p0=moved, sigma=curve[2], absolute_sigma=True
        )
        errors = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(fits.errors[0], errors, rtol=0.03)
        assert (np.abs(moved - best) < 0.02 * errors).all()


def test_products_are_those_of_finite_differences() -> None:
    curve, _ = made_up(3)
    t, flux = curve[0] - START, curve[1]
    w = 1 / curve[2] ** 2
    at = np.array([55.0, -1.2, -2.9, 10.0, 800.0])
    gram = np.zeros((6, 6))
    gram[0, 0] = w.sum()
    bazin._sum_products(t.size, t, flux, w, at, gram)

    def shape(x: Any) -> Any:
        a, b = np.exp(x[1]), np.exp(x[2])
        return (a + b) / (a * np.exp(b * (t - x[0])) + b * np.exp(-a * (t - x[0])))

    columns = [np.ones_like(t), shape(at)]
    for k in range(3):
        step = 1e-5 * np.eye(5)[k]
        columns.append((shape(at + step) - shape(at - step)) / 2e-5)
    columns.append(flux - at[3] - at[4] * shape(at))
    expected = np.array([[np.sum(w * one * two) for two in columns] for one in columns])
    size = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        gram / np.outer(size, size), np.triu(expected) / np.outer(size, size), atol=1e-8
    )


def test_own_exponential() -> None:
    x = np.linspace(-999, 999, 20_001)
    ours = np.array([bazin._exp2(one) for one in x])
    np.testing.assert_allclose(ours, np.exp2(x), rtol=1e-15)
    assert bazin._exp2(1e300) == 2.0**1000
    assert bazin._exp2(-1e300) == 2.0**-1000


def test_no_flag_destroys_nan() -> None:
    kernels = [one for one in vars(bazin).values() if hasattr(one, "targetoptions")]
    assert len(kernels) > 10
    for kernel in kernels:
        flags = kernel.targetoptions.get("fastmath", set())
        assert isinstance(flags, set)
        assert not flags & {"fast", "nnan", "ninf"}
        assert kernel.targetoptions["nogil"]


def test_flux_is_the_textbook() -> None:
    t = np.linspace(-50, 200, 400)
    values = np.array([300.0, -4.0, 20.0, 3.0, 30.0])
    np.testing.assert_allclose(bazin_flux(t, values), textbook(t, *values), rtol=1e-12)
    far = bazin_flux(np.array([-1e5, 1e5, np.nan]), values)
    np.testing.assert_array_equal(far, [-4.0, -4.0, np.nan])


def test_reduced_chi2_is_that_of_the_values() -> None:
    curves = [made_up(seed, snr=snr)[0] for seed in range(20) for snr in (1.0, 30.0, 1e4)]
    fits = fit(*curves)
    for (t, flux, sigma), values, reduced in zip(
        curves, fits.values, fits.reduced_chi2, strict=True
    ):
        chi2 = np.sum(((flux - bazin_flux(t, values)) / sigma) ** 2)
        assert reduced == pytest.approx(chi2 / (t.size - 5), rel=1e-6)


def assert_close(one: BazinFits, two: BazinFits, chi2: float = 1e-5) -> None:
    """Equal but for where the last step of the descent ended: a hundredth of an error."""
    np.testing.assert_array_equal(one.why, two.why)
    np.testing.assert_allclose(one.reduced_chi2, two.reduced_chi2, rtol=chi2)
    known = np.isfinite(one.errors) & np.isfinite(two.errors)
    apart = np.abs(one.values - two.values)[known] / one.errors[known]
    assert (apart < 0.02).all()


@LAW
@given(st.integers(0, 2**31), st.floats(-1e5, 1e5))
def test_time_may_shift(seed: int, shift: float) -> None:
    curve, _ = made_up(seed)
    moved = fit((curve[0] + shift, curve[1], curve[2]))
    moved.values[:, 2] -= shift
    assert_close(fit(curve), moved)


@LAW
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
@example(70448, 1.5)  # the peak is in a gap: steps along what no point sees were rounding
def test_flux_may_scale(seed: int, factor: float) -> None:
    curve, _ = made_up(seed)
    scaled = fit((curve[0], factor * curve[1], factor * curve[2]))
    scaled.values[:, :2] /= factor
    scaled.errors[:, :2] /= factor
    assert_close(fit(curve), scaled)


@LAW
@given(st.integers(0, 2**31), st.integers(1, 60), st.booleans())
def test_order_is_no_input(seed: int, n: int, doubled: bool) -> None:  # noqa: FBT001
    random = np.random.default_rng(seed)
    (t, flux, sigma), _ = made_up(seed, n)
    if doubled:
        t = START + np.round((t - START) / 10) * 10
    mixed = random.permutation(n)
    for one, two in zip(
        fit((t, flux, sigma)), fit((t[mixed], flux[mixed], sigma[mixed])), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_neither_batch_nor_thread_is_an_input() -> None:
    curves = [made_up(seed, 5 + seed % 50)[0] for seed in range(60)]
    whole = fit(*curves)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda part: fit(*part), (curves[:7], curves[7:], curves)))
    for k, column in enumerate(whole):
        np.testing.assert_array_equal(column, np.concatenate([parts[0][k], parts[1][k]]))
        np.testing.assert_array_equal(column, parts[2][k])


def test_input_is_left_alone() -> None:
    given_ = together([made_up(1)[0], made_up(2)[0]])
    kept = [column.copy() for column in given_]
    fit_bazin(*given_)
    for column, copy in zip(given_, kept, strict=True):
        np.testing.assert_array_equal(column, copy)


BAD: list[tuple[int, float]] = [
    (column, value) for column in range(3) for value in (np.nan, np.inf, -np.inf)
]


@pytest.mark.parametrize(("column", "value"), [*BAD, (2, 0.0), (2, -1.0)])
def test_a_bad_point_is_no_point(column: int, value: float) -> None:
    curve, _ = made_up(5)
    for place in (0, 17, 40):
        columns = [np.insert(one, place, one[3]) for one in curve]
        columns[column][place] = value
        for one, two in zip(fit(curve), fit((columns[0], columns[1], columns[2])), strict=True):
            np.testing.assert_array_equal(one, two)


def reason_of(t: Any, flux: Any, sigma: Any) -> int:
    t, flux, sigma = (np.asarray(column, np.float64) for column in (t, flux, sigma))
    fits = fit((t, flux, sigma))
    missing = fits.why[0] != 0
    assert np.isnan(fits.values).all() == missing
    assert np.isnan(fits.reduced_chi2).all() == missing
    if missing:
        assert np.isnan(fits.errors).all()
    return int(fits.why[0])


def test_what_cannot_be_fitted() -> None:
    days = np.arange(20.0)
    ones = np.ones(20)
    bump = np.exp(-0.5 * (days - 8) ** 2)
    for n in range(6):
        assert reason_of(days[:n], bump[:n], ones[:n]) == TOO_FEW_POINTS
    assert reason_of(days[:6], bump[:6], ones[:6]) == 0
    assert reason_of(0 * days, bump, ones) == TOO_FEW_POINTS
    assert reason_of(days % 4, bump, ones) == TOO_FEW_POINTS
    assert reason_of(days % 5, bump, ones) == 0
    assert reason_of(np.nan * days, bump, ones) == TOO_FEW_POINTS
    assert reason_of(days, np.nan * days, ones) == TOO_FEW_POINTS
    assert reason_of(days, bump, np.inf * ones) == TOO_FEW_POINTS
    assert reason_of(days, 7.25 * ones, ones) == NO_VARIATION
    assert reason_of(days, np.where(days == 8, 1e308, -1e308), ones) == NO_FIT


def test_no_light_curve_is_a_table_without_rows() -> None:
    nothing = np.zeros(0)
    fits = fit_bazin(nothing, nothing, nothing, np.zeros(1, np.int64))
    assert [column.shape for column in fits] == [(0, 5), (0, 5), (0,), (0,)]


NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-100, 100), st.integers(-3, 3)
)


@LAW
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=20), st.integers(0, 3))
def test_whatever_comes_in(points: list[tuple[float, float, float]], starts: int) -> None:
    t, flux, sigma = np.array(points, np.float64).reshape(-1, 3).T
    other, _ = made_up(1)
    fits = fit(other, (t, flux, sigma), other, starts=starts)
    evaluated = fits.why == 0
    assert np.isfinite(fits.values[evaluated]).all()
    assert np.isfinite(fits.reduced_chi2[evaluated]).all()
    assert not np.isinf(fits.errors).any()
    assert (fits.values[evaluated][:, 3] < fits.values[evaluated][:, 4]).all()
    for column in fits:
        np.testing.assert_array_equal(column[0], column[2])


def test_ten_thousand_points() -> None:
    curve, truth = made_up(9, 10_000)
    fits = fit(curve)
    assert (np.abs(fits.values[0] - truth) < 5 * fits.errors[0]).all()
    mixed = np.random.default_rng(1).permutation(10_000)
    np.testing.assert_array_equal(
        fit((curve[0][mixed], curve[1][mixed], curve[2][mixed])).values, fits.values
    )


def test_a_tail_alone_does_not_tell_the_peak() -> None:
    t = np.arange(0.0, 100.0, 3.0)
    flux = 1000 * np.exp(-t / 25) + np.random.default_rng(2).normal(0, 5, t.size)
    fits = fit((t, flux, np.full(t.size, 5.0)))
    assert np.isnan(fits.errors[0]).tolist() == [True, False, True, True, False]
    assert abs(fits.values[0, 4] - 25) < 4 * fits.errors[0, 4]


def test_example() -> None:
    runner = doctest.DocTestRunner()
    for found in doctest.DocTestFinder().find(fit_bazin, globs=vars(bazin)):
        runner.run(found)
    assert runner.summarize().attempted > 0
    assert runner.summarize().failed == 0
