"""What the frontend, the export and the backends must agree on. Imports the standard library and jinja2 only."""
