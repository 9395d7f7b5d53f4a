"""Trident's HTTP frontend, which converts requests to OpenAI's API into requests to Triton."""
