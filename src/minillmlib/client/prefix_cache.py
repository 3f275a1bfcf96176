"""What the turns of a long conversation became on the wire, so that a call writes only new ones.

Turns never change, and on every wire of ours one stands for itself, unless neighbours are joined.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from minillmlib.providers.base import Provider

__all__ = ["LONG", "History", "Past", "Turns", "are_written_alone"]

LONG = 32  # from so many messages on it pays
MOST_KEPT = 8
MOST_STEPS = 64


def are_written_alone(provider: Provider) -> bool:
    """Whether each message of this provider's bodies is encoded for itself."""
    return provider.capabilities.messages_key == "messages"


class Turns(msgspec.Struct, frozen=True):
    """The first turns of a conversation as they were sent to a model: `data`, with commas between.

    `last_role` is the wire's word for who spoke the last of them.
    """

    count: int
    provider: Provider
    origin: str
    data: bytes
    last_role: str


class History:
    """The turns of one tree's conversations, by the node with which they end. The latest used."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: dict[int, Turns] = {}

    def find(self, places: Iterable[int], provider: Provider, origin: str) -> Turns | None:
        """Those of the first of these nodes that has some for this model."""
        for place in places:
            turns = self._turns.get(place)
            if turns is not None and (turns.provider, turns.origin) == (provider, origin):
                self.keep(place, turns)
                return turns
        return None

    def keep(self, place: int, turns: Turns) -> None:
        """Keeps them as the latest."""
        self._turns.pop(place, None)
        self._turns[place] = turns
        for oldest in list(self._turns)[:-MOST_KEPT]:
            self._turns.pop(oldest, None)


class Past:
    """The turns before one call's last message, as far as earlier calls have written them."""

    __slots__ = ("_history", "_path", "_place", "turns")

    def __init__(self, history: History, place: int, path: Iterable[int]) -> None:
        self._history = history
        self._place = place
        self._path = islice(path, MOST_STEPS)
        self.turns: Turns | None = None

    def find(self, provider: Provider, origin: str) -> int:
        """How many of the first messages are known to be written for this model."""
        self.turns = self._history.find(self._path, provider, origin)
        return 0 if self.turns is None else self.turns.count

    def keep(self, turns: Turns) -> None:
        """Keeps all of them."""
        self._history.keep(self._place, turns)
