"""What can be set: one frozen class per section, and `Settings`, which holds them all.

A field's description is what the operator reads in ``docs/settings.md``. `deploy.settings` reads the
values; nothing here reads a file or the environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Secret,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from active_learning.strategies import STRATEGIES
from store.urls import mask_password

SECRET_WORDS: Final = (
    "password",
    "passphrase",
    "secret",
    "token",
    "key.pem",
    "jaas",
    "oauthbearer.config",
)
"""The value of a librdkafka setting whose name contains one of these is never printed."""


def _split_commas(value: object) -> object:
    """Split a list: environment variables write one as ``a,b``, TOML has lists of its own."""
    if not isinstance(value, str):
        return value
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _flat_texts(value: object) -> object:
    """Flatten settings of librdkafka, whose names contain dots and whose values are all texts.

    TOML reads ``sasl.password = "x"`` as a table within a table; an environment variable holds
    one JSON object.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError('write it as JSON, {"sasl.username": "..."}') from None
    return dict(_leaves(value)) if isinstance(value, Mapping) else value


def _leaves(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)


class SecretUrl(Secret[str]):
    """A URL whose password is never printed; ``get_secret_value()`` returns all of it."""

    def _display(self) -> str:
        return mask_password(self.get_secret_value())


class ClientSettings(Secret[dict[str, str]]):
    """Settings of librdkafka, printed without their secrets; ``get_secret_value()`` returns all."""

    def _display(self) -> str:
        shown = self.get_secret_value().items()
        return ", ".join(f"{name}={'***' if _is_secret(name) else value}" for name, value in shown)


def _is_secret(name: str) -> bool:
    return any(word in name for word in SECRET_WORDS)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


Folder = Annotated[Path, AfterValidator(_absolute)]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
ClassIds = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split_commas)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Share = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """One table of the settings file: frozen; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


class Kafka(Section):
    """Where alerts are read from and where results are sent."""

    bootstrap_servers: str | None = Field(
        None,
        min_length=1,
        description="Brokers to connect to first, as host:port,host:port. Not set: `noctule demo` starts "
        "its own Kafka; every other command that needs Kafka stops and asks for this setting.",
    )
    alert_topics: Texts = Field(
        ("alerts",), min_length=1, description="Topics to read alerts from."
    )
    classified_topic: Topic = Field(
        "noctule.classified",
        description="Topic for every alert, with its score or the reason why it has none.",
    )
    novel_topic: Topic = Field(
        "noctule.novel", description="Topic for the alerts that no known class explains."
    )
    requests_topic: Topic = Field(
        "noctule.label-requests", description="Topic for the requests for spectra."
    )
    rejected_topic: Topic = Field(
        "noctule.rejected",
        description="Topic for packets that could not be read, with their bytes unchanged.",
    )
    desc_topic: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,249}$",
        description="Topic for every scored alert in DESC's format (brokerClassification 0.9.1). "
        "Not set: nothing is sent in this format.",
    )
    novel_far: Share = Field(
        0.01,
        description="An alert counts as novel, and goes to the topic of novel alerts, if at most this share "
        "of ordinary alerts is at least as strange.",
    )
    registry_url: SecretUrl | None = Field(
        None,
        description="Address of the Confluent schema registry in which to register the schemas of "
        "outgoing messages; may contain user:password. Not set: the schema id in a message is the "
        "version of its schema, 100 for 1.0.",
    )
    client: Annotated[ClientSettings, NoDecode, BeforeValidator(_flat_texts)] = Field(
        ClientSettings({}),
        description="More settings for librdkafka, for example for TLS and SASL, under librdkafka's own "
        "names. In the environment: one JSON object. Secrets among them are never printed.",
    )
    timeout_s: Seconds = Field(
        10.0,
        description="How long Kafka may take to answer before it counts as unavailable, in seconds.",
    )

    @field_validator("registry_url")
    @classmethod
    def _is_a_registry(cls, url: SecretUrl | None) -> SecretUrl | None:
        if url is not None and not re.match(r"https?://[^/]", url.get_secret_value()):
            raise ValueError("must start with http:// or https://")
        return url


class Schemas(Section):
    """Where to find the Avro schema that belongs to a schema id."""

    source: Literal["package", "folder", "registry"] = Field(
        "package",
        description="`package`: the official LSST schemas that are installed with noctule; "
        "`folder`: .avsc files; `registry`: a Confluent schema registry.",
    )
    folder: Folder | None = Field(
        None, validate_default=True, description='Folder of .avsc files, for `source = "folder"`.'
    )
    registry_url: SecretUrl | None = Field(
        None,
        validate_default=True,
        description='Address of the registry, for `source = "registry"`; may contain user:password.',
    )
    registry_timeout_s: Seconds = Field(
        10.0, description="How long the registry may take to answer, in seconds."
    )

    @field_validator("folder", "registry_url")
    @classmethod
    def _there_when_chosen(cls, value: object, info: ValidationInfo) -> object:
        source = info.data.get("source")
        needed = {"folder": "folder", "registry": "registry_url"}.get(str(source))
        if value is None and info.field_name == needed:
            raise ValueError(f"is needed because schemas.source is {source!r}")
        return value


class Stream(Section):
    """The Spark job that scores alerts as they arrive."""

    master: str = Field(
        "local[2]",
        min_length=1,
        description="Where Spark runs: `local[N]` for N cores of this machine, or the address of a cluster.",
    )
    name: str = Field(
        "live",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="Name of this run. A new name starts a new run, with its own checkpoint.",
    )
    starting: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a run without a checkpoint starts to read."
    )
    lost_offsets: Literal["stop", "skip"] = Field(
        "stop",
        description="What to do when Kafka has removed alerts before they were read: `stop` ends the stream "
        "and names their offsets, `skip` continues after them. The audit lists them either way.",
    )
    priority: Literal["none", "young", "bright", "young_and_bright"] = Field(
        "young_and_bright",
        description="Which waiting alerts are urgent and scored before their turn when more than "
        "behind_alerts are waiting: those of young objects, bright ones, or those that are both. No alert "
        "is left out: every alert is still read in its turn.",
    )
    behind_alerts: Count = Field(
        10_000,
        description="When more alerts than this are waiting, each batch also looks ahead for urgent ones "
        "(see priority).",
    )
    young_days: float = Field(
        3.0,
        ge=0,
        le=36_500,
        description="For priority: an alert is of a young object if its first detection is at most this "
        "many days old.",
    )
    bright_sigma: float = Field(
        20.0,
        gt=0,
        le=1e6,
        description="For priority: an alert is bright if its difference flux, of either sign, is at least "
        "this many times its error.",
    )
    trigger_s: float = Field(
        1.0,
        ge=0,
        le=3_600,
        description="Shortest time from the start of one batch to the start of the next, in seconds.",
    )
    max_alerts_per_batch: Count = Field(
        4000,
        description="Largest number of alerts in a batch. It limits the memory used, and how much is "
        "replayed after a crash.",
    )
    tasks: Annotated[int, Field(ge=1, le=1_000)] = Field(
        1,
        description="Number of Spark tasks that share a batch. Leave it at 1 on one machine; on a cluster, "
        "Spark is asked for this many executors, one per task.",
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(
        2,
        description="Number of threads in each task that decode and score: as many as the cores that the "
        "machine can spare for it. On a cluster, the number of cores of an executor.",
    )
    max_packet_bytes: int = Field(
        16 * 1024**2,
        ge=1024,
        le=1024**3,
        description="Largest packet to read, in bytes; a larger one is rejected.",
    )
    driver_memory: str = Field(
        "1g",
        pattern=r"^[1-9]\d*[mg]$",
        description="Memory of Spark's driver, such as `512m` or `1g`.",
    )
    executor_memory: str = Field(
        "1g",
        pattern=r"^[1-9]\d*[mg]$",
        description="Memory of an executor's JVM, on a cluster. The JVM only passes bytes on; the memory of "
        "the Python worker comes on top of it.",
    )
    checkpoint: Folder = Field(
        Path("<state>/checkpoints/<name>"),
        description="Folder of Spark's checkpoint, which records the offsets and the model of each batch.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address on which the stream serves /metrics, /healthz and /readyz; `0.0.0.0` makes them "
        "reachable from other machines.",
    )
    metrics_port: int = Field(
        8766,
        ge=0,
        le=65_535,
        description="Port for /metrics, /healthz and /readyz; 0 turns them off, as `--once` does. Several "
        "streams on one machine each need their own port.",
    )
    stalled_s: Seconds = Field(
        120.0,
        description="A stream that has messages to read but finishes no batch for this many seconds counts "
        "as stalled, and its /healthz answers 503. Set it higher than the longest batch takes.",
    )
    slow_batch_s: Seconds = Field(
        10.0,
        description="For a batch that takes longer than this, in seconds, the log says where the time went.",
    )


class Store(Section):
    """Where results are stored."""

    url: SecretUrl = Field(
        SecretUrl("sqlite:///<state>/noctule.sqlite"),
        description="The SQL database: `sqlite:////absolute/path` or "
        "`postgresql://user:password@host:5432/name`. The password is never printed.",
    )
    delta: Folder = Field(
        Path("<state>/delta"),
        description="Folder of the Delta tables: features and scored light curves.",
    )
    busy_timeout_s: Seconds = Field(
        30.0, description="How long to wait while another writer locks the database, in seconds."
    )
    query_timeout_s: Seconds = Field(
        30.0,
        description="How long a database query of the portal, `noctule queue` or `noctule status` may take, "
        "in seconds; a longer one is stopped with an error.",
    )

    @field_validator("url")
    @classmethod
    def _known_database(cls, url: SecretUrl) -> SecretUrl:
        if not re.match(r"(sqlite|postgres(ql)?(\+psycopg)?)://", url.get_secret_value()):
            raise ValueError("must start with sqlite:/// or postgresql://")
        return url


class Maintenance(Section):
    """What `noctule maintain` keeps, and for how long."""

    light_curve_days: float = Field(
        30.0,
        ge=0,
        le=36_500,
        description="A light curve is kept for this many days after its alert was read, even if a later "
        "alert of the object contains its points. Scores and features are kept for ever, and so are the "
        "light curves of every object's newest alert and of objects with a label or a request for one.",
    )
    orphan_hours: int = Field(
        24,
        ge=1,
        le=8_760,
        description="Files in the Delta table's folder that do not belong to the table are deleted at this "
        "age, in hours. Set it longer than any batch or any reader of the table takes.",
    )
    file_mb: int = Field(
        64,
        ge=1,
        le=4_096,
        description="Size of the files into which small Delta files are joined, in MB.",
    )


class Models(Section):
    """The model that scores alerts, and how models are trained."""

    folder: Folder = Field(Path("<state>/models"), description="Folder of the model artifacts.")
    alias: str = Field(
        "champion",
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
        description="Alias of the promoted model that scores LSST's alerts; the alias of another survey's "
        "model is made from it: champion-ztf.",
    )
    coverage: Share = Field(
        0.9,
        description="Share of objects whose prediction set should contain the true class. Used in training.",
    )
    seed: Seed = Field(20260310, description="Seed for everything random in training.")


class Learning(Section):
    """Which spectra to request, and when a new model replaces the champion."""

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"must be one of {', '.join(STRATEGIES)}")
        return name

    strategy: str = Field(
        "entropy",
        pattern=r"^[a-z][a-z0-9_]*$",
        description=f"How candidates for a spectrum are ranked: one of {', '.join(STRATEGIES)}.",
    )
    nightly_budget: int = Field(
        20, ge=0, le=100_000, description="Largest number of requests for spectra per night."
    )
    min_entropy: float = Field(
        0.5,
        ge=0,
        le=10,
        description="Least entropy of a candidate for a spectrum, in nats, for the strategy `entropy`.",
    )
    min_points: Count = Field(
        2, description="Fewest points in the light curve of a candidate for a spectrum."
    )
    max_margin: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Largest margin between the two likeliest classes of a candidate for a spectrum, for "
        "the strategy `margin`.",
    )
    retrain_every_labels: Count = Field(
        100, description="Number of newly labelled objects after which a challenger is trained."
    )
    training_folder: Folder | None = Field(
        None,
        description="Light-curve folder that every model is trained on, in addition to the labelled objects.",
    )
    frozen_folder: Folder | None = Field(
        None,
        description="Light-curve folder on which champion and challenger are compared. No model is ever "
        "trained on it.",
    )
    gate_confidence: Share = Field(
        0.9,
        description="How certain it must be that the challenger is better before it becomes the champion.",
    )
    poll_s: Seconds = Field(
        2.0, description="How often the learner looks for new labels: every this many seconds."
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address on which the learner serves /metrics, /healthz and /readyz; `0.0.0.0` makes "
        "them reachable from other machines.",
    )
    metrics_port: int = Field(
        8767,
        ge=0,
        le=65_535,
        description="Port for /metrics, /healthz and /readyz; 0 turns them off, as `--once` does. Several "
        "learners on one machine each need their own port.",
    )


class Portal(Section):
    """The web pages and the REST interface."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on; `0.0.0.0` makes the portal reachable from other machines.",
    )
    port: int = Field(8765, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None,
        min_length=8,
        description="Secret that a client must send to report labels or events of requests. Not set: the "
        "portal accepts neither.",
    )

    @property
    def url(self) -> str:
        """Address to open in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class Logs(Section):
    """What the commands write to standard error."""

    format: Literal["text", "json"] = Field(
        "text",
        description="`text` for people; `json` for machines: one object per line, with run, batch, model and "
        "counts as separate fields.",
    )


class Demo(Section):
    """The simulated nights of `noctule demo`."""

    night_s: Seconds = Field(3.0, description="Duration of a simulated night, in seconds.")
    telescope_delay_nights: int = Field(
        2, ge=0, le=1_000, description="Nights from a request to the simulated spectrum."
    )
    telescope_nightly_budget: int = Field(
        20,
        ge=0,
        le=100_000,
        description="Number of spectra that the simulated telescope can take per night.",
    )
    withheld_classes: ClassIds = Field(
        (121, 132),
        description="Classes (DESC classId) left out of the first model's training, so that there is "
        "something novel to find. By default: kilonovae and tidal disruption events.",
    )
    seed: Seed = Field(20260310, description="Seed of the simulation.")


class Settings(BaseSettings):
    """All settings of noctule: frozen; constructing it reads neither a file nor the environment.

    `deploy.settings.load_settings` makes it from the command line, the environment and the
    settings file. Code that needs other values, such as a test, constructs it directly:
    ``Settings(state=folder, kafka={"bootstrap_servers": "127.0.0.1:9092"})``.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix="NOCTULE_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    state: Folder = Field(
        default_factory=lambda: user_data_path("noctule"),
        description="Folder for everything that a run writes.",
    )
    kafka: Kafka = Kafka()
    schemas: Schemas = Schemas()
    stream: Stream = Stream()
    store: Store = Store()
    maintenance: Maintenance = Maintenance()
    models: Models = Models()
    learning: Learning = Learning()
    portal: Portal = Portal()
    logs: Logs = Logs()
    demo: Demo = Demo()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        *_others: Any,
        **_named_others: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the given values alone: neither a file nor the environment is read."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_places(cls, values: dict[str, Any]) -> dict[str, Any]:
        state = _absolute(Path(str(values.get("state") or user_data_path("noctule"))))
        filled = {section: _with_places(section, values, state) for section in PLACES}
        return values | filled


PLACES: Final[Mapping[str, tuple[type[Section], tuple[str, ...]]]] = {
    "stream": (Stream, ("checkpoint",)),
    "store": (Store, ("url", "delta")),
    "models": (Models, ("folder",)),
}
"""Fields whose default is a path within ``<state>``, by section."""


def _with_places(section: str, values: Mapping[str, Any], state: Path) -> object:
    """Return the values of a section, with the default paths of what is not set."""
    kind, names = PLACES[section]
    given = values.get(section, {})
    if isinstance(given, Section):
        given = given.model_dump(exclude_unset=True)
    if not isinstance(given, Mapping):
        return given  # pydantic will say what is wrong with it
    marks = {"<state>": str(state), "<name>": str(given.get("name", Stream().name))}
    return {name: _filled(kind.model_fields[name].default, marks) for name in names} | dict(given)


def _filled(place: object, marks: Mapping[str, str]) -> str:
    text = str(place)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


def fields() -> dict[str, FieldInfo]:
    """Every setting by its key, ``state`` or ``section.name``, in the order of this file."""
    by_key: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        section = section_class(field)
        inner = section.model_fields if section else {}
        by_key |= {f"{name}.{key}": each for key, each in inner.items()} or {name: field}
    return by_key


def section_class(field: FieldInfo) -> type[Section] | None:
    """The class of a field of `Settings` that is a section; None for one that is not."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
