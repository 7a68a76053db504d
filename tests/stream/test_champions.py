"""A model per survey: an alert is scored by its own survey's model or by none, whatever lies around it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from active_learning.learner import register
from deploy.again import _versions, run_rescore
from deploy.places import open_store, rescored_folder
from deploy.sections import Settings
from lightcurves.decode import packets_in_place
from lightcurves.errors import ConfigurationError
from models.artifact import read_manifest
from models.inputs import Inputs
from models.scoring import load_model
from store import registry
from store.tables import accounting, classifications
from stream.commit import BatchCounts
from stream.health import Monitor
from stream.lag import Lag
from stream.metrics import StreamMetrics
from stream.priority import Lookout, Priority
from stream.report import BatchReport
from stream.rescore import Times
from stream.scoring import Scored, Scorer, ScorerConfig, score_batch
from stream.versions import Versions
from tests.stream.conftest import Night, make_night
from tests.stream.running import running

GARBAGE = [b"", b"\0\0\0\0\1", b"\0\0\0\3\xe8 cut off"]
names = st.text("abcdefghij0123456789-_.", min_size=1, max_size=12)


# -- the text --------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(["lsst", "ztf", "winter", "another"]), names))
def test_what_is_written_is_read_and_equal_versions_have_one_text(given: dict[str, str]) -> None:
    text = str(Versions(given))
    assert Versions.parse(text) == Versions(given)
    assert text == str(Versions(dict(reversed(given.items()))))
    assert all(Versions.parse(text).of(survey) == version for survey, version in given.items())


@given(names)
def test_a_plain_version_is_lssts_alone(version: str) -> None:
    assert Versions.parse(version) == Versions({"lsst": version})
    assert str(Versions({"lsst": version})) == version


@pytest.mark.parametrize("text", ["a,b", "ztf=", "=a", "a,", "ztf=a,ztf=b", "lsst=a,b", ","])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="which model scores which survey"):
        Versions.parse(text)


def test_metrics_name_every_model_of_the_last_batch() -> None:
    metrics = StreamMetrics(Monitor(Lag({}, from_start=True), stalled_s=9.0), slow_batch_s=9.0)
    metrics.observe(BatchReport("run", 0, BatchCounts(), {}, 1.0, model_version="a,ztf=b"))
    family = next(m for m in metrics.collect() if m.name == "noctule_stream_model_info")
    assert {sample.labels["version"]: sample.value for sample in family.samples} == {"a": 1, "b": 1}


# -- scoring ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer(models_folder: Path, two_schemas: Path) -> Scorer:
    return Scorer(ScorerConfig(str(models_folder), "folder", str(two_schemas)))


@pytest.fixture(scope="module")
def both(trained_models: list[Path], ztf_model: Path) -> str:
    return f"{trained_models[0].name},ztf={ztf_model.name}"


@pytest.fixture(scope="module")
def packets(real_packets: list[bytes], ztf_packets: list[bytes]) -> list[bytes]:
    return [*real_packets[:20], *ztf_packets, *GARBAGE]


@pytest.fixture(scope="module")
def alone(scorer: Scorer, both: str, packets: list[bytes]) -> list[pa.Table]:
    return [table_of(scorer.score_packets([packet], both)) for packet in packets]


def table_of(scored: Scored) -> pa.Table:
    columns = {**scored.rows, "light_curve": scored.light_curves, "features": scored.features}
    return pa.table(dict(sorted(columns.items())))


def same(found: pa.Table, expected: pa.Table) -> None:
    assert found.schema.equals(expected.schema)
    for name in expected.column_names:
        assert found[name].to_pylist() == expected[name].to_pylist(), name


@given(data=st.data())
def test_whatever_lies_around_it_an_alert_gets_the_same_bits(
    data: st.DataObject, scorer: Scorer, both: str, packets: list[bytes], alone: list[pa.Table]
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(packets))), min_size=1, max_size=12))
    found = table_of(scorer.score_packets([packets[k] for k in chosen], both))
    same(found, pa.concat_tables([alone[k] for k in chosen]))


def test_each_survey_is_scored_by_its_own_model(
    scorer: Scorer,
    trained_models: list[Path],
    ztf_model: Path,
    packets: list[bytes],
    alone: list[pa.Table],
) -> None:
    alerts = scorer.decoder.decode(packets_in_place(packets))
    rows = pa.concat_tables(alone).to_pylist()
    n_scored = {"lsst": 0, "ztf": 0}
    for survey, folder in (("lsst", trained_models[0]), ("ztf", ztf_model)):
        model = load_model(folder)
        for k, expected in enumerate(model.score(alerts).to_pylist()):
            row = rows[k]
            if row["survey"] != survey:
                continue
            told = ("reason", "entropy", "novelty", "prediction_set", "model_version")
            assert {name: row[name] for name in told} == {name: expected[name] for name in told}
            if row["reason"] is None:
                p = [expected[f"p_{class_id}"] for class_id in model.manifest.class_ids]
                assert row["probabilities"] == p
                n_scored[survey] += 1
    assert min(n_scored.values()) > 10
    assert len({len(row["probabilities"] or ()) for row in rows} - {0}) == 2


def test_an_alert_of_a_survey_without_a_model_is_not_evaluated(
    scorer: Scorer,
    trained_models: list[Path],
    ztf_model: Path,
    packets: list[bytes],
    alone: list[pa.Table],
) -> None:
    scored = pa.concat_tables(alone).to_pylist()
    for version, survey in ((trained_models[0].name, "ztf"), (f"ztf={ztf_model.name}", "lsst")):
        rows = table_of(scorer.score_packets(packets, version)).to_pylist()
        for row, expected in zip(rows, scored, strict=True):
            if row["survey"] != survey:
                assert row == expected
                continue
            assert row["reason"] == "no_model_for_survey"
            assert row["model_version"] is row["feature_digest"] is row["probabilities"] is None
            assert set(row["features"].values()) == {None}
            kept = ("light_curve", "n_points", "days_since_first_detection", "flux_njy")
            assert {name: row[name] for name in kept} == {name: expected[name] for name in kept}


def test_a_batch_in_pieces_has_one_form_for_the_file_whatever_the_pieces_hold(
    scorer: Scorer, both: str, packets: list[bytes]
) -> None:
    """A model of one survey may read features that others do not."""
    models = scorer.models(both)
    ours = models["ztf"]
    more = replace(ours.manifest, features=(*ours.manifest.features, "period_days"))
    models["ztf"] = replace(ours, manifest=more)
    inputs = Inputs(*scorer.decoder.decode_both(packets_in_place(packets)))
    rows = np.arange(len(packets))
    whole = table_of(score_batch(inputs, models))
    for some in (rows[:20], rows[20:50], rows[50:], rows[15:25]):
        same(table_of(score_batch(inputs.take(some), models)), whole.take(pa.array(some)))
    period = {row["survey"]: row["features"]["period_days"] for row in whole.to_pylist()}
    assert period["lsst"] is None


def test_flat_light_curves_give_the_bits_of_the_column(
    scorer: Scorer, both: str, packets: list[bytes]
) -> None:
    decoded = scorer.decoder.decode_both(packets_in_place(packets))
    models = scorer.models(both)
    same(
        table_of(score_batch(Inputs(*decoded), models)),
        table_of(score_batch(Inputs(decoded.alerts), models)),
    )


def test_what_waits_is_urgent_where_its_survey_has_a_model(
    scorer: Scorer, both: str, packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.priority.SHARE", 1.0)
    lookout = Lookout(scorer, Priority(bright_sigma=3.0))
    whole = table_of(scorer.score_packets(packets, both))
    surveys = np.array(whole["survey"].to_pylist())
    chosen, scored = lookout.find(packets, both)
    assert {*surveys[chosen]} == {"lsst", "ztf"}
    assert scored is not None
    same(table_of(scored), whole.take(pa.array(chosen)))
    ours = both.partition(",")[0]
    assert lookout.find(packets, ours)[0].tolist() == chosen[surveys[chosen] == "lsst"].tolist()
    assert lookout.find(packets, "")[1] is None


# -- the stream ------------------------------------------------------------------------------------


@pytest.fixture
def night(
    request: pytest.FixtureRequest,
    trained_models: list[Path],
    ztf_model: Path,
    two_schemas: Path,
    tmp_path: Path,
) -> Night:
    """LSST has a champion, ZTF has none."""
    kafka, spark = (request.getfixturevalue(name) for name in ("kafka", "spark"))
    schemas = {"source": "folder", "folder": two_schemas}
    return make_night(kafka, spark, [*trained_models, ztf_model], tmp_path, schemas=schemas)


def scored_by(night: Night) -> dict[tuple[int, str], set[str | None]]:
    """Versions by batch and survey."""
    found: dict[tuple[int, str], set[str | None]] = {}
    for row in night.rows(classifications):
        found.setdefault((row["batch_id"], row["survey"]), set()).add(row["model_version"])
    return found


def planned(night: Night, batch: int) -> str:
    offsets = (night.settings.stream.checkpoint / "offsets" / str(batch)).read_text()
    return str(json.loads(offsets.splitlines()[-1])["model"])


@pytest.mark.kafka
@pytest.mark.spark
def test_a_champion_of_another_survey_scores_the_next_batch_of_a_running_stream(
    night: Night,
    trained_models: list[Path],
    ztf_model: Path,
    real_packets: list[bytes],
    ztf_packets: list[bytes],
) -> None:
    ours, other = trained_models[0].name, trained_models[1]
    night.publish([*real_packets[:6], *ztf_packets[:6]])
    with running(night) as stream:
        stream.until_classified(12)
        first = max(row["batch_id"] for row in night.rows(accounting))
        night.promote(ztf_model, "champion-ztf")
        night.publish([*real_packets[6:12], *ztf_packets[6:12]])
        stream.until_classified(24)
    texts = {row["batch_id"]: row["model_version"] for row in night.rows(accounting)}
    for (batch, survey), versions in scored_by(night).items():
        mine = {"lsst": ours, "ztf": None if batch <= first else ztf_model.name}[survey]
        assert versions == {mine}
        assert planned(night, batch) == (ours if batch <= first else f"{ours},ztf={ztf_model.name}")
        assert Versions.parse(texts[batch]).of(survey) in {mine, None}
    unscored = [r for r in night.rows(classifications) if r["reason"] == "no_model_for_survey"]
    assert len(unscored) == 6
    assert all(row["probabilities"] is row["feature_digest"] is None for row in unscored)
    curves = {r["dia_source_id"]: r["light_curve"] for r in night.delta().to_pylist()}
    assert all(len(curves[r["dia_source_id"]]) == r["n_points"] > 0 for r in unscored)
    n_classes = {
        (row["survey"], len(row["probabilities"]))
        for row in night.rows(classifications)
        if row["probabilities"] is not None
    }
    assert {survey for survey, _ in n_classes} == {"lsst", "ztf"}
    assert len(n_classes) == 2
    assert [part for part in night.audit() if part.problems] == []

    # A replay of the last batch is scored by the versions that scored it first.
    last = max(texts)
    before = without_clock(night)
    for name in (str(last), f".{last}.crc"):
        (night.settings.stream.checkpoint / "commits" / name).unlink(missing_ok=True)
    with night.engine.begin() as connection:
        for table in (accounting, classifications):
            connection.execute(table.delete().where(table.c.batch_id == last))
    night.promote(other)
    night.run()
    assert without_clock(night) == before


def without_clock(night: Night) -> list[dict[str, Any]]:
    rows = night.rows(classifications)
    return [{k: v for k, v in row.items() if k != "processed_ms"} for row in rows]


@pytest.mark.kafka
@pytest.mark.spark
@pytest.mark.parametrize("source", ["delta", "kafka"])
def test_scored_again_are_the_alerts_of_the_models_survey_alone(
    night: Night,
    trained_models: list[Path],
    ztf_model: Path,
    real_packets: list[bytes],
    ztf_packets: list[bytes],
    tmp_path: Path,
    source: str,
) -> None:
    night.publish([*real_packets[:8], *ztf_packets[:8], b"\0 no alert"])
    night.run()
    ids = {
        survey: {r["dia_source_id"] for r in night.rows(classifications) if r["survey"] == survey}
        for survey in ("lsst", "ztf")
    }
    settings = night.settings
    with pytest.raises(ConfigurationError, match="trained for ztf, not for lsst"):
        run_rescore(settings, ztf_model.name, Times(), source=source)
    with pytest.raises(ConfigurationError, match="no survey is called atlas"):
        run_rescore(settings, ztf_model.name, Times(), source=source, survey="atlas")
    with pytest.raises(ConfigurationError, match="'champion-ztf' is neither"):
        run_rescore(settings, "champion", Times(), source=source, survey="ztf")
    night.promote(ztf_model, "champion-ztf")
    for survey, model in (("lsst", trained_models[0]), ("ztf", ztf_model)):
        outcome = run_rescore(settings, "champion", Times(), source=source, survey=survey)
        assert outcome.n_read == 8 + outcome.rejected.total()
        assert outcome.n_scored + outcome.not_evaluated.total() == 8
        table = DeltaTable(str(rescored_folder(settings))).to_pyarrow_table()
        rows = [r for r in table.to_pylist() if r["model_version"] == model.name]
        assert {row["dia_source_id"] for row in rows} == ids[survey]
        assert {row["survey"] for row in rows} == {survey}
        again = run_rescore(settings, model.name, Times(), source=source, survey=survey)
        assert again.n_present == 8
    out = tmp_path / "scores.parquet"
    run_rescore(settings, "champion", Times(), source=source, survey="ztf", out=out)
    assert set(pq.read_table(out)["dia_source_id"].to_pylist()) == ids["ztf"]


@pytest.mark.kafka
@pytest.mark.spark
def test_a_backfill_scores_each_survey_by_its_plan(
    night: Night,
    trained_models: list[Path],
    ztf_model: Path,
    real_packets: list[bytes],
    ztf_packets: list[bytes],
) -> None:
    other = trained_models[1].name
    night.publish([*real_packets[:5], *ztf_packets[:5]], partition=0)
    offsets = {f"{night.topic}:0": (2, 9)}
    night.run(offsets=offsets, version=f"{other},ztf={ztf_model.name}")
    assert scored_by(night) == {(0, "lsst"): {other}, (0, "ztf"): {ztf_model.name}}
    assert len(night.rows(classifications)) == 7
    (account,) = night.rows(accounting)
    assert account["model_version"] == planned(night, 0) == f"{other},ztf={ztf_model.name}"


def test_a_backfill_pins_the_model_of_one_survey(
    trained_models: list[Path], ztf_model: Path, tmp_path: Path
) -> None:
    settings = Settings(state=tmp_path, models={"folder": ztf_model.parent})
    engine = open_store(settings)
    ours, other, theirs = (model.name for model in (*trained_models, ztf_model))

    def asked(model: str | None, survey: str = "lsst") -> str:
        return str(_versions(settings, engine, model, survey))

    with pytest.raises(ConfigurationError, match="noctule train"):
        asked(None)
    assert asked(ours) == ours
    assert asked(theirs, "ztf") == f"ztf={theirs}"
    with engine.begin() as connection:
        for model in (trained_models[0], ztf_model):
            register(connection, read_manifest(model), model)
        registry.promote(connection, "champion-ztf", theirs, reason="a test", now_ms=1)
        registry.promote(connection, "champion", ours, reason="a test", now_ms=1)
    assert asked(None) == asked("champion") == asked("champion", "ztf") == f"{ours},ztf={theirs}"
    assert asked(other) == f"{other},ztf={theirs}"
    with pytest.raises(ConfigurationError, match="trained for lsst, not for ztf"):
        asked(other, "ztf")
    engine.dispose()
