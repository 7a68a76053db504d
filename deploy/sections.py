"""What can be set: one frozen class a section, and `Settings`, which holds them all.

A field's description is what the operator reads in ``docs/settings.md``. Where the values come
from is the business of `deploy.settings`; nothing here reads a file or the environment.
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
"""A setting of librdkafka whose name has one of these is never printed."""


def _split_commas(value: object) -> object:
    """Environment variables name several things as ``a,b``; TOML has lists."""
    if not isinstance(value, str):
        return value
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _flat_texts(value: object) -> object:
    """Settings of librdkafka, which has dots in its names and takes texts only.

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
    """A URL whose password is never printed; ``get_secret_value()`` gives the whole."""

    def _display(self) -> str:
        return mask_password(self.get_secret_value())


class ClientSettings(Secret[dict[str, str]]):
    """Settings of librdkafka, printed without their secrets; ``get_secret_value()`` gives all."""

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
    """One table of the settings file: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


class Kafka(Section):
    """Where alerts come from and where answers go."""

    bootstrap_servers: str | None = Field(
        None,
        min_length=1,
        description="Brokers to start from, host:port,host:port. Not set: `noctule demo` starts a "
        "Kafka of its own; every other command that needs Kafka asks for this.",
    )
    alert_topics: Texts = Field(
        ("alerts",), min_length=1, description="Topics that carry the alerts."
    )
    classified_topic: Topic = Field(
        "noctule.classified",
        description="Topic that gets every alert with its score, or why there is none.",
    )
    novel_topic: Topic = Field(
        "noctule.novel", description="Topic that gets the alerts that no class explains."
    )
    requests_topic: Topic = Field(
        "noctule.label-requests", description="Topic that gets the requests for spectra."
    )
    rejected_topic: Topic = Field(
        "noctule.rejected", description="Topic that gets packets that could not be read, as read."
    )
    desc_topic: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,249}$",
        description="Topic that gets every scored alert in DESC's form (brokerClassification "
        "0.9.1). Not set: none is sent.",
    )
    registry_url: SecretUrl | None = Field(
        None,
        description="Address of the Confluent schema registry in which the schemas of what goes out "
        "are registered; may hold user:password. Not set: the schema id in a message is its "
        "schema's version, 100 for 1.0.",
    )
    client: Annotated[ClientSettings, NoDecode, BeforeValidator(_flat_texts)] = Field(
        ClientSettings({}),
        description="Further settings of librdkafka, for TLS and SASL say; names as librdkafka "
        "has them. In the environment: one JSON object. Secrets among them are never printed.",
    )
    timeout_s: Seconds = Field(
        10.0, description="How long Kafka may take to answer before it counts as away, in seconds."
    )

    @field_validator("registry_url")
    @classmethod
    def _is_a_registry(cls, url: SecretUrl | None) -> SecretUrl | None:
        if url is not None and not re.match(r"https?://[^/]", url.get_secret_value()):
            raise ValueError("must start with http:// or https://")
        return url


class Schemas(Section):
    """Where the Avro schema of a schema id comes from."""

    source: Literal["package", "folder", "registry"] = Field(
        "package",
        description="`package`: the official LSST schemas that are installed with noctule; "
        "`folder`: .avsc files; `registry`: a Confluent schema registry.",
    )
    folder: Folder | None = Field(
        None, validate_default=True, description="Folder of .avsc files, for `source = folder`."
    )
    registry_url: SecretUrl | None = Field(
        None,
        validate_default=True,
        description="Address of the registry, for `source = registry`; may hold user:password.",
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
    """The live job."""

    master: str = Field(
        "local[2]",
        min_length=1,
        description="Where Spark runs: `local[N]` for N cores here, or the address of a cluster.",
    )
    name: str = Field(
        "live",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="Name of this run. Another name starts afresh, with a checkpoint of its own.",
    )
    starting: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a run that has no checkpoint yet starts to read."
    )
    lost_offsets: Literal["stop", "skip"] = Field(
        "stop",
        description="What to do where Kafka has removed alerts before they were read: `stop` ends the stream "
        "with their offsets, `skip` goes on; the audit lists them either way.",
    )
    priority: Literal["none", "young", "bright", "young_and_bright"] = Field(
        "young_and_bright",
        description="Which alerts are scored ahead of their turn while the stream is behind: those of young "
        "objects, bright ones, or what is both. Nothing is ever left out: the others follow in their order.",
    )
    behind_alerts: Count = Field(
        10_000, description="The stream counts as behind where more alerts wait than so many."
    )
    young_days: float = Field(
        3.0,
        ge=0,
        le=36_500,
        description="An object is young so many days after its first detection, for the priority.",
    )
    bright_sigma: float = Field(
        20.0,
        gt=0,
        le=1e6,
        description="An alert is bright whose difference flux is so many times its error, for the priority.",
    )
    trigger_s: float = Field(
        1.0, ge=0, le=3_600, description="Seconds from the start of a batch to that of the next."
    )
    max_alerts_per_batch: Count = Field(
        4000, description="Largest number of alerts in a batch; bounds memory and replay."
    )
    tasks: Annotated[int, Field(ge=1, le=1_000)] = Field(
        1,
        description="Spark tasks that share a batch: 1 on one machine; so many executors are asked for on a "
        "cluster, one task each.",
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(
        2,
        description="Threads of a task that decode and score; the cores that the machine has for it. On a "
        "cluster, the cores of an executor.",
    )
    max_packet_bytes: int = Field(
        16 * 1024**2,
        ge=1024,
        le=1024**3,
        description="Largest packet that is read, in bytes; a larger one is rejected.",
    )
    driver_memory: str = Field(
        "1g", pattern=r"^[1-9]\d*[mg]$", description="Memory of Spark's driver: `512m`, `1g`."
    )
    executor_memory: str = Field(
        "1g",
        pattern=r"^[1-9]\d*[mg]$",
        description="Memory of the JVM of an executor, on a cluster: it passes bytes on, the Python worker's "
        "memory is beside it.",
    )
    checkpoint: Folder = Field(
        Path("<state>/checkpoints/<name>"),
        description="Folder of Spark's checkpoint: which offsets and which model each batch had.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address on which the stream serves /metrics, /healthz and /readyz; `0.0.0.0` serves "
        "other machines too.",
    )
    metrics_port: int = Field(
        8766,
        ge=0,
        le=65_535,
        description="Port of the same; 0 serves nothing, and neither does `--once`. Streams that run side "
        "by side on one machine need a port each.",
    )
    stalled_s: Seconds = Field(
        120.0,
        description="A stream that has something to read and ends no batch for so many seconds counts as "
        "stalled and its /healthz answers 503: more than the longest batch takes.",
    )
    slow_batch_s: Seconds = Field(
        10.0, description="A batch that takes longer, in seconds, is explained in the log."
    )


class Store(Section):
    """Where results are kept."""

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
        30.0, description="How long to wait for another writer's lock on the database, in seconds."
    )
    query_timeout_s: Seconds = Field(
        30.0,
        description="How long a query of the portal, `noctule queue` or `noctule status` may take, in "
        "seconds; one that takes longer is ended with an error.",
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
        description="A light curve is kept so many days after its alert was read, even where a later "
        "alert of the object holds its points. Scores and features are kept for ever; so are the "
        "light curves of every object's newest alert and of objects with a label or a request for one.",
    )
    orphan_hours: int = Field(
        24,
        ge=1,
        le=8_760,
        description="Files of the Delta table that are no part of it are deleted at this age, in hours: "
        "more than any batch takes, and than any reader does.",
    )
    file_mb: int = Field(
        64, ge=1, le=4_096, description="Size to which files of the Delta table are joined, in MB."
    )


class Models(Section):
    """The classifier."""

    folder: Folder = Field(Path("<state>/models"), description="Folder of the model artifacts.")
    alias: str = Field(
        "champion",
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
        description="Name of the promoted model that scores LSST's alerts; that of another survey is "
        "named after it, as champion-ztf.",
    )
    coverage: Share = Field(
        0.9, description="Share of objects whose prediction set is to hold the true class."
    )
    seed: Seed = Field(20260310, description="Seed of everything random in training.")


class Learning(Section):
    """Which spectra to ask for, and when a new model may take over."""

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"must be one of {', '.join(STRATEGIES)}")
        return name

    strategy: str = Field(
        "entropy",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="How candidates for a spectrum are ranked.",
    )
    nightly_budget: int = Field(
        20, ge=0, le=100_000, description="Largest number of requests for spectra a night."
    )
    min_entropy: float = Field(
        0.5, ge=0, le=10, description="Least uncertainty of a candidate: entropy, in nats."
    )
    min_points: Count = Field(2, description="Fewest detections of a candidate.")
    retrain_every_labels: Count = Field(
        100, description="How many new labels start the training of a challenger."
    )
    training_folder: Folder | None = Field(
        None, description="Light-curve folder that every model is trained on, beside the labels."
    )
    frozen_folder: Folder | None = Field(
        None,
        description="Light-curve folder on which champion and challenger are compared; no model "
        "is ever trained on it.",
    )
    gate_confidence: Share = Field(
        0.9, description="How sure it must be that the challenger is better before it takes over."
    )
    poll_s: Seconds = Field(
        2.0, description="Seconds between two looks of the learner for new labels."
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address on which the learner serves /metrics, /healthz and /readyz; `0.0.0.0` serves "
        "other machines too.",
    )
    metrics_port: int = Field(
        8767,
        ge=0,
        le=65_535,
        description="Port of the same; 0 serves nothing, and neither does `--once`. Learners that run side "
        "by side on one machine need a port each.",
    )


class Portal(Section):
    """The page and the REST interface."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on; `0.0.0.0` serves other machines too.",
    )
    port: int = Field(8765, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None,
        min_length=8,
        description="Who reports a label has to show this text. Not set: labels cannot be "
        "reported over HTTP.",
    )

    @property
    def url(self) -> str:
        """Address of the page, as a browser takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class Logs(Section):
    """What the commands write to standard error."""

    format: Literal["text", "json"] = Field(
        "text",
        description="`text` for people; `json` for machines: one object a line, with run, batch, model and "
        "counts as fields of their own.",
    )


class Demo(Section):
    """The simulated nights of `noctule demo`."""

    night_s: Seconds = Field(3.0, description="How long a simulated night takes, in seconds.")
    telescope_delay_nights: int = Field(
        2, ge=0, le=1_000, description="Nights from a request to the simulated spectrum."
    )
    telescope_nightly_budget: int = Field(
        20, ge=0, le=100_000, description="Spectra that the simulated telescope takes a night."
    )
    withheld_classes: ClassIds = Field(
        (121, 132),
        description="Classes (DESC classId) that the first model never sees, so that there is "
        "something novel to find: kilonovae and tidal disruption events.",
    )
    seed: Seed = Field(20260310, description="Seed of the simulated sky.")


class Settings(BaseSettings):
    """All settings of noctule: frozen, and made without a look at file or environment.

    `deploy.settings.load_settings` makes it from the command line, the environment and the
    settings file. Whoever needs other values, a test say, makes it himself:
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
        description="Folder of all that a run writes.",
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
        """Nothing is read behind the caller's back."""
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
"""Fields whose default is a place within ``<state>``, by section."""


def _with_places(section: str, values: Mapping[str, Any], state: Path) -> object:
    """The values of a section, its places filled in unless they are set."""
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
    found: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        section = section_class(field)
        inner = section.model_fields if section else {}
        found |= {f"{name}.{key}": each for key, each in inner.items()} or {name: field}
    return found


def section_class(field: FieldInfo) -> type[Section] | None:
    """The class of a field of `Settings` that is a section; None for one that is not."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
