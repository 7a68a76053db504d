"""The surveys that noctule reads: each has a file, and a line here."""

from __future__ import annotations

from typing import Final

from lightcurves.errors import ConfigurationError
from lightcurves.surveys.declare import Band, Survey
from lightcurves.surveys.lsst import LSST
from lightcurves.surveys.winter import WINTER
from lightcurves.surveys.ztf import ZTF

__all__ = [
    "BANDS",
    "BAND_CODES",
    "BAND_NAMES",
    "LSST",
    "SURVEYS",
    "WINTER",
    "ZTF",
    "band_codes",
    "register",
    "survey_named",
]

SURVEYS: Final[dict[str, Survey]] = {}
"""The surveys by name, in the order in which they were registered."""

BANDS: Final[list[Band]] = []
"""All surveys' bands, each at the place of its code. These three grow with every survey."""
BAND_NAMES: Final[list[str]] = []
BAND_CODES: Final[dict[str, int]] = {}

_MOST_BANDS: Final = 128  # codes are int8


def register(survey: Survey) -> None:
    """Let noctule read a survey: its packets are recognised, its bands get the next codes.

    This is valid for this process. Do it before anything is read, because a decoder remembers a schema's
    survey. Codes are never written; tables contain names.

    Raises
    ------
    ConfigurationError
        Its name or one of its bands is taken, or its packets cannot be told from another survey's.
    """
    if survey.name in SURVEYS:
        raise ConfigurationError(f"there is a survey called {survey.name} already")
    if not survey.required:
        raise ConfigurationError(
            f"{survey.name} requires no field, so that any schema would be its own"
        )
    for other in SURVEYS.values():
        if set(other.required) == set(survey.required):
            raise ConfigurationError(f"{survey.name} requires the same fields as {other.name}")
    names = [band.name for band in survey.bands]
    taken = [name for at, name in enumerate(names) if name in BAND_CODES or name in names[:at]]
    if taken:
        raise ConfigurationError(f"{survey.name}: the name of the band {taken[0]} is taken")
    if len(BANDS) + len(names) > _MOST_BANDS:
        raise ConfigurationError(f"{survey.name}: more than {_MOST_BANDS} bands in all")
    SURVEYS[survey.name] = survey
    BAND_CODES.update({name: code for code, name in enumerate(names, len(BANDS))})
    BANDS.extend(survey.bands)
    BAND_NAMES.extend(names)


def survey_named(name: str) -> Survey:
    """Return the survey with this name.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    if name not in SURVEYS:
        raise ConfigurationError(f"no survey is called {name}: {', '.join(SURVEYS)}")
    return SURVEYS[name]


def band_codes(survey: Survey) -> dict[str, int]:
    """Return the code of each of the survey's bands, by its name in packets.

    Raises
    ------
    ConfigurationError
        The survey has a band that no registered survey has.
    """
    unknown = [band.name for band in survey.bands if band.name not in BAND_CODES]
    if unknown:
        raise ConfigurationError(f"{survey.name} is not registered: no band {unknown[0]} is known")
    return {band.in_packets: BAND_CODES[band.name] for band in survey.bands}


for _survey in (LSST, ZTF, WINTER):
    register(_survey)
