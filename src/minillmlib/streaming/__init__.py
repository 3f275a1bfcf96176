"""Decodes streams: bytes to events, and chunks to a response."""
