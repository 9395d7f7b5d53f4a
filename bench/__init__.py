"""Benchmarks of Trident against rivals, limits and itself, and soak tests; docs/benchmarks.md lists them."""
