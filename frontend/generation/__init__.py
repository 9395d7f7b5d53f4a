"""Code that the chat, completions and responses endpoints share; media endpoints use its messages too."""
