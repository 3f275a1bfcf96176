"""An embedded language model: llama.cpp in a child process that lives as long as this one.

Needs the extra `local`. The built-in model is a demonstration: it shows that everything works,
not what a language model can do.
"""

from __future__ import annotations

from minillmlib.local.process import check_engine
from minillmlib.local.server import LocalServer
from minillmlib.local.transport import LocalTransport

__all__ = ["LocalServer", "LocalTransport", "check_engine"]
