"""The inference engine, which runs in its own process."""
