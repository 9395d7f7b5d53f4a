"""Encoded audio to samples and back."""
