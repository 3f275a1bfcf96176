"""The whole bodies of many requests, and what is left out of them: `golden/requests`.

After a change that is meant, `python tests/support/request_bodies.py` writes the files again, and
their difference is to be read.
"""

from __future__ import annotations

import json
from pathlib import Path

from msgspec.structs import replace

from minillmlib import (
    AnthropicProvider,
    AudioPart,
    CompletionParameters,
    DocumentPart,
    ImagePart,
    InvalidParameterError,
    Message,
    Provider,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    VideoPart,
)
from minillmlib.types.reasoning import Reasoning, ReasoningBlock

FOLDER = Path(__file__).parents[1] / "golden" / "requests"
WIRES: dict[str, tuple[Provider, str]] = {
    "anthropic": (AnthropicProvider(), "claude-opus-5"),
    "anthropic_budgets": (AnthropicProvider(), "claude-haiku-4-5"),
    "responses": (ResponsesProvider(), "gpt-5.6-terra"),
    "responses_unsealed": (ResponsesProvider(), "gpt-4o"),
}
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
LOOK = ToolDefinition(name="look", description="Look.", parameters=SCHEMA, strict=True)
NOW = ToolDefinition(name="now")
USER, SYSTEM = Message.user("u"), Message.system("s")


def call(name: str, arguments: str = "{}", **more: object) -> ToolCall:
    return ToolCall(id=name, name=f"tool_{name}", arguments=arguments, **more)


def thought(*blocks: tuple[dict[str, object], int, int], text: str = "Hm.") -> Reasoning:
    rows = (
        ReasoningBlock(fields=fields, text_before=text_before, calls_before=calls_before)
        for fields, text_before, calls_before in blocks
    )
    return Reasoning(text=text, blocks=tuple(rows))


def answer(content: object, *calls: ToolCall, reasoning: Reasoning | None = None, **more: object):
    return replace(Message.assistant(content, calls), reasoning=reasoning, **more)


def kept(message: Message, ttl: str = "5m") -> Message:
    return replace(message, cache_ttl=ttl)


PNG = ImagePart.from_url("data:image/png;base64,iVBORw0KGgo=")
TIFF = ImagePart.from_url("data:image/tiff;base64,SUkqAA==")
REMOTE = ImagePart.from_url("https://x.example/a.png")
PDF = DocumentPart.from_url("data:application/pdf;base64,JVBERi0=")
FAR = DocumentPart.from_url("https://x.example/a.pdf")
VIDEO = VideoPart.from_url("https://x.example/a.mp4")


def sound(kind: str) -> AudioPart:
    return AudioPart.from_url(f"data:audio/{kind};base64,UklGRg==")


SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": None}
COMMENT = {"type": "message", "phase": "commentary"}
THREADS: dict[str, list[Message]] = {
    "a text": [USER],
    "texts of all roles": [SYSTEM, USER, Message.assistant("a"), Message.user("v")],
    "neighbours of one role": [
        SYSTEM, Message.system("t"), USER, Message.user("v"), Message.assistant("a"),
        Message.assistant("b"), Message.user("w"), Message.system("late"),
    ],
    "the answer begun": [USER, Message.assistant("It is \n")],
    "the answer begun with white space": [USER, Message.assistant(" \n")],
    "the answer begun in parts": [USER, answer((TextPart(text="It "), TextPart(text="is ")))],
    "a system prompt alone": [SYSTEM],
    "a blank message at the end": [USER, Message.assistant("a"), Message.user(" ")],
    "a blank message before": [Message.user(" "), Message.assistant(""), USER],
    "parts of text": [Message.user((TextPart(text="a"), TextPart(text=" "), TextPart(text="b")))],
    "images": [Message.user((PNG, replace(PNG, detail="low"), TextPart(text="?"), REMOTE))],
    "an image of a rare kind": [Message.user((TIFF,))],
    "documents": [Message.user((PDF, replace(PDF, filename="a.pdf"), FAR))],
    "a document with a name and an address": [Message.user((replace(FAR, filename="b.pdf"),))],
    "sounds": [Message.user(tuple(map(sound, ("wav", "mpeg", "x-wav", "wave", "mp3"))))],
    "a sound of a rare kind": [Message.user((sound("flac"),))],
    "a sound with an address": [Message.user((AudioPart.from_url("https://x.example/a.wav"),))],
    "a video": [Message.user((VIDEO,))],
    "an image of the system": [Message.system((TextPart(text="s"), PNG)), USER],
    "an image of the answer": [USER, answer((TextPart(text="a"), PNG)), USER],
    "media of the answer": [USER, answer("a", media=(PNG,)), USER],
    "calls and results": [
        SYSTEM, USER, answer("a", call("a", '{"at":"it"}'), call("b"), call("c", '["x"]')),
        Message.tool_result("a", "1"), Message.tool_result("b", "2", is_error=True),
        Message.tool_result("c", ""), Message.user("v"), answer("", call("d")),
        Message.tool_result("d", (TextPart(text="it: "), PNG)),
        answer("", call("e", "broken")), Message.tool_result("e", (PNG,), is_error=True),
        answer("", call("f", ""), call("g", "null")), Message.tool_result("f", " "),
        Message.tool_result("g", "x"),
    ],
    "ids of others": [
        USER, answer("", *map(call, ("a-b_C9", "a b", "é", "a.b", "x" * 64, "x" * 65)), call("")),
        *(Message.tool_result(name, "r") for name in ("a-b_C9", "a b", "é", "a.b", "x" * 64,
                                                      "x" * 65, "")),
    ],
    "ids of its own": [
        USER, answer("", call("a b", origin="m"), call("x" * 65, origin="m")),
        Message.tool_result("a b", "r"), Message.tool_result("x" * 65, "r"),
    ],
    "calls with more": [
        USER, answer("", call("a", extra={"caller": {"type": "direct"}}),
                     call("b", "any words", extra={"type": "custom", "namespace": "n"})),
        Message.tool_result("a", "r"), Message.tool_result("b", "r"),
    ],
    "reasoning without blocks": [USER, answer("a", reasoning=Reasoning(text="Hm.")), USER],
    "blocks between texts and calls": [
        USER,
        answer("one two six", call("a"), call("b"), call("c"), reasoning=thought(
            (SIGNED, 0, 0), (SIGNED | {"signature": "t"}, 4, 0), (COMMENT, 4, 0),
            (SEALED, 4, 0), (SEARCH, 8, 1), (SEALED, 8, 2), ({"type": "redacted_thinking"}, 8, 2))),
        *(Message.tool_result(name, "r") for name in "abc"),
    ],
    "blocks out of order": [
        USER, answer("one two", call("a"), reasoning=thought((SEARCH, 4, 1), (SEARCH, 2, 0))),
        Message.tool_result("a", "r"),
    ],
    "blocks of an answer without text": [
        USER, answer("", reasoning=thought((SIGNED, 0, 0), (SEALED, 0, 0))), USER],
    "blocks at the end": [
        USER, answer("one", call("a"), reasoning=thought((SEARCH, 3, 1), (SEALED, 3, 1),
                                                         (SEALED, 3, 1))),
        Message.tool_result("a", "r"), answer("b", reasoning=thought((SEALED, 1, 0))), USER,
    ],
    "sealed reasoning of all kinds": [
        USER,
        answer("one", reasoning=thought(
            (SEALED | {"content": []}, 0, 0), (SEALED | {"encrypted_content": None}, 0, 0),
            ({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "c"}]}, 0, 0),
            ({"type": "reasoning"}, 0, 0), ({"type": "compaction"}, 0, 0), (SEALED, 0, 0),
            ({"type": "reasoning", "encrypted_content": "", "summary": [1]}, 0, 0))),
        USER,
    ],
    "an image that it made": [
        USER,
        answer("one", media=(PNG,), reasoning=thought(
            ({"type": "image_generation_call", "result": "iVBORw0KGgo="}, 0, 0))),
        USER,
    ],
    "images that it made": [
        USER,
        answer("one", media=(PNG, PNG), reasoning=thought(
            ({"type": "image_generation_call", "result": "iVBORw0KGgo="}, 0, 0))),
        answer("two", media=(PNG,), reasoning=thought(
            ({"type": "image_generation_call", "result": "iVBORw0KGgo="}, 0, 0))),
        USER,
    ],
    "a blank text between blocks": [
        USER, answer("a \n b", reasoning=thought((SIGNED, 1, 0), (SEARCH, 4, 0))), USER],
    "breakpoints": [
        kept(SYSTEM, "1h"), kept(USER), answer("a", call("a")), kept(Message.tool_result("a", "r")),
        answer("b"), kept(Message.user((TextPart(text="v"), PNG, TextPart(text="w")))),
    ],
    "more breakpoints than are sent": [
        kept(SYSTEM), Message.system("t"), *(kept(Message.user(name)) for name in "abcd")],
    "a breakpoint on a thought": [
        USER, kept(answer("", call("a"), reasoning=thought((SIGNED, 0, 0), (SIGNED, 0, 1)))),
        kept(Message.tool_result("a", "")),
    ],
    "a breakpoint without content": [kept(Message.user(" ")), USER],
}  # fmt: skip


def asked(**fields: object) -> CompletionParameters:
    return CompletionParameters(**fields)


def thinking(*, limit: int | None = None, **fields: object) -> CompletionParameters:
    return asked(reasoning=ReasoningConfig(**fields), max_tokens=limit)


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
PARAMETERS: dict[str, CompletionParameters] = {
    "numbers": asked(max_tokens=20, temperature=0.5, top_p=0.25),
    "max_tokens 0": asked(max_tokens=0),
    "top_k": asked(top_k=3),
    "stop": asked(stop=["a", "b"]),
    **{f"a field of others, {name}": asked(**{name: 1})
       for name in ("seed", "frequency_penalty", "presence_penalty", "repetition_penalty")},
    "logprobs": asked(logprobs=2),
    "logprobs 0": asked(logprobs=0),
    "JSON": asked(response_format=ResponseFormat.json()),
    "a schema": asked(response_format=ResponseFormat(schema=SCHEMA)),
    "a named schema": asked(response_format=ResponseFormat(schema=SCHEMA, name="n", strict=False)),
    "a schema and an effort": asked(response_format=ResponseFormat(schema=SCHEMA),
                                    reasoning=ReasoningConfig(effort="low")),
    **{f"the effort {effort}": thinking(effort=effort) for effort in EFFORTS},
    **{f"the effort {effort} of 4000": thinking(effort=effort, limit=4000) for effort in EFFORTS},
    "an effort with little room": thinking(effort="max", limit=1025),
    "an effort with less room": thinking(effort="low", limit=1024),
    "an effort of 21": thinking(effort="max", limit=21_000),
    "a budget": thinking(max_tokens=2000),
    "a budget and a limit": thinking(max_tokens=2000, limit=3000),
    "tools": asked(tools=[LOOK, NOW]),
    "no tools": asked(tools=[]),
    **{f"tools, {choice}": asked(tools=[NOW], tool_choice=choice)
       for choice in ("auto", "none", "required")},
    "the tool": asked(tools=[NOW], tool_choice=ToolChoice.tool("now")),
    "parallel": asked(tools=[NOW], parallel_tool_calls=True),
    "not parallel": asked(tools=[NOW], parallel_tool_calls=False),
    "no calls, not parallel": asked(tools=[NOW], tool_choice="none", parallel_tool_calls=False),
    "the tool, not parallel": asked(tools=[NOW], tool_choice=ToolChoice.tool("now"),
                                    parallel_tool_calls=False),
    "keys of a vendor": asked(extra={"service_tier": "flex", "n": 1}),
    "several answers": asked(extra={"n": 2}),
    **{f"the key {key}": asked(extra={key: True})
       for key in ("stream", "model", "store", "background", "conversation",
                   "previous_response_id", "max_tokens", "thinking", "tools")},
    "keys without effect": asked(extra={"background": False, "conversation": None}),
    "more of our lists": asked(tools=[NOW], logprobs=1, extra={
        "include": ["web_search_call.action.sources", "message.output_text.logprobs"],
        "tools": [{"type": "web_search"}]}),
    "more of our objects": asked(response_format=ResponseFormat.json(),
                                 reasoning=ReasoningConfig(effort="low"),
                                 extra={"text": {"verbosity": "low"},
                                        "reasoning": {"summary": "auto"}}),
    "a part of our object again": asked(reasoning=ReasoningConfig(effort="low"),
                                        extra={"reasoning": {"effort": "high"}}),
    "our object as a text": asked(reasoning=ReasoningConfig(effort="low"),
                                  extra={"reasoning": "high"}),
    "our list as a text": asked(tools=[NOW], extra={"tools": "all"}),
}  # fmt: skip


def body_of(
    wire: str, messages: list[Message], params: CompletionParameters, *, stream: bool = False
) -> str:
    provider, model = WIRES[wire]
    key = provider.capabilities.messages_key
    omitted = provider.capabilities.omitted(model, messages, params)
    plain = provider.build_request(model, [USER], asked(), stream=False, include_usage=False)
    try:
        body = provider.build_request(model, messages, params, stream=stream, include_usage=stream)
    except InvalidParameterError as error:
        return f"{error}\n"
    if body[key] == plain[key]:
        del body[key]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in body.items()]
    lines += [f"- {key}: {why}" for key, why in omitted.items()]
    return "\n".join(lines) + "\n"


def bodies(wire: str) -> str:
    """The bodies of all requests on a wire."""
    found = {"a stream": body_of(wire, [SYSTEM, USER], asked(), stream=True)}
    if wire in ("anthropic", "responses"):
        found |= {name: body_of(wire, thread, asked()) for name, thread in THREADS.items()}
    found |= {name: body_of(wire, [USER], params) for name, params in PARAMETERS.items()}
    found["JSON and a breakpoint"] = body_of(wire, [kept(SYSTEM), USER], PARAMETERS["JSON"])
    return "\n".join(f"## {name}\n{body}" for name, body in found.items())


if __name__ == "__main__":
    for each in WIRES:
        (FOLDER / f"{each}.txt").write_text(bodies(each))
