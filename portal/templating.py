"""Renders the templates: escaped by default, and an undefined name is an error."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import jinja2

from portal.words import FILTERS

TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = Path(__file__).parent / "static"


class Pages:
    """The templates of the pages, loaded once."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(FILTERS)
        self._environment.globals["static"] = static_url

    def render(self, name: str, **values: object) -> str:
        """The text of a template with these values."""
        shared = {"here": "", "live_url": None}
        return self._environment.get_template(name).render(shared | values)


def static_url(name: str) -> str:
    """Address of a file in portal/static; changes with its content, so browsers may keep it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"
