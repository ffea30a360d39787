"""An index of the items that a pop may take, in the order in which it takes them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    is_open = sa.text("state IN ('PENDING', 'LEASED')")
    op.create_index(
        op.f("ix_queue_items_queue_id_priority_id"),
        "queue_items",
        ["queue_id", "priority", "id"],
        unique=False,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
