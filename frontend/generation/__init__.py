"""Text generation code that the chat, completions and responses endpoints share."""
