"""Bytes, sockets and time-outs: the only room that knows an HTTP library."""
