"""Facts about single models."""
