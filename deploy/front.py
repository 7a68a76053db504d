"""What the front door needs beyond the rooms: the version, and the model that an alias names."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from deploy.settings import load_settings
from lightcurves.errors import ConfigurationError
from models.artifact import MANIFEST_FILE
from models.scoring import Model
from models.scoring import load_model as load_artifact
from store import registry
from store.database import migrate, open_database, reading

__version__ = version("noctule")


def load_model(model: Path | str) -> Model:
    """Load a model by the folder of its artifact, its version or an alias such as "champion".

    Parameters
    ----------
    model
        A folder with a manifest, or a name that the settings' database knows.

    Raises
    ------
    ConfigurationError
        There is no such folder or name, or the artifact does not verify.
    UnavailableError
        The database that knows the names does not answer.
    """
    if (Path(model) / MANIFEST_FILE).is_file():
        return load_artifact(Path(model))
    settings = load_settings()
    if (settings.models.folder / str(model) / MANIFEST_FILE).is_file():
        return load_artifact(settings.models.folder / str(model))
    engine = open_database(settings.store.url.get_secret_value())
    migrate(engine)
    with reading(engine) as connection:
        named = registry.champion(connection, str(model))
    if named is None:
        raise ConfigurationError(
            f"{str(model)!r} is neither a model folder nor a version nor an alias: train one with "
            "'noctule train', and name it with 'noctule promote MODEL'"
        )
    return load_artifact(Path(named["path"]))
