"""Definitions shared by the frontend, the export and the backends. Imports only the standard library and jinja2."""
