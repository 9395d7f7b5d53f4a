"""Trident's HTTP frontend: OpenAI's API in, Triton requests out."""
