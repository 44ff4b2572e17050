"""Alembic's entry: runs on the connection that lrq.ledger.engine hands over."""

from alembic import context

from lrq.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
