"""Image generation, edits, variations and background removal."""
