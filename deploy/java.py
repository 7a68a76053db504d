"""Finds the one prerequisite that no Python package contains: Java 17 or newer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from lightcurves.errors import ConfigurationError

OLDEST_JAVA = 17  # Spark 4 and Kafka 4 are compiled for it

INSTALL_JAVA = (
    "install it (Debian: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17)"
)


def find_java() -> Path:
    """Path of a ``java`` program of version 17 or newer.

    ``JAVA_HOME`` decides if it is set, as for Spark; otherwise ``PATH``.

    Raises
    ------
    ConfigurationError
        There is none, or it is older; the message names the command that installs one.
    """
    java = _candidate()
    if java is None:
        raise ConfigurationError(
            f"Java {OLDEST_JAVA} or newer is needed, none found: {INSTALL_JAVA}"
        )
    version = _major_version(java)
    if version < OLDEST_JAVA:
        reason = f"{java} is Java {version}" if version else f"{java} does not report its version"
        raise ConfigurationError(f"Java {OLDEST_JAVA} or newer is needed, {reason}: {INSTALL_JAVA}")
    return java


def _candidate() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    name = str(Path(home) / "bin" / "java") if home else "java"
    path = shutil.which(name)
    return Path(path) if path else None


def _major_version(java: Path) -> int:
    """First number of ``java -version``; Java 8 calls itself 1.8 and so counts as 1."""
    answer = subprocess.run(
        [java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    version = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    return int(version.group(1)) if version else 0
