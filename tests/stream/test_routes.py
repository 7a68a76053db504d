"""Ways out: kept with the batch that used them, so that nothing that is set later changes a repeat."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from active_learning.requests import RequestPolicy, wishes_of
from active_learning.strategies.base import Worth
from active_learning.strategies.margin import MarginStrategy
from deploy.sections import Settings
from lightcurves.errors import ConfigurationError
from store.database import migrate, open_database
from store.tables import batches, classifications, label_requests, request_events
from stream.commit import BatchId, Committed, commit_sql, named_probabilities
from stream.messages import LABEL_REQUEST, as_of
from stream.outputs import outgoing, read_rows, stored_routes
from stream.routes import CLASSIFIED, KINDS, Message, Numbers, Outgoing, Route, RouteKind
from tests.stream.sent_to import sent_to
from tests.stream.test_commit import CLASSES, POLICY, alert, bad, batch

TOPICS = sent_to("classified", "novel", "requests", "rejected", desc="desc", novel_far=0.5)
BATCH = BatchId("run", 0, "s1")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    made = open_database(f"sqlite:///{tmp_path}/noctule.sqlite")
    migrate(made)
    yield made
    made.dispose()


def commit(
    engine: sa.Engine,
    rows: pa.Table,
    routes: tuple[Route, ...] = (),
    policy: RequestPolicy = POLICY,
) -> Committed:
    wishes = wishes_of(rows, policy)
    return commit_sql(engine, rows, BATCH, wishes, CLASSES, 99, routes=routes)


def sent(engine: sa.Engine, topics: Outgoing) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return list(outgoing(connection, "run", 0, topics.routes()))


def test_a_replay_goes_out_as_the_batch_did_whatever_is_set_by_then(engine: sa.Engine) -> None:
    rows = batch([alert(0, 1), alert(1, 2, novelty_far=0.9), bad(2)])
    committed = commit(engine, rows, TOPICS.routes())
    with engine.connect() as connection:
        first = list(outgoing(connection, "run", 0, TOPICS.routes(), committed.classified))
        assert stored_routes(connection, "run", 0) == TOPICS.routes()
    assert [m["topic"] for m in first].count("novel") == 1
    later = sent_to("elsewhere", "n", "q", "r", desc="", novel_far=0.01)
    assert sent(engine, later) == first
    assert commit(engine, rows, later.routes()).counts.replay
    assert sent(engine, later) == first


def test_an_older_form_is_still_spoken(engine: sa.Engine) -> None:
    """A batch of the release before, whose classification had the fields of version 1.0."""
    older = (Route("classified", "c", schema="1.0", schema_id=100),)
    commit(engine, batch([alert(0, 1)]), older)
    (message,) = sent(engine, TOPICS)
    assert message["value"][:5] == b"\0\0\0\0\x64"
    file = Path(__file__).parent / "data" / "noctule.v1.Classification.1.0.avsc"
    schema: Any = fastavro.schema.load_schema(str(file))
    body = io.BytesIO(message["value"][5:])
    told: Any = fastavro.schemaless_reader(body, schema, None)
    assert body.read() == b""
    assert told["dia_source_id"] == 1


def test_a_form_of_a_later_release_is_refused_and_an_older_request_still_spoken(
    engine: sa.Engine,
) -> None:
    later = (Route("requests", "q", schema="1.9", schema_id=109),)
    commit(engine, batch([alert(0, 1)]), later)
    with pytest.raises(
        ConfigurationError, match=r"LabelRequest\.avsc is 1\.1 .* cannot write 1\.9"
    ):
        sent(engine, TOPICS)
    then = as_of(LABEL_REQUEST, "1.0")
    names = [field["name"] for field in LABEL_REQUEST.record["fields"]]
    assert [field["name"] for field in then.record["fields"]] == names[:-2]
    assert (names[-2:], then.default_id) == (["survey", "program"], 100)


def test_a_route_that_this_release_does_not_know_is_named(engine: sa.Engine) -> None:
    unknown = (Route("classified", "c", version=7),)
    commit(engine, batch([alert(0, 1)]), unknown)
    with pytest.raises(ConfigurationError, match="no route classified of version 7: classified 1"):
        sent(engine, TOPICS)


def _is_bright(numbers: Numbers, rows: pa.Table) -> pa.ChunkedArray:
    return pc.greater_equal(rows["flux_njy"], numbers["flux_njy"])


def _short(route: Route, rows: pa.Table) -> Iterator[Message]:
    for number in rows["dia_source_id"].to_pylist():
        yield {"topic": route.topic, "key": str(number), "value": b"bright"}


def test_a_new_route_is_a_function_and_a_line(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = RouteKind("bright", 1, CLASSIFIED, _short, mask=_is_bright, numbers=("flux_njy",))
    monkeypatch.setitem(KINDS, ("bright", 1), kind)
    more = Outgoing({**TOPICS.settings, "bright_topic": "for-the-bright", "flux_njy": 600.0})
    rows = batch([alert(0, 1), alert(1, 2, flux_njy=700.0)])
    commit(engine, rows, more.routes())
    bright = [m for m in sent(engine, TOPICS) if m["topic"] == "for-the-bright"]
    assert bright == [{"topic": "for-the-bright", "key": "2", "value": b"bright"}]


def test_new_batches_take_the_newest_version_of_a_kind_and_stored_ones_their_own(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = batch([alert(0, 1)])
    commit(engine, rows, TOPICS.routes())
    before = sent(engine, TOPICS)
    monkeypatch.setitem(KINDS, ("novel", 2), replace(KINDS["novel", 1], version=2))
    versions = {route.kind: route.version for route in TOPICS.routes()}
    assert versions == dict.fromkeys(versions, 1) | {"novel": 2}
    assert sent(engine, TOPICS) == before


def test_every_kind_is_switched_on_by_its_topic_among_the_settings() -> None:
    kafka = Settings().kafka.model_dump()
    for name, version in KINDS:
        only = {key: "" for key in kafka if key.endswith("_topic")} | {f"{name}_topic": "here"}
        assert only.keys() <= kafka.keys()
        (route,) = Outgoing({**kafka, **only}).routes()
        assert (route.kind, route.version, route.topic) == (name, version, "here")
    assert [route.kind for route in Outgoing(kafka).routes()] == [
        "classified", "novel", "requests", "rejected",
    ]  # fmt: skip
    for route in TOPICS.routes():
        assert Route.from_json(json.loads(json.dumps(route.to_json()))) == route


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(("m1", "m3", None)), max_size=8))
def test_probabilities_have_the_names_of_their_own_models_classes(
    versions: list[str | None],
) -> None:
    class_ids = {"m1": (111, 221), "m3": (221, 99, 111)}
    rows: list[dict[str, Any]] = [
        {
            "model_version": version,
            "probabilities": version and [k + n / 10 for n in range(len(class_ids[version]))],
        }
        for k, version in enumerate(versions)
    ]
    schema = pa.schema([("model_version", pa.string()), ("probabilities", pa.list_(pa.float64()))])
    named = named_probabilities(pa.Table.from_pylist(rows, schema=schema), class_ids).to_pylist()
    for row, got in zip(rows, named, strict=True):
        if row["model_version"] is None:
            assert got is None
        else:
            pairs = zip(class_ids[row["model_version"]], row["probabilities"] or [], strict=True)
            assert got == [{"classId": c, "probability": p} for c, p in sorted(pairs)]


def test_what_lies_in_the_database_is_what_json_writes(engine: sa.Engine) -> None:
    tiny = [1.0 - 1e-300, 5e-324]
    rows = batch([alert(0, 1, probabilities=tiny, prediction_set=[])])
    commit(engine, rows)
    with engine.connect() as connection:
        text = connection.exec_driver_sql(
            "SELECT probabilities, prediction_set FROM classifications"
        ).one()
        back = read_rows(connection, classifications, "run", 0)
    assert tuple(text) == (json.dumps({"111": tiny[0], "221": tiny[1]}), "[]")
    assert back["probabilities"].to_pylist() == [
        [{"classId": 111, "probability": tiny[0]}, {"classId": 221, "probability": tiny[1]}]
    ]


# -- strategies, through the commit ------------------------------------------------------------------


def requested(engine: sa.Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        order = sa.select(label_requests).order_by(label_requests.c.request_id)
        return [dict(row) for row in connection.execute(order).mappings()]


def test_margin_asks_with_its_own_utility_and_words(engine: sa.Engine) -> None:
    policy = replace(POLICY, strategy=MarginStrategy(0.3))
    rows = [alert(0, 1, margin=0.05), alert(1, 2, object_id=8, margin=0.5, entropy=0.69)]
    commit(engine, batch(rows), policy=policy)
    (row,) = requested(engine)
    assert (row["object_id"], row["strategy"], row["utility"]) == (7, "margin", 0.95)
    assert row["why"] == "margin 0.05 between the two likeliest classes, 60% and 55%"
    with engine.connect() as connection:
        who = connection.execute(sa.select(request_events.c.who)).scalar_one()
    assert who == "margin in run run"


@dataclass(frozen=True)
class RisingStrategy:
    """Asks for what rises fastest: reads a feature by its name."""

    name: ClassVar[str] = "rising"
    features: ClassVar[tuple[str, ...]] = ("age_days", "rise_rate")

    def worth(self, candidates: pa.Table) -> Worth:
        rise = candidates["features"].combine_chunks().field("rise_rate")
        utility = np.asarray(rise.fill_null(float("nan")), np.float64)
        return Worth(utility, [f"rises by {value}" for value in utility])


def test_a_strategy_sees_the_features_that_it_names(engine: sa.Engine) -> None:
    strategy = RisingStrategy()
    values = [[1.0, 5.0], [1.0, None], None, [2.0, 9.0]]
    rows: list[dict[str, Any]] = [
        alert(k, k + 1, object_id=50 + k, strategy_features=value) for k, value in enumerate(values)
    ]
    policy = replace(POLICY, strategy=strategy)
    commit(engine, batch(rows), policy=policy)
    assert [(row["object_id"], row["utility"]) for row in requested(engine)] == [
        (53, 9.0),
        (50, 5.0),
    ]


def test_a_batch_without_routes_stores_none(engine: sa.Engine) -> None:
    commit(engine, batch([alert(0, 1)]))
    with engine.connect() as connection:
        assert connection.execute(sa.select(batches)).all() == []
