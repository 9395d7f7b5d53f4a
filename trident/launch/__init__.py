"""Starts Triton and the frontend, and keeps them running."""
