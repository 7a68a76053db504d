"""Scored again: the same bits for the same version, beside the stream, killed or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from pyspark.sql import SparkSession

import stream.rescore
from benchmarks.setting import with_id
from deploy.again import moment, outcome_lines, run_rescore, times_of
from deploy.kafka import EmbeddedKafka
from deploy.places import delta_folder, rescored_folder
from deploy.settings import environment_name
from deploy.wiring import job_config, kafka_client, scorer_config
from lightcurves.alerts import read_alerts
from lightcurves.errors import ConfigurationError
from models.scoring import load_model
from store.clock import now_ms
from store.maintenance import Retention, maintain
from store.rescored import RescoredTable
from store.tables import classifications, duplicates, rejected
from stream.job import start
from stream.rescore import (
    Gone,
    KafkaPlace,
    Outcome,
    Rescoring,
    Times,
    rescore_kafka,
    rescored_schema,
)
from stream.rows import SCORE_COLUMNS
from stream.scoring import Scorer
from stream.topic import publish
from tests.stream.conftest import Night, make_night

ALL = Times()
STAMPS = tuple(now_ms() - 3_600_000 + 100_000 * k for k in range(3))
"""When the three thirds of the real packets arrived: not so long ago that Kafka lets them go."""
SAME = (*SCORE_COLUMNS, "topic", "kafka_partition", "kafka_offset", "arrival_ms")
Rows = dict[int, dict[str, Any]]


def by_id(table: pa.Table) -> Rows:
    """Rows by alert, for comparison: NaN as text, since it is not equal to itself."""
    rows = table.select(SAME).to_pylist()
    assert len({row["dia_source_id"] for row in rows}) == len(rows), "an alert has two rows"
    return {row["dia_source_id"]: {name: told(row[name]) for name in SAME} for row in rows}


def told(value: Any) -> Any:
    if isinstance(value, list):
        return [told(one) for one in value]
    return value.hex() if isinstance(value, float) else value


def rescored(night: Night, version: str) -> pa.Table:
    table = DeltaTable(str(rescored_folder(night.settings))).to_pyarrow_table()
    return table.filter(pc.equal(table["model_version"], version))


def rescore(night: Night, model: Path, times: Times = ALL, **options: Any) -> Outcome:
    outcome = run_rescore(night.settings, model.name, times, **{"source": "delta", **options})
    parts = (outcome.n_scored, outcome.not_evaluated.total(), outcome.n_present, outcome.n_repeated)
    assert outcome.n_read == sum(parts) + outcome.rejected.total()
    return outcome


def clear(night: Night) -> None:
    """Forget what was scored again."""
    folder = rescored_folder(night.settings)
    if folder.exists():
        DeltaTable(str(folder)).delete()


def send(night: Night, packets: list[bytes], stamp_ms: int, partition: int) -> None:
    servers = str(night.settings.kafka.bootstrap_servers)
    publish(
        iter(packets),
        bootstrap_servers=servers,
        topic=night.topic,
        partition=partition,
        timestamp_ms=stamp_ms,
    )


@pytest.fixture(scope="module")
def played(
    kafka: EmbeddedKafka,
    spark: SparkSession,
    trained_models: list[Path],
    real_packets: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Night:
    """All real packets and some bad ones, at three times; no test changes what came of them."""
    made = make_night(kafka, spark, trained_models, tmp_path_factory.mktemp("again"))
    for k, stamp_ms in enumerate(STAMPS):
        third = real_packets[k::3]
        for partition in (0, 1):
            send(made, [*third[partition::2], b"\0 no alert"], stamp_ms, partition)
    send(made, real_packets[:4], STAMPS[2], 1)  # repeats
    made.run(max_alerts=30)
    assert len(made.rows(classifications)) == len(real_packets)
    assert len(made.rows(duplicates)) == 4
    return made


@pytest.fixture
def night_again(played: Night) -> Iterator[Night]:
    """The night, and a proof that what the stream said stayed."""
    before = [played.rows(table) for table in (classifications, duplicates, rejected)]
    n_delta = played.delta().num_rows
    yield played
    assert [played.rows(table) for table in (classifications, duplicates, rejected)] == before
    assert played.delta().num_rows == n_delta
    clear(played)


def live(night: Night) -> Rows:
    """What the live table says of each alert, where it counts."""
    counting = {
        (row["topic"], row["kafka_partition"], row["kafka_offset"])
        for row in night.rows(classifications)
    }
    table = night.delta()
    names = ("topic", "kafka_partition", "kafka_offset")
    where = zip(*(table[name].to_pylist() for name in names), strict=True)
    return by_id(table.filter(pa.array([place in counting for place in where])))


@pytest.mark.parametrize(
    "options", [{"source": "delta"}, {"source": "delta", "recompute": True}, {"source": "kafka"}]
)
def test_the_same_version_gives_the_same_bits(
    night_again: Night, trained_models: list[Path], options: dict[str, Any]
) -> None:
    version = trained_models[0]
    outcome = rescore(night_again, version, **options)
    assert by_id(rescored(night_again, version.name)) == live(night_again)
    assert outcome.n_repeated == 4
    assert sum(outcome.rejected.values()) == (6 if options["source"] == "kafka" else 0)
    assert outcome.gone == []
    assert outcome.not_evaluated.keys() == {"solar_system_object"}


@pytest.mark.parametrize("source", ["delta", "kafka"])
def test_another_version_says_what_the_model_says_in_a_plain_loop(
    night_again: Night, trained_models: list[Path], real_packets: list[bytes], source: str
) -> None:
    model = load_model(trained_models[1])
    rescore(night_again, trained_models[1], source=source)
    rows = {
        row["dia_source_id"]: row
        for row in rescored(night_again, model.manifest.model_version).to_pylist()
    }
    plain = model.score(read_alerts(real_packets)).to_pylist()
    assert len(rows) == len(plain)
    for expected in plain:
        row = rows[expected["dia_source_id"]]
        for name in (
            "prediction_set",
            "entropy",
            "margin",
            "novelty",
            "novelty_far",
            "reason",
            "feature_digest",
        ):
            assert row[name] == expected[name], name
        p = [expected[f"p_{class_id}"] for class_id in model.manifest.class_ids]
        assert row["probabilities"] == (None if expected["reason"] else p)


def test_versions_stand_beside_each_other_and_a_repeat_adds_nothing(
    night_again: Night, trained_models: list[Path]
) -> None:
    n = len(night_again.rows(classifications))
    for model in trained_models:
        first = rescore(night_again, model)
        assert first.n_scored + first.not_evaluated.total() == n
        for options in ({"source": "delta"}, {"source": "kafka"}, {"recompute": True}):
            again = rescore(night_again, model, **options)
            assert again.n_present == n
            assert again.n_scored == again.not_evaluated.total() == 0
    whole = DeltaTable(str(rescored_folder(night_again.settings))).to_pyarrow_table()
    assert whole.num_rows == 2 * n
    assert (
        whole.select(["dia_source_id", "model_version"])
        .group_by(["dia_source_id", "model_version"])
        .aggregate([])
        .num_rows
        == 2 * n
    )


@pytest.mark.parametrize("source", ["delta", "kafka"])
def test_ranges_are_half_open_and_put_together_give_the_whole(
    night_again: Night, trained_models: list[Path], source: str
) -> None:
    """The bounds lie on stamps, and a millisecond beside them."""
    version = trained_models[0]
    arrived = {row["dia_source_id"]: row["arrival_ms"] for row in night_again.rows(classifications)}
    first, middle, last = STAMPS
    for since, until in (
        (first, middle),
        (middle, last),
        (middle + 1, last + 1),
        (None, first),
        (last, None),
    ):
        clear(night_again)
        rescore(night_again, version, Times(since, until), source=source)
        expected = {
            key
            for key, t in arrived.items()
            if (since is None or t >= since) and (until is None or t < until)
        }
        assert set(rescored(night_again, version.name)["dia_source_id"].to_pylist()) == expected
    clear(night_again)
    for since, until in ((None, middle), (middle, last), (last, None)):
        rescore(night_again, version, Times(since, until), source=source)
    assert by_id(rescored(night_again, version.name)) == live(night_again)


def test_ranges_of_observation_times(night_again: Night, trained_models: list[Path]) -> None:
    version = trained_models[0]
    observed = {row["dia_source_id"]: row["t_mjd_tai"] for row in night_again.rows(classifications)}
    bound = sorted(observed.values())[len(observed) // 2]
    rescore(night_again, version, times_of(str(bound), None, "observation"))
    rows = rescored(night_again, version.name)
    assert set(rows["dia_source_id"].to_pylist()) == {
        key for key, t in observed.items() if t >= bound
    }
    with pytest.raises(ConfigurationError, match="--from delta"):
        rescore(night_again, version, Times(bound, None, "observation"), source="kafka")


def test_a_file_holds_the_same_and_nothing_else_is_written(
    night_again: Night, trained_models: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "scores.parquet"
    rescore(night_again, trained_models[0], out=out)
    assert by_id(pq.read_table(out)) == live(night_again)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_any_chunks_give_the_same(
    night_again: Night, trained_models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = trained_models[0]
    for chunk, source in ((5, "delta"), (7, "kafka")):
        clear(night_again)
        monkeypatch.setattr(stream.rescore, "CHUNK", chunk)
        rescore(night_again, version, source=source)
        assert by_id(rescored(night_again, version.name)) == live(night_again)


def test_repeats_in_one_chunk_count_once_though_the_stream_never_saw_them(
    night: Night, trained_models: list[Path], real_packets: list[bytes], tmp_path: Path
) -> None:
    night.publish([*real_packets[:9], *real_packets[:9]], partition=0)
    for out in (None, tmp_path / "scores.parquet"):
        outcome = rescore(night, trained_models[0], source="kafka", out=out)
        assert (outcome.n_read, outcome.n_repeated) == (18, 9)
    with pytest.raises(ConfigurationError, match="--from kafka"):
        rescore(night, trained_models[0])


# -- killed, and not alone -------------------------------------------------------------------------

COMMAND = """
import time
import stream.rescore, store.rescored
from deploy.cli import main
stream.rescore.CHUNK = 6
add = store.rescored.RescoredTable.add
def slowly(self, rows):
    time.sleep({pause_s})
    return add(self, rows)
store.rescored.RescoredTable.add = slowly
main()
"""


def environment(night: Night) -> dict[str, str]:
    kafka = night.settings.kafka
    given = {
        "state": str(night.settings.state),
        "kafka.bootstrap_servers": str(kafka.bootstrap_servers),
        "kafka.alert_topics": night.topic,
    }
    return {**os.environ, **{environment_name(key): value for key, value in given.items()}}


def command(night: Night, *arguments: str, pause_s: float = 0.0) -> subprocess.Popen[str]:
    """Run ``noctule rescore`` in a process of its own, six alerts at a time."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(pause_s=pause_s), "rescore", *arguments],
        env=environment(night),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def n_commits(night: Night) -> int:
    return len(list((rescored_folder(night.settings) / "_delta_log").glob("*.json")))


@pytest.mark.parametrize("source", ["delta", "kafka"])
def test_killed_and_started_again_there_is_no_double_row(
    night_again: Night, trained_models: list[Path], source: str
) -> None:
    version = trained_models[0]
    rescore(night_again, version, Times(None, 0))  # so that the table is there
    before = n_commits(night_again)
    process = command(night_again, "--model", "champion", "--from", source, pause_s=0.2)
    try:
        while n_commits(night_again) < before + 3:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    n = rescored(night_again, version.name).num_rows
    outcome = rescore(night_again, version, source=source)
    assert outcome.n_present == n > 0
    assert outcome.n_scored > 0
    assert by_id(rescored(night_again, version.name)) == live(night_again)


def test_two_at_once_add_every_alert_once(night_again: Night, trained_models: list[Path]) -> None:
    version = trained_models[1]
    rescore(night_again, version, Times(None, 0))
    both = [
        command(night_again, "--model", version.name, "--from", source)
        for source in ("delta", "kafka")
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert set(by_id(rescored(night_again, version.name))) == set(live(night_again))


def test_of_two_that_saw_the_same_table_one_adds(tmp_path: Path) -> None:
    texts = [(name, pa.string()) for name in ("model_version", "survey")]
    schema = pa.schema([("dia_source_id", pa.int64()), *texts])

    def rows(version: str, *ids: int) -> pa.Table:
        return pa.table([ids, *([text] * len(ids) for text in (version, "lsst"))], schema=schema)

    ids = np.array([1, 2, 3])
    one, other = (RescoredTable(tmp_path, schema, "a") for _ in range(2))
    third = RescoredTable(tmp_path, schema, "b")
    for target in (one, other, third):
        assert not target.present(ids).any()
    assert one.add(rows("a", 1, 2))
    assert not other.add(rows("a", 2, 3))
    assert third.add(rows("b", 2))
    assert other.present(ids).tolist() == [True, True, False]
    assert other.add(rows("a", 3))
    assert third.present(ids).tolist() == [False, True, False]


def test_beside_a_live_stream_neither_harms_the_other(
    night: Night, trained_models: list[Path], real_packets: list[bytes]
) -> None:
    small = sorted(real_packets, key=len)[:20]
    packets = [with_id(small[k % 20], 10**17 + k) for k in range(200)]
    night.publish(packets[:40])
    night.run()
    other = trained_models[1]
    query = start(night.spark, replace(job_config(night.settings), max_alerts=20, trigger_s=0.0))
    try:
        for at in range(40, 200, 20):
            night.publish(packets[at : at + 20])
            rescore(night, other, source="delta" if at % 40 else "kafka")
        deadline = time.monotonic() + 90
        while len(night.rows(classifications)) < 200:
            assert query.isActive, query.exception()
            assert time.monotonic() < deadline, "the stream did not read on"
            time.sleep(0.1)
    finally:
        query.stop()
    rescore(night, other)
    assert {row["model_version"] for row in night.rows(classifications)} == {trained_models[0].name}
    assert set(by_id(rescored(night, other.name))) == {10**17 + k for k in range(200)}
    assert all(part.problems == () for part in night.audit())
    rescore(night, trained_models[0], source="kafka")
    assert by_id(rescored(night, trained_models[0].name)) == live(night)


# -- what is no longer there -----------------------------------------------------------------------


def test_without_its_light_curve_an_alert_is_scored_from_its_features_or_says_why_not(
    make: Callable[..., Night], trained_models: list[Path], real_packets: list[bytes]
) -> None:
    night = make(learning={"nightly_budget": 0})
    night.publish([with_id(packet, 10**17 + k) for k, packet in enumerate(real_packets[:20] * 2)])
    night.run()
    expected = live(night)
    folder = delta_folder(night.settings)
    maintain(night.engine, folder, Retention(file_mb=1, light_curve_days=0.0))
    table = night.delta()
    emptied = table.filter(table["light_curve"].is_null())["dia_source_id"].to_pylist()
    assert 0 < len(emptied) < 40

    version = trained_models[0]
    for recompute in (False, True):
        clear(night)
        rescore(night, version, recompute=recompute)
        assert by_id(rescored(night, version.name)) == expected

    DeltaTable(str(folder)).update({"feature_digest": "'that of an older version'"})
    clear(night)
    outcome = rescore(night, version)
    rows = by_id(rescored(night, version.name))
    gone = {key for key in emptied if expected[key]["reason"] is None}
    assert gone
    assert outcome.not_evaluated["light_curve_not_kept"] == len(gone)
    for key, row in rows.items():
        if key in gone:
            assert (row["reason"], row["probabilities"]) == ("light_curve_not_kept", None)
        else:
            assert row == expected[key]


def remove(night: Night, partition: int, before: int) -> None:
    """Let Kafka forget a partition's messages, as its retention does."""
    admin = AdminClient({"bootstrap.servers": str(night.settings.kafka.bootstrap_servers)})
    for done in admin.delete_records([TopicPartition(night.topic, partition, before)]).values():
        done.result()


def test_what_kafka_no_longer_has_is_told_as_exactly_as_the_tables_know(
    night: Night, trained_models: list[Path], real_packets: list[bytes]
) -> None:
    version = trained_models[0]
    for stamp_ms, at in zip(STAMPS, (0, 5, 10), strict=True):
        send(night, real_packets[at : at + 5], stamp_ms, 0)
    remove(night, 0, 7)
    nobody_knows = rescore(night, version, Times(STAMPS[1], None), source="kafka")
    assert nobody_knows.gone == [Gone(night.topic, 0, 0, 7)]
    assert nobody_knows.n_read == 8
    assert rescore(night, version, source="kafka").gone == []  # all that there is, was asked for
    assert rescore(night, version, Times(STAMPS[2], None), source="kafka").gone == []

    known = night.afresh("known")
    send(known, real_packets[:5], STAMPS[0], 1)
    send(known, real_packets[15:20], STAMPS[1], 1)
    known.run()
    remove(known, 1, 7)
    told = rescore(known, version, Times(STAMPS[1], None), source="kafka")
    assert Gone(night.topic, 1, 5, 7) in told.gone
    assert any("offsets 5 to 6" in line for line in outcome_lines(told))

    since = datetime.fromtimestamp(STAMPS[1] // 1000, UTC).isoformat()
    process = command(known, "--model", "champion", "--from", "kafka", "--since", since)
    said, _ = process.communicate()
    assert process.returncode == 1, said
    assert "offsets 5 to 6" in said


def test_retention_that_overtakes_a_run_is_told(
    night: Night,
    trained_models: list[Path],
    real_packets: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night.publish(real_packets[:20], partition=0)
    monkeypatch.setattr(stream.rescore, "CHUNK", 4)
    target = RescoredTable(
        rescored_folder(night.settings), rescored_schema(), trained_models[0].name
    )

    def overtake(done: int, total: int) -> None:
        assert total == 20
        if done == 4:
            remove(night, 0, 13)

    scorer = Scorer(scorer_config(night.settings))
    rescoring = Rescoring(night.engine, scorer, trained_models[0].name, target, "a test", overtake)
    place = KafkaPlace((night.topic,), kafka_client(night.settings))
    outcome = rescore_kafka(rescoring, place, ALL)
    assert outcome.gone == [Gone(night.topic, 0, 4, 13)]
    assert outcome.n_read == 11
    offsets = rescored(night, trained_models[0].name)["kafka_offset"].to_pylist()
    assert sorted(offsets) == [*range(4), *range(13, 20)]


# -- what is asked ---------------------------------------------------------------------------------


def test_times_are_mjd_or_iso_and_anything_else_is_refused() -> None:
    assert moment("2026-01-01T00:00:00Z") == moment("2026-01-01T01:00:00+01:00")
    assert moment(str(61041 + 37 / 86400)) == moment("2026-01-01T00:00:00Z")
    assert moment("2026-01-01") == moment("2026-01-01T00:00:00")
    assert times_of("61041.123456789012", None, "observation").since == 61041.123456789012
    assert times_of("2026-01-01T00:00:00Z", None, "observation").since == 61041 + 37 / 86400
    for text in ("yesterday", "2026", "-1", "nan", "1e9"):
        with pytest.raises(ConfigurationError, match="no time"):
            moment(text)
    with pytest.raises(ConfigurationError, match="is not after"):
        times_of("61042", "61041", "arrival")
    with pytest.raises(ConfigurationError, match="--by"):
        times_of(None, None, "luck")


def test_a_model_that_is_not_there_is_refused_with_those_that_are(
    night_again: Night, trained_models: list[Path]
) -> None:
    with pytest.raises(ConfigurationError, match=trained_models[0].name):
        run_rescore(night_again.settings, "nobody", ALL, source="delta")
    with pytest.raises(ConfigurationError, match="--from"):
        run_rescore(night_again.settings, "champion", ALL, source="the sky")
