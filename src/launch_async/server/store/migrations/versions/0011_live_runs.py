"""An index of the runs that are under way: the server looks through them for silent ones."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    is_live = sa.text("state IN ('running', 'preempting')")
    op.create_index(
        "ix_runs_live",
        "runs",
        ["id"],
        unique=False,
        sqlite_where=is_live,
        postgresql_where=is_live,
    )
