"""runs are forked: what was put aside for a rescore is no more

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("past_scores")


def downgrade() -> None:
    id_ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "past_scores",
        sa.Column("id", id_, nullable=False),
        sa.Column("item_id", id_, nullable=False),
        sa.Column("round", sa.Integer(), server_default="0", nullable=False),
        sa.Column("prompt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("dimension", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("evidence", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_past_scores")),
        sa.UniqueConstraint(
            "item_id",
            "round",
            "prompt",
            "k",
            "dimension",
            "revision",
            name=op.f("uq_past_scores_item_id_round_prompt_k_dimension_revision"),
        ),
    )
