"""Parses a model's output into events: text, reasoning and tool calls. Does no I/O."""
