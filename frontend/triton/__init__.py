"""The only package that knows Triton."""
