"""Objects as a fold over alerts: in columns what a textbook does row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.objects import fold_objects
from store.tables import objects
from tests.store.conftest import alert

NEWEST = ("ra_deg", "dec_deg", "healpix", "class_id", "probability", "entropy", "novelty",
          "novelty_far", "model_version")  # fmt: skip
SCHEMA = pa.schema(
    [
        ("survey", pa.string()),
        ("object_id", pa.int64()),
        ("dia_source_id", pa.int64()),
        ("t_mjd_tai", pa.float64()),
        *((name, pa.float64()) for name in NEWEST if name not in {"healpix", "class_id", "model_version"}),
        ("healpix", pa.int64()),
        ("class_id", pa.int32()),
        ("model_version", pa.string()),
    ]
)  # fmt: skip


def fold_object(
    state: dict[str, Any] | None, one: dict[str, Any], *, is_new: bool
) -> dict[str, Any]:
    """The textbook: the later alert decides, at equal times the larger id."""
    t = one["t_mjd_tai"]
    if state is None:
        state = {
            "survey": one["survey"],
            "object_id": one["object_id"],
            "first_mjd_tai": t,
            "last_mjd_tai": t,
            "last_dia_source_id": one["dia_source_id"],
            "n_alerts": 0,
            **{name: one[name] for name in NEWEST},
        }
    if (t, one["dia_source_id"]) >= (state["last_mjd_tai"], state["last_dia_source_id"]):
        state = state | {name: one[name] for name in NEWEST}
        state |= {"last_mjd_tai": t, "last_dia_source_id": one["dia_source_id"]}
    first = min(state["first_mjd_tai"], t)
    return state | {"first_mjd_tai": first, "n_alerts": state["n_alerts"] + is_new}


@st.composite
def batches(draw: st.DrawFn) -> list[list[tuple[dict[str, Any], bool]]]:
    """Batches of alerts, each with whether it is new; ids are used once but for what is read again."""
    n = draw(st.integers(0, 14))
    numbers = draw(st.permutations(range(1, n + 1)))
    alerts = [
        {name: alert(number).get(name) for name in SCHEMA.names}
        | {
            "survey": draw(st.sampled_from(("lsst", "ztf"))),
            "object_id": draw(st.sampled_from((None, 2**60 + 1, 2**60 + 2))),
            "t_mjd_tai": draw(st.sampled_from((60000.1, 60000.2, 60003.0))),
            "healpix": draw(st.sampled_from((None, 17, 18))),
            "novelty": draw(st.sampled_from((None, 0.25, 0.5))),
            "ra_deg": float(number),
            "dec_deg": -float(number),
        }
        for number in numbers
    ]
    cut = draw(st.integers(0, n))
    parts = [[(one, True) for one in alerts[:cut]], [(one, True) for one in alerts[cut:]]]
    again = draw(st.booleans())
    return [*parts, [(one, False) for one in alerts[:cut]]] if again else parts


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches())
def test_columns_fold_as_the_textbook(
    connection: sa.Connection, made: list[list[tuple[dict[str, Any], bool]]]
) -> None:
    connection.execute(sa.delete(objects))
    folded: dict[Any, dict[str, Any]] = {}
    for batch in made:
        table = pa.Table.from_pylist([one for one, _ in batch], schema=SCHEMA)
        fold_objects(connection, table, np.array([new for _, new in batch], bool))
        for one, is_new in batch:
            if one["object_id"] and one["healpix"] is not None:
                key = one["survey"], one["object_id"]
                folded[key] = fold_object(folded.get(key), one, is_new=is_new)
    rows = connection.execute(sa.select(objects)).mappings()
    assert {(row["survey"], row["object_id"]): dict(row) for row in rows} == folded
