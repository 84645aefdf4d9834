"""Run by Alembic; the connection is handed over by :func:`webshop.database.migrate`."""

from alembic import context

from webshop.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
