"""The JSON body that a conversation sends to a provider, and small things to send.

Use it in tests of what goes out on a wire.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from short_answers import answer_to

import minillmlib
from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    GeneratorInfo,
    GenericProvider,
    OpenAiProvider,
    OpenRouterProvider,
    ResponsesProvider,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

CHAT = [OpenAiProvider(), OpenRouterProvider(), GenericProvider()]


CLAUDE_WIRE = AnthropicProvider()


RESPONSES_WIRE = ResponsesProvider()


COMPLETIONS_WIRE = CompletionsProvider()


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


WAV = b"RIFF\0\0\0\0WAVEfmt "


MP4 = b"\0\0\0\x18ftypmp42"


PDF = b"%PDF-1.7\n"


def body_of(provider, leaf: ChatNode, params: CompletionParameters | None = None):
    transport = ScriptedTransport([ScriptedReply.json(answer_to(provider))])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_provider(provider)
    minillmlib.run(leaf.complete(generator.with_transport(transport), params))
    return msgspec.json.decode(transport.requests[0].body)


def asked(*content) -> ChatNode:
    return ChatNode.root("s").add_user(content if len(content) > 1 else content[0])


def get_weather(city: str, days: int = 1, unit: Literal["c", "f"] = "c") -> str:
    """The weather in a city.

    More than the model needs to know.

    Args:
        city: The city's name,
            in English.
        days (int): How many days ahead.
    """
    return f"{city} {days} {unit}"
