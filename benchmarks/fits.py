"""Bazin's function on one thread: noctule beside light-curve's and scipy's fits, in one run.

The curves are PLAsTiCC's supernovae in single bands with 30 to 60 points. The chi-square that a tool
reports is not used: all are computed here, from the parameters alone. The package ``light-curve``
is no dependency: install it into a folder of its own and name that in PYTHONPATH.

``--plot FILE`` draws fits over twenty of the curves.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

from benchmarks.distributions import ztf_supernovae
from benchmarks.setting import best_s, finish, plasticc, print_table
from lightcurves.arrays import light_curves_of
from lightcurves.bands import BAND_CODES, LSST_BANDS
from lightcurves.features.bazin import bazin_flux, fit_bazin
from lightcurves.taxonomy import CLASS_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SUPERNOVAE: Final = (111, 112, 113, 114, 115, 131)
OURS: Final = ((1, 30), (2, 30), (3, 30), (3, 10), (6, 30), (16, 60))
THEIRS: Final = ("lmsder", "ceres", "mcmc-lmsder", "mcmc", "mcmc-ceres")
SUBSAMPLE: Final = 10
LEAST_REAL: Final = 10
"""Every tenth curve for scipy."""
POINTS: Final = (10, 30, 100, 300, 1_000, 3_000, 10_000)


class Curves(NamedTuple):
    """Light curves of one band, as ``fit_bazin`` wants them."""

    t: NDArray[np.float64]
    flux: NDArray[np.float64]
    sigma: NDArray[np.float64]
    offsets: NDArray[np.int64]
    title: list[str]

    def one(self, k: int) -> tuple[Any, Any, Any]:
        """Return time, flux and error of one curve."""
        part = slice(self.offsets[k], self.offsets[k + 1])
        return self.t[part], self.flux[part], self.sigma[part]

    def take(self, chosen: Any) -> Curves:
        """Return the numbered curves."""
        parts = [self.one(k) for k in chosen]
        t, flux, sigma = (np.concatenate(column) for column in zip(*parts, strict=True))
        offsets = np.cumsum([0, *(part[0].size for part in parts)])
        return Curves(t, flux, sigma, offsets, [self.title[k] for k in chosen])


class Result(NamedTuple):
    """What one tool did: seconds per curve, and reduced chi-square of its curves."""

    s: float
    reduced: NDArray[np.float64]

    def numbers(self) -> dict[str, float]:
        """Return what the table shows."""
        failed = ~np.isfinite(self.reduced)
        low, median, high = np.quantile(np.where(failed, np.inf, self.reduced), [0.25, 0.5, 0.75])
        return {
            "us a curve": 1e6 * self.s,
            "lower quartile": low,
            "median": median,
            "upper quartile": high,
            "below 3": float(np.mean(self.reduced < 3)),
            "failed": float(np.mean(failed)),
        }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, help="draw twenty fits into this file")
    parser.add_argument("--plot-real", type=Path, help="the same, of ZTF's type Ia supernovae")
    arguments = parser.parse_args()
    if arguments.plot_real:
        plot(real_bands(), arguments.plot_real)
        return
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        curves = supernova_bands(Path(name))
    if arguments.plot:
        plot(curves, arguments.plot)
        return
    print(f"{len(curves.title):,} curves of {np.diff(curves.offsets).mean():.1f} points\n")
    results = compare(curves)
    print_results(results, curves)
    one, two = threads_s(curves)
    print(f"{one / two:10.3g} times faster with two threads\n")
    sizes = {n: size_s(n) for n in POINTS}
    rows = [(f"{n:,}", f"{1e6 * s:,.1f}", f"{1e9 * s / n:,.0f}") for n, s in sizes.items()]
    print_table(("points", "us a curve", "ns a point"), rows)
    finish(
        {
            "fits": {name: result.numbers() for name, result in results.items()},
            "times faster with two threads": one / two,
            "us a curve by points": {n: 1e6 * s for n, s in sizes.items()},
        }
    )


def real_bands() -> Curves:
    """Return the bands of ZTF's real type Ia supernovae that have ten points or more."""
    table = ztf_supernovae()
    whole = light_curves_of(table)
    rows, counts, title = [], [0], []
    for k, name in enumerate(table["object_name"].to_pylist()):
        low, high = whole.offsets[k], whole.offsets[k + 1]
        for band in ("ztf_g", "ztf_r"):
            points = low + np.flatnonzero(whole.band[low:high] == BAND_CODES[band])
            if points.size >= LEAST_REAL:
                rows.append(points)
                counts.append(points.size)
                title.append(f"{name}, {band}")
    chosen = np.concatenate(rows)
    columns = (whole.t_mjd_tai, whole.flux_njy, whole.sigma_njy)
    t, flux, sigma = (column[chosen].astype(np.float64) for column in columns)
    return Curves(t, flux, sigma, np.cumsum(counts), title)


def supernova_bands(folder: Path) -> Curves:
    """Return the curves that all tools fit."""
    table = plasticc(folder)
    class_ids = table["class_id"].to_numpy()
    whole = light_curves_of(table)
    rows, counts, title = [], [0], []
    for k in np.flatnonzero(np.isin(class_ids, SUPERNOVAE)):
        low, high = whole.offsets[k], whole.offsets[k + 1]
        for band, letter in enumerate(LSST_BANDS):
            points = low + np.flatnonzero(whole.band[low:high] == band)
            if 30 <= points.size <= 60:
                rows.append(points)
                counts.append(points.size)
                title.append(f"{CLASS_NAMES[class_ids[k]]}, {letter}")
    chosen = np.concatenate(rows)
    return Curves(
        whole.t_mjd_tai[chosen],
        whole.flux_njy[chosen].astype(np.float64),
        whole.sigma_njy[chosen].astype(np.float64),
        np.cumsum(counts),
        title,
    )


def reduced_chi2(curves: Curves, values: Any) -> NDArray[np.float64]:
    """Return chi-square over points less five of each row of A, B, t0, tau_rise, tau_fall.

    Written for a tau_rise above tau_fall too, which other tools may return.
    """
    chi_square = np.full(len(curves.title), np.nan)
    for k, (a, b, t0, rise, fall) in enumerate(np.asarray(values)[:, :5]):
        t, flux, sigma = curves.one(k)
        with np.errstate(all="ignore"):  # a failed fit may return anything
            x = t - t0
            model = b + a * np.exp(-x / fall - np.logaddexp(0, -x / rise))
            chi_square[k] = np.sum(((flux - model) / sigma) ** 2) / (t.size - 5)
    return chi_square


def compare(curves: Curves) -> dict[str, Result]:
    """Return every tool's result; print how to get those that are not installed."""
    some = curves.take(range(0, len(curves.title), SUBSAMPLE))
    results = {
        f"noctule, starts {starts}, iterations {rounds}": ours(curves, starts, rounds)
        for starts, rounds in OURS
    }
    try:
        feature = import_module("light_curve").BazinFit
    except ImportError:
        print("light-curve: not installed: pip install --target FOLDER light-curve\n")
    else:
        version = metadata.version("light-curve")
        for algorithm in THEIRS:
            with silence():
                result = theirs(curves, feature(algorithm))
            results[f"light-curve {version}, {algorithm}"] = result
    results["scipy curve_fit"] = by_scipy(some)
    return results


def ours(curves: Curves, starts: int, iterations: int) -> Result:
    """Fit all curves in one call."""

    def work() -> Any:
        return fit_bazin(*curves[:4], starts=starts, iterations=iterations)

    return Result(best_s(work) / len(curves.title), reduced_chi2(curves, work().values))


def theirs(curves: Curves, fit: Any) -> Result:
    """Fit curve by curve, with the checks off that can be."""
    each = [curves.one(k) for k in range(len(curves.title))]

    times: list[float] = []
    while len(times) < 3 and sum(times) < 5:  # MCMC takes long enough to be timed once
        begin = time.perf_counter()
        values = [fit(*curve, sorted=True, check=False) for curve in each]
        times.append(time.perf_counter() - begin)
    return Result(min(times) / len(each), reduced_chi2(curves, values))


def by_scipy(curves: Curves) -> Result:
    """Fit with scipy's LM from one guess: what many a notebook does."""
    values = np.full((len(curves.title), 5), np.nan)

    def model(t: Any, a: Any, b: Any, t0: Any, rise: Any, fall: Any) -> Any:
        x = t - t0
        return b + a * np.exp(-x / fall - np.logaddexp(0, -x / rise))

    begin = time.perf_counter()
    for k in range(len(values)):
        t, flux, sigma = curves.one(k)
        guess = [np.ptp(flux), np.median(flux), t[np.argmax(flux)], 5.0, 30.0]
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", OptimizeWarning)  # no covariance, but a fit
                values[k] = curve_fit(model, t, flux, guess, sigma, absolute_sigma=True)[0]
        except RuntimeError:  # it did not converge
            continue
    return Result((time.perf_counter() - begin) / len(values), reduced_chi2(curves, values))


@contextmanager
def silence() -> Iterator[None]:
    """Discard standard error: Ceres reports every overflow there."""
    original = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(nowhere)


def print_results(results: dict[str, Result], curves: Curves) -> None:
    """Print the trade-off, best known chi-square beside."""
    head = (
        "reduced chi-square",
        "us a curve",
        "quartile",
        "median",
        "quartile",
        "below 3",
        "failed",
        "within 1 %",
    )
    best = np.min([r.reduced for r in results.values() if r.reduced.size == len(curves.title)], 0)
    rows = []
    for name, result in results.items():
        n = result.numbers()
        known = best if result.reduced.size == best.size else best[::SUBSAMPLE]
        rows.append(
            (
                name if known is best else f"{name} *",
                f"{n['us a curve']:,.1f}",
                *(f"{n[q]:.2f}" for q in ("lower quartile", "median", "upper quartile")),
                f"{100 * n['below 3']:.1f} %",
                f"{100 * n['failed']:.2f} %",
                f"{100 * np.mean(result.reduced <= 1.01 * known):.1f} %",
            )
        )
    print_table(head, rows)
    print(
        f"* every {SUBSAMPLE}th curve. Within 1 %: of the best that any tool found for all curves.\n"
    )


def threads_s(curves: Curves) -> tuple[float, float]:
    """Return the seconds that one thread takes for all curves, and two for a half each."""
    n = len(curves.title)
    halves = [curves.take(range(half, n, 2))[:4] for half in range(2)]

    def fit(half: tuple[Any, ...]) -> Any:
        return fit_bazin(*half)

    one = best_s(lambda: [fit(half) for half in halves])
    with ThreadPoolExecutor(2) as pool:
        return one, best_s(lambda: list(pool.map(fit, halves)))


def size_s(n: int) -> float:
    """Return seconds for a made-up supernova of n points, the mean of twenty."""
    random = np.random.default_rng(n)
    values = np.array([3000.0, 20.0, 60.0, 4.0, 25.0])
    t = np.sort(random.uniform(0, 200, (20, n))).ravel()
    sigma = np.full(t.size, 50.0)
    flux = bazin_flux(t, values) + random.normal(0, 50, t.size)
    offsets = n * np.arange(21)
    return best_s(lambda: fit_bazin(t, flux, sigma, offsets)) / 20


def plot(curves: Curves, path: Path) -> None:
    """Draw the fits of twenty random curves in which something is seen."""
    agg: Callable[..., Any] = import_module("matplotlib.figure").Figure
    snr = [np.sort(curves.one(k)[1] / curves.one(k)[2])[-3] for k in range(len(curves.title))]
    random = np.random.default_rng(20)
    chosen = curves.take(random.choice(np.flatnonzero(np.array(snr) > 8), 20, replace=False))
    fits = fit_bazin(*chosen[:4])
    figure = agg(figsize=(16, 17), layout="constrained")
    for k, axes in enumerate(figure.subplots(5, 4).flat):
        t, flux, sigma = chosen.one(k)
        t0, rise, fall = fits.values[k, 2:]
        peak = t0 + rise * np.log(fall / rise - 1)
        low, high = max(peak - 60 - 5 * rise, t[0] - 10), min(peak + 5 * fall, t[-1] + 10)
        inside = (t >= low) & (t <= high)
        fine = np.linspace(low, high, 600)
        axes.plot(fine - peak, bazin_flux(fine, fits.values[k]) / 1e3, color="tab:orange", lw=1.5)
        axes.errorbar(
            t[inside] - peak, flux[inside] / 1e3, sigma[inside] / 1e3, fmt=".", color="0.2", lw=1
        )
        axes.axhline(0, color="0.85", lw=0.8, zorder=0)
        title = rf"{chosen.title[k]}: $\chi^2$/dof {fits.reduced_chi2[k]:.2f}"
        axes.set_title(rf"{title}, $\tau$ {rise:.1f} and {fall:.0f} d", fontsize=10)
    figure.supxlabel("days after the fitted peak")
    figure.supylabel("difference flux, µJy")
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
