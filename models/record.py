"""The fields of noctule's record of one alert, declared once.

This list defines the rows that workers hand to the driver and the columns of the Delta table
(:mod:`stream.rows`), the SQL table ``classifications`` (:mod:`store.tables`), the Avro schema of a
classification (:mod:`stream.messages`), the JSON of an alert (:mod:`portal.shapes`), the table that
``Model.score`` returns, and the page ``docs/record.md`` (``python -m models.record > docs/record.md``).

The order is the Avro schema's: a new field is appended, may be null, and names the version of the schema
that introduced it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pyarrow as pa


class Kind(StrEnum):
    """The kind of a value; each place that shows it has its own type for the kind."""

    INT64 = "int64"
    INT32 = "int32"
    FLOAT64 = "float64"
    TEXT = "text"
    PROBABILITIES = "probabilities"
    CLASS_IDS = "class_ids"


ARROW: Final = {
    Kind.INT64: pa.int64(),
    Kind.INT32: pa.int32(),
    Kind.FLOAT64: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.PROBABILITIES: pa.list_(pa.float64()),
    Kind.CLASS_IDS: pa.list_(pa.int32()),
}
"""Probabilities are in the order of the model's classes; everywhere else their classes are named."""

SQL: Final = {
    Kind.INT64: "bigint",
    Kind.INT32: "integer",
    Kind.FLOAT64: "double",
    Kind.TEXT: "text",
    Kind.PROBABILITIES: "json",
    Kind.CLASS_IDS: "json",
}


class Null(StrEnum):
    """When a field is null."""

    NEVER = "never"
    UNKNOWN = "where the packet does not say"
    NO_MODEL = "where the alert's survey has no model"
    REASON = "where the alert was scored"
    NOT_SCORED = "where `reason` says why there is no score"
    NO_POINT = "where the light curve has no usable point"


class Group(StrEnum):
    """Where a value comes from: the packet, the stream that read it, or the model that scored it."""

    PACKET = "packet"
    STREAM = "stream"
    SCORE = "score"


@dataclass(frozen=True)
class Field:
    """One field of the record.

    Attributes
    ----------
    name
        Its name everywhere; permanent.
    kind
        What its value is.
    unit
        As the Virtual Observatory writes units (VOUnits 1.1); empty for a pure number, a name, a list.
    ucd
        Unified content descriptor (UCD1+ 1.5).
    null
        When it is null.
    group
        Where it comes from.
    meaning
        One sentence.
    since
        The version of the Avro schema that it came with.
    """

    name: str
    kind: Kind
    unit: str
    ucd: str
    null: Null
    group: Group
    meaning: str
    since: str = "1.0"

    @property
    def arrow(self) -> pa.DataType:
        """Its type in Arrow."""
        return ARROW[self.kind]

    @property
    def sql(self) -> str:
        """Its type in SQL."""
        return SQL[self.kind]


def _packet(
    name: str, kind: Kind, unit: str, ucd: str, meaning: str, null: Null = Null.UNKNOWN
) -> Field:
    return Field(name, kind, unit, ucd, null, Group.PACKET, meaning)


def _score(
    name: str,
    kind: Kind,
    unit: str,
    ucd: str,
    meaning: str,
    null: Null = Null.NOT_SCORED,
    since: str = "1.0",
) -> Field:
    return Field(name, kind, unit, ucd, null, Group.SCORE, meaning, since)


RECORD: Final[tuple[Field, ...]] = (
    _packet("dia_source_id", Kind.INT64, "", "meta.id;meta.main",
            "diaSourceId of the alert; candid for ZTF.", Null.NEVER),
    _packet("object_id", Kind.INT64, "", "meta.id",
            "diaObjectId; null for an alert that belongs to no object."),
    _packet("ss_object_id", Kind.INT64, "", "meta.id",
            "ssObjectId; null unless the alert belongs to a solar system object."),
    _packet("survey", Kind.TEXT, "", "meta.id",
            "Whose alert it is, by the survey's name: lsst, ztf.", Null.NEVER),
    _packet("t_mjd_tai", Kind.FLOAT64, "d", "time.epoch;obs",
            "Event time: when the observation was made, MJD, TAI.", Null.NEVER),
    Field("arrival_ms", Kind.INT64, "ms", "time.epoch", Null.NEVER, Group.STREAM,
          "Arrival time: Kafka's stamp of the alert, milliseconds since 1970-01-01 UTC."),
    Field("processed_ms", Kind.INT64, "ms", "time.processing", Null.NEVER, Group.STREAM,
          "Processing time: when the alert was scored, milliseconds since 1970-01-01 UTC."),
    _packet("ra_deg", Kind.FLOAT64, "deg", "pos.eq.ra;meta.main", "Right ascension, ICRS."),
    _packet("dec_deg", Kind.FLOAT64, "deg", "pos.eq.dec;meta.main", "Declination, ICRS."),
    _packet("band", Kind.TEXT, "", "instr.bandpass",
            "Band of the alert's own observation: u g r i z y for LSST, names such as ztf_g for others."),
    _packet("flux_njy", Kind.FLOAT64, "nJy", "phot.flux.density",
            "Difference flux of the alert's own observation; may be negative."),
    _packet("sigma_njy", Kind.FLOAT64, "nJy", "stat.error;phot.flux.density",
            "Standard error of flux_njy."),
    _packet("n_points", Kind.INT32, "", "meta.number;obs",
            "Points of the light curve that was scored."),
    _score("reason", Kind.TEXT, "", "meta.code.error",
           "Null where the alert was scored, else the reason code why not.", Null.REASON),
    _score("class_id", Kind.INT32, "", "meta.code.class;meta.main",
           "The most probable class, DESC classId."),
    _score("probability", Kind.FLOAT64, "", "stat.probability",
           "Calibrated probability of class_id, 0 to 1."),
    _score("probabilities", Kind.PROBABILITIES, "", "stat.probability",
           "Every class of the model with its calibrated probability, by ascending classId."),
    _score("prediction_set", Kind.CLASS_IDS, "", "meta.code.class",
           "Classes (DESC classId) that together hold the true one as often as the configured coverage "
           "says."),
    _score("entropy", Kind.FLOAT64, "", "stat.value",
           "Entropy of the probabilities, nats: 0 is certain."),
    _score("margin", Kind.FLOAT64, "", "stat.value",
           "Highest probability less the second highest, 0 to 1."),
    _score("novelty", Kind.FLOAT64, "", "stat.rank",
           "Novelty score: the higher, the less any known class explains the alert."),
    _score("novelty_far", Kind.FLOAT64, "", "stat.probability",
           "Share of ordinary alerts that are at least as novel: false-alarm rate, 0 to 1."),
    _score("model_version", Kind.TEXT, "", "meta.version",
           "Version of the model that scored the alert.", Null.NO_MODEL),
    _score("feature_digest", Kind.TEXT, "", "meta.version",
           "Digest of the ordered set of features that the model was given.", Null.NO_MODEL),
    _score("days_since_first_detection", Kind.FLOAT64, "d", "time.interval",
           "From the object's first detection in its light curve to the alert.",
           Null.NO_POINT, "1.1"),
    _score("raw_entropy", Kind.FLOAT64, "", "stat.value",
           "Entropy of the classifiers' probabilities before calibration, nats; where it differs much from "
           "entropy, calibration changed how certain the model is.", since="1.1"),
)  # fmt: skip

AVRO_VERSION: Final = RECORD[-1].since
"""Version of the Avro schema that this list defines: fields are appended, so the last one is the newest."""

ROW_FIELDS: Final = tuple(field for field in RECORD if field.group is not Group.STREAM)
"""The fields that a worker knows once it has scored an alert."""
SCORE_FIELDS: Final = tuple(field for field in RECORD if field.group is Group.SCORE)

_HEAD: Final = """# The record of a score

Generated by `python -m models.record > docs/record.md`; a test compares the two. What noctule says of one
alert is one record, the same in the SQL table `classifications`, the Delta table, the Kafka messages, the
REST interface and `Model.score`. The list is declared in `models/record.py`; a new field is added there,
and nowhere else.

| field | type | unit | UCD | null | meaning |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    rows = (
        f"| `{f.name}` | {f.kind} | {f.unit} | `{f.ucd}` | {f.null} | {f.meaning} |" for f in RECORD
    )
    return _HEAD + "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(page() + "\n")
