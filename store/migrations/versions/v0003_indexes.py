"""Indexes for the portal's queries on ten million alerts; measured by ``benchmarks.tables``.

Before, the newest and the strangest objects of a class were found by sorting all of them, the most uncertain
objects by sorting the whole table, and the status by reading every alert. No query used (class_id,
probability).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_objects_class", "objects")
    op.create_index("ix_objects_class", "objects", ["class_id", "last_mjd_tai"])
    op.create_index("ix_objects_entropy", "objects", ["entropy"])
    op.create_index("ix_objects_class_novelty", "objects", ["class_id", "novelty"])
    op.create_index("ix_objects_class_entropy", "objects", ["class_id", "entropy"])
    there = sa.text("reason IS NOT NULL")
    op.create_index(
        "ix_classifications_reason",
        "classifications",
        ["reason"],
        postgresql_where=there,
        sqlite_where=there,
    )
    op.create_index("ix_accounting_committed", "accounting", ["committed_ms"])
