"""What goes out to Kafka, as bytes: rows of the tables into Avro.

The schema of a classification is made from :mod:`models.record`, the others are the files in
``stream/schemas``; ``noctule schemas FOLDER`` hands all of them out and ``docs/messages.md`` describes
them. A value depends on its row and its schema id alone, never on the
process that makes it, but for the release of noctule that DESC's form names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fastavro
import fastavro.schema

from models.record import AVRO_VERSION, RECORD, Field, Kind, Null

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_FOLDER: Final = Path(__file__).with_name("schemas")

# Tells fastavro which branch of [null, array] is meant; finding out by itself takes twice as long.
_ARRAY: Final = "array"

BROKER_NAME: Final = "noctule"
BROKER_VERSION: Final = version("noctule")


@dataclass(frozen=True)
class MessageSchema:
    """The schema of one kind of message.

    Attributes
    ----------
    file
        The name of its file.
    text
        The same as one line, as a registry gets it.
    default_id
        What stands in the frame where there is no registry: ``major * 100 + minor`` of the schema's
        version, as Rubin numbers its own.
    """

    file: str
    text: str
    default_id: int
    _parsed: Any

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Return the Avro body of a record."""
        body = BytesIO()
        fastavro.schemaless_writer(body, self._parsed, record)
        return body.getvalue()


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
    if field.null is Null.NEVER:
        return {"name": field.name, "type": kind, "doc": _doc(field)}
    return {"name": field.name, "type": ["null", kind], "default": None, "doc": _doc(field)}


def _doc(field: Field) -> str:
    return f"{field.meaning.removesuffix('.')} [{field.unit}]." if field.unit else field.meaning


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


def _schema(file: str, record: dict[str, Any] | None = None) -> MessageSchema:
    """Return the schema that `record` is, or that the file holds."""
    record = record or json.loads((SCHEMA_FOLDER / file).read_text())
    major, minor = map(int, record.get("version", "0.0").split("."))
    text = json.dumps(record, separators=(",", ":"))
    parsed = fastavro.schema.parse_schema(json.loads(text))
    return MessageSchema(file, text, 100 * major + minor, parsed)


CLASSIFICATION: Final = _schema("noctule.v1.Classification.avsc", _classification())
LABEL_REQUEST: Final = _schema("noctule.v1.LabelRequest.avsc")
DESC: Final = _schema("elasticc.v0_9_1.brokerClassification.avsc")


def key_of(survey: str, identifier: int) -> str:
    """Return the key of a message: the identifier, with its survey before it unless that is LSST.

    Examples
    --------
    >>> key_of("lsst", 17), key_of("ztf", 17)
    ('17', 'ztf:17')
    """
    return str(identifier) if survey == "lsst" else f"{survey}:{identifier}"


def frame(schema_id: int) -> bytes:
    """Return what precedes the body: byte 0, then the schema's id in 4 bytes, big-endian."""
    return b"\0" + schema_id.to_bytes(4, "big")


def classification_body(row: Mapping[str, Any]) -> bytes:
    """Return a row of ``classifications`` as the body of a :data:`CLASSIFICATION`."""
    if row["probabilities"] is None:
        return CLASSIFICATION.encode(row)
    arrays = {
        "probabilities": (_ARRAY, _by_class(row["probabilities"])),
        "prediction_set": (_ARRAY, row["prediction_set"]),
    }
    return CLASSIFICATION.encode({**row, **arrays})


def label_request_body(row: Mapping[str, Any]) -> bytes:
    """Return a row of ``label_requests`` as the body of a :data:`LABEL_REQUEST`."""
    return LABEL_REQUEST.encode(row)


def desc_body(row: Mapping[str, Any]) -> bytes:
    """Return a row of ``classifications`` that was scored as the body of a :data:`DESC`."""
    return DESC.encode(
        {
            "alertId": row["dia_source_id"],
            "diaSourceId": row["dia_source_id"],
            "elasticcPublishTimestamp": row["arrival_ms"],
            "brokerIngestTimestamp": row["processed_ms"],
            "brokerName": BROKER_NAME,
            "brokerVersion": BROKER_VERSION,
            "classifierName": f"noctule-{row['model_version']}",
            "classifierParams": f"features={row['feature_digest']}",
            "classifications": _by_class(row["probabilities"]),
        }
    )


def _by_class(probabilities: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return probabilities by class, in an order that no database's JSON can change."""
    by_class = sorted((int(class_id), p) for class_id, p in probabilities.items())
    return [{"classId": class_id, "probability": p} for class_id, p in by_class]


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema as a file into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for schema in (CLASSIFICATION, LABEL_REQUEST, DESC):
        path = folder / schema.file
        path.write_text(json.dumps(json.loads(schema.text), indent=2) + "\n")
        written.append(path)
    return written
