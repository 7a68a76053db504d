"""What a worker holds between tasks: consumers that stay, and no memory that lies free."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from stream import worker
from stream.consumer import Range
from stream.priority import Priority
from stream.scoring import ScorerConfig
from stream.session import KEEP_MEMORY
from stream.worker import WorkerConfig, _WorkerState

REPOSITORY = Path(__file__).parents[2]
ONE, OTHER = Range("t", 0, 0, 0), Range("t", 1, 0, 0)


@pytest.fixture
def state(tmp_path: Path) -> _WorkerState:
    """A worker's state; nobody has to answer, since it reads nothing."""
    config = WorkerConfig(
        {"bootstrap.servers": "127.0.0.1:1"}, ScorerConfig(str(tmp_path)), "", "run",
        priority=Priority(1.0, 1.0),
    )  # fmt: skip
    return _WorkerState(config)


def test_who_looked_ahead_keeps_its_consumers_as_long_as_the_partitions_are_its_own(
    state: _WorkerState,
) -> None:
    try:
        state.readers_of([ONE, OTHER])
        first = state.lookers_of([ONE, OTHER])
        state.readers_of([ONE, OTHER])
        first[ONE].begin(5, "m")
        assert state.lookers_of([]) == {}  # not behind for a while
        assert not first[ONE]._may_fetch()
        again = state.lookers_of([ONE, OTHER])
        assert [again[part] for part in (ONE, OTHER)] == [first[part] for part in (ONE, OTHER)]
        state.readers_of([OTHER])
        assert state.readers.keys() == state.lookers.keys() == {("t", 1)}
    finally:
        state.close()


def test_memory_is_given_back_now_and_then(
    state: _WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(worker, "_malloc_trim", calls.append)
    monkeypatch.setattr(worker, "TIDY_EVERY", 10)
    try:
        for done in range(1, 31):
            state.tidy(1)
            assert len(calls) == done // 10
        state.tidy(1_000)
        assert len(calls) == 4
    finally:
        state.close()


HOLES = """
import os
from stream.worker import _malloc_trim
def held_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
blocks = [bytearray(b"x") * (1 << 20) for _ in range(300)]
full = held_mb()
blocks = blocks[::50]
state = held_mb()
_malloc_trim(0)
print(full, state, held_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory so")
def test_what_lies_free_between_is_kept_until_it_is_given_back() -> None:
    given = os.environ | {"GLIBC_TUNABLES": KEEP_MEMORY}
    command = [sys.executable, "-c", HOLES]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, env=given, cwd=REPOSITORY
    )
    full, left, tidied = map(float, said.stdout.split())
    assert left > full - 50
    assert tidied < full - 250
