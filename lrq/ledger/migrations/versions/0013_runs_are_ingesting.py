"""runs are ingesting

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE runs RENAME COLUMN taking_in TO ingesting")


def downgrade() -> None:
    op.execute("ALTER TABLE runs RENAME COLUMN ingesting TO taking_in")
