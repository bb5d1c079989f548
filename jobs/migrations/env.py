"""Alembic's entry: runs on the connection, and in the transaction, that `jobs.database.migrate` hands over."""

from alembic import context

from jobs.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
