"""POST /responses, and the responses that are stored."""
