"""Runs the migrations on the connection that Store passes."""

from alembic import context

from frontend.gateway.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
