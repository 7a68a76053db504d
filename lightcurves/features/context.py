"""Where the object is and what its host is; null where a packet does not say."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np

from lightcurves.features.declare import NOT_PROVIDED, Family, Feature, Input

# North galactic pole, ICRS degrees: Hipparcos catalogue, ESA SP-1200, vol. 1, eq. 1.5.11.
_POLE_RA: Final = np.radians(192.85948)
_POLE_DEC: Final = np.radians(27.12825)


@nb.njit(nogil=True, cache=True)
def _context(points: Any, context: Any, out: Any, why: Any) -> None:  # noqa: ARG001
    for k in range(out.shape[0]):
        ra = np.radians(context.ra_deg[k])
        dec = np.radians(context.dec_deg[k])
        sine = np.sin(dec) * np.sin(_POLE_DEC)
        sine += np.cos(dec) * np.cos(_POLE_DEC) * np.cos(ra - _POLE_RA)
        out[k, 0] = (
            abs(np.degrees(np.arcsin(max(-1.0, min(1.0, sine))))) if not np.isnan(sine) else np.nan
        )
        out[k, 1] = context.host_z_phot[k]
        out[k, 2] = context.host_z_phot_err[k]
        out[k, 3] = context.host_offset_arcsec[k]
        out[k, 4] = context.mw_ebv[k]
        for column in range(out.shape[1]):
            if np.isnan(out[k, column]):
                why[k, column] = NOT_PROVIDED


CONTEXT: Final = Family(
    "context",
    (
        Feature("abs_galactic_latitude_deg", "deg", frozenset({Input.POSITION}), "|b|"),
        Feature("host_z_phot", "1", frozenset({Input.HOST_Z}), "photometric redshift of the host"),
        Feature("host_z_phot_err", "1", frozenset({Input.HOST_Z_ERR}), "its standard error"),
        Feature(
            "host_offset_arcsec",
            "arcsec",
            frozenset({Input.HOST_OFFSET}),
            "angle on the sky between the object and the centre of its host",
        ),
        Feature(
            "mw_ebv",
            "mag",
            frozenset({Input.EXTINCTION}),
            "E(B-V) of the Milky Way at the position",
        ),
    ),
    _context,
)
