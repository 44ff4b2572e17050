"""rows know their training

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.add_column(sa.Column("window", sa.Integer(), nullable=True))
        batch_op.create_index(
            "ix_rows_untrained",
            ["run_id", "round", "id"],
            unique=False,
            sqlite_where=sa.text('"window" IS NULL'),
            postgresql_where=sa.text('"window" IS NULL'),
        )
    conn = op.get_bind()
    opened = sa.text('SELECT run_id, round, "window", rows FROM trainings ORDER BY run_id, round, "window"')
    first = sa.text(
        'UPDATE rows SET "window" = :window WHERE id IN (SELECT id FROM rows '
        'WHERE run_id = :run_id AND round = :round AND "window" IS NULL ORDER BY id LIMIT :rows)'
    )
    for training in conn.execute(opened).mappings().all():
        conn.execute(first, dict(training))


def downgrade() -> None:
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_rows_untrained", sqlite_where=sa.text('"window" IS NULL'), postgresql_where=sa.text('"window" IS NULL')
        )
        batch_op.drop_column("window")
