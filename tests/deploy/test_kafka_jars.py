from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy import kafka_jars as module
from deploy.kafka_jars import KAFKA_VERSION, kafka_jars
from lightcurves.errors import ConfigurationError, NoctuleError, UnavailableError

PINNED = {"a.jar": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_pinned", lambda: PINNED)


def serve(monkeypatch: pytest.MonkeyPatch, content: str) -> list[Path]:
    """Stand in for Ivy and Maven Central; returns the list of folders that were filled."""
    fetched = []

    def retrieve(scratch: Path, _progress: module.Progress) -> None:
        fetched.append(scratch)
        (scratch / "lib").mkdir()
        (scratch / "lib" / "a.jar").write_text(content)

    monkeypatch.setattr(module, "_retrieve", retrieve)
    return fetched


@pytest.mark.usefixtures("pins")
def test_jars_are_fetched_once_whoever_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = serve(monkeypatch, "a")
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(kafka_jars, [tmp_path] * 4))
    assert folders == {tmp_path / "kafka" / KAFKA_VERSION}
    assert len(fetched) == 1
    assert not fetched[0].exists()


@pytest.mark.usefixtures("pins")
def test_a_jar_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, "tampered")
    with pytest.raises(ConfigurationError, match=r"a\.jar"):
        kafka_jars(tmp_path)
    assert [path.name for path in (tmp_path / "kafka").iterdir()] == [f"{KAFKA_VERSION}.lock"]


def test_ivy_tells_of_each_jar() -> None:
    told: list[str] = []
    lines = ["downloading ...", "\t[SUCCESSFUL ] org.apache.kafka#raft;4!kafka-raft.jar (1ms)\n"]
    assert len(list(module._report(lines, 46, told.append))) == 2
    assert told == ["  1/46 kafka-raft.jar"]


def test_a_failed_fetch_is_one_line_with_what_ivy_said() -> None:
    failure: NoctuleError = module._failure(["", ":: UNRESOLVED", "\tSERVER ERROR: no route", ""])
    assert isinstance(failure, UnavailableError)
    assert "Maven Central is not available" in str(failure)
    assert "no route" in str(failure)


def test_every_pin_is_a_sha256() -> None:
    pinned = module._pinned()
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in pinned
    assert all(len(bytes.fromhex(digest)) == 32 for digest in pinned.values())
