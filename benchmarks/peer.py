"""Defines the calls that every library makes.

A peer is a class that runs in an environment with only that library. Nothing expensive is imported
at the top, because the imports of a peer are measured, too.
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
MAX_CONNECTIONS = 1024  # where a library limits them, so that all calls are in flight
TASK = "Measure ten places."


def measure_place(place: str) -> str:  # noqa: ARG001 - the model names it
    """Return how warm it is at a place."""
    return "12 degrees"


TOOL_SCHEMA = {
    "type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"],
}  # fmt: skip


def turns(count: int) -> list[tuple[str, str]]:
    """Return an even number of messages: a system prompt, then turns that end with the user."""
    words = "What I said before was that it depends on what one wants to do with it. " * 3
    dialogue = [
        ("assistant" if number % 2 else "user", f"{number}: {words}") for number in range(count - 1)
    ]
    return [("system", SYSTEM), *dialogue]


class Peer:
    """A library whose messages are dictionaries. Others override more methods."""

    requires: ClassVar[tuple[str, ...]]
    wires: ClassVar[tuple[str, ...]] = ("openai", "anthropic")

    def __init__(self, wire: str, origin: str) -> None:
        self.wire = wire
        self.is_anthropic = wire == "anthropic"
        self.origin = origin
        self.url = origin if self.is_anthropic else f"{origin}/v1"
        self.model = CLAUDE_MODEL if self.is_anthropic else CHAT_MODEL
        self.open()

    def open(self) -> None:
        """Import the library and make a client."""
        raise NotImplementedError

    async def complete(self, messages: Any) -> str:
        """Return the text of the answer to these messages."""
        raise NotImplementedError

    def stream(self) -> AsyncIterator[str]:
        """Stream one call and yield each text as the library returns it."""
        raise NotImplementedError

    async def keep(self) -> object:
        """Make one call and return the answer as the library returns it."""
        raise NotImplementedError("not measured")

    async def run_tools(self) -> str:
        """Run the library's own tool loop, and return the text at its end."""
        raise NotImplementedError("no tool loop of its own")

    def prompt(self) -> list[dict[str, str]]:
        """Return the messages of one call."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]

    async def call(self) -> str:
        """Make one call and return its text."""
        return await self.complete(self.prompt())

    def history(self, count: int) -> Any:
        """Return a conversation of `count` messages."""
        return [{"role": role, "content": text} for role, text in turns(count)]

    async def step(self, messages: Any) -> Any:
        """Return the conversation with an answer and the next question added."""
        answer = await self.complete(messages)
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": QUESTION})
        return messages
