"""The version, in one place: the build reads it, the user agent says it."""

__version__ = "0.1.0"
