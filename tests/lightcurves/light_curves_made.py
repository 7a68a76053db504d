"""Made-up light curves that several files test features on: random ones, odd ones, tables of them."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightcurves.arrays import LightCurves, light_curve_column
from lightcurves.bands import BANDS
from lightcurves.columns import DETECTED
from lightcurves.features.declare import Context
from tests.lightcurves.features_twin import Curve

Objects = tuple[list[Curve], dict[str, NDArray[np.float64]]]
"""Light curves and what is known beside them."""


class Bare(NamedTuple):
    """A light curve as the expensive families' own functions take it: float64, without flags."""

    t: NDArray[np.float64]
    band: NDArray[np.int8]
    flux: NDArray[np.float64]
    sigma: NDArray[np.float64]


AnyCurve = TypeVar("AnyCurve", Curve, Bare)


def objects(n: int = 250, seed: int = 1, most: int = 40) -> Objects:
    """Light curves of fewer than `most` points with all that a real one may have, and their contexts.

    Some vary from point to point, some are waves, some are noise alone; half of them last a few days.
    Times lie on a grid of 1/1024 d and fluxes on one of 1/8 nJy, so that to shift or to scale them is exact.
    """
    chance = np.random.default_rng(seed)
    curves = []
    for _ in range(n):
        size = int(chance.integers(1, most))
        sigma = np.round(8 * chance.uniform(1, 300, size)) / 8
        source = chance.random(size) < chance.choice((0.0, 0.1, 0.6))
        used = chance.choice(9, int(chance.integers(1, 9)), replace=False)
        days = int(chance.choice((4, 60)))
        times = np.sort(chance.choice(days * 1024, size, replace=False)) / 1024
        wave = np.sin(2 * np.pi * times / 10 ** chance.uniform(-1, 2))
        shape = chance.normal(size=size) if chance.random() < 0.5 else wave
        shape *= chance.choice((0.0, 300.0, 3_000.0))
        curves.append(
            Curve(
                60_000 + times,
                chance.choice(used, size).astype(np.int8),
                (np.round(8 * (shape + sigma * chance.normal(size=size))) / 8).astype(np.float32),
                sigma.astype(np.float32),
                np.where(source, DETECTED, 0).astype(np.int8),
            )
        )
    return curves, surroundings(n, chance)


def sparse(n: int, seed: int) -> Objects:
    """Light curves of few points in one band or in two near ones, every other one smooth."""
    chance = np.random.default_rng(seed)
    curves = []
    for k, most in enumerate(chance.choice((4, 9, 26), n)):
        size = int(chance.integers(1, most))
        x = np.sort(chance.choice(2_048, size, replace=False)) / 2_048
        days = chance.choice((0.9, 0.9, 2, 20, 200))
        first, apart = chance.integers(6), chance.choice((0, 1, 1, 2, 2))
        curves.append(
            made_of(
                size,
                t=60_000 + days * x,
                band=np.minimum(first + apart * chance.integers(0, 2, size), 5),
                flux=1_000 * (chance.normal(size=size) if k % 2 else np.sin(4 * x)),
                sigma=chance.uniform(5, 50, size),
            )
        )
    return curves, surroundings(n, chance)


def supernova(seed: int, n: int = 40, height: float = 3_000.0) -> Bare:
    """Rises in 4 days, falls in 25, is fainter in redder bands; fluxes and errors fit float32."""
    chance = np.random.default_rng(seed)
    t = 60_000 + np.sort(chance.choice(100 * 1024, n, replace=False)) / 1024
    band = chance.integers(0, 6, n)
    x = t - 60_030
    sigma = chance.uniform(20, 150, n)
    shape = np.exp(-x / 25) / (1 + np.exp(-x / 4)) * (1 - 0.1 * band)
    flux = height * shape + sigma * chance.normal(size=n)
    return bare(made_of(n, t=t, band=band, flux=flux, sigma=sigma))


def surroundings(n: int, chance: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """What is known of `n` objects beside their light curves; of three in ten it is unknown."""
    context = {name: chance.uniform(0, 1, n) for name in Context._fields}
    context["dec_deg"] = chance.uniform(-90, 90, n)
    context["ra_deg"] = chance.uniform(0, 360, n)
    for values in list(context.values())[2:]:
        values[chance.random(n) < 0.3] = np.nan
    return context


def unknown(n: int) -> dict[str, NDArray[np.float64]]:
    return {name: np.full(n, np.nan) for name in Context._fields}


def table_of(
    curves: list[Curve], context: dict[str, NDArray[np.float64]] | None = None
) -> pa.Table:
    offsets = np.cumsum([0, *(len(curve.t) for curve in curves)])
    dtypes = (np.float64, np.int8, np.float32, np.float32, np.int8)
    t, band, flux, sigma, flags = (
        np.concatenate([np.zeros(0, dtype), *(curve[k] for curve in curves)]).astype(dtype)
        for k, dtype in enumerate(dtypes)
    )
    kind = np.zeros(len(t), np.int8)
    column = light_curve_column(LightCurves(offsets, t, band, flux, sigma, kind, flags))
    return pa.table({"light_curve": column, **(context or {})})


def together(*curves: Bare) -> tuple[Any, ...]:
    """Offsets and columns, as `find_periods` and `fit_gp` take them."""
    offsets = np.cumsum([0, *(len(curve.t) for curve in curves)])
    columns: Any = zip(*curves, strict=True)
    return offsets, *(np.concatenate(column) for column in columns)


def bare(curve: Curve) -> Bare:
    t, band, flux, sigma, _ = curve
    return Bare(t, band, flux.astype(np.float64), sigma.astype(np.float64))


def full(curve: Bare) -> Curve:
    """The same without flags set."""
    return Curve(*curve, np.zeros(len(curve.t), np.int8))


def taken(curve: AnyCurve, rows: Any) -> AnyCurve:
    columns: list[Any] = [column[rows] for column in curve]
    return type(curve)(*columns)


def joined(curve: AnyCurve, more: AnyCurve) -> AnyCurve:
    columns: Any = zip(curve, more, strict=True)
    return type(curve)(*(np.concatenate(pair) for pair in columns))


def among_unknown_bands(curve: Bare, more: Bare) -> Bare:
    """In order of time, with `more` points of bands that there are not."""
    band = np.where(np.arange(len(more.t)) % 2, -1, len(BANDS)).astype(np.int8)
    both = joined(curve, more._replace(band=band))
    return taken(both, np.argsort(both.t, kind="stable"))


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
        *(np.array(np.broadcast_to(parts[name], n), dtype)
          for name, dtype in zip(Curve._fields, dtypes, strict=True))
    )  # fmt: skip


class Odd(NamedTuple):
    """A light curve, and why it has no number of each kind; None where it has one."""

    curve: Curve
    period: str | None = None
    gp: str | None = None
    default: str | None = None


FEW, SAME = "too_few_points", "no_variation"
NOTHING = (FEW, FEW, FEW)
_N = 60
_K = np.arange(_N)
_WAVE = np.sin(_K)

ODD = {
    "no point": Odd(made_of(0), *NOTHING),
    "one point": Odd(made_of(1), FEW, FEW),
    "two points": Odd(made_of(2), FEW, FEW),
    "two in one band": Odd(made_of(2, band=3), FEW, FEW),
    "five points": Odd(made_of(5), FEW, FEW),
    "six points": Odd(made_of(6), FEW),
    "nineteen points": Odd(made_of(19, band=1), FEW),
    "twenty points": Odd(made_of(20, band=1)),
    "five in each band": Odd(made_of(30), FEW),
    "one band": Odd(made_of(30, band=2)),
    "all nine bands": Odd(made_of(_N, band=_K % 9)),
    "all equal": Odd(made_of(_N, flux=0.1, sigma=np.linspace(0.01, 0.03, _N)), SAME),
    "all equal and faint": Odd(made_of(_N, flux=0.1, sigma=np.linspace(1, 3, _N)), SAME, SAME),
    "all zero": Odd(made_of(_N, flux=0.0), SAME, SAME),
    "equal in each band": Odd(made_of(_N, flux=1 / 3 + _K % 6, sigma=0.1), SAME),
    "equal in one band": Odd(made_of(9, flux=1 / 3, band=1, sigma=np.linspace(1, 9, 9)), FEW, SAME),
    "one point changes": Odd(made_of(_N, flux=100 * (_K == 7))),
    "all not a number": Odd(made_of(_N, flux=np.nan), *NOTHING),
    "infinite flux": Odd(made_of(_N, flux=np.inf), *NOTHING),
    "infinite error": Odd(made_of(_N, sigma=np.inf), *NOTHING),
    "zero error": Odd(made_of(_N, sigma=0.0), *NOTHING),
    "negative error": Odd(made_of(_N, sigma=-1.0), *NOTHING),
    "unknown band": Odd(made_of(_N, band=-1), *NOTHING),
    "no time": Odd(made_of(_N, t=np.nan), *NOTHING),
    "mostly broken": Odd(made_of(_N, flux=np.where(_K % 10 == 3, 5.0, np.nan)), FEW, SAME),
    "equal times": Odd(made_of(_N, t=60_000.0), FEW, FEW),
    "equal times and bands": Odd(made_of(_N, t=60_000.0, band=0), FEW, FEW),
    "two times": Odd(made_of(_N, t=60_000.0 + (_K > 30)), FEW, FEW),
    "three times": Odd(made_of(_N, t=60_000.0 + _K // 20), FEW, FEW),
    "pairs of equal times": Odd(made_of(_N, t=60_000 + _K // 2 * 1.1)),
    "fives of equal times": Odd(made_of(_N, t=60_000 + _K // 5, band=0)),
    "every day": Odd(made_of(_N, t=60_000 + _K, band=0)),
    "one band ends early": Odd(made_of(400, band=np.arange(400) > 9)),
    "three seconds": Odd(made_of(_N, t=60_000.0 + _K / 1e6), FEW),
    "an hour": Odd(made_of(_N, t=60_000 + _K / 1440), FEW),
    "a second long in a year": Odd(
        made_of(_N, t=60_000 + np.where(_K > 3, 365 + _K / 5e6, 0), band=0)
    ),
    "a gap of ages": Odd(made_of(_N, t=60_000 + 1e6 * (_K > 40) + _K)),
    "ten thousand points": Odd(
        made_of(
            10_000,
            t=60_000 + np.arange(10_000) / 100,
            flux=np.random.default_rng(1).normal(0, 99, 10_000),
        )
    ),
    "faint": Odd(made_of(_N, sigma=1e30), None, SAME),
    "no noise": Odd(made_of(_N, sigma=1e-40)),
    "largest": Odd(made_of(_N, flux=3e38 * (-1.0) ** _K, sigma=1e-45, band=_K % 5)),
    "least": Odd(made_of(_N, flux=1e-45 * _K, sigma=1e-45)),
    "huge": Odd(made_of(_N, flux=1e30 * _WAVE, sigma=1e-40)),
    "tiny": Odd(made_of(_N, flux=1e-40 * _WAVE, sigma=1e-45)),
    "tiny and faint": Odd(made_of(_N, flux=1e-40 * _WAVE, sigma=1e30), None, SAME),
    "huge and tiny": Odd(made_of(_N, flux=10.0 ** np.linspace(-40, 30, _N))),
    "errors huge and tiny": Odd(made_of(_N, sigma=10.0 ** np.linspace(-40, 30, _N), band=_K % 3)),
}
