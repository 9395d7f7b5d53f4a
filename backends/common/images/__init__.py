"""Image decoding and encoding."""
