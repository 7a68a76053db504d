"""Every SQL table of noctule, in one place.

Conventions: ``*_mjd_tai`` is an event time in days, ``*_ms`` is a wall-clock time in milliseconds
since 1970-01-01 UTC, angles are degrees (ICRS), fluxes nJy. A null score always has a ``reason``
beside it. ``topic``, ``kafka_partition``, ``kafka_offset`` is where an alert was read, and every
offset that the stream has accounted for is in exactly one of ``classifications``, ``duplicates``
and ``rejected``: that is what ``noctule audit`` proves. Surveys number their alerts and objects
independently of each other: an identifier is unique only together with ``survey``.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from models.record import RECORD, Null

METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite autoincrements only a column spelled INTEGER; PostgreSQL needs 64 bits.
_ROW_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# None is SQL's NULL, as in every other column, not the JSON text "null".
_JSON: Final = sa.JSON(none_as_null=True)

# Most alerts are scored: an index of those that are not stays small.
_HAS_REASON: Final = sa.text("reason IS NOT NULL")


# An index begins with the identifier: from one that begins with the survey, a planner without statistics
# would read a whole survey.
def _key(name: str) -> list[sa.Column[int] | sa.Column[str]]:
    return [
        sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("survey", sa.Text, primary_key=True),
    ]


def _where_read() -> list[sa.Column[int] | sa.Column[str]]:
    return [
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger, nullable=False),
    ]


_SQL: Final[dict[str, Any]] = {
    "bigint": sa.BigInteger(),
    "integer": sa.Integer(),
    "double": sa.Double(),
    "text": sa.Text(),
    "json": _JSON,
}


def _record() -> list[sa.Column[Any]]:
    """Return the columns of :data:`models.record.RECORD` that are not part of the key."""
    return [
        sa.Column(field.name, _SQL[field.sql], nullable=field.null is not Null.NEVER)
        for field in RECORD
        if field.name not in {"survey", "dia_source_id"}
    ]


classifications: Final = sa.Table(
    "classifications",
    METADATA,
    *_key("dia_source_id"),
    *_record(),
    *_where_read(),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("healpix", sa.BigInteger),
    sa.UniqueConstraint("topic", "kafka_partition", "kafka_offset"),
    sa.Index("ix_classifications_object_time", "object_id", "survey", "t_mjd_tai"),
    sa.Index("ix_classifications_healpix", "healpix"),
    sa.Index("ix_classifications_batch", "run_id", "batch_id"),
    sa.Index(
        "ix_classifications_reason",
        "reason",
        postgresql_where=_HAS_REASON,
        sqlite_where=_HAS_REASON,
    ),
)
"""One row per alert: its score, or the reason why there is none. Key: survey, diaSourceId.

A field that is new in the record becomes a column when the database is opened, see
:func:`store.database.migrate`.
"""

objects: Final = sa.Table(
    "objects",
    METADATA,
    *_key("object_id"),
    sa.Column("ra_deg", sa.Double, nullable=False),
    sa.Column("dec_deg", sa.Double, nullable=False),
    sa.Column("healpix", sa.BigInteger, nullable=False),
    sa.Column("first_mjd_tai", sa.Double, nullable=False),
    sa.Column("last_mjd_tai", sa.Double, nullable=False),
    sa.Column("n_alerts", sa.Integer, nullable=False),
    sa.Column("last_dia_source_id", sa.BigInteger, nullable=False),
    sa.Column("class_id", sa.Integer),
    sa.Column("probability", sa.Double),
    sa.Column("entropy", sa.Double),
    sa.Column("novelty", sa.Double),
    sa.Column("novelty_far", sa.Double),
    sa.Column("model_version", sa.Text),
    sa.Index("ix_objects_healpix", "healpix"),
    sa.Index("ix_objects_last", "last_mjd_tai"),
    sa.Index("ix_objects_novelty", "novelty"),
    sa.Index("ix_objects_entropy", "entropy"),
    sa.Index("ix_objects_class", "class_id", "last_mjd_tai"),
    sa.Index("ix_objects_class_novelty", "class_id", "novelty"),
    sa.Index("ix_objects_class_entropy", "class_id", "entropy"),
)
"""One row per object: a fold over its classifications, updated with each batch."""

rejected: Final = sa.Table(
    "rejected",
    METADATA,
    *_where_read(),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("arrival_ms", sa.BigInteger, nullable=False),
    sa.Column("processed_ms", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("packet", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("topic", "kafka_partition", "kafka_offset"),
    sa.Index("ix_rejected_batch", "run_id", "batch_id"),
)
"""Packets that could not be read, with their original bytes."""

duplicates: Final = sa.Table(
    "duplicates",
    METADATA,
    *_where_read(),
    sa.Column("survey", sa.Text, nullable=False),
    sa.Column("dia_source_id", sa.BigInteger, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("arrival_ms", sa.BigInteger, nullable=False),
    # Names of the columns in which it differs from the classified alert; null if it has the same content.
    sa.Column("differs", sa.Text),
    sa.PrimaryKeyConstraint("topic", "kafka_partition", "kafka_offset"),
)
"""Offsets whose diaSourceId had already been classified from another offset.

The light curve of each is in Delta, under its offset.
"""

HOLDING: Final = (classifications, duplicates, rejected)
"""Every offset that was read is in exactly one of these tables."""


def within(
    table: sa.Table, topic: str, partition: int, start: int, end: int
) -> sa.ColumnElement[bool]:
    """Return the condition for rows of one of :data:`HOLDING` that were read at ``[start, end)``."""
    return sa.and_(
        table.c.topic == topic,
        table.c.kafka_partition == partition,
        table.c.kafka_offset >= start,
        table.c.kafka_offset < end,
    )


accounting: Final = sa.Table(
    "accounting",
    METADATA,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("kafka_partition", sa.Integer, nullable=False),
    sa.Column("start_offset", sa.BigInteger, nullable=False),
    sa.Column("end_offset", sa.BigInteger, nullable=False),
    sa.Column("n_read", sa.BigInteger, nullable=False),
    sa.Column("n_classified", sa.BigInteger, nullable=False),
    sa.Column("n_not_evaluated", sa.BigInteger, nullable=False),
    sa.Column("n_duplicate", sa.BigInteger, nullable=False),
    sa.Column("n_rejected", sa.BigInteger, nullable=False),
    # Offsets that Kafka removed before they were read.
    sa.Column("n_lost", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("feature_digest", sa.Text, nullable=False),
    sa.Column("settings_digest", sa.Text, nullable=False),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
    sa.Column("committed_ms", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "batch_id", "topic", "kafka_partition"),
    sa.Index("ix_accounting_committed", "committed_ms"),
)
"""One row per run, batch and partition: the counts by outcome of the offsets [start_offset, end_offset)."""

batches: Final = sa.Table(
    "batches",
    METADATA,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("routes", _JSON, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "batch_id"),
)
"""One row per run and batch: by which routes its messages went out, see :mod:`stream.routes`."""

models: Final = sa.Table(
    "models",
    METADATA,
    sa.Column("model_version", sa.Text, primary_key=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("feature_digest", sa.Text, nullable=False),
    sa.Column("training_digest", sa.Text, nullable=False),
    sa.Column("n_training_objects", sa.Integer, nullable=False),
    sa.Column("class_ids", _JSON, nullable=False),
    sa.Column("metrics", _JSON, nullable=False),
)
"""Every model version that was ever registered; the artifact itself is the folder at ``path``."""

promotions: Final = sa.Table(
    "promotions",
    METADATA,
    sa.Column("promotion_id", _ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, sa.ForeignKey("models.model_version"), nullable=False),
    sa.Column("previous_version", sa.Text),
    sa.Column("promoted_ms", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("gate", _JSON),
    # Set on the row of a rollback: the promotion that it undoes.
    sa.Column("undoes", _ROW_ID, sa.ForeignKey("promotions.promotion_id")),
    sa.Index("ix_promotions_alias", "alias", "promotion_id"),
)
"""Append-only: an alias (such as 'champion') stands for the version of its newest row."""

trials: Final = sa.Table(
    "trials",
    METADATA,
    sa.Column("trial_id", _ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("champion_version", sa.Text, nullable=False),
    sa.Column("challenger_version", sa.Text, nullable=False),
    sa.Column("tried_ms", sa.BigInteger, nullable=False),
    sa.Column("n_labels", sa.Integer, nullable=False),
    sa.Column("promoted", sa.Boolean, nullable=False),
    sa.Column("gate", _JSON, nullable=False),
)
"""Every comparison of a challenger with the champion on the frozen set, won or lost."""

label_requests: Final = sa.Table(
    "label_requests",
    METADATA,
    sa.Column("request_id", _ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("survey", sa.Text, nullable=False),
    sa.Column("object_id", sa.BigInteger, nullable=False),
    # Who requests it: each program requests an object at most once.
    sa.Column("program", sa.Text, nullable=False),
    sa.Column("dia_source_id", sa.BigInteger, nullable=False),
    sa.Column("night", sa.Integer, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("utility", sa.Double, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("requested_ms", sa.BigInteger, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("ra_deg", sa.Double, nullable=False),
    sa.Column("dec_deg", sa.Double, nullable=False),
    sa.Column("band", sa.Text),
    sa.Column("flux_njy", sa.Double),
    sa.Column("t_mjd_tai", sa.Double, nullable=False),
    sa.UniqueConstraint("object_id", "survey", "program"),
    sa.Index("ix_label_requests_night", "night"),
    sa.Index("ix_label_requests_batch", "run_id", "batch_id"),
)
"""Requests for spectra, one per object and program; their events are in ``request_events``."""

request_events: Final = sa.Table(
    "request_events",
    METADATA,
    sa.Column("event_id", _ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("request_id", _ROW_ID, sa.ForeignKey("label_requests.request_id"), nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("why", sa.Text),
    sa.Index("ix_request_events_request", "request_id", "event_id"),
)
"""Append-only: the events of each request, whose state is a fold."""

labels: Final = sa.Table(
    "labels",
    METADATA,
    sa.Column("label_id", _ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("survey", sa.Text, nullable=False),
    sa.Column("object_id", sa.BigInteger, nullable=False),
    sa.Column("class_id", sa.Integer, nullable=False),
    sa.Column("reporter", sa.Text, nullable=False),
    sa.Column("instrument", sa.Text),
    sa.Column("confidence", sa.Double),
    sa.Column("redshift", sa.Double),
    sa.Column("observed_mjd_tai", sa.Double),
    sa.Column("comment", sa.Text),
    sa.Column("request_id", _ROW_ID, sa.ForeignKey("label_requests.request_id")),
    sa.Column("reported_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_labels_object", "object_id", "survey", "label_id"),
)
"""The append-only label ledger: triggers refuse UPDATE and DELETE. The current label is a fold."""
