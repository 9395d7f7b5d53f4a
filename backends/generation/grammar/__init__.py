"""Converts constraints on a model's output to grammars, and compiles the grammars."""
