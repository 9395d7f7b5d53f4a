"""Tokens to responses."""
