"""Converts messages, text and token IDs to prompts for the engine."""
