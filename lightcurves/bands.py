"""Band codes: what a band's name is worth as an int8, and its effective wavelength.

Codes 0 to 5 are LSST's u g r i z y; ZTF's g r i are 6 to 8, never LSST's. -1 is an unknown band.
"""

from __future__ import annotations

from typing import Final

import numpy as np

LSST_BANDS: Final = ("u", "g", "r", "i", "z", "y")
BAND_NAMES: Final = (*LSST_BANDS, "ztf_g", "ztf_r", "ztf_i")
BAND_CODES: Final = {name: code for code, name in enumerate(BAND_NAMES)}
UNKNOWN_BAND: Final = -1
N_BANDS: Final = len(BAND_NAMES)

EFFECTIVE_WAVELENGTH_NM: Final = np.array(
    [368.0, 478.0, 622.0, 754.0, 869.0, 971.0, 481.0, 644.0, 787.0]
)
"""LSST: Ivezic et al. 2019 (ApJ 873, 111); ZTF: SVO filter profiles, rounded to 1 nm."""
