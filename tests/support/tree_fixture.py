"""A tree with everything in it, made through the public door.

Use it for what is saved and loaded.
"""

from __future__ import annotations

import random

from bill_wires import body_of
from owed_answers import KINDS, WIRES, completed

from golden import GOLDEN, golden_generator
from minillmlib import (
    AudioPart,
    ChatNode,
    DocumentPart,
    GeneratorInfo,
    ImagePart,
    Message,
    Reasoning,
    TextPart,
    ToolCall,
    VideoPart,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types.reasoning import ReasoningBlock

# All planes, what separates lines, what moves cursors, and what JSON must escape.
TEXT = (
    "a\u00e9\u0416\u05d0\u4e2d\uac00\ufffd\U0001f600\U00020000\U000e0001\U0010fffd "
    "\u2028\u2029\x85\x0b\x0c\x1b[31m\u202e\x00\x7f\r\n\t\"\\/'<script>{name} e\u0301"
)
ODD = {
    "big": 2**80, "small": -(2**70), "edge": [2**63, 2**64 - 1, -(2**63), 2**53 + 1],
    "floats": [0.1, 1e-320, 1.7976931348623157e308, -0.0, 1e22, 123456789.123456789],
    "text": TEXT, TEXT: None, "": [[], {}, [[[[{"deep": [True, False]}]]]]],
}  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
IMAGE_DATA = ImagePart.from_bytes(PNG)
GOLDEN_ANSWERS = (
    "openrouter_image_output.json",
    "openai_tool_calls_parallel.json",
    "anthropic_stream_thinking_summarized.sse",
    "anthropic_stream_pause_turn_server_tool.sse",
    "anthropic_refusal.json",
)


def written_messages() -> list[Message]:
    """A thread of messages that no model wrote, with all that a message may hold."""
    call = ToolCall(id="c1", name="look", arguments='{"x":  1, "y": "\u00e9"}')
    block = ReasoningBlock(fields={"type": "thinking", "signature": "s==", **ODD}, text_before=1)
    return [
        Message.system((TextPart(text=TEXT), TextPart(text=""))),
        Message.user([TextPart(text="see"), IMAGE_DATA, ImagePart(url="https://h/i", detail="low"),
                      AudioPart(data=b"ID3x"), VideoPart(url="https://h/v"),
                      DocumentPart(data=b"%PDF-1", filename=TEXT)]),
        Message.assistant("t", [call, ToolCall(id="c2", name="f", arguments="not JSON")],
                          media=[AudioPart(data=b"OggS"), IMAGE_DATA],
                          reasoning=Reasoning(text=TEXT, blocks=(block,), origin="m")),
        Message.tool_result("c1", [TextPart(text="r"), ImagePart(data=PNG)]),
        Message.tool_result("c2", "it broke", is_error=True),
        Message(role="user", content="", cache_ttl="1h"),
        Message(role="user", content=TEXT, cache_ttl="5m"),
    ]  # fmt: skip


def odd_body() -> dict:
    body = body_of(WIRES["openai"], {"prompt_tokens": 7, "completion_tokens": 3, **ODD})
    return body | {"odd": ODD}


async def rich_tree() -> ChatNode:
    """Its root: a leaf or two of every kind, marks, placeholders, twins and a detached part."""
    root, leaf = ChatNode.from_messages(written_messages())
    asked = root.add_user("u")
    for number, kind in enumerate(KINDS):
        await completed(asked, kind(random.Random(number)))
    for name in GOLDEN_ANSWERS:
        await _answered(asked, name)
    generator = GeneratorInfo.custom("odd", "https://odd.example/v1", "m")
    transport = ScriptedTransport([ScriptedReply.json(odd_body())])
    odd = await root.add_user("odd?").complete(generator.with_transport(transport))
    odd.cache_breakpoint("1h").set_format_kwarg("name", TEXT).set_format_kwarg("missing", None)
    leaf.clear_cache_breakpoint()
    asked.cache_breakpoint("5m")
    root.set_format_kwarg("count", 2**64).set_format_kwarg("share", 0.1).set_format_kwarg(
        "on", True
    )
    for _ in range(3):
        root.add_user("twin").add_user("below")
    root.children()[-2].detach()
    root.add_user("twin")
    root.graft(odd)
    return root


async def _answered(node: ChatNode, name: str) -> ChatNode:
    data = (GOLDEN / name).read_bytes()
    reply = ScriptedReply.events(data) if name.endswith(".sse") else ScriptedReply(pieces=(data,))
    generator = golden_generator(name).with_transport(ScriptedTransport([reply]))
    if not name.endswith(".sse"):
        return await node.complete(generator)
    async with node.complete_streaming(generator) as stream:
        async for _ in stream:
            pass
    return stream.node
