"""The recorded bytes of real servers in `tests/golden`: their replies, and generators of their wires.

Use it to answer with what a vendor really sent. `golden_expected` has what each file says.
"""

from __future__ import annotations

from pathlib import Path

from golden_expected import ANSWERS, BROKEN_STREAMS

from minillmlib import (
    AnthropicProvider,
    AzureProvider,
    GeneratorInfo,
    OpenAiProvider,
    OpenRouterProvider,
    ResponsesProvider,
)
from minillmlib.testing import ScriptedReply

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_generator(name: str) -> GeneratorInfo:
    """The generator whose wire a golden file is in, which the name of the file gives."""
    generator = GeneratorInfo.custom("golden", "https://golden.example/v1", "model")
    if name.startswith("anthropic") or "_anthropic_" in name or "vertex_claude" in name:
        return generator.with_provider(AnthropicProvider())
    if name.startswith("responses"):
        return generator.with_provider(ResponsesProvider())
    if name.startswith("openrouter"):
        return generator.with_provider(OpenRouterProvider())
    if name.startswith("azure"):
        return generator.with_provider(AzureProvider())
    if name.startswith(("openai", "sse")):
        return generator.with_provider(OpenAiProvider())
    return generator


STREAMS = [name for name in ANSWERS | BROKEN_STREAMS if name.endswith(".sse")]
# Those of the Responses wire are long, since each event repeats what came before: where each byte
# costs a call, a few of them stand for all.
LONG_STREAMS = [
    name
    for name in STREAMS
    if name.startswith("responses") and name != "responses_llamacpp_stream_no_index.sse"
]


def reply_of(name: str, status: int = 200) -> ScriptedReply:
    data = (GOLDEN / name).read_bytes()
    return (
        ScriptedReply.events(data)
        if name.endswith(".sse")
        else ScriptedReply.json(data, status=status)
    )
