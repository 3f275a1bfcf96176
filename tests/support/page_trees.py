"""Conversations for the tests of the page: one as people have them, a wide one, and hostile ones."""

from __future__ import annotations

import random
import struct
import zlib

from minillmlib import (
    ChatNode,
    DocumentPart,
    GeneratorInfo,
    ImagePart,
    Message,
    NodeCompletionParameters,
    OpenRouterProvider,
    Reasoning,
    TextPart,
    ToolCall,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

SMALL, LARGE = "google/gemini-2.5-flash-lite", "anthropic/claude-sonnet-4.5"


def answer(
    node: ChatNode,
    text: str,
    *,
    cost: float | None = None,
    model: str = SMALL,
    finish: str = "stop",
    said: str | None = None,
    failures: int = 0,
    logprobs: list[dict] = (),
    **message: object,
) -> ChatNode:
    """The node of an answer that a provider gave, at this cost; None: the bill is not known.

    So many attempts fail before.
    """
    choice = {"index": 0, "finish_reason": finish, "message": {"content": text} | message}
    choice["logprobs"] = {"content": list(logprobs)}
    body: dict = {"id": "gen-1", "model": model, "choices": [choice]}
    if cost is not None:
        tokens = {
            "prompt_tokens": 40 + 11 * len(text) // 40,
            "completion_tokens": len(text) // 4 + 1,
        }
        body["usage"] = tokens | {"cost": cost}
    generator = GeneratorInfo.custom("openrouter", "https://vendor.example/v1", model)
    generator = generator.replace(provider=OpenRouterProvider())
    replies = [ScriptedReply.json({}, status=503)] * failures + [ScriptedReply.json(body)]
    generator = generator.with_transport(ScriptedTransport(replies))
    how = NodeCompletionParameters(retry=failures, back_off_time=0)
    ask = node.complete(generator, how) if said is None else node.chat(said, generator, how)
    return run(ask)


def call(call_id: str, name: str, arguments: str) -> dict:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def picture(width: int = 240, height: int = 120) -> bytes:
    """A PNG of an evening sky."""
    rows = b"".join(
        b"\0"
        + bytes((60 + 150 * y // height, 90 + 60 * y // height, 170 - 70 * y // height)) * width
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def travel_tree() -> ChatNode:
    """A conversation with branches of several models, tools, thoughts, a picture and costs."""
    root = ChatNode.root(
        "You are a travel companion. Plan briefly, name prices in euros, and ask when you are unsure."
    )
    asked = root.add_user(
        "Two days in Lisbon at the end of October, by foot if we can. Where do we begin?"
    )
    short = answer(
        asked,
        "Day one: Alfama in the morning, before the cruise ships. Up by tram 12, down by foot past "
        "the viewpoint of Santa Luzia. Lunch at a tasca, about €14 each.\n\nDay two: Belém by train, "
        "the monastery at opening time, and back along the river.",
        cost=0.00041,
    )
    rain = short.add_user("And if it rains?")
    checked = answer(
        rain, "Let me look at the forecast first.", cost=0.00062, finish="tool_calls",
        tool_calls=[call("call_1", "forecast", '{"city": "Lisbon", "days": ["2026-10-30", "2026-10-31"]}')],
    )  # fmt: skip
    told = checked.add_tool_result(
        "call_1", "2026-10-30  18 °C  dry\n2026-10-31  16 °C  rain from 11:00, 9 mm"
    )
    indoors = answer(
        told,
        "Friday stays dry, so keep Alfama there. Rain comes on Saturday at eleven: be at the monastery "
        "when it opens, then the tile museum, which is dry, quiet and €8.",
        cost=0.00093, reasoning="Friday is dry, Saturday is wet from eleven. Swap nothing; shorten Belém.",
    )  # fmt: skip
    answer(
        indoors, "The tile museum closes at 18:00, the last entry is at 17:30. Take bus 759 from the "
        "station Santa Apolónia; it is a walk of 25 minutes otherwise.", cost=0.00054,
        said="How long is the museum open, and how do we get there?",
    )  # fmt: skip
    answer(
        indoors, "Then Saturday is for eating: the market at Campo de Ourique, under a roof since 1934. "
        "Go before noon, sit at the counter, and share. About €20 each.", cost=0.00058,
        said="We would rather eat than look at tiles.",
    )  # fmt: skip
    answer(
        rain, "Rain in Lisbon is short at that time of the year. Carry a jacket, take the covered market "
        "for lunch, and keep the viewpoints for the hour after a shower, when the", cost=0.00117,
        model=LARGE, finish="length",
    )  # fmt: skip
    long = answer(
        asked,
        "Before I plan: do you walk hills gladly? Alfama and Graça are steep, Belém is flat. If hills "
        "are fine, begin at the castle and let every street lead you down to the water.",
        cost=0.0124, model=LARGE, reasoning="They want to walk. Lisbon is hilly, so ask about that first.",
    )  # fmt: skip
    hills = answer(
        long, "Then begin at Graça at nine, with the whole city below you. Walk down through Alfama, eat "
        "in Mouraria (€12), and be at the river by four.", cost=0.0131, model=LARGE,
        said="Hills are fine, knees are not what they were.",
    )  # fmt: skip
    seen = hills.add_user([
        TextPart(text="This is the view from our window. Which direction is it?"),
        ImagePart.from_bytes(picture()),
    ])  # fmt: skip
    answer(
        seen,
        "West, by the light: the sun has just gone down behind the bridge.",
        cost=0.0149,
        model=LARGE,
    )
    answer(
        asked, "Alfama, then Belém. Shall I write out a plan by the hour?", model="local/qwen3-4b",
        cost=None,
    )  # fmt: skip
    return root


def bushy_tree(nodes: int, seed: int = 7) -> ChatNode:
    """A tree of so many nodes that grows mostly at its young ends."""
    rng = random.Random(seed)
    made = [ChatNode.root("The root.")]
    while len(made) < nodes:
        at = rng.choice(made[-40:]) if rng.random() < 0.7 else rng.choice(made)
        text = (
            f"Message {len(made)} of many, {'needle' if len(made) % 500 == 0 else 'as it comes'}."
        )
        made.append(at.add_user(text) if at.role != "user" else at.add_assistant(text))
    return made[0]


def deep_tree(depth: int) -> ChatNode:
    node = root = ChatNode.root("The top.")
    for number in range(1, depth):
        node = (
            node.add_user(f"turn {number}") if number % 2 else node.add_assistant(f"turn {number}")
        )
    return root


# What turns text into markup, script or a request somewhere, when a page is careless.
PAYLOADS = (
    "<script>window.hacked=1</script>", "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>", "<svg onload=window.hacked=1>", "<!--", "-->", "<![CDATA[",
    "]]>", "<!DOCTYPE html>", "</title><b>", "</style><b>", "</textarea><b>", "</noscript><b>",
    '"><b onclick=window.hacked=1>', "'><b>", "` onmouseover=window.hacked=1 x=`", "<b", "<b x=", "</",
    "&lt;b&gt;", "&#60;b&#62;", "&", "&amp;amp;", "\\u003cb\\u003e", "\\x3cb\\x3e", "\\", "\\\\", '\\"',
    "javascript:window.hacked=1", "[click](javascript:window.hacked=1)", "![x](https://h.example/x.png)",
    "https://h.example/?q=<b>", "data:text/html,<script>window.hacked=1</script>", "${window.hacked=1}",
    "{{constructor.constructor('window.hacked=1')()}}", "%%DATA%%", "%%TITLE%%", "%%POLICY%%", "__proto__",
    "constructor", "</script", "<SCRIPT>window.hacked=1</SCRIPT>", "<scr\0ipt>", "<iframe srcdoc='<b>'>",
    "<meta http-equiv=refresh content='0;url=https://h.example/'>", "<base href=https://h.example/>",
    "<link rel=stylesheet href=https://h.example/x.css>", "<style>*{display:none}</style>",
    "<math><mi xlink:href=javascript:window.hacked=1>", "<template><b>", "<form action=https://h.example/>",
    "<a href=https://h.example/ ping=https://h.example/>", "<object data=x>", "<embed src=x>", "<b>bold",
    "\u2028\u2029", "\u202e\u2066<b>", "\ud800", "\udfff<b>", "\0", "\x1b[31m", "\ufeff<b>", "\u200d<b>",
)  # fmt: skip
FRAMES = ("{}", "a{}", "{}a", '"{}', "'{}'", "<{}", "{}>", "{}\n{}", "\t{} ", "/*{}*/", "//{}", "<p {}>", "{}</script>",
          "<!--{}", "<script>{}", "&{};")  # fmt: skip


def hostile_strings(count: int = 1000) -> list[str]:
    """So many different strings, each hostile."""
    made = [frame.replace("{}", payload) for frame in FRAMES for payload in PAYLOADS]
    assert len(set(made)) >= count
    return list(dict.fromkeys(made))[:count]


def tree_of(strings: list[str]) -> ChatNode:
    """A thread with each string wherever a message can hold one, beside two answers."""
    messages = [Message.system(strings[0])]
    for text in strings:
        calls = [ToolCall(id=text, name=text, arguments=text)]
        document = DocumentPart(data=b"%PDF-1", filename=text)
        thought = Reasoning(text=text, origin=text)
        messages.append(Message.assistant(text, calls, media=[document], reasoning=thought))
        messages.append(Message.tool_result(text, text, is_error=True))
    root, _ = ChatNode.from_messages(messages)
    for text in strings[:2]:
        probable = {"token": text, "logprob": -0.5}
        tokens = [probable | {"top_logprobs": [probable] * 2}] * 2
        answer(root, text, cost=0.5, model=text, reasoning=text, said=text, logprobs=tokens)
    return root
