"""Where the things are that several commands use: the database, the Delta tables, the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from active_learning.which_model import which_model
from store.database import migrate, open_database

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from deploy.sections import Settings

ALERTS_TABLE: Final = "alerts"
RESCORED_TABLE: Final = "rescored"


def open_store(settings: Settings, query_timeout_s: float | None = None) -> sa.Engine:
    """Open the database and bring its tables up to date; queries may take `query_timeout_s`."""
    url, busy_timeout_s = settings.store.url.get_secret_value(), settings.store.busy_timeout_s
    engine = open_database(url, busy_timeout_s=busy_timeout_s, query_timeout_s=query_timeout_s)
    migrate(engine)
    return engine


def delta_folder(settings: Settings) -> Path:
    """Return the folder of the Delta table of scored light curves."""
    return settings.store.delta / ALERTS_TABLE


def rescored_folder(settings: Settings) -> Path:
    """Return the folder of the Delta table of re-scored alerts."""
    return settings.store.delta / RESCORED_TABLE


def find_model(settings: Settings, model: Path | str) -> Path:
    """Return the folder of the model that `model` names; see :mod:`active_learning.which_model`."""
    return which_model(model, settings.models.folder, lambda: open_store(settings))
