"""Background removal."""
