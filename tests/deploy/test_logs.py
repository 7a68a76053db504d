"""The log in both forms."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.commands.operate import _maintain_once
from deploy.sections import Settings
from store.rescored import RescoredTable
from tests.deploy.test_cli import noctule
from tests.store.test_maintenance import fill
from watch import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the root logger and the hook as they were."""
    handlers, level, hook = logging.root.handlers[:], logging.root.level, sys.excepthook
    yield
    logging.captureWarnings(capture=False)
    logging.root.handlers[:], sys.excepthook = handlers, hook
    logging.root.setLevel(level)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.text(), st.dictionaries(st.from_regex(r"x_[a-z]{1,9}", fullmatch=True), json_values))
def test_a_line_is_one_object_with_all_that_was_given(
    message: str, extra: dict[str, object]
) -> None:
    record = logging.LogRecord("noctule", logging.WARNING, "", 0, "%s", (message,), None)
    vars(record).update(extra)
    line = logs.JsonFormatter().format(record)
    assert len(line.split("\n")) == 1
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"]) == ("warning", "noctule", message)
    assert {name: value for name, value in said.items() if name in extra} == extra
    assert set(said) == {"time", "level", "logger", "message", *extra}


def test_what_json_cannot_say_becomes_text() -> None:
    record = logging.makeLogRecord({"msg": "m", "folder": Path("/state")})
    assert json.loads(logs.JsonFormatter().format(record))["folder"] == "/state"


def test_an_exception_is_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    try:
        int("a\nb")
    except ValueError:
        logging.getLogger("noctule").exception("it broke")
    said = json.loads(capsys.readouterr().err)
    assert "Traceback" in said["exception"]
    assert "ValueError" in said["exception"]


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    kinds: tuple[logs.Format, ...] = ("text", "json")
    for kind in kinds:
        logs.configure(kind, quiet=True)
        logging.getLogger("noctule").info("all is well")
        logging.getLogger("noctule").warning("look out")
        said = capsys.readouterr().err
        assert "look out" in said
        assert "all is well" not in said


def test_a_later_form_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    logs.configure("json")
    logging.getLogger("noctule").warning("once")
    assert json.loads(capsys.readouterr().err)["message"] == "once"
    assert logs.is_json()


def test_a_warning_and_an_error_that_nobody_caught_are_lines() -> None:
    program = (
        "import warnings; from watch import logs; logs.configure('json'); "
        "warnings.warn('look out'); raise RuntimeError('a fault')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    warning, said = map(json.loads, done.stderr.splitlines())
    assert "look out" in warning["message"]
    assert (said["level"], said["message"]) == ("critical", "a fault")
    assert "RuntimeError" in said["exception"]


def tables_to_maintain(state: Path) -> None:
    """What a stream and a re-scoring leave: nine small files each."""
    night = state / "delta" / "alerts"
    fill(night, n_days=9)
    texts = [("survey", pa.string()), ("model_version", pa.string())]
    schema = pa.schema([("dia_source_id", pa.int64()), *texts])
    target = RescoredTable(state / "delta" / "rescored", schema, "m")
    for k in range(9):
        target.present(np.array([k]))
        assert target.add(
            pa.table({"dia_source_id": [k], "survey": ["lsst"], "model_version": ["m"]}, schema)
        )


def test_maintenance_tells_each_step_with_its_numbers(tmp_path: Path) -> None:
    tables_to_maintain(tmp_path)
    done = noctule("--set", "logs.format=json", "maintain", state=tmp_path)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    steps = [(line.get("table"), line["step"]) for line in lines if "step" in line]
    rewritten = ["join", "vacuum", "log", "done"]
    assert steps == [
        ("alerts", "join"),
        ("alerts", "vacuum"),
        ("alerts", "log"),
        (None, "analyse"),
        ("alerts", "done"),
        *(("rescored", step) for step in rewritten),
    ]
    join, *_, told = [line for line in lines if line.get("table") == "alerts"]
    assert (join["group"], join["n_groups"], join["n_files"]) == (1, 1, 9)
    assert (told["files_before"], told["files_after"], told["n_emptied"]) == (9, 1, 24)
    assert told["bytes_before"] > told["bytes_after"] > 0
    assert {"n_vacuumed", "vacuumed_bytes", "n_log_files", "overtaken"} <= set(told)
    assert lines[-1]["files_after"] == 1
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    for name in {*told, *join} - {"time", "level", "logger", "message"}:
        assert f"`{name}`" in page, name


def test_a_round_that_is_stopped_at_once_touches_neither_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables_to_maintain(tmp_path)
    before = set(tmp_path.rglob("*.parquet"))
    stop = threading.Event()
    stop.set()
    with caplog.at_level(logging.INFO, "noctule"):
        _maintain_once(Settings(state=tmp_path), stop)
    said = [vars(line) for line in caplog.records]
    tables = [line["table"] for line in said if line.get("step") == "stop"]
    assert tables == ["alerts", "rescored"]
    assert set(tmp_path.rglob("*.parquet")) == before
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    assert "| `stop` |" in page


def test_maintenance_tells_people_one_line_for_each_table(tmp_path: Path) -> None:
    tables_to_maintain(tmp_path)
    done = noctule("--quiet", "maintain", state=tmp_path)
    first, second = done.stderr.splitlines()
    assert re.fullmatch(
        r"9 files of .* MB are 1 of .* MB; 24 light curves emptied; 0 files .*", first
    )
    assert second.startswith("rescored: 9 files of ")
    assert "group 1 of 1: 9 files are one" in noctule("maintain", state=other(tmp_path)).stderr


def other(folder: Path) -> Path:
    tables_to_maintain(folder / "other")
    return folder / "other"


def test_the_last_word_of_a_command_is_in_the_form_that_was_set(tmp_path: Path) -> None:
    done = noctule("--set", "logs.format=json", "topics", state=tmp_path, expect=2)
    said = json.loads(done.stderr)
    assert said["level"] == "critical"
    assert "kafka.bootstrap_servers" in said["message"]
