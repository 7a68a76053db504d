"""A backfill reads what no stream has read, once, and leaves what was said as it is."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.setting import with_id
from deploy.again import _plan, _run_plan
from deploy.wiring import job_config
from lightcurves.alerts import read_alerts
from lightcurves.errors import ConfigurationError
from models.scoring import load_model
from store.tables import accounting, classifications, duplicates, label_requests, objects, rejected
from stream.backfill import DONE_FILE, Plan, backfill_folder, unread
from stream.job import run_id_of, sole_user, start
from stream.rescore import Gone, Times
from tests.stream.conftest import Night
from tests.stream.test_rescore import STAMPS, environment, remove, send

ALL = Times()
SAID = (classifications, duplicates, rejected, label_requests)
ranges = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 10)).map(lambda r: (r[0], r[0] + r[1])), max_size=8
)


@given(done=ranges, start=st.integers(0, 40), length=st.integers(0, 20))
def test_unread_is_the_range_less_all_that_is_done(
    done: list[tuple[int, int]], start: int, length: int
) -> None:
    holes = unread(done, start, start + length)
    left = set(range(start, start + length)) - {k for low, high in done for k in range(low, high)}
    assert [k for low, high in holes for k in range(low, high)] == sorted(left)
    assert all(high < low for (_, high), (low, _) in itertools.pairwise(holes))


def backfill(night: Night, model: Path, times: Times = ALL) -> tuple[Plan, list[str]]:
    """Do what ``noctule backfill`` does, within the session that tests share."""
    folder = backfill_folder(night.settings.state / "backfills", (times, model.name))
    plan = _plan(night.settings, night.engine, folder, model.name, times)
    run_ids = _run_plan(night.spark, night.settings, folder, plan, lambda _done, _total: None)
    (folder / DONE_FILE).touch()
    return plan, run_ids


def read(night: Night, name: str, offsets: dict[int, tuple[int, int]]) -> None:
    """Let a stream read these offsets of each partition, and nothing else."""
    checkpoint = night.settings.stream.checkpoint.with_name(name)
    worker = replace(job_config(night.settings).worker, run_id=run_id_of(checkpoint))
    named = {f"{night.topic}:{partition}": bounds for partition, bounds in offsets.items()}
    night.run(checkpoint=checkpoint, worker=worker, offsets=named)


def said(night: Night) -> list[list[dict[str, Any]]]:
    return [night.rows(table) for table in SAID]


def keys(rows: Iterable[dict[str, Any]]) -> set[tuple[int, int]]:
    return {(row["kafka_partition"], row["kafka_offset"]) for row in rows}


def closes(night: Night) -> None:
    """Every offset of the topic is in one table, and every run's books are right."""
    assert [part for part in night.audit() if part.problems] == []
    on_disk = night.delta().select(["run_id", "topic", "kafka_partition", "kafka_offset"])
    assert on_disk.group_by(on_disk.column_names).aggregate([]).num_rows == on_disk.num_rows


def test_what_came_before_a_stream_that_started_at_the_end_is_read_once(
    night: Night, trained_models: list[Path], real_packets: list[bytes]
) -> None:
    other = trained_models[1]
    for partition in (0, 1):
        send(night, [*real_packets[partition:20:2], b"\0 no alert"], STAMPS[0], partition)
    config = replace(job_config(night.settings), starting="latest", trigger_s=0.0)
    query = start(night.spark, config)
    try:
        while "Waiting" not in query.status["message"]:
            assert query.isActive, query.exception()
            time.sleep(0.05)
        send(night, [*real_packets[20:30], real_packets[0]], STAMPS[1], 0)
        while len(night.rows(classifications)) < 11:
            assert query.isActive, query.exception()
            time.sleep(0.05)
    finally:
        query.stop()
    before = said(night)

    plan, run_ids = backfill(night, other)
    assert plan.gone == []
    assert plan.n_waiting == 0
    # Nobody has read partition 1, so nobody is in front of it.
    assert plan.passes == [{f"{night.topic}:0": (0, 11), f"{night.topic}:1": (0, 11)}]
    rows = night.rows(classifications)
    assert [row for row in rows if row["run_id"] not in run_ids] == before[0]
    assert night.rows(label_requests) == before[3]
    filled = {row["dia_source_id"]: row for row in rows if row["run_id"] in run_ids}
    plain = load_model(other).score(read_alerts(real_packets[1:20])).to_pylist()
    assert len(filled) == 19
    assert {row["dia_source_id"] for row in plain} == set(filled)
    for expected in plain:
        row = filled[expected["dia_source_id"]]
        for name in ("model_version", "entropy", "novelty", "prediction_set", "reason"):
            assert row[name] == expected[name], name
    assert keys(night.rows(duplicates)) == {(0, 0)}  # the stream had the same alert, later
    assert keys(night.rows(rejected)) == {(0, 10), (1, 10)}
    assert len(night.rows(objects)) == len({row["object_id"] for row in rows} - {None})
    closes(night)

    again = said(night)
    assert backfill(night, other)[0].passes == []
    assert said(night) == again


def test_only_the_time_range_is_read_and_what_waits_is_left_to_the_stream(
    night: Night, trained_models: list[Path], real_packets: list[bytes]
) -> None:
    for stamp_ms, at in zip(STAMPS, (0, 10, 20), strict=True):
        send(night, real_packets[at : at + 10], stamp_ms, 0)
    read(night, "holes", {0: (12, 14)})
    read(night, "more", {0: (22, 25)})
    plan, _ = backfill(night, trained_models[0], Times(STAMPS[1], STAMPS[2]))
    assert plan.passes == [{f"{night.topic}:0": (10, 12)}, {f"{night.topic}:0": (14, 20)}]
    assert plan.n_waiting == 0
    assert keys(night.rows(classifications)) == {(0, k) for k in (*range(10, 20), 22, 23, 24)}
    plan, run_ids = backfill(night, trained_models[0], Times(STAMPS[1], None))
    assert plan.passes == [{f"{night.topic}:0": (20, 22)}]
    assert plan.n_waiting == 5
    assert len(run_ids) == 1
    closes(night)


def test_what_another_run_has_said_of_an_offset_stays(
    night: Night, trained_models: list[Path], real_packets: list[bytes]
) -> None:
    """As when a stream reads between the plan of a backfill and its batch."""
    night.publish([*real_packets[:10], b"\0 no alert", real_packets[3]], partition=0)
    night.run(max_alerts=5)
    night.publish(real_packets[10:14], partition=0)
    before = said(night)
    checkpoint = night.settings.stream.checkpoint.with_name("filled")
    worker = replace(job_config(night.settings).worker, run_id=run_id_of(checkpoint))
    night.run(
        checkpoint=checkpoint,
        worker=worker,
        offsets={f"{night.topic}:0": (2, 16)},
        version=trained_models[1].name,
    )
    rows = night.rows(classifications)
    assert [row for row in rows if row["run_id"] != worker.run_id] == before[0]
    assert len(rows) == 14
    assert said(night)[1:3] == before[1:3]
    books = [row for row in night.rows(accounting) if row["run_id"] == worker.run_id]
    assert [(row["n_read"], row["n_duplicate"]) for row in books] == [(14, 10)]
    closes(night)


def test_what_is_gone_is_told_and_the_rest_is_read(
    night: Night, trained_models: list[Path], real_packets: list[bytes]
) -> None:
    send(night, real_packets[:10], STAMPS[0], 0)
    read(night, "live", {0: (3, 5)})
    remove(night, 0, 7)
    plan, _ = backfill(night, trained_models[0], Times(STAMPS[0], None))
    assert plan.gone == [Gone(night.topic, 0, 0, 3), Gone(night.topic, 0, 5, 7)]
    assert plan.n_waiting == 3
    assert keys(night.rows(classifications)) == {(0, 3), (0, 4)}


def command(night: Night, *arguments: str) -> subprocess.Popen[str]:
    extra = {"NOCTULE_STREAM__MAX_ALERTS_PER_BATCH": "15"}
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "backfill", *arguments],
        env=environment(night) | topics(night) | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def topics(night: Night) -> dict[str, str]:
    kafka = night.settings.kafka
    names = ("classified_topic", "novel_topic", "requests_topic", "rejected_topic")
    return {f"NOCTULE_KAFKA__{name.upper()}": getattr(kafka, name) for name in names}


@pytest.mark.timeout(400)
def test_killed_and_started_again_it_goes_on_by_its_plan(
    night: Night, trained_models: list[Path], real_packets: list[bytes]
) -> None:
    small = sorted(real_packets, key=len)[:12]
    packets = [with_id(small[k % 12], 10**17 + k) for k in range(120)]
    for partition in (0, 1):
        night.publish(packets[partition::2], partition=partition)
    process = command(night, "--model", "champion")
    try:
        while not night.rows(accounting):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    n = len(night.rows(classifications))
    night.promote(trained_models[1])  # what it began with, it ends with
    process = command(night, "--model", "champion")
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "120 offsets had been read by no stream" in text
    assert "closes" in text
    rows = night.rows(classifications)
    assert 0 < n < len(rows) == 120
    assert {row["model_version"] for row in rows} == {trained_models[0].name}
    assert len({row["run_id"] for row in rows}) == 1
    assert night.delta().num_rows == 120
    closes(night)
    assert backfill(night, trained_models[1])[0].passes == []


def test_the_same_backfill_twice_at_once_is_refused(night: Night) -> None:
    folder = backfill_folder(night.settings.state / "backfills", ("a", 1))
    with (
        sole_user(folder),
        pytest.raises(ConfigurationError, match="another"),
        sole_user(folder),
    ):
        pass
    (folder / DONE_FILE).touch()
    assert backfill_folder(night.settings.state / "backfills", ("a", 1)) != folder
    assert backfill_folder(night.settings.state / "backfills", ("b", 1)) != folder
