"""The options before a command: the settings file, single settings, a quiet log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from deploy.sections import Settings
from deploy.settings import load_settings
from lightcurves.errors import ConfigurationError
from watch import logs


class _Given:
    config: Path | None = None
    overrides: dict[str, Any]
    quiet: bool = False


GIVEN: Final = _Given()


def options(
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change one setting, as in --set kafka.bootstrap_servers=127.0.0.1:9092. May be repeated.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option(help="Log warnings only.")] = False,
) -> None:
    """Store the options before the command."""
    GIVEN.config = config
    GIVEN.overrides = dict(_split(item) for item in set_ or [])
    GIVEN.quiet = quiet
    logs.configure("text", quiet=quiet)


def _split(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigurationError(f"--set takes KEY=VALUE, not {item!r}")
    return key, value


def given_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` are options of the command, ``portal__port`` for ``portal.port``."""
    given = {key.replace("__", "."): value for key, value in overrides.items() if value is not None}
    settings = load_settings(GIVEN.config, {**GIVEN.overrides, **given})
    logs.configure(settings.logs.format, quiet=GIVEN.quiet)
    return settings
