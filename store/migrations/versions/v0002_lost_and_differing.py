"""Offsets that Kafka removed before they were read, and repeats with other content."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "accounting", sa.Column("n_lost", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column("duplicates", sa.Column("differs", sa.Text))
