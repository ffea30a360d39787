"""An index of a queue's items by age: what people list."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_index(
        op.f("ix_queue_items_queue_id_id"), "queue_items", ["queue_id", "id"], unique=False
    )
