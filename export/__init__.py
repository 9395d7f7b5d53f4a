"""Fills the model repository: fetches published weights, converts them, writes Triton's configuration."""
