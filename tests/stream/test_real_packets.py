"""The 64 real packets through Kafka and Spark: each accounted for, equal to fastavro, repeatable."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from deploy.kafka import EmbeddedKafka
from deploy.wiring import scorer_config
from lightcurves.alerts import read_alerts
from lightcurves.schemas import package_schemas
from models.scoring import load_model
from store.tables import accounting, classifications, objects
from stream.rows import SCORE_SPARK_SCHEMA
from stream.scoring import Scorer
from tests.stream.conftest import Night, make_night

SCORES = ("class_id", "probability", "probabilities", "prediction_set", "entropy", "margin", "novelty",
          "novelty_far", "reason", "n_points", "days_since_first_detection", "model_version",
          "feature_digest")  # fmt: skip


def by_id(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {row["dia_source_id"]: row for row in rows}


@pytest.fixture(scope="session")
def records(real_packets: list[bytes]) -> list[dict[str, Any]]:
    schema = package_schemas().schema(1000)
    assert schema is not None
    read: Any = fastavro.schemaless_reader
    return [read(io.BytesIO(packet[5:]), schema, None) for packet in real_packets]


@pytest.fixture(scope="module")
def night(
    kafka: EmbeddedKafka,
    spark: SparkSession,
    trained_models: list[Path],
    real_packets: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Night:
    """All real packets, played once; no test changes what came of them."""
    made = make_night(kafka, spark, trained_models, tmp_path_factory.mktemp("real"))
    made.publish(real_packets)
    made.run()
    return made


def test_every_packet_is_a_row_that_equals_fastavro(
    night: Night, real_packets: list[bytes], records: list[dict[str, Any]]
) -> None:
    rows = by_id(night.rows(classifications))
    assert len(rows) == len(real_packets) == 64
    for record in records:
        row, source = rows[record["diaSourceId"]], record["diaSource"]
        assert row["object_id"] == (source["diaObjectId"] or None)
        assert row["ss_object_id"] == (source["ssObjectId"] or None)
        assert (row["t_mjd_tai"], row["band"]) == (source["midpointMjdTai"], source["band"])
        assert (row["ra_deg"], row["dec_deg"]) == (source["ra"], source["dec"])
        assert (row["flux_njy"], row["sigma_njy"]) == (source["psfFlux"], source["psfFluxErr"])
        scored = row["class_id"] is not None
        assert scored == (row["reason"] is None)
        if scored:
            assert sum(row["probabilities"].values()) == pytest.approx(1.0)
            assert row["class_id"] in row["prediction_set"]
        else:
            assert row["reason"] == "solar_system_object"
            assert row["novelty"] is row["entropy"] is row["probabilities"] is None
    curves = {r["dia_source_id"]: r["light_curve"] for r in night.delta().to_pylist()}
    expected = read_alerts(real_packets).to_pylist()
    assert curves == {row["dia_source_id"]: row["light_curve"] for row in expected}
    assert all(part.problems == () for part in night.audit())
    with_object = {r["diaSource"]["diaObjectId"] for r in records} - {0}
    assert {row["object_id"] for row in night.rows(objects)} == with_object


def test_the_old_checkpoint_adds_nothing(night: Night) -> None:
    tables = (classifications, objects, accounting)
    before = [night.rows(table) for table in tables]
    n_delta = night.delta().num_rows
    night.run()
    assert [night.rows(table) for table in tables] == before
    assert night.delta().num_rows == n_delta


def test_a_fresh_checkpoint_gives_the_same_bits(night: Night) -> None:
    again = night.afresh("again")
    again.run(max_alerts=10)  # other batches, too
    first, second = by_id(night.rows(classifications)), by_id(again.rows(classifications))
    assert first.keys() == second.keys()
    for key, row in first.items():
        assert {name: second[key][name] for name in SCORES} == {name: row[name] for name in SCORES}


def test_plain_loop_and_mapinarrow_and_stream_agree(
    night: Night, real_packets: list[bytes], trained_models: list[Path]
) -> None:
    streamed = by_id(night.rows(classifications))

    model = load_model(trained_models[0])
    plain = model.score(read_alerts(real_packets))
    frame = night.spark.createDataFrame([(packet,) for packet in real_packets], "packet binary")
    config, version = scorer_config(night.settings), trained_models[0].name
    scored = frame.mapInArrow(
        lambda batches: Scorer(config).score_arrow(batches, version), SCORE_SPARK_SCHEMA
    )
    mapped = by_id(scored.toArrow().to_pylist())

    assert plain.num_rows == len(streamed) == len(mapped)
    for row in plain.to_pylist():
        live, rescored = streamed[row["dia_source_id"]], mapped[row["dia_source_id"]]
        for name in ("prediction_set", "entropy", "margin", "novelty", "novelty_far", "reason"):
            assert live[name] == row[name] == rescored[name], name
        p = [row[f"p_{c}"] for c in model.manifest.class_ids]
        assert rescored["probabilities"] == (None if row["reason"] else p)
        if row["reason"] is None:
            assert list(live["probabilities"].values()) == p


def test_light_curves_on_disk_give_the_same_features(
    night: Night, trained_models: list[Path]
) -> None:
    table = night.delta()
    scores = load_model(trained_models[0]).score(table)
    scored = np.asarray(table["reason"].is_null())
    assert scored.any()
    assert (
        scores["entropy"].filter(pa.array(scored)).equals(table["entropy"].filter(pa.array(scored)))
    )
