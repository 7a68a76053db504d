"""What goes out to Kafka: its schemas, and the columns that they want.

The schema of a classification is derived from :mod:`models.record`, the others are the files in
``stream/schemas``; ``noctule schemas FOLDER`` hands all of them out and ``docs/messages.md`` describes
them. A value depends on its row and its schema id alone, never on the
process that makes it, but for the release of noctule that DESC's form names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.errors import ConfigurationError
from lightcurves.surveys import LSST
from models.record import AVRO_VERSION, RECORD, Field, Kind, Null

SCHEMA_FOLDER: Final = Path(__file__).with_name("schemas")

_LABEL_REQUEST: Final = "noctule.v1.LabelRequest.avsc"
_DESC: Final = "elasticc.v0_9_1.brokerClassification.avsc"
_FIRST: Final = "1.0"
_UNNUMBERED: Final = "0.0"

BROKER_NAME: Final = "noctule"
BROKER_VERSION: Final = version_of("noctule")


@dataclass(frozen=True)
class MessageSchema:
    """The schema of one kind of message.

    Attributes
    ----------
    file
        The name of its file.
    version
        ``major.minor``.
    text
        The schema's JSON as one line, as it is sent to a registry.
    default_id
        The id in the frame if there is no registry: ``major * 100 + minor`` of the schema's
        version, as Rubin numbers its own.
    """

    file: str
    version: str
    text: str
    default_id: int

    @cached_property
    def record(self) -> dict[str, Any]:
        """The schema, parsed from JSON."""
        read: dict[str, Any] = json.loads(self.text)
        return read


_AVRO: Final[dict[Kind, Any]] = {
    Kind.INT64: "long",
    Kind.INT32: "int",
    Kind.FLOAT64: "double",
    Kind.TEXT: "string",
    Kind.CLASS_IDS: {"type": "array", "items": "int"},
    Kind.PROBABILITIES: {
        "type": "array",
        "items": {
            "type": "record",
            "name": "ClassProbability",
            "doc": "How probable one class is.",
            "fields": [
                {
                    "name": "classId",
                    "type": "int",
                    "doc": "Class in the DESC taxonomy of ELAsTiCC: 111 is SN Ia.",
                },
                {
                    "name": "probability",
                    "type": "double",
                    "doc": "Calibrated probability of the class, 0 to 1; they add up to 1.",
                },
            ],
        },
    },
}


def _avro_field(field: Field) -> dict[str, Any]:
    kind = _AVRO[field.kind]
    since = {} if field.since == _FIRST else {"since": field.since}
    if field.null is Null.NEVER:
        return {"name": field.name, "type": kind, "doc": _doc(field), **since}
    null = {"type": ["null", kind], "default": None}
    return {"name": field.name, **null, "doc": _doc(field), **since}


def _doc(field: Field) -> str:
    return f"{field.meaning.removesuffix('.')} [{field.unit}]." if field.unit else field.meaning


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _classification() -> dict[str, Any]:
    return {
        "type": "record",
        "namespace": "noctule.v1",
        "name": "Classification",
        "version": AVRO_VERSION,
        "doc": "What noctule says of one alert: its score, or the reason why there is none. Null is never "
        "zero: where reason is set, all score fields are null.",
        "fields": [_avro_field(field) for field in RECORD],
    }


def _in_file(file: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((SCHEMA_FOLDER / file).read_text())
    return record


def _schema(file: str, record: dict[str, Any]) -> MessageSchema:
    version = record.get("version", _UNNUMBERED)
    major, minor = _version(version)
    return MessageSchema(
        file, version, json.dumps(record, separators=(",", ":")), 100 * major + minor
    )


@cache
def as_of(schema: MessageSchema, version: str) -> MessageSchema:
    """Return the schema as it was in `version`: without the fields that came later (``since``).

    Raises
    ------
    ConfigurationError
        There has been no such version yet.
    """
    if version == schema.version:
        return schema
    if _version(version) > _version(schema.version):
        raise ConfigurationError(
            f"{schema.file} is {schema.version} in this release: it cannot write {version}"
        )
    then = [
        field
        for field in schema.record["fields"]
        if _version(field.get("since", _FIRST)) <= _version(version)
    ]
    return _schema(schema.file, {**schema.record, "version": version, "fields": then})


CLASSIFICATION: Final = _schema("noctule.v1.Classification.avsc", _classification())
LABEL_REQUEST: Final = _schema(_LABEL_REQUEST, _in_file(_LABEL_REQUEST))
DESC: Final = _schema(_DESC, _in_file(_DESC))

NAMED_PROBABILITIES: Final = pa.list_(
    pa.struct([("classId", pa.int32()), ("probability", pa.float64())])
)
"""Probabilities as they go out and into SQL: their classes named, by ascending classId."""


def for_desc(classified: pa.Table) -> pa.Table:
    """Return scored rows of a batch in the columns of :data:`DESC`."""
    n = classified.num_rows

    def always(text: str) -> pa.Array:
        return pa.repeat(pa.scalar(text), n)

    return pa.table(
        {
            "alertId": classified["dia_source_id"],
            "diaSourceId": classified["dia_source_id"],
            "elasticcPublishTimestamp": classified["arrival_ms"],
            "brokerIngestTimestamp": classified["processed_ms"],
            "brokerName": always(BROKER_NAME),
            "brokerVersion": always(BROKER_VERSION),
            "classifierName": pc.binary_join_element_wise(
                always("noctule-"), classified["model_version"], ""
            ),
            "classifierParams": pc.binary_join_element_wise(
                always("features="), classified["feature_digest"], ""
            ),
            "classifications": classified["probabilities"],
        }
    )


def key_of(survey: str, identifier: int) -> str:
    """Return the key of a message: the identifier, with its survey before it unless that is LSST.

    Examples
    --------
    >>> key_of("lsst", 17), key_of("ztf", 17)
    ('17', 'ztf:17')
    """
    return str(identifier) if survey == LSST.name else f"{survey}:{identifier}"


def frame(schema_id: int) -> bytes:
    """Return what precedes the body: byte 0, then the schema's id in 4 bytes, big-endian."""
    return b"\0" + schema_id.to_bytes(4, "big")


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema as a file into `folder`, which is created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for schema in (CLASSIFICATION, LABEL_REQUEST, DESC):
        path = folder / schema.file
        path.write_text(json.dumps(schema.record, indent=2) + "\n")
        written.append(path)
    return written
