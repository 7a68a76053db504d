"""The contract of the REST interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import sqlalchemy as sa

from lightcurves.errors import UnavailableError
from portal.errors import ErrorCode
from store.database import migrate, open_database, reading
from store.registry import promote, record_trial
from tests.portal import night
from tests.portal.conftest import TOKEN, asking, make_app
from tests.store.test_database import COUNT

AUTH = {"Authorization": f"Bearer {TOKEN}"}
INT64_MAX = 2**63 - 1


def report(known: int, **changes: Any) -> dict[str, Any]:
    return {"object_id": str(known), "class_id": 111, "reporter": "A. Observer", **changes}


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The envelope, which is the same for every error."""
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "detail"]
    assert body["error"]["code"] in set(ErrorCode)
    assert response.headers["content-type"] == "application/json"
    return dict(body["error"])


def test_empty_database_answers_with_empty_lists(portal: httpx.Client) -> None:
    for path in ("/api/objects", "/api/objects?order=strangest", "/api/queue"):
        assert portal.get(path).json() == []
    models = portal.get("/api/models").json()
    assert models["champion"] is None
    assert models["score_so_far"] is None
    assert portal.get("/api/status").json()["alerts"] == 0


def test_objects_come_in_the_order_asked_for(portal: httpx.Client, ids: list[int]) -> None:
    for order, key in (
        ("newest", "last_mjd_tai"),
        ("strangest", "novelty"),
        ("uncertain", "entropy"),
    ):
        rows = portal.get("/api/objects", params={"order": order, "limit": 20}).json()
        values = [row[key] for row in rows]
        assert len(rows) == 20
        assert values == sorted(values, reverse=True)
        assert {int(row["object_id"]) for row in rows} <= set(ids)


def test_objects_of_one_class(portal: httpx.Client, ids: list[int]) -> None:
    assert ids
    for order in ("newest", "strangest", "uncertain"):
        rows = portal.get("/api/objects", params={"order": order, "class_id": 214}).json()
        assert {row["class_name"] for row in rows} == {"Eclipsing binary"}


def test_identifiers_are_texts_in_json_and_keep_every_digit(
    portal: httpx.Client, ids: list[int]
) -> None:
    found = portal.get(f"/api/objects/{ids[0]}").json()
    assert found["object"]["object_id"] == str(ids[0])
    assert found["labels"][0]["object_id"] == str(ids[0])
    assert isinstance(found["labels"][0]["label_id"], str)
    assert isinstance(found["request"]["request_id"], str)
    assert all(isinstance(alert["dia_source_id"], str) for alert in found["history"])


def test_object_has_its_scores_light_curve_labels_and_request(
    portal: httpx.Client, ids: list[int]
) -> None:
    found = portal.get(f"/api/objects/{ids[2]}").json()
    newest = found["history"][-1]
    assert newest["dia_source_id"] == found["object"]["last_dia_source_id"]
    assert {str(each["class_id"]): each["probability"] for each in found["classes"]} == newest[
        "probabilities"
    ]
    inside = {each["class_id"] for each in found["classes"] if each["in_prediction_set"]}
    assert inside == set(newest["prediction_set"])
    assert list(found["light_curve"]) == ["u", "g", "r", "i", "z", "y"]
    n_points = sum(len(band["t_mjd_tai"]) for band in found["light_curve"].values())
    assert n_points == night.light_curve("lsst", ids[2]).num_rows
    assert found["labels"][0]["class_name"] == "SN II"
    assert found["request"]["answered"] is True
    assert found["request"]["answer_name"] == "SN II"


def test_null_stays_null(engine: sa.Engine, portal: httpx.Client) -> None:
    with engine.begin() as connection:
        object_id = night.add_unscored_object(connection)
    found = portal.get(f"/api/objects/{object_id}").json()
    for name in ("class_id", "class_name", "probability", "novelty", "entropy", "band", "flux_njy"):
        assert found["object"][name] is None
    assert found["object"]["reason"] == "no_finite_flux"
    assert found["classes"] == []
    assert found["history"][0]["probabilities"] is None
    assert found["request"] is None


def test_numbers_that_are_not_finite_are_null(sqlite: sa.Engine) -> None:
    ids = night.fill(sqlite, n_objects=1)
    nan, inf = float("nan"), float("inf")
    odd = night.points([1.0, 2.0], ["g", "mauve"], [nan, 1.0], [1.0, inf], ["source", "forced"])
    trial: dict[str, Any] = {
        "champion_version": "a",
        "challenger_version": "b",
        "n_labels": 1,
        "promoted": False,
    }
    with sqlite.begin() as connection:
        record_trial(connection, **trial, gate={"gain": -inf}, now_ms=night.NOW_MS)
    with asking(make_app(sqlite, light_curve=lambda *_: odd)) as portal:
        curve = portal.get(f"/api/objects/{ids[0]}").json()["light_curve"]
        assert curve["g"]["flux_njy"] == [None]
        assert curve["mauve"]["sigma_njy"] == [None]
        assert portal.get("/api/models").json()["trials"][0]["gate"] == {"gain": None}


def test_no_light_curve_is_null(sqlite: sa.Engine) -> None:
    ids = night.fill(sqlite, n_objects=1)
    nothing: pa.Table | None = None
    with asking(make_app(sqlite, light_curve=lambda *_: nothing)) as portal:
        assert portal.get(f"/api/objects/{ids[0]}").json()["light_curve"] is None


def test_cone_gives_the_nearest_first(portal: httpx.Client, ids: list[int]) -> None:
    first = portal.get(f"/api/objects/{ids[0]}").json()["object"]
    where = {"ra_deg": first["ra_deg"], "dec_deg": first["dec_deg"], "radius_arcsec": 30_000}
    rows = portal.get("/api/cone", params=where).json()
    assert rows[0]["object_id"] == str(ids[0])
    assert rows[0]["separation_arcsec"] == pytest.approx(0, abs=1e-6)
    assert len(rows) > 1
    assert [row["separation_arcsec"] for row in rows] == sorted(
        row["separation_arcsec"] for row in rows
    )


def test_queue_holds_what_is_open(portal: httpx.Client, ids: list[int]) -> None:
    still_open = portal.get("/api/queue").json()
    everything = portal.get("/api/queue", params={"open": False}).json()
    assert len(still_open) == 15
    assert len(everything) == 24
    assert {row["object_id"] for row in still_open} == {str(each) for each in ids[9:24]}


def test_models_tell_champion_gate_and_score_so_far(portal: httpx.Client, ids: list[int]) -> None:
    assert ids
    found = portal.get("/api/models").json()
    assert found["champion"] == "20260311-b07d42"
    assert [each["model_version"] for each in found["promotions"]] == [
        "20260311-b07d42",
        "20260310-5c1e7a",
    ]
    assert [each["promoted"] for each in found["trials"]] == [True, False]
    assert found["trials"][0]["gate"]["gain"] == 0.037
    assert found["score_so_far"]["n_labels"] == 9


def test_each_survey_has_its_model(portal: httpx.Client, engine: sa.Engine, ids: list[int]) -> None:
    assert ids
    ours, theirs = "20260311-b07d42", "20260310-5c1e7a"
    for path in ("/api/models", "/api/status"):
        assert portal.get(path).json()["champions"] == {"lsst": ours, "ztf": None, "winter": None}
    with engine.begin() as connection:
        promote(connection, "champion-ztf", theirs, reason="theirs", now_ms=night.NOW_MS)
    for path in ("/api/models", "/api/status"):
        found = portal.get(path).json()
        assert found["champion"] == ours
        assert found["champions"] == {"lsst": ours, "ztf": theirs, "winter": None}
    newest = portal.get("/api/models").json()["promotions"][0]
    assert (newest["alias"], newest["model_version"]) == ("champion-ztf", theirs)
    assert f'noctule_model_info{{alias="champion-ztf",version="{theirs}"}} 1.0' in (
        portal.get("/metrics").text
    )
    assert '<span class="tag">champion-ztf</span>' in portal.get("/models").text
    assert f"{theirs} promoted to champion-ztf: theirs" in portal.get("/").text


def test_status_counts_the_tables(portal: httpx.Client, ids: list[int]) -> None:
    assert ids
    found = portal.get("/api/status").json()
    assert found["not_evaluated"] == {"solar_system_object": 1}
    assert found["rejected"] == {"truncated": 2, "unknown_schema": 1}
    assert found["alerts"] == found["scored"] + 4
    assert (found["queue_open"], found["labels"]) == (15, 9)


def test_label_is_recorded_and_answers_the_request(portal: httpx.Client, ids: list[int]) -> None:
    request = portal.get("/api/queue").json()[0]
    given = report(
        int(request["object_id"]),
        confidence=0.9,
        redshift=0.05,
        observed_mjd_tai=61_110.25,
        instrument="spectrograph",
        comment=" clear Si II ",
        request_id=request["request_id"],
    )
    response = portal.post("/api/labels", json=given, headers=AUTH)
    assert response.status_code == 201
    label = response.json()
    assert label["class_name"] == "SN Ia"
    assert label["request_id"] == request["request_id"]
    assert label["comment"] == "clear Si II"
    assert label["reported_ms"] == night.NOW_MS
    open_now = {row["object_id"] for row in portal.get("/api/queue").json()}
    assert request["object_id"] not in open_now
    assert len(ids) > len(open_now)


def test_an_id_of_two_surveys_needs_its_survey(
    engine: sa.Engine, portal: httpx.Client, ids: list[int]
) -> None:
    shared = ids[30]
    with engine.begin() as connection:
        night.add_unscored_object(connection, shared, survey="ztf")
        night.add_request(connection, shared, survey="ztf")
    ambiguous = {
        "code": "ambiguous_object",
        "message": f"several surveys have an object {shared}: add survey, one of lsst, ztf",
        "detail": {"object_id": str(shared), "surveys": ["lsst", "ztf"]},
    }
    for path in ("/api/objects/{}", "/objects/{}", "/fragments/objects/{}", "/objects/{}/figures"):
        response = portal.get(path.format(shared))
        assert (response.status_code, error_of(response)) == (409, ambiguous)
        for survey in ("lsst", "ztf"):
            assert portal.get(path.format(shared), params={"survey": survey}).status_code == 200
        assert portal.get(path.format(shared), params={"survey": "winter"}).status_code == 404
    found = portal.get(f"/api/objects/{shared}?survey=ztf").json()
    assert {found["object"]["survey"], *(each["survey"] for each in found["history"])} == {"ztf"}
    assert len(found["history"]) == 1
    assert [each["survey"] for each in found["requests"]] == ["ztf"]
    refused = portal.post("/api/labels", json=report(shared), headers=AUTH)
    assert (refused.status_code, error_of(refused)) == (409, ambiguous)
    label = portal.post("/api/labels", json=report(shared, survey="ztf"), headers=AUTH).json()
    assert (label["survey"], label["request_id"]) == ("ztf", found["request"]["request_id"])
    assert portal.get(f"/api/objects/{shared}?survey=lsst").json()["labels"] == []
    rows = portal.get("/api/objects", params={"limit": 1000}).json()
    assert {r["survey"]: r["label_class_id"] for r in rows if r["object_id"] == str(shared)} == {
        "lsst": None,
        "ztf": 111,
    }
    assert f"/objects/{shared}?survey=ztf" in portal.get("/").text


def test_a_request_has_a_life(portal: httpx.Client, ids: list[int]) -> None:
    assert ids
    request = portal.get("/api/queue").json()[0]
    assert (request["survey"], request["program"]) == ("lsst", "noctule")
    assert (request["state"], request["state_who"]) == ("asked", "entropy in run live")
    path = f"/api/queue/{request['request_id']}/events"
    given = {"event": "claimed", "who": "NTT team", "why": "clear tonight"}
    response = portal.post(path, json=given, headers=AUTH)
    assert response.status_code == 201
    told = response.json()
    assert told == given | {
        "event_id": told["event_id"],
        "request_id": request["request_id"],
        "at_ms": night.NOW_MS,
    }
    row = portal.get("/api/queue").json()[0]
    states = ("state", "state_who", "state_ms", "state_why")
    assert [row[name] for name in states] == ["claimed", "NTT team", night.NOW_MS, "clear tonight"]
    detail = portal.get(f"/api/objects/{request['object_id']}").json()
    assert detail["request"] == detail["requests"][0]
    assert [each["event"] for each in detail["request"]["events"]] == ["asked", "claimed"]
    for page in (f"/objects/{request['object_id']}", "/queue"):
        assert "claimed" in portal.get(page).text
        assert "NTT team" in portal.get(page).text
    assert portal.post(path, json=given | {"event": "expired"}, headers=AUTH).status_code == 201
    assert request["request_id"] not in {r["request_id"] for r in portal.get("/api/queue").json()}
    late = portal.post(path, json=given, headers=AUTH)
    assert late.status_code == 409
    error = error_of(late)
    assert (error["code"], error["detail"]["state"]) == ("request_closed", "expired")


def test_what_no_event_can_be(portal: httpx.Client, ids: list[int]) -> None:
    assert ids
    request_id = portal.get("/api/queue").json()[0]["request_id"]
    path, given = f"/api/queue/{request_id}/events", {"event": "seen", "who": "me"}
    assert portal.post(path, json=given).status_code == 401
    for changes in ({"event": "answered"}, {"event": "lost"}, {"who": " "}, {"when": 5}):
        response = portal.post(path, json=given | changes, headers=AUTH)
        assert (response.status_code, error_of(response)["code"]) == (422, "invalid_request")
    nowhere = portal.post("/api/queue/999999/events", json=given, headers=AUTH)
    assert (nowhere.status_code, error_of(nowhere)["code"]) == (404, "unknown_request")


def test_the_queue_of_one_program(engine: sa.Engine, portal: httpx.Client, ids: list[int]) -> None:
    with engine.begin() as connection:
        night.add_request(connection, ids[20], program="thesis")
    assert len(portal.get("/api/queue").json()) == 16
    (theirs,) = portal.get("/api/queue", params={"program": "thesis"}).json()
    assert (theirs["program"], theirs["object_id"]) == ("thesis", str(ids[20]))
    portal.post("/api/labels", json=report(ids[20]), headers=AUTH)
    assert portal.get("/api/queue", params={"program": "thesis"}).json() == []
    detail = portal.get(f"/api/objects/{ids[20]}").json()
    assert [each["state"] for each in detail["requests"]] == ["answered", "answered"]


def test_a_query_that_takes_too_long_says_so(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/noctule.sqlite", query_timeout_s=0.1)
    migrate(engine)
    ids = night.fill(engine, n_objects=1)

    def slow(*_: object) -> None:
        with reading(engine) as connection:
            connection.execute(sa.text(COUNT.format(last=10**12))).all()

    with asking(make_app(engine, light_curve=slow)) as portal:
        response = portal.get(f"/api/objects/{ids[0]}")
        assert portal.post("/api/labels", json=report(ids[0]), headers=AUTH).status_code == 201
    engine.dispose()
    assert (response.status_code, error_of(response)["code"]) == (503, "query_timeout")
    assert response.headers["retry-after"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthorized"),
        ({"Authorization": "Basic abc"}, 401, "unauthorized"),
        ({"Authorization": "Bearer"}, 401, "unauthorized"),
        ({"Authorization": "Bearer wrong"}, 403, "forbidden"),
        ({"Authorization": "Bearer ünï".encode("latin-1")}, 403, "forbidden"),
    ],
)
def test_labels_need_the_token(
    sqlite: sa.Engine, headers: dict[str, Any], status: int, code: str
) -> None:
    ids = night.fill(sqlite, n_objects=1)
    with asking(make_app(sqlite)) as portal:
        response = portal.post("/api/labels", json=report(ids[0]), headers=headers)
    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert ("www-authenticate" in response.headers) == (status == 401)


def test_without_a_token_labels_are_off_and_the_setting_is_named(sqlite: sa.Engine) -> None:
    with asking(make_app(sqlite, token=None)) as portal:
        response = portal.post("/api/labels", json=report(1), headers=AUTH)
    assert response.status_code == 403
    error = error_of(response)
    assert error["code"] == "labels_disabled"
    assert "NOCTULE_PORTAL__TOKEN" in error["message"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"class_id": 999}, "class_id"),
        ({"class_id": "SN Ia"}, "class_id"),
        ({"reporter": "  "}, "reporter"),
        ({"reporter": "nul\0"}, "reporter"),
        ({"comment": "x" * 2001}, "comment"),
        ({"confidence": 1.5}, "confidence"),
        ({"redshift": "far"}, "redshift"),
        ({"object_id": "9223372036854775808"}, "object_id"),
        ({"object_id": None}, "object_id"),
        ({"request_id": "123456"}, "request_id"),
        ({"typo": 1}, "typo"),
    ],
)
def test_bad_labels_name_the_field(sqlite: sa.Engine, changes: dict[str, Any], field: str) -> None:
    ids = night.fill(sqlite, n_objects=1)
    with asking(make_app(sqlite)) as portal:
        response = portal.post("/api/labels", json=report(ids[0], **changes), headers=AUTH)
    assert response.status_code == 422
    error = error_of(response)
    assert error["code"] == "invalid_request"
    assert [each["field"] for each in error["detail"]] == [field]


def test_label_of_an_unknown_object_is_refused(portal: httpx.Client) -> None:
    response = portal.post("/api/labels", json=report(17), headers=AUTH)
    assert response.status_code == 404
    assert error_of(response) == {
        "code": "unknown_object",
        "message": "no alert of object 17 has been read",
        "detail": {"object_id": "17"},
    }


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/objects/17", 404, "unknown_object"),
        (f"/api/objects/{INT64_MAX}", 404, "unknown_object"),
        (f"/api/objects/{INT64_MAX + 1}", 422, "invalid_request"),
        ("/api/objects/abc", 422, "invalid_request"),
        ("/api/objects?order=prettiest", 422, "invalid_request"),
        ("/api/objects?limit=0", 422, "invalid_request"),
        ("/api/cone?ra_deg=1", 422, "invalid_request"),
        ("/api/cone?ra_deg=nan&dec_deg=0&radius_arcsec=1", 422, "invalid_request"),
        ("/api/cone?ra_deg=1&dec_deg=91&radius_arcsec=1", 422, "invalid_request"),
        ("/api/nothing", 404, "not_found"),
        ("/api/labels", 405, "method_not_allowed"),
        ("/objects/17", 404, "unknown_object"),
        ("/fragments/objects/17", 404, "unknown_object"),
        ("/objects/17/figures", 404, "unknown_object"),
        ("/static/nothing.css", 404, "not_found"),
        ("/static/..%2fapp.py", 404, "not_found"),
    ],
)
def test_every_error_has_the_envelope(
    portal: httpx.Client, path: str, status: int, code: str
) -> None:
    response = portal.get(path)
    assert response.status_code == status
    assert error_of(response)["code"] == code


def test_unreadable_and_huge_bodies_have_the_envelope(portal: httpx.Client) -> None:
    headers = {**AUTH, "Content-Type": "application/json"}
    assert error_of(portal.post("/api/labels", content=b"{", headers=headers))
    huge = portal.post("/api/labels", content=b" " * 100_000, headers=headers)
    assert huge.status_code == 413
    assert error_of(huge)["code"] == "too_large"
    endless = portal.post("/api/labels", content=iter([b" "]), headers=headers)
    assert error_of(endless)["code"] == "too_large"


def test_half_a_character_is_no_text(sqlite: sa.Engine) -> None:
    body = rb'{"object_id": "1", "class_id": 111, "reporter": "\ud800"}'
    headers = {**AUTH, "Content-Type": "application/json"}
    with asking(make_app(sqlite)) as portal:
        response = portal.post("/api/labels", content=body, headers=headers)
    assert response.status_code == 422
    assert error_of(response)["detail"][0]["field"] == "reporter"


def test_a_fault_says_nothing_about_itself(sqlite: sa.Engine) -> None:
    def broken(_survey: str, _: int) -> pa.Table:
        raise RuntimeError("the secret is 1234")

    with asking(make_app(sqlite, light_curve=broken)) as portal:
        response = portal.get("/api/objects/1?survey=lsst")
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal"
    assert "1234" not in response.text


def test_health_is_bad_without_tables(tmp_path: Any) -> None:
    empty = sa.create_engine(f"sqlite:///{tmp_path}/empty.sqlite")
    with asking(make_app(empty)) as portal:
        response = portal.get("/api/health")
    empty.dispose()
    assert response.status_code == 503
    assert error_of(response)["code"] == "unavailable"


def test_database_away_is_503_everywhere(sqlite: sa.Engine) -> None:
    @sa.event.listens_for(sqlite, "do_connect")
    def refuse(*_: Any) -> None:
        raise UnavailableError("database", "connection refused; start it")

    sqlite.dispose()
    with asking(make_app(sqlite)) as portal:
        for path in ("/api/health", "/api/objects", "/metrics", "/"):
            response = portal.get(path)
            assert response.status_code == 503
            assert "connection refused; start it" in error_of(response)["message"]
            assert response.headers["retry-after"]


def test_health_is_good(portal: httpx.Client) -> None:
    assert portal.get("/api/health").json() == {"status": "ok"}


def test_metrics_are_the_tables(portal: httpx.Client, ids: list[int]) -> None:
    assert ids
    text = portal.get("/metrics").text
    for line in (
        'noctule_alerts_total{outcome="classified"} 17905.0',
        'noctule_alerts_total{outcome="duplicate"} 12.0',
        'noctule_rejected_total{reason="truncated"} 2.0',
        "noctule_label_queue_length 15.0",
        "noctule_labels_total 9.0",
        'noctule_model_info{alias="champion",version="20260311-b07d42"} 1.0',
    ):
        assert line in text
