"""A packet of which the process dies: found, kept, and in nobody's way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import stream.job
from benchmarks.kills import differences, mixed, send
from deploy.places import delta_folder
from store.tables import classifications, rejected
from stream.isolated import IsolatedScorer
from stream.job import JobConfig, source_options
from stream.rows import MESSAGE, RANGE
from stream.scoring import Scorer, ScorerConfig
from tests.stream.conftest import Night
from tests.stream.dying import DEADLY, LIVES, DyingScorer
from tests.stream.running import running

pytestmark = pytest.mark.timeout(300)  # services are waited for as long as they take


def test_only_the_deadly_are_rejected_and_the_others_scored_as_ever(
    trained_models: list[Path], real_packets: list[bytes]
) -> None:
    config = ScorerConfig(models_folder=str(trained_models[0].parent))
    version = trained_models[0].name
    packets = [*real_packets[:4], b"garbage", *real_packets[4:8]]
    usual = Scorer(config).score_packets(packets, version)
    guilty = [2, 6]
    for k in guilty:
        packets[k] = DEADLY
    isolated = IsolatedScorer(config, DyingScorer)
    try:
        scored = isolated.score_packets(packets, version)
        again = isolated.score_packets(packets[:2], version)
    finally:
        isolated.close()
    for k in guilty:
        assert not scored.readable[k]
        assert scored.rows["reject_reason"][k].as_py() == "failed"
        assert "exit status -11" in scored.rows["detail"][k].as_py()
    others = pa.array(np.setdiff1d(np.arange(len(packets)), guilty))
    for name, column in scored.rows.items():
        assert column.take(others).equals(usual.rows[name].take(others)), name
    assert again.readable.all()


def test_a_process_that_dies_of_everything_rejects_nothing(trained_models: list[Path]) -> None:
    config = ScorerConfig(models_folder=str(trained_models[0].parent))
    isolated = IsolatedScorer(config, _dead)
    try:
        with pytest.raises(RuntimeError, match="every packet"):
            isolated.score_packets([b"x"] * 5, trained_models[0].name)
    finally:
        isolated.close()


def _dead(_config: ScorerConfig) -> Scorer:
    raise SystemExit(3)


def let_workers(monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    """Let Spark's workers run another function."""

    def options(config: JobConfig) -> dict[str, Any]:
        return {**source_options(config), "run": run}

    monkeypatch.setattr(stream.job, "source_options", options)


def test_workers_that_are_killed_leave_orphans_and_no_double_rows(
    make: Callable[..., Night], real_packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    night = make(stream={"trigger_s": 0, "max_alerts_per_batch": 20})
    let_workers(monkeypatch, "tests.stream.dying:run_and_die")
    topics = night.settings.kafka.alert_topics
    expected = send(night.settings, mixed(real_packets, 80, topics, seed=71))
    lives = night.settings.stream.checkpoint / LIVES
    lives.parent.mkdir(parents=True)
    lives.write_text(f"{RANGE} {MESSAGE} {RANGE}")  # the file is written when the range is told
    with running(night) as live:
        live.until_read(80)
        assert sum("worker died" in told for told in live.warnings.told) == 3
    assert lives.read_text() == ""
    folder = delta_folder(night.settings)
    known = {Path(name).name for name in DeltaTable(str(folder)).file_uris()}
    assert len({file.name for file in folder.glob("*.parquet")} - known) >= 2
    assert differences(night.settings, expected) == []


@pytest.mark.parametrize("behind", [10_000, 5], ids=["in its turn", "ahead of its turn"])
def test_a_stream_outlives_packets_of_which_its_workers_die(
    make: Callable[..., Night],
    real_packets: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    behind: int,
) -> None:
    night = make(stream={"trigger_s": 0, "max_alerts_per_batch": 8, "behind_alerts": behind})
    let_workers(monkeypatch, "tests.stream.dying:run")
    sent = [*real_packets[:20], DEADLY, *real_packets[20:40]]
    night.publish(sent, partition=0)
    with running(night) as live:
        assert "worker died" in live.until_it_warns("died")
        live.until_read(41)
    (row,) = night.rows(rejected)
    assert (row["kafka_offset"], row["packet"], row["reason"]) == (20, DEADLY, "failed")
    assert len(night.rows(classifications)) == 40
    assert all(part.problems == () and part.n_waiting == 0 for part in night.audit())
    assert night.delta().num_rows == 40
