"""Runs a language model on this machine: llama.cpp in a child process.

Needs the extra `local`. The built-in model is a demonstration: it shows that everything works,
not what language models can do.
"""

from __future__ import annotations

from minillmlib.local.process import check_engine
from minillmlib.local.server import LocalServer
from minillmlib.local.transport import LocalTransport

__all__ = ["LocalServer", "LocalTransport", "check_engine"]
