"""What goes out: read back by strangers, the same bytes each time, ids that stay."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pyarrow as pa
import pytest
import sqlalchemy as sa
from confluent_kafka import Consumer
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.kafka import EmbeddedKafka, create_topics
from deploy.sections import Settings
from deploy.wiring import outgoing_of, topic_partitions
from lightcurves.errors import ConfigurationError, UnavailableError
from store.database import migrate, open_database
from store.tables import classifications, label_requests, rejected
from stream.avro import encode
from stream.messages import (
    BROKER_VERSION,
    CLASSIFICATION,
    DESC,
    LABEL_REQUEST,
    MessageSchema,
    for_desc,
    frame,
    write_schemas,
)
from stream.outputs import Outputs, outgoing, schema_of
from stream.routes import Outgoing
from stream.schema_ids import IDS_FILE, Registry
from tests.registry import SchemaRegistry
from tests.stream.sent_to import sent_to

DOCS = Path(__file__).parents[2] / "docs"
RUN, BATCH = "a" * 32, 3
TOPICS = sent_to("classified", "novel", "requests", "rejected", desc="desc")
SCORES = {
    "class_id": 111,
    "probability": 0.75,
    "probabilities": {"111": 0.75, "1131": 0.0625, "112": 0.1875},
    "prediction_set": [111, 112],
    "entropy": 0.7,
    "margin": 0.5625,
    "novelty": 0.25,
    "novelty_far": 0.4,
    "model_version": "0123456789abcdef",
    "feature_digest": "fedcba987654",
    "raw_entropy": 0.9,
}


def body_of(schema: MessageSchema, record: dict[str, Any]) -> bytes:
    """The oracle: what fastavro writes."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.schema.parse_schema(schema.record), record)
    return body.getvalue()


def columns_of(row: dict[str, Any], table: sa.Table) -> pa.Table:
    """A row of the database as it comes from there."""
    if row.get("probabilities") is not None:
        named = sorted((int(class_id), p) for class_id, p in row["probabilities"].items())
        row = row | {"probabilities": [{"classId": c, "probability": p} for c, p in named]}
    return pa.Table.from_pylist([row], schema=schema_of(table))


def classification_body(row: dict[str, Any]) -> bytes:
    """What goes out of a row of ``classifications``, without its frame."""
    (body,) = encode(CLASSIFICATION.record, columns_of(row, classifications)).to_pylist()
    return bytes(body)


def desc_body(row: dict[str, Any]) -> bytes:
    (body,) = encode(DESC.record, for_desc(columns_of(row, classifications))).to_pylist()
    return bytes(body)


def label_request_body(row: dict[str, Any]) -> bytes:
    (body,) = encode(LABEL_REQUEST.record, columns_of(row, label_requests)).to_pylist()
    return bytes(body)


def classification(dia_source_id: int, **changes: Any) -> dict[str, Any]:
    """Return a row of the table, scored unless `changes` say otherwise."""
    row = {
        "dia_source_id": dia_source_id,
        "object_id": dia_source_id + 1,
        "ss_object_id": None,
        "survey": "lsst",
        "topic": "alerts",
        "kafka_partition": 0,
        "kafka_offset": dia_source_id % 1000,
        "run_id": RUN,
        "batch_id": BATCH,
        "t_mjd_tai": 61000.25,
        "arrival_ms": 1_790_000_000_123,
        "processed_ms": 1_790_000_000_456,
        "ra_deg": 52.5,
        "dec_deg": -27.5,
        "healpix": 17,
        "band": "r",
        "flux_njy": -12.5,
        "sigma_njy": 1.5,
        "n_points": 25,
        "days_since_first_detection": 3.0,
        "reason": None,
        **SCORES,
    }
    return row | changes


def not_evaluated(dia_source_id: int) -> dict[str, Any]:
    kept = {"model_version": SCORES["model_version"], "feature_digest": SCORES["feature_digest"]}
    nothing = dict.fromkeys(SCORES) | kept
    return classification(dia_source_id, **nothing, reason="too_few_points", object_id=None)


def request(request_id: int) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "survey": "lsst",
        "object_id": 171,
        "program": "noctule",
        "dia_source_id": 170,
        "night": 61000,
        "strategy": "entropy",
        "utility": 0.7,
        "why": "entropy 0.70 nats",
        "requested_ms": 1_790_000_000_789,
        "run_id": RUN,
        "batch_id": BATCH,
        "model_version": "0123456789abcdef",
        "ra_deg": 52.5,
        "dec_deg": -27.5,
        "band": None,
        "flux_njy": None,
        "t_mjd_tai": 61000.25,
    }


BAD = {
    "topic": "alerts",
    "kafka_partition": 1,
    "kafka_offset": 9,
    "run_id": RUN,
    "batch_id": BATCH,
    "arrival_ms": 1,
    "processed_ms": 2,
    "reason": "bad_frame",
    "detail": "no frame",
    "packet": b"garbage",
}
ROWS = [classification(2**62 + 5), not_evaluated(18), classification(17, novelty_far=0.01)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A database with a batch in it, and another batch that is never sent."""
    opened = open_database(f"sqlite:///{tmp_path}/noctule.sqlite")
    migrate(opened)
    other = [classification(99, batch_id=BATCH + 1), classification(98, run_id="b" * 32)]
    with opened.begin() as connection:
        connection.execute(sa.insert(classifications), [*ROWS, *other])
        connection.execute(sa.insert(label_requests), [request(7)])
        connection.execute(sa.insert(rejected), [BAD])
    yield opened
    opened.dispose()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that an outsider gets."""
    folder = tmp_path_factory.mktemp("outsider") / "schemas"
    write_schemas(folder)
    return folder


def sent(engine: sa.Engine, topics: Outgoing = TOPICS) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return list(outgoing(connection, RUN, BATCH, topics.routes()))


def read(file: Path, body: bytes) -> dict[str, Any]:
    """Read with fastavro alone; every byte has to be used."""
    schema = fastavro.schema.load_schema(str(file))
    stream = io.BytesIO(body)
    value: Any = fastavro.schemaless_reader(stream, schema)
    assert stream.read() == b""
    return dict(value)


def expected(row: dict[str, Any], schema: MessageSchema) -> dict[str, Any]:
    """Return what a reader should see of a row, by the schema's names."""
    by_class = row.get("probabilities")
    listed = None
    if by_class is not None:
        ordered = sorted((int(class_id), p) for class_id, p in by_class.items())
        listed = [{"classId": class_id, "probability": p} for class_id, p in ordered]
    names = [f["name"] for f in json.loads(schema.text)["fields"]]
    return {name: row[name] for name in names} | (
        {"probabilities": listed} if "probabilities" in names else {}
    )


def test_a_stranger_reads_every_message_with_the_files_and_fastavro(
    engine: sa.Engine, files: Path
) -> None:
    messages = sent(engine)
    topics = [(m["topic"], m.get("key")) for m in messages]
    big = str(2**62 + 5)
    assert topics == [
        *(("classified", "17"), ("classified", "18"), ("classified", big)),
        ("novel", "17"),
        *(("desc", "17"), ("desc", big)),
        *(("requests", "171"), ("rejected", None)),
    ]
    values = [m["value"] for m in messages]
    own = files / "noctule.v1.Classification.avsc"
    by_id = {str(row["dia_source_id"]): expected(row, CLASSIFICATION) for row in ROWS}
    for message in messages:
        if message["topic"] in {"classified", "novel"}:
            assert message["value"][:5] == b"\0\0\0\0\x65"
            assert read(own, message["value"][5:]) == by_id[message["key"]]
    asked = read(files / "noctule.v1.LabelRequest.avsc", values[6][5:])
    assert asked == expected(request(7), LABEL_REQUEST)
    assert values[7] == b"garbage"
    assert dict(messages[7]["headers"])["reason"] == b"bad_frame"


def test_desc_gets_its_own_form(engine: sa.Engine, files: Path) -> None:
    (first, _) = [m["value"] for m in sent(engine) if m["topic"] == "desc"]
    schema: Any = fastavro.schema.load_schema(
        str(files / "elasticc.v0_9_1.brokerClassification.avsc")
    )
    # The facts of LSSTDESC/elasticc, alert_schema/elasticc.v0_9_1.brokerClassification.avsc.
    stamp = {"type": "long", "logicalType": "timestamp-millis"}
    assert schema["name"] == "elasticc.v0_9_1.brokerClassfication"
    *plain, array = [(f["name"], f["type"]) for f in schema["fields"]]
    assert plain == [
        ("alertId", "long"),
        ("diaSourceId", "long"),
        ("elasticcPublishTimestamp", stamp),
        ("brokerIngestTimestamp", ["null", stamp]),
        ("brokerName", "string"),
        ("brokerVersion", "string"),
        ("classifierName", "string"),
        ("classifierParams", "string"),
    ]
    items = array[1]["items"]
    assert (array[0], items["name"]) == ("classifications", "elasticc.v0_9_1.classificationDict")
    assert [(f["name"], f["type"]) for f in items["fields"]] == [
        ("classId", "int"),
        ("probability", "float"),
    ]

    told: Any = fastavro.schemaless_reader(io.BytesIO(first), schema)  # as DESC's TOM does
    stamps = [told.pop(name) for name in ("elasticcPublishTimestamp", "brokerIngestTimestamp")]
    assert [round(stamp.timestamp() * 1000) for stamp in stamps] == [
        1_790_000_000_123,
        1_790_000_000_456,
    ]
    assert told == {
        "alertId": 17,
        "diaSourceId": 17,
        "brokerName": "noctule",
        "brokerVersion": BROKER_VERSION,
        "classifierName": "noctule-0123456789abcdef",
        "classifierParams": "features=fedcba987654",
        "classifications": [
            {"classId": 111, "probability": 0.75},
            {"classId": 112, "probability": 0.1875},
            {"classId": 1131, "probability": 0.0625},
        ],
    }


def test_desc_gets_nothing_unless_its_topic_is_set(engine: sa.Engine, tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    topics = outgoing_of(settings)
    assert "desc" not in topics.topics()
    assert "" not in topic_partitions(settings, 2)
    assert {m["topic"] for m in sent(engine, topics)} == {
        "noctule.classified",
        "noctule.novel",
        "noctule.label-requests",
        "noctule.rejected",
    }
    with_desc = Settings(state=tmp_path, kafka={"desc_topic": "for-desc"})
    assert outgoing_of(with_desc).topics()["desc"] == "for-desc"
    assert topic_partitions(with_desc, 2)["for-desc"] == 1


_NUMBERS = st.floats(allow_nan=False, width=64)
_IDS = st.integers(-(2**63), 2**63 - 1)
_TEXTS = st.text(max_size=20)


@settings(deadline=None)  # the first one compiles the encoder
@given(
    st.fixed_dictionaries(
        {
            "dia_source_id": _IDS,
            "object_id": st.none() | _IDS,
            "ss_object_id": st.none() | _IDS,
            "survey": _TEXTS,
            "t_mjd_tai": _NUMBERS,
            "ra_deg": st.none() | _NUMBERS,
            "band": st.none() | _TEXTS,
            "n_points": st.none() | st.integers(0, 2**31 - 1),
            "reason": st.none() | _TEXTS,
            "novelty_far": st.none() | _NUMBERS,
            "probabilities": st.none()
            | st.dictionaries(st.integers(1, 9999).map(str), st.floats(0, 1), max_size=20),
            "prediction_set": st.lists(st.integers(1, 9999), max_size=20),
        }
    )
)
def test_a_row_comes_back_as_it_was(changes: dict[str, Any]) -> None:
    row = classification(0) | changes
    if row["probabilities"] is None:
        row["prediction_set"] = None
    schema: Any = fastavro.schema.parse_schema(json.loads(CLASSIFICATION.text))
    body = classification_body(row)
    assert body == body_of(CLASSIFICATION, expected(row, CLASSIFICATION))
    stream = io.BytesIO(body)
    assert fastavro.schemaless_reader(stream, schema, None) == expected(row, CLASSIFICATION)
    assert stream.read() == b""
    if row["probabilities"] is not None:
        turned = dict(reversed(row["probabilities"].items()))  # as another database may give it
        assert classification_body(row | {"probabilities": turned}) == body
        assert desc_body(row | {"probabilities": turned}) == desc_body(row)


def test_who_has_an_older_file_reads_on(files: Path) -> None:
    """The promise of version 1: fields are added at the end, nullable."""
    for schema, body, row in (
        (CLASSIFICATION, classification_body(ROWS[0]), ROWS[0]),
        (LABEL_REQUEST, label_request_body(request(1)), request(1)),
    ):
        newer = json.loads(schema.text)
        newer["fields"].append({"name": "added", "type": ["null", "string"], "default": None})
        stream = io.BytesIO()
        record = expected(row, schema) | {"added": "later"}
        fastavro.schemaless_writer(stream, fastavro.schema.parse_schema(newer), record)
        stream.seek(0)
        old: Any = fastavro.schema.load_schema(str(files / schema.file))
        assert fastavro.schemaless_reader(stream, old, None) == expected(row, schema)
        assert stream.getvalue().startswith(body)


def test_requests_of_version_1_0_and_1_1_are_read_by_both() -> None:
    newer = json.loads(LABEL_REQUEST.text)
    added = {f["name"]: f["default"] for f in newer["fields"] if "1.1" in f["doc"]}
    older = newer | {"fields": [f for f in newer["fields"] if f["name"] not in added]}
    assert added == {"survey": None, "program": None}
    told = expected(request(1), LABEL_REQUEST)
    before = {name: value for name, value in told.items() if name not in added}
    old, new = (fastavro.schema.parse_schema(schema) for schema in (older, newer))
    stream = io.BytesIO(label_request_body(request(1)))
    assert fastavro.schemaless_reader(stream, new, old) == before
    written = io.BytesIO()
    fastavro.schemaless_writer(written, old, before)
    written.seek(0)
    assert fastavro.schemaless_reader(written, old, new) == before | added


def test_identifiers_of_other_surveys_are_told_apart_by_their_key(engine: sa.Engine) -> None:
    theirs = classification(17, survey="ztf", kafka_offset=500, novelty_far=0.001)
    asked = request(8) | {"survey": "ztf"}
    with engine.begin() as connection:
        connection.execute(sa.insert(classifications), [theirs])
        connection.execute(sa.insert(label_requests), [asked])
    keys = [(m["topic"], m["key"]) for m in sent(engine) if "17" in str(m.get("key"))]
    assert keys == [
        *(("classified", "17"), ("classified", "ztf:17")),
        *(("novel", "17"), ("novel", "ztf:17")),
        *(("desc", "17"), ("desc", "ztf:17")),
        *(("requests", "171"), ("requests", "ztf:171")),
    ]


def digest_in(process: str, engine: sa.Engine, **environment: str) -> str:
    program = f"""
import hashlib, sqlalchemy as sa
from stream.outputs import outgoing
from tests.stream.sent_to import sent_to
{process}
engine = sa.create_engine({str(engine.url)!r})
with engine.connect() as connection:
    messages = list(outgoing(connection, {RUN!r}, {BATCH}, sent_to("c", "n", "q", "r", desc="d").routes()))
print(len(messages), hashlib.sha256(repr(messages).encode()).hexdigest())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_another_process_on_another_day_sends_the_same_bytes(engine: sa.Engine) -> None:
    here = sent(engine, sent_to("c", "n", "q", "r", desc="d"))
    expected = f"{len(here)} {hashlib.sha256(repr(here).encode()).hexdigest()}\n"
    another_day = "import time; time.time = lambda: 2e9; time.time_ns = lambda: 2 * 10**18"
    assert digest_in("", engine, PYTHONHASHSEED="1", TZ="UTC") == expected
    assert digest_in(another_day, engine, PYTHONHASHSEED="2", TZ="Asia/Tokyo") == expected


@pytest.mark.parametrize("schema", [CLASSIFICATION, LABEL_REQUEST, DESC], ids=lambda s: s.file)
def test_every_field_is_documented_in_its_place(schema: MessageSchema) -> None:
    record = json.loads(schema.text)
    name = f"{record['namespace']}.{record['name']}"
    page = (DOCS / "messages.md").read_text()
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    fields = [*record["fields"], *(f for inner in inner_records(record) for f in inner["fields"])]
    assert [row[0] for row in rows] == [f["name"] for f in fields]
    for (_, kind, meaning), field in zip(rows, fields, strict=True):
        assert meaning == field["doc"]
        assert kind.endswith(", null") == isinstance(field["type"], list)
        assert kind.removesuffix(", null") == type_name(field["type"])


def inner_records(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for field in record["fields"]:
        kind = field["type"][1] if isinstance(field["type"], list) else field["type"]
        if isinstance(kind, dict) and isinstance(kind.get("items"), dict):
            yield kind["items"]


def type_name(kind: Any) -> str:
    if isinstance(kind, list):
        assert kind[0] == "null"
        return type_name(kind[1])
    if isinstance(kind, dict):
        if kind["type"] == "array":
            items = kind["items"]
            return f"array of {items['name'] if isinstance(items, dict) else items}"
        return str(kind["logicalType"])
    return str(kind)


@pytest.mark.parametrize(
    ("schema", "version", "default_id"),
    [(CLASSIFICATION, "1.1", 101), (LABEL_REQUEST, "1.1", 101)],
    ids=lambda s: getattr(s, "file", s),
)
def test_what_may_be_null_has_a_default(
    schema: MessageSchema, version: str, default_id: int
) -> None:
    record = json.loads(schema.text)
    assert all(("default" in f) == isinstance(f["type"], list) for f in record["fields"])
    assert record["version"] == version
    assert schema.default_id == default_id


OLDER = {CLASSIFICATION.file: ["noctule.v1.Classification.1.0.avsc"]}
"""Every version of a schema that has ever gone out, in the file that it went out with."""


@pytest.mark.parametrize("schema", [CLASSIFICATION], ids=lambda s: s.file)
def test_every_version_that_went_out_is_evolved_compatibly(schema: MessageSchema) -> None:
    """Both ways: an older file reads today's messages, today's schema reads older messages."""
    row = classification(5)
    body, today = classification_body(row), fastavro.schema.parse_schema(json.loads(schema.text))
    for name in OLDER[schema.file]:
        older: Any = fastavro.schema.load_schema(str(Path(__file__).parent / "data" / name))
        then = [f["name"] for f in older["fields"]]
        assert then == [f["name"] for f in json.loads(schema.text)["fields"]][: len(then)]
        told = expected(row, schema)
        assert fastavro.schemaless_reader(io.BytesIO(body), older, None) == {
            name: told[name] for name in then
        }
        written = io.BytesIO()
        fastavro.schemaless_writer(written, older, {name: told[name] for name in then})
        written.seek(0)
        read_again: Any = fastavro.schemaless_reader(written, older, today)
        assert read_again == {name: told[name] if name in then else None for name in told}


# Ids: a real registry, and one that is away.


def new_topics(*, desc: str = "") -> Outgoing:
    """Return names that neither a broker nor a registry has heard of."""
    names = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("classified", "novel", "asked", "bad"))
    return sent_to(*names, desc=desc)


@pytest.fixture
def topics() -> Outgoing:
    return new_topics()


def registry_of(url: str, folder: Path) -> Registry:
    return Registry(url, 5.0, folder / IDS_FILE)


def with_registry(topics: Outgoing, registry: Registry) -> Outgoing:
    return replace(topics, registry=registry)


def test_schemas_are_registered_and_their_ids_stand_in_the_frames(
    schema_registry: SchemaRegistry, engine: sa.Engine, topics: Outgoing, tmp_path: Path
) -> None:
    registered = with_registry(topics, registry_of(schema_registry.url, tmp_path))
    messages = [m for m in sent(engine, registered) if m["topic"] != topics.topics()["rejected"]]
    assert {m["topic"] for m in messages} == {
        topics.topics()["classified"],
        topics.topics()["novel"],
        topics.topics()["requests"],
    }
    for message in messages:
        magic, schema_id = message["value"][0], int.from_bytes(message["value"][1:5], "big")
        answer = httpx.get(f"{schema_registry.url}/schemas/ids/{schema_id}")
        schema = fastavro.schema.parse_schema(
            json.loads(answer.raise_for_status().json()["schema"])
        )
        told: Any = fastavro.schemaless_reader(io.BytesIO(message["value"][5:]), schema, None)
        assert magic == 0
        assert message["key"] in {str(told.get("dia_source_id")), str(told["object_id"])}
    subject = f"{topics.topics()['classified']}-value"
    latest = httpx.get(f"{schema_registry.url}/subjects/{subject}/versions/latest").json()
    assert json.loads(latest["schema"]) == json.loads(CLASSIFICATION.text)


def test_ids_stay_when_the_registry_is_asked_again_or_is_away(
    schema_registry: SchemaRegistry, topics: Outgoing, tmp_path: Path
) -> None:
    first = with_registry(topics, registry_of(schema_registry.url, tmp_path)).routes()
    assert first != topics.routes()
    (tmp_path / "elsewhere").mkdir()
    again = with_registry(topics, registry_of(schema_registry.url, tmp_path / "elsewhere"))
    assert again.routes() == first
    away = with_registry(topics, registry_of("http://127.0.0.1:1", tmp_path))
    assert away.routes() == first


def test_a_registry_that_was_never_reached_is_unavailable(topics: Outgoing, tmp_path: Path) -> None:
    away = registry_of("http://me:hunter2@127.0.0.1:1", tmp_path)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1.*kafka\.registry_url") as error:
        with_registry(topics, away).routes()
    assert "hunter2" not in str(error.value) + repr(with_registry(topics, away))
    assert "\n" not in str(error.value)


def test_a_registry_that_changed_its_mind_stops_the_stream(
    schema_registry: SchemaRegistry, topics: Outgoing, tmp_path: Path
) -> None:
    registered = with_registry(topics, registry_of(schema_registry.url, tmp_path))
    registered.routes()
    kept = tmp_path / IDS_FILE
    ids = json.loads(kept.read_text())
    kept.write_text(json.dumps({key: schema_id + 1000 for key, schema_id in ids.items()}))
    with pytest.raises(ConfigurationError, match=f"restore the registry, or remove {kept}"):
        registered.routes()
    kept.unlink()
    registered.routes()
    assert json.loads(kept.read_text()) == ids


def test_what_is_no_registry_is_a_mistake_of_the_settings(
    schema_registry: SchemaRegistry, topics: Outgoing, tmp_path: Path
) -> None:
    wrong = registry_of(f"{schema_registry.url}/nowhere", tmp_path)
    with pytest.raises(ConfigurationError, match=r"kafka\.registry_url"):
        with_registry(topics, wrong).routes()
    with pytest.raises(ValueError, match="must start with http"):
        Settings(state=tmp_path, kafka={"registry_url": "registry:8081"})


def test_the_password_of_a_registry_is_not_printed(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, kafka={"registry_url": "http://me:hunter2@127.0.0.1:1"})
    registry = outgoing_of(settings).registry
    assert registry is not None
    assert "hunter2" in registry.url
    assert registry.kept.parent == settings.stream.checkpoint
    assert "hunter2" not in repr(outgoing_of(settings)) + repr(settings)


# Through Kafka: two consumers who know nothing of noctule.


@pytest.fixture
def made(kafka: EmbeddedKafka) -> Outgoing:
    wanted = new_topics(desc=f"desc-{uuid.uuid4().hex[:8]}")
    create_topics(kafka.bootstrap_servers, dict.fromkeys(wanted.topics().values(), 1))
    return wanted


def consume(client: Mapping[str, Any], topic: str, n: int) -> list[tuple[bytes, bytes]]:
    """Return keys and values of a topic from its start, `n` at least."""
    group = {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest", "log_level": 0}
    consumer = Consumer({**client, **group})
    consumer.subscribe([topic])
    got: list[tuple[bytes, bytes]] = []
    while len(got) < n:
        messages = consumer.consume(n, 20.0)
        assert messages, f"{len(got)} of {n} messages in {topic}"
        got += [(m.key() or b"", m.value() or b"") for m in messages]
    consumer.close()
    return got


def test_a_batch_that_is_sent_again_is_the_same_again(
    kafka: EmbeddedKafka, engine: sa.Engine, made: Outgoing, files: Path
) -> None:
    client = {"bootstrap.servers": kafka.bootstrap_servers}
    for _ in range(2):  # each time by a new process's means
        assert Outputs(client, made, 10.0).send(engine, RUN, BATCH) == 8
    for topic, n in (
        (made.topics()["classified"], 3),
        (made.topics()["novel"], 1),
        (made.topics()["desc"], 2),
        (made.topics()["requests"], 1),
    ):
        got = consume(client, topic, 2 * n)
        assert got[:n] == got[n:]
    file = files / "noctule.v1.Classification.avsc"
    told = [read(file, v[5:]) for _, v in consume(client, made.topics()["novel"], 2)]
    assert [t["dia_source_id"] for t in told] == [17, 17]


def test_the_example_of_the_page_reads_what_was_sent(
    kafka: EmbeddedKafka,
    engine: sa.Engine,
    made: Outgoing,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Outputs({"bootstrap.servers": kafka.bootstrap_servers}, made, 10.0).send(engine, RUN, BATCH)
    monkeypatch.chdir(files.parent)
    page = (DOCS / "messages.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    for said, here in (
        ("localhost:9092", kafka.bootstrap_servers),
        ("noctule.classified", made.topics()["classified"]),
        ("my-group", made.topics()["classified"]),
    ):
        assert f'"{said}"' in program
        program = program.replace(f'"{said}"', f'"{here}"')
    exec(program, {})  # noqa: S102 - our own page
    assert capsys.readouterr().out == "17 111 0.75 None\n"


def test_the_frame_is_confluents() -> None:
    assert frame(0x01020304) == bytes([0, 1, 2, 3, 4])
