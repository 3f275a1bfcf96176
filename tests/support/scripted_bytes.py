"""What a script sends on every wire, byte for byte: one text for each wire, in `golden/scripted`.

After a change that is meant, `python tests/support/scripted_bytes.py` writes the files again, and
their difference is to be read.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from minillmlib import FinishReason, InvalidParameterError, ReadError, ToolCall, Usage
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.transport.base import HttpRequest

FOLDER = Path(__file__).parents[1] / "golden" / "scripted"
ADDRESSES = {
    "chat": "https://llm.example/v1/chat/completions",
    "openrouter": "https://openrouter.ai/api/v1/chat/completions",
    "completions": "https://llm.example/v1/completions",
    "responses": "https://llm.example/v1/responses",
    "anthropic": "https://llm.example/v1/messages",
}
SHOWN_CHARS = 250  # of an error
COUNTED = Usage(
    uncached_input_tokens=7,
    cache_read_tokens=20,
    cache_write_tokens=40,
    completion_tokens=30,
    reasoning_tokens=9,
)
WRITTEN = Usage(uncached_input_tokens=1, cache_write_tokens=9, cache_write_1h_tokens=4)
FLEX = Usage(uncached_input_tokens=1, completion_tokens=2, service_tier="flex")
BILLED = Usage(uncached_input_tokens=1, native_cost=Decimal("0.00120"))
CALLS = (
    ("add", {"a": 1, "b": [2.5, None]}),
    ToolCall(id="own", name="say", arguments='{"words": "é"}'),
    ToolCall(id="", name="exact", arguments='{"a": 123456789}'),  # 16 characters
    ("now", {}),
)
BROKEN = ToolCall(id="", name="f", arguments='{"a": ')
ENDS = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.PAUSE)
STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 529, 599)
SILENT = {
    "a text": ScriptedReply.text("Paris.", usage=None),
    "an empty text": ScriptedReply.text("", usage=None),
    "a text in pieces": ScriptedReply.stream(["Pa", "", "ri", "s."], usage=None),
    "no piece": ScriptedReply.stream([], usage=None),
    "a cut text": ScriptedReply.stream(["Pa", "ri"], cut=True, usage=None),
    "reasoning and a text": ScriptedReply.text("Paris.", reasoning="Hm. Oh.", usage=None),
    "calls": ScriptedReply.tool_calls(*CALLS, text="I see.", reasoning="Hm.", usage=None),
    "broken arguments": ScriptedReply.tool_calls(BROKEN, usage=None),
    "a refusal": ScriptedReply.refusal("I won't.", usage=None),
    **{f"the end {end}": ScriptedReply.text("x", finish_reason=end, usage=None) for end in ENDS},
    **{f"an error {status}": ScriptedReply.error(status, "No.") for status in STATUSES},
    "an error without words": ScriptedReply.error(500),
    "an error of a vendor": ScriptedReply.error(429, "No.", code="slow", retry_after=1.5),
    "bytes": ScriptedReply.json(b'{"a": 1}', status=201),
}
COUNTING = {
    "counts of a text": ScriptedReply.text("x"),
    "counts of a stream": ScriptedReply.stream(["x"]),
    "counts of a call": ScriptedReply.tool_call("add", a=1),
    "counts of a refusal": ScriptedReply.refusal("No."),
    "no counts": ScriptedReply.text("x", usage=None),
    "counts of all kinds": ScriptedReply.text("x", usage=COUNTED),
    "counts of lifetimes": ScriptedReply.text("x", usage=WRITTEN),
    "a tier": ScriptedReply.text("x", usage=FLEX),
    "a cost": ScriptedReply.text("x", usage=BILLED),
}
REPLIES = SILENT | COUNTING


async def answer_of(wire: str, name: str, asked: dict[str, object]) -> str:
    """The second answer of a script, since ids have its number."""
    transport = ScriptedTransport([REPLIES["a text"], REPLIES[name]])
    body = json.dumps(asked).encode()
    request = HttpRequest(url=ADDRESSES[wire], headers=(), body=body)
    await transport.send(request)
    try:
        response = await transport.send(request)
    except InvalidParameterError as error:
        return f"{error}"[:SHOWN_CHARS] + "\n"
    pieces = []
    try:
        while piece := await response.read():
            pieces.append(piece.decode())
    except ReadError as error:
        pieces.append(f"\n{error}")
    head = " ".join([str(response.status), *itertools.chain(*response.headers.items())])
    return f"{head}\n" + "".join(pieces).rstrip("\n") + "\n"


def forms_of(wire: str, name: str) -> Iterator[tuple[str, dict[str, object]]]:
    prompt = {"input": "u"} if wire == "responses" else {"prompt": "u"}
    prompt |= {"messages": [{"role": "user", "content": "u"}]}
    yield "whole", {"model": "m", **prompt}
    if not name.startswith("an error") and name != "bytes":
        yield "streamed", {"model": "m", "stream": True, **prompt}
    if name == "calls":
        yield "whole, of an unnamed model, three times", {"n": 3, **prompt}


def written(wire: str) -> str:
    """All answers of a wire."""
    return "\n".join(
        f"## {name}, {form}\n{asyncio.run(answer_of(wire, name, asked))}"
        for name in (COUNTING if wire == "openrouter" else REPLIES)
        for form, asked in forms_of(wire, name)
    )


if __name__ == "__main__":
    for each in ADDRESSES:
        (FOLDER / f"{each}.txt").write_text(written(each))
