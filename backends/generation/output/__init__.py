"""Converts generated tokens to text, and sends the text as responses."""
