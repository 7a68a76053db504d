"""Converts the fluxes and times of packets to nJy and MJD TAI.

- Magnitudes of a difference image: ``f = s 10**(-0.4 (m - 31.4))`` nJy, its error ``|f| 0.4 ln(10)
  sigma_m``; `s` is +1 where the source is brighter than the template (``isdiffpos`` is ``t`` or
  ``1``) and -1 where fainter. 31.4 is the AB magnitude of 1 nJy.
- Counts with a zero point `z`: ``f = c 10**(-0.4 (z - 31.4))``, the error likewise. ZTF writes -99999
  if there is no value (ZTF Science Data System explanatory supplement, forced photometry).
- UTC becomes TAI by the leap seconds, 37 s since 2017; older packets do not occur.

What cannot be converted becomes NaN, which the light-curve rules leave out and count.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lightcurves.columns import (
    ALERT_FLOAT64,
    ALERT_INT64,
    HISTORY_FLOAT32,
    HISTORY_INT64,
    NEGATIVE,
)
from lightcurves.surveys import band_codes
from lightcurves.surveys.declare import Units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightcurves.columns import Columns
    from lightcurves.surveys.declare import Survey

AB_OF_1_NJY: Final = 31.4
TAI_MINUS_UTC_S: Final = 37.0
_NO_COUNTS: Final = -99_999.0
_POSITIVE: Final = (int("t", 36), int("1", 36))
_NEGATIVE: Final = (int("f", 36), int("0", 36))

Values = Any
"""float64 arrays of one shape."""


def flux_of_magnitude(m: Values, sigma_m: Values, sign: Values) -> tuple[Values, Values]:
    """Return difference flux and error in nJy of difference magnitudes; see the module."""
    flux = 10.0 ** (-0.4 * (m - AB_OF_1_NJY))
    return sign * flux, abs(sign) * flux * sigma_m * (0.4 * math.log(10.0))


def flux_of_counts(counts: Values, sigma: Values, zero_point: Values) -> tuple[Values, Values]:
    """Return difference flux and error in nJy of counts; see the module."""
    scale = 10.0 ** (-0.4 * (zero_point - AB_OF_1_NJY))
    there = (counts != _NO_COUNTS) & (sigma != _NO_COUNTS)
    return np.where(there, counts * scale, np.nan), np.where(there, sigma * scale, np.nan)


def sign_of(names: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return +1, -1 or NaN for the texts of ``isdiffpos``, read in base 36."""
    return np.where(
        np.isin(names, _POSITIVE), 1.0, np.where(np.isin(names, _NEGATIVE), -1.0, np.nan)
    )


def convert_alerts(columns: Columns, survey: Survey) -> None:
    """Convert the alerts' own times, fluxes and bands to noctule's units, in place."""
    values = dict(zip(ALERT_FLOAT64, columns.alert_f64, strict=True))
    _convert_times(values["t_mjd_tai"], survey)
    if survey.units == Units.MAGNITUDE:
        sign = sign_of(columns.alert_i64[ALERT_INT64.index("sign")])
        with np.errstate(over="ignore", invalid="ignore"):
            flux, sigma = flux_of_magnitude(values["flux_njy"], values["sigma_njy"], sign)
        values["flux_njy"][:], values["sigma_njy"][:] = flux, sigma
        negative = (columns.errors == 0) & (sign < 0)
        columns.history_flags[columns.offsets[:-1][negative]] |= NEGATIVE
    _convert_bands(columns.alert_band, survey)


def convert_histories(columns: Columns, survey: Survey) -> None:
    """Convert the histories' times, fluxes and bands to noctule's units, in place.

    The alerts' own points are there already in noctule's units, and are recognised by their kind.
    """
    n = int(columns.offsets[-1])
    kind = columns.history_kind[:n]
    for part in survey.histories:
        rows = np.flatnonzero(kind == part.kind)
        t = columns.history_f64[0, rows]
        _convert_times(t, survey)
        columns.history_f64[0, rows] = t
        band = columns.history_band[rows]
        _convert_bands(band, survey)
        columns.history_band[rows] = band
        if part.units != Units.NJY:
            columns.history_f32[:2, rows] = _fluxes(columns, rows, part.units)


def _fluxes(columns: Columns, rows: NDArray[np.int64], units: Units) -> Values:
    def raw(name: str) -> Values:
        return columns.history_f32[HISTORY_FLOAT32.index(name), rows].astype(np.float64)

    with np.errstate(over="ignore", invalid="ignore"):
        if units == Units.MAGNITUDE:
            sign = sign_of(columns.history_i64[HISTORY_INT64.index("sign"), rows])
            converted = flux_of_magnitude(raw("flux_njy"), raw("sigma_njy"), sign)
            columns.history_flags[rows[sign < 0]] |= NEGATIVE
        else:
            converted = flux_of_counts(raw("flux_njy"), raw("sigma_njy"), raw("zero_point"))
        return np.array(converted, np.float32)


def _convert_times(t: NDArray[np.float64], survey: Survey) -> None:
    t += survey.time_zero
    if survey.time_scale == "utc":
        t += TAI_MINUS_UTC_S / 86_400.0


def _convert_bands(band: NDArray[np.int8], survey: Survey) -> None:
    if survey.numbered_bands:
        table = np.full(129, -1, np.int8)  # the last for -1, no band
        for number, code in band_codes(survey).items():
            table[int(number)] = code
        band[:] = table[band]
