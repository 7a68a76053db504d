"""What the job tells of a batch adds up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.setting import with_id
from deploy.wiring import job_config
from store.tables import duplicates, label_requests, rejected
from stream.job import start
from stream.report import BatchReport
from stream.stages import DRIVER_STAGES, WORKER_STAGES, Stages
from tests.stream.conftest import Night


def test_every_stage_of_a_night_is_told(
    make: Callable[..., Night], real_packets: list[bytes]
) -> None:
    night = make(stream={"max_alerts_per_batch": 20}, learning={"min_entropy": 0.0})
    bad = [packet[:500] for packet in real_packets[:3]]
    night.publish([*real_packets[:25], *bad], partition=0)
    night.publish(real_packets[25:], partition=1)
    night.publish([with_id(real_packets[30], 7), with_id(real_packets[31], 7)], partition=1)
    reports: list[BatchReport] = []
    config = job_config(night.settings)
    start(night.spark, config, once=True, on_batch=reports.append).awaitTermination()

    assert [report.batch_id for report in reports] == list(range(len(reports)))
    assert len(reports) > 1
    assert sum(report.counts.n_read for report in reports) == len(real_packets) + 5
    for report in reports:
        assert set(report.stages_s) == {*WORKER_STAGES, *DRIVER_STAGES}
        assert min(report.stages_s.values()) >= 0.0
        assert sum(report.stages_s[name] for name in DRIVER_STAGES) <= report.total_s
        assert report.latency_s.size == report.counts.n_read - report.counts.n_rejected
        assert (report.latency_s >= 0.0).all()
        assert report.model_version == night.models[0].name
        assert len(report.rejected) == report.counts.n_rejected
    # Work that was done ahead is charged to the batch that took it: none of it twice, none to nobody.
    assert all(report.stages_s["decode"] > 0.0 for report in reports if report.counts.n_read)
    told = {tuple(refused) for report in reports for refused in report.rejected}
    assert told == {
        (row["topic"], row["kafka_partition"], row["kafka_offset"], row["reason"])
        for row in night.rows(rejected)
    }
    asked = {request.dia_source_id for report in reports for request in report.requested}
    assert asked == {row["dia_source_id"] for row in night.rows(label_requests)} != set()
    (differing,) = [repeat for report in reports for repeat in report.differing]
    (row,) = [row for row in night.rows(duplicates) if row["differs"]]
    assert differing == ("lsst", 7, row["topic"], 1, row["kafka_offset"], row["differs"])


def test_shares_of_a_stage_add_up() -> None:
    whole, parts = Stages(), Stages()
    whole.add({"decode": 3.0, "score": 1.0})
    for share in (0.25, 0.5, 0.25):
        parts.add(whole.seconds, share)
    assert parts.seconds == pytest.approx(whole.seconds)
