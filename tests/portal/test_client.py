"""The Python client against a served portal."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from lightcurves.errors import NoctuleError, UnavailableError
from portal.client import Client, PortalError
from portal.serve import serving
from tests.portal import night
from tests.portal.conftest import TOKEN, make_app


@pytest.fixture
def client(sqlite: sa.Engine) -> Iterator[Client]:
    night.fill(sqlite)
    with serving(make_app(sqlite)) as url, Client(url + "/", token=TOKEN) as client:
        yield client


def test_identifiers_are_integers_again(client: Client) -> None:
    rows = client.objects(limit=100)
    assert night.FIRST_ID in {row["object_id"] for row in rows}
    found = client.object(night.FIRST_ID)
    assert found["object"]["object_id"] == night.FIRST_ID
    assert all(isinstance(each["dia_source_id"], int) for each in found["history"])
    assert set(found["history"][0]["probabilities"]) == set(night.CLASSES)
    assert isinstance(found["labels"][0]["label_id"], int)


def test_every_question_is_answered(client: Client) -> None:
    strangest = client.objects("strangest", limit=3, class_id=111)
    assert [row["class_id"] for row in strangest] == [111] * 3
    near = client.cone(strangest[0]["ra_deg"], strangest[0]["dec_deg"], 1.0)
    assert [row["object_id"] for row in near] == [strangest[0]["object_id"]]
    assert len(client.queue()) == 15
    assert len(client.queue(only_open=False, limit=20)) == 20
    assert client.models()["champion"] == "20260311-b07d42"
    assert client.status()["labels"] == 9
    assert client.health() == {"status": "ok"}


def test_a_label_answers_its_request(client: Client) -> None:
    request = client.queue()[0]
    label = client.report_label(
        request["object_id"], 132, "me", redshift=0.1, request_id=request["request_id"]
    )
    assert label["class_name"] == "TDE"
    assert label["request_id"] == request["request_id"]
    assert len(client.queue()) == 14


def test_what_became_of_a_request(client: Client) -> None:
    request = client.queue(program="noctule")[0]
    event = client.report_event(request["request_id"], "planned", "me", why="on Tuesday")
    assert isinstance(event["event_id"], int)
    found = client.object(request["object_id"], survey="lsst")["requests"][0]
    assert (found["state"], found["events"][-1]) == ("planned", event)
    client.report_event(request["request_id"], "withdrawn", "me")
    with pytest.raises(PortalError) as error:
        client.report_event(request["request_id"], "seen", "me")
    assert (error.value.status, error.value.code) == (409, "request_closed")


def test_a_refusal_carries_the_envelope(client: Client) -> None:
    with pytest.raises(PortalError) as error:
        client.object(17)
    assert (error.value.status, error.value.code) == (404, "unknown_object")
    assert error.value.detail == {"object_id": "17"}
    with pytest.raises(PortalError, match="confidence") as error:
        client.report_label(night.FIRST_ID, 111, "me", confidence=2)
    assert error.value.code == "invalid_request"
    assert isinstance(error.value, NoctuleError)


def test_an_absent_portal_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(UnavailableError) as error:
        client.health()
    assert "noctule portal" in str(error.value)


def test_an_absent_database_is_unavailable(sqlite: sa.Engine) -> None:
    @sa.event.listens_for(sqlite, "do_connect")
    def refuse(*_: object) -> None:
        raise UnavailableError("database", "it is away")

    sqlite.dispose()
    with serving(make_app(sqlite)) as url, Client(url) as client:  # noqa: SIM117 - its end may fail
        with pytest.raises(UnavailableError, match="it is away"):
            client.health()


def test_something_else_at_the_address_is_no_portal(client: Client) -> None:
    with Client(client._url + "/static") as lost, pytest.raises(PortalError) as error:
        lost.health()
    assert error.value.status == 404
