"""Requests through an `httpx2.AsyncClient` of your own, in place of the built-in engine."""

from minillmlib.transport.httpx import HttpxTransport

__all__ = ["HttpxTransport"]

HttpxTransport.__module__ = __name__
