"""What cannot wait is scored ahead of its turn, and nothing else changes."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import stream.source
from benchmarks.kills import audited, differences, mixed, send
from benchmarks.setting import with_id
from deploy.sections import Settings
from deploy.wiring import priority_of
from lightcurves.decode import Decoder, packets_in_place
from lightcurves.errors import UnavailableError
from lightcurves.schemas import package_schemas
from store.tables import (
    accounting,
    classifications,
    duplicates,
    label_requests,
    objects,
    rejected,
)
from stream.priority import SHARE, Lookout, Priority, sigmas_of
from stream.report import BatchReport
from stream.scoring import Scored, Scorer, ScorerConfig
from stream.source import LOOKING
from tests.stream.conftest import Night
from tests.stream.kills import plain_stream

YOUNG_DAYS, BRIGHT_SIGMA = 16.0, 30.0


@pytest.fixture(scope="module")
def scorer(trained_models: list[Path]) -> Scorer:
    return Scorer(ScorerConfig(models_folder=str(trained_models[0].parent)))


@pytest.fixture(scope="module")
def version(trained_models: list[Path]) -> str:
    return trained_models[0].name


@pytest.fixture(scope="module")
def whole(scorer: Scorer, version: str, real_packets: list[bytes]) -> Scored:
    return scorer.score_packets(real_packets, version)


@pytest.mark.parametrize(
    ("young_days", "bright_sigma"),
    [(YOUNG_DAYS, BRIGHT_SIGMA), (0.0, None), (None, 250.0), (60.0, 100.0)],
)
def test_the_urgent_are_those_that_the_tables_will_call_so_with_their_scores_to_the_bit(
    scorer: Scorer,
    version: str,
    whole: Scored,
    real_packets: list[bytes],
    young_days: float | None,
    bright_sigma: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.priority.SHARE", 1.0)
    rows = whole.rows
    wanted = rows["object_id"].fill_null(0).to_numpy(zero_copy_only=False) != 0
    if young_days is not None:
        age = rows["days_since_first_detection"].to_numpy(zero_copy_only=False)
        wanted &= age <= young_days
    if bright_sigma is not None:
        flux, sigma = (
            rows[n].to_numpy(zero_copy_only=False).astype(float) for n in ("flux_njy", "sigma_njy")
        )
        wanted &= np.abs(flux) / sigma >= bright_sigma
    assert 0 < wanted.sum() < wanted.size
    lookout = Lookout(scorer, Priority(young_days, bright_sigma))
    chosen, scored = lookout.find(real_packets, version)
    assert chosen.tolist() == np.flatnonzero(wanted).tolist()
    assert scored is not None
    for name, column in scored.rows.items():
        assert column.equals(rows[name].take(chosen)), name


def test_of_too_many_the_brightest_are_taken(
    scorer: Scorer, version: str, real_packets: list[bytes]
) -> None:
    chosen, _ = Lookout(scorer, Priority(bright_sigma=1.0)).find(real_packets, version)
    assert chosen.size == math.ceil(SHARE * len(real_packets))
    alerts = Decoder(package_schemas()).decode(packets_in_place(real_packets))
    sigmas = np.where(np.asarray(alerts["object_id"].fill_null(0)) != 0, sigmas_of(alerts), 0.0)
    assert sigmas[chosen].min() >= np.delete(sigmas, chosen).max()
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("young_days", [None, 1e4])
def test_of_few_one_is_taken(
    scorer: Scorer, version: str, real_packets: list[bytes], n: int, young_days: float | None
) -> None:
    lookout = Lookout(scorer, Priority(young_days, bright_sigma=1.0))
    (one, *_), _ = lookout.find(real_packets, version)
    chosen, scored = lookout.find([real_packets[one]] * n, version)
    assert chosen.size == 1
    assert scored is not None


def test_packets_that_cannot_be_read_are_nobodys_priority(
    scorer: Scorer, version: str, real_packets: list[bytes]
) -> None:
    lookout = Lookout(scorer, Priority(bright_sigma=BRIGHT_SIGMA))
    chosen, _ = lookout.find(real_packets[:8], version)
    spoilt = [b"", b"garbage", real_packets[0][:-9], *real_packets[:8], b"\0\0\0\0\1"]
    assert (lookout.find(spoilt, version)[0] - 3).tolist() == chosen.tolist()
    for none in ([], [b"garbage"]):
        found, scored = lookout.find(none, version)
        assert found.size == 0
        assert scored is None


def test_a_look_that_fails_finds_nothing_unless_a_service_is_away(
    scorer: Scorer,
    version: str,
    real_packets: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lookout = Lookout(scorer, Priority(bright_sigma=BRIGHT_SIGMA))

    def fail(error: Exception) -> Callable[..., Any]:
        def raises(*_: Any) -> Any:
            raise error

        return raises

    monkeypatch.setattr("stream.priority.Inputs", fail(ZeroDivisionError()))
    with caplog.at_level(logging.ERROR, "noctule"):
        for _ in range(3):
            chosen, scored = lookout.find(real_packets, version)
            assert chosen.size == 0
            assert scored is None
    (line,) = caplog.records
    assert line.exc_info is not None
    monkeypatch.setattr("stream.priority.Inputs", fail(UnavailableError("registry", "?")))
    with pytest.raises(UnavailableError):
        lookout.find(real_packets, version)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("none", None),
        ("young", Priority(2.0, None)),
        ("bright", Priority(None, 9.0)),
        ("young_and_bright", Priority(2.0, 9.0)),
    ],
)
def test_the_setting_says_who_is_urgent(name: str, given: Priority | None) -> None:
    settings = Settings(stream={"priority": name, "young_days": 2.0, "bright_sigma": 9.0})
    assert priority_of(settings) == given


# -- the stream ------------------------------------------------------------------------------------

URGENT = {"priority": "bright", "bright_sigma": 12.0, "behind_alerts": 15}
EVERYONE = {"nightly_budget": 1000, "min_entropy": 0.0, "min_points": 1}
SAID_WHEN = {"processed_ms", "run_id", "batch_id"}
SAID_WHERE = {"topic", "kafka_partition", "kafka_offset", "arrival_ms"}
"""Of an alert that came twice either may be found first, in which the other is the duplicate."""


def told(night: Night, table: sa.Table, but: set[str] = SAID_WHEN) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in but} for row in night.rows(table)
    ]


def counted(night: Night) -> Counter[tuple[str, int, str]]:
    """What came of all alerts; whoever looks ahead reads them in other batches."""
    out: Counter[tuple[str, int, str]] = Counter()
    for row in night.rows(accounting):
        for name in ("n_read", "n_rejected"):
            out[row["topic"], row["kafka_partition"], name] += row[name]
        for name in ("n_classified", "n_not_evaluated", "n_duplicate"):
            out["", -1, name] += row[name]
    return out


def test_in_the_end_all_is_as_if_nobody_had_looked(
    make: Callable[..., Night], real_packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.source, "LOOK", 40)
    night = make(stream={"max_alerts_per_batch": 12, **URGENT}, learning=EVERYONE)
    topics = night.settings.kafka.alert_topics
    expected = send(night.settings, mixed(real_packets, 150, topics, seed=3))
    reports: list[BatchReport] = []
    night.run(reports=reports)
    early = sum(report.counts.n_early for report in reports)
    assert early > 10
    assert sum(report.early_latency_s.size for report in reports) >= early
    assert sum(report.stages_s["look"] for report in reports) > 0
    assert differences(night.settings, expected) == []
    settings = Settings(
        state=night.settings.state.with_name("plain"),
        kafka=night.settings.kafka.model_dump(),
        stream={"max_alerts_per_batch": 12, "priority": "none"},
        learning=EVERYONE,
    )
    plain = Night(settings, night.spark, night.models)
    plain.run()
    for table in (objects, rejected):
        assert told(night, table) == told(plain, table), table.name
    either = SAID_WHEN | SAID_WHERE
    assert told(night, classifications, either) == told(plain, classifications, either)
    repeated = [Counter(row["dia_source_id"] for row in n.rows(duplicates)) for n in (night, plain)]
    assert repeated[0] == repeated[1]
    assert counted(night) == counted(plain)
    asked = [{row["object_id"] for row in n.rows(label_requests)} for n in (night, plain)]
    assert asked[0] == asked[1] != set()


def test_the_urgent_are_there_before_their_turn_and_the_audit_closes_all_the_while(
    make: Callable[..., Night], real_packets: list[bytes]
) -> None:
    night = make(stream={"max_alerts_per_batch": 10 * LOOKING, **URGENT})
    night.publish([with_id(p, k) for k, p in enumerate([*real_packets, *real_packets], 1)])
    plain_stream(night.settings, lambda _done: None, batches=1)
    rows = night.rows(classifications)
    done = {(row["kafka_partition"], row["end_offset"]) for row in night.rows(accounting)}
    ends = dict(done)
    early = [row for row in rows if row["kafka_offset"] >= ends[row["kafka_partition"]]]
    assert len(rows) - len(early) == 10
    assert len(early) > 10
    assert all(abs(row["flux_njy"]) / row["sigma_njy"] > 11.9 for row in early)
    assert [part.problems for part in audited(night.settings, night.engine)] == [()] * 2
    assert sum(part.n_waiting or 0 for part in night.audit()) == 118
    assert night.delta().num_rows == 10
    plain_stream(night.settings, lambda _done: None)
    after = {row["dia_source_id"]: row for row in night.rows(classifications)}
    assert len(after) == 128
    for row in early:  # what was said stays, when it was said included
        now = after[row["dia_source_id"]]
        assert {**now, "batch_id": row["batch_id"]} == row
    n_alerts = Counter(row["object_id"] for row in after.values() if row["object_id"])
    assert {row["object_id"]: row["n_alerts"] for row in night.rows(objects)} == n_alerts
    assert night.delta().num_rows == 128
