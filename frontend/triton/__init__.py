"""The only package that depends on Triton."""
