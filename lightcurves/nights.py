"""Observing nights: which evening in Chile a time belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np


def night_of(t_mjd_tai: Any) -> Any:
    """Return the observing night of a time: the MJD of its evening in Chile.

    A night turns at MJD fraction 0.5, as Rubin's ``day_obs`` does: 12:00 UTC, after sunrise on
    Cerro Pachon in every season and long before sunset. (TAI is 37 s ahead of UTC, in daylight.)

    Parameters
    ----------
    t_mjd_tai
        One time, or an array of them.

    Returns
    -------
    int or int64 array

    Examples
    --------
    >>> night_of(60000.99), night_of(60001.4), night_of(60001.6)
    (60000, 60000, 60001)
    """
    nights = np.floor(np.asarray(t_mjd_tai) - 0.5).astype(np.int64)
    return int(nights) if nights.ndim == 0 else nights
