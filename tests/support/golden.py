"""The recorded bytes of real servers in `tests/golden`: their replies, and generators of their wires.

Use it to answer with what a vendor really sent. `golden_expected` has what each file says.
"""

from __future__ import annotations

from pathlib import Path

from golden_expected import ANSWERS, BROKEN_STREAMS

from minillmlib import (
    AnthropicProvider,
    AzureProvider,
    AzureResponsesProvider,
    CompletionsProvider,
    GeneratorInfo,
    OpenAiProvider,
    OpenRouterProvider,
    ResponsesProvider,
)
from minillmlib.testing import ScriptedReply

GOLDEN = Path(__file__).parents[1] / "golden"


# By how a file's name begins; the first that fits counts.
PROVIDERS = {
    "anthropic": AnthropicProvider(),
    "responses_azure": AzureResponsesProvider(),
    "responses": ResponsesProvider(),
    "completions": CompletionsProvider(),
    "openrouter": OpenRouterProvider(),
    "azure": AzureProvider(),
    "openai": OpenAiProvider(),
    "sse": OpenAiProvider(),
}


def golden_generator(name: str) -> GeneratorInfo:
    """The generator whose wire a golden file is in, which the name of the file gives."""
    generator = GeneratorInfo.custom("golden", "https://golden.example/v1", "model")
    if "_anthropic_" in name or "vertex_claude" in name:
        return generator.with_provider(AnthropicProvider())
    found = next((row for start, row in PROVIDERS.items() if name.startswith(start)), None)
    return generator if found is None else generator.with_provider(found)


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
