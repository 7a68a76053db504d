from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy import kafka as module
from deploy.kafka import EmbeddedKafka, choose_ports, create_topics, log_end
from lightcurves.errors import ConfigurationError, UnavailableError

pytestmark = pytest.mark.kafka

MEGABYTE = 1024**2

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def produce(bootstrap_servers: str, topic: str, value: bytes) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "message.max.bytes": 16 * MEGABYTE}
    )
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume_first(bootstrap_servers: str, topic: str) -> bytes:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "unused"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(30)
    finally:
        consumer.close()
    assert message is not None
    assert message.error() is None
    return message.value() or b""


def living(group: int) -> list[int]:
    """Processes of a group that still run; zombies do not count."""
    return [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if is_living_member(stat, group)
    ]


def is_living_member(stat: Path, group: int) -> bool:
    try:
        state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(its_group) == group and state != "Z"


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_large_messages_outlive_a_restart(tmp_path: Path) -> None:
    alert = os.urandom(2 * MEGABYTE)
    with EmbeddedKafka(tmp_path) as kafka:
        create_topics(kafka.bootstrap_servers, {"alerts": 1})
        produce(kafka.bootstrap_servers, "alerts", alert)
        assert consume_first(kafka.bootstrap_servers, "alerts") == alert
    assert kafka.pid is None
    with kafka:
        assert consume_first(kafka.bootstrap_servers, "alerts") == alert


def test_creating_topics_again_changes_nothing(kafka: EmbeddedKafka) -> None:
    for partitions in (3, 5):
        create_topics(kafka.bootstrap_servers, {"again": partitions}, {"retention.ms": "-1"})
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics().topics
    assert len(topics["again"].partitions) == 3


def test_creating_topics_without_kafka_says_where_it_looked() -> None:
    port, _ = choose_ports(None)
    with pytest.raises(UnavailableError, match=f"Kafka at 127.0.0.1:{port} is not available"):
        create_topics(f"127.0.0.1:{port}", {"alerts": 1}, timeout_s=1)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} .* is taken.*another port"):
            EmbeddedKafka(tmp_path, port).start()


def test_a_kafka_that_does_not_come_up_shows_the_end_of_its_log(tmp_path: Path) -> None:
    topics = tmp_path / "topics"
    topics.mkdir()
    (topics / "meta.properties").write_text("version=1\n")  # formatted, so it seems
    with pytest.raises(UnavailableError, match=r"ended by itself; .*kafka\.log ends: ") as error:
        EmbeddedKafka(tmp_path).start()
    assert "meta.properties" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_serves_one_kafka(kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDER_TIMEOUT_S", 0.2)
    with pytest.raises(ConfigurationError, match=f"another Kafka runs in {kafka.data_dir}"):
        EmbeddedKafka(kafka.data_dir).start()
    create_topics(kafka.bootstrap_servers, {"unharmed": 1})


def test_the_end_of_a_log_prefers_its_errors(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    assert log_end(log) == "(empty)"
    log.write_text("one\ntwo\n")
    assert log_end(log) == "one | two"
    log.write_text("one\nERROR two\n\tat java.lang.Exception\nthree\n")
    assert log_end(log) == "ERROR two"


@on_linux
def test_kafka_ends_with_a_killed_parent(tmp_path: Path) -> None:
    program = f"""
import pathlib, time
from deploy import kafka as module
from deploy.kafka import EmbeddedKafka
kafka = EmbeddedKafka(pathlib.Path({str(tmp_path)!r}))
kafka.start()
print("group", kafka.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        found = re.search(r"group (\d+)", parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert found is not None
    group = int(found.group(1))
    with EmbeddedKafka(tmp_path):  # waits for the first to be gone, then resumes
        assert not living(group)


@on_linux
def test_kafka_ends_with_a_killed_watchdog(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as kafka:
        assert kafka.pid is not None
        group = kafka.pid
        assert len(living(group)) == 2
        os.kill(group, signal.SIGKILL)
        assert wait_until(lambda: not living(group), timeout_s=5)
