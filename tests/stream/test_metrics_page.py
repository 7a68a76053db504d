"""docs/metrics.md names everything that the stream tells; metrics: see tests/deploy/test_alerts.py."""

from __future__ import annotations

import re
from pathlib import Path

from stream.health import Monitor
from stream.journal import fields_of
from stream.lag import Lag
from stream.report import Refused
from stream.stages import DRIVER_STAGES, WORKER_STAGES
from tests.stream.reports import report
from watch.endpoint import ENDPOINTS
from watch.health import State

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def first_column(heading: str) -> list[str]:
    """The first cells of the table below a heading, the code in them."""
    section = PAGE.partition(f" {heading}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def test_endpoints() -> None:
    assert first_column("The stream's endpoint") == [f"GET {each}" for each in ENDPOINTS]


def test_states() -> None:
    assert [State(each) for each in first_column("Is it well?")[1:]] == list(Monitor.states())


def test_stages() -> None:
    assert first_column("Stages") == [*WORKER_STAGES, *DRIVER_STAGES]


def test_fields_of_health_and_log() -> None:
    health = Monitor(Lag({}, from_start=True), stalled_s=1.0).health().to_json()
    for name in (*health, *fields_of(report()), *Refused._fields):
        assert f"`{name}`" in PAGE, name
