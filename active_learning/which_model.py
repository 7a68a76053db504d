"""Finds the model that a folder, a version, or an alias such as ``champion`` names; nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from lightcurves.errors import ConfigurationError
from lightcurves.surveys import LSST, SURVEYS
from models.folder import is_model
from store import registry
from store.database import reading
from store.tables import promotions

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.artifact import Manifest


def alias_of(alias: str, survey: str) -> str:
    """Return the alias of the model that scores a survey's alerts, given `alias`, that of LSST's model.

    Examples
    --------
    >>> alias_of("champion", "lsst"), alias_of("champion", "ztf")
    ('champion', 'champion-ztf')
    """
    return alias if survey == LSST.name else f"{alias}-{survey}"


def champions(connection: sa.Connection, alias: str) -> dict[str, sa.RowMapping]:
    """Return the models that score now, by survey; surveys without one are left out.

    `alias` names LSST's; the columns are those of :func:`store.registry.champion`.
    """
    named = {survey: registry.champion(connection, alias_of(alias, survey)) for survey in SURVEYS}
    return {survey: model for survey, model in named.items() if model is not None}


def refuse_other_survey(manifest: Manifest, survey: str) -> None:
    """Raise if a model was trained for another survey than the one whose alerts it is to score.

    Raises
    ------
    ConfigurationError
        It was; the message says for which survey.
    """
    if manifest.survey != survey:
        raise ConfigurationError(
            f"model {manifest.model_version} was trained for {manifest.survey}, not for {survey}: "
            f"give --survey {manifest.survey}, or train one with 'noctule train --survey {survey}'"
        )


def which_model(
    model: Path | str, models_folder: Path, open_engine: Callable[[], sa.Engine]
) -> Path:
    """Return the folder of a model: `model` itself if it is one, else that of :func:`model_of_name`."""
    if is_model(Path(model)):
        return Path(model)
    return model_of_name(str(model), models_folder, open_engine)


def model_of_name(name: str, models_folder: Path, open_engine: Callable[[], sa.Engine]) -> Path:
    """Return the folder of a version or, if there is no such version, of the model that an alias names now.

    Parameters
    ----------
    name
        The version or alias.
    models_folder
        Folder of the models, each under its version.
    open_engine
        Opens the database that holds the aliases; called only if it is needed.

    Raises
    ------
    ConfigurationError
        `name` is neither; the message lists the aliases and versions that exist.
    UnavailableError
        The database does not answer.
    """
    if is_model(models_folder / name):
        return models_folder / name
    with reading(open_engine()) as connection:
        return Path(model_of_alias(connection, name)["path"])


def model_of_alias(connection: sa.Connection, alias: str) -> sa.RowMapping:
    """Return the model that an alias names now, with the columns of :func:`store.registry.champion`.

    Raises
    ------
    ConfigurationError
        It names none; the message lists the aliases and versions that exist.
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
