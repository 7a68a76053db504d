"""A night in a test: a topic, a state folder, a promoted model, and the job run to its end."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from active_learning.learner import register
from deploy.kafka import EmbeddedKafka, create_topics
from deploy.places import delta_folder, open_store
from deploy.sections import Settings
from deploy.wiring import job_config, topic_partitions
from lightcurves.alerts import framed_packets
from lightcurves.folders import read_light_curves
from lightcurves.imports import import_plasticc, plasticc_source
from lightcurves.schemas import package_schemas
from models.artifact import read_manifest, save_model
from models.rows import TrainingSettings
from models.training import moments_of, train
from store import registry
from stream.audit import PartitionAudit, audit
from stream.consumer import Watermarks
from stream.job import start
from stream.report import BatchReport
from stream.session import open_session
from stream.topic import publish


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    log = tmp_path_factory.mktemp("spark") / "spark.log"
    session = open_session("local[2]", driver_memory="1g", log_file=log)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def plasticc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plasticc")
    import_plasticc(plasticc_source(), folder)
    return folder


@pytest.fixture(scope="session")
def few_moments(plasticc_folder: Path) -> pa.Table:
    """A tenth of PLAsTiCC, to train small models on."""
    table = read_light_curves(plasticc_folder)
    return moments_of(table.filter(pa.array(np.arange(table.num_rows) % 10 == 0)), 2)


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models lie here, in folders named by their versions."""
    return tmp_path_factory.mktemp("models")


def small_model(moments: pa.Table, folder: Path, **settings: Any) -> Path:
    how = TrainingSettings(rounds=8, folds=2, **settings)
    manifest = save_model(train(moments, how), folder / "draft")
    return (folder / "draft").rename(folder / manifest.model_version)


@pytest.fixture(scope="session")
def trained_models(few_moments: pa.Table, models_folder: Path) -> list[Path]:
    """Two small models of different seeds."""
    return [small_model(few_moments, models_folder, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="session")
def ztf_model(few_moments: pa.Table, models_folder: Path) -> Path:
    """One for ZTF's alerts, which tells fewer classes apart."""
    no_agn = pa.array(np.asarray(few_moments["class_id"]) != 221)
    return small_model(few_moments.filter(no_agn), models_folder, seed=3, survey="ztf")


@pytest.fixture(scope="session")
def ztf_packets(data_dir: Path) -> list[bytes]:
    """Real ZTF alerts of one schema, framed as LSST's are; :func:`two_schemas` knows the frame's id."""
    return [frame_of_ztf(content) for content in _ztf_files(data_dir)]


@pytest.fixture(scope="session")
def two_schemas(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of schemas: LSST's 10.0, and that of :func:`ztf_packets`."""
    folder = tmp_path_factory.mktemp("schemas")
    (folder / "10").symlink_to(package_schemas().folder / "10")
    path = folder / "90" / "0" / "lsst.v90_0.alert.avsc"
    path.parent.mkdir(parents=True)
    first = io.BytesIO(next(_ztf_files(data_dir)))
    path.write_text(json.dumps(fastavro.reader(first).writer_schema))
    return folder


def _ztf_files(data_dir: Path) -> Iterator[bytes]:
    with tarfile.open(data_dir / "ztf" / "ztf_public_20180819_mod1000.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".avro"):
                yield file.read()


def frame_of_ztf(container: bytes) -> bytes:
    """The one packet of a container file, in a Confluent frame."""
    reader = fastavro.reader(io.BytesIO(container))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, reader.writer_schema, next(reader))
    return b"\0" + (9000).to_bytes(4, "big") + body.getvalue()


@pytest.fixture(scope="session")
def real_packets(data_dir: Path) -> list[bytes]:
    return list(framed_packets(data_dir / "lsst" / "real_v10_0.avro"))


@dataclass
class Night:
    """One state folder with its topic; see the module."""

    settings: Settings
    spark: SparkSession
    models: list[Path]
    engine: sa.Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = open_store(self.settings)
        for model in self.models:
            shutil.copytree(model, self.settings.models.folder / model.name, dirs_exist_ok=True)
            with self.engine.begin() as connection:
                register(connection, read_manifest(model), self.settings.models.folder / model.name)
        self.promote(self.models[0])

    @property
    def topic(self) -> str:
        return self.settings.kafka.alert_topics[0]

    def promote(self, model: Path, alias: str = "champion") -> None:
        with self.engine.begin() as connection:
            registry.promote(connection, alias, model.name, reason="a test", now_ms=1)

    def publish(self, packets: Iterable[bytes], partition: int | None = None) -> None:
        servers = str(self.settings.kafka.bootstrap_servers)
        publish(iter(packets), bootstrap_servers=servers, topic=self.topic, partition=partition)

    def run(self, reports: list[BatchReport] | None = None, **changes: Any) -> None:
        """Drain the topic; what is told of the batches goes into `reports`."""
        config = job_config(self.settings)
        on_batch = None if reports is None else reports.append
        changed = type(config)(**{**vars(config), **changes})
        query = start(self.spark, changed, once=True, on_batch=on_batch)
        query.awaitTermination()

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        order = sa.select(table).order_by(*table.primary_key.columns)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(order).mappings()]

    def delta(self) -> pa.Table:
        return DeltaTable(str(delta_folder(self.settings))).to_pyarrow_table()

    def audit(self) -> list[PartitionAudit]:
        servers = {"bootstrap.servers": str(self.settings.kafka.bootstrap_servers)}
        marks = Watermarks([self.topic], servers, 10.0)
        with self.engine.connect() as connection:
            try:
                return audit(connection, marks.now())
            finally:
                marks.close()

    def afresh(self, name: str) -> Night:
        """Return the same topic with a new state: empty tables, no checkpoint."""
        state = self.settings.state.with_name(f"{self.settings.state.name}-{name}")
        return Night(new_settings(state, self.settings), self.spark, self.models)


def new_settings(state: Path, like: Settings) -> Settings:
    return Settings(state=state, kafka=like.kafka.model_dump())


@pytest.fixture
def night(
    kafka: EmbeddedKafka, spark: SparkSession, trained_models: list[Path], tmp_path: Path
) -> Night:
    return make_night(kafka, spark, trained_models, tmp_path)


@pytest.fixture
def make(
    kafka: EmbeddedKafka, spark: SparkSession, trained_models: list[Path], tmp_path: Path
) -> Callable[..., Night]:
    """Makes nights with settings of their own."""
    return lambda **sections: make_night(kafka, spark, trained_models, tmp_path, **sections)


def make_night(
    kafka: EmbeddedKafka, spark: SparkSession, models: list[Path], folder: Path, **sections: Any
) -> Night:
    name = uuid.uuid4().hex[:8]
    topics = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "alert_topics": (f"alerts-{name}",),
        "classified_topic": f"classified-{name}",
        "novel_topic": f"novel-{name}",
        "requests_topic": f"requests-{name}",
        "rejected_topic": f"rejected-{name}",
    }
    settings = Settings(state=folder / name, kafka=topics, **sections)
    create_topics(kafka.bootstrap_servers, topic_partitions(settings, 2))
    return Night(settings, spark, models)
