"""Turns a call into requests, and their answers into one response with one cost."""
