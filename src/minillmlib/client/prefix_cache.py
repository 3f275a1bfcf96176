"""Caches the encoded messages of long conversations, so that each call encodes only new ones.

Messages never change, and a wire with a `messages_key` encodes each of them alone. So the bytes
that one call sent for the first messages are those that the next call sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec

from minillmlib.client.message_digests import NO_DIGESTS, MessageDigests
from minillmlib.providers.base import Provider

PREFIX_CACHE_MIN_MESSAGES = 32  # from here on it pays
MAX_ENTRIES = 8
MAX_STEPS = 64


class EncodedPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """The first `count` messages of a conversation as they were sent to one model.

    `data` is their JSON with commas between, `last_role` the wire's role of the last of them,
    `omitted` what the wire left out of them. `digests` are of the first of them, perhaps of none.
    """

    count: int = 0
    data: bytes = b""
    last_role: str | None = None
    omitted: Mapping[str, str] = {}
    provider: Provider | None = None
    model: str = ""
    digests: MessageDigests = NO_DIGESTS


NO_PREFIX = EncodedPrefix()


class EncodedPrefixCache:
    """The encoded prefixes of one tree's conversations, by the node that each ends with."""

    __slots__ = ("_prefixes",)

    def __init__(self) -> None:
        self._prefixes: dict[int, EncodedPrefix] = {}

    def find(self, path: Iterable[int], provider: Provider, model: str) -> EncodedPrefix:
        """Return the prefix of the nearest of these nodes for this model, perhaps an empty one."""
        for index in islice(path, MAX_STEPS):
            prefix = self._prefixes.get(index)
            if prefix is not None and (prefix.provider, prefix.model) == (provider, model):
                return prefix
        return NO_PREFIX

    def store(self, index: int, prefix: EncodedPrefix) -> None:
        """Store the prefix that ends with a node, and drop the oldest of too many."""
        self._prefixes.pop(index, None)
        self._prefixes[index] = prefix
        for oldest in list(self._prefixes)[:-MAX_ENTRIES]:
            self._prefixes.pop(oldest, None)
