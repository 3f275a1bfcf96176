"""For tests of programs that use minillmlib: answers without a network, and a check of providers.

Everything below the transport is replaced, so requests are built and answers are read by the
same code as in production.
"""

from minillmlib.testing.conformance import ProviderCase, check_provider
from minillmlib.testing.scripted import (
    ScriptedReply,
    ScriptedTransport,
    use_transport,
    without_retries,
)

__all__ = [
    "ProviderCase",
    "ScriptedReply",
    "ScriptedTransport",
    "check_provider",
    "use_transport",
    "without_retries",
]
