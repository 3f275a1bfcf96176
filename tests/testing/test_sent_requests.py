"""What a request on each wire is read as: whole bodies, with every kind of content."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from minillmlib import (
    AudioPart,
    DocumentPart,
    ImagePart,
    InvalidParameterError,
    Message,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from minillmlib.auth.secret import Secret
from minillmlib.testing import SentRequest

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
WAV = {"data": "UklGRg==", "format": "wav"}
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
LOOK = ToolCall(id="c1", name="look", arguments='{"at":"it"}')
NOW = ToolCall(id="c2", name="now", arguments="{}")
SAY = ToolCall(id="c3", name="say", arguments="any words", extra={"type": "custom"})
TOOLS = (
    ToolDefinition(name="look", description="Look.", parameters=SCHEMA, strict=True),
    ToolDefinition(name="now", parameters=SCHEMA),
)


def sent(path: str, body: object, **more) -> SentRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SentRequest(url=f"https://llm.example/v1/{path}", headers=(), body=data, **more)


def parts(*kinds: object) -> tuple[object, ...]:
    return tuple(TextPart(text=kind) if isinstance(kind, str) else kind for kind in kinds)


CHAT = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
            {"type": "input_audio", "input_audio": WAV}]},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [
            {"id": "c1", "type": "function",
             "function": {"name": "look", "arguments": '{"at":"it"}'}},
            {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "a pixel"},
        {"role": "tool", "tool_call_id": "c2", "content": "12:00"},
        {"role": "user", "content": "Sure?"},
    ],
    "tools": [
        {"type": "function", "function": {
            "name": "look", "description": "Look.", "parameters": SCHEMA, "strict": True}},
        {"type": "web_search"},
        {"type": "function", "function": {"name": "now", "parameters": SCHEMA}},
    ],
}  # fmt: skip
RESPONSES = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "What?"},
            {"type": "input_image", "image_url": PNG, "detail": "low"},
            {"type": "input_image", "image_url": PNG, "detail": "auto"},
            {"type": "input_image", "image_url": PNG},
            {"type": "input_file", "file_url": "https://x.example/a.pdf"},
            {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
            {"type": "input_file", "file_data": PDF},
            {"type": "input_audio", "input_audio": WAV}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "sealed"},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "I"}, {"type": "refusal", "refusal": " see."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"it"}'},
        {"type": "custom_tool_call", "call_id": "c3", "name": "say", "input": "any words"},
        {"type": "function_call_output", "call_id": "c1", "output": "a pixel"},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": [
            {"type": "input_text", "text": "said"}]},
        {"type": "function_call", "call_id": "c2", "name": "now", "arguments": "{}"},
        {"type": "compaction", "encrypted_content": "sealed"},
        {"type": "function_call_output", "call_id": "c2", "output": "12:00"},
        {"role": "user", "content": "Sure?"},
    ],
    "tools": [
        {"type": "function", "name": "look", "description": "Look.", "parameters": SCHEMA,
         "strict": True},
        {"type": "web_search"},
        {"type": "function", "name": "now", "parameters": SCHEMA, "strict": False},
    ],
}  # fmt: skip
ANTHROPIC = {
    "model": "m",
    "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "What?"},
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
            {"type": "image", "source": {
                "type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
            {"type": "document", "source": {
                "type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "redacted_thinking", "data": "sealed"},
            {"type": "text", "text": "I see."},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "it"}},
            {"type": "tool_use", "id": "c2", "name": "now", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": "a pixel"},
            {"type": "tool_result", "tool_use_id": "c2", "is_error": True, "content": [
                {"type": "text", "text": "no "}, {"type": "text", "text": "clock"}]},
            {"type": "tool_result", "tool_use_id": "c3"},
            {"type": "text", "text": "Sure?"}]},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "it"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [
                {"type": "text", "text": "it: "},
                {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}]}]},
        {"role": "assistant", "content": "A pixel."},
        {"role": "user", "content": "Really?"},
    ],
    "tools": [
        {"name": "look", "description": "Look.", "input_schema": SCHEMA, "strict": True},
        {"type": "web_search_20250305", "name": "web_search"},
        {"name": "now", "input_schema": SCHEMA},
    ],
}  # fmt: skip
AUDIO = AudioPart.from_url("data:audio/wav;base64,UklGRg==")
REMOTE_IMAGE = ImagePart.from_url("https://x.example/a.png")
REMOTE_DOCUMENT = DocumentPart.from_url("https://x.example/a.pdf")
IMAGE, DOCUMENT = ImagePart.from_url(PNG), DocumentPart.from_url(PDF)
LOW = replace(IMAGE, detail="low")
NAMED = replace(DOCUMENT, filename="a.pdf")
READ = {
    "chat/completions": (CHAT, [
        Message.system("Be brief."),
        Message.user(parts("What?", LOW, NAMED, AUDIO)),
        Message.assistant("", [LOOK, NOW]),
        Message.tool_result("c1", "a pixel"),
        Message.tool_result("c2", "12:00"),
        Message.user("Sure?"),
    ]),
    "responses": (RESPONSES, [
        Message.system("Be brief."),
        Message.user(
            parts("What?", LOW, IMAGE, IMAGE, REMOTE_DOCUMENT, NAMED, DOCUMENT, AUDIO)),
        Message.assistant(parts("I", " see."), [LOOK, SAY]),
        Message.tool_result("c1", "a pixel"),
        Message.tool_result("c3", parts("said")),
        Message.assistant("", [NOW]),
        Message.tool_result("c2", "12:00"),
        Message.user("Sure?"),
    ]),
    "messages": (ANTHROPIC, [
        Message.system("Be brief."),
        Message.user(parts("What?", REMOTE_IMAGE, IMAGE, REMOTE_DOCUMENT, DOCUMENT)),
        Message.assistant("I see.", [LOOK, NOW]),
        Message.tool_result("c1", "a pixel"),
        Message.tool_result("c2", "no clock", is_error=True),
        Message.tool_result("c3", ""),
        Message.user("Sure?"),
        Message.assistant("", [LOOK]),
        Message.tool_result("c1", parts("it: ", REMOTE_IMAGE)),
        Message.assistant("A pixel."),
        Message.user("Really?"),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("path", READ)
def test_a_whole_conversation_with_every_kind_of_content(path):
    body, messages = READ[path]
    request = sent(path, body)
    assert [*request.messages] == messages
    assert request.tools == TOOLS
    assert (request.model, request.text) == ("m", messages[-1].text)


@pytest.mark.parametrize(
    ("path", "body", "messages"),
    [
        ("completions", {"prompt": "Once upon"}, [Message.user("Once upon")]),
        ("responses", {"input": "Hi", "instructions": ""}, [Message.user("Hi")]),
        ("responses", {"input": []}, []),
        ("messages", {"system": "", "messages": []}, []),
        ("messages", {"system": "s", "messages": [{"role": "assistant", "content": []}]},
         [Message.system("s"), Message.assistant("")]),
        ("messages", {"messages": [{"role": "user", "content": []}]}, []),
        ("chat/completions", {"messages": []}, []),
    ],
)  # fmt: skip
def test_a_short_conversation(path, body, messages):
    request = sent(path, body)
    assert [*request.messages] == messages
    assert (request.tools, request.model, request.is_stream) == ((), "", False)
    assert request.text == (messages[-1].text or "" if messages else "")


@pytest.mark.parametrize(
    "more", [{}, {"tools": None}, {"tools": []}, {"tools": [{"type": "web_search"}]}]
)
@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages", "completions"])
def test_a_request_without_tools_of_the_program(path, more):
    assert sent(path, more).tools == ()


@pytest.mark.parametrize(
    ("value", "is_stream"), [(True, True), (False, False), (None, False), (1, False)]
)
@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages", "completions"])
def test_a_stream_is_asked_for_by_true(path, value, is_stream):
    assert sent(path, {"stream": value}).is_stream is is_stream


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("chat/completions", {}, "the messages of POST {} cannot be read (KeyError: 'messages'); "
         "read `json()`"),
        ("completions", {"messages": []}, "the messages of POST {} cannot be read (KeyError: "
         "'prompt'); read `json()`"),
        ("responses", {}, "the messages of POST {} cannot be read (KeyError: 'input'); read "
         "`json()`"),
        ("responses", {"input": [{"type": "smell"}]}, "the messages of POST {} cannot be read "
         "(InvalidParameterError: an item of unknown kind: {{'type': 'smell'}}); read `json()`"),
        ("responses", {"input": [{"role": "user", "content": [{"type": "smell"}]}]},
         "the messages of POST {} cannot be read "
         "(InvalidParameterError: a part of unknown kind: {{'type': 'smell'}}); read `json()`"),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
         "the messages of POST {} cannot be read "
         "(InvalidParameterError: a block of unknown kind: {{'type': 'smell'}}); read `json()`"),
        ("messages", {"messages": [{"role": "user"}]}, "the messages of POST {} cannot be read "
         "(KeyError: 'content'); read `json()`"),
        ("messages", b"[1]", "the body of POST {} is no JSON object"),
        ("chat/completions", b"{", "the body of POST {} is no JSON object"),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_read(path, body, error):
    with pytest.raises(InvalidParameterError) as caught:
        _ = sent(path, body).messages
    assert str(caught.value) == error.format(f"https://llm.example/v1/{path}")


@pytest.mark.parametrize(
    ("path", "tool", "error"),
    [("messages", {"input_schema": {}}, "KeyError: 'name'"),
     ("messages", 5, "TypeError: argument of type 'int' is not "),
     ("chat/completions", 5, "AttributeError: 'int' object has no attribute 'get'"),
     ("responses", None, "AttributeError: 'NoneType' object has no attribute 'get'")],
)  # fmt: skip
def test_tools_that_cannot_be_read(path, tool, error):
    with pytest.raises(InvalidParameterError) as caught:
        _ = sent(path, {"tools": [tool]}).tools
    begin = f"the tools of POST https://llm.example/v1/{path} cannot be read ({error}"
    assert str(caught.value).startswith(begin)
    assert str(caught.value).endswith("); read `json()`")


def user(text: str) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (user("Hi"), " (model 'm', 1 message, the last of the user: 'Hi')"),
        (user("x" * 80), f" (model 'm', 1 message, the last of the user: '{'x' * 80}')"),
        (user("x" * 81), f" (model 'm', 1 message, the last of the user: '{'x' * 80}…')"),
        ({"messages": []}, " (16 bytes)"),
        (b"12345", " (5 bytes)"),
    ],
    ids=["short", "longest", "too-long", "empty", "none"],
)
def test_a_request_in_a_few_words(body, words):
    request = sent("chat/completions?key=secret", body)
    expected = f"POST https://llm.example/v1/chat/completions?[hidden]{words}"
    assert request.describe() == expected


def test_the_wire_of_a_request_by_its_name():
    request = sent("infer", {"prompt": "Once"}, wire="completions")
    assert request.text == "Once"
    headers = (("authorization", Secret("secret-token-1234")), ("a", "b"))
    request = SentRequest(url="https://x.example/", headers=headers, body=b"")
    assert request.expose_headers() == [("authorization", "secret-token-1234"), ("a", "b")]


@pytest.mark.parametrize(
    ("url", "wire"),
    [
        ("https://openrouter.ai/api/v1/chat/completions", "cost"),
        ("https://eu.openrouter.ai/api/v1/chat/completions?a=1", "cost"),
        ("https://openrouter.ai.example/v1/chat/completions", "chat"),
        ("https://llm.example/v1/chat/completions/", None),
        ("https://llm.example/v1/completions#a", "completions"),
        ("https://llm.example/v1/responses/r1", None),
        ("https://llm.example/messages", "messages"),
    ],
)
def test_the_wire_of_an_address(url, wire):
    request = SentRequest(url=url, headers=(), body=b'{"messages": [], "prompt": "Once"}')
    if wire is None:
        with pytest.raises(InvalidParameterError) as caught:
            _ = request.messages
        assert str(caught.value) == (
            f"no dialect is known for POST {url}; give the bytes of the server: "
            "ScriptedReply.json(...) or ScriptedReply.events(...), or name the wire of a "
            "completion: ScriptedTransport(replies, wire='chat')"
        )
    else:
        assert request.text == ("Once" if wire == "completions" else "")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_only_what_is_posted_is_a_completion(method):
    request = sent("messages", {"messages": []}, method=method)
    with pytest.raises(InvalidParameterError, match=f"no dialect is known for {method} "):
        _ = request.messages
    assert request.describe() == f"{method} https://llm.example/v1/messages (16 bytes)"
