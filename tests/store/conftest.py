"""The same tests on both databases: SQLite, and PostgreSQL where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from store.database import migrate, open_database
from store.requests import ask
from store.sky import healpix_of
from store.tables import classifications, objects

Add = Callable[..., Mapping[str, Any]]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new database."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/state/noctule.sqlite"


@pytest.fixture
def empty(url: str) -> Iterator[sa.Engine]:
    """A database without tables."""
    engine = open_database(url, busy_timeout_s=20)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(empty: sa.Engine) -> sa.Engine:
    migrate(empty)
    return empty


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that may write."""
    with engine.begin() as opened:
        yield opened


@pytest.fixture
def add_object(connection: sa.Connection) -> Add:
    """Adds one valid object, with overrides."""

    def add(object_id: int, **overrides: Any) -> Mapping[str, Any]:
        row = {
            "object_id": object_id,
            "survey": "lsst",
            "ra_deg": 10.0,
            "dec_deg": -20.0,
            "first_mjd_tai": 60_000.0,
            "last_mjd_tai": 60_010.0,
            "n_alerts": 3,
            "last_dia_source_id": object_id,
            **overrides,
        }
        row["healpix"] = int(healpix_of(row["ra_deg"], row["dec_deg"]))
        connection.execute(objects.insert().values(row))
        return row

    return add


@pytest.fixture
def add_alert(connection: sa.Connection) -> Add:
    """Adds one valid, scored alert, with overrides."""

    def add(dia_source_id: int, **overrides: Any) -> Mapping[str, Any]:
        row = alert(dia_source_id) | overrides
        connection.execute(classifications.insert().values(row))
        return row

    return add


@pytest.fixture
def add_request(connection: sa.Connection) -> Add:
    """Adds one valid request for a spectrum, with overrides."""

    def add(object_id: int, **overrides: Any) -> Mapping[str, Any]:
        row = request(object_id) | overrides
        ask(connection, [row])
        return row

    return add


def request(object_id: int) -> dict[str, Any]:
    """A valid row of ``label_requests``."""
    return {
        "survey": "lsst",
        "object_id": object_id,
        "program": "noctule",
        "dia_source_id": object_id,
        "night": 60_000,
        "strategy": "entropy",
        "utility": 1.0,
        "why": "uncertain",
        "requested_ms": 1,
        "run_id": "live",
        "batch_id": 1,
        "model_version": "m1",
        "ra_deg": 10.0,
        "dec_deg": -20.0,
        "t_mjd_tai": 60_000.1,
    }


def alert(dia_source_id: int) -> dict[str, Any]:
    """A valid row of ``classifications``, scored."""
    return {
        "dia_source_id": dia_source_id,
        "object_id": 1,
        "survey": "lsst",
        "topic": "alerts",
        "kafka_partition": 0,
        "kafka_offset": dia_source_id,
        "run_id": "live",
        "batch_id": 1,
        "t_mjd_tai": 60_000.0,
        "arrival_ms": 1,
        "processed_ms": 2,
        "class_id": 111,
        "probability": 0.75,
        "probabilities": {"111": 0.75, "112": 0.25},
        "prediction_set": [111, 112],
        "reason": None,
    }
