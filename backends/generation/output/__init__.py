"""Converts tokens to text, and sends it as responses."""
