"""What the job tells of a batch adds up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.wiring import job_config
from store.tables import rejected
from stream.job import start
from stream.report import BatchReport
from stream.stages import DRIVER_STAGES, WORKER_STAGES, Stages
from tests.stream.conftest import Night


def test_every_stage_of_a_night_is_told(
    make: Callable[..., Night], real_packets: list[bytes]
) -> None:
    night = make(stream={"max_alerts_per_batch": 20})
    bad = [packet[:500] for packet in real_packets[:3]]
    night.publish([*real_packets[:25], *bad], partition=0)
    night.publish(real_packets[25:], partition=1)
    reports: list[BatchReport] = []
    config = job_config(night.settings)
    start(night.spark, config, once=True, on_batch=reports.append).awaitTermination()

    assert [report.batch_id for report in reports] == list(range(len(reports)))
    assert len(reports) > 1
    assert sum(report.counts.n_read for report in reports) == len(real_packets) + 3
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


def test_shares_of_a_stage_add_up() -> None:
    whole, parts = Stages(), Stages()
    whole.add({"decode": 3.0, "score": 1.0})
    for share in (0.25, 0.5, 0.25):
        parts.add(whole.seconds, share)
    assert parts.seconds == pytest.approx(whole.seconds)
