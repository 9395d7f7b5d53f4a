"""Conversion scripts that run in separate environments with torch."""
