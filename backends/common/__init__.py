"""Code shared by all backends."""
