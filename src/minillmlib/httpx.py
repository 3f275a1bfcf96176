"""Sends requests through your own `httpx2.AsyncClient` instead of the built-in engine."""

from minillmlib.transport.httpx import HttpxTransport

__all__ = ["HttpxTransport"]

HttpxTransport.__module__ = __name__
