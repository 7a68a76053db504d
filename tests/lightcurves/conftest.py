from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import fastavro
import pytest

from lightcurves.alerts import framed_packets
from lightcurves.schemas import package_schemas
from tests.lightcurves.avro import encode

FRAME = b"\0" + (1000).to_bytes(4, "big")


@pytest.fixture(scope="session")
def v10() -> Any:
    """LSST's alert schema 10.0, parsed."""
    return package_schemas().schema(1000)


@pytest.fixture(scope="session")
def made_up(v10: Any) -> list[bytes]:
    """Framed packets of schema 10.0 with random values in every field."""
    return [FRAME + encode(v10, random.Random(seed)) for seed in range(300)]


@pytest.fixture(scope="session")
def real_file(data_dir: Path) -> Path:
    """64 real packets, an Avro container file."""
    return data_dir / "lsst" / "real_v10_0.avro"


@pytest.fixture(scope="session")
def real_packets(real_file: Path) -> list[bytes]:
    return list(framed_packets(real_file))


@pytest.fixture(scope="session")
def real_records(real_file: Path) -> list[Any]:
    """What fastavro reads in the real packets."""
    with real_file.open("rb") as file:
        return list(fastavro.reader(file))
