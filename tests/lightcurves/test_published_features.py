"""Where a published library has the same quantity, it has the same value."""

from __future__ import annotations

from typing import Any

import light_curve
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lightcurves.arrays import LightCurves
from lightcurves.features.bands import BANDS
from lightcurves.features.declare import Context
from lightcurves.features.registry import compute

N = 200


def bands(seed: int, least: int) -> list[tuple[Any, ...]]:
    """Single-band light curves whose values are exact in float32."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(N):
        size = int(chance.integers(least, 80))
        t = np.sort(chance.choice(90 * 1024, size, replace=False)) / 1024
        sigma = chance.uniform(0.5, 30, size).astype(np.float32)
        flux = (chance.normal(0, 50, size) + 99 * np.sin(t / 9)).astype(np.float32)
        made.append((t, flux.astype(np.float64), sigma.astype(np.float64)))
    return made


def ours(made: list[tuple[Any, ...]]) -> dict[str, NDArray[np.float64]]:
    n = sum(len(t) for t, _, _ in made)
    columns = [np.concatenate(column) for column in zip(*made, strict=True)]
    curves = LightCurves(
        np.cumsum([0, *(len(t) for t, _, _ in made)]),
        columns[0],
        np.full(n, 2, np.int8),
        columns[1].astype(np.float32),
        columns[2].astype(np.float32),
        np.zeros(n, np.int8),
        np.zeros(n, np.int8),
    )
    nothing = Context(*(np.full(len(made), np.nan) for _ in Context._fields))
    values, _ = compute(curves, nothing, (BANDS,))
    names = [feature.name for feature in BANDS.features]
    return {name[2:]: values[:, k] for k, name in enumerate(names) if name.startswith("r_")}


SAME: dict[str, tuple[Any, int]] = {
    "mean_njy": (light_curve.WeightedMean(), 0),
    "median_njy": (light_curve.Median(), 0),
    "mad_njy": (light_curve.MedianAbsoluteDeviation(), 0),
    "chi2": (light_curve.ReducedChi2(), 0),
    "beyond_std": (light_curve.BeyondNStd(1.0), 0),
    "stetson_k": (light_curve.StetsonK(), 0),
    "trend": (light_curve.LinearFit(), 0),
}


@pytest.mark.parametrize("name", SAME)
def test_a_statistic_is_that_of_light_curve(name: str) -> None:
    made = bands(1, 5)
    feature, column = SAME[name]
    expected = feature.many(made, sorted=True, n_jobs=1)[:, column]
    np.testing.assert_allclose(ours(made)[name], expected, rtol=1e-9, atol=1e-9)


def test_the_significance_of_a_trend_is_its_slope_over_its_error() -> None:
    made = bands(2, 5)
    fit = light_curve.LinearFit().many(made, sorted=True, n_jobs=1)
    np.testing.assert_allclose(ours(made)["trend_snr"], fit[:, 0] / fit[:, 1], rtol=1e-9)


def test_the_excess_variance_is_that_of_light_curve_scaled_by_the_range() -> None:
    made = bands(3, 5)
    theirs = light_curve.ExcessVariance().many(made, sorted=True, n_jobs=1)[:, 0]
    mean = np.array([flux.mean() for _, flux, _ in made])
    spread = np.array([np.ptp(flux) for _, flux, _ in made])
    found = ours(made)["excess"] * spread / mean
    np.testing.assert_allclose(np.sign(found * mean) * found**2, theirs, rtol=1e-8)


def test_moments_are_scipys() -> None:
    made = bands(4, 4)
    found = ours(made)
    for row, (_, flux, _) in enumerate(made):
        assert found["skewness"][row] == pytest.approx(stats.skew(flux), rel=1e-9)
        assert found["kurtosis"][row] == pytest.approx(stats.kurtosis(flux), rel=1e-9)
        deviation = stats.median_abs_deviation(flux)
        assert found["mad_njy"][row] == pytest.approx(deviation, rel=1e-12)
        low, high = np.quantile(flux, (0.05, 0.95))
        assert found["amplitude_njy"][row] == pytest.approx((high - low) / 2, rel=1e-9)


def test_every_quantity_that_both_have_is_compared() -> None:
    """What has no twin there is last, a scaled form of one, or the largest flux."""
    others = {"max_njy", "amplitude_njy", "std_njy", "excess", "skewness", "kurtosis"}
    others |= {"von_neumann", "last_level", "last_slope", "trend_snr"}
    assert set(ours(bands(5, 5))) == set(SAME) | others
