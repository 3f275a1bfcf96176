"""Runs a language model on this machine: llama.cpp in a child process.

Needs the extra `local`. The built-in model only shows that everything works.
"""

from __future__ import annotations

from minillmlib.local.process import check_engine
from minillmlib.local.server import LocalServer
from minillmlib.local.transport import LocalTransport

__all__ = ["LocalServer", "LocalTransport", "check_engine"]
