"""The backend for image generation."""
