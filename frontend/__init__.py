"""Trident's HTTP frontend: OpenAI-compatible requests in, Triton requests out."""
