"""Changes to saved models, as a mistake or an attacker would make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.artifact import Manifest, PartEntry, version_of
from models.folder import MANIFEST_FILE


def settings_of(raw: dict[str, Any], kind: str) -> dict[str, Any]:
    settings: dict[str, Any] = next(p["settings"] for p in raw["parts"] if p["kind"] == kind)
    return settings


def vouch(folder: Path) -> None:
    """Make a changed manifest vouch for itself."""

    def new_version(raw: dict[str, Any]) -> None:
        entries = tuple(PartEntry(**part) for part in raw["parts"])
        raw["model_version"] = version_of(Manifest(**{**raw, "parts": entries}))

    edit(folder, new_version)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((folder / MANIFEST_FILE).read_text())
    change(raw)
    (folder / MANIFEST_FILE).write_text(json.dumps(raw))
