"""The pages render: empty, full, with nulls and with hostile text."""

from __future__ import annotations

import re

import httpx
import pytest
import sqlalchemy as sa

from portal import shapes
from portal.pages import first_detection, timeline
from store import tables
from tests.portal import night
from tests.portal.conftest import asking, make_app

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"{{ 7 * 7 }}"
HTML = {"Accept": "text/html,*/*"}


def page(portal: httpx.Client, path: str) -> str:
    response = portal.get(path, headers=HTML)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in response.headers["content-security-policy"]
    return response.text


def test_empty_pages_say_what_to_wait_for(portal: httpx.Client) -> None:
    overview = page(portal, "/")
    for text in ("noctule train", "noctule stream", "Nothing is asked for", "No model has been"):
        assert text in overview
    assert "No label has come back yet" in page(portal, "/queue")
    assert "No challenger yet" in page(portal, "/models")


def test_overview_shows_the_night(portal: httpx.Client, ids: list[int]) -> None:
    text = page(portal, "/")
    for shown in (
        "18\N{THIN SPACE}342",
        "17\N{THIN SPACE}905",
        "20260311-b07d42",
        "all 15 requests",
        "9 labels",
    ):
        assert shown in text
    newest = re.search(r'id="newest".*?</section>', text, re.DOTALL)
    assert newest
    assert newest.group().count("/objects/") == 12
    assert len(ids) > 12


def test_pages_name_no_other_host(portal: httpx.Client, ids: list[int]) -> None:
    for path in ("/", "/queue", "/models", f"/objects/{ids[0]}"):
        text = page(portal, path)
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)


def test_every_address_in_a_page_exists(portal: httpx.Client, ids: list[int]) -> None:
    for path in ("/", "/queue", "/models", f"/objects/{ids[0]}"):
        found = set(
            re.findall(r"(?:src|href|data-live-url|data-url)=\"(/[^\"#]*)", page(portal, path))
        )
        for address in found:
            assert portal.get(address).status_code == 200, address


def test_fragments_are_the_live_sections_of_their_pages(
    portal: httpx.Client, ids: list[int]
) -> None:
    for path, fragment in (
        ("/", "/fragments/overview"),
        ("/queue", "/fragments/queue"),
        ("/models", "/fragments/models"),
        (f"/objects/{ids[0]}", f"/fragments/objects/{ids[0]}"),
    ):
        live = re.findall(r"<section id=\"([a-z]+)\"[^>]* data-live", page(portal, path))
        again = re.findall(r"<section id=\"([a-z]+)\"[^>]* data-live", page(portal, fragment))
        assert live
        assert sorted(live) == sorted(again)


def test_hostile_text_is_text(engine: sa.Engine, portal: httpx.Client) -> None:
    ids = night.fill(engine, n_objects=2)
    with engine.begin() as connection:
        night.add_label(connection, ids[1], reporter=HOSTILE, comment=HOSTILE, instrument=HOSTILE)
        row = {"object_id": 77, "why": HOSTILE, "strategy": HOSTILE}
        night.add_request(connection, 77)
        connection.execute(tables.label_requests.update().where(_of(77)).values(row))
    for path in (f"/objects/{ids[1]}", "/queue"):
        text = page(portal, path)
        assert "&lt;script&gt;alert(1)" in text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "{{ 7 * 7 }}" in text


def _of(object_id: int) -> sa.ColumnElement[bool]:
    return tables.label_requests.c.object_id == object_id


def test_nulls_are_words(engine: sa.Engine, portal: httpx.Client) -> None:
    with engine.begin() as connection:
        object_id = night.add_unscored_object(connection)
    text = page(portal, f"/objects/{object_id}")
    assert "not evaluated: no finite flux" in text
    assert "No point of the light curve has a finite flux" in text
    assert "No spectrum was asked for" in text
    assert "None" not in text
    assert "nan" not in text
    assert "not evaluated: no finite flux" in page(portal, "/")


def test_a_request_for_an_object_without_alerts_is_shown(
    engine: sa.Engine, portal: httpx.Client
) -> None:
    with engine.begin() as connection:
        night.add_request(connection, 77)
    assert "/objects/77" in page(portal, "/queue")
    assert "/objects/77" in page(portal, "/")


def test_unknown_object_is_a_page_for_a_browser(portal: httpx.Client) -> None:
    response = portal.get("/objects/17", headers=HTML)
    assert response.status_code == 404
    assert "no alert of object 17 has been read" in response.text
    assert response.headers["content-type"].startswith("text/html")


def test_queue_form_is_filled_in_from_the_address(portal: httpx.Client) -> None:
    assert 'value="169298437283840013"' in page(portal, "/queue?object_id=169298437283840013")


def test_queue_says_that_labels_are_off(sqlite: sa.Engine) -> None:
    with asking(make_app(sqlite, token=None)) as portal:
        assert "NOCTULE_PORTAL__TOKEN" in page(portal, "/queue")


def test_figures_are_drawn_for_both_schemes(portal: httpx.Client, ids: list[int]) -> None:
    for scheme in ("light", "dark"):
        params = {"scheme": scheme, "narrow": True}
        item = portal.get(f"/objects/{ids[0]}/figures", params=params).json()["figures"]
        assert item["root_id"]


def test_figures_of_nothing_are_null(sqlite: sa.Engine) -> None:
    with sqlite.begin() as connection:
        object_id = night.add_unscored_object(connection)
        connection.execute(tables.classifications.delete())
    with asking(make_app(sqlite, light_curve=lambda *_: None)) as portal:
        assert portal.get(f"/objects/{object_id}/figures").json() == {"figures": None}


def test_static_files_may_be_kept_and_bokeh_is_the_installed_one(portal: httpx.Client) -> None:
    css = portal.get("/static/noctule.css?v=1")
    assert "immutable" in css.headers["cache-control"]
    bokeh = portal.get("/static/bokeh/js/bokeh.min.js")
    assert bokeh.status_code == 200
    assert len(bokeh.content) > 1_000_000


def promotion(time_ms: int) -> shapes.Promotion:
    return shapes.Promotion(
        promotion_id=1,
        alias="champion",
        model_version="m2",
        previous_version="m1",
        promoted_ms=time_ms,
        reason="better",
        gate=None,
        undoes=None,
    )


def trial(time_ms: int, *, promoted: bool) -> shapes.Trial:
    return shapes.Trial(
        trial_id=1,
        champion_version="m1",
        challenger_version="m3",
        tried_ms=time_ms,
        n_labels=40,
        promoted=promoted,
        gate={"gain": -0.01},
    )


def test_timeline_tells_a_won_trial_once() -> None:
    events = timeline([promotion(5)], [trial(4, promoted=True), trial(9, promoted=False)])
    assert [event.kind for event in events] == ["trial", "promotion"]
    assert (
        events[0].text == "m3 tried with 40 labels, log-loss gain \N{MINUS SIGN}0.010: not enough"
    )
    assert events[1].text == "m2 promoted: better"


def test_first_detection_is_what_the_alerts_tell(portal: httpx.Client, ids: list[int]) -> None:
    history = portal.get(f"/api/objects/{ids[1]}").json()["history"]
    alerts = [shapes.Alert(**each) for each in history]
    told = alerts[0].t_mjd_tai - (alerts[0].days_since_first_detection or 0)
    assert first_detection(alerts, alerts[0].t_mjd_tai) == pytest.approx(told)
    assert first_detection([], 61_000.0) == 61_000.0
