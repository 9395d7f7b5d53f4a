"""What chat, completions and responses share."""
