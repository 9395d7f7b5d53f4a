"""Helpers shared by tests and benchmarks: running Tridents, recordings, images, tiny models with random weights."""
