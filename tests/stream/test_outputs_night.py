"""A night over TLS with a password, DESC's form and a registry: from packets to strangers."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest
from pyspark.sql import SparkSession

from deploy.commands.operate import run_audit
from deploy.kafka import create_topics
from deploy.sections import Settings
from deploy.wiring import topic_partitions
from store.tables import classifications
from stream.messages import write_schemas
from stream.topic import publish
from tests.registry import SchemaRegistry
from tests.secured import PASSWORD, SecuredKafka
from tests.stream.conftest import Night
from tests.stream.test_outputs import consume

pytestmark = pytest.mark.kafka


@pytest.fixture
def secured_night(
    secured_kafka: SecuredKafka,
    schema_registry: SchemaRegistry,
    spark: SparkSession,
    trained_models: list[Path],
    tmp_path: Path,
) -> Night:
    mark = uuid.uuid4().hex[:8]
    kafka = {
        f"{kind}_topic": f"{kind}-{mark}"
        for kind in ("classified", "novel", "requests", "rejected", "desc")
    }
    settings = Settings(
        state=tmp_path / "state",
        kafka={
            **kafka,
            "alert_topics": (f"alerts-{mark}",),
            "bootstrap_servers": secured_kafka.bootstrap_servers,
            "client": secured_kafka.client(),
            "registry_url": schema_registry.url,
        },
    )
    topics = topic_partitions(settings, 2)
    create_topics(secured_kafka.bootstrap_servers, topics, client=secured_kafka.client())
    return Night(settings, spark, trained_models)


def test_a_night_over_tls(
    secured_night: Night,
    secured_kafka: SecuredKafka,
    schema_registry: SchemaRegistry,
    real_packets: list[bytes],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    night, kafka = secured_night, secured_night.settings.kafka
    publish(
        iter([*real_packets[:12], b"garbage"]),
        bootstrap_servers=secured_kafka.bootstrap_servers,
        topic=night.topic,
        client=secured_kafka.client(),
    )
    night.run()
    rows = {row["dia_source_id"]: row for row in night.rows(classifications)}
    scored = [number for number, row in rows.items() if row["reason"] is None]
    assert len(rows) == 12
    assert scored

    whole = secured_kafka.whole_client()
    for key, value in consume(whole, kafka.classified_topic, len(rows)):
        told, row = read_by_id(schema_registry, value), rows[int(key)]
        assert told["reason"] == row["reason"]
        chances = {
            str(each["classId"]): each["probability"] for each in told["probabilities"] or []
        }
        assert chances == (row["probabilities"] or {})
        for name in set(told) - {"probabilities"}:
            assert told[name] == row[name], name

    write_schemas(tmp_path / "schemas")
    file = tmp_path / "schemas" / "elasticc.v0_9_1.brokerClassification.avsc"
    desc: Any = fastavro.schema.load_schema(str(file))
    got = consume(whole, kafka.desc_topic, len(scored))
    told_desc: list[Any] = [
        fastavro.schemaless_reader(io.BytesIO(value), desc, None) for _, value in got
    ]
    assert {t["diaSourceId"] for t in told_desc} == set(scored)
    assert all(
        sum(c["probability"] for c in t["classifications"]) == pytest.approx(1) for t in told_desc
    )

    parts = run_audit(night.settings, 0, None)
    assert sum(part.n_read for part in parts) == 13
    assert all(part.problems == () and part.n_waiting == 0 for part in parts)
    printed = capfd.readouterr()
    assert PASSWORD not in printed.out + printed.err


def read_by_id(registry: SchemaRegistry, value: bytes) -> dict[str, Any]:
    """Read as a Confluent deserializer does: the schema is the one that the frame names."""
    assert value[0] == 0
    schema_id = int.from_bytes(value[1:5], "big")
    answer = httpx.get(f"{registry.url}/schemas/ids/{schema_id}").raise_for_status()
    schema = fastavro.schema.parse_schema(json.loads(answer.json()["schema"]))
    told: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
    return dict(told)
