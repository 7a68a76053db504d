"""The routes by which a batch went out are kept with it: a replay sends the same bytes under any settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("routes", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "batch_id", name="pk_batches"),
    )
