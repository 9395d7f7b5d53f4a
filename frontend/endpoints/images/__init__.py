"""Endpoints for image generation, edits, variations and background removal."""
