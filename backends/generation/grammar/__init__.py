"""Converts constraints to grammars, and compiles them."""
