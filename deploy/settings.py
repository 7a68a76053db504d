"""Reads the settings: command line, then environment, then settings file, then defaults.

The entry point calls `load_settings` once and passes on plain values; no other module reads the
environment. `deploy.sections` declares the settings, and ``docs/settings.md`` describes them for
operators.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from platformdirs import user_data_path
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, SettingsError

from deploy.sections import Settings, fields
from lightcurves.errors import ConfigurationError

__all__ = [
    "Problem",
    "Settings",
    "check_settings",
    "environment_name",
    "load_settings",
    "redacted",
    "settings_digest",
]

PREFIX: Final = "NOCTULE_"
CONFIG_NAME: Final = "NOCTULE_CONFIG"
OTHER_NAMES: Final = frozenset({CONFIG_NAME, "NOCTULE_DATA"})
"""Environment variables of noctule that are not settings."""

FILE_NAME: Final = "noctule.toml"
COMMAND_LINE: Final = "command line"

Values = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the settings; ``str()`` is a line for the operator.

    Attributes
    ----------
    key
        The setting, ``section.name``; empty when the whole source cannot be read.
    source
        Where the value came from: a file, an environment variable, or ``command line``.
    message
        What is wrong with it; never the value, which may be a secret.
    """

    key: str
    source: str
    message: str

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        if not self.key or self.key in self.message:
            return f"{self.message}{where}"
        return f"{self.key} {self.message}{where}"


@dataclass(frozen=True)
class _Source:
    """The values of one source, nested as in the settings file, and the problems of that source."""

    name: str
    values: Values
    problems: tuple[Problem, ...] = ()

    def name_of(self, key: str) -> str:
        return environment_name(key) if self.name == PREFIX else self.name

    def has(self, path: Iterable[str | int]) -> bool:
        inner: object = self.values
        for part in path:
            if not isinstance(inner, Mapping):
                return True  # the error lies within a value of this source
            if part not in inner:
                return False
            inner = inner[part]
        return True


def load_settings(
    config: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings of this process; to be called once, by the entry point.

    Parameters
    ----------
    config
        Settings file (TOML). By default the file that ``NOCTULE_CONFIG`` names, else
        ``<state>/noctule.toml`` if there is one.
    overrides
        The options of the command line, ``{"stream.name": "live"}`` or nested; they win over all
        else. None means that an option was not given.

    Raises
    ------
    ConfigurationError
        The settings have problems; the one-line message lists all of them.
    """
    settings, problems = _read(config, overrides)
    if settings is None:
        raise ConfigurationError("settings: " + "; ".join(map(str, problems)))
    return settings


def check_settings(
    config: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> list[Problem]:
    """Return every problem of the settings; none if `load_settings` would succeed."""
    _, problems = _read(config, overrides)
    return problems


def redacted(settings: Settings) -> Values:
    """Return the settings as plain values for people and JSON: secrets masked, paths in full."""
    return settings.model_dump(mode="json")


def settings_digest(settings: Settings, sections: Iterable[str] = ()) -> str:
    """Return 12 hexadecimal digits that change with any setting, to be stored with what is written.

    Parameters
    ----------
    settings
        The settings. For a secret it only counts whether it is set, and the path of the state folder does
        not count.
    sections
        The sections that count, such as ``["models"]``; by default all.
    """
    state = str(settings.state)
    counted = redacted(settings) | {"state": None}
    chosen = {name: counted[name] for name in sections} or counted
    text = json.dumps(_without_state(chosen, state), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_state(value: Any, state: str) -> Any:
    if isinstance(value, dict):
        return {key: _without_state(each, state) for key, each in value.items()}
    return value.replace(state, "<state>") if isinstance(value, str) else value


def environment_name(key: str) -> str:
    """Environment variable of a setting: ``NOCTULE_STREAM__NAME`` for ``stream.name``."""
    return PREFIX + key.replace(".", "__").upper()


def _read(
    config: Path | None, overrides: Mapping[str, Any] | None
) -> tuple[Settings | None, list[Problem]]:
    given = _Source(COMMAND_LINE, _nested(overrides or {}))
    environment = _environment()
    file = _file(config or _default_config(given, environment))
    sources = [given, environment, file]
    settings, problems = _validated(sources)
    problems = [problem for source in sources for problem in source.problems] + problems
    return (None if problems else settings), list(dict.fromkeys(problems))


def _validated(sources: Iterable[_Source]) -> tuple[Settings | None, list[Problem]]:
    values: Values = {}
    for source in sources:
        values = _merged(source.values, values)
    try:
        return Settings(**values), []
    except ValidationError as error:
        return None, [_problem(detail, sources) for detail in error.errors(include_input=False)]


def _problem(detail: ErrorDetails, sources: Iterable[_Source]) -> Problem:
    path = detail["loc"]
    key = ".".join(map(str, path))
    source = next((each.name_of(key) for each in sources if each.has(path)), "")
    if detail["type"] == "extra_forbidden":
        return Problem(key, source, _unknown(key))
    return Problem(key, source, re.sub(r"^(Value error, |Input )", "", detail["msg"]))


def _unknown(key: str) -> str:
    known = fields() if "." in key else [*Settings.model_fields, *fields()]
    close = get_close_matches(key, known, n=1)
    return f"unknown key {key!r}" + (f": did you mean {close[0]!r}?" if close else "")


def _nested(values: Mapping[str, Any]) -> Values:
    """``{"stream.name": "a"}`` as ``{"stream": {"name": "a"}}``; None is left out."""
    nested: Values = {}
    for key, value in values.items():
        first, _, rest = key.partition(".")
        branch = {rest: value} if rest else value
        if value is not None:
            nested = _merged(
                nested, {first: _nested(branch) if isinstance(branch, Mapping) else branch}
            )
    return nested


def _merged(low: Values, high: Values) -> Values:
    """Return both, merged table by table; where they differ, the second wins."""
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _environment() -> _Source:
    problems = _unknown_names()
    try:
        return _Source(PREFIX, dict(EnvSettingsSource(Settings)()), problems)
    except SettingsError:  # a whole section in one variable: named by _unknown_names
        return _Source(PREFIX, {}, problems)


def _unknown_names() -> tuple[Problem, ...]:
    """Return the names that pydantic-settings would ignore silently."""
    known = {environment_name(key) for key in fields()} | OTHER_NAMES
    unknown = (name for name in os.environ if name.startswith(PREFIX) and name not in known)
    return tuple(Problem(_key_of(name), name, _unknown(_key_of(name))) for name in sorted(unknown))


def _key_of(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("__", ".")


def _default_config(given: _Source, environment: _Source) -> Path | None:
    if named := os.environ.get(CONFIG_NAME):
        return Path(named)
    state = given.values.get("state") or environment.values.get("state")
    path = Path(str(state or user_data_path("noctule"))).expanduser() / FILE_NAME
    return path if path.exists() else None


def _file(path: Path | None) -> _Source:
    if path is None:
        return _Source("", {})
    try:
        return _Source(str(path), tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except ValueError as error:  # not TOML, or not UTF-8
        message = f"is not TOML: {error}"
    return _Source(str(path), {}, (Problem("", str(path), message),))
