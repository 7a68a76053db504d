"""Schemas from a real registry: Apicurio's, which speaks as Confluent's does."""

from __future__ import annotations

import random
import time
from typing import Any

import pyarrow as pa
import pytest

from lightcurves.alerts import read_alerts
from lightcurves.decode import Decoder
from lightcurves.errors import UnavailableError
from lightcurves.schemas import RegistrySchemas, package_schemas
from tests.lightcurves.avro import encode
from tests.lightcurves.test_schemas import reasons, text_of, under_id
from tests.registry import SchemaRegistry

SUBJECT = "alert-packet"
VERSIONS = (700, 701, 702, 703, 704, 800, 900, 1000, 1100, 1101)
NOBODYS = (0, 2**31 - 1, 2**32 - 1)  # the last does not fit the number that the registry reads


def without_ids(alerts: pa.Table) -> pa.Table:
    return alerts.drop_columns(["schema_id"])


def test_packets_under_the_registrys_id_read_as_with_the_package(
    schema_registry: SchemaRegistry, made_up: list[bytes], v10: Any
) -> None:
    schema_id = schema_registry.register(SUBJECT, text_of(v10))
    packets = [under_id(packet, schema_id) for packet in made_up]
    got = read_alerts(packets, schemas=RegistrySchemas(schema_registry.url))
    assert without_ids(got).equals(without_ids(read_alerts(made_up)))
    assert set(got["schema_id"].drop_null().to_pylist()) == {schema_id}


def test_a_batch_mixes_all_versions_and_ids_that_nobody_registered(
    schema_registry: SchemaRegistry,
) -> None:
    schemas = {version: package_schemas().schema(version) for version in VERSIONS}
    given = {
        version: schema_registry.register(SUBJECT, text_of(schema))
        for version, schema in schemas.items()
    }
    assert len(set(given.values())) == len(VERSIONS)
    packets = [
        under_id(bytes(5) + encode(schema, random.Random(seed)), version)
        for version, schema in schemas.items()
        for seed in range(20)
    ]
    packets += [under_id(packet, stranger) for packet in packets[:20] for stranger in NOBODYS]
    random.Random(0).shuffle(packets)
    versions = [int.from_bytes(packet[1:5], "big") for packet in packets]
    renamed = [
        under_id(packet, given.get(version, version))
        for packet, version in zip(packets, versions, strict=True)
    ]
    got = read_alerts(renamed, schemas=RegistrySchemas(schema_registry.url))
    expected = read_alerts(packets)
    assert without_ids(got).equals(without_ids(expected))
    assert got["schema_id"].to_pylist() == [
        given.get(version) for version in expected["schema_id"].to_pylist()
    ]
    assert set(got["schema_id"].drop_null().to_pylist()) == set(given.values())
    assert [reason == "unknown_schema" for reason in got["reject_reason"].to_pylist()] == [
        version in NOBODYS for version in versions
    ]


def test_ids_may_be_rubins_own(schema_registry: SchemaRegistry) -> None:
    """Rubin's registry gives a schema the id major * 100 + minor, the one in the packets' frames."""
    schemas = {version: package_schemas().schema(version) for version in VERSIONS}
    marked = {
        version: text_of({**schema, "doc": "restored"})  # or the registry knows it by another id
        for version, schema in schemas.items()
        if schema is not None
    }
    schema_registry.restore(marked)
    packets = [
        under_id(bytes(5) + encode(schema, random.Random(seed)), version)
        for version, schema in schemas.items()
        for seed in range(5)
    ]
    got = read_alerts(packets, schemas=RegistrySchemas(schema_registry.url))
    assert got.equals(read_alerts(packets))
    assert set(got["schema_id"].drop_null().to_pylist()) == set(VERSIONS)


def test_a_registry_that_falls_silent_stops_only_what_is_new(
    schema_registry: SchemaRegistry, made_up: list[bytes], v10: Any
) -> None:
    known, unread = (
        under_id(made_up[0], schema_registry.register(SUBJECT, text_of({**v10, "doc": doc})))
        for doc in ("known", "unread")
    )
    schemas = RegistrySchemas(schema_registry.url, timeout_s=60)
    decoder = Decoder(schemas)
    assert reasons(decoder, [known]) == [None]
    schemas.timeout_s = 1
    with schema_registry.silent():
        assert reasons(Decoder(schemas), [known]) == [None]  # the first has compiled it already
        began_s = time.monotonic()
        with pytest.raises(UnavailableError, match="schema registry is not available"):
            reasons(decoder, [known, unread])
        assert 0.9 < time.monotonic() - began_s < 10
        assert reasons(decoder, [known]) == [None]
    schemas.timeout_s = 60
    new = under_id(made_up[0], schema_registry.register(SUBJECT, text_of({**v10, "doc": "new"})))
    assert reasons(decoder, [known, unread, new]) == [None] * 3
