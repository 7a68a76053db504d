"""Which model is meant: a folder, a version, or an alias such as ``champion``. Decided here alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from lightcurves.errors import ConfigurationError
from lightcurves.surveys import LSST, SURVEYS
from models.artifact import MANIFEST_FILE
from store import registry
from store.database import reading
from store.tables import promotions

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.artifact import Manifest


def alias_of(alias: str, survey: str) -> str:
    """Return what names the model that scores a survey's alerts, where `alias` names LSST's.

    Examples
    --------
    >>> alias_of("champion", "lsst"), alias_of("champion", "ztf")
    ('champion', 'champion-ztf')
    """
    return alias if survey == LSST.name else f"{alias}-{survey}"


def champions(connection: sa.Connection, alias: str) -> dict[str, sa.RowMapping]:
    """Return the models that score now, by survey; surveys without one are left out.

    `alias` names LSST's; columns as :func:`store.registry.champion`'s.
    """
    named = {survey: registry.champion(connection, alias_of(alias, survey)) for survey in SURVEYS}
    return {survey: model for survey, model in named.items() if model is not None}


def refuse_other_survey(manifest: Manifest, survey: str) -> None:
    """Raise where a model was trained for another survey than the one whose alerts it is to score.

    Raises
    ------
    ConfigurationError
        It was; the message says for which.
    """
    if manifest.survey != survey:
        raise ConfigurationError(
            f"model {manifest.model_version} was trained for {manifest.survey}, not for {survey}: "
            f"give --survey {manifest.survey}, or train one with 'noctule train --survey {survey}'"
        )


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
