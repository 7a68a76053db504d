"""Observing nights: which evening at a survey's site a time belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightcurves.surveys import LSST, survey_named


def night_of(t_mjd_tai: Any, survey: str = LSST.name) -> Any:
    """Return the observing night of a time: the MJD of the date of its evening at the survey's site.

    One night ends and the next begins by day, at :attr:`~.surveys.declare.Site.night_turns`; for Rubin
    at 12:00 UTC, like its ``day_obs``. (TAI is 37 s ahead of UTC, in daylight.)

    Parameters
    ----------
    t_mjd_tai
        One time, or an array of them.
    survey
        Name of the survey that observed.

    Returns
    -------
    int or int64 array

    Raises
    ------
    ConfigurationError
        There is no such survey.

    Examples
    --------
    >>> night_of(60000.99), night_of(60001.4), night_of(60001.6)
    (60000, 60000, 60001)
    >>> night_of(60001.6, "ztf")
    60000
    """
    turns = survey_named(survey).site.night_turns
    nights = np.floor(np.asarray(t_mjd_tai) - turns).astype(np.int64)
    return int(nights) if nights.ndim == 0 else nights
