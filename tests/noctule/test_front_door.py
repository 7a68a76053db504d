"""The names that people's scripts rely on."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest

import noctule
from active_learning.learner import register
from lightcurves.errors import ConfigurationError
from models.artifact import Manifest, save_model
from simulator.packets import SimulatedAlerts
from store import registry
from store.database import migrate, open_database
from tests.sky import sky_table, trained, write_sky

REPOSITORY = Path(__file__).parents[2]
PROMISED = {"Client", "compute_features", "load_model", "read_alerts", "read_light_curves"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of its own, with the small model among its models and named by an alias."""
    for name in ("NOCTULE_CONFIG", "NOCTULE_STORE__URL", "NOCTULE_MODELS__FOLDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOCTULE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("NOCTULE_STORE__URL", f"sqlite:///{tmp_path}/n.sqlite")
    monkeypatch.setenv("NOCTULE_MODELS__FOLDER", str(tmp_path / "models"))
    return tmp_path


@pytest.fixture
def manifest(state: Path) -> Manifest:
    draft = save_model(trained(), state / "models" / "draft")
    (state / "models" / "draft").rename(state / "models" / draft.model_version)
    return draft


def test_every_promised_name_is_there() -> None:
    assert set(noctule.__all__) >= PROMISED
    for name in noctule.__all__:
        assert callable(getattr(noctule, name))
        assert getattr(noctule, name).__doc__
    assert noctule.__version__ == version("noctule")


def test_a_light_curve_folder_becomes_scores(manifest: Manifest, state: Path) -> None:
    table = noctule.read_light_curves(write_sky(state / "sky", 8))
    features = noctule.compute_features(table)
    scores = noctule.load_model(state / "models" / manifest.model_version).score(table)
    assert features.num_rows == scores.num_rows == 8
    assert set(scores["model_version"].to_pylist()) == {manifest.model_version}
    again = noctule.load_model(str(state / "models" / manifest.model_version)).score(table)
    assert again.equals(scores)


def test_packets_become_scores(manifest: Manifest) -> None:
    packets = list(SimulatedAlerts(sky_table(4)))
    alerts = noctule.read_alerts([*packets, b"noise"])
    scores = noctule.load_model(manifest.model_version).score(alerts)
    assert scores["dia_source_id"].to_pylist() == alerts["dia_source_id"].to_pylist()
    assert scores["reason"].to_pylist() == [None] * len(packets) + ["bad_frame"]


def test_real_packets_are_scored_or_say_why(manifest: Manifest, data_dir: Path) -> None:
    alerts = noctule.read_alerts(data_dir / "lsst" / "real_v10_0.avro")
    scores = noctule.load_model(manifest.model_version).score(alerts)
    assert scores.num_rows == 64
    for row in scores.to_pylist():
        assert (row["reason"] is None) == (row["entropy"] is not None)
    reasons = set(scores["reason"].to_pylist())
    assert reasons <= {None, "solar_system_object", "no_object", "no_finite_flux"}
    assert scores["reason"].null_count > 30


def test_a_model_is_found_by_its_alias(manifest: Manifest, state: Path) -> None:
    engine = open_database(f"sqlite:///{state}/n.sqlite")
    migrate(engine)
    with engine.begin() as connection:
        register(connection, manifest, state / "models" / manifest.model_version)
        registry.promote(connection, "champion", manifest.model_version, reason="r", now_ms=1)
    engine.dispose()
    model = noctule.load_model("champion")
    assert model.manifest.model_version == manifest.model_version
    with pytest.raises(ConfigurationError, match="'night' is neither a model folder"):
        noctule.load_model("night")


@pytest.mark.usefixtures("state")
def test_a_name_that_nobody_knows_is_refused() -> None:
    for name in ("champion", "/nowhere/at/all"):
        with pytest.raises(ConfigurationError, match="neither a model folder nor a version"):
            noctule.load_model(name)


def test_importing_starts_nothing() -> None:
    """No Spark and no broker for those who only read and score."""
    program = (
        "import sys, noctule\n"
        "print([name for name in ('pyspark', 'confluent_kafka') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"


def test_the_readme_of_a_score_holds(manifest: Manifest) -> None:
    """What design calls the contract of a score."""
    table: pa.Table = noctule.load_model(manifest.model_version).score(sky_table(3))
    promised = {"prediction_set", "novelty", "entropy", "reason", "model_version", "feature_digest"}
    classes = {f"p_{class_id}" for class_id in manifest.class_ids}
    assert promised | classes <= set(table.column_names)
