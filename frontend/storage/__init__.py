"""Files kept for a time: generated images and responses."""
