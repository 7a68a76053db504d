"""Serving: ports, readiness, and a quiet end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from lightcurves.errors import ConfigurationError
from portal.serve import serve, serving
from tests.portal.conftest import make_app

PROGRAM = """
import sys
from portal.app import create_app
from portal.serve import serve
from store.database import migrate, open_database

engine = open_database(sys.argv[1])
migrate(engine)
app = create_app(engine, light_curve=lambda *_: None, token=None)
serve(app, "127.0.0.1", 0, ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


def test_port_0_takes_a_free_one_and_tells_which(sqlite: sa.Engine) -> None:
    with serving(make_app(sqlite)) as one, serving(make_app(sqlite)) as other:
        assert one != other
        assert httpx.get(f"{one}/api/health").status_code == 200
        assert httpx.get(f"{other}/api/health").status_code == 200


def test_a_port_is_free_again_at_once(sqlite: sa.Engine) -> None:
    with serving(make_app(sqlite)) as url:
        httpx.get(f"{url}/api/health")
    with serving(make_app(sqlite), port=int(url.rpartition(":")[2])) as again:
        assert again == url


def test_a_taken_port_is_one_line_that_says_what_to_do(sqlite: sa.Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as error:
            serve(make_app(sqlite), "127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(error.value)
    assert "NOCTULE_PORTAL__PORT" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_names_the_setting(sqlite: sa.Engine, host: str) -> None:
    with pytest.raises(ConfigurationError, match="NOCTULE_PORTAL__HOST"):
        serve(make_app(sqlite), host, 0)


def test_answers_are_not_delayed(sqlite: sa.Engine) -> None:
    """Nagle's algorithm would cost 40 ms an answer on a connection that is kept."""
    with serving(make_app(sqlite)) as url, httpx.Client(base_url=url) as client:
        client.get("/api/health")
        times = []
        for _ in range(15):
            start = time.perf_counter()
            client.get("/api/health")
            times.append(time.perf_counter() - start)
    assert min(times) < 0.03


def test_a_request_at_work_is_answered_before_the_end(sqlite: sa.Engine) -> None:
    started = threading.Event()
    answers: list[int] = []

    def slow(_survey: str, _: int) -> None:
        started.set()
        time.sleep(0.5)

    def ask(url: str) -> None:
        answers.append(httpx.get(f"{url}/api/objects/1?survey=lsst").status_code)

    with serving(make_app(sqlite, light_curve=slow)) as url:
        asking = threading.Thread(target=ask, args=(url,))
        asking.start()
        started.wait(10)
    asking.join()
    assert answers == [404]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_by_returning(tmp_path: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/a.sqlite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/api/health").status_code == 200
        process.send_signal(end)
        rest, _ = process.communicate(timeout=20)
    assert rest == "ended\n"
    assert process.returncode == 0
