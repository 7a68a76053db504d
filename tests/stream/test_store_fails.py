"""The database is locked or away, a disk is full: the stream says so, waits, and loses nothing."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from benchmarks.kills import differences, mixed, send
from deploy.places import delta_folder
from stream.job import _ENGINES
from tests.postgres import PostgresServer
from tests.stream.conftest import Night
from tests.stream.running import running

pytestmark = pytest.mark.timeout(300)  # services are waited for as long as they take

Make = Callable[..., Night]
EAGER = {"trigger_s": 0, "max_alerts_per_batch": 20}
FULL = "No space left on device|database or disk is full"


def test_a_database_that_is_locked_is_waited_for(make: Make, real_packets: list[bytes]) -> None:
    night = make(stream=EAGER, store={"busy_timeout_s": 0.5})
    topics = night.settings.kafka.alert_topics
    expected = send(night.settings, mixed(real_packets, 40, topics, seed=41))
    file = str(make_url(night.settings.store.url.get_secret_value()).database)
    with running(night) as stream:
        stream.until_read(20)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        send(night.settings, mixed(real_packets, 40, topics, seed=42))
        assert "another process is writing" in stream.until_it_warns("database")
        other.execute("COMMIT")
        other.close()
        stream.until_read(80)
    assert expected.n == 40
    assert all(part.problems == () and part.n_waiting == 0 for part in night.audit())


@pytest.mark.postgres
def test_a_postgresql_that_restarts_is_waited_for(
    make: Make, real_packets: list[bytes], postgres: PostgresServer
) -> None:
    night = make(stream=EAGER, store={"url": postgres.new_database()})
    topics = night.settings.kafka.alert_topics
    expected = send(night.settings, mixed(real_packets, 200, topics, seed=43))
    with running(night) as stream:
        stream.until_read(40)
        postgres.stop()
        try:
            stream.until_it_warns("database")
        finally:
            postgres.start()
        stream.until_read(200)
    assert differences(night.settings, expected) == []
    night.engine.dispose()
    _ENGINES.pop(night.settings.store.url.get_secret_value()).dispose()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["/usr/bin/env", "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a disk that fills needs the right to mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["/usr/bin/env", "umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no room in a file system; return the file that takes it all."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def places(disk: Path, what: str) -> dict[str, Any]:
    """Return settings that put one thing onto the disk."""
    sections: dict[str, dict[str, Any]] = {
        "delta": {"store": {"delta": disk / "delta"}},
        "sql": {"store": {"url": f"sqlite:///{disk}/noctule.sqlite"}},
        "checkpoint": {"stream": {"checkpoint": disk / "checkpoint"}},
    }
    return sections[what]


@pytest.mark.parametrize("what", ["delta", "sql", "checkpoint"])
def test_a_disk_that_is_full_is_waited_for(
    make: Make, real_packets: list[bytes], small_disk: Path, what: str
) -> None:
    sections = places(small_disk, what)
    night = make(**{**sections, "stream": EAGER | sections.get("stream", {})})
    topics = night.settings.kafka.alert_topics
    expected = send(night.settings, mixed(real_packets, 20, topics, seed=44))
    with running(night) as stream:
        stream.until_read(20)
        ballast = fill(small_disk)
        n_files = len(list(delta_folder(night.settings).iterdir()))
        for packet in real_packets[:40]:
            night.publish([packet])
        told = stream.until_it_warns("disk")
        assert str(small_disk) in told
        assert "make room" in told
        if what == "delta":
            assert len(list(delta_folder(night.settings).iterdir())) == n_files  # no torn files
        ballast.unlink()
        stream.until_read(60)
    assert expected.n == 20
    assert all(part.problems == () and part.n_waiting == 0 for part in night.audit())
    places_in_delta = night.delta().select(["topic", "kafka_partition", "kafka_offset"]).to_pylist()
    assert len(places_in_delta) == len({tuple(row.values()) for row in places_in_delta})
