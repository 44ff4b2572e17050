"""responses keep their tokens

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("responses", schema=None) as batch_op:
        batch_op.add_column(sa.Column("ids", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("written", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("form", sa.String(length=32), server_default="", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("responses", schema=None) as batch_op:
        batch_op.drop_column("form")
        batch_op.drop_column("written")
        batch_op.drop_column("ids")
