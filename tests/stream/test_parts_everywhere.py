"""A part that reads light curves works wherever alerts are scored: live, ahead of their turn, and again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightcurves.alerts import read_alerts
from models import kinds
from models.artifact import save_model
from models.scoring import Model, load_model
from models.training import moments_of, train
from simulator.packets import SimulatedAlerts
from store.database import migrate, open_database
from store.delta import LightCurveFile, commit_files, ensure_table
from store.maintenance import Retention, maintain
from store.rescored import ParquetFile
from stream.priority import Lookout, Priority
from stream.rescore import Rescoring, Times, rescore_delta, rescored_schema
from stream.rows import SCORE_COLUMNS
from stream.scoring import Scored, Scorer, ScorerConfig, delta_schema
from tests.models.test_parts import CountingClassifier
from tests.sky import FAST, sky_table


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, CountingClassifier))
    settings = replace(FAST, rounds=4, classifiers=("lightgbm", "counting"))
    save_model(train(moments_of(sky_table(24), 2), settings), tmp_path / "draft")
    made = load_model(tmp_path / "draft")
    (tmp_path / "models").mkdir()
    (tmp_path / "draft").rename(tmp_path / "models" / made.manifest.model_version)
    return made


@pytest.fixture
def packets() -> list[bytes]:
    return list(SimulatedAlerts(sky_table(6, seed=5)))[:40]


@pytest.fixture
def scored(tmp_path: Path, model: Model, packets: list[bytes]) -> tuple[Scorer, Scored]:
    scorer = Scorer(ScorerConfig(str(tmp_path / "models")))
    return scorer, scorer.score_packets(packets, model.manifest.model_version)


def test_the_stream_says_what_python_says(
    model: Model, scored: tuple[Scorer, Scored], packets: list[bytes]
) -> None:
    alone = model.score(read_alerts(packets))
    for name in ("entropy", "raw_entropy", "novelty", "reason"):
        assert scored[1].rows[name].to_pylist() == alone[name].to_pylist()


def test_looking_ahead_gives_the_same_scores(
    model: Model, scored: tuple[Scorer, Scored], packets: list[bytes]
) -> None:
    scorer, whole = scored
    chosen, found = Lookout(scorer, Priority(young_days=1e4, bright_sigma=1.0)).find(
        packets, model.manifest.model_version
    )
    assert chosen.size > 1
    assert found is not None
    for name in SCORE_COLUMNS:
        assert found.rows[name].equals(whole.rows[name].take(chosen)), name


def test_looking_ahead_shows_a_strategy_its_features(
    tmp_path: Path, model: Model, packets: list[bytes]
) -> None:
    names = ("age_days", "n_points")
    scorer = Scorer(ScorerConfig(str(tmp_path / "models"), strategy_features=names))
    version = model.manifest.model_version
    whole = scorer.score_packets(packets, version)
    lookout = Lookout(scorer, Priority(young_days=1e4, bright_sigma=1.0))
    chosen, early = lookout.find(packets, version)
    assert early is not None
    shown = early.rows["strategy_features"]
    assert shown.null_count == 0
    assert shown.equals(whole.rows["strategy_features"].take(chosen))


def kept(scored: Scored) -> pa.Table:
    n = len(scored.readable)
    where = {
        "topic": pa.array(["t"] * n),
        "kafka_partition": pa.array([0] * n, pa.int32()),
        "kafka_offset": pa.array(range(n), pa.int64()),
        "arrival_ms": pa.array([1] * n, pa.int64()),
        "processed_ms": pa.array([2] * n, pa.int64()),
        "run_id": pa.array(["run"] * n),
    }
    return scored.for_delta(where)


def add(folder: Path, rows: pa.Table, batch: int) -> None:
    file = LightCurveFile(folder)
    file.append(rows)
    written = file.close()
    assert written is not None
    commit_files(folder, [written], "app", batch)


def scored_again(tmp_path: Path, folder: Path, scorer: Scorer, version: str) -> dict[int, Any]:
    engine = open_database(f"sqlite:///{tmp_path}/noctule.sqlite")
    migrate(engine)
    out = tmp_path / "again.parquet"
    with ParquetFile(out, rescored_schema()) as target:
        outcome = rescore_delta(
            Rescoring(engine, scorer, version, target, "again"), folder, Times()
        )
    engine.dispose()
    rows = {row["dia_source_id"]: row for row in pq.read_table(out).to_pylist()}
    assert outcome.n_scored == len(rows)
    return rows


def check_again(again: dict[int, Any], live: Scored) -> None:
    for name in SCORE_COLUMNS:
        ids = live.rows["dia_source_id"].to_pylist()
        expected = dict(zip(ids, live.rows[name].to_pylist(), strict=True))
        assert {key: row[name] for key, row in again.items()} == expected, name


def test_scoring_again_gives_the_same_scores(
    tmp_path: Path, model: Model, scored: tuple[Scorer, Scored]
) -> None:
    """From the light curves that are kept: its features alone would not do."""
    scorer, whole = scored
    ensure_table(tmp_path / "delta", delta_schema())
    add(tmp_path / "delta", kept(whole), 0)
    version = model.manifest.model_version
    check_again(scored_again(tmp_path, tmp_path / "delta", scorer, version), whole)


def as_before(rows: pa.Table) -> pa.Table:
    """The same rows as a release before would have kept them: a field and a feature less."""
    rows = rows.drop_columns(["raw_entropy"])
    column = rows["features"].combine_chunks()
    names = [field.name for field in column.type][:-1]
    fewer = pa.StructArray.from_arrays([column.field(name) for name in names], names=names)
    return rows.set_column(rows.schema.get_field_index("features"), "features", fewer)


@pytest.mark.parametrize("grown", [False, True])
def test_a_table_of_the_release_before_is_scored_again_and_maintained(
    tmp_path: Path,
    model: Model,
    scored: tuple[Scorer, Scored],
    grown: bool,  # noqa: FBT001
) -> None:
    """As it was left, and once today's stream has added to it."""
    scorer, whole = scored
    rows, folder = kept(whole), tmp_path / "delta"
    old = as_before(rows[:25])
    ensure_table(folder, old.schema)
    for batch in range(12):
        add(folder, old[2 * batch : 2 * batch + 2], batch)
    add(folder, old[24:], 12)
    if grown:
        ensure_table(folder, delta_schema())
        add(folder, rows[25:], 13)
    n = 40 if grown else 25
    live = whole._replace(
        rows={name: column[:n] for name, column in whole.rows.items()}, readable=whole.readable[:n]
    )
    check_again(scored_again(tmp_path, folder, scorer, model.manifest.model_version), live)
    engine = open_database(f"sqlite:///{tmp_path}/noctule.sqlite")
    saved = maintain(engine, folder, Retention(light_curve_days=36_500))
    engine.dispose()
    assert saved.files[1] < saved.files[0]
    check_again(scored_again(tmp_path, folder, scorer, model.manifest.model_version), live)
