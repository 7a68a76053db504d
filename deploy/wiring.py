"""Converts settings to the plain values that the rooms take. No other module knows both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from active_learning.learner import LearnerConfig
from active_learning.requests import RequestPolicy
from active_learning.strategies import strategy_of
from deploy.kafka import EmbeddedKafka, create_topics
from deploy.places import delta_folder
from deploy.settings import settings_digest
from lightcurves.errors import ConfigurationError
from models.rows import TrainingSettings
from stream.access import check_access
from stream.consumer import Watermarks
from stream.job import JobConfig, run_id_of
from stream.priority import Priority
from stream.routes import Outgoing
from stream.schema_ids import IDS_FILE, Registry
from stream.scoring import ScorerConfig
from stream.session import Executors, open_session
from stream.worker import WorkerConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from deploy.sections import Settings

ALERT_PARTITIONS: Final = 2
"""Partitions of an alert topic in the embedded Kafka."""
PREFETCH: Final = 2048
"""How many alerts of a partition may be scored before a batch asks for them."""
PREFETCH_SHARED: Final = 256
"""The same if several tasks share a batch: Spark may give the partition to another executor, and then what
was scored in advance is discarded."""


def kafka_client(settings: Settings) -> dict[str, str]:
    """Return librdkafka's settings.

    Raises
    ------
    ConfigurationError
        No broker is named.
    """
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        raise ConfigurationError(
            "kafka.bootstrap_servers is not set: give --set kafka.bootstrap_servers=HOST:PORT, or "
            "start one with 'noctule kafka'"
        )
    return {"bootstrap.servers": servers, **settings.kafka.client.get_secret_value()}


def with_broker(settings: Settings, broker: EmbeddedKafka) -> Settings:
    """Return the settings with the address of the embedded Kafka."""
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
    return settings.model_copy(update={"kafka": kafka})


def check_kafka(settings: Settings) -> dict[tuple[str, int], tuple[int, int]]:
    """Return the bounds of every partition of the alert topics.

    Raises
    ------
    UnavailableError
        Kafka does not answer or refuses the login, or a topic does not exist.
    """
    client, timeout_s = kafka_client(settings), settings.kafka.timeout_s
    check_access(client, timeout_s)
    marks = Watermarks(list(settings.kafka.alert_topics), client, timeout_s)
    try:
        return marks.now()
    finally:
        marks.close()


def outgoing_of(settings: Settings) -> Outgoing:
    """Return what is sent to Kafka, and where its schemas are registered."""
    kafka = settings.kafka
    registry = None
    if kafka.registry_url is not None:
        url = kafka.registry_url.get_secret_value()
        registry = Registry(url, kafka.timeout_s, settings.stream.checkpoint / IDS_FILE)
    return Outgoing(kafka.model_dump(), registry)


def topic_partitions(settings: Settings, alert_partitions: int) -> dict[str, int]:
    """Return every topic that noctule needs, with its number of partitions."""
    own = outgoing_of(settings).topics().values()
    return dict.fromkeys(settings.kafka.alert_topics, alert_partitions) | dict.fromkeys(own, 1)


TOPIC_SETTINGS: Final = {"max.message.bytes": str(18 << 20)}
"""Alerts reach 2 MB and a packet may have 16 MiB; a rejected one is sent with additional headers."""


def make_topics(settings: Settings, alert_partitions: int) -> dict[str, int]:
    """Create the topics that are missing; return all that are needed, with their partitions."""
    client = kafka_client(settings)
    topics = topic_partitions(settings, alert_partitions)
    create_topics(client["bootstrap.servers"], topics, TOPIC_SETTINGS, client=client)
    return topics


def scorer_config(settings: Settings) -> ScorerConfig:
    """Return what scoring needs."""
    schemas = settings.schemas
    location = str(schemas.folder or "")
    if schemas.source == "registry" and schemas.registry_url is not None:
        location = schemas.registry_url.get_secret_value()
    return ScorerConfig(
        models_folder=str(settings.models.folder),
        schema_source=schemas.source,
        schema_location=location,
        schema_timeout_s=schemas.registry_timeout_s,
        max_packet_bytes=settings.stream.max_packet_bytes,
    )


def job_config(settings: Settings) -> JobConfig:
    """Return what the stream needs; gives a new checkpoint its run id."""
    learning, stream = settings.learning, settings.stream
    strategy = strategy_of(learning.strategy, learning.model_dump())
    return JobConfig(
        topics=settings.kafka.alert_topics,
        starting=stream.starting,
        max_alerts=stream.max_alerts_per_batch,
        tasks=stream.tasks,
        behind=stream.behind_alerts,
        lost=stream.lost_offsets,
        trigger_s=stream.trigger_s,
        busy_timeout_s=settings.store.busy_timeout_s,
        checkpoint=stream.checkpoint,
        store_url=settings.store.url.get_secret_value(),
        alias=settings.models.alias,
        worker=WorkerConfig(
            client=kafka_client(settings),
            scorer=replace(scorer_config(settings), strategy_features=strategy.features),
            delta_folder=str(delta_folder(settings)),
            run_id=run_id_of(stream.checkpoint),
            timeout_s=settings.kafka.timeout_s,
            threads=stream.threads,
            prefetch=PREFETCH if stream.tasks == 1 else PREFETCH_SHARED,
            priority=priority_of(settings),
        ),
        outgoing=outgoing_of(settings),
        policy=RequestPolicy(strategy, learning.nightly_budget, learning.min_points),
        settings_digest=settings_digest(settings),
    )


def priority_of(settings: Settings) -> Priority | None:
    """Return which alerts are urgent; None if none are."""
    stream = settings.stream
    young, bright = {"young_days": stream.young_days}, {"bright_sigma": stream.bright_sigma}
    given: dict[str, dict[str, float]] = {
        "young": young,
        "bright": bright,
        "young_and_bright": young | bright,
    }
    return None if stream.priority == "none" else Priority(**given[stream.priority])


def open_spark(settings: Settings, log: str) -> SparkSession:
    """Start Spark as the settings say; what it prints goes to the log with this name."""
    stream = settings.stream
    return open_session(
        stream.master,
        driver_memory=stream.driver_memory,
        log_file=settings.state / "logs" / f"{log}.log",
        executors=Executors(stream.tasks, stream.threads, stream.executor_memory),
    )


def learner_config(settings: Settings) -> LearnerConfig:
    """Return what the learner needs."""
    learning = settings.learning
    return LearnerConfig(
        models_folder=settings.models.folder,
        delta_folder=delta_folder(settings),
        training_folder=learning.training_folder,
        frozen_folder=learning.frozen_folder,
        alias=settings.models.alias,
        retrain_every=learning.retrain_every_labels,
        confidence=learning.gate_confidence,
        training=training_settings(settings),
    )


def training_settings(settings: Settings) -> TrainingSettings:
    """Return how models are trained."""
    return TrainingSettings(seed=settings.models.seed, coverage=settings.models.coverage)
