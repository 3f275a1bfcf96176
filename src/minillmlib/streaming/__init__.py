"""Turns the events of a stream into chunks, and chunks into a response."""
