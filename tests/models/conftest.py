from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from models.artifact import Trained, save_model
from models.scoring import Model, load_model
from models.training import moments_of
from tests.sky import FAST, sky_table, trained


@pytest.fixture(scope="session")
def parts() -> Trained:
    """A small trained model, before it is written."""
    return trained()


@pytest.fixture(scope="session")
def artifact(parts: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small model; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model(parts, folder)
    return folder


@pytest.fixture(scope="session")
def model(artifact: Path) -> Model:
    return load_model(artifact)


@pytest.fixture(scope="session")
def unseen() -> pa.Table:
    """Objects of the same classes that the model was not trained on, at several moments."""
    table = sky_table(60, seed=99, first_id=2**61)
    return moments_of(table, FAST.moments)
