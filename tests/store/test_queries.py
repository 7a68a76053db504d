from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.accounting_queries import counts
from store.labels import report_label
from store.object_queries import (
    cone_search,
    newest_objects,
    object_history,
    object_row,
    ranked_objects,
)
from store.sky import healpix_of, separation_deg
from store.tables import duplicates, objects, rejected
from tests.store.conftest import Add

BIG = 2**63 - 1
"""An object id of LSST does not fit 53 bits."""


def ids(rows: object) -> list[int]:
    return [row["object_id"] for row in rows]  # type: ignore[attr-defined]


def test_the_newest_objects(connection: sa.Connection, add_object: Add) -> None:
    for object_id, last, class_id in [(1, 3.0, 111), (2, 5.0, 112), (BIG, 4.0, 111)]:
        add_object(object_id, last_mjd_tai=last, class_id=class_id)
    assert ids(newest_objects(connection, 10)) == [2, BIG, 1]
    assert ids(newest_objects(connection, 1, offset=1)) == [BIG]
    assert ids(newest_objects(connection, 10, class_id=111)) == [BIG, 1]


def test_the_strangest_objects(connection: sa.Connection, add_object: Add) -> None:
    for object_id, novelty, class_id in [
        (1, 0.2, 111),
        (2, None, 111),
        (3, 0.9, 112),
        (4, 0.2, 111),
    ]:
        add_object(object_id, novelty=novelty, class_id=class_id)
    assert ids(ranked_objects(connection, "novelty", 10)) == [3, 1, 4]
    assert ids(ranked_objects(connection, "novelty", 1)) == [3]
    assert ids(ranked_objects(connection, "novelty", 10, class_id=111)) == [1, 4]


def test_one_object_with_its_label(connection: sa.Connection, add_object: Add) -> None:
    add_object(BIG, class_id=112, probability=0.6)
    report_label(connection, survey="lsst", object_id=BIG, class_id=111, reporter="me", now_ms=1)
    row = object_row(connection, "lsst", BIG)
    assert row is not None
    assert (row["object_id"], row["class_id"], row["label"]) == (BIG, 112, 111)
    assert object_row(connection, "lsst", 1) is None


def test_the_history_of_an_object(connection: sa.Connection, add_alert: Add) -> None:
    add_alert(11, t_mjd_tai=2.0)
    add_alert(12, t_mjd_tai=1.0, class_id=None, reason="too_few_points")
    add_alert(13, object_id=2)
    history = object_history(connection, "lsst", 1)
    assert [row["dia_source_id"] for row in history] == [12, 11]
    assert history[0]["reason"] == "too_few_points"
    assert history[1]["probabilities"] == {"111": 0.75, "112": 0.25}


def test_a_cone_over_ra_zero(connection: sa.Connection, add_object: Add) -> None:
    add_object(1, ra_deg=359.9999, dec_deg=0.0)
    add_object(2, ra_deg=0.0002, dec_deg=0.0)
    add_object(3, ra_deg=1.0, dec_deg=0.0)
    found = cone_search(connection, 0.0, 0.0, 2.0, limit=10)
    assert ids(found) == [1, 2]
    assert found[0]["separation_arcsec"] == pytest.approx(0.36)


def test_a_cone_over_the_pole(connection: sa.Connection, add_object: Add) -> None:
    for object_id, ra_deg in enumerate([0.0, 90.0, 180.0, 270.0], start=1):
        add_object(object_id, ra_deg=ra_deg, dec_deg=-89.999)
    found = cone_search(connection, 45.0, -90.0, 3.7, limit=10)
    assert sorted(ids(found)) == [1, 2, 3, 4]


def test_the_limit_keeps_the_nearest(connection: sa.Connection, add_object: Add) -> None:
    for object_id in range(1, 8):
        add_object(object_id, ra_deg=10.0, dec_deg=object_id / 3600)
    found = cone_search(connection, 10.0, 0.0, 60.0, limit=5)
    assert ids(found) == [1, 2, 3, 4, 5]
    assert [row["separation_arcsec"] for row in found] == pytest.approx([1, 2, 3, 4, 5])


def test_a_cone_with_nothing_in_it(connection: sa.Connection) -> None:
    assert cone_search(connection, 10.0, 0.0, 60.0, limit=5) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    centre=st.sampled_from(
        [(0.0, 0.0), (359.99, 45.0), (120.0, 90.0), (5.0, -90.0), (200.0, -30.0)]
    ),
    radius_deg=st.sampled_from([0.0, 1e-4, 0.01, 1.0, 20.0, 100.0, 180.0]),
)
def test_a_cone_finds_what_brute_force_finds(
    engine: sa.Engine, seed: int, centre: tuple[float, float], radius_deg: float
) -> None:
    ra, dec = scattered(centre, radius_deg, np.random.default_rng(seed))
    rows = [
        {
            "object_id": number,
            "survey": "lsst",
            "ra_deg": float(ra[number]),
            "dec_deg": float(dec[number]),
            "healpix": int(cell),
            "first_mjd_tai": 1.0,
            "last_mjd_tai": 1.0,
            "n_alerts": 1,
            "last_dia_source_id": 1,
        }
        for number, cell in enumerate(healpix_of(ra, dec))
    ]
    with engine.connect() as connection:
        connection.execute(objects.insert(), rows)
        found = cone_search(connection, *centre, radius_deg * 3600, limit=1000)
        connection.rollback()
    inside = np.flatnonzero(separation_deg(ra, dec, *centre) <= radius_deg * 3600 / 3600)
    assert sorted(ids(found)) == inside.tolist()
    separations = [row["separation_arcsec"] for row in found]
    assert separations == sorted(separations)


def scattered(
    centre: tuple[float, float], radius_deg: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions all over the sky and about the cone's edge, the centre among them."""
    ra = np.r_[random.uniform(0, 360, 20), centre[0] + random.normal(0, radius_deg + 1e-5, 30)]
    dec = np.r_[random.uniform(-90, 90, 20), centre[1] + random.normal(0, radius_deg + 1e-5, 30)]
    return np.r_[ra % 360, centre[0]], np.r_[np.clip(dec, -90, 90), centre[1]]


def test_the_counts_of_an_empty_database(connection: sa.Connection) -> None:
    found = counts(connection)
    assert (found.alerts, found.scored, found.not_evaluated, found.rejected) == (0, 0, {}, {})


def test_everything_that_was_read_is_counted(
    connection: sa.Connection, add_alert: Add, add_request: Add
) -> None:
    where = {"topic": "alerts", "kafka_partition": 0, "run_id": "live", "batch_id": 1}
    add_alert(1)
    add_alert(2)
    add_alert(3, reason="too_few_points", class_id=None)
    add_alert(4, reason="no_object", class_id=None)
    add_alert(5, reason="no_object", class_id=None)
    repeat = where | {"kafka_offset": 6, "survey": "lsst", "dia_source_id": 1, "arrival_ms": 1}
    connection.execute(duplicates.insert().values(repeat))
    garbage = {"reason": "bad_frame", "detail": "", "packet": b"\xff", "processed_ms": 2}
    connection.execute(
        rejected.insert().values(where | {"kafka_offset": 7, "arrival_ms": 1} | garbage)
    )
    add_request(1)
    add_request(2)
    report_label(connection, survey="lsst", object_id=2, class_id=111, reporter="me", now_ms=1)
    found = counts(connection)
    assert found.scored == 2
    assert found.not_evaluated == {"no_object": 2, "too_few_points": 1}
    assert found.rejected == {"bad_frame": 1}
    assert (found.duplicates, found.queue_open, found.labels) == (1, 1, 1)
    assert found.alerts == 7
