"""POST /responses and the stored responses."""
