from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from store.database import migrate, open_database


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A new database with its tables."""
    opened = open_database(f"sqlite:///{tmp_path}/noctule.sqlite")
    migrate(opened)
    yield opened
    opened.dispose()
