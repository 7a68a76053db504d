"""The first tables, and the triggers that keep ledgers append-only.

There is no way back down: it would drop the label ledger. Restore a backup instead.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LEDGERS: Final = {"labels": "label_id", "promotions": "promotion_id", "trials": "trial_id"}
"""Append-only table to its key."""


def upgrade() -> None:
    _create_classifications()
    _create_objects()
    _create_rejected()
    _create_duplicates()
    _create_accounting()
    _create_models()
    _create_promotions()
    _create_trials()
    _create_label_requests()
    _create_labels()
    for table, key in LEDGERS.items():
        protect(table, key)


def protect(table: str, key: str) -> None:
    """Let triggers refuse every change of the rows of `table`."""
    if op.get_bind().dialect.name == "postgresql":
        _protect_postgresql(table)
    else:
        _protect_sqlite(table, key)


def _protect_sqlite(table: str, key: str) -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}")
    op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}")
    # INSERT OR REPLACE deletes the old row without asking the trigger above.
    op.execute(
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key}) {refuse}"
    )


def _protect_postgresql(table: str) -> None:
    op.execute(
        "CREATE OR REPLACE FUNCTION noctule_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME "
        "USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION noctule_refuse_change()"
    )


def _create_classifications() -> None:
    op.create_table(
        "classifications",
        sa.Column("dia_source_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("object_id", sa.BigInteger),
        sa.Column("ss_object_id", sa.BigInteger),
        sa.Column("survey", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("t_mjd_tai", sa.Double, nullable=False),
        sa.Column("arrival_ms", sa.BigInteger, nullable=False),
        sa.Column("processed_ms", sa.BigInteger, nullable=False),
        sa.Column("ra_deg", sa.Double),
        sa.Column("dec_deg", sa.Double),
        sa.Column("healpix", sa.BigInteger),
        sa.Column("band", sa.Text),
        sa.Column("flux_njy", sa.Double),
        sa.Column("sigma_njy", sa.Double),
        sa.Column("n_points", sa.Integer),
        sa.Column("days_since_first_detection", sa.Double),
        sa.Column("reason", sa.Text),
        sa.Column("class_id", sa.Integer),
        sa.Column("probability", sa.Double),
        sa.Column("probabilities", sa.JSON),
        sa.Column("prediction_set", sa.JSON),
        sa.Column("entropy", sa.Double),
        sa.Column("margin", sa.Double),
        sa.Column("novelty", sa.Double),
        sa.Column("novelty_far", sa.Double),
        sa.Column("model_version", sa.Text),
        sa.Column("feature_digest", sa.Text),
        sa.PrimaryKeyConstraint("dia_source_id", name="pk_classifications"),
        sa.UniqueConstraint(
            "topic", "kafka_partition", "kafka_offset", name="uq_classifications_topic"
        ),
    )
    op.create_index("ix_classifications_healpix", "classifications", ["healpix"])
    op.create_index("ix_classifications_batch", "classifications", ["run_id", "batch_id"])
    op.create_index("ix_classifications_object_time", "classifications", ["object_id", "t_mjd_tai"])


def _create_objects() -> None:
    op.create_table(
        "objects",
        sa.Column("object_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("survey", sa.Text, nullable=False),
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
        sa.PrimaryKeyConstraint("object_id", name="pk_objects"),
    )
    op.create_index("ix_objects_class", "objects", ["class_id", "probability"])
    op.create_index("ix_objects_healpix", "objects", ["healpix"])
    op.create_index("ix_objects_last", "objects", ["last_mjd_tai"])
    op.create_index("ix_objects_novelty", "objects", ["novelty"])


def _create_rejected() -> None:
    op.create_table(
        "rejected",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("arrival_ms", sa.BigInteger, nullable=False),
        sa.Column("processed_ms", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("packet", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("topic", "kafka_partition", "kafka_offset", name="pk_rejected"),
    )
    op.create_index("ix_rejected_batch", "rejected", ["run_id", "batch_id"])


def _create_duplicates() -> None:
    op.create_table(
        "duplicates",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger, nullable=False),
        sa.Column("dia_source_id", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("arrival_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic", "kafka_partition", "kafka_offset", name="pk_duplicates"),
    )


def _create_accounting() -> None:
    op.create_table(
        "accounting",
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
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("feature_digest", sa.Text, nullable=False),
        sa.Column("settings_digest", sa.Text, nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("committed_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "run_id", "batch_id", "topic", "kafka_partition", name="pk_accounting"
        ),
    )


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("feature_digest", sa.Text, nullable=False),
        sa.Column("training_digest", sa.Text, nullable=False),
        sa.Column("n_training_objects", sa.Integer, nullable=False),
        sa.Column("class_ids", sa.JSON, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("model_version", name="pk_models"),
    )


def _create_promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("promotion_id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("previous_version", sa.Text),
        sa.Column("promoted_ms", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("gate", sa.JSON),
        sa.Column("undoes", ROW_ID),
        sa.ForeignKeyConstraint(
            ["model_version"], ["models.model_version"], name="fk_promotions_model_version"
        ),
        sa.ForeignKeyConstraint(
            ["undoes"], ["promotions.promotion_id"], name="fk_promotions_undoes"
        ),
        sa.PrimaryKeyConstraint("promotion_id", name="pk_promotions"),
    )
    op.create_index("ix_promotions_alias", "promotions", ["alias", "promotion_id"])


def _create_trials() -> None:
    op.create_table(
        "trials",
        sa.Column("trial_id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("champion_version", sa.Text, nullable=False),
        sa.Column("challenger_version", sa.Text, nullable=False),
        sa.Column("tried_ms", sa.BigInteger, nullable=False),
        sa.Column("n_labels", sa.Integer, nullable=False),
        sa.Column("promoted", sa.Boolean, nullable=False),
        sa.Column("gate", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("trial_id", name="pk_trials"),
    )


def _create_label_requests() -> None:
    op.create_table(
        "label_requests",
        sa.Column("request_id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("object_id", sa.BigInteger, nullable=False),
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
        sa.PrimaryKeyConstraint("request_id", name="pk_label_requests"),
        sa.UniqueConstraint("object_id", name="uq_label_requests_object_id"),
    )
    op.create_index("ix_label_requests_night", "label_requests", ["night"])
    op.create_index("ix_label_requests_batch", "label_requests", ["run_id", "batch_id"])


def _create_labels() -> None:
    op.create_table(
        "labels",
        sa.Column("label_id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("object_id", sa.BigInteger, nullable=False),
        sa.Column("class_id", sa.Integer, nullable=False),
        sa.Column("reporter", sa.Text, nullable=False),
        sa.Column("instrument", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("redshift", sa.Double),
        sa.Column("observed_mjd_tai", sa.Double),
        sa.Column("comment", sa.Text),
        sa.Column("request_id", ROW_ID),
        sa.Column("reported_ms", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["label_requests.request_id"], name="fk_labels_request_id"
        ),
        sa.PrimaryKeyConstraint("label_id", name="pk_labels"),
    )
    op.create_index("ix_labels_object", "labels", ["object_id", "label_id"])
