"""Constraints to grammars."""
