"""Converts messages to prompts."""
