"""Benchmarks: each module prints ratios against a rival or a limit, both measured in the same run."""
