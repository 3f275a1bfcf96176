"""Tools, media and answer formats: what is sent on each wire, and how calls come back."""

from __future__ import annotations

import functools
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sent_bodies import CHAT, CLAUDE_WIRE, MP4, PDF, PNG, WAV, asked, body_of, get_weather
from short_answers import ANSWER

import minillmlib
from minillmlib import (
    AudioPart,
    ChatNode,
    CompletionParameters,
    DocumentPart,
    GeneratorInfo,
    GenericProvider,
    ImagePart,
    InvalidParameterError,
    Message,
    OpenAiProvider,
    OpenRouterProvider,
    ResponseFormat,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolDefinition,
    VideoPart,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "The city's name, in English."},
        "days": {"type": "integer", "description": "How many days ahead.", "default": 1},
        "unit": {"enum": ["c", "f"], "default": "c"},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def test_a_typed_function_is_a_tool():
    tool = ToolDefinition.from_function(get_weather)
    assert (tool.name, tool.description) == ("get_weather", "The weather in a city.")
    assert tool.parameters == SCHEMA


def no_types(x):
    pass


def any_number(*x: int):
    pass


def not_json(x: complex):
    pass


def odd_default(x: int = object()):
    pass


@pytest.mark.parametrize("function", [no_types, any_number, not_json, odd_default])
def test_a_function_that_json_cannot_call_is_refused(function):
    with pytest.raises(InvalidParameterError):
        ToolDefinition.from_function(function)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "é", None])
def test_a_tools_name_is_checked(name):
    with pytest.raises(InvalidParameterError, match="name"):
        ToolDefinition(name=name)


OPENAI_SHAPE = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather in a city.", "parameters": SCHEMA}}  # fmt: skip


@pytest.mark.parametrize(
    "tool", [get_weather, ToolDefinition.from_function(get_weather), OPENAI_SHAPE]
)
def test_a_tool_may_be_given_in_any_form_and_goes_out_in_the_wires(tool):
    params = CompletionParameters(tools=[tool], tool_choice="required", parallel_tool_calls=False)
    for provider in CHAT:
        body = body_of(provider, asked("u"), params)
        assert body["tools"] == [OPENAI_SHAPE]
        assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    body = body_of(CLAUDE_WIRE, asked("u"), params)
    assert body["tools"] == [
        {"name": "get_weather", "description": "The weather in a city.", "input_schema": SCHEMA}
    ]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        {"type": "function"},
        {"name": "x", "nonsense": 1},
        dict,
        functools.partial(dict),
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "function", "strict": True, "function": {"name": "x"}},
    ],
)
def test_what_is_no_tool_is_refused(wrong):
    with pytest.raises(InvalidParameterError):
        CompletionParameters(tools=[wrong])
    with pytest.raises(InvalidParameterError):
        CompletionParameters(tools=wrong)


def test_what_is_given_is_copied():
    schema = {"type": "object", "properties": {"a": {}}}
    tool = ToolDefinition(name="f", parameters=schema)
    form = ResponseFormat.json_schema(schema)
    schema["properties"]["later"] = {}
    assert "later" not in str(tool.parameters) + str(form.schema)


def test_media_are_never_dropped_in_silence():
    png = ImagePart.from_bytes(PNG)
    failed = Message.tool_result("c", [TextPart(text="s"), png], is_error=True)
    calls = [ToolCall(id="c", name="f", arguments="{}")]
    _, leaf = ChatNode.from_messages([Message.user("u"), Message.assistant("", calls), failed])
    sent = body_of(OpenRouterProvider(), leaf)["messages"][-1]["content"]
    assert [part["type"] for part in sent] == ["text", "text", "image_url"]
    for message in (Message.system([TextPart(text="s"), png]), Message.assistant([png])):
        _, leaf = ChatNode.from_messages([message, Message.user("u")])
        with pytest.raises(InvalidParameterError, match="image"):
            body_of(CLAUDE_WIRE, leaf)


@pytest.mark.parametrize(
    "make",
    [lambda: ImagePart.from_url(None), lambda: ImagePart.from_bytes("abc"), lambda: ImagePart(url=3),
     lambda: ImagePart.from_bytes(5, "image/png"), lambda: ImagePart.from_file(None),
     lambda: ImagePart.from_file("a\0b"), lambda: Message.tool_result(1, "x"),
     lambda: Message.assistant("", [{"id": "x"}]), lambda: Message.assistant("a", reasoning="b"),
     lambda: Message(role="tool", content="x"), lambda: ResponseFormat.json_schema("no"),
     lambda: Message(role="user", content="x", tool_call_id="c")],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_when_it_is_made(make):
    with pytest.raises(InvalidParameterError):
        make()


@pytest.mark.parametrize(
    ("choice", "chat", "claude"),
    [
        ("auto", "auto", {"type": "auto"}), ("none", "none", {"type": "none"}),
        (ToolChoice.required(), "required", {"type": "any"}),
        (ToolChoice.tool("get_weather"),
         {"type": "function", "function": {"name": "get_weather"}},
         {"type": "tool", "name": "get_weather"}),
        ({"type": "function", "function": {"name": "get_weather"}},
         {"type": "function", "function": {"name": "get_weather"}},
         {"type": "tool", "name": "get_weather"}),
    ],
)  # fmt: skip
def test_the_choice_of_a_tool_is_said_in_the_wires_words(choice, chat, claude):
    params = CompletionParameters(tools=[get_weather], tool_choice=choice)
    assert body_of(OpenAiProvider(), asked("u"), params)["tool_choice"] == chat
    assert body_of(CLAUDE_WIRE, asked("u"), params)["tool_choice"] == claude


def test_a_choice_of_nothing_is_refused():
    with pytest.raises(InvalidParameterError, match="tool"):
        CompletionParameters(tools=[get_weather], tool_choice="maybe")


@pytest.mark.parametrize("wrong", [{"tool_choice": "auto"}, {"parallel_tool_calls": False}])
def test_a_choice_without_tools_is_refused_before_anything_is_sent(wrong):
    transport = ScriptedTransport([])
    generator = GeneratorInfo.openai("gpt-4o-mini").with_api_key("k").with_transport(transport)
    with pytest.raises(InvalidParameterError, match="need tools; add tools"):
        run(ChatNode.root("s").chat("u", generator, CompletionParameters(**wrong)))
    assert transport.requests == []


def conversation_with_calls() -> ChatNode:
    calls = [ToolCall(id="a" * 50, name="f", arguments='{"x": 1}'),
             ToolCall(id="b.c", name="g", arguments="{broken")]  # fmt: skip
    _, leaf = ChatNode.from_messages(
        [Message.system("s"), Message.user("u"), Message.assistant("", calls)]
    )
    first = leaf.add_tool_result("a" * 50, "1")
    return first.add_tool_result("b.c", "no such thing", is_error=True)


def test_results_go_back_one_by_one_on_the_chat_wire_with_ids_it_takes():
    for provider in CHAT:
        call, first, second = body_of(provider, conversation_with_calls())["messages"][2:]
        assert call["content"] is None
        ids = [item["id"] for item in call["tool_calls"]]
        assert [first["tool_call_id"], second["tool_call_id"]] == ids
        assert all(len(name) <= 64 for name in ids)
        assert call["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
        assert (first["role"], first["content"]) == ("tool", "1")
        assert second["content"] == "Error: no such thing"
    assert (
        len(body_of(OpenAiProvider(), conversation_with_calls())["messages"][3]["tool_call_id"])
        <= 40
    )


def test_results_go_back_together_on_anthropics_wire_before_what_follows():
    leaf = conversation_with_calls().add_user("go on")
    call, results = body_of(CLAUDE_WIRE, leaf)["messages"][1:]
    assert [block["type"] for block in call["content"]] == ["tool_use", "tool_use"]
    assert [block["input"] for block in call["content"]] == [{"x": 1}, {"_raw": "{broken"}]
    ids = [block["id"] for block in call["content"]]
    assert [block.get("tool_use_id") for block in results["content"]] == [*ids, None]
    assert "." not in ids[1]
    assert [block.get("is_error") for block in results["content"]] == [None, True, None]
    assert results["role"] == "user"


# What servers send, and the calls it means: (id, name, arguments).
FRAGMENTS = {
    "by index": (
        [(0, "a", "f", ""), (0, "", "", '{"x"'), (1, "b", "g", "{}"), (0, "", "", ":1}")],
        [("a", "f", '{"x":1}'), ("b", "g", "{}")]),
    "always index 0 with ids and names (Ollama)": (
        [(0, "a", "f", '{"x":1}'), (0, "b", "f", '{"x":2}')],
        [("a", "f", '{"x":1}'), ("b", "f", '{"x":2}')]),
    "no index, whole calls (Gemini)": (
        [(None, "a", "f", '{"x":1}'), (None, "b", "g", "{}")],
        [("a", "f", '{"x":1}'), ("b", "g", "{}")]),
    "no index and no id": (
        [(None, "", "f", '{"x":1}'), (None, "", "g", "{}")],
        [(None, "f", '{"x":1}'), (None, "g", "{}")]),
    "starting at 1": ([(1, "a", "f", "{"), (1, "", "", "}")], [("a", "f", "{}")]),
    "a new id on every fragment (litellm#40040)": (
        [(0, "a", "f", "{"), (0, "b", "", '"x":'), (0, "c", "", "1}")], [("a", "f", '{"x":1}')]),
    "the name again on every fragment": (
        [(0, "a", "f", "{"), (0, "a", "f", "}")], [("a", "f", "{}")]),
    "a name in pieces": ([(0, "a", "get_", ""), (0, "", "weather", "{}")], [("a", "get_weather", "{}")]),
    "all arguments so far, again and again": (
        [(0, "a", "f", "{"), (0, "", "", '{"x":'), (0, "", "", '{"x":1}')], [("a", "f", '{"x":1}')]),
    "whole arguments twice": (
        [(0, "a", "f", '{"x":1}'), (0, "", "", '{"x":1}')], [("a", "f", '{"x":1}')]),
    "arguments that go on as they began": (
        [(0, "a", "f", '{"x":'), (0, "", "", '{"x":1}}')], [("a", "f", '{"x":{"x":1}}')]),
    "no arguments at all": ([(0, "a", "f", "")], [("a", "f", "{}")]),
    "broken arguments stay as they are": ([(0, "a", "f", "{oops")], [("a", "f", "{oops")]),
}  # fmt: skip


def streamed_calls(fragments):
    deltas = [
        {"choices": [{"index": 0, "delta": {"tool_calls": [
            {"id": name_, "function": {"name": name, "arguments": text}}
            | ({} if index is None else {"index": index})]}}]}
        for index, name_, name, text in fragments
    ]  # fmt: skip
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = (b"data: " + msgspec.json.encode(item) + b"\n\n" for item in (*deltas, end))
    transport = ScriptedTransport([ScriptedReply.events(*events)])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(transport)
    stream = asked("u").complete_streaming(generator)
    seen = [delta for chunk in minillmlib.iterate(stream) for delta in chunk.tool_calls]
    assert all(isinstance(delta, ToolCallDelta) for delta in seen)
    return stream.node


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_of_calls_come_together_whatever_the_server_leaves_out(name):
    fragments, calls = FRAGMENTS[name]
    node = streamed_calls(fragments)
    known = {name for name, _, _ in calls}
    assert [
        (call.id if call.id in known else None, call.name, call.arguments)
        for call in node.tool_calls
    ] == calls
    assert len({call.id for call in node.tool_calls}) == len(calls)
    assert node.response.finish_reason is minillmlib.FinishReason.TOOL_CALLS


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), st.integers(0, 2**32))
def test_calls_cut_and_interleaved_in_any_way_are_the_same_calls(texts, seed):
    chance = random.Random(seed)
    pieces = []
    for index, text in enumerate(texts):
        cuts = sorted(chance.randint(0, len(text)) for _ in range(3))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        pieces.append(
            [(index, f"id{index}", f"f{index}", ""), *((index, "", "", p) for p in parts)]
        )
    mixed = []
    while any(pieces):
        mixed.append(chance.choice([rest for rest in pieces if rest]).pop(0))
    calls = {call.id: (call.name, call.arguments) for call in streamed_calls(mixed).tool_calls}
    assert calls == {f"id{i}": (f"f{i}", text or "{}") for i, text in enumerate(texts)}


def test_a_whole_call_before_an_end_without_a_reason_is_an_answer_and_a_cut_one_is_not():
    def ending_after(arguments):
        delta = {"tool_calls": [{"index": 0, "id": "a",
                                 "function": {"name": "f", "arguments": arguments}}]}  # fmt: skip
        event = msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]})
        events = ScriptedReply.events(b"data: " + event + b"\n\ndata: [DONE]\n\n")
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
        stream = asked("u").complete_streaming(
            generator.with_transport(ScriptedTransport([events]))
        )
        list(minillmlib.iterate(stream))
        return stream.node

    assert ending_after('{"x":1}').tool_calls == (ToolCall(id="a", name="f", arguments='{"x":1}'),)
    with pytest.raises(minillmlib.IncompleteStreamError):
        ending_after('{"x":')


@pytest.mark.parametrize(
    "message",
    [{"function_call": {"name": "f", "arguments": '{"x":1}'}},
     {"tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f", "input": '{"x":1}'}}]}],
)  # fmt: skip
def test_calls_of_older_and_freer_kinds_are_read(message):
    reply = {"choices": [{"message": message, "finish_reason": "function_call"}]}
    transport = ScriptedTransport([ScriptedReply.json(reply)])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(transport)
    node = minillmlib.run(asked("u").complete(generator))
    assert [(call.name, call.arguments) for call in node.tool_calls] == [("f", '{"x":1}')]
    assert node.response.finish_reason is minillmlib.FinishReason.TOOL_CALLS


def test_ids_are_made_to_fit_a_wire_that_takes_short_ones_only():
    class Mistral(minillmlib.Provider):
        dialect = minillmlib.ChatDialect(messages=minillmlib.MessageCapabilities(tool_id_chars=9))

    call = ToolCall(id="call_of_another_vendor", name="f", arguments="{}")
    result = Message.tool_result(call.id, "ok")
    _, leaf = ChatNode.from_messages([Message.user("u"), Message.assistant("", [call]), result])
    made, answered = body_of(Mistral(), leaf)["messages"][1:]
    assert made["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert len(answered["tool_call_id"]) == 9
    assert answered["tool_call_id"].isalnum()


@pytest.mark.parametrize(
    "wrong", [{"mode": "must"}, {"mode": "tool"}, {"mode": "auto", "name": "f"}, {"mode": "tool", "name": "a b"}]
)  # fmt: skip
def test_a_choice_that_makes_no_sense_is_refused_when_it_is_made(wrong):
    with pytest.raises(InvalidParameterError):
        ToolChoice(**wrong)


def test_arguments_are_read_on_request_and_never_guessed():
    assert ToolCall(id="a", name="f", arguments='{"x": [1]}').arguments_json() == {"x": [1]}
    with pytest.raises(minillmlib.MalformedResponseError, match="called f"):
        ToolCall(id="a", name="f", arguments='{"x": ').arguments_json()


@pytest.mark.parametrize(
    ("arguments", "value"),
    [("null", {}), ("", {}), (" \n", {}), ('""', {}), ('"null"', {}), ('"{}"', {}),
     (r'"{\"city\": \"Oslo\"}"', {"city": "Oslo"}), (r'"\"{}\""', {}), ('{"a": "{}"}', {"a": "{}"}),
     ('{"a": null}', {"a": None})],
)  # fmt: skip
def test_arguments_are_an_object_however_the_server_wrote_it(arguments, value):
    call = ToolCall(id="a", name="f", arguments=arguments)
    assert call.arguments_json() == value
    assert call.arguments == arguments, "what the model wrote is kept"
    sent = body_of(CLAUDE_WIRE, with_call(call))["messages"][1]["content"][0]
    assert sent["input"] == value


@pytest.mark.parametrize(
    "arguments", ["[1]", "3", "0", "true", "false", '"Oslo"', '"[1]"', "0.0", "[]", '"{"']
)
def test_arguments_that_are_no_object_are_an_error_that_quotes_them(arguments):
    call = ToolCall(id="a", name="f", arguments=arguments)
    with pytest.raises(minillmlib.MalformedResponseError, match="called f") as caught:
        call.arguments_json()
    assert arguments in str(caught.value)
    sent = body_of(CLAUDE_WIRE, with_call(call))["messages"][1]["content"][0]
    assert sent["input"] == {"_raw": arguments}


def with_call(call: ToolCall) -> ChatNode:
    messages = [Message.user("u"), Message.assistant("", [call]), Message.tool_result("a", "ok")]
    return ChatNode.from_messages(messages)[1]


def test_a_whole_call_with_its_arguments_as_an_object_is_read():
    message = {
        "content": "",
        "tool_calls": [{"id": "0", "function": {"name": "f", "arguments": {"x": 1}}}],
    }
    reply = {"choices": [{"message": message, "finish_reason": "stop"}]}
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    call = asked("u").complete(
        generator.with_transport(ScriptedTransport([ScriptedReply.json(reply)]))
    )
    (made,) = minillmlib.run(call).tool_calls
    assert made.arguments_json() == {"x": 1}


def test_an_image_goes_out_by_url_or_by_its_bytes():
    by_url, by_bytes = ImagePart.from_url("https://x.example/a.png"), ImagePart.from_bytes(PNG)
    assert by_bytes.media_type == "image/png"
    for provider in CHAT:
        _, text, first, second = [None, *body_of(provider, asked(TextPart(text="see"), by_url, by_bytes))[
            "messages"][1]["content"]]  # fmt: skip
        assert text == {"type": "text", "text": "see"}
        assert first == {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
        assert second["image_url"]["url"].startswith("data:image/png;base64,iVBORw0K")
    first, second = body_of(CLAUDE_WIRE, asked(by_url, by_bytes))["messages"][0]["content"]
    assert first == {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
    assert second["source"]["type"] == "base64"
    assert second["source"]["media_type"] == "image/png"
    assert not second["source"]["data"].startswith("data:")


def test_a_data_url_is_taken_apart():
    part = ImagePart.from_url(ImagePart.from_bytes(PNG).data_url)
    assert (part.data, part.media_type, part.url) == (PNG, "image/png", None)


@pytest.mark.parametrize(
    ("kind", "url"),
    [(ImagePart, "file:///etc/passwd"), (ImagePart, "/etc/passwd"), (ImagePart, "data:image/png,x"),
     (ImagePart, "data:image/png;base64,%%%"), (DocumentPart, "ftp://x/a.pdf"), (ImagePart, "https://a b")],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_and_no_file_is_opened(kind, url):
    with pytest.raises(InvalidParameterError):
        kind.from_url(url)


WIRES = {"openai": OpenAiProvider(), "openrouter": OpenRouterProvider(),
         "generic": GenericProvider(), "anthropic": CLAUDE_WIRE}  # fmt: skip
PARTS = {
    "image": ImagePart.from_bytes(PNG),
    "audio": AudioPart.from_bytes(WAV),
    "audio by url": AudioPart.from_url("https://x.example/a.wav"),
    "flac": AudioPart.from_bytes(b"fLaC...."),
    "video": VideoPart.from_bytes(MP4),
    "document": DocumentPart.from_bytes(PDF),
    "document by url": DocumentPart.from_url("https://x.example/a.pdf"),
}
TAKES = {
    "openai": {"image", "audio", "document"},
    "openrouter": {"image", "audio", "flac", "video", "document", "document by url"},
    "generic": {"image", "audio", "document"},
    "anthropic": {"image", "document", "document by url"},
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_goes_out_or_is_an_error_that_names_it(wire, part):
    leaf = asked(TextPart(text="see"), PARTS[part])
    if part in TAKES[wire]:
        assert len(str(body_of(WIRES[wire], leaf))) > len(str(body_of(WIRES[wire], asked("see"))))
    else:
        with pytest.raises(InvalidParameterError, match=r"audio|video|document"):
            body_of(WIRES[wire], leaf)


def test_a_file_is_known_by_its_content_and_read_only_when_asked_for(tmp_path):
    path = tmp_path / "picture.txt"
    path.write_bytes(PNG)
    assert ImagePart.from_file(path).media_type == "image/png"
    with pytest.raises(InvalidParameterError, match="larger"):
        ImagePart.from_file(path, max_bytes=4)
    with pytest.raises(InvalidParameterError, match="audio"):
        AudioPart.from_file(path)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidParameterError, match="cannot be read"):
            ImagePart.from_file(missing)
    with pytest.raises(InvalidParameterError, match="either"):
        ImagePart()
    document = tmp_path / "tides of 2026.pdf"
    document.write_bytes(PDF)
    with pytest.raises(InvalidParameterError, match="larger"):
        DocumentPart.from_file(document, max_bytes=4)
    part = DocumentPart.from_file(document)
    sent = body_of(OpenAiProvider(), asked(TextPart(text="u"), part))["messages"][-1]["content"]
    assert sent[1]["file"]["filename"] == "tides of 2026.pdf"


def test_media_belong_to_the_user_on_the_chat_wire():
    leaf = ChatNode.root("s").add_user("u").add_assistant([ImagePart.from_bytes(PNG)]).add_user("v")
    with pytest.raises(InvalidParameterError, match="user"):
        body_of(OpenAiProvider(), leaf)


def test_json_can_be_asked_for_on_every_wire():
    mode = CompletionParameters().with_json_response()
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"],
              "additionalProperties": False}  # fmt: skip
    strict = CompletionParameters(response_format=ResponseFormat.json_schema(schema, name="point"))
    for provider in CHAT:
        assert body_of(provider, asked("u"), mode)["response_format"] == {"type": "json_object"}
        assert body_of(provider, asked("u"), strict)["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "point", "schema": schema, "strict": True},
        }
    body = body_of(CLAUDE_WIRE, asked("u"), strict)
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    body = body_of(CLAUDE_WIRE, asked("u"), mode)
    assert "JSON" in body["system"]
    assert "output_config" not in body


ROUTING = minillmlib.ProviderSettings(order=["a", "b"], max_price={"prompt": 1.5})


def test_routing_goes_to_openrouter_only_and_the_receipt_says_so():
    routing = ROUTING.sort_by_throughput().deny_data_collection()
    params = CompletionParameters(temperature=0).with_openrouter_routing(routing)
    body = body_of(OpenRouterProvider(), asked("u"), params)
    assert body["provider"] == {"order": ["a", "b"], "max_price": {"prompt": 1.5},
                                "sort": "throughput", "data_collection": "deny"}  # fmt: skip
    for provider in (OpenAiProvider(), GenericProvider(), CLAUDE_WIRE):
        assert "provider" not in body_of(provider, asked("u"), params)
    clash = params.replace(extra={"provider": {}})
    with pytest.raises(InvalidParameterError, match="provider"):
        body_of(OpenRouterProvider(), asked("u"), clash)


def test_fallback_models_stand_beside_the_routing():
    routing = minillmlib.ProviderSettings(fallback_models=["a/b", "c/d"], zdr=True)
    params = CompletionParameters(openrouter_routing=routing)
    body = body_of(OpenRouterProvider(), asked("u"), params)
    assert (body["model"], body["models"], body["provider"]) == ("m", ["a/b", "c/d"], {"zdr": True})
    only = params.with_openrouter_routing(minillmlib.ProviderSettings(fallback_models=["a/b"]))
    assert "provider" not in body_of(OpenRouterProvider(), asked("u"), only)


@pytest.mark.parametrize(
    "wrong", [{"order": "anthropic"}, {"order": 5}, {"order": [5]}, {"sort": "speed"}, {"zdr": 1},
              {"data_collection": "no"}, {"max_price": 1}, {"fallback_models": "a/b"}]
)  # fmt: skip
def test_a_routing_that_openrouter_would_not_understand_is_refused(wrong):
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        minillmlib.ProviderSettings(**wrong)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_receipt_tells_what_was_sent_and_what_was_left_out(streaming):
    params = CompletionParameters(temperature=0).with_openrouter_routing(ROUTING)
    for provider, omitted in [
        (OpenRouterProvider(), set()),
        (GenericProvider(), {"openrouter_routing"}),
    ]:
        transport = ScriptedTransport([ScriptedReply.json(ANSWER)])
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_provider(provider)
        generator = generator.with_transport(transport)
        if streaming:
            stream = asked("u").complete_streaming(generator, params)
            list(minillmlib.iterate(stream))
            request_report = stream.response.request_report
        else:
            request_report = minillmlib.run(
                asked("u").complete(generator, params)
            ).response.request_report
        assert set(request_report.sent) == msgspec.json.decode(transport.requests[0].body).keys()
        assert request_report.omitted.keys() == omitted


def test_a_schema_holds_the_real_model_on_the_openai_wire(local_server):
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}},
              "required": ["city"], "additionalProperties": False}  # fmt: skip
    params = CompletionParameters(
        temperature=0, max_tokens=48, response_format=ResponseFormat.json_schema(schema)
    )
    generator = GeneratorInfo.custom("real", local_server.base_url, "m").with_api_key(
        local_server.key
    )
    answer = minillmlib.run(
        ChatNode.root("Answer in JSON.").chat("Capital of France?", generator, params)
    )
    assert msgspec.json.decode(answer.text)["city"] in ("Paris", "Rome")


WRONG_VALUES = [
    lambda: TextPart(text=3),
    lambda: ToolDefinition(name="f", parameters={"type": "array"}),
    lambda: ToolDefinition(name="f", description=3),
    lambda: ToolDefinition(name="f", strict="yes"),
    lambda: ToolCall(id=None, name="f", arguments="{}"),
    lambda: ToolCall(id="a", name="f", arguments={}),
    lambda: ResponseFormat(schema={}, name="a b"),
    lambda: ResponseFormat(schema={}, strict="no"),
    lambda: ImagePart(data=PNG, detail="sharp"),
    lambda: ImagePart(data=PNG, media_type="png"),
    lambda: DocumentPart(data=b"text", media_type="text/plain"),
    lambda: DocumentPart(data=PDF, filename=3),
]


@pytest.mark.parametrize("make", WRONG_VALUES)
def test_a_value_that_no_wire_takes_is_refused_when_it_is_made(make):
    with pytest.raises(InvalidParameterError):
        make()


def test_the_type_of_an_image_is_said_in_words_that_all_vendors_know():
    jpeg = ImagePart.from_bytes(b"\xff\xd8\xff", media_type="image/jpg")
    assert body_of(CLAUDE_WIRE, asked(TextPart(text="u"), jpeg))["messages"][0]["content"][1][
        "source"
    ] == {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}
    drawing = ImagePart.from_bytes(b"<svg/>", media_type="image/svg+xml")
    with pytest.raises(InvalidParameterError, match="image/webp"):
        body_of(CLAUDE_WIRE, asked(TextPart(text="u"), drawing))


def calls_of_fragments(*fragments: dict) -> tuple[ToolCall, ...]:
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in fragments]
    deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    events = (b"data: " + msgspec.json.encode(delta) + b"\n\n" for delta in deltas)
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(
        ScriptedTransport([ScriptedReply.events(*events)])
    )
    stream = asked("u").complete_streaming(generator)
    chunks = list(minillmlib.iterate(stream))
    sent = [delta.extra for chunk in chunks for delta in chunk.tool_calls]
    assert sent == [
        {key: value for key, value in one.items() if key not in ("index", "id", "function")}
        for one in fragments
    ], "merging changes no chunk"
    return stream.response.tool_calls


def test_the_further_keys_of_a_streamed_call_are_merged_and_nothing_empty_replaces_a_value():
    head = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    (call,) = calls_of_fragments(
        head | {"a": {"google": {"x": 1}}, "b": "sig", "d": None},
        {"index": 0, "function": {"arguments": "{}"}, "a": {"google": {"y": [1]}}, "b": ""},
        {"index": 0, "a": {"google": {"x": 2}, "more": {}}, "b": None, "c": False},
        {"index": 0, "a": None, "d": {"late": True}},
    )
    assert call.extra == {
        "a": {"google": {"x": 2, "y": [1]}, "more": {}}, "b": "sig", "c": False, "d": {"late": True},
    }  # fmt: skip
    assert (call.arguments, call.origin) == ("{}", "")


def test_keys_that_the_caller_gives_a_call_go_to_every_wire():
    extra = {"extra_content": {"google": {"thought_signature": "skip"}}}
    call = ToolCall(id="c", name="f", arguments="{}", extra=extra)
    extra["later"] = 1
    messages = [Message.user("u"), Message.assistant("", [call]), Message.tool_result("c", "ok")]
    _, leaf = ChatNode.from_messages(messages)
    for provider in CHAT:
        (sent,) = body_of(provider, leaf)["messages"][1]["tool_calls"]
        assert sent == {"id": "c", "type": "function",
                        "function": {"name": "f", "arguments": "{}"}} | call.extra  # fmt: skip
    (sent,) = body_of(CLAUDE_WIRE, leaf)["messages"][1]["content"]
    assert sent == {"type": "tool_use", "id": "c", "name": "f", "input": {}} | call.extra
    assert list(call.extra) == ["extra_content"]
    assert len({call, msgspec.structs.replace(call)}) == 1


def answered(provider, reply: dict) -> ChatNode:
    transport = ScriptedTransport([ScriptedReply.json(reply)])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_provider(provider)
    node = minillmlib.run(asked("u").complete(generator.with_transport(transport)))
    for call in node.tool_calls:
        node = node.add_tool_result(call.id, "ok")
    return node


def test_the_keys_and_the_odd_id_of_one_wire_do_not_reach_the_other():
    chat = {"id": "fc:1/" + "x" * 60, "k": 1, "function": {"name": "f", "arguments": "{}", "p": 2}}
    node = answered(GenericProvider(), {"choices": [{"message": {"tool_calls": [chat]}}]})
    body = body_of(CLAUDE_WIRE, node)
    (use,), (result,) = (message["content"] for message in body["messages"][1:])
    assert set(use) == {"type", "id", "name", "input"}
    assert use["id"] == result["tool_use_id"] != chat["id"]
    assert body_of(GenericProvider(), node)["messages"][2]["tool_calls"] == [
        chat | {"type": "function"}
    ]
    use = {"type": "tool_use", "id": "t:1", "name": "f", "input": {}, "caller": {"type": "direct"}}
    node = answered(CLAUDE_WIRE, {"content": [use], "stop_reason": "tool_use"})
    assert body_of(CLAUDE_WIRE, node)["messages"][1]["content"] == [use]
    (sent,) = body_of(OpenAiProvider(), node)["messages"][2]["tool_calls"]
    assert set(sent) == {"id", "type", "function"}
    assert sent["id"] == "t:1"  # short enough for this wire


def test_a_call_of_openais_free_kind_goes_back_as_one():
    call = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "SELECT 1"}}
    node = answered(OpenAiProvider(), {"choices": [{"message": {"tool_calls": [call]}}]})
    assert body_of(OpenAiProvider(), node)["messages"][2]["tool_calls"] == [call]


CUSTOM = {"id": "c", "type": "custom", "k": 1,
          "custom": {"name": "f", "input": "ab", "arguments": 2, "note": {"x": 3, "y": 4}}}  # fmt: skip


def test_unknown_keys_of_a_call_of_the_free_kind_go_back_in_their_place():
    node = answered(OpenAiProvider(), {"choices": [{"message": {"tool_calls": [CUSTOM]}}]})
    (call,) = node.parent.tool_calls
    assert (call.name, call.arguments) == ("f", "ab")
    assert body_of(OpenAiProvider(), node)["messages"][2]["tool_calls"] == [CUSTOM]


def test_a_function_beside_the_free_kind_of_a_call_goes_back_too():
    both = {**CUSTOM, "function": {"name": "g", "arguments": "{}", "strict": True}}
    node = answered(OpenAiProvider(), {"choices": [{"message": {"tool_calls": [both]}}]})
    assert node.parent.tool_calls[0].name == "f"
    assert body_of(OpenAiProvider(), node)["messages"][2]["tool_calls"] == [both]


def test_unknown_keys_of_a_call_of_the_free_kind_are_collected_from_its_fragments():
    fragments = [
        {"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "a"}},
        {"index": 0, "k": 1, "custom": {"input": "b", "note": {"x": 3}}},
        {"index": 0, "custom": {"arguments": 2, "note": {"y": 4}}},
    ]
    deltas = [{"choices": [{"delta": {"tool_calls": [one]}}]} for one in fragments]
    end = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
    pieces = (b"data: " + msgspec.json.encode(one) + b"\n\n" for one in (*deltas, end))
    transport = ScriptedTransport([ScriptedReply.events(*pieces)])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(transport)
    stream = asked("u").complete_streaming(generator.with_provider(OpenAiProvider()))
    list(minillmlib.iterate(stream))
    node = stream.node.add_tool_result("c", "ok")
    assert body_of(OpenAiProvider(), node)["messages"][2]["tool_calls"] == [CUSTOM]


@pytest.mark.parametrize("has_null", [True, False])
def test_no_text_beside_tool_calls_is_null_or_empty_by_the_dialect(has_null):
    class Own(minillmlib.Provider):
        dialect = minillmlib.ChatDialect(
            messages=minillmlib.MessageCapabilities(has_null_content=has_null)
        )

    call = ToolCall(id="c", name="f", arguments="{}")
    messages = [Message.user("u"), Message.assistant("", [call]), Message.tool_result("c", "")]
    _, leaf = ChatNode.from_messages(messages)
    sent = body_of(Own(), leaf)["messages"]
    assert sent[1]["content"] == (None if has_null else "")
    assert sent[2]["content"] == ""
