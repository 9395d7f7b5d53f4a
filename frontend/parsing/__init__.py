"""Parses a model's text into events, without I/O."""
