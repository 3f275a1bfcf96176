"""The completions wire of base models."""
