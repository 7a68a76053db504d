"""Which model is meant by a folder, a version, an alias, or a word that is none of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa

from active_learning.which_model import model_of_alias, model_of_name, which_model
from lightcurves.errors import ConfigurationError
from models.folder import MANIFEST_FILE
from store import registry
from store.database import migrate, open_database
from tests.manifests import manifest


def model_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).touch()
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """The folder of our models, with m1 and m2."""
    for version in ("m1", "m2"):
        model_at(tmp_path / "models" / version)
    return tmp_path / "models"


@pytest.fixture
def engine(tmp_path: Path, ours: Path) -> Iterator[sa.Engine]:
    made = open_database(f"sqlite:///{tmp_path}/n.sqlite")
    migrate(made)
    with made.begin() as connection:
        for version in ("m1", "m2"):
            registry.register_model(connection, manifest(version), ours / version, now_ms=1)
        registry.promote(connection, "champion", "m2", reason="better", now_ms=1)
    yield made
    made.dispose()


def closed() -> NoReturn:
    raise AssertionError("the database is asked")


def test_a_folder_is_meant_before_a_version_and_that_before_an_alias(
    ours: Path, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = model_at(tmp_path / "own")
    for folder in (own, str(own), "own"):
        assert which_model(folder, ours, closed).resolve() == own
    assert which_model("m1", ours, closed) == ours / "m1"
    assert which_model("champion", ours, lambda: engine) == ours / "m2"
    model_at(ours / "champion")
    assert which_model("champion", ours, closed) == ours / "champion"
    model_at(tmp_path / "champion")
    assert which_model("champion", ours, closed) == Path("champion")
    assert model_of_name("champion", ours, closed) == ours / "champion"


@pytest.mark.parametrize("word", ["night", "", "m3", "/nowhere/at/all", "../models"])
def test_a_word_that_means_none_is_told_what_there_is(
    word: str, ours: Path, engine: sa.Engine
) -> None:
    said = "neither a model folder nor a version nor an alias; there are: champion, m1, m2"
    with pytest.raises(ConfigurationError, match=said):
        which_model(word, ours, lambda: engine)
    with pytest.raises(ConfigurationError, match=said):
        model_of_name(word, ours, lambda: engine)
    with engine.connect() as connection, pytest.raises(ConfigurationError, match=said):
        model_of_alias(connection, word)


def test_where_there_is_none_the_commands_that_make_one_are_named(
    tmp_path: Path,
) -> None:
    empty = open_database(f"sqlite:///{tmp_path}/empty.sqlite")
    migrate(empty)
    with pytest.raises(ConfigurationError, match=r"there are: none\..*noctule train.*promote"):
        which_model("champion", tmp_path, lambda: empty)
    empty.dispose()
