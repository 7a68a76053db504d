"""Where schemas come from: the package, a folder, a registry; and what happens where they do not."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lightcurves.alerts import read_alerts
from lightcurves.decode import Decoder, packets_of
from lightcurves.errors import ConfigurationError, UnavailableError
from lightcurves.schemas import FolderSchemas, RegistrySchemas, package_schemas, version_of
from tests.lightcurves.avro import sized, varint


class Registry:
    """What a schema registry answers; ``asked`` counts the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.url = ""

    def put(self, schema_id: int, text: str) -> None:
        body = json.dumps({"schema": text}).encode()
        self.answers[f"/schemas/ids/{schema_id}"] = (200, body)


@contextmanager
def serving(registry: Registry, port: int = 0) -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.asked.append(self.path)
            missing = (404, b'{"error_code": 40403, "message": "Schema not found"}')
            code, body = registry.answers.get(self.path, missing)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keep the tests' output quiet."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        registry.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving(Registry()) as running:
        yield running


def text_of(v10: Any) -> str:
    return json.dumps({key: value for key, value in v10.items() if not key.startswith("__")})


def under_id(packet: bytes, schema_id: int) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + packet[5:]


def reasons(decoder: Decoder, packets: list[bytes]) -> list[str | None]:
    found: list[str | None] = decoder.decode(packets_of(packets))["reject_reason"].to_pylist()
    return found


def test_rubins_ids_are_versions() -> None:
    assert version_of(1000) == (10, 0)
    assert version_of(703) == (7, 3)


def test_the_package_knows_rubins_schemas_and_no_others() -> None:
    schemas = package_schemas()
    known = schemas.schema(1000)
    assert known is not None
    assert known["name"] == "lsst.v10_0.alert"
    assert schemas.schema(99_900) is None
    assert schemas.schema(2**32 - 1) is None


def test_every_schema_of_the_package_is_known_by_its_id() -> None:
    folder = package_schemas().folder
    files = list(folder.glob("*/*/lsst.v*.alert.avsc"))
    assert len(files) > 10
    for file in files:
        major, minor = int(file.parent.parent.name), int(file.parent.name)
        schema = package_schemas().schema(major * 100 + minor)
        assert schema is not None
        assert schema["type"] == "record"


def test_a_folder_serves_as_the_package_does(made_up: list[bytes], tmp_path: Path) -> None:
    shutil.copytree(package_schemas().folder / "10" / "0", tmp_path / "10" / "0")
    schemas = FolderSchemas(tmp_path)
    assert read_alerts(made_up, schemas=schemas).equals(read_alerts(made_up))
    assert schemas.schema(703) is None


def test_a_registry_serves_as_the_package_does(
    registry: Registry, made_up: list[bytes], v10: Any
) -> None:
    registry.put(7, text_of(v10))
    packets = [under_id(packet, 7) for packet in made_up]
    got = read_alerts(packets, schemas=RegistrySchemas(registry.url))
    expected = read_alerts(made_up)
    assert got.drop_columns(["schema_id"]).equals(expected.drop_columns(["schema_id"]))
    assert set(got["schema_id"].drop_null().to_pylist()) == {7}


def test_a_registry_is_asked_once_for_each_id(
    registry: Registry, made_up: list[bytes], v10: Any
) -> None:
    registry.put(7, text_of(v10))
    packets = [under_id(made_up[0], schema_id) for schema_id in (7, 8, 7, 8)]
    decoder = Decoder(RegistrySchemas(registry.url + "/"))
    for _ in range(3):
        assert reasons(decoder, packets) == [None, "unknown_schema"] * 2
    assert sorted(registry.asked) == ["/schemas/ids/7", "/schemas/ids/8"]


OUTAGES = {
    "an error": (500, b"out of order"),
    "no rights": (403, b"{}"),
    "no JSON": (200, b"<html>proxy</html>"),
    "JSON without a schema": (200, b'{"subject": "alerts"}'),
    "a JSON list": (200, b"[1]"),
    "a JSON number": (200, b"1"),
    "nothing": (200, b""),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_told_and_not_remembered(
    outage: str, registry: Registry, made_up: list[bytes], v10: Any
) -> None:
    registry.answers["/schemas/ids/7"] = OUTAGES[outage]
    decoder = Decoder(RegistrySchemas(registry.url))
    packets = [under_id(made_up[0], 7)]
    with pytest.raises(UnavailableError, match="schema registry is not available") as error:
        reasons(decoder, packets)
    assert registry.url in str(error.value)
    registry.put(7, text_of(v10))
    assert reasons(decoder, packets) == [None]


def test_a_registry_that_is_not_there_is_unavailable(made_up: list[bytes], v10: Any) -> None:
    with serving(Registry()) as registry:
        url = registry.url
    decoder = Decoder(RegistrySchemas(url, timeout_s=1))
    with pytest.raises(UnavailableError, match="schema registry"):
        reasons(decoder, [under_id(made_up[0], 7)])
    again = Registry()
    again.put(7, text_of(v10))
    with serving(again, int(url.rpartition(":")[2])):
        assert reasons(decoder, [under_id(made_up[0], 7)]) == [None]


NO_ALERTS = {
    "protobuf": 'syntax = "proto3";',
    "a string": '"string"',
    "a list": "[1, 2]",
    "nothing Avro knows": '{"type": "widget"}',
    "an unknown name": '{"type": "record", "name": "a", "fields": [{"name": "x", "type": "b"}]}',
    "a number": "17",
    "another record": '{"type": "record", "name": "a", "fields": []}',
    "itself": '{"type": "record", "name": "a", "fields": [{"name": "x", "type": ["null", "a"]}]}',
}


@pytest.mark.parametrize("name", NO_ALERTS)
def test_a_message_of_another_subject_stops_nobody(
    name: str, registry: Registry, made_up: list[bytes], v10: Any
) -> None:
    """Anybody may write to the topic with any id of the registry."""
    registry.put(7, text_of(v10))
    registry.put(8, NO_ALERTS[name])
    packets = [under_id(made_up[0], schema_id) for schema_id in (7, 8, 7)]
    decoder = Decoder(RegistrySchemas(registry.url))
    assert reasons(decoder, packets) == [None, "unusable_schema", None]


def test_a_schema_without_a_required_field_is_unusable(
    registry: Registry, made_up: list[bytes], v10: Any
) -> None:
    fields = [field for field in v10["fields"] if field["name"] != "diaSource"]
    registry.put(7, json.dumps({"type": "record", "name": "a", "fields": fields}))
    assert reasons(Decoder(RegistrySchemas(registry.url)), [under_id(made_up[0], 7)]) == [
        "unusable_schema"
    ]


def test_a_schema_that_no_stack_can_hold_is_unusable(
    registry: Registry, made_up: list[bytes], v10: Any, tmp_path: Path
) -> None:
    deep = '{"type": "record", "name": "a", "fields": [{"name": "x", "type": '
    deep += '{"type": "array", "items": ' * 100_000 + '"int"' + "}" * 100_000 + "}]}"
    registry.put(7, deep)
    registry.put(1000, text_of(v10))
    decoder = Decoder(RegistrySchemas(registry.url))
    assert reasons(decoder, [under_id(made_up[0], 7), made_up[0]]) == ["unusable_schema", None]
    file = tmp_path / "0" / "7" / "lsst.v0_7.alert.avsc"
    file.parent.mkdir(parents=True)
    for text in (deep, "no schema", '"string"', ""):
        file.write_text(text)
        decoder = Decoder(FolderSchemas(tmp_path))
        assert reasons(decoder, [under_id(made_up[0], 7)]) == ["unusable_schema"]
    header = b"Obj\x01" + varint(1) + sized(b"avro.schema") + sized(deep.encode()) + varint(0)
    with pytest.raises(ConfigurationError, match="broken Avro container"):
        read_alerts(header + bytes(16))


def test_an_address_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"schemas\.registry_url must begin with http"):
        RegistrySchemas("file:///etc/passwd")
