"""endpoints are learned

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "learned",
        sa.Column("server", sa.String(length=200), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("topic", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("server", "model", "topic", "name", name=op.f("pk_learned")),
    )
    for table, type_ in (("calls", sa.Integer()), ("usage", sa.BigInteger())):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("reasoning_tokens", type_, server_default="0", nullable=False))


def downgrade() -> None:
    for table in ("usage", "calls"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("reasoning_tokens")
    op.drop_table("learned")
