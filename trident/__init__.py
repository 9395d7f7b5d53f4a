"""The `trident` command and the launcher."""
