"""What the log says of a batch."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.commit import BatchCounts
from stream.journal import REST, explain, fields_of, log_batch, slowest, spent
from stream.report import Differing, Refused, Requested
from stream.stages import DRIVER_STAGES, WORKER_STAGES
from tests.stream.reports import STAGES_S, report

PASSED = ("look", "wait", "write", *DRIVER_STAGES)
stages_s = st.fixed_dictionaries(
    {stage: st.floats(0, 100) for stage in (*WORKER_STAGES, *DRIVER_STAGES)}
)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@given(stages_s, st.floats(0, 1_000))
def test_the_stage_named_took_longest_of_those_that_made_the_batch_long(
    stages: dict[str, float], total_s: float
) -> None:
    told = report(stages_s=stages, total_s=total_s)
    name, found = slowest(told), spent(told)
    assert set(found) == {*stages, REST}
    if name in {"decode", "features", "score", "rows"}:
        assert found["wait"] == max(found[stage] for stage in (*PASSED, REST))
    else:
        assert found[name] == max(found[stage] for stage in (*PASSED, REST))
    assert f"longest in {name}, " in explain(told)


@pytest.mark.parametrize("stage", PASSED)
def test_the_time_is_always_explained(stage: str) -> None:
    told = report(stages_s={**STAGES_S, stage: 9.8}, total_s=12.0)
    assert slowest(told) == stage
    said = explain(told)
    assert said.startswith(f"batch 12 took 12.0 s for 10 alerts, longest in {stage}, 9.8 s: ")
    assert all(f"{name} " in said for name in (*STAGES_S, REST))


def test_threads_are_named_where_they_were_busy_all_the_while() -> None:
    stages = {"wait": 8.0, "decode": 2.0, "features": 11.0, "score": 3.0}
    assert slowest(report(stages_s=stages, total_s=9.0)) == "features"
    assert slowest(report(stages_s={**stages, "features": 0.5}, total_s=9.0)) == "wait"


def test_only_a_slow_batch_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "noctule"):
        log_batch(report(total_s=9.0), slow_batch_s=10.0)
        log_batch(report(total_s=11.0), slow_batch_s=10.0)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING"]
    assert "longest in" in lines(caplog)[-1]


def test_every_line_has_the_ids_and_rejected_packets_their_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rejected = tuple(Refused("alerts", 3, at, "truncated") for at in (70, 71))
    counts = BatchCounts(n_read=9, n_rejected=5, n_lost=4)
    with caplog.at_level(logging.INFO, "noctule"):
        log_batch(report(counts=counts, rejected=rejected, total_s=99.0), slow_batch_s=10.0)
    known = [vars(record) for record in caplog.records]
    assert {(k["run_id"], k["batch_id"], k["model_version"]) for k in known} == {
        ("r1", 12, "20260310-5c1e7a")
    }
    assert [k["offset"] for k in known if "offset" in k] == [70, 71]
    assert "batch 12: rejected alerts[3] offset 70: truncated" in lines(caplog)
    assert "batch 12: and 3 more: see the table rejected" in lines(caplog)
    assert "batch 12: Kafka had removed 4 offsets before they were read" in lines(caplog)


def test_alerts_that_matter_to_somebody_are_named(caplog: pytest.LogCaptureFixture) -> None:
    told = report(
        counts=BatchCounts(n_read=9, n_early=3),
        requested=(Requested("lsst", 7, 70),),
        differing=(Differing("lsst", 80, "alerts", 3, 12, "flux_njy, band"),),
    )
    with caplog.at_level(logging.INFO, "noctule"):
        log_batch(told, slow_batch_s=10.0)
    assert lines(caplog)[1:] == [
        "batch 12: many alerts wait, so 3 urgent ones were scored before their turn",
        "batch 12: a spectrum of object 7 is wanted, for alert 70",
        "batch 12: alert 80 came again, at alerts[3] offset 12, with another flux_njy, band",
    ]
    fields = [vars(record) for record in caplog.records]
    assert [k.get("dia_source_id") for k in fields] == [None, None, 70, 80]
    assert all(k["batch_id"] == 12 for k in fields)


def test_a_replay_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "noctule"):
        log_batch(report(counts=BatchCounts(replay=True)), slow_batch_s=10.0)
    assert lines(caplog) == ["batch 12: committed before, nothing written twice"]
    assert fields_of(report())["latency_max_s"] == 2.0
