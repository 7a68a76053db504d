"""A portal over an empty or a full database, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from portal.app import create_app
from portal.serve import serving
from store.database import migrate, open_database
from tests.portal import night

TOKEN = "correct horse"  # noqa: S105 - a test's


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database with its tables."""
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url"))
    else:
        url = f"sqlite:///{tmp_path}/noctule.sqlite"
    opened = open_database(url, busy_timeout_s=20)
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty SQLite database with its tables, where the dialect does not matter."""
    opened = open_database(f"sqlite:///{tmp_path}/noctule.sqlite", busy_timeout_s=20)
    migrate(opened)
    yield opened
    opened.dispose()


def make_app(engine: sa.Engine, **changes: Any) -> FastAPI:
    """A portal with a token, light curves for every object and a clock that stands."""
    parts = {"light_curve": night.light_curve, "token": TOKEN, "clock": lambda: night.NOW_MS}
    return create_app(engine, **{**parts, **changes})


@pytest.fixture
def ids(engine: sa.Engine) -> list[int]:
    """Objects of a full database."""
    return night.fill(engine)


@pytest.fixture
def portal(engine: sa.Engine) -> Iterator[httpx.Client]:
    """A client of a served portal."""
    with asking(make_app(engine)) as client:
        yield client


@contextmanager
def asking(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve the app over HTTP, as it is in life; starlette's TestClient wants another httpx."""
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client
