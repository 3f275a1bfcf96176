"""Tests programs that use minillmlib, without a network, and checks providers.

Only the transport is replaced, so the production code builds requests and reads responses.
"""

from minillmlib.testing.conformance import ProviderCase, check_provider
from minillmlib.testing.network import forbid_network
from minillmlib.testing.scripted import (
    ScriptedReply,
    ScriptedTransport,
    fake_keys,
    use_transport,
    without_retries,
)
from minillmlib.testing.sent_request import SentRequest

__all__ = [
    "ProviderCase",
    "ScriptedReply",
    "ScriptedTransport",
    "SentRequest",
    "check_provider",
    "fake_keys",
    "forbid_network",
    "use_transport",
    "without_retries",
]
