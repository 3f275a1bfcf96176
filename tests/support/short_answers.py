"""Short good answers of all wires, and a generator that gets them from a script.

Use it where a test is not about the answer. Where attempts, times or failures matter, use
`scripted_server`.
"""

from __future__ import annotations

import msgspec

from minillmlib import (
    AnthropicProvider,
    CompletionsProvider,
    GeneratorInfo,
    Provider,
    ResponsesProvider,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

ANSWER = {"choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]}


CLAUDE = {"content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"}


RESPONSE = {
    "id": "resp_1",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "ok"}]}],
}


COMPLETION = {"choices": [{"index": 0, "text": "ok", "finish_reason": "stop"}]}


def answer_to(provider: Provider) -> dict[str, object]:
    """The answer in the wire of a provider."""
    if isinstance(provider, AnthropicProvider):
        return CLAUDE
    if isinstance(provider, CompletionsProvider):
        return COMPLETION
    return RESPONSE if isinstance(provider, ResponsesProvider) else ANSWER


def said(text: str) -> ScriptedReply:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return ScriptedReply.json({"id": "1", "model": "m", "choices": [choice]})


def streamed(*texts: str, finish: str | None = "stop") -> ScriptedReply:
    deltas = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    if finish:
        deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    encode = msgspec.json.encode
    return ScriptedReply.events(*(b"data: " + encode(delta) + b"\n\n" for delta in deltas))


def scripted(*replies: ScriptedReply) -> GeneratorInfo:
    generator = GeneratorInfo.custom("scripted", "https://scripted.example/v1", "m")
    return generator.with_transport(ScriptedTransport(replies))
