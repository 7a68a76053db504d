"""SIGKILL in the middle of a batch, again and again: nothing lost, nothing double."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import environment_name
from store.tables import accounting, classifications, duplicates, rejected
from tests.stream.conftest import Night

N_ALERTS = 240
N_KILLS = 1


def environment(night: Night) -> dict[str, str]:
    kafka = night.settings.kafka
    given = {
        "state": str(night.settings.state),
        "kafka.bootstrap_servers": str(kafka.bootstrap_servers),
        "kafka.alert_topics": night.topic,
        "kafka.classified_topic": kafka.classified_topic,
        "kafka.novel_topic": kafka.novel_topic,
        "kafka.requests_topic": kafka.requests_topic,
        "kafka.rejected_topic": kafka.rejected_topic,
        "stream.max_alerts_per_batch": "40",
        "stream.trigger_s": "0",
    }
    return {**os.environ, **{environment_name(key): value for key, value in given.items()}}


def stream(night: Night, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deploy.cli", "stream", *arguments]
    with (night.settings.state / "stream.log").open("ab") as log:
        return subprocess.Popen(
            command, env=environment(night), stdout=log, stderr=log, start_new_session=True
        )


def fresh_packets(packets: list[bytes]) -> Iterator[bytes]:
    """Real packets with ids of their own, every 30th cut short."""
    from benchmarks.setting import with_id  # noqa: PLC0415

    small = sorted(packets, key=len)[:12]
    for k in range(N_ALERTS):
        packet = with_id(small[k % len(small)], 10**17 + k)
        yield packet[: len(packet) // 2] if k % 30 == 7 else packet


def members_of(group: int) -> list[int]:
    """Process ids of a process group, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, pgrp = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except OSError:
                continue
            if int(pgrp) == group and state != "Z":
                found.append(int(entry.name))
    return found


def kill_when_busy(night: Night, rng: random.Random) -> None:
    """Start the stream, kill it somewhere within a batch, and see that all its children go."""
    done = len(night.rows(accounting))
    process = stream(night)
    deadline = time.monotonic() + 90
    while len(night.rows(accounting)) == done:
        assert process.poll() is None, (night.settings.state / "stream.log").read_text()[-2000:]
        assert time.monotonic() < deadline, "no batch within 90 s"
        time.sleep(0.05)
    time.sleep(rng.uniform(0.0, 0.8))
    process.send_signal(signal.SIGKILL)
    process.wait()
    while members_of(process.pid):
        assert time.monotonic() < deadline + 30, "processes of the killed stream live on"
        time.sleep(0.1)


@pytest.mark.timeout(400)
def test_kills_lose_and_repeat_nothing(night: Night, real_packets: list[bytes]) -> None:
    rng = random.Random(11)
    packets = list(fresh_packets(real_packets))
    night.publish(packets[: N_ALERTS // 2], partition=0)
    night.publish(packets[N_ALERTS // 2 :], partition=1)
    for _ in range(N_KILLS):
        kill_when_busy(night, rng)
    assert stream(night, "--once").wait(120) == 0

    n_bad = sum(k % 30 == 7 for k in range(N_ALERTS))
    good = {10**17 + k for k in range(N_ALERTS) if k % 30 != 7}
    assert {row["dia_source_id"] for row in night.rows(classifications)} == good
    assert len(night.rows(rejected)) == n_bad
    assert night.rows(duplicates) == []
    on_disk = night.delta()["dia_source_id"].to_pylist()
    assert len(on_disk) == len(set(on_disk))
    assert set(on_disk) == good
    assert all(part.problems == () and part.n_waiting == 0 for part in night.audit())
