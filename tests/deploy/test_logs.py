"""The log in both forms."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import logs
from tests.deploy.test_cli import noctule


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
        "import warnings; from deploy import logs; logs.configure('json'); "
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


def test_the_last_word_of_a_command_is_in_the_form_that_was_set(tmp_path: Path) -> None:
    done = noctule("--set", "logs.format=json", "topics", state=tmp_path, expect=2)
    said = json.loads(done.stderr)
    assert said["level"] == "critical"
    assert "kafka.bootstrap_servers" in said["message"]
