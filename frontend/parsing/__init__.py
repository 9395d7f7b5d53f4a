"""Pure functions from a model's text to events."""
