"""Pure functions from a model's output to what goes over the wire."""
