"""The whole bodies that conversations and parameters become on the wires of chat and of base models."""

from __future__ import annotations

from typing import Any

import pytest
from sent_bodies import PDF, PNG, WAV

from minillmlib import (
    AudioPart,
    CompletionParameters,
    DocumentPart,
    ImagePart,
    InvalidParameterError,
    Message,
    OpenAiProvider,
    OpenRouterProvider,
    PromptCache,
    ProviderSettings,
    ReasoningConfig,
    ResponseFormat,
    TextPart,
    ToolCall,
    VideoPart,
    parse_finish_reason,
)
from minillmlib.protocols.cache_control import (
    add_breakpoint,
    cache_control,
    has_block,
    has_text,
    omitted_breakpoints,
    select_breakpoints,
)
from minillmlib.protocols.chat_completions.choices import ask_choices
from minillmlib.protocols.chat_completions.dialect import ChatDialect, MessageCapabilities
from minillmlib.protocols.chat_completions.request import (
    build_body,
    encode_messages,
    ensure_json_keyword,
    mark_prefill,
    omitted_reasoning,
)
from minillmlib.protocols.completions import request as completions
from minillmlib.protocols.fields import (
    encode_tool,
    normalize_tool_call_id,
    own_ids,
    trim_last_turn,
)
from minillmlib.types.messages import Role
from minillmlib.types.reasoning import Reasoning, ReasoningBlock

user, system, assistant = Message.user, Message.system, Message.assistant
ASKED = [user("u")]
SENT = [{"role": "user", "content": "u"}]
PLAIN = ChatDialect(name="the wire")
BARE = ChatDialect(name="the wire", has_stream_options=False, has_reasoning_object=True)
RICH = ChatDialect(
    name="the wire",
    messages=MessageCapabilities(
        images=("image/png",), audio=("wav",), has_video=True, has_document_urls=True,
        has_tool_media=True, has_null_content=False, has_answer_images=True,
    ),
)  # fmt: skip
EXACT = ChatDialect(messages=MessageCapabilities(tool_id_chars=9, has_exact_tool_ids=True))


def body(params: CompletionParameters, dialect: ChatDialect = PLAIN, **options: bool) -> Any:
    options = {"stream": False, "include_usage": False} | options
    return build_body(dialect, "m", ASKED, params, **options)


# Parameters.

NOTHING = CompletionParameters()
SCHEMA = {"type": "object", "properties": {}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
STRICT = {"name": "g", "parameters": SCHEMA, "strict": False}
SAMPLING = {
    "temperature": 0.5, "top_p": 0.25, "top_k": 3, "frequency_penalty": -1, "presence_penalty": 1,
    "repetition_penalty": 1.5, "stop": ("a", "b"), "seed": 7,
}  # fmt: skip

PARAMETERS = [
    ({}, {}),
    ({"max_tokens": 0}, {"max_tokens": 0}),
    (SAMPLING, SAMPLING),
    ({"logprobs": 0}, {"logprobs": True}),
    ({"logprobs": 1}, {"logprobs": True, "top_logprobs": 1}),
    ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ({"parallel_tool_calls": True}, {"parallel_tool_calls": True}),
    ({"tools": [TOOL, STRICT]}, {"tools": [TOOL, {"type": "function", "function": STRICT}]}),
    ({"tools": []}, {}),
    ({"tool_choice": "required"}, {"tool_choice": "required"}),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}},
     {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ({"response_format": ResponseFormat.json_schema(SCHEMA, name="n", strict=False)},
     {"response_format": {"type": "json_schema",
                          "json_schema": {"name": "n", "schema": SCHEMA, "strict": False}}}),
    ({"reasoning": ReasoningConfig(effort="low")}, {"reasoning_effort": "low"}),
    ({"extra": {"n": 1, "x": None}}, {"n": 1, "x": None}),
    ({"extra": {"n": None}}, {"n": None}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "sent"), PARAMETERS)
def test_a_body_has_the_model_the_messages_and_what_the_parameters_become(given, sent):
    params = CompletionParameters(**given)
    assert body(params) == {"model": "m", "messages": SENT, **sent}


STREAMS = [
    (PLAIN, False, False, {}), (PLAIN, False, True, {}), (PLAIN, True, False, {"stream": True}),
    (PLAIN, True, True, {"stream": True, "stream_options": {"include_usage": True}}),
    (BARE, True, True, {"stream": True}),
]  # fmt: skip


@pytest.mark.parametrize("params", [NOTHING, CompletionParameters(seed=1)])
@pytest.mark.parametrize(("dialect", "stream", "include_usage", "sent"), STREAMS)
def test_usage_in_a_stream_is_asked_for_where_it_must_be(
    dialect, stream, include_usage, sent, params
):
    found = body(params, dialect, stream=stream, include_usage=include_usage)
    seed = {} if params.seed is None else {"seed": 1}
    assert found == {"model": "m", "messages": SENT, **sent, **seed}


def test_reasoning_is_an_object_with_an_effort_or_a_budget_where_the_server_takes_one():
    budget, effort = ReasoningConfig(max_tokens=5), ReasoningConfig(effort="high")
    found = [
        body(CompletionParameters(reasoning=one), BARE)["reasoning"] for one in (budget, effort)
    ]
    assert found == [{"max_tokens": 5}, {"effort": "high"}]


JSON_TURNS = [
    ([user("a"), assistant("b")], ["a\n\nAnswer in JSON.", "b"]),
    ([system("a"), assistant("b")], ["a\n\nAnswer in JSON.", "b"]),
    ([system("a"), user("b"), assistant("c"), user("d"), assistant("e")],
     ["a", "b", "c", "d\n\nAnswer in JSON.", "e"]),
    ([user("a"), user("b")], ["a", "b\n\nAnswer in JSON."]),
    ([user("a"), assistant("jSon"), user("b")], ["a", "jSon", "b"]),
    ([user((TextPart(text="a"), ImagePart(data=PNG)))],
     [(TextPart(text="a"), ImagePart(data=PNG), TextPart(text="Answer in JSON."))]),
    ([user((TextPart(text="as Json"), ImagePart(data=PNG)))],
     [(TextPart(text="as Json"), ImagePart(data=PNG))]),
    ([assistant("a")], ["a"]), ([user((ImagePart(data=PNG),)), assistant("a")],
     [(ImagePart(data=PNG), TextPart(text="Answer in JSON.")), "a"]),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "contents"), JSON_TURNS)
def test_one_message_has_the_word_json_where_an_answer_in_json_is_asked_for(messages, contents):
    found = ensure_json_keyword(messages)
    assert [message.content for message in found] == contents
    assert [message.role for message in found] == [message.role for message in messages]


def test_only_the_format_of_any_json_needs_the_word():
    for form, content in ((ResponseFormat.json(), "u\n\nAnswer in JSON."),
                          (ResponseFormat.json_schema(SCHEMA), "u")):  # fmt: skip
        found = body(CompletionParameters(response_format=form))
        assert found["messages"] == [{"role": "user", "content": content}]
    assert body(CompletionParameters(response_format=ResponseFormat.json())) == {
        "model": "m",
        "messages": [{"role": "user", "content": "u\n\nAnswer in JSON."}],
        "response_format": {"type": "json_object"},
    }


REFUSED = [
    (PLAIN, {"reasoning": ReasoningConfig(max_tokens=5)}, "the wire has no reasoning max_tokens; give an effort"),
    (ChatDialect(name="the wire", fields={"seed": "seed"}), {"seed": 1, "top_k": 3},
     "the wire has no top_k; leave it out for this provider"),
    (PLAIN, {"extra": {"n": 2}}, "extra['n'] asks for 2 answers, of which all but one would be lost; "
     "use complete_many(), which adds a node for each"),
    (PLAIN, {"seed": 1, "extra": {"x": 1, "seed": 2}}, "extra['seed'] collides with a key that the call itself sets; leave it out of extra"),
    (PLAIN, {"extra": {"stream": True}}, "extra['stream'] collides with a key that the call itself sets; leave it out of extra"),
    (PLAIN, {"extra": {"stream_options": {}}}, "extra['stream_options'] collides with a key that the call itself sets; leave it out of extra"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "given", "words"), REFUSED)
def test_what_the_wire_cannot_carry_is_refused_by_name(dialect, given, words):
    with pytest.raises(InvalidParameterError) as caught:
        body(CompletionParameters(**given), dialect)
    assert str(caught.value) == words


def test_fields_have_the_servers_keys():
    dialect = ChatDialect(fields={"max_tokens": "limit", "seed": "random_seed"})
    found = body(CompletionParameters(max_tokens=5, seed=6), dialect)
    assert found == {"model": "m", "messages": SENT, "limit": 5, "random_seed": 6}


@pytest.mark.parametrize(
    "wrong", [{"fields": {"extra": "extra"}}, {"fields": {"max_token": "x"}}, {"reasoning_echo": "thoughts"}]
)  # fmt: skip
def test_a_dialect_with_an_unknown_name_is_refused(wrong):
    with pytest.raises(InvalidParameterError):
        ChatDialect(**wrong)


def test_several_answers_are_asked_for_beside_the_rest():
    asked = {"model": "m", "stream": True}
    assert ask_choices(asked, 3) == {"model": "m", "stream": True, "n": 3}
    assert asked == {"model": "m", "stream": True}


# Messages.

IMAGE, IMAGE_SENT = (
    ImagePart(data=PNG),
    {"type": "image_url", "image_url": {"url": ImagePart(data=PNG).data_url}},
)
A_TEXT, A_TEXT_SENT = TextPart(text="a"), {"type": "text", "text": "a"}
CALL = ToolCall(id="c1", name="f", arguments="{}")
CALL_SENT = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def result(content: Any, call_id: str = "c1", **more: Any) -> Message:
    return Message.tool_result(call_id, content, **more)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


MESSAGES = [
    (PLAIN, [system("s"), user("u"), assistant("a")],
     [turn("system", "s"), turn("user", "u"), turn("assistant", "a")]),
    (PLAIN, [user((A_TEXT, IMAGE))], [turn("user", [A_TEXT_SENT, IMAGE_SENT])]),
    (PLAIN, [user((ImagePart(url="https://h.example/a", detail="low"),))],
     [turn("user", [{"type": "image_url", "image_url": {"url": "https://h.example/a", "detail": "low"}}])]),
    (PLAIN, [assistant((A_TEXT, A_TEXT))], [turn("assistant", [A_TEXT_SENT] * 2)]),
    (PLAIN, [user((AudioPart(data=WAV),))],
     [turn("user", [{"type": "input_audio", "input_audio": {"data": AudioPart(data=WAV).base64, "format": "wav"}}])]),
    *((PLAIN, [user((AudioPart(data=b"x", media_type=kind),))],
       [turn("user", [{"type": "input_audio", "input_audio": {"data": "eA==", "format": form}}])])
      for kind, form in (("audio/mpeg", "mp3"), ("audio/x-wav", "wav"), ("audio/wave", "wav"), ("audio/mp3", "mp3"))),
    (RICH, [user((VideoPart(url="https://h.example/v"),))],
     [turn("user", [{"type": "video_url", "video_url": {"url": "https://h.example/v"}}])]),
    (PLAIN, [user((DocumentPart(data=PDF),))],
     [turn("user", [{"type": "file", "file": {"filename": "document.pdf", "file_data": DocumentPart(data=PDF).data_url}}])]),
    (RICH, [user((DocumentPart(url="https://h.example/d", filename="d.pdf"),))],
     [turn("user", [{"type": "file", "file": {"filename": "d.pdf", "file_data": "https://h.example/d"}}])]),
    (PLAIN, [assistant("", [CALL]), result("r")],
     [turn("assistant", None, tool_calls=[CALL_SENT]), turn("tool", "r", tool_call_id="c1")]),
    (RICH, [assistant("", [CALL]), result("r")],
     [turn("assistant", "", tool_calls=[CALL_SENT]), turn("tool", "r", tool_call_id="c1")]),
    (PLAIN, [assistant("t", [CALL, CALL])], [turn("assistant", "t", tool_calls=[CALL_SENT, CALL_SENT])]),
    (PLAIN, [result("no", is_error=True), result((A_TEXT,), is_error=True), result((A_TEXT,))],
     [turn("tool", "Error: no", tool_call_id="c1"),
      turn("tool", [{"type": "text", "text": "Error: "}, A_TEXT_SENT], tool_call_id="c1"),
      turn("tool", [A_TEXT_SENT], tool_call_id="c1")]),
    (RICH, [result((IMAGE,))], [turn("tool", [IMAGE_SENT], tool_call_id="c1")]),
    (RICH, [assistant("a", media=[IMAGE, IMAGE])], [turn("assistant", "a", images=[IMAGE_SENT] * 2)]),
    (PLAIN, [assistant("a", media=[IMAGE])], [turn("assistant", "a")]),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "messages", "sent"), MESSAGES)
def test_messages_of_every_kind_are_written_whole(dialect, messages, sent):
    assert encode_messages(dialect, messages) == sent


UNWRITABLE = [
    (PLAIN, assistant((A_TEXT, IMAGE)), "the wire takes media in a user's message only"),
    (PLAIN, result((IMAGE,)), "the wire takes media in a user's message only"),
    (RICH, assistant((IMAGE,)), "the wire takes media in a user's message only"),
    (PLAIN, user((VideoPart(url="https://h.example/v"),)),
     "the wire takes no video; leave it out, or use a provider that takes it"),
    (PLAIN, user((DocumentPart(url="https://h.example/d"),)),
     "the wire takes a document by its bytes only, not by a URL"),
    (PLAIN, user((AudioPart(url="https://h.example/a"),)),
     "the wire takes audio by its bytes only, not by a URL"),
    (PLAIN, user((AudioPart(data=b"fLaC", media_type="audio/flac"),)),
     "the wire takes audio as wav, mp3, not audio/flac"),
    (RICH, user((ImagePart(data=b"GIF89a"),)), "the wire takes images as image/png, not image/gif"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "message", "words"), UNWRITABLE)
def test_media_that_the_server_does_not_take_are_refused_before_they_are_sent(dialect, message, words):  # fmt: skip
    with pytest.raises(InvalidParameterError) as caught:
        encode_messages(dialect, [message])
    assert str(caught.value) == words


def test_an_image_by_its_address_may_be_of_any_type():
    part = ImagePart(url="https://h.example/a", media_type="image/gif")
    (sent,) = encode_messages(RICH, [user((part,))])
    assert sent["content"] == [{"type": "image_url", "image_url": {"url": "https://h.example/a"}}]


EXTRA = {"note": 1, "function": {"more": 2, "name": "not this"}, "id": "nor this"}
CALLS = [
    (CALL, CALL_SENT),
    (ToolCall(id="c1", name="f", arguments="{}", extra=EXTRA),
     {"id": "c1", "type": "function", "note": 1, "function": {"more": 2, "name": "f", "arguments": "{}"}}),
    (ToolCall(id="c1", name="f", arguments="x", extra={"type": "custom", "k": 1}),
     {"type": "custom", "k": 1, "id": "c1", "custom": {"name": "f", "input": "x"}}),
    (ToolCall(id="c1", name="f", arguments="x", extra={"type": "mcp"}),
     {"id": "c1", "type": "mcp", "function": {"name": "f", "arguments": "x"}}),
]  # fmt: skip


@pytest.mark.parametrize(("call", "sent"), CALLS)
def test_a_call_goes_back_with_all_its_keys(call, sent):
    kept = dict(call.extra)
    (message,) = encode_messages(PLAIN, [assistant("", [call])])
    assert message["tool_calls"] == [sent]
    assert call.extra == kept


FORTY, NINE = "i" * 40, "abcdefgh1"
IDS = [
    (PLAIN, FORTY, True), (PLAIN, FORTY + "i", False), (PLAIN, "", True), (PLAIN, "é.!", True),
    (EXACT, NINE, True), (EXACT, NINE[1:], False), (EXACT, NINE + "0", False),
    (EXACT, "abcd-efgh", False), (EXACT, "abcdefghé", False),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "call_id", "fits"), IDS)
def test_an_id_that_does_not_fit_is_replaced_alike_in_call_and_result(dialect, call_id, fits):
    call = ToolCall(id=call_id, name="f", arguments="{}")
    sent = encode_messages(dialect, [assistant("", [call]), result("r", call_id)])
    ids = {sent[0]["tool_calls"][0]["id"], sent[1]["tool_call_id"]}
    limit = dialect.messages.tool_id_chars
    assert ids == {call_id if fits else normalize_tool_call_id(call_id, "call_", limit)}
    assert len(min(ids)) <= limit
    own = ToolCall(id=call_id, name="f", arguments="{}", origin="m")
    sent = encode_messages(dialect, [assistant("", [own]), result("r", call_id)])
    assert {sent[0]["tool_calls"][0]["id"], sent[1]["tool_call_id"]} == {call_id}


@pytest.mark.parametrize(
    ("prefix", "limit", "replaced"),
    [("call_", 64, "call_1eb8f3825c00517a82c0c9a6"), ("call_", 29, "call_1eb8f3825c00517a82c0c9a6"),
     ("call_", 28, "1eb8f3825c00517a82c0c9a6"), ("", 24, "1eb8f3825c00517a82c0c9a6"),
     ("", 9, "1eb8f3825"), ("toolu_", 9, "1eb8f3825")],
)  # fmt: skip
def test_a_replaced_id_is_always_the_same_and_no_longer_than_allowed(prefix, limit, replaced):
    assert normalize_tool_call_id("a b", prefix, limit) == replaced
    if limit == 64:
        assert normalize_tool_call_id("a b", prefix) == replaced
        assert normalize_tool_call_id("a  b", prefix) != replaced


def test_only_calls_with_an_origin_have_ids_of_this_model():
    calls = [
        ToolCall(id=name, name="f", arguments="{}", origin=name[1:]) for name in ("a", "b1", "c2")
    ]
    messages = [user("u"), assistant("", calls[:2]), assistant("", calls[2:])]
    assert own_ids(messages) == {"b1", "c2"}


def test_a_tool_is_written_with_what_is_known_of_it():
    assert encode_tool(STRICT, "schema") == {"name": "g", "schema": SCHEMA, "strict": False}
    assert encode_tool(TOOL, "input") == {"name": "f", "input": SCHEMA, "description": "d"}


# Reasoning that goes back.

BLOCK = {"type": "t", "text": "b"}
ECHOES = [
    # the echo of the dialect, the key it came under, whether it has calls, and what is sent
    ("as_sent", "reasoning_content", True, {"reasoning_content": "r"}),
    ("as_sent", "reasoning_content", False, {}),
    ("as_sent", "reasoning", True, {}),
    ("as_sent", "content", True, {}),
    ("as_sent", "", True, {}),
    ("as_sent", "reasoning_details", True, {"reasoning_details": [BLOCK]}),
    ("as_sent", "reasoning_details", False, {"reasoning_details": [BLOCK]}),
    ("as_sent", "thinking_blocks", False, {"thinking_blocks": [BLOCK]}),
    ("reasoning", "", False, {"reasoning": "r"}),
    ("reasoning", "reasoning_content", True, {"reasoning": "r"}),
    ("reasoning_content", "", False, {"reasoning_content": "r"}),
    ("reasoning_details", "", False, {"reasoning_details": [BLOCK]}),
    ("thinking_blocks", "reasoning", True, {"thinking_blocks": [BLOCK]}),
    (None, "reasoning_content", True, {}),
]  # fmt: skip


@pytest.mark.parametrize(("echo", "key", "has_calls", "sent"), ECHOES)
def test_reasoning_goes_back_under_the_key_that_the_server_wants(echo, key, has_calls, sent):
    reasoning = Reasoning(text="r", blocks=(ReasoningBlock(fields=BLOCK),), key=key)
    message = assistant("a", [CALL] if has_calls else (), reasoning=reasoning)
    calls = {"tool_calls": [CALL_SENT]} if has_calls else {}
    assert encode_messages(ChatDialect(reasoning_echo=echo), [message]) == [
        {"role": "assistant", "content": "a", **calls, **sent}
    ]


EMPTY_ECHOES = [
    ("reasoning_content", True, {"reasoning_content": ""}), ("reasoning_content", False, {}),
    ("reasoning", True, {}), ("reasoning_details", True, {}), ("as_sent", True, {}),
]  # fmt: skip


@pytest.mark.parametrize(("echo", "has_calls", "sent"), EMPTY_ECHOES)
@pytest.mark.parametrize("reasoning", [None, Reasoning()])
def test_where_there_is_no_reasoning_only_the_key_that_calls_need_is_sent(
    echo, has_calls, sent, reasoning
):
    message = assistant("a", [CALL] if has_calls else (), reasoning=reasoning)
    (found,) = encode_messages(ChatDialect(reasoning_echo=echo), [message])
    assert {key: value for key, value in found.items() if key.startswith("reasoning")} == sent


def of_reasoning(key: str, **facts: Any) -> Message:
    return assistant("a", reasoning=Reasoning(key=key, **facts))


REFUSAL = (
    "a server that sends it as 'reasoning' may refuse it here; if this one wants it, name its key "
    "in the reasoning_echo of a ChatDialect"
)
OMITTED = [
    ("as_sent", [of_reasoning("reasoning", text="r")], REFUSAL),
    ("as_sent", [user("u"), of_reasoning("reasoning_details", blocks=(ReasoningBlock(fields=BLOCK),)),
                 of_reasoning("", text="r"), of_reasoning("reasoning"), of_reasoning("reasoning", text="r")],
     REFUSAL),
    ("as_sent", [of_reasoning("reasoning", blocks=(ReasoningBlock(fields=BLOCK),))], REFUSAL),
    ("as_sent", [of_reasoning("", text="r"), of_reasoning("reasoning"), user("u")], None),
    (None, [of_reasoning("reasoning", text="r")], "the wire takes none back"),
    ("reasoning_details", [of_reasoning("reasoning", text="r")], "it has nothing for 'reasoning_details'"),
    ("reasoning", [of_reasoning("reasoning_content", text="r")], None),
    ("as_sent", [], None),
]  # fmt: skip


@pytest.mark.parametrize(("echo", "messages", "reason"), OMITTED)
def test_reasoning_that_does_not_go_back_is_reported_once_with_the_reason(echo, messages, reason):
    found = omitted_reasoning(ChatDialect(name="the wire", reasoning_echo=echo), messages)
    assert found == ({} if reason is None else {"reasoning of earlier turns": reason})


# A beginning of the answer.

BEGUN = {"messages": [*SENT, {"role": "assistant", "content": "a"}]}
GO_ON = {"continue_final_message": True, "add_generation_prompt": False}
PREFILLS = [
    ("llama", {}), ("DeepSeek-R1", {"prefix": True}), ("kimi-k2", {"partial": True}),
    ("moonshot-v1", {"partial": True}), ("Qwen/Qwen3", {"partial": True}),
    ("deepseek-r1-distill-qwen", {"prefix": True, "partial": True}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "marks"), PREFILLS)
def test_a_beginning_is_marked_so_that_each_server_continues_it(model, marks):
    found = mark_prefill(model, {**BEGUN, "seed": 1})
    assert found == {
        "messages": [*SENT, {"role": "assistant", "content": "a", **marks}], "seed": 1, **GO_ON,
    }  # fmt: skip
    assert BEGUN["messages"][1] == {"role": "assistant", "content": "a"}


def test_a_beginning_is_left_as_it_is_where_it_needs_no_marks():
    assert mark_prefill("anthropic/Claude-x", BEGUN) == BEGUN
    for other in ({"messages": SENT}, {"messages": []}, {}, {"messages": None}):
        assert mark_prefill("kimi", other) == other
    own = {**BEGUN, "add_generation_prompt": True}
    assert mark_prefill("m", own) == own | {"continue_final_message": True}


TRIMMED = [
    ([], []),
    ([turn("user", "a ")], [turn("user", "a ")]),
    ([turn("assistant", "a \n")], [turn("assistant", "a")]),
    ([turn("assistant", " \n")], [turn("assistant", " \n")]),
    ([turn("assistant", " a")], [turn("assistant", " a")]),
    ([turn("assistant", "a ", tool_calls=[1])], [turn("assistant", "a ", tool_calls=[1])]),
    ([turn("assistant", "")], [turn("assistant", "")]),
    ([turn("assistant", None)], [turn("assistant", None)]),
    ([turn("assistant", "a "), turn("user", "b ")], [turn("assistant", "a "), turn("user", "b ")]),
    ([turn("assistant", "a "), turn("assistant", "b ", x=1)], [turn("assistant", "a "), turn("assistant", "b", x=1)]),
    ([turn("assistant", [{"type": "text", "text": "a "}, {"type": "text", "text": "b ", "k": 1}])],
     [turn("assistant", [{"type": "text", "text": "a "}, {"type": "text", "text": "b", "k": 1}])]),
    ([turn("user", "u"), turn("assistant", [{"type": "text", "text": "b "}])],
     [turn("user", "u"), turn("assistant", [{"type": "text", "text": "b"}])]),
    ([turn("assistant", [{"type": "text", "text": " "}])], [turn("assistant", [{"type": "text", "text": " "}])]),
    ([turn("assistant", [{"type": "text", "text": "a "}, {"type": "image"}])],
     [turn("assistant", [{"type": "text", "text": "a "}, {"type": "image"}])]),
]  # fmt: skip


@pytest.mark.parametrize(("turns", "trimmed"), TRIMMED)
def test_white_space_at_the_end_of_the_assistants_last_turn_is_taken_off(turns, trimmed):
    trim_last_turn(turns)
    assert turns == trimmed


# Cache breakpoints.


def marked(*turns: str) -> list[Message]:
    """Messages by role and lifetime, as in "user 5m"."""
    found = [each.partition(" ") for each in turns]
    return [
        Message(role=Role(role), content=str(place), cache_ttl=ttl or None)
        for place, (role, _, ttl) in enumerate(found)
    ]


SELECTED = [
    (["user", "assistant"], {}),
    (["user 5m"], {0: "5m"}), (["user", "user 1h"], {1: "1h"}),
    (["user 5m", "user 1h", "user 5m"], {0: "1h", 1: "1h", 2: "5m"}),
    (["user 1h", "user 5m", "user 1h"], {0: "1h", 1: "1h", 2: "1h"}),
    (["user 5m"] * 5, {1: "5m", 2: "5m", 3: "5m", 4: "5m"}),
    (["user 1h", *["user 5m"] * 4], {1: "5m", 2: "5m", 3: "5m", 4: "5m"}),
    (["user 5m", "system 1h"], {1: "1h", 0: "5m"}),
    (["user 1h", "system 5m"], {1: "1h", 0: "1h"}),
    (["system 5m", *["user 5m"] * 4], {1: "5m", 2: "5m", 3: "5m", 4: "5m"}),
    ([*["user 5m"] * 4, "system 5m"], {0: "5m", 1: "5m", 2: "5m", 3: "5m"}),
    (["assistant 5m", "user 5m", "assistant 1h"], {1: "5m"}),
]  # fmt: skip


@pytest.mark.parametrize(("turns", "selected"), SELECTED)
def test_the_last_four_breakpoints_are_kept_and_longer_lifetimes_come_first(turns, selected):
    found = select_breakpoints(marked(*turns), lambda message: message.role is not Role.ASSISTANT)
    assert list(found.items()) == list(selected.items())


TOO_MANY, NO_CONTENT = "only the last 4 can be sent", "a message without content takes none"
LEFT_OUT = [
    (["user"], None), (["user 5m"] * 4, None), (["user 5m"] * 5, TOO_MANY),
    (["assistant 5m", "user"], NO_CONTENT), (["assistant 5m", *["user 1h"] * 4], NO_CONTENT),
    (["assistant 5m", *["user 1h"] * 5], f"{TOO_MANY}; {NO_CONTENT}"),
]  # fmt: skip


@pytest.mark.parametrize(("turns", "reason"), LEFT_OUT)
def test_breakpoints_that_are_not_sent_are_reported_with_each_reason(turns, reason):
    found = omitted_breakpoints(marked(*turns), lambda message: message.role is not Role.ASSISTANT)
    assert found == ({} if reason is None else {"cache breakpoints": reason})


@pytest.mark.parametrize(
    ("message", "text", "block"),
    [(user("a"), True, True), (user(" \n"), False, False), (assistant(""), False, False),
     (assistant("", [CALL]), False, True), (result(""), False, True), (user((IMAGE,)), False, True),
     (user((TextPart(text=" "), TextPart(text="b"))), True, True), (user((TextPart(text=" "),)), False, False)],
)  # fmt: skip
def test_what_a_breakpoint_can_be_set_on(message, text, block):
    assert (has_text(message), has_block(message)) == (text, block)


def marked_text(text: str, ttl: str = "5m") -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": cache_control(ttl)}


BREAKPOINTS = [
    ("a", [marked_text("a")]),
    ([A_TEXT_SENT, {"type": "text", "text": "b"}], [A_TEXT_SENT, marked_text("b")]),
    ([A_TEXT_SENT, {"type": "text", "text": " "}, IMAGE_SENT],
     [marked_text("a"), {"type": "text", "text": " "}, IMAGE_SENT]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), BREAKPOINTS)
def test_a_breakpoint_stands_on_the_last_text_that_is_not_blank(content, expected):
    sent = {
        "role": "user",
        "content": [*map(dict, content)] if isinstance(content, list) else content,
    }
    add_breakpoint(sent, "5m")
    assert sent == {"role": "user", "content": expected}


def test_a_lifetime_of_five_minutes_needs_no_word():
    assert cache_control("5m") == {"type": "ephemeral"}
    assert cache_control("1h") == {"type": "ephemeral", "ttl": "1h"}


# The wire of base models.


def text_body(params: CompletionParameters, messages: list[Message], **options: bool) -> Any:
    options = {"stream": False, "include_usage": False} | options
    return completions.build_body(completions.join_texts, "m", messages, params, **options)


def test_a_text_is_sent_with_all_parameters_of_its_wire():
    params = CompletionParameters(max_tokens=9, logprobs=2, **SAMPLING, extra={"best_of": 1})
    turns = [system("a"), user("b"), user((TextPart(text="c"), TextPart(text="d")))]
    assert text_body(params, turns) == {
        "model": "m", "prompt": "abcd", "max_tokens": 9, "logprobs": 2, **SAMPLING, "best_of": 1,
    }  # fmt: skip
    asked = {"model": "m", "prompt": "u"}
    usage = {"stream_options": {"include_usage": True}}
    assert text_body(NOTHING, ASKED) == asked
    assert text_body(NOTHING, ASKED, include_usage=True) == asked
    assert text_body(NOTHING, ASKED, stream=True) == asked | {"stream": True}
    streamed = text_body(NOTHING, ASKED, stream=True, include_usage=True)
    assert streamed == asked | {"stream": True} | usage


TEXT_REFUSALS = [
    ({"tools": [TOOL]}, ASKED, "the completions wire has no tools; leave it out for this provider"),
    ({"extra": {"prompt": "x"}}, ASKED, "extra['prompt'] collides with a key that the call itself sets; leave it out of extra"),
    ({}, [user((IMAGE, VideoPart(url="https://h.example/v")))],
     "the completions wire takes no image; leave it out, or use a provider that takes it"),
    ({}, [user("u"), assistant("a", media=[IMAGE])],
     "the completions wire takes no image; leave it out, or use a provider that takes it"),
    *(({}, turns, "plain text has no tool calls and no results of tools; write them out with a template of your own")
      for turns in ([assistant("a", [CALL]), user("u")], [user("u"), result("r")])),
]  # fmt: skip


@pytest.mark.parametrize(("given", "messages", "words"), TEXT_REFUSALS)
def test_what_no_text_can_carry_is_refused(given, messages, words):
    with pytest.raises(InvalidParameterError) as caught:
        text_body(CompletionParameters(**given), messages)
    assert str(caught.value) == words


# OpenAI's own dialect.

OPENAIS = {name: SAMPLING[name] for name in SAMPLING if name not in ("top_k", "repetition_penalty")}


def test_openai_has_a_limit_of_its_own_name_and_takes_no_parameters_of_open_models():
    params = CompletionParameters(max_tokens=5, **OPENAIS)
    assert body(params, OpenAiProvider.dialect) == {
        "model": "m", "messages": SENT, "max_completion_tokens": 5, **OPENAIS,
    }  # fmt: skip
    for name in ("top_k", "repetition_penalty"):
        with pytest.raises(InvalidParameterError, match=f"has no {name}"):
            body(CompletionParameters(**{name: 1}), OpenAiProvider.dialect)


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "bmp"])
@pytest.mark.parametrize("provider", [OpenAiProvider, OpenRouterProvider])
def test_openai_and_openrouter_take_four_types_of_images(provider, kind):
    part = ImagePart(data=b"x", media_type=f"image/{kind}")
    if kind != "bmp":
        (sent,) = encode_messages(provider.dialect, [user((part,))])
        assert sent["content"][0]["image_url"]["url"] == f"data:image/{kind};base64,eA=="
        return
    with pytest.raises(InvalidParameterError, match="image/jpeg, image/png, image/gif, image/webp"):
        encode_messages(provider.dialect, [user((part,))])


def test_settings_for_openrouter_are_in_no_other_body():
    params = CompletionParameters(openrouter_routing=ProviderSettings(sort="price"))
    assert body(params) == {"model": "m", "messages": SENT}
    assert text_body(params, ASKED) == {"model": "m", "prompt": "u"}


def test_a_dialect_with_a_wrong_name_is_refused_with_the_names_that_there_are():
    with pytest.raises(InvalidParameterError, match=r"^reasoning_echo must be .*'as_sent'.*'thoughts'"):  # fmt: skip
        ChatDialect(reasoning_echo="thoughts")
    with pytest.raises(
        InvalidParameterError, match="a name in the fields of a ChatDialect must be"
    ):
        ChatDialect(fields={"max_token": "x"})


def test_a_cache_of_unknown_facts_caches_by_itself():
    assert PromptCache() == PromptCache(
        supports_breakpoint=None, is_automatic=True, min_tokens=None, lifetime_secs=None,
        has_system_first=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "reason"),
    [("", "stop"), (None, None), ("eos", "stop"), ("FINISHREASON.LENGTH", "length"),
     ("finish-reason: tool_calls", "tool_calls"), ("stop_reason_refusal", "content_filter"),
     ("finishreasonstopreasonabort", "error"), ("stopreasonfinishreasonstop", "unknown"),
     ("reason", "unknown"), ("pause turn", "pause")],
)  # fmt: skip
def test_a_word_for_an_end_is_read_without_what_gateways_change(word, reason):
    assert parse_finish_reason(word) == reason
