"""An index of the items that were requeued, by the item whose spec they took."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    was_requeued = sa.text("requeued_from IS NOT NULL")
    op.create_index(
        op.f("ix_queue_items_requeued_from"),
        "queue_items",
        ["requeued_from"],
        unique=False,
        sqlite_where=was_requeued,
        postgresql_where=was_requeued,
    )
