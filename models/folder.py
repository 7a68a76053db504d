"""Which folders hold a model; importing this loads none of what a model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MANIFEST_FILE: Final = "manifest.json"


def is_model(folder: Path) -> bool:
    """Return whether a folder holds a model."""
    return (folder / MANIFEST_FILE).is_file()
