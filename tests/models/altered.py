"""Saved models, changed afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.artifact import Manifest, PartEntry, version_of
from models.folder import MANIFEST_FILE


def entry_of(raw: dict[str, Any], kind: str) -> dict[str, Any]:
    """The entry of one part in a manifest as JSON."""
    entry: dict[str, Any] = next(part for part in raw["parts"] if part["kind"] == kind)
    return entry


def settings_of(raw: dict[str, Any], kind: str) -> dict[str, Any]:
    settings: dict[str, Any] = entry_of(raw, kind)["settings"]
    return settings


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((folder / MANIFEST_FILE).read_text())
    change(raw)
    (folder / MANIFEST_FILE).write_text(json.dumps(raw))


def vouch(folder: Path) -> None:
    """Make a changed manifest vouch for itself."""

    def new_version(raw: dict[str, Any]) -> None:
        entries = tuple(PartEntry(**part) for part in raw["parts"])
        raw["model_version"] = version_of(Manifest(**{**raw, "parts": entries}))

    edit(folder, new_version)
