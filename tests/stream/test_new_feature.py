"""A feature that is added while the stream runs changes no row and no message of a batch that is repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from active_learning.requests import wishes_of
from lightcurves.features import registry
from models.artifact import read_manifest, save_model
from models.scoring import load_model
from simulator.packets import SimulatedAlerts
from store.database import migrate, open_database
from stream.commit import BatchId, commit_sql
from stream.outputs import outgoing
from stream.rows import MESSAGE, padded
from stream.scoring import Scored, Scorer, ScorerConfig, delta_schema
from tests.models.test_parts import BRIGHTEST
from tests.sky import sky_table, trained
from tests.stream.sent_to import sent_to
from tests.stream.test_commit import POLICY, batch

TOPICS = sent_to("classified", "novel", "requests", "rejected", desc="desc", novel_far=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that was trained before the feature was added, under its version."""
    version = save_model(trained(), tmp_path / "draft").model_version
    (tmp_path / "models").mkdir()
    return (tmp_path / "draft").rename(tmp_path / "models" / version)


@pytest.fixture(params=["simulated", "real"])
def packets(request: pytest.FixtureRequest) -> list[bytes]:
    if request.param == "real":
        real: list[bytes] = request.getfixturevalue("real_packets")
        return real
    return [*list(SimulatedAlerts(sky_table(6, seed=5)))[:40], b"", b"\0\0\0\0\1"]


def rows_of(scored: Scored, packets: list[bytes]) -> pa.Table:
    """The batch that a worker hands to the driver, from these packets of one partition."""
    n = len(packets)
    columns = {
        "kind": pa.array([MESSAGE] * n),
        "topic": pa.array(["t"] * n),
        "kafka_partition": pa.array([0] * n),
        "kafka_offset": pa.array(range(n)),
        "arrival_ms": pa.array([1] * n),
        "processed_ms": pa.array([2] * n),
        "packet": pa.array(packets, pa.binary(), mask=scored.readable),
    }
    return batch(padded({**scored.rows, **columns}, n).to_pylist())


def sent(store: Path, rows: pa.Table, model: Path) -> list[dict[str, Any]]:
    """The messages of the batch, which is committed first unless `store` has it already."""
    engine = open_database(f"sqlite:///{store}")
    migrate(engine)
    classes = {model.name: read_manifest(model).class_ids}
    wishes = wishes_of(rows, POLICY)
    commit_sql(engine, rows, BatchId("run", 0, "s1"), wishes, classes, 99, routes=TOPICS.routes())
    with engine.connect() as connection:
        messages = list(outgoing(connection, "run", 0, TOPICS.routes()))
    engine.dispose()
    return messages


def test_a_repeated_batch_is_the_same_after_a_feature_was_added(
    folder: Path, packets: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the worker that had loaded the model, by one that starts anew, and from the tables."""
    worker = Scorer(ScorerConfig(str(folder.parent)))
    before = worker.score_packets(packets, folder.name)
    rows = rows_of(before, packets)
    messages = sent(tmp_path / "first.sqlite", rows, folder)
    assert {m["topic"] for m in messages} >= {"classified", "desc", "novel"}
    names = [field.name for field in before.features.type]

    monkeypatch.setitem(registry.REGISTERED, BRIGHTEST.name, BRIGHTEST)  # as `register` does
    assert worker.models(folder.name)["lsst"].manifest == load_model(folder).manifest
    for k, scorer in enumerate((worker, Scorer(ScorerConfig(str(folder.parent))))):
        after = scorer.score_packets(packets, folder.name)
        assert rows_of(after, packets).equals(rows)
        assert after.light_curves.equals(before.light_curves)
        assert [field.name for field in after.features.type] == [*names, "brightest_njy"]
        for name in names:
            assert after.features.field(name).equals(before.features.field(name)), name
        assert sent(tmp_path / f"{k}.sqlite", rows_of(after, packets), folder) == messages
    assert sent(tmp_path / "first.sqlite", rows_of(after, packets), folder) == messages
    assert "brightest_njy" in {field.name for field in delta_schema().field("features").type}
