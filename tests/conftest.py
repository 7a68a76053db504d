"""Fixtures that several rooms share; each starts what it stands for once a session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.java import find_java
from deploy.kafka import EmbeddedKafka
from lightcurves.errors import ConfigurationError, UnavailableError
from tests.postgres import PostgresServer, find_postgres
from tests.registry import SchemaRegistry, registry_app
from tests.secured import SecuredKafka, secured

REPOSITORY = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the services that their fixtures start."""
    for item in items:
        for service in ("kafka", "spark", "postgres", "browser"):
            if service in getattr(item, "fixturenames", ()):
                item.add_marker(service)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real packets and survey tables, which is no part of the repository."""
    folder = Path(os.environ.get("NOCTULE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}: set NOCTULE_DATA to the folder that has it")
    return folder


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A Kafka that takes TLS and a password; see :mod:`tests.secured`."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make certificates: apt-get install openssl")
    folder = tmp_path_factory.mktemp("secured")
    with EmbeddedKafka(folder / "kafka", security=secured(folder)) as running:
        yield SecuredKafka(running, folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    with PostgresServer(programs) as running:
        yield running


@pytest.fixture(scope="session")
def schema_registry(request: pytest.FixtureRequest) -> Iterator[SchemaRegistry]:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        java = find_java()
        with capture.global_and_fixture_disabled():  # its progress is for who waits
            app = registry_app(limit_s=120)  # of the 180 s that a test may take
    except (ConfigurationError, UnavailableError) as error:
        pytest.skip(f"no schema registry: {error}")
    with SchemaRegistry(java, app) as running:
        yield running


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """A new, empty database in the session's server."""
    return postgres.new_database()
