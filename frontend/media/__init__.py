"""Reads the files that a request references by URL."""
