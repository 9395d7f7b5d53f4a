"""Alembic's migrations of the store. Store.prepare applies them."""
