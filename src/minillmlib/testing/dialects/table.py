"""The table of the dialects."""

from __future__ import annotations

from minillmlib.errors import InvalidParameterError
from minillmlib.testing.dialects.anthropic import AnthropicMessages
from minillmlib.testing.dialects.base import RAW_ADVICE, Dialect
from minillmlib.testing.dialects.chat import ChatCompletions, Completions, OpenRouter
from minillmlib.testing.dialects.responses import Responses
from minillmlib.transport.base import HttpRequest

# The first one that is asked at an address counts, so those of one host, and longer paths, are
# first. A miss has no dialect: only the bytes of its server answer it.
DIALECTS: dict[str, Dialect] = {
    "openrouter": OpenRouter(),
    "chat": ChatCompletions(),
    "completions": Completions(),
    "responses": Responses(),
    "anthropic": AnthropicMessages(),
}


def find_dialect(request: HttpRequest, name: str | None = None) -> Dialect:
    """Return the dialect of an answer to a request, by its name or by the request's address.

    Raises `InvalidParameterError` if none is known.
    """
    known = [each for each in DIALECTS.values() if each.is_asked_at(request.url)]
    if name is not None:
        known = [DIALECTS[name]]
    if not known or request.method != "POST":
        raise InvalidParameterError(
            f"no dialect is known for {request.method} {request.url.partition('?')[0]}; "
            f"{RAW_ADVICE}, or name the wire of a completion: "
            "ScriptedTransport(replies, wire='chat')"
        )
    return known[0]
