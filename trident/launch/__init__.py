"""Starts and watches Triton and the frontend together. Nothing imports this package."""
