"""A real schema registry for the tests: Apicurio Registry, in memory, on a free loopback port.

It comes from Maven Central, as Kafka's jars do: by the Ivy that pyspark ships, once into the user's
cache folder, pinned by its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from platformdirs import user_cache_path

from deploy import kafka_jars, watchdog
from deploy.java import find_java
from deploy.kafka import end_group, log_end
from lightcurves.errors import UnavailableError

VERSION = "2.6.13.Final"
SHA256 = "3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba"
SIZE_MB = 142

COMPATIBLE = "/apis/ccompat/v6"
START_TIMEOUT_S = 60.0
TELL_EVERY_S = 2.0

# The second name is that of an XML namespace, which Ivy knows without asking anybody.
IVY = f"""\
<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">
  <info organisation="noctule" module="schema-registry"/>
  <dependencies>
    <dependency org="io.apicurio" name="apicurio-registry-app" rev="{VERSION}" conf="default"
                transitive="false">
      <artifact name="apicurio-registry-app" type="tar.gz" ext="tar.gz" m:classifier="all"/>
    </dependency>
  </dependencies>
</ivy-module>
"""

JVM_OPTIONS = (
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",  # a few requests: to be up soon is all the speed that counts
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",  # leaves a file in /tmp when the JVM is killed
)

Progress = Callable[[str], None]


def tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def registry_app(limit_s: float = math.inf, progress: Progress = tell) -> Path:
    """Folder with Apicurio Registry, fetched at the first call.

    Raises
    ------
    UnavailableError
        Maven Central does not answer, or not within `limit_s`.
    ConfigurationError
        Java is missing.
    """
    app = user_cache_path("noctule") / "apicurio-registry" / VERSION
    if not app.exists():
        app.parent.mkdir(parents=True, exist_ok=True)
        with kafka_jars._locked(app.with_name(f"{VERSION}.lock")):
            if not app.exists():
                _fetch_into(app, limit_s, progress)
    return app


def _fetch_into(app: Path, limit_s: float, progress: Progress) -> None:
    """Fetch in a folder beside it, so that it appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=app.parent, prefix=f"{VERSION}-fetching-") as scratch:
        archive = _retrieve(Path(scratch), limit_s, progress)
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise RuntimeError(f"{archive.name} is not the archive that tests/registry.py pins")
        progress("  unpacking")
        unpacked = Path(scratch) / "app"
        # Before 3.11.4 tarfile knows no filter; the archive is the pinned one.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, **safely)  # noqa: S202 - see above
        unpacked.rename(app)


def _retrieve(scratch: Path, limit_s: float, progress: Progress) -> Path:
    """Run Ivy with a cache of its own; returns the archive."""
    (scratch / "ivy.xml").write_text(IVY)
    command = [
        *(f"{find_java()}", "-XX:-UsePerfData", "-jar", f"{kafka_jars._ivy_jar()}"),
        *("-ivy", f"{scratch}/ivy.xml", "-cache", f"{scratch}/cache", "-confs", "default"),
        *("-retrieve", f"{scratch}/[artifact].[ext]"),
    ]
    progress(f"fetching Apicurio Registry {VERSION} from Maven Central: {SIZE_MB} MB, once")
    log = scratch / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        ) as ivy,
    ):
        try:
            in_time = _ends_in_time(ivy, scratch, limit_s, progress)
        finally:
            ivy.kill()
    if not in_time:
        raise _not_fetched(f"it took longer than {limit_s:.0f} s")
    if ivy.returncode:
        raise _not_fetched(f"Ivy said: {log_end(log)}")
    return scratch / "apicurio-registry-app.tar.gz"


def _ends_in_time(
    ivy: subprocess.Popen[bytes], scratch: Path, limit_s: float, progress: Progress
) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            ivy.wait(TELL_EVERY_S)
        except subprocess.TimeoutExpired:
            progress(f"  {_arrived_mb(scratch)}/{SIZE_MB} MB")
        else:
            return True
    return False


def _arrived_mb(scratch: Path) -> int:
    answer = 0
    for path in scratch.rglob("*.tar.gz*"):
        try:
            answer = max(answer, path.stat().st_size // 10**6)
        except FileNotFoundError:  # Ivy renames it when it is whole
            continue
    return answer


def _not_fetched(why: str) -> UnavailableError:
    hint = "check the network, then run .venv/bin/python -m tests.registry to fetch it once"
    return UnavailableError("Maven Central", f"{hint}; {why}")


class SchemaRegistry:
    """One registry for a session of tests; what it holds is gone with it.

    Its ids are its own: 1, 2, 3 in the order in which new texts come; :meth:`restore` brings others.
    """

    def __init__(self, java: Path, app: Path) -> None:
        self.url = ""
        self._java = java
        self._app = app
        self._folder = Path(tempfile.mkdtemp(prefix="noctule-registry-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._clean_up()

    def register(self, subject: str, text: str) -> int:
        """Register a schema as producers do; returns the id that the registry gives it."""
        answer = httpx.post(
            f"{self.url}/subjects/{subject}/versions",
            json={"schema": text},
            timeout=START_TIMEOUT_S,
        )
        schema_id: int = answer.raise_for_status().json()["id"]
        return schema_id

    def restore(self, schemas: dict[int, str]) -> None:
        """Import schemas with the ids that they had elsewhere, as from a backup; new to it all."""
        backup = io.BytesIO()
        with zipfile.ZipFile(backup, "w") as file:
            for number, (schema_id, text) in enumerate(schemas.items(), 1):
                digest = hashlib.sha256(text.encode()).hexdigest()
                content = {"contentId": schema_id, "contentHash": digest, "canonicalHash": digest}
                version = {
                    "globalId": schema_id,
                    "contentId": schema_id,
                    "artifactId": "restored",
                    "version": str(number),
                    "versionId": number,
                    "artifactType": "AVRO",
                    "state": "ENABLED",
                    "isLatest": number == len(schemas),
                    "createdBy": "",
                }
                place = f"groups/default/artifacts/restored/versions/{number}.ArtifactVersion.json"
                file.writestr(f"content/{digest}.Content.json", json.dumps(content))
                file.writestr(f"content/{digest}.Content.data", text)
                file.writestr(place, json.dumps({**version, "createdOn": 1}))
            file.writestr("manifest-1.Manifest.json", json.dumps({"exportVersion": "1.0"}))
        httpx.post(
            f"{self.url.removesuffix(COMPATIBLE)}/apis/registry/v2/admin/import",
            content=backup.getvalue(),
            headers={"Content-Type": "application/zip"},
            timeout=START_TIMEOUT_S,
        ).raise_for_status()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Hold it: its port takes connections, and nobody answers on them."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def _start(self) -> None:
        """Start on a port of its own choice and wait until it tells which."""
        (runner,) = self._app.glob("*-runner.jar")
        command = [
            *(f"{self._java}", *JVM_OPTIONS, f"-Djava.io.tmpdir={self._folder}"),
            *("-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port=0"),
            *("-jar", f"{runner}"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", watchdog.__file__, str(os.getpid()), *command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops it
            )
        self.url = f"{self._address()}{COMPATIBLE}"

    def _address(self) -> str:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            listening = re.search(r"Listening on: (http://[\d.]+:\d+)", self._log.read_text())
            if listening:
                return listening.group(1)
            time.sleep(0.05)
        raise RuntimeError(f"Apicurio Registry did not start: {log_end(self._log)}")

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _clean_up(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            end_group(process)
        shutil.rmtree(self._folder)


if __name__ == "__main__":
    registry_app()
