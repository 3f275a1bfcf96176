"""Frozen values that the rest of the library passes around. No I/O."""
