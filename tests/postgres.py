"""A PostgreSQL for the tests: its own server on a free loopback port, with nothing to lose."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier

USER = "noctule"
PASSWORD = "hunter2@home"  # noqa: S105 - of a server that lives as long as the tests; @ on purpose
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0

FAST = ("-F", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
"""Nothing has to outlive a power failure."""


@cache
def find_postgres() -> Path | None:
    """Folder of PostgreSQL's programs, the newest there is; None where it is not installed."""
    debian = Path("/usr/lib/postgresql")
    folders = sorted(debian.glob("*/bin"), key=lambda path: -float(path.parent.name))
    on_path = shutil.which("initdb")
    found = [*folders, *([Path(on_path).parent] if on_path else [])]
    return next((path for path in found if (path / "postgres").exists()), None)


class PostgresServer:
    """One server for a session of tests; every test makes databases of its own in it."""

    def __init__(self, programs: Path, options: Sequence[str] = FAST) -> None:
        self._programs = programs
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="noctule-postgres-"))
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
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

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{quote(PASSWORD)}@127.0.0.1:{self._port}/{database}"

    def new_database(self) -> str:
        """URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return self.url(name)

    def start(self) -> None:
        """Start, also after `stop`, and wait until it answers."""
        listen = ["-p", str(self._port), "-c", "listen_addresses=127.0.0.1"]
        self._process = self._launch("postgres", *listen, "-k", "", *self._options)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop, ending its clients' sessions."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)  # "fast shutdown"
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _initialise(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if account := _account():
            shutil.chown(self._folder, account.pw_uid)
            shutil.chown(password, account.pw_uid)
        options = ["--auth=scram-sha-256", f"--pwfile={password}", f"--username={USER}"]
        initdb = self._launch("initdb", "--no-sync", "--encoding=UTF8", "--locale=C", *options)
        if initdb.wait():
            raise RuntimeError(f"initdb failed: {self._log.read_text()}")

    def _launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Run one of PostgreSQL's programs, which refuse to run as root."""
        account = _account()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [self._programs / program, "-D", self._folder / "data", *arguments],
                cwd=self._folder,
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=account and [],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops it
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _clean_up(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)


def _account() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as; None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    return next(user for user in pwd.getpwall() if user.pw_name in {"postgres", "nobody"})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
