"""Alarms and dashboards: checked by promtool, fired for real, and of metrics that exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import yaml

from active_learning.gate import Gate
from active_learning.learner import Trial
from active_learning.monitor import LearnerMetrics, LearnerMonitor
from deploy.dashboards import DASHBOARDS, FOLDER, text_of
from portal.serve import serving
from store.database import migrate, open_database
from store.tables import accounting
from stream.commit import BatchCounts
from stream.health import Monitor
from stream.lag import Lag
from stream.metrics import StreamMetrics
from tests.portal import night
from tests.portal.conftest import make_app
from tests.prometheus import Prometheus, program, prometheus, wait_until
from tests.stream.reports import report
from watch.endpoint import telling

REPOSITORY = Path(__file__).parents[2]
RULES = REPOSITORY / "deploy" / "alerts" / "noctule.yml"
CASES = Path(__file__).with_name("alert_rules.yml")

ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
NAMES = {alert["alert"] for alert in ALERTS}
QUERIES = {
    f"{panel.title}: {legend}": expression
    for _, panels in DASHBOARDS.values()
    for panel in panels
    for legend, expression in panel.queries.items()
}


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_rules_and_configuration() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))
    promtool("check", "config", str(REPOSITORY / "deploy" / "prometheus.yml"))


def test_promtool_fires_and_silences_each_alert() -> None:
    promtool("test", "rules", str(CASES))
    cases = [
        case
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == NAMES
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == NAMES


def test_each_alert_says_what_happened_and_what_to_do() -> None:
    page = (REPOSITORY / "docs" / "operating.md").read_text()
    assert len(NAMES) == len(ALERTS)
    for alert in ALERTS:
        assert set(alert["annotations"]) == {"summary", "action", "runbook"}
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"]["runbook"] == f"docs/operating.md#{alert['alert'].lower()}"
    assert set(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_dashboards_are_made_from_the_code(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == text_of(name)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(DASHBOARDS)


def a_gate(*, passed: bool) -> Gate:
    gain = 0.1 if passed else -0.1
    return Gate(40, 1.0, 1.0 - gain, gain, gain / 2, 0.9, 0.5, 0.6, passed)


@dataclass
class Watched:
    """A stream's and a learner's metrics and a portal over HTTP, as Prometheus finds them."""

    engine: sa.Engine
    monitor: Monitor
    metrics: StreamMetrics
    portal: str
    stream: str
    teacher: LearnerMonitor
    learner: str
    stack: ExitStack = field(default_factory=ExitStack)

    def observe(self) -> None:
        counts = BatchCounts(n_read=8, n_classified=8, n_requested=1)
        batch = report(counts=counts, model_version="20260311-b07d42")
        self.monitor.batch(batch)
        self.metrics.observe(batch)
        self.teacher.training()
        self.teacher.tried(Trial("20260312-c0ffee", 100, a_gate(passed=True), promoted=True), 9.0)


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    engine = open_database(f"sqlite:///{folder}/noctule.sqlite")
    migrate(engine)
    night.fill(engine)
    monitor = Monitor(Lag({}, from_start=True), stalled_s=1e6)
    metrics = StreamMetrics(monitor, slow_batch_s=10.0)
    monitor.running()
    monitor.kafka({("alerts", 0): (0, 3)})
    with ExitStack() as stack, serving(make_app(engine)) as url:
        port = stack.enter_context(telling(metrics, monitor, "127.0.0.1", 0))
        teacher = LearnerMonitor(1e6)
        teacher.looked(3)
        other = stack.enter_context(telling(LearnerMetrics(teacher), teacher, "127.0.0.1", 0))
        address = url.removeprefix("http://")
        stream, learner = (f"127.0.0.1:{each}" for each in (port, other))
        made = Watched(engine, monitor, metrics, address, stream, teacher, learner, stack)
        made.observe()
        yield made
    engine.dispose()


def exposed(found: Watched) -> set[str]:
    """Names of all samples that the three processes tell."""
    places = (found.portal, found.stream, found.learner)
    text = "".join(httpx.get(f"http://{at}/metrics").text for at in places)
    return set(re.findall(r"^(noctule_\w+)", text, re.MULTILINE))


def test_alarms_and_dashboards_ask_for_what_is_told(tmp_path: Path) -> None:
    with watched(tmp_path) as found:
        told = exposed(found)
    for expression in [*QUERIES.values(), *(alert["expr"] for alert in ALERTS)]:
        assert set(re.findall(r"noctule_\w+", expression)) <= told, expression


def test_every_metric_of_stream_and_learner_is_documented(tmp_path: Path) -> None:
    with watched(tmp_path) as found:
        told = [*found.metrics.collect(), *found.teacher.metrics()]
        families = {family.name: family.type for family in told}
    named = {name + ("_total" if kind == "counter" else "") for name, kind in families.items()}
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(noctule_\w+)`", page, re.MULTILINE)) == named


def test_alarms_fire_in_a_real_prometheus(tmp_path: Path) -> None:
    """Nothing fires while all is well; then the books break, the query dies, the process goes."""
    program("prometheus")
    with watched(tmp_path) as found:
        targets = {
            "noctule-portal": found.portal,
            "noctule-stream": found.stream,
            "noctule-learner": found.learner,
        }
        with prometheus(tmp_path, targets, RULES) as server:
            wait_until(lambda: server.evaluated() == NAMES, server.evaluated)
            for fact in ("noctule_stream_healthy == 1", "noctule_audit_imbalance == 0"):
                wait_until(partial(server.query, fact), partial(str, fact))
            shows_all_panels(server, found)
            assert server.firing() == {}

            with found.engine.begin() as connection:
                connection.execute(sa.update(accounting).values(n_rejected=0))
            fires(server, "NoctuleAuditImbalance")
            found.monitor.dead("the stream cannot go on: it met a ghost")
            fires(server, "NoctuleStreamUnhealthy")
            assert "NoctuleStreamDown" not in server.firing()
            found.teacher.dead("no model is promoted")
            fires(server, "NoctuleLearnerUnhealthy")
            assert "NoctuleLearnerDown" not in server.firing()
            found.stack.close()
            fires(server, "NoctuleLearnerDown")
            alert = fires(server, "NoctuleStreamDown")
            assert found.stream in alert["annotations"]["summary"]


def fires(server: Prometheus, name: str) -> dict[str, Any]:
    wait_until(lambda: name in server.firing(), lambda: f"{name} does not fire: {server.firing()}")
    return server.firing()[name]


def shows_all_panels(server: Prometheus, found: Watched) -> None:
    """Each query of the dashboards finds something, while batches come."""
    found.observe()
    for title, expression in QUERIES.items():
        if expression.endswith("> 0"):
            server.query(expression)  # shows rejected packets, of which there are none new
        else:
            wait_until(partial(server.query, expression), partial(str, f"{title} shows nothing"))
