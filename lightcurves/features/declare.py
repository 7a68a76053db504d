"""The declaration of a feature, as data: callers check it, and the docs are generated from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lightcurves.reasons import NotEvaluated

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


class Input(StrEnum):
    """The inputs that a feature may use. Any other must leave its value unchanged."""

    TIME = "t_mjd_tai"
    BAND = "band"
    FLUX = "flux_njy"
    SIGMA = "sigma_njy"
    FLAGS = "flags"
    POSITION = "ra_deg, dec_deg"
    HOST_Z = "host_z_phot"
    HOST_Z_ERR = "host_z_phot_err"
    HOST_OFFSET = "host_offset_arcsec"
    EXTINCTION = "mw_ebv"


class Scaling(StrEnum):
    """What happens to the value when every flux and error is multiplied by a positive number."""

    INVARIANT = "invariant"
    LINEAR = "linear"


class Cost(StrEnum):
    """Cost of a feature: ``cheap`` takes a few passes over the points, ``expensive`` is for request only."""

    CHEAP = "cheap"
    EXPENSIVE = "expensive"


REASON_CODES: Final = (
    None,
    NotEvaluated.TOO_FEW_POINTS,
    NotEvaluated.NOT_IN_BAND,
    NotEvaluated.NO_VARIATION,
    NotEvaluated.NOT_PROVIDED,
    NotEvaluated.NO_FIT,
    NotEvaluated.NO_PEAK,
)
"""What a kernel writes into ``why``: 0 if evaluated, else the reason why the value is NaN."""
TOO_FEW_POINTS: Final = 1
NOT_IN_BAND: Final = 2
NO_VARIATION: Final = 3
NOT_PROVIDED: Final = 4
NO_FIT: Final = 5
NO_PEAK: Final = 6


class Points(NamedTuple):
    """Light curves in time order, with what every family needs computed once.

    `t`, `flux`, `sigma` (float64), `band` (int8, 0 to 5) and `detected` (bool) are flat over all
    points; light curve k is ``offsets[k]:offsets[k + 1]``. ``by_band`` lists the same points band
    by band, in time order within each; those of light curve k and band b are
    ``by_band[band_offsets[k, b]:band_offsets[k, b + 1]]``, and `band_t`, `band_flux`, `band_sigma` and
    `band_weight` (1/sigma^2) contain them in that order; `band_sorted` are the same fluxes ascending
    within each band. ``first[k]`` is the number of the first detection, or of the first point if
    none is a detection.
    """

    offsets: NDArray[np.int64]
    t: NDArray[np.float64]
    band: NDArray[np.int8]
    flux: NDArray[np.float64]
    sigma: NDArray[np.float64]
    detected: NDArray[np.bool_]
    by_band: NDArray[np.int64]
    band_offsets: NDArray[np.int64]
    band_t: NDArray[np.float64]
    band_flux: NDArray[np.float64]
    band_sigma: NDArray[np.float64]
    band_weight: NDArray[np.float64]
    band_sorted: NDArray[np.float64]
    first: NDArray[np.int64]


class Context(NamedTuple):
    """What is known of each object besides its light curve; float64 (n), NaN if unknown."""

    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    host_z_phot: NDArray[np.float64]
    host_z_phot_err: NDArray[np.float64]
    host_offset_arcsec: NDArray[np.float64]
    mw_ebv: NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """One number.

    Attributes
    ----------
    name
        The column; permanent.
    unit
        Of the value; "1" for a pure number.
    inputs
        All that the value depends on.
    formula
        In words or mathematics, exact enough to implement it again.
    scaling
        How the value changes when all fluxes are scaled.
    min_points
        With fewer points (in the feature's band, if it has one) the value is null.
    paper
        Where it comes from, with the equation.
    bands
        Letters of the bands that it uses; empty if it uses all of them.
    varies
        Null (``no_variation``) if its inputs do not vary.
    """

    name: str
    unit: str
    inputs: frozenset[Input]
    formula: str
    scaling: Scaling = Scaling.INVARIANT
    min_points: int = 1
    paper: str = ""
    bands: str = ""
    varies: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """What the light curve needs for the value to be right: order, errors, variation."""
        asked = {
            "sorted": Input.TIME in self.inputs,
            "errors": Input.SIGMA in self.inputs,
            "variation": self.varies,
        }
        return tuple(name for name, needed in asked.items() if needed)


@dataclass(frozen=True)
class Family:
    """Features that one kernel computes in one pass.

    ``kernel(points, context, out, why)`` fills float64 (n, features) `out`, NaN where not
    evaluated, and int8 `why`, an index into :data:`REASON_CODES`.
    """

    name: str
    features: tuple[Feature, ...]
    kernel: Callable[[Any, Any, Any, Any], None]
    cost: Cost = Cost.CHEAP


DETECTION: Final = frozenset({Input.FLUX, Input.SIGMA, Input.FLAGS})
"""What decides whether a point is a detection."""
