"""Keys are (survey, id), requests belong to a program, and the events of a request are recorded.

Requests and labels take their survey from their object, repeats from the alert that they repeat; where
that is unknown it is 'lsst'. SQLite copies the tables of alerts and objects: it cannot give a table
another key.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from store.migrations.versions.v0001_first_tables import ROW_ID, protect

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TAKEN: Final = """
    UPDATE {table} SET survey = COALESCE(
        (SELECT MIN(known.survey) FROM {known} AS known WHERE known.{id} = {table}.{id}), 'lsst')
"""
_ANSWERED: Final = """
    INSERT INTO request_events (request_id, event, who, at_ms, why)
    SELECT label_requests.request_id, 'answered', labels.reporter, labels.reported_ms,
        'label ' || labels.label_id
    FROM label_requests JOIN labels ON labels.label_id = (
        SELECT MIN(label_id) FROM labels AS other
        WHERE other.survey = label_requests.survey AND other.object_id = label_requests.object_id)
    ORDER BY labels.label_id
"""
_ASKED: Final = """
    INSERT INTO request_events (request_id, event, who, at_ms, why)
    SELECT request_id, 'asked', strategy || ' in run ' || run_id, requested_ms, why
    FROM label_requests ORDER BY request_id
"""


def upgrade() -> None:
    _let_labels_change()
    _name_surveys()
    _key_alerts_and_objects()
    _key_requests_and_labels()
    _create_events()
    protect("labels", "label_id")
    protect("request_events", "event_id")


def _let_labels_change() -> None:
    """Drop the triggers of the ledger; SQLite's would go with the copied table in any case."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER labels_append_only ON labels")
    else:
        for change in ("update", "delete", "replace"):
            op.execute(f"DROP TRIGGER labels_no_{change}")


def _name_surveys() -> None:
    for table, known, name in (
        ("duplicates", "classifications", "dia_source_id"),
        ("label_requests", "objects", "object_id"),
        ("labels", "objects", "object_id"),
    ):
        op.add_column(table, sa.Column("survey", sa.Text))
        op.execute(_TAKEN.format(table=table, known=known, id=name))
    op.add_column("label_requests", sa.Column("program", sa.Text))
    op.execute("UPDATE label_requests SET program = 'noctule'")


def _key_alerts_and_objects() -> None:
    op.drop_index("ix_classifications_object_time", "classifications")
    for table, name in (("classifications", "dia_source_id"), ("objects", "object_id")):
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"pk_{table}", type_="primary")
            batch.create_primary_key(f"pk_{table}", [name, "survey"])
    op.create_index(
        "ix_classifications_object_time", "classifications", ["object_id", "survey", "t_mjd_tai"]
    )
    with op.batch_alter_table("duplicates") as batch:
        batch.alter_column("survey", nullable=False)


def _key_requests_and_labels() -> None:
    op.drop_index("ix_labels_object", "labels")
    with op.batch_alter_table("labels") as batch:
        batch.alter_column("survey", nullable=False)
        batch.drop_constraint("fk_labels_request_id", type_="foreignkey")
    with op.batch_alter_table("label_requests") as batch:
        batch.alter_column("survey", nullable=False)
        batch.alter_column("program", nullable=False)
        batch.drop_constraint("uq_label_requests_object_id", type_="unique")
        batch.create_unique_constraint(
            "uq_label_requests_object_id", ["object_id", "survey", "program"]
        )
    with op.batch_alter_table("labels") as batch:  # SQLite refuses to copy what a row refers to
        batch.create_foreign_key(
            "fk_labels_request_id", "label_requests", ["request_id"], ["request_id"]
        )
    op.create_index("ix_labels_object", "labels", ["object_id", "survey", "label_id"])


def _create_events() -> None:
    op.create_table(
        "request_events",
        sa.Column("event_id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("request_id", ROW_ID, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("why", sa.Text),
        sa.ForeignKeyConstraint(
            ["request_id"], ["label_requests.request_id"], name="fk_request_events_request_id"
        ),
        sa.PrimaryKeyConstraint("event_id", name="pk_request_events"),
    )
    op.create_index("ix_request_events_request", "request_events", ["request_id", "event_id"])
    op.execute(_ASKED)
    op.execute(_ANSWERED)
