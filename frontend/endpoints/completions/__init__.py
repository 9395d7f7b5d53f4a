"""The endpoint POST /completions."""
