"""The chat-completions wire."""
