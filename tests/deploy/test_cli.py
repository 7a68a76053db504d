"""What an operator meets: help, one-line errors that say what to do, and the science commands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deploy.cli import app
from deploy.kafka import EmbeddedKafka, create_topics
from models.artifact import save_model
from store.database import migrate, open_database
from tests.portal import night
from tests.sky import trained, write_sky

WIDE = {"COLUMNS": "300"}

COMMANDS = sorted(
    command.name or command.callback.__name__  # type: ignore[union-attr]
    for command in app.registered_commands
)
NAMED_BY_THE_ISSUE = {
    "audit", "check-config", "demo", "evaluate", "import", "kafka", "label", "portal", "predict",
    "promote", "queue", "replay", "simulate", "status", "stream", "train",
}  # fmt: skip


def noctule(
    *arguments: str, state: Path, expect: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NOCTULE_")}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        env={**clean, "NOCTULE_STATE": str(state), **(env or {})},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("noctule: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_every_command_is_there_and_documented() -> None:
    assert set(COMMANDS) >= NAMED_BY_THE_ISSUE
    text = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    assert [name for name in COMMANDS if f"`noctule {name}" not in text] == []
    assert [
        c.name for c in app.registered_commands if not (c.callback and c.callback.__doc__)
    ] == []


def test_java_is_missing(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path), "JAVA_HOME": ""}
    said = one_line(noctule("kafka", state=tmp_path, expect=2, env=env))
    assert "Java" in said
    assert "install" in said


def test_a_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("kafka", "portal"):
            said = one_line(noctule(command, "--port", port, state=tmp_path, expect=2))
            assert port in said


def test_the_port_for_metrics_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        setting = f"stream.metrics_port={port}"
        said = one_line(noctule("--set", setting, "stream", state=tmp_path, expect=2))
        assert port in said
        assert "stream.metrics_port" in said


def test_kafka_is_away(tmp_path: Path) -> None:
    away = ("--set", "kafka.bootstrap_servers=127.0.0.1:1", "--set", "kafka.timeout_s=2")
    said = one_line(noctule(*away, "stream", "--once", state=tmp_path, expect=2))
    assert "Kafka" in said
    assert "kafka.bootstrap_servers" in said


def test_no_kafka_is_named(tmp_path: Path) -> None:
    said = one_line(noctule("stream", "--once", state=tmp_path, expect=2))
    assert "noctule kafka" in said


def test_the_database_is_away(tmp_path: Path) -> None:
    url = "store.url=postgresql://noctule:secret-word@127.0.0.1:1/noctule"
    said = one_line(noctule("--set", url, "status", state=tmp_path, expect=2))
    assert "database" in said
    assert "store.url" in said
    assert "secret-word" not in said


def test_there_is_no_model(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    create_topics(kafka.bootstrap_servers, {"modelless": 1})
    given = (f"kafka.bootstrap_servers={kafka.bootstrap_servers}", "kafka.alert_topics=modelless")
    options = [part for setting in given for part in ("--set", setting)]
    said = one_line(noctule(*options, "stream", "--once", state=tmp_path, expect=2))
    assert "noctule train" in said
    assert "noctule promote" in one_line(
        noctule(
            "predict", "--model", "champion", "--data", ".", "--out", "x", state=tmp_path, expect=2
        )
    )


def test_a_schema_is_explained(tmp_path: Path) -> None:
    done = noctule("explain", "1101", state=tmp_path)
    assert "lsst.v11_1.alert, read as lsst" in done.stdout
    assert "diaSource.psfFlux " in done.stdout
    assert "schemas.source" in one_line(noctule("explain", "99", state=tmp_path, expect=2))


def test_an_unknown_setting_gets_a_suggestion(tmp_path: Path) -> None:
    done = noctule("--set", "kafka.bootstrp_servers=x", "check-config", state=tmp_path, expect=1)
    assert "kafka.bootstrap_servers" in done.stderr


def test_train_predict_evaluate(tmp_path: Path, data_dir: Path) -> None:
    folder, model, scores = (tmp_path / name for name in ("plasticc", "model", "scores.parquet"))
    noctule("import", "plasticc", str(data_dir / "plasticc"), str(folder), state=tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    objects = pq.read_table(folder / "objects.parquet").slice(0, 400)
    pq.write_table(objects, small / "objects.parquet")
    points = pq.read_table(
        folder / "light_curves.parquet",
        filters=[("object_id", "in", objects["object_id"].to_pylist())],
    )
    pq.write_table(points, small / "light_curves.parquet")

    trained = noctule("train", "--data", str(small), "--out", str(model), state=tmp_path)
    version = json.loads(trained.stdout)["model_version"]
    noctule(
        "predict", "--model", str(model), "--data", str(small), "--out", str(scores), state=tmp_path
    )
    table = pq.read_table(scores)
    assert table.num_rows == 400
    assert "days_since_first_detection" not in table.column_names
    assert set(table["model_version"].to_pylist()) == {version}
    done = noctule("evaluate", "--scores", str(scores), "--data", str(small), state=tmp_path)
    figures = json.loads(done.stdout)
    assert figures["n_objects"] + sum(figures["n_not_evaluated"].values()) == 400
    assert figures["log_loss"] < 2.0

    assert version in noctule("promote", str(model), state=tmp_path).stdout
    assert version in noctule("status", state=tmp_path).stdout
    alias = noctule(
        "predict",
        "--model",
        "champion",
        "--data",
        str(small),
        "--out",
        str(scores),
        "--moments",
        state=tmp_path,
    )
    assert int(alias.stdout.split()[0]) > 400
    more = {"days_since_first_detection"}
    assert set(pq.read_table(scores).column_names) == {*table.column_names, *more}
    by_days = json.loads(
        noctule("evaluate", "--scores", str(scores), "--data", str(small), state=tmp_path).stdout
    )["by_days"]
    assert [row["from_days"] for row in by_days] == sorted(row["from_days"] for row in by_days)


def test_each_survey_has_a_champion_of_its_own(tmp_path: Path) -> None:
    data, ours = write_sky(tmp_path / "sky"), tmp_path / "ours"
    version = save_model(trained(), ours).model_version
    options = ("--data", str(data), "--survey", "ztf", "--out", str(tmp_path / "theirs"))
    theirs = json.loads(noctule("train", *options, state=tmp_path).stdout)["model_version"]
    settings = {**trained().training["settings"], "seed": 7, "survey": "ztf"}
    another = replace(trained(), training={**trained().training, "settings": settings})
    second = save_model(another, tmp_path / "second").model_version

    assert noctule("promote", str(ours), state=tmp_path).stdout == f"champion is {version}\n"
    given = ("promote", "--survey", "ztf")
    said = one_line(noctule(*given, str(ours), state=tmp_path, expect=2))
    assert "was trained for lsst, not for ztf" in said
    assert "no survey is called atlas" in one_line(
        noctule("promote", str(ours), "--survey", "atlas", state=tmp_path, expect=2)
    )
    assert "model for ztf" not in noctule("status", state=tmp_path).stdout
    for model, promoted in ((tmp_path / "theirs", theirs), (tmp_path / "second", second)):
        done = noctule(*given, str(model), state=tmp_path)
        assert done.stdout == f"champion-ztf is {promoted}\n"
    done = noctule(*given, "--rollback", state=tmp_path)
    assert done.stdout == f"champion-ztf is {theirs}\n"
    told = noctule("status", state=tmp_path, env=WIDE).stdout.splitlines()
    assert [version in line for line in told if "model " in line] == [True, False]
    assert [theirs in line for line in told if "model " in line] == [False, True]
    assert "nothing to roll back" in one_line(
        noctule("promote", "--rollback", state=tmp_path, expect=2)
    )


@pytest.mark.parametrize("text", ["nonsense", "999"])
def test_a_label_needs_a_class_of_the_taxonomy(tmp_path: Path, text: str) -> None:
    said = one_line(noctule("label", "1", text, "--reporter", "me", state=tmp_path, expect=2))
    assert "111 SN Ia" in said


MODELS = {"models.kinds", "models.artifact", "lightcurves.features", "numba"}


@pytest.mark.parametrize(
    ("arguments", "not_loaded"),
    [
        (["-c", "import portal.app, portal.serve"], MODELS),
        (["-m", "deploy.cli", "status"], MODELS),
        (["-m", "deploy.cli", "queue"], MODELS),
        (["-m", "deploy.cli", "check-config"], {*MODELS, "pyarrow", "sqlalchemy"}),
    ],
    ids=["portal", "status", "queue", "check-config"],
)
def test_what_scores_nothing_starts_without_the_models(
    tmp_path: Path, arguments: list[str], not_loaded: set[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        env={**os.environ, "NOCTULE_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typing" in loaded
    assert loaded & not_loaded == set()


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A state folder whose database has one request, for an object whose id two surveys have."""
    engine = open_database(f"sqlite:///{tmp_path}/noctule.sqlite")
    migrate(engine)
    with engine.begin() as connection:
        for survey in ("lsst", "ztf"):
            night.add_unscored_object(connection, 17, survey=survey)
        night.add_request(connection, 17, survey="ztf")
    engine.dispose()
    return tmp_path


def test_a_request_is_followed_from_the_terminal(asked: Path) -> None:
    told = noctule("request", "1", "claimed", "--who", "me", "--why", "clear", state=asked)
    assert told.stdout == "event 2\n"
    assert "claimed by me" in noctule("queue", state=asked, env=WIDE).stdout
    said = one_line(noctule("request", "1", "lost", "--who", "me", state=asked, expect=2))
    assert "choose one of seen, claimed" in said
    noctule("request", "1", "withdrawn", "--who", "me", state=asked)
    said = one_line(noctule("request", "1", "seen", "--who", "me", state=asked, expect=2))
    assert "it is withdrawn" in said


def test_a_label_of_an_unknown_object_needs_the_survey(asked: Path) -> None:
    given = ("label", "18", "111", "--reporter", "me")
    said = one_line(noctule(*given, state=asked, expect=2))
    assert "no alert of object 18 has been read: add --survey" in said
    assert noctule(*given, "--survey", "ztf", state=asked).stdout == "label 1\n"


def test_a_label_needs_the_survey_where_two_have_the_id(asked: Path) -> None:
    given = ("label", "17", "111", "--reporter", "me")
    said = one_line(noctule(*given, state=asked, expect=2))
    assert "add --survey, one of lsst, ztf" in said
    assert noctule(*given, "--survey", "ztf", state=asked).stdout == "label 1\n"
    every = noctule("queue", "--all", state=asked, env=WIDE).stdout
    assert "answered by me" in every
    assert "SN Ia" in every
