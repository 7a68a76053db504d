"""TLS and SASL: ``kafka.client`` reaches every client, and a refusal is told at once and clearly."""

from __future__ import annotations

import stat
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka import admin as kafka_admin

from deploy.kafka import OPEN, EmbeddedKafka, create_topics
from deploy.sections import Settings
from deploy.settings import redacted
from deploy.wiring import kafka_client
from lightcurves.errors import ConfigurationError, UnavailableError
from stream.access import check_access
from stream.consumer import Limits, RangeReader, Watermarks
from stream.outputs import Outputs
from stream.topic import publish
from tests.deploy.test_cli import noctule, one_line
from tests.secured import OTHER_CERTIFICATE, PASSWORD, SecuredKafka
from tests.stream.test_outputs import (
    BATCH,
    RUN,
    consume,
    engine,  # noqa: F401 - a fixture
    new_topics,
)

pytestmark = pytest.mark.kafka

SOON_S = 8.0
"""A few seconds, on a machine that has other things to do; without care it is 10 to 60."""


def name() -> str:
    return uuid.uuid4().hex[:8]


def refusals(kafka: SecuredKafka) -> dict[str, tuple[dict[str, Any], str]]:
    """Return what is wrong to client settings, and what has to be in the answer."""
    stranger = str(kafka.folder / OTHER_CERTIFICATE)
    return {
        "password": (kafka.whole_client(sasl__password="wrong"), "sasl.password"),  # noqa: S106
        "user": (kafka.whole_client(sasl__username="nobody"), "sasl.username"),
        "mechanism": (kafka.whole_client(sasl__mechanism="SCRAM-SHA-256"), "sasl.mechanism"),
        "certificate": (kafka.whole_client(ssl__ca__location=stranger), "ssl.ca.location"),
    }


CASES = ["password", "user", "mechanism", "certificate"]


def test_every_client_gets_in_with_the_settings(
    secured_kafka: SecuredKafka,
    engine: Any,  # noqa: F811
) -> None:
    servers, client = secured_kafka.bootstrap_servers, secured_kafka.client()
    settings = Settings(kafka={"bootstrap_servers": servers, "client": client})
    whole = kafka_client(settings)
    assert whole == secured_kafka.whole_client()

    topics = new_topics()
    alerts = f"alerts-{name()}"
    named = [*topics.topics().values(), alerts]
    create_topics(servers, dict.fromkeys(named, 1), client=client)
    create_topics(servers, {alerts: 3}, client=client)  # there already
    assert publish([b"1", b"2"], bootstrap_servers=servers, topic=alerts, client=client) == 2
    marks = Watermarks([alerts], whole, 10.0)
    assert marks.now() == {(alerts, 0): (0, 2)}
    marks.close()
    assert [value for _, value in consume(whole, alerts, 2)] == [b"1", b"2"]
    assert Outputs(whole, topics, 10.0).send(engine, RUN, BATCH) == 6
    assert len(consume(whole, topics.topics()["classified"], 3)) == 3


def test_scram_gets_in_too(secured_kafka: SecuredKafka) -> None:
    api: Any = kafka_admin  # its types leave these names out
    admin = api.AdminClient(secured_kafka.whole_client())
    credential = api.ScramCredentialInfo(api.ScramMechanism.SCRAM_SHA_512, 4096)
    known = api.UserScramCredentialUpsertion("observer", credential, b"moon")
    for outcome in admin.alter_user_scram_credentials([known]).values():
        outcome.result(30)
    scram = {"sasl__mechanism": "SCRAM-SHA-512", "sasl__username": "observer"}
    check_access(secured_kafka.whole_client(**scram, sasl__password="moon"), 20.0)  # noqa: S106
    with pytest.raises(UnavailableError, match=r"sasl\.password"):
        check_access(secured_kafka.whole_client(**scram, sasl__password="sun"), 20.0)  # noqa: S106


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_says_at_once_what_to_do(secured_kafka: SecuredKafka, case: str) -> None:
    client, hint = refusals(secured_kafka)[case]
    begin = time.monotonic()
    with pytest.raises(UnavailableError) as error:
        check_access(client, 60.0)
    assert time.monotonic() - begin < SOON_S
    assert hint in str(error.value)
    assert secured_kafka.bootstrap_servers in str(error.value)
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)

    begin = time.monotonic()
    with pytest.raises(UnavailableError, match=hint):
        create_topics(client["bootstrap.servers"], {name(): 1}, client=client)
    assert time.monotonic() - begin < SOON_S


@pytest.mark.parametrize("case", ["password", "certificate"])
def test_a_producer_that_is_refused_says_so_too(
    secured_kafka: SecuredKafka,
    engine: Any,  # noqa: F811
    case: str,
) -> None:
    client, hint = refusals(secured_kafka)[case]
    outputs = Outputs(client, new_topics(), 60.0)
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match=hint):
        outputs.send(engine, RUN, BATCH)
    assert time.monotonic() - begin < SOON_S


@pytest.mark.parametrize("case", ["password", "certificate"])
def test_a_reader_that_is_refused_says_so_too(secured_kafka: SecuredKafka, case: str) -> None:
    client, hint = refusals(secured_kafka)[case]

    def nothing(_messages: list[Message], _version: str) -> None: ...

    begin = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        reader = RangeReader(("alerts", 0), client, nothing, pool, Semaphore(1), Limits(8, 8, 30.0))
        with pytest.raises(UnavailableError, match=hint):
            next(reader.read(0, 5))
        reader.close()
    assert time.monotonic() - begin < SOON_S


def test_a_client_without_tls_learns_what_it_may_lack(secured_kafka: SecuredKafka) -> None:
    plain = {"bootstrap.servers": secured_kafka.bootstrap_servers}
    with pytest.raises(UnavailableError, match=r"kafka\.client \(security\.protocol"):
        check_access(plain, 3.0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ssl__ca__location": "/no/such/file"}, "ssl.ca.location"),
        ({"sasl__pasword": "quokka"}, "sasl.pasword"),
        ({"security__protocol": "TLS"}, "security.protocol"),
    ],
)
def test_what_librdkafka_does_not_take_is_a_mistake_of_the_settings(
    secured_kafka: SecuredKafka, wrong: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"kafka\.client: .*{told}") as error:
        check_access(secured_kafka.whole_client(**wrong), 3.0)
    assert "quokka" not in str(error.value)


def test_a_kafka_that_nobody_secured_lets_in_who_asks(kafka: EmbeddedKafka) -> None:
    check_access({"bootstrap.servers": kafka.bootstrap_servers}, 20.0)
    assert OPEN.client == {}


def test_the_brokers_passwords_are_for_its_owner_alone(secured_kafka: SecuredKafka) -> None:
    file = secured_kafka.kafka.data_dir / "server.properties"
    assert PASSWORD in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# The commands.


def options(kafka: SecuredKafka, topic: str, **changes: str) -> list[str]:
    client = kafka.client(**changes)
    given = {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.alert_topics": topic,
        **{f"kafka.client.{k}": v for k, v in client.items()},
    }
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("command", [("audit",), ("stream", "--once"), ("check-config",)])
def test_the_commands_get_in_and_print_no_secret(
    secured_kafka: SecuredKafka, tmp_path: Path, command: tuple[str, ...]
) -> None:
    topic = f"alerts-{name()}"
    create_topics(secured_kafka.bootstrap_servers, {topic: 1}, client=secured_kafka.client())
    line = options(secured_kafka, topic)
    # There is no model: the stream ends after it has asked Kafka, and says so.
    expect = 2 if "stream" in command else 0
    done = noctule(*line, *command, state=tmp_path, expect=expect)
    if "stream" in command:
        assert "noctule train" in one_line(done)
    if "audit" in command:
        assert topic in done.stdout
        assert "auditing the tables alone" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [file for file in written if PASSWORD.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("command", [("stream", "--once"), ("topics",), ("audit",)])
def test_the_commands_say_that_they_are_refused(
    secured_kafka: SecuredKafka, tmp_path: Path, command: tuple[str, ...]
) -> None:
    wrong = "wombat-9-wrong"
    line = options(secured_kafka, "alerts", sasl__password=wrong)
    expect = 0 if command == ("audit",) else 2  # it audits the tables, and says why they alone
    done = noctule(*line, *command, state=tmp_path, expect=expect)
    said = " ".join(done.stderr.split())
    assert "sasl.password in kafka.client" in said
    assert wrong not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_shown_without_the_password(secured_kafka: SecuredKafka) -> None:
    settings = Settings(kafka={"client": secured_kafka.client(), "bootstrap_servers": "x:1"})
    shown = str(redacted(settings)) + repr(settings)
    assert PASSWORD not in shown
    assert "sasl.username=noctule" in shown
