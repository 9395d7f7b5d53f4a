"""Conversions that run in environments of their own, with torch."""
