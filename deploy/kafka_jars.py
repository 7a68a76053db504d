"""Apache Kafka's jars: downloaded once, from Maven Central, by the Ivy that pyspark ships.

``kafka_ivy.xml`` says what is downloaded; ``kafka_jars.sha256`` pins every jar, as the lock
files pin every Python package. After a change of the first, `sha256sum *.jar` in the downloaded
folder gives the second.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from deploy.java import find_java
from lightcurves.errors import ConfigurationError, UnavailableError

KAFKA_VERSION = "4.3.1"

Progress = Callable[[str], None]


def kafka_jars(cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the folder with Kafka's jars, downloaded at the first call (44 MB, under a minute).

    Parameters
    ----------
    cache
        Folder to store them in; by default the user's cache folder.
    progress
        Called with a line of text before the download and after each jar.

    Raises
    ------
    UnavailableError
        Maven Central does not answer.
    ConfigurationError
        Java is missing, or a jar is not the pinned one.

    Notes
    -----
    The folder appears complete or not at all, whatever is interrupted, and two processes that call this
    at the same time download once.
    """
    jars = (cache or user_cache_path("noctule")) / "kafka" / KAFKA_VERSION
    if not jars.exists():
        jars.parent.mkdir(parents=True, exist_ok=True)
        with _locked(jars.with_name(f"{jars.name}.lock")):
            if not jars.exists():
                _fetch_into(jars, progress or _ignore)
    return jars


def _ignore(_line: str) -> None:
    pass


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the system, also when the process dies
        yield


def _fetch_into(jars: Path, progress: Progress) -> None:
    scratch = Path(tempfile.mkdtemp(dir=jars.parent, prefix=f"{jars.name}-fetching-"))
    try:
        _retrieve(scratch, progress)
        _verify(scratch / "lib")
        (scratch / "lib").rename(jars)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _retrieve(scratch: Path, progress: Progress) -> None:
    """Run Ivy with a separate cache, so that no other settings or leftovers matter."""
    total = len(_pinned())
    progress(f"fetching Apache Kafka {KAFKA_VERSION} from Maven Central: {total} jars, once")
    command = [
        *(f"{find_java()}", "-jar", f"{_ivy_jar()}"),
        *("-ivy", f"{files('deploy') / 'kafka_ivy.xml'}"),
        *("-cache", f"{scratch}/cache"),
        *("-confs", "default", "-types", "jar", "bundle"),
        *("-retrieve", f"{scratch}/lib/[artifact]-[revision].[ext]"),
    ]
    with subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as ivy:
        said = list(_report(ivy.stdout or (), total, progress))
    if ivy.returncode:
        raise _failure(said)


def _report(lines: Iterable[str], total: int, progress: Progress) -> Iterator[str]:
    """Pass on Ivy's lines, and report each jar that arrives."""
    arrived = 0
    for line in lines:
        jar = re.search(r"SUCCESSFUL \] .*!(\S+)", line)
        if jar:
            arrived += 1
            progress(f"  {arrived}/{total} {jar.group(1)}")
        yield line.strip()


def _failure(said: list[str]) -> UnavailableError:
    complaints = [
        line for line in said if "ERROR" in line or "not found" in line or "FAILED" in line
    ]
    reason = (complaints or said or ["Ivy said nothing"])[-1]
    return UnavailableError(
        "Maven Central",
        f"check the network and try again, or use another Kafka; Ivy said: {reason}",
    )


def _ivy_jar() -> Path:
    pyspark = find_spec("pyspark")
    if pyspark is None or pyspark.origin is None:
        raise ConfigurationError("pyspark is not installed: run make setup")
    return next((Path(pyspark.origin).parent / "jars").glob("ivy-*.jar"))


def _pinned() -> dict[str, str]:
    """File name to SHA-256."""
    lines = (files("deploy") / "kafka_jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def _verify(folder: Path) -> None:
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }
    wrong = sorted(name for name, _ in digests.items() ^ _pinned().items())
    if wrong:
        raise ConfigurationError(
            "the jars fetched for Kafka are not those pinned, fetch again over a network that you "
            f"trust: {', '.join(dict.fromkeys(wrong))}"
        )


if __name__ == "__main__":
    kafka_jars(progress=print)
