"""Files that a request references by URL."""
