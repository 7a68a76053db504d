"""SIGKILL at random moments, again and again: nothing lost, nothing double, every message sent."""

from __future__ import annotations

import random

import pytest

from benchmarks.kills import audited, differences, drain, kill_at_random, mixed, send
from tests.stream.conftest import Night
from tests.stream.kills import kill_often, live, two_topics

KILLS = 15


@pytest.mark.timeout(400)
def test_kills_anywhere_in_a_batch_lose_and_repeat_nothing(
    night: Night, real_packets: list[bytes]
) -> None:
    night = two_topics(night, max_alerts_per_batch=16)
    expected = send(night.settings, mixed(real_packets, 1000, night.settings.kafka.alert_topics, 7))
    where = kill_often(night.settings, KILLS, seed=11)
    assert len(where) > 2, where
    assert not live(night.settings).killed
    assert differences(night.settings, expected) == []


@pytest.mark.timeout(400)
def test_nor_do_they_while_the_stream_looks_ahead(night: Night, real_packets: list[bytes]) -> None:
    urgent = {"priority": "bright", "bright_sigma": 10.0, "behind_alerts": 20}
    night = two_topics(night, max_alerts_per_batch=16, **urgent)
    expected = send(night.settings, mixed(real_packets, 500, night.settings.kafka.alert_topics, 9))
    kill_often(night.settings, 10, seed=13)
    assert audit_of(night) == []
    assert not live(night.settings).killed
    assert differences(night.settings, expected) == []


def audit_of(night: Night) -> list[str]:
    return [told for part in audited(night.settings, night.engine) for told in part.problems]


@pytest.mark.timeout(400)
def test_kills_of_the_whole_stream_lose_and_repeat_nothing(
    night: Night, real_packets: list[bytes]
) -> None:
    night = two_topics(night, max_alerts_per_batch=40, trigger_s=0)
    expected = send(night.settings, mixed(real_packets, 240, night.settings.kafka.alert_topics, 8))
    rng = random.Random(12)
    for _ in range(2):
        kill_at_random(night.settings, night.engine, rng)
    drain(night.settings)
    assert differences(night.settings, expected) == []
