"""Names of artifact files sorted by code points, so that pages of them come from their index.

SQLite sorts so by itself.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the column's collation."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE artifact_files ALTER COLUMN name TYPE varchar(1024) COLLATE "C"')
