"""The inference engine, which runs in its own process, and the backend's client for it."""
