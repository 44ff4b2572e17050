"""rows have turns

Revision ID: 0008
Revises: 0005
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.add_column(sa.Column("body", sa.Text(), server_default="", nullable=False))
    conn = op.get_bind()
    old = conn.execute(sa.text("SELECT id, prompt, chosen, rejected, p_w, p_l FROM rows")).mappings().all()
    for row in old:
        prompt = row["prompt"]
        rejected = None if row["rejected"] is None else [prompt, row["rejected"]]
        figures = {name: row[name] for name in ("p_w", "p_l") if row[name] is not None}
        body = {"turns": [[prompt, [prompt, row["chosen"]], rejected, None]], "figures": figures}
        conn.execute(
            sa.text("UPDATE rows SET body = :body WHERE id = :id"), {"body": json.dumps(body), "id": row["id"]}
        )
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.drop_constraint("uq_rows_item_id_round_prompt", type_="unique")
        batch_op.alter_column("prompt", new_column_name="place")
        for name in ("chosen", "rejected", "p_w", "p_l"):
            batch_op.drop_column(name)
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.create_unique_constraint("uq_rows_item_id_round_place", ["item_id", "round", "place"])


def downgrade() -> None:
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.drop_constraint("uq_rows_item_id_round_place", type_="unique")
        batch_op.alter_column("place", new_column_name="prompt")
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.add_column(sa.Column("chosen", sa.Integer(), server_default="0", nullable=False))
        for name, type_ in (("rejected", sa.Integer()), ("p_w", sa.Float()), ("p_l", sa.Float())):
            batch_op.add_column(sa.Column(name, type_, nullable=True))
        batch_op.create_unique_constraint("uq_rows_item_id_round_prompt", ["item_id", "round", "prompt"])
    conn = op.get_bind()
    for row in conn.execute(sa.text("SELECT id, body FROM rows")).mappings().all():
        body = json.loads(row["body"])
        prompt, chosen, rejected, _ = body["turns"][0]
        values = {"prompt": prompt, "chosen": chosen[1], "rejected": rejected and rejected[1]}
        values |= {name: body["figures"].get(name) for name in ("p_w", "p_l")} | {"id": row["id"]}
        update = "UPDATE rows SET prompt = :prompt, chosen = :chosen, rejected = :rejected, p_w = :p_w, p_l = :p_l"
        conn.execute(sa.text(f"{update} WHERE id = :id"), values)
    with op.batch_alter_table("rows", schema=None) as batch_op:
        batch_op.drop_column("body")
