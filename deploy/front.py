"""What the front door needs beyond the rooms: the version, and the model that a name means."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from deploy.places import find_model
from deploy.settings import load_settings
from models.folder import is_model
from models.scoring import Model
from models.scoring import load_model as load_artifact

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
    if not is_model(Path(model)):  # a folder is found without any settings
        model = find_model(load_settings(), model)
    return load_artifact(Path(model))
