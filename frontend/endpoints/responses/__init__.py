"""POST /responses, and access to stored responses."""
