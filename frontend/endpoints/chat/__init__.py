"""POST /chat/completions."""
