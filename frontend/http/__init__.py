"""Reads requests and writes responses: what every view does in the same way."""
