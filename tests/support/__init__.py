"""Helpers shared by tests and benchmarks: running Trident, recordings, images, tiny models with random weights."""
