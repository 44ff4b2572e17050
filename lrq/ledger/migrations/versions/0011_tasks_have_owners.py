"""tasks have owners

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("owner", sa.String(length=40), server_default="", nullable=False))
    running = sa.text("state = 'running'")
    op.create_index("ix_tasks_running", "tasks", ["owner"], sqlite_where=running, postgresql_where=running)


def downgrade() -> None:
    op.execute("UPDATE tasks SET state = 'ready' WHERE state = 'running'")
    op.drop_index("ix_tasks_running", "tasks")
    op.drop_column("tasks", "owner")
