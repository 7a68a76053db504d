"""Which model is meant: a folder, a version, or an alias such as ``champion``. Decided here alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from lightcurves.errors import ConfigurationError
from models.artifact import MANIFEST_FILE
from store import registry
from store.database import reading
from store.tables import promotions

if TYPE_CHECKING:
    from collections.abc import Callable


def is_model(folder: Path) -> bool:
    """Say whether a folder holds a model."""
    return (folder / MANIFEST_FILE).is_file()


def which_model(
    model: Path | str, models_folder: Path, open_engine: Callable[[], sa.Engine]
) -> Path:
    """Return the folder of the model that is meant: `model` itself, or as :func:`model_of_name` says."""
    if is_model(Path(model)):
        return Path(model)
    return model_of_name(str(model), models_folder, open_engine)


def model_of_name(name: str, models_folder: Path, open_engine: Callable[[], sa.Engine]) -> Path:
    """Return the folder of a version or, where there is no such version, of what an alias names now.

    Parameters
    ----------
    name
        The version or alias.
    models_folder
        Where models lie under their versions.
    open_engine
        Opens the database that knows the aliases; called only where it has to be asked.

    Raises
    ------
    ConfigurationError
        It is neither; the message lists what there is.
    UnavailableError
        The database does not answer.
    """
    if is_model(models_folder / name):
        return models_folder / name
    with reading(open_engine()) as connection:
        return Path(model_of_alias(connection, name)["path"])


def model_of_alias(connection: sa.Connection, alias: str) -> sa.RowMapping:
    """Return the model that an alias names now; its columns as :func:`store.registry.champion`'s.

    Raises
    ------
    ConfigurationError
        It names none; the message lists what there is.
    """
    named = registry.champion(connection, alias)
    if named is None:
        aliases = connection.scalars(sa.select(promotions.c.alias).distinct()).all()
        versions = [row["model_version"] for row in registry.list_models(connection)]
        raise ConfigurationError(
            f"{alias!r} is neither a model folder nor a version nor an alias; there are: "
            f"{', '.join([*sorted(aliases), *versions]) or 'none'}. Make one with 'noctule train --data "
            "FOLDER --out MODEL', then 'noctule promote MODEL'"
        )
    return named
