from __future__ import annotations

from pathlib import Path

import pytest

from deploy.java import find_java
from lightcurves.errors import ConfigurationError


def install_java(home: Path, version_line: str) -> None:
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{version_line}' >&2\n")
    java.chmod(0o755)


def test_java_home_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_java(tmp_path, 'openjdk version "21.0.2" 2024-01-16')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == tmp_path / "bin" / "java"


@pytest.mark.parametrize(
    "version_line", ['java version "1.8.0_402"', 'openjdk version "11.0.22" 2024-01-16', "what?"]
)
def test_an_old_java_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version_line: str
) -> None:
    install_java(tmp_path, version_line)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"Java 17 or newer.*apt-get install openjdk-17"):
        find_java()


def test_no_java_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError) as error:
        find_java()
    assert "none found" in str(error.value)
    assert "brew install openjdk@17" in str(error.value)
    assert "\n" not in str(error.value)
