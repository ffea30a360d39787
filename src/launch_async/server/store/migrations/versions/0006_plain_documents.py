"""Configs and summaries that a database can look into, also where the text is no plain JSON."""

import sqlalchemy as sa
from alembic import op

from launch_async.server.json_text import plain_copy
from launch_async.server.store.tables import JsonDocument, document_of

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BATCH = 200

runs = sa.table(
    "runs",
    sa.column("id", sa.Integer()),
    sa.column("config", sa.Text()),
    sa.column("summary", sa.Text()),
    sa.column("config_plain", sa.Text()),
    sa.column("summary_plain", sa.Text()),
)


def upgrade() -> None:
    """Add the columns and fill them."""
    op.add_column("runs", sa.Column("config_plain", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("summary_plain", sa.Text(), nullable=True))
    connection = op.get_bind()
    last = 0
    while batch := connection.execute(
        sa.select(runs.c.id, runs.c.config, runs.c.summary)
        .where(runs.c.id > last)
        .order_by(runs.c.id)
        .limit(BATCH)
    ).all():
        for run_id, config, summary in batch:
            last = run_id
            copies = {"config_plain": _copy(config), "summary_plain": _copy(summary)}
            if any(copy is not None for copy in copies.values()):
                connection.execute(sa.update(runs).where(runs.c.id == run_id).values(**copies))
    # PostgreSQL keeps it parsed; to a SQLite table such a column cannot be added.
    kept = True if connection.dialect.name == "postgresql" else None
    for name in ("config", "summary"):
        computed = sa.Computed(document_of(name), persisted=kept)
        op.add_column("runs", sa.Column(f"{name}_document", JsonDocument, computed, nullable=True))


def _copy(text: str) -> str | None:
    try:
        return plain_copy(text)
    except ValueError:
        return "{}"
