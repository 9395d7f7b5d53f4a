"""Temporary storage of generated images and responses."""
