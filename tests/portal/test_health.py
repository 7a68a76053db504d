"""Health and readiness of the portal, and its metrics, on a real database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from lightcurves.reasons import RejectReason
from store.database import open_database
from store.tables import accounting
from tests.portal import night
from tests.portal.conftest import asking, make_app


def verdicts(portal: httpx.Client) -> tuple[tuple[int, int], dict[str, Any]]:
    health, ready = (portal.get(path) for path in ("/healthz", "/readyz"))
    assert health.json() == ready.json()
    return (health.status_code, ready.status_code), health.json()


def test_an_empty_portal_is_ready(portal: httpx.Client) -> None:
    codes, body = verdicts(portal)
    assert codes == (200, 200)
    assert body == {
        "status": "ok",
        "healthy": True,
        "ready": True,
        "reasons": [],
        "champion": None,
        "last_batch_age_s": None,
    }


@pytest.mark.usefixtures("ids")
def test_what_the_stream_did_last_is_told_and_not_judged(
    portal: httpx.Client, engine: sa.Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(accounting).values(committed_ms=night.NOW_MS - 86_400_000))
    codes, body = verdicts(portal)
    assert codes == (200, 200)
    assert body["champion"] == "20260311-b07d42"
    assert body["last_batch_age_s"] == 86_400.0


def test_without_tables_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/empty.sqlite")
    with asking(make_app(engine)) as portal:
        codes, body = verdicts(portal)
    engine.dispose()
    assert codes == (200, 503)
    assert body["status"] == "not ready"
    assert "restart the portal" in body["reasons"][0]


def test_without_a_database_it_is_unhealthy_and_shows_no_password() -> None:
    engine = open_database("postgresql://noctule:secret-word@127.0.0.1:1/noctule")
    with asking(make_app(engine)) as portal:
        codes, body = verdicts(portal)
    engine.dispose()
    assert codes == (503, 503)
    assert body["status"] == "unhealthy"
    assert "store.url" in body["reasons"][0]
    assert "secret-word" not in str(body)


def metrics(portal: httpx.Client) -> dict[str, float]:
    lines = portal.get("/metrics").text.splitlines()
    return {
        name: float(value)
        for name, value in (re.split(r" (?=\S+$)", line) for line in lines if line[0] != "#")
    }


@pytest.mark.usefixtures("ids")
def test_metrics_are_what_the_tables_hold(portal: httpx.Client, engine: sa.Engine) -> None:
    found = metrics(portal)
    assert found['noctule_alerts_total{outcome="classified"}'] == 17_905
    assert found["noctule_audit_imbalance"] == 0
    assert found["noctule_label_requests_total"] == 24
    assert found["noctule_label_queue_length"] == 15
    assert found["noctule_label_queue_oldest_seconds"] == 24 * 60
    assert found["noctule_last_batch_age_seconds"] == 0
    assert found["noctule_last_batch_alerts"] == 18_342
    with engine.begin() as connection:
        connection.execute(sa.update(accounting).values(n_lost=5))
    found = metrics(portal)
    assert found["noctule_lost_offsets_total"] == 5
    assert found["noctule_audit_imbalance"] == 5


def test_counts_begin_at_zero_so_that_the_first_is_an_increase(portal: httpx.Client) -> None:
    found = metrics(portal)
    for reason in RejectReason:
        assert found[f'noctule_rejected_total{{reason="{reason}"}}'] == 0
