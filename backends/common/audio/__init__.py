"""Audio decoding and encoding."""
