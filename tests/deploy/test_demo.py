"""The demo as a newcomer runs it: ends by itself with the books closed, resumes, leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from store.accounting_queries import counts
from store.database import open_database, reading
from store.registry import champion

ALERTS = 120

pytestmark = [pytest.mark.kafka, pytest.mark.spark]


def demo(state: Path, *arguments: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NOCTULE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "demo", "--no-browser", *arguments],
        env={**clean, "NOCTULE_STATE": str(state), "NOCTULE_DEMO__NIGHT_S": "0.5"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(state: Path) -> list[str]:
    """Command lines of the processes that carry the state folder in their environment."""
    mark = f"NOCTULE_STATE={state}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text().replace("\0", " ")[:200])
        except OSError:
            continue
    return found


def n_alerts(state: Path) -> int:
    if not (state / "noctule.sqlite").exists():
        return 0
    engine = open_database(f"sqlite:///{state}/noctule.sqlite")
    try:
        with reading(engine) as connection:
            return counts(connection).alerts
    except sa.exc.OperationalError:
        return 0  # the tables are yet to be made
    finally:
        engine.dispose()


@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_the_demo_ends_resumes_and_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = demo(state, "--alerts", str(ALERTS))
    said, _ = first.communicate(timeout=200)
    assert first.returncode == 0, said
    assert f"{ALERTS} alerts in" in said
    assert said.count("closes") == 2
    assert left_behind(state) == []
    assert n_alerts(state) == ALERTS
    engine = open_database(f"sqlite:///{state}/noctule.sqlite")
    with reading(engine) as connection:
        model = champion(connection)
    engine.dispose()
    assert model is not None

    begun = time.monotonic()
    second = demo(state)
    while n_alerts(state) <= ALERTS:
        assert second.poll() is None, second.communicate()[0]
        assert time.monotonic() < begun + 120, "the second demo reads no alert"
        time.sleep(0.5)
    second.send_signal(signal.SIGINT)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert "training" not in said  # the model was kept
    assert left_behind(state) == []
