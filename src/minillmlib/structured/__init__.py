"""Answers as values of the user's type."""
