"""Request parsing and response writing, shared by all endpoints."""
