"""The facts about single models."""
