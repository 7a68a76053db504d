"""URLs that people read: without their passwords."""

from __future__ import annotations

import re
from typing import Final

# Up to the last @ of the authority: a password that was not percent-encoded may hold one.
_AUTHORITY: Final = re.compile(r"(?<=://)([^:/?#]*):[^/]*(?=@)")
_PARAMETER: Final = re.compile(
    r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&#]*", flags=re.IGNORECASE
)


def mask_password(url: str) -> str:
    """The URL with ``***`` where it has a password, in its authority or its parameters.

    Examples
    --------
    >>> mask_password("postgresql://noctule:hunter2@db:5432/noctule")
    'postgresql://noctule:***@db:5432/noctule'
    >>> mask_password("sqlite:////var/lib/noctule/noctule.sqlite")
    'sqlite:////var/lib/noctule/noctule.sqlite'
    """
    return _PARAMETER.sub(r"\1***", _AUTHORITY.sub(r"\1:***", url))
