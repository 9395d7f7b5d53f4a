"""Definitions that the frontend, the export and the backends share.

These modules import only each other, the standard library and jinja2.
"""
