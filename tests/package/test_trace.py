"""The path of a call is short: how many files of ours run in one, once everything is warm.

A bar that is passed has to be argued for: each file on the path is one that a reader must open.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

import minillmlib
from minillmlib import (
    Budget,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    NodeCompletionParameters,
    Pace,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

OURS = Path(minillmlib.__file__).parent
USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
BODY = {
    "id": "x", "model": "m", "usage": USAGE,
    "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}],
}  # fmt: skip
EVENTS = (
    {"id": "x", "choices": [{"index": 0, "delta": {"content": "he"}}]},
    {"id": "x", "choices": [{"index": 0, "delta": {"content": "llo"}, "finish_reason": "stop"}]},
    {"id": "x", "choices": [], "usage": USAGE},
)

IN_BUDGET = NodeCompletionParameters(params=CompletionParameters(max_tokens=10), budget=Budget("1"))

IN_LINE = NodeCompletionParameters(pace=Pace())

Call = Callable[[ChatNode, GeneratorInfo], Awaitable[object]]


async def files_of(call: Call, reply: ScriptedReply) -> set[str]:
    """Return the files of ours that run in a call, the second time that it is made."""
    generator = GeneratorInfo.openai("gpt-4o-mini").with_api_key("sk-of-the-trace")
    generator = generator.with_token_price(TokenPrice(1, 5))
    generator = generator.with_transport(ScriptedTransport([reply] * 2))
    root, files = ChatNode.root("Be brief."), set()

    def note(frame, event, _argument):
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(OURS):
            files.add(str(file.relative_to(OURS)))

    await call(root, generator)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        await call(root, generator)
    finally:
        sys.setprofile(before)
    return {file for file in files if not file.startswith("testing")}


async def chat(root: ChatNode, generator: GeneratorInfo) -> None:
    assert (await root.chat("Hi", generator)).text == "hello"


async def chat_within_a_budget(root: ChatNode, generator: GeneratorInfo) -> None:
    assert (await root.chat("Hi", generator, IN_BUDGET)).text == "hello"


async def chat_in_line(root: ChatNode, generator: GeneratorInfo) -> None:
    assert (await root.chat("Hi", generator, IN_LINE)).text == "hello"


async def chat_streaming(root: ChatNode, generator: GeneratorInfo) -> None:
    async with root.chat_streaming("Hi", generator) as stream:
        async for _ in stream:
            pass
    assert stream.node.text == "hello"


def streamed() -> ScriptedReply:
    encoded = (*map(msgspec.json.encode, EVENTS), b"[DONE]")
    return ScriptedReply.events(*(b"data: %b\n\n" % event for event in encoded))


@pytest.mark.parametrize(
    ("call", "reply", "max_files"),
    [
        (chat, ScriptedReply.json(BODY), 20),
        (chat_streaming, streamed(), 24),
        (chat_within_a_budget, ScriptedReply.json(BODY), 24),
        (chat_in_line, ScriptedReply.json(BODY), 25),
    ],
)
@pytest.mark.usefixtures("quota")  # a retry elsewhere in this process leaves something to give back
async def test_a_call_goes_through_few_files(call, reply, max_files):
    files = await files_of(call, reply)
    assert {"tree/node.py"} <= files, "the trace sees the door"
    assert len(files) <= max_files, sorted(files)
