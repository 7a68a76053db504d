"""The filters of the templates: how values are written on the pages. Null becomes a dash, never zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from lightcurves.bands import BANDS
from lightcurves.reasons import DESCRIPTIONS
from lightcurves.taxonomy import class_name

NOTHING: Final = "\N{EN DASH}"
_MINUS: Final = "\N{MINUS SIGN}"
_MJD_ZERO: Final = date(1858, 11, 17)
_ZERO_POINT_MAG: Final = 31.4  # AB magnitude of 1 nJy
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits, a true minus sign, or a dash for null."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.{digits}f}".replace("-", _MINUS).replace(",", "\N{THIN SPACE}")


def mjd(t_mjd_tai: float | None) -> str:
    """A time to the second: five decimals of a day, no separators."""
    return number(t_mjd_tai, 5).replace("\N{THIN SPACE}", "")


def figure(value: object) -> str:
    """Any value of a table of metrics or of the gate: counts as integers, fractions with three digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return number(value, 0)
    if isinstance(value, float):
        return number(value, 3)
    return NOTHING if value is None else str(value)


def percent(value: float | None) -> str:
    """A fraction between 0 and 1 as a percentage, for a width; null gives the width 0."""
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.1f}%"


def magnitude(flux_njy: float | None) -> str:
    """AB magnitude of a flux; a dash if it has none.

    Examples
    --------
    >>> magnitude(3631.0), magnitude(-2.0) == NOTHING
    ('22.5', True)
    """
    if flux_njy is None or not flux_njy > 0:
        return NOTHING
    return number(_ZERO_POINT_MAG - 2.5 * math.log10(flux_njy), 1)


def days(value: float | None) -> str:
    """A span of days, short: ``0.3 d``, ``41 d``."""
    if value is None:
        return NOTHING
    return f"{number(value, 1 if abs(value) < 10 else 0)} d"  # noqa: PLR2004 - two digits are enough


def calendar(t_mjd_tai: float | None) -> str:
    """The date of a time (MJD, TAI).

    Examples
    --------
    >>> calendar(60000.5)
    '2023-02-25'
    """
    if t_mjd_tai is None or not math.isfinite(t_mjd_tai):
        return NOTHING
    try:
        return (_MJD_ZERO + timedelta(days=math.floor(t_mjd_tai))).isoformat()
    except OverflowError:
        return NOTHING


def clock(time_ms: int) -> str:
    """A wall-clock time, UTC, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(time_ms: int, now_ms: int) -> str:
    """How long ago a wall-clock time was, in its largest unit.

    Examples
    --------
    >>> ago(0, 90_000), ago(0, 1_000), ago(5_000, 0)
    ('1 min ago', '1 s ago', 'now')
    """
    seconds = max(now_ms - time_ms, 0) // 1000
    for unit_s, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1, "s")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {name} ago"
    return "now"


def sexagesimal_ra(ra_deg: float) -> str:
    """Right ascension in hours.

    Examples
    --------
    >>> sexagesimal_ra(187.70593)
    '12:30:49.42'
    """
    centiseconds = round(ra_deg % 360 / 15 * 360_000) % 8_640_000
    minutes, centiseconds = divmod(centiseconds, 6_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{centiseconds / 100:05.2f}"


def sexagesimal_dec(dec_deg: float) -> str:
    """Declination in degrees, arcminutes and arcseconds.

    Examples
    --------
    >>> sexagesimal_dec(2.525)
    '+02:31:30.0'
    """
    arcminutes, tenths = divmod(round(abs(dec_deg) * 36_000), 600)
    sign = _MINUS if dec_deg < 0 else "+"
    return f"{sign}{arcminutes // 60:02}:{arcminutes % 60:02}:{tenths / 10:04.1f}"


def drawn_as(band: str) -> str:
    """The LSST band whose colour and shape a band has in tables."""
    return next((each.counts_as for each in BANDS if each.name == band), band)


def band_words(band: str) -> str:
    """A band with its survey's name before it, unless that is LSST.

    Examples
    --------
    >>> band_words("ztf_g"), band_words("g")
    ('ZTF g', 'g')
    """
    survey, _, name = band.rpartition("_")
    return f"{survey.upper()} {name}" if survey else name


def reason_words(reason: str | None) -> str:
    """A reason code in plain words: ``solar system object``."""
    return (reason or "no reason was given").replace("_", " ")


def reason_sentence(reason: str | None) -> str:
    """What a reason code means, in a sentence."""
    sentences = {str(code): text for code, text in DESCRIPTIONS.items()}
    return sentences.get(reason or "", reason_words(reason))


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 label``, ``3 labels``."""
    return f"{number(count, 0)} {one if count == 1 else many or one + 's'}"


def flat(values: Mapping[str, Any] | None, prefix: str = "") -> list[tuple[str, Any]]:
    """The values of nested tables, each with the words of its path; lists are left out."""
    return list(_leaves(values or {}, prefix))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        words = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _leaves(value, words)
        elif not isinstance(value, list):
            yield words, value


FILTERS: Final = {
    "number": number,
    "mjd": mjd,
    "figure": figure,
    "percent": percent,
    "magnitude": magnitude,
    "days": days,
    "calendar": calendar,
    "clock": clock,
    "ago": ago,
    "sexagesimal_ra": sexagesimal_ra,
    "sexagesimal_dec": sexagesimal_dec,
    "band_words": band_words,
    "drawn_as": drawn_as,
    "reason_words": reason_words,
    "reason_sentence": reason_sentence,
    "plural": plural,
    "flat": flat,
    "class_name": class_name,
}
"""Template filters by name."""
