"""What the learner tells of itself: by a clock that the test moves, and by the command over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from active_learning import learner
from active_learning.gate import Gate
from active_learning.learner import Trial
from active_learning.monitor import OUTCOMES, LearnerMetrics, LearnerMonitor
from deploy import learning
from deploy.demo import DemoData, _environment
from deploy.learning import run_learn
from deploy.sections import Settings
from lightcurves.errors import ConfigurationError, UnavailableError
from simulator.split import Split
from store import registry
from store.database import migrate, open_database
from store.labels import report_label
from tests.deploy.test_cli import one_line
from tests.manifests import manifest
from watch.endpoint import ENDPOINTS, telling
from watch.health import PAUSE_S, State

POLL_S = 5.0
LATE_S = 60.0
PATIENCE_S = 60.0
PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def monitor(poll_s: float = POLL_S) -> tuple[LearnerMonitor, Clock]:
    clock = Clock()
    return LearnerMonitor(poll_s, clock, lambda: round(1000 * (1e9 + clock.now))), clock


def trial(*, passed: bool, promoted: bool) -> Trial:
    gate = Gate(40, 1.0, 0.9, 0.1, 0.05, 0.9, 0.5, 0.6, passed)
    return Trial("20260312-c0ffee", 7, gate, promoted)


def verdict(watched: LearnerMonitor) -> tuple[bool, bool]:
    health = watched.health()
    return health.healthy, health.ready


def samples(watched: LearnerMonitor) -> dict[str, float]:
    lines = LearnerMetrics(watched).exposition().decode().splitlines()
    told = (line.rpartition(" ") for line in lines if line.startswith("noctule_"))
    return {name: float(value) for name, _, value in told}


# --- the verdict


def test_a_learner_that_starts_is_alive_and_not_ready() -> None:
    watched, _ = monitor()
    assert verdict(watched) == (True, False)
    assert watched.health().reasons == ("the learner is starting",)


def test_a_learner_that_looks_is_well_and_one_that_has_stopped_looking_is_not() -> None:
    watched, clock = monitor()
    for _ in range(50):
        watched.looked(3)
        clock.now += POLL_S
        assert verdict(watched) == (True, True)
    clock.now += LATE_S
    assert verdict(watched) == (False, False)
    assert "has not looked for new labels for 65 s" in watched.health().reasons[0]
    watched.looked(3)
    assert verdict(watched) == (True, True)


def test_a_learner_that_looks_seldom_may_be_late_in_proportion() -> None:
    watched, clock = monitor(poll_s=3_600.0)
    watched.looked(0)
    clock.now += 2.9 * 3_600
    assert verdict(watched) == (True, True)
    clock.now += 0.2 * 3_600
    assert verdict(watched) == (False, False)


def test_a_long_training_is_no_silence_and_what_follows_it_is_none_either() -> None:
    watched, clock = monitor()
    watched.looked(120)
    watched.training()
    clock.now += 100 * LATE_S
    assert verdict(watched) == (True, True)
    assert watched.health().facts["state_s"] == 100 * LATE_S
    watched.tried(trial(passed=True, promoted=True), 100 * LATE_S)
    assert verdict(watched) == (True, True)
    clock.now += LATE_S + 1
    assert verdict(watched) == (False, False)


def test_an_outage_is_waited_for_as_long_as_it_is_tried_again() -> None:
    watched, clock = monitor()
    for _ in range(20):
        watched.waiting("database is not available: it does not answer")
        clock.now += PAUSE_S + 30.0
        assert verdict(watched) == (True, False)
    assert watched.health().facts["state_s"] == 20 * (PAUSE_S + 30.0)
    clock.now += LATE_S
    assert verdict(watched) == (False, False)
    assert "has not tried again" in watched.health().reasons[0]


def test_a_dead_learner_is_neither_and_a_stopped_one_is_no_fault() -> None:
    watched, _ = monitor()
    watched.looked(0)
    watched.stopped()
    assert verdict(watched) == (True, False)
    with pytest.raises(ConfigurationError), watched.until_death():
        raise ConfigurationError("no model is promoted")
    assert verdict(watched) == (False, False)
    assert watched.health().reasons == ("the learner is dead: no model is promoted",)


def test_the_body_says_what_it_was_judged_by() -> None:
    watched, clock = monitor()
    watched.looked(120)
    watched.training()
    clock.now += 9.0
    watched.tried(trial(passed=False, promoted=False), 9.0)
    clock.now += 1.0
    watched.looked(2)
    clock.now += 0.5
    assert json.loads(json.dumps(watched.health().to_json())) == {
        "status": "ok",
        "healthy": True,
        "ready": True,
        "reasons": [],
        "state": "looking",
        "state_s": 1.5,
        "new_labels": 2,
        "last_look_age_s": 0.5,
        "last_training": {"outcome": "refused", "seconds": 9.0, "age_s": 1.5},
    }


# --- the metrics


def test_each_training_counts_once_by_what_came_of_it() -> None:
    watched, _ = monitor()
    watched.looked(100)
    assert {
        samples(watched)[f'noctule_learner_trainings_total{{outcome="{o}"}}'] for o in OUTCOMES
    } == {0}
    assert "noctule_learner_last_training_seconds" not in samples(watched)
    for passed, promoted in ((True, True), (False, False), (True, False)):
        watched.training()
        watched.tried(trial(passed=passed, promoted=promoted), 20.0)
    watched.training()
    watched.failed(2.0)
    told = samples(watched)
    for outcome in OUTCOMES:
        assert told[f'noctule_learner_trainings_total{{outcome="{outcome}"}}'] == 1
    assert told["noctule_learner_last_training_seconds"] == 2.0
    assert told["noctule_learner_training_seconds_count"] == 4
    assert told["noctule_learner_training_seconds_sum"] == 62.0
    assert told['noctule_learner_training_seconds_bucket{le="10.0"}'] == 1


def test_labels_looks_and_state() -> None:
    watched, clock = monitor()
    assert not {"noctule_learner_new_labels", "noctule_learner_last_look_timestamp_seconds"} & set(
        samples(watched)
    )
    clock.now += 5.0
    watched.looked(17)
    told = samples(watched)
    assert told["noctule_learner_new_labels"] == 17
    assert told["noctule_learner_last_look_timestamp_seconds"] == 1e9 + clock.now
    states = {
        state: told[f'noctule_learner_state{{state="{state}"}}']
        for state in LearnerMonitor.states()
    }
    assert states == {state: float(state is State.LOOKING) for state in LearnerMonitor.states()}
    assert (told["noctule_learner_healthy"], told["noctule_learner_ready"]) == (1, 1)
    assert told["noctule_learner_training_seconds_count"] == 0


def first_column(heading: str) -> list[str]:
    section = PAGE.partition(f" {heading}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def test_states_outcomes_and_fields_are_documented() -> None:
    assert [State(each) for each in first_column("Is the learner well?")[1:]] == list(
        LearnerMonitor.states()
    )
    section = PAGE.partition("## The learner's endpoint")[2].partition("\n## ")[0]
    watched, _ = monitor()
    watched.looked(1)
    watched.tried(trial(passed=True, promoted=True), 1.0)
    facts = watched.health().to_json()
    for name in (*OUTCOMES, *facts, *facts["last_training"]):
        assert f"`{name}`" in section, name
    for name in LearnerMetrics(watched).collect():
        assert f"`{name.name}" in section


# --- the learner tells


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A learner's settings, with a champion and three labels in the database, and a short pause."""
    made = Settings(
        state=tmp_path,
        learning={"frozen_folder": tmp_path, "retrain_every_labels": 3, "poll_s": 0.05},
    )
    engine = open_database(made.store.url.get_secret_value())
    migrate(engine)
    with engine.begin() as connection:
        registry.register_model(connection, manifest("m1"), Path("m1"), now_ms=1)
        registry.promote(connection, "champion", "m1", reason="first", now_ms=1)
        for object_id in (1, 2, 3):
            label(connection, object_id)
    engine.dispose()
    return made


def label(connection: sa.Connection, object_id: int) -> None:
    report_label(
        connection, survey="lsst", object_id=object_id, class_id=111, reporter="me", now_ms=1
    )


class Ends(BaseException):
    """Ends the learner's thread."""


@contextmanager
def learning_on(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: list[Any],
    pause_s: float = 0.05,
) -> Iterator[tuple[LearnerMonitor, httpx.Client]]:
    """The learner in a thread; each training comes to the next of `outcomes`, then it ends."""
    watched = LearnerMonitor(settings.learning.poll_s)

    def train(*_: Any) -> None:
        if not outcomes:
            raise Ends
        if isinstance(outcomes[0], Exception):
            raise outcomes.pop(0)

    monkeypatch.setattr(learning, "PAUSE_S", pause_s)
    monkeypatch.setattr(learner, "training_moments", train)
    monkeypatch.setattr(learner, "train", train)
    monkeypatch.setattr(learner, "try_challenger", lambda *_: outcomes.pop(0))

    def run() -> None:
        try:
            learning._learn_on(settings, watched)
        except Ends:
            watched.stopped()

    thread = threading.Thread(target=run)
    with (
        telling(LearnerMetrics(watched), watched, "127.0.0.1", 0, "learning") as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        thread.start()
        yield watched, client
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def until(said: Callable[[], Any], what: Callable[[], object]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := said()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
    return found


def test_trials_and_outages_of_a_learner_are_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [
        trial(passed=True, promoted=True),
        UnavailableError("Delta table", "no space"),
        trial(passed=False, promoted=False),
        trial(passed=True, promoted=False),
    ]
    with learning_on(settings, monkeypatch, outcomes) as (watched, client):
        until(lambda: watched.state is State.STOPPED, watched.health)
        text = client.get("/metrics").text
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["state"] == "stopped"
    for outcome in OUTCOMES:
        assert f'noctule_learner_trainings_total{{outcome="{outcome}"}} 1.0' in text


def test_an_outage_is_told_while_it_lasts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = UnavailableError("Delta table", "no space")
    with learning_on(settings, monkeypatch, [away], pause_s=2.0) as (watched, client):
        said = until(
            lambda: "no space" in client.get("/readyz").text and client.get("/readyz"),
            watched.health,
        )
        assert said.status_code == 503
        assert client.get("/healthz").status_code == 200


# --- the command


def command(settings: Settings, port: int, *arguments: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NOCTULE_")}
    given = {
        "NOCTULE_STATE": str(settings.state),
        "NOCTULE_LEARNING__METRICS_PORT": str(port),
        "NOCTULE_LEARNING__FROZEN_FOLDER": str(settings.state),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "learn", *arguments],
        env={**clean, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(url: str, process: subprocess.Popen[str]) -> httpx.Response | None:
    assert process.poll() is None, process.communicate()
    try:
        return httpx.get(url, timeout=30)
    except httpx.TransportError:
        return None


def test_the_command_serves_all_three(settings: Settings) -> None:
    port = free_port()
    process = command(settings, port)
    try:
        url = f"http://127.0.0.1:{port}"
        until(
            lambda: (said := answer(f"{url}/readyz", process)) and said.is_success, lambda: "ready"
        )
        for path in ENDPOINTS:
            assert httpx.get(f"{url}{path}", timeout=30).status_code == 200
        said = httpx.get(f"{url}/healthz", timeout=30).json()
        assert (said["state"], said["new_labels"]) == ("looking", 3)
        second = command(settings, port)
        _, error = second.communicate(timeout=120)
        assert second.returncode == 2
        done = subprocess.CompletedProcess([], 2, "", error)
        assert str(port) in one_line(done)
        assert "learning.metrics_port" in one_line(done)
    finally:
        process.terminate()  # a shell's background job would not hear SIGINT
        _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, error


@pytest.mark.parametrize("once", [True, False])
def test_neither_once_nor_port_0_serves(
    once: bool,  # noqa: FBT001
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("it serves")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "telling", refuse)
    monkeypatch.setattr(learning, "learn_once", lambda *_, **__: None)
    monkeypatch.setattr(learning, "learn_forever", stop)
    port = settings.learning.metrics_port if once else 0
    changed = settings.learning.model_copy(update={"metrics_port": port})
    run_learn(settings.model_copy(update={"learning": changed}), once=once)


def test_demos_side_by_side_do_not_want_the_same_ports(tmp_path: Path) -> None:
    data = DemoData(Split(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        made = Settings(
            state=tmp_path, learning={"metrics_port": port}, stream={"metrics_port": free_port()}
        )
        environment = _environment(made, data, 1, "token")
        assert environment["NOCTULE_LEARNING__METRICS_PORT"] == "0"
        assert environment["NOCTULE_STREAM__METRICS_PORT"] == str(made.stream.metrics_port)
        other = made.learning.model_copy(update={"metrics_port": free_port()})
        environment = _environment(made.model_copy(update={"learning": other}), data, 1, "token")
        assert environment["NOCTULE_LEARNING__METRICS_PORT"] == str(other.metrics_port)
