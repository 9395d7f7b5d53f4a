"""The tags around what a model writes before its answer, where its parameter `reasoning` is `think`."""

OPEN, CLOSE = "<think>", "</think>"

TAGS = (OPEN, CLOSE)
"""To be written out, although some tokenizers count them as special tokens."""
