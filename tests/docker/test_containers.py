"""The services as containers, for machines that have Docker; elsewhere visibly skipped."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import pytest
from confluent_kafka import Message

from deploy.kafka import create_topics
from store.accounting_queries import counts
from store.database import migrate, open_database, reading
from stream.consumer import Limits, RangeReader
from stream.topic import publish


def has_docker() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not has_docker(), reason="no Docker engine answers"),
]


def test_the_tables_on_the_postgres_of_the_compose_file() -> None:
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - needs Docker

    with PostgresContainer("postgres:17") as server:
        engine = open_database(server.get_connection_url(driver=None))
        migrate(engine)
        with reading(engine) as connection:
            assert counts(connection).alerts == 0
        engine.dispose()


LIMITS = Limits(chunk=7, prefetch=40, timeout_s=20.0)


def values(messages: list[Message], _version: str) -> list[bytes | None]:
    return [message.value() for message in messages]


def test_a_range_from_a_kafka_in_a_container() -> None:
    from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415 - needs Docker

    with KafkaContainer() as server:
        address = server.get_bootstrap_server()
        create_topics(address, {"alerts": 1})
        publish((bytes([k]) for k in range(50)), bootstrap_servers=address, topic="alerts")
        with ThreadPoolExecutor(1) as pool:
            reader = RangeReader(
                ("alerts", 0), {"bootstrap.servers": address}, values, pool, Semaphore(2), LIMITS
            )
            got = [value for made, a, b in reader.read(10, 40) for value in made[a:b]]
            reader.close()
    assert got == [bytes([k]) for k in range(10, 40)]
