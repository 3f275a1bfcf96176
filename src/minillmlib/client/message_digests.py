"""Digests of messages, by which two prompts are compared without their texts.

Python's own hashes serve: that of a text is computed once for each text, differs in each process,
and never leaves it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from minillmlib.json_value import encode_json
from minillmlib.types.media import ImagePart
from minillmlib.types.messages import SYSTEM, Message


class MessageDigests(msgspec.Struct, frozen=True, gc=False):
    """A digest of each message, the indexes of system messages, and whether any has an image."""

    values: array[int]
    system: tuple[int, ...]
    has_images: bool

    def with_more(self, messages: Sequence[Message]) -> MessageDigests:
        """Return these with the digests of further messages, a fifth of a microsecond for each."""
        digests, system, has_images = [], [], self.has_images
        for index, message in enumerate(messages, len(self.values)):
            digests.append(_digest(message))
            if message.role is SYSTEM:
                system.append(index)
            if type(message.content) is not str:
                has_images = has_images or any(map(_is_image, message.content))
        values = self.values + array("q", digests)
        return MessageDigests(values, (*self.system, *system), has_images)


def _is_image(part: object) -> bool:
    return isinstance(part, ImagePart)


def _digest(message: Message) -> int:
    if message.cache_ttl is not None:  # says where the cache ends, not what is in it
        message = msgspec.structs.replace(message, cache_ttl=None)
    try:
        return hash(message)
    except TypeError:  # a block of reasoning has no hash, nor has a list of calls
        rest = [message.tool_calls, message.tool_call_id, message.is_error, message.reasoning]
        return hash((message.role, message.content, tuple(message.media), encode_json(rest)))


NO_DIGESTS = MessageDigests(array("q"), (), has_images=False)
