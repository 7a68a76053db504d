"""Kafka itself fails under the stream: it goes on where it was, or says what is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

from benchmarks.kills import differences, mixed, send
from benchmarks.setting import with_id
from deploy.sections import Settings
from deploy.wiring import job_config
from store.tables import accounting, classifications, duplicates, objects
from stream.job import source_options, start
from stream.source import AlertStreamReader
from tests.stream.conftest import Night, make_night
from tests.stream.kills import two_topics, watched
from tests.stream.running import DistantKafka, running

pytestmark = pytest.mark.timeout(300)  # services are waited for as long as they take

Make = Callable[..., Night]
FIRST = 10**17


def small(packets: list[bytes], n: int, first: int = FIRST) -> list[bytes]:
    """Return `n` small packets with ids of their own."""
    some = sorted(packets, key=len)[:4]
    return [with_id(some[k % 4], first + k) for k in range(n)]


def ids(night: Night) -> set[int]:
    return {row["dia_source_id"] for row in night.rows(classifications)}


def admin(night: Night) -> AdminClient:
    return AdminClient({"bootstrap.servers": str(night.settings.kafka.bootstrap_servers)})


def remove(night: Night, partition: int, before: int) -> None:
    """Let Kafka remove what lies before an offset, as its retention does."""
    place = TopicPartition(night.topic, partition, before)
    client = admin(night)  # has to outlive the answers
    for done in client.delete_records([place]).values():
        done.result(30)


def problems(night: Night) -> list[str]:
    return [problem for part in night.audit() for problem in part.problems]


def test_what_retention_removed_stops_the_stream_or_is_told(
    make: Make, real_packets: list[bytes]
) -> None:
    night = make(stream={"trigger_s": 0, "max_alerts_per_batch": 20})
    packets = small(real_packets, 60)
    night.publish(packets[:20], partition=0)
    night.run()
    night.publish(packets[20:], partition=0)
    remove(night, 0, before=33)
    with running(night) as stream:
        told = str(stream.until_it_ends())
    assert f"20 to 32 of {night.topic}:0" in told
    assert "stream.lost_offsets" in told
    skipping = Settings(
        state=night.settings.state,
        kafka=night.settings.kafka.model_dump(),
        stream={"trigger_s": 0, "lost_offsets": "skip"},
    )
    night = Night(skipping, night.spark, night.models)
    with running(night) as stream:
        stream.until_read(60)
    assert ids(night) == {FIRST + k for k in range(60) if not 20 <= k < 33}
    assert problems(night) == ["offsets 20 to 32 were gone from the topic before they were read"]
    assert all(part.n_waiting == 0 for part in night.audit())


def test_retention_may_run_ahead_of_a_stream_that_skips(
    make: Make, real_packets: list[bytes]
) -> None:
    """Removed while it reads: each offset is classified or told as lost, whatever was in time."""
    night = make(stream={"trigger_s": 0, "max_alerts_per_batch": 8, "lost_offsets": "skip"})
    n = 240
    night.publish(small(real_packets, n), partition=0)
    with running(night) as stream:
        for before in range(40, n, 40):
            stream.until_read(before - 30)
            remove(night, 0, before)
        stream.until_read(n)
    lost = {row["start_offset"] + k for row in night.rows(accounting) for k in range(row["n_lost"])}
    assert ids(night) == {FIRST + k for k in range(n) if k not in lost}
    assert len(problems(night)) == sum(row["n_lost"] > 0 for row in night.rows(accounting))
    assert all(part.n_waiting == 0 for part in night.audit())


@pytest.mark.parametrize("starting", ["earliest", "latest"])
def test_a_partition_that_is_added_is_read_from_its_beginning(
    make: Make, real_packets: list[bytes], starting: str
) -> None:
    night = make(stream={"trigger_s": 0, "starting": starting})
    packets = small(real_packets, 30)
    with running(night) as stream:
        stream.until((night.settings.stream.checkpoint / "noctule-first-offsets").is_file, "start")
        night.publish(packets[:10], partition=0)
        stream.until_classified(10)
    # It is filled before the stream can have seen it.
    client = admin(night)
    for done in client.create_partitions([NewPartitions(night.topic, 3)]).values():
        done.result(30)
    night.publish(packets[10:20], partition=2)
    with running(night) as stream:
        stream.until_classified(20)
        night.publish(packets[20:], partition=2)
        stream.until_classified(30)
    assert ids(night) == {FIRST + k for k in range(30)}
    assert problems(night) == []
    assert all(part.n_waiting == 0 for part in night.audit() if part.run_id != "-")


class Stopped(Exception):  # noqa: N818 - it is no error of the stream
    """The window has been reached."""


def stop_at(window: str) -> Callable[[str], None]:
    def watch(done: str) -> None:
        if done == window:
            raise Stopped(done)

    return watch


@pytest.mark.parametrize("window", ["worked", "sql"])
def test_a_first_batch_is_replayed_from_where_the_run_began(
    make: Make, real_packets: list[bytes], window: str
) -> None:
    night = make(stream={"trigger_s": 0, "starting": "latest"})
    packets = small(real_packets, 40)
    night.publish(packets[:10], partition=0)  # before the run began
    with watched(stop_at(window)):
        query = start(night.spark, job_config(night.settings))
        while "Waiting for data" not in query.status["message"]:
            assert query.isActive
        night.publish(packets[10:20], partition=0)
        with pytest.raises(StreamingQueryException, match="Stopped"):
            query.awaitTermination(60)
    night.publish(packets[20:], partition=0)
    night.run()
    assert ids(night) == {FIRST + k for k in range(10, 40)}
    assert problems(night) == []


def test_where_a_run_began_stays_where_it_was(make: Make, real_packets: list[bytes]) -> None:
    """Spark asks twice for it in the first batch, and again if that one is replayed."""
    night = make(stream={"starting": "latest"})
    night.publish(real_packets[:3], partition=0)
    options = source_options(job_config(night.settings))
    first = AlertStreamReader(options).initialOffset()
    night.publish(real_packets[3:6], partition=0)
    assert AlertStreamReader(options).initialOffset() == first
    assert first[f"{night.topic}:0"] == 3
    night.run()
    assert len(ids(night)) == 3
    assert problems(night) == []


def test_the_same_packet_in_two_topics_counts_once(night: Night, real_packets: list[bytes]) -> None:
    night = two_topics(night)
    expected = send(
        night.settings, mixed(real_packets, 100, night.settings.kafka.alert_topics, seed=21)
    )
    night.run()
    where: dict[int, set[str]] = {}
    for (topic, _, _), dia_source_id in expected.readable.items():
        where.setdefault(dia_source_id, set()).add(topic)
    assert any(len(topics) == 2 for topics in where.values())
    assert differences(night.settings, expected) == []
    assert all(row["differs"] is None for row in night.rows(duplicates))


def test_the_order_of_arrival_changes_no_object(make: Make, plasticc_folder: Path) -> None:
    from simulator.packets import SimulatedAlerts  # noqa: PLC0415 - needs the GPL schemas

    packets = list(islice(SimulatedAlerts.of_folder(plasticc_folder), 120))
    told = []
    for order in (packets, packets[::-1], packets[1::2] + packets[::2]):
        night = make(stream={"max_alerts_per_batch": 25})
        night.publish(order, partition=0)
        night.run()
        assert problems(night) == []
        told.append(night.rows(objects))
    assert len(told[0]) < len(packets)
    assert told[0] == told[1] == told[2]


# -- a broker that goes, a network that hangs ----------------------------------------------------


@pytest.fixture(scope="module")
def distant_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DistantKafka]:
    with DistantKafka(tmp_path_factory.mktemp("distant")) as running_kafka:
        yield running_kafka


@pytest.fixture
def distant_night(
    distant_kafka: DistantKafka,
    spark: SparkSession,
    trained_models: list[Path],
    tmp_path: Path,
) -> Night:
    near = make_night(distant_kafka, spark, trained_models, tmp_path)
    kafka: dict[str, Any] = near.settings.kafka.model_dump()
    kafka |= {"bootstrap_servers": distant_kafka.distant_servers, "timeout_s": 3.0}
    settings = Settings(
        state=tmp_path / "distant", kafka=kafka, stream={"trigger_s": 0, "max_alerts_per_batch": 20}
    )
    return Night(settings, spark, trained_models)


@pytest.mark.kafka
def test_a_broker_that_restarts_is_waited_for(
    distant_kafka: DistantKafka, distant_night: Night, real_packets: list[bytes]
) -> None:
    night = distant_night
    topics = night.settings.kafka.alert_topics
    expected = send(night.settings, mixed(real_packets, 60, topics, seed=31))
    with running(night) as stream:
        stream.until_read(20)
        distant_kafka.stop()
        stream.until_it_warns("Kafka")
        distant_kafka.start()
        stream.until_read(60)
    assert differences(night.settings, expected) == []


@pytest.mark.kafka
@pytest.mark.parametrize("forget", [False, True])
def test_a_network_that_hangs_is_told_and_outlived(
    distant_kafka: DistantKafka, distant_night: Night, real_packets: list[bytes], *, forget: bool
) -> None:
    night = distant_night
    packets = small(real_packets, 60)
    night.publish(packets[:20])
    with running(night) as stream:
        stream.until_classified(20)
        distant_kafka.network.stall()  # with a fetch under way
        stream.until_it_warns("Kafka")
        distant_kafka.network.heal(forget=forget)
        night.publish(packets[20:])
        stream.until_classified(60)
    assert ids(night) == {FIRST + k for k in range(60)}
    assert problems(night) == []
