"""The command, and the launcher behind it."""
