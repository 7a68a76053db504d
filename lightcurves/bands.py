"""Bands: their codes, names, wavelengths and places among the features, as the surveys declare them.

A band's int8 code is its place in :data:`BANDS`: LSST's u g r i z y are 0 to 5, ZTF's g r i 6 to 8, never
LSST's. -1 is an unknown band.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightcurves.surveys import BAND_CODES, BAND_NAMES, BANDS
from lightcurves.surveys.declare import FEATURE_BANDS as LSST_BANDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BANDS", "BAND_CODES", "BAND_NAMES", "LSST_BANDS", "feature_bands", "wavelengths_nm"]


def wavelengths_nm() -> NDArray[np.float64]:
    """Return the effective wavelength of each band, by code."""
    return np.array([band.wavelength_nm for band in BANDS])


def feature_bands() -> NDArray[np.int8]:
    """Return the number of the feature band that each band counts as, by code."""
    return np.array([LSST_BANDS.index(band.counts_as) for band in BANDS], np.int8)
