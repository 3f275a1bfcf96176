"""What every library is asked for.

A peer is a class, used by the Python of its own environment, which has nothing but that library.
Nothing is imported at the top that costs: the imports of a peer are part of what is measured.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any, ClassVar

SYSTEM = "You are a helpful assistant. Be brief."
QUESTION = "Say hello in five words."
CHAT_MODEL = "gpt-4o-mini"
CLAUDE_MODEL = "claude-haiku-4-5"
MAX_TOKENS = 4096


def turns(count: int) -> list[tuple[str, str]]:
    """An even number of messages: the system prompt, then a talk that ends with the user."""
    words = "What I said before was that it depends on what one wants to do with it. " * 3
    talk = [
        ("assistant" if number % 2 else "user", f"{number}: {words}") for number in range(count - 1)
    ]
    return [("system", SYSTEM), *talk]


class Peer:
    """A library whose messages are dictionaries; others overwrite more."""

    requires: ClassVar[tuple[str, ...]]
    wires: ClassVar[tuple[str, ...]] = ("openai", "anthropic")

    def __init__(self, wire: str, origin: str) -> None:
        self.is_anthropic = wire == "anthropic"
        self.origin = origin
        self.url = origin if self.is_anthropic else f"{origin}/v1"
        self.model = CLAUDE_MODEL if self.is_anthropic else CHAT_MODEL
        self.open()

    def open(self) -> None:
        """Imports the library and makes a client."""
        raise NotImplementedError

    async def complete(self, messages: Any) -> str:
        """The text of the answer to these messages."""
        raise NotImplementedError

    def stream(self) -> AsyncIterator[str]:
        """One call, streamed; each text as the library hands it out."""
        raise NotImplementedError

    def asked(self) -> list[dict[str, str]]:
        """The messages of one call."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]

    async def call(self) -> str:
        """One call."""
        return await self.complete(self.asked())

    def history(self, count: int) -> Any:
        """A conversation of so many messages."""
        return [{"role": role, "content": text} for role, text in turns(count)]

    async def step(self, messages: Any) -> Any:
        """The conversation with an answer and the next question."""
        answer = await self.complete(messages)
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": QUESTION})
        return messages
