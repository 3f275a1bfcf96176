"""The table of the dialects."""

from __future__ import annotations

from minillmlib.testing.dialects.anthropic import AnthropicMessages
from minillmlib.testing.dialects.base import Dialect
from minillmlib.testing.dialects.chat import ChatCompletions, Completions, OpenRouter
from minillmlib.testing.dialects.responses import Responses

# The first one that is asked at an address counts, so those of one host, and longer paths, are
# first. A miss has no dialect: only the bytes of its server answer it.
DIALECTS: dict[str, Dialect] = {
    "openrouter": OpenRouter(),
    "chat": ChatCompletions(),
    "completions": Completions(),
    "responses": Responses(),
    "anthropic": AnthropicMessages(),
}


def find_dialect(method: str, url: str) -> Dialect | None:
    """Return the dialect of an answer to such a request, or None if none is known."""
    if method != "POST":
        return None
    return next((each for each in DIALECTS.values() if each.is_asked_at(url)), None)
