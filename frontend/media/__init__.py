"""Files that a request names instead of carrying them."""
