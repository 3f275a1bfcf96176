"""How answers end, and what stands in unusual places: kept, refused or marked, never plain success."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionParameters,
    FinishReason,
    GeneratorInfo,
    IncompleteJsonError,
    IncompleteStreamError,
    InvalidParameterError,
    MalformedResponseError,
    MiniLLMError,
    NodeCompletionParameters,
    ServerError,
    parse_finish_reason,
)
from minillmlib.protocols.finish_reasons import _WORDS
from minillmlib.testing import ScriptedReply, ScriptedTransport

ONCE = NodeCompletionParameters(retry=0)
UNTIMED = settings(deadline=None)  # the machine may be busy
HALF = '{"city": "Bonn", "rivers": ["Rhine", "Si'
DONE = b"data: [DONE]\n\n"


def custom(reply: ScriptedReply) -> GeneratorInfo:
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    return generator.with_transport(ScriptedTransport([reply]))


def claude(reply: ScriptedReply) -> GeneratorInfo:
    generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    return generator.with_transport(ScriptedTransport([reply]))


def events(*payloads: dict, end: bytes = b"") -> ScriptedReply:
    return ScriptedReply.events(
        *(b"data: " + msgspec.json.encode(payload) + b"\n\n" for payload in payloads), end
    )


def chunk(finish: str | None = None, *, index: int | None = 0, **delta: object) -> dict:
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def body(finish: str | None = "stop", **message: object) -> dict:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def whole(generator: GeneratorInfo, params: NodeCompletionParameters = ONCE) -> ChatNode:
    return minillmlib.run(ChatNode.root("s").chat("u", generator, params))


def streamed(generator: GeneratorInfo, params: NodeCompletionParameters = ONCE) -> ChatNode:
    stream = ChatNode.root("s").chat_streaming("u", generator, params)
    list(minillmlib.iterate(stream))
    return stream.node


def ask_for(payload: dict, mode: str) -> ChatNode:
    """Return the node of an answer in one body, or in one event."""
    if mode == "whole":
        return whole(custom(ScriptedReply.json(payload)))
    return streamed(custom(events(payload, end=DONE)))


def claude_events(text: str, stop: str | None, *others: dict) -> ScriptedReply:
    delta = {"type": "text_delta", "text": text}
    return events(
        {"type": "message_start", "message": {"id": "msg_1", "model": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        *others,
        {"type": "message_delta", "delta": {"stop_reason": stop}},
        {"type": "message_stop"},
    )


def claude_body(text: str, stop: str | None) -> dict:
    return {"id": "msg_1", "content": [{"type": "text", "text": text}], "stop_reason": stop}


def answers(text: str, finish: str | None) -> list[ChatNode]:
    """The same answer on both wires, whole and streamed."""
    return [
        whole(custom(ScriptedReply.json(body(finish, content=text)))),
        streamed(custom(events(chunk(content=text), chunk(finish), end=DONE))),
        whole(claude(ScriptedReply.json(claude_body(text, finish)))),
        streamed(claude(claude_events(text, finish))),
    ]


# Finish reasons.


@pytest.mark.parametrize(
    ("word", "reason"),
    [("maxTokens", "length"), ("FINISH_REASON_MAX_TOKENS", "length"), ("Length", "length"),
     ("CONTINUATION", "length"), ("max-tokens", "length"), ("StopReason.END_TURN", "stop"),
     ("PROHIBITED_CONTENT", "content_filter"), ("guardrail_intervened", "content_filter"),
     ("content-filter", "content_filter"), ("FinishReason.TOOL_CALLS", "tool_calls"),
     ("FINISH_REASON_UNSPECIFIED", "unknown"), ("OTHER", "unknown"), ("FinishReason.", "unknown"),
     ("", "stop"), (" ", "unknown")],
)  # fmt: skip
def test_a_finish_reason_is_read_in_any_spelling(word, reason):
    assert parse_finish_reason(word) == reason


@UNTIMED
@given(st.text())
def test_a_word_that_is_not_listed_is_no_plain_end(word):
    known = {"".join(filter(str.isalnum, one.lower())) for text in _WORDS.values()
             for one in text.split()}  # fmt: skip
    if word and not any(word.lower().replace("_", "").endswith(one) for one in known):
        assert parse_finish_reason(word) is FinishReason.UNKNOWN


@pytest.mark.parametrize("word", ["MAX_TOKENS", "FinishReason.LENGTH", "model_length"])
def test_an_answer_that_the_limit_cut_is_cut_in_any_spelling(word):
    for node in answers(HALF, word):
        assert node.response.is_truncated
        with pytest.raises(IncompleteJsonError):
            node.response.json()


@pytest.mark.parametrize("word", ["MALFORMED_FUNCTION_CALL", "malformed_tool_use", "abort"])
def test_an_answer_that_the_server_broke_off_is_an_error_on_every_wire(word):
    replies = [
        lambda: whole(custom(ScriptedReply.json(body(word, content="a")))),
        lambda: streamed(custom(events(chunk(content="a"), chunk(word), end=DONE))),
        lambda: whole(claude(ScriptedReply.json(claude_body("a", word)))),
        lambda: streamed(claude(claude_events("a", word))),
    ]
    for ask in replies:
        with pytest.raises(ServerError, match=word):
            ask()


@pytest.mark.parametrize("word", [None, "not_yet_invented", "OTHER"])
@pytest.mark.parametrize("text", [HALF, '{"a": 1', "[1, [2]", '```json\n{"a": {"b": 1}'])
def test_json_that_breaks_off_at_an_unknown_end_is_truncated(word, text):
    for node in answers(text, word):
        assert not node.response.is_end_known
        with pytest.raises(IncompleteJsonError):
            node.response.json()
    for params in (ONCE.with_parse_json(True), ONCE.expecting(dict)):
        with pytest.raises(IncompleteJsonError):
            whole(custom(ScriptedReply.json(body(word, content=text))), params)
        with pytest.raises(IncompleteJsonError):
            streamed(custom(events(chunk(content=text), chunk(word), end=DONE)), params)


@pytest.mark.parametrize("word", [None, "not_yet_invented"])
def test_text_and_whole_json_may_end_for_an_unknown_reason(word):
    for text, value in (('{"a": [1]}', {"a": [1]}), ("So: {'a': 1,} is it.", {"a": 1})):
        for node in answers(text, word):
            assert node.response.json() == value
            assert node.response.finish_reason is FinishReason.UNKNOWN


def test_the_json_so_far_is_accepted_on_request_at_an_unknown_end():
    params = ONCE.replace(parse_json=True, allow_incomplete_json=True)
    assert whole(custom(ScriptedReply.json(body(None, content='{"a": 1'))), params).text
    with pytest.raises(IncompleteJsonError):
        whole(custom(ScriptedReply.json(body(None, content='{"a": 1')))).response.json()


def call(arguments: str, name: str = "f", **place: object) -> dict:
    return {"id": "a", "function": {"name": name, "arguments": arguments}} | place


@pytest.mark.parametrize("word", [None, "not_yet_invented"])
def test_tool_arguments_that_break_off_at_an_unknown_end_are_truncated(word):
    for arguments, is_cut in (('{"x":', True), ('{"x": "', True), ('{"x": 1}', False)):
        node = whole(custom(ScriptedReply.json(body(word, tool_calls=[call(arguments)]))))
        assert node.response.is_truncated is is_cut
    end = chunk("not_yet_invented")
    cut = chunk(tool_calls=[call('{"x":', index=0)])
    assert streamed(custom(events(cut, end, end=DONE))).response.is_truncated
    with pytest.raises(IncompleteStreamError):
        streamed(custom(events(cut, end=DONE)))


@pytest.mark.parametrize("cost_tracking", [True, False])
def test_content_after_a_finish_reason_proves_it_wrong(cost_tracking):
    params = ONCE.with_cost_tracking(cost_tracking)
    each = (chunk("stop", content=text) for text in "abc")
    assert streamed(custom(events(*each)), params).text == "abc"
    later = events(chunk("stop"), chunk(content="a"), chunk("length"), end=DONE)
    node = streamed(custom(later), params)
    assert (node.text, node.response.finish_reason) == ("a", FinishReason.LENGTH)
    for end, kind in ((DONE, None), (b"", IncompleteStreamError)):
        reply = events(
            chunk("stop", content="a"), chunk(reasoning="b"), chunk(content="c"), end=end
        )
        if kind is None:
            assert streamed(custom(reply), params).response.finish_reason is FinishReason.UNKNOWN
        else:
            with pytest.raises(kind):
                streamed(custom(reply), params)


def test_what_is_no_content_leaves_a_finish_reason_as_it_is():
    tail = [chunk(), chunk(content=""), {"choices": [], "citations": ["a"]}]
    node = streamed(custom(events(chunk("stop", content="a"), *tail)))
    assert node.response.finish_reason is FinishReason.STOP
    assert node.response.extra == {"citations": ["a"]}


def test_events_without_a_number_are_of_one_block():
    """As a relay may send them."""
    parts = [
        {"thinking": "hm", "type": "thinking_delta"},
        {"signature": "s", "type": "signature_delta"},
    ]
    one, another = ({"type": "content_block_delta", "delta": part} for part in parts)
    begin = {"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    said = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}}
    reply = events(begin, one, another | {"index": None}, said, end, {"type": "message_stop"})
    node = streamed(claude(reply))
    assert (node.text, node.response.reasoning) == ("a", "hm")


def test_a_block_of_text_may_begin_without_any():
    begun = {"type": "content_block_start", "index": 1, "content_block": {"type": "text"}}
    assert streamed(claude(claude_events("a", "end_turn", begun))).text == "a"
    body = {"content": [{"type": "text"}, {"type": "text", "text": "a"}], "stop_reason": "end_turn"}
    assert whole(claude(ScriptedReply.json(body))).text == "a"


@pytest.mark.parametrize("place", [1, 3])
def test_a_second_message_in_one_stream_is_an_error(place):
    parts = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "m"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ]
    for another, is_wrong in (("msg_2", True), ("msg_1", False), ("", False)):
        start = {"type": "message_start", "message": {"id": another, "model": "m"}}
        reply = events(*parts[:place], start, *parts[place:], {"type": "message_stop"})
        if not is_wrong:
            assert streamed(claude(reply)).text == "a"
            continue
        with pytest.raises(MalformedResponseError, match="msg_2"):
            streamed(claude(reply))


# Places: choices, calls, content parts.


@pytest.mark.parametrize(
    "indexes", [(0, 1, 2), (1, 1, 1), (7, 3, 5), (None, None, None), (0, -1, 9)]
)
def test_all_choices_of_an_answer_are_one_answer(indexes):
    pieces = [chunk(index=index, content=text) for index, text in zip(indexes, "abc", strict=True)]
    node = streamed(custom(events(*pieces, chunk("stop", index=indexes[-1]))))
    assert (node.text, node.response.finish_reason) == ("abc", FinishReason.STOP)
    together = {"choices": [piece["choices"][0] for piece in pieces]}
    assert streamed(custom(events(together, end=DONE))).text == "abc"
    choices = [
        {"index": index, "message": {"content": text}, "finish_reason": "stop"}
        for index, text in zip(indexes, "abc", strict=True)
    ]
    assert whole(custom(ScriptedReply.json({"choices": choices}))).text == "abc"


@pytest.mark.parametrize("ends", [("stop", "tool_calls"), (None, "tool_calls"), ("stop", None)])
def test_text_and_calls_in_two_choices_are_one_answer(ends):
    messages = ({"content": "Wait."}, {"tool_calls": [call("{}")]})
    choices = [
        {"index": 0, "message": message, "finish_reason": end}
        for message, end in zip(messages, ends, strict=True)
    ]
    node = whole(custom(ScriptedReply.json({"choices": choices})))
    assert (node.text, len(node.tool_calls)) == ("Wait.", 1)
    choices[0]["finish_reason"] = "length"
    cut = whole(custom(ScriptedReply.json({"choices": choices}))).response
    assert cut.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("failure", [{"finish_reason": "error"}, {"error": {"message": "died"}}])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("mode", ["whole", "streamed"])
def test_the_failure_of_one_choice_has_the_text_of_all(mode, place, failure):
    contents = ("a", ["b", {"type": "text", "text": "c"}, {"type": "thinking", "text": "-"}], "d")
    key = "message" if mode == "whole" else "delta"
    choices = [{"index": 0, key: {"content": content}} for content in contents]
    choices[place] |= failure
    with pytest.raises(ServerError) as caught:
        ask_for({"choices": choices}, mode)
    assert caught.value.partial == "abcd"


@pytest.mark.parametrize("message", [{"content": ["a", {"text": "b"}]},
                                     {"content": [], "audio": {"transcript": "ab"}}])  # fmt: skip
@pytest.mark.parametrize("mode", ["whole", "streamed"])
def test_a_failure_of_the_body_has_the_text_beside_it(mode, message):
    key = "message" if mode == "whole" else "delta"
    with pytest.raises(ServerError) as caught:
        ask_for({"choices": [{key: message}], "error": {"message": "died"}}, mode)
    assert caught.value.partial == "ab"


@pytest.mark.parametrize("wire", [custom, claude])
@pytest.mark.parametrize("n", [2, 3, "2", 0])
def test_several_answers_are_refused_before_anything_is_sent(wire, n):
    generator = wire(ScriptedReply.json({}))
    params = ONCE.with_params(CompletionParameters(max_tokens=9, extra={"n": n}))
    with pytest.raises(InvalidParameterError, match="use complete_many"):
        whole(generator, params)
    assert not generator.transport.requests


@pytest.mark.parametrize(
    "fragments",
    [[{"index": 1, "function": {"arguments": '{"x"'}}, {"index": 2, "function": {"arguments": ":1}"}}],
     [{"index": 9, "id": "b", "function": {"arguments": '{"x":1}'}}],
     [{"index": 0, "function": {"arguments": '{"x"'}}, {"index": 4, "function": {"arguments": ":1}"}}],
     [{"index": 3, "id": "b", "function": {"name": "", "arguments": '{"x":1}'}}]],
)  # fmt: skip
def test_arguments_under_another_index_belong_to_the_only_open_call(fragments):
    first = chunk(tool_calls=[call("", index=0)])
    deltas = [chunk(tool_calls=[fragment]) for fragment in fragments]
    node = streamed(custom(events(first, *deltas, chunk("tool_calls"))))
    assert [(made.name, made.arguments) for made in node.tool_calls] == [("f", '{"x":1}')]
    closed = chunk(tool_calls=[call("{}", "g", index=20) | {"id": "closed"}])
    node = streamed(custom(events(first, closed, *deltas, chunk("tool_calls"))))
    assert [made.arguments for made in node.tool_calls] == ['{"x":1}', "{}"]


@pytest.mark.parametrize(
    "calls",
    [[], [call("{}", index=0)], [call("", index=0), call("", "g", index=1) | {"id": "b"}]],
)
def test_arguments_without_a_home_are_an_error(calls):
    homeless = {"index": 5, "function": {"arguments": '{"x":1}'}}
    for end in (chunk("tool_calls"), chunk("stop")):
        starts = [chunk(tool_calls=[one]) for one in calls]
        with pytest.raises(MalformedResponseError, match="belong to none"):
            streamed(custom(events(*starts, chunk(tool_calls=[homeless]), end)))
    blank = {"index": 5, "function": {"arguments": " "}}
    node = streamed(custom(events(chunk(content="a"), chunk(tool_calls=[blank]), chunk("stop"))))
    assert (node.text, node.tool_calls) == ("a", ())


def test_arguments_of_a_block_that_is_not_there_are_an_error_and_of_a_vendors_tool_are_not():
    piece = {"type": "content_block_delta", "index": 4,
             "delta": {"type": "input_json_delta", "partial_json": '{"q":1}'}}  # fmt: skip
    with pytest.raises(MalformedResponseError, match="belong to none"):
        streamed(claude(claude_events("a", "end_turn", piece)))
    start = {"type": "content_block_start", "index": 4,
             "content_block": {"type": "server_tool_use", "id": "s", "name": "web", "input": {}}}  # fmt: skip
    node = streamed(claude(claude_events("a", "end_turn", start, piece)))
    assert node.tool_calls == ()
    assert node.response.reasoning_blocks[0].fields["input"] == {"q": 1}


@pytest.mark.parametrize("nameless", [{"id": "a", "function": {"arguments": "{}"}}, {"id": "a"},
                                      {"id": "a", "type": "web_search_call"}])  # fmt: skip
def test_a_call_without_a_name_is_an_error(nameless):
    with pytest.raises(MalformedResponseError, match="without a name"):
        whole(custom(ScriptedReply.json(body("tool_calls", tool_calls=[nameless]))))
    with pytest.raises(MalformedResponseError, match="without a name"):
        streamed(custom(events(chunk(tool_calls=[nameless]), chunk("tool_calls"))))


def test_tool_calls_come_before_the_call_of_the_old_kind():
    calls = [call("{}", index=0), call("{}", "g", index=1) | {"id": "b"}]
    both = {"function_call": {"name": "f:", "arguments": "{"}, "tool_calls": calls}
    nodes = [
        whole(custom(ScriptedReply.json(body("stop", **both)))),
        streamed(custom(events(chunk(**both), chunk("stop")))),
    ]
    for node in nodes:
        assert [made.name for made in node.tool_calls] == ["f", "g"]
    old = {"function_call": {"name": "f", "arguments": "{}"}, "tool_calls": []}
    nodes = [
        whole(custom(ScriptedReply.json(body("function_call", **old)))),
        streamed(custom(events(chunk(**old), chunk("function_call")))),
    ]
    for node in nodes:
        assert [(made.name, made.arguments) for made in node.tool_calls] == [("f", "{}")]


SUMMARY = {"type": "summary_text", "text": "hm", "signature": "c2ln"}


@pytest.mark.parametrize(
    ("parts", "text", "reasoning", "extra"),
    [
        ([{"type": "output_text", "text": "a", "annotations": [1]}], "a", "", {"annotations": [1]}),
        ([{"type": "reasoning", "summary": [SUMMARY]}, {"type": "text", "text": "a"}],
         "a", "hm", {"signature": "c2ln"}),
        ([{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}, "a"],
         "a", "hm", {}),
        ([{"type": "reasoning", "text": "hm"}, {"text": "a"}], "a", "hm", {}),
        ([{"type": "thinking", "thinking": "hm"}], "", "hm", {}),
        ([{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}],
         "a", "", {"content": [{"type": "reference", "reference_ids": [1]}]}),
        ([{"type": "reasoning", "summary": [], "encrypted_content": "x"}, {"type": "text", "text": "a"}],
         "a", "", {"encrypted_content": "x"}),
    ],
)  # fmt: skip
def test_content_parts_of_other_wires_are_read(parts, text, reasoning, extra):
    nodes = [
        whole(custom(ScriptedReply.json(body(content=parts)))),
        streamed(custom(events(*(chunk(content=[part]) for part in parts), chunk("stop")))),
    ]
    for node in nodes:
        response = node.response
        assert (response.content, response.reasoning, response.extra) == (text, reasoning, extra)


@pytest.mark.parametrize("part", [{"type": "hologram", "text": "x"}, {"type": "text", "text": {"value": "x"}},
                                  {"type": 3}, {"kind": "hologram"}])  # fmt: skip
def test_a_content_part_of_unknown_kind_is_refused_by_its_name(part):
    content = [{"type": "text", "text": "a"}, part]
    named = str(part.get("type")) if part.get("type") else "hologram"
    with pytest.raises(MalformedResponseError, match=named):
        whole(custom(ScriptedReply.json(body(content=content))))
    with pytest.raises(MalformedResponseError, match=named):
        streamed(custom(events(chunk(content=content), chunk("stop"))))


# Unread keys.


def test_unread_keys_of_body_choice_and_message_are_kept_whole_and_streamed():
    choice = {"index": 0, "finish_reason": "stop", "stop_reason": 7, "token_ids": [1, 1, 2]}
    message = {"role": "assistant", "content": "ab", "annotations": [{"n": 1}, {"n": 2}],
               "phase": "final", "provider_specific_fields": {"citations": [1, 2], "x": 3}}  # fmt: skip
    head = {"citations": ["u", "v"], "service_tier": "flex", "obfuscation": "xyz", "empty": []}
    expected = {
        "citations": ["u", "v"], "service_tier": "flex", "stop_reason": 7, "token_ids": [1, 1, 2],
        "annotations": [{"n": 1}, {"n": 2}], "phase": "final",
        "provider_specific_fields": {"citations": [1, 2], "x": 3},
    }  # fmt: skip
    node = whole(custom(ScriptedReply.json({**head, "choices": [choice | {"message": message}]})))
    assert node.response.extra == expected
    first = chunk(content="a", annotations=[{"n": 1}], phase="final",
                  provider_specific_fields={"citations": [1]})  # fmt: skip
    second = chunk("stop", content="b", annotations=[{"n": 2}], phase="final",
                   provider_specific_fields={"citations": [2], "x": 3})  # fmt: skip
    first["choices"][0]["token_ids"], second["choices"][0]["token_ids"] = [1], [1, 2]
    second["choices"][0]["stop_reason"] = 7
    reply = events(first | head | {"citations": ["u"]}, second | head)
    assert streamed(custom(reply)).response.extra == expected


@pytest.mark.parametrize("key", ["citations", "created", "search_results", "x"])
@UNTIMED
@given(value=st.recursive(st.integers(1) | st.text(min_size=1), lambda inner: st.lists(inner, min_size=1) | st.dictionaries(st.text(min_size=1), inner, min_size=1)))  # fmt: skip
def test_any_unread_value_is_the_same_whole_and_streamed(key, value):
    head = {key: value}
    whole_extra = whole(custom(ScriptedReply.json(body(content="a") | head))).response.extra
    reply = events(chunk(content="a") | head, chunk("stop") | head, end=DONE)
    assert streamed(custom(reply)).response.extra == whole_extra == head


def test_unread_keys_of_claudes_answers_are_kept_whole_and_streamed():
    cited = [{"type": "char_location", "cited_text": text} for text in "ab"]
    text = {"type": "text", "text": "a", "citations": cited}
    answer = {"id": "msg_1", "content": [text, {"type": "text", "text": "b"}],
              "stop_reason": "stop_sequence", "stop_sequence": "END", "container": {"id": "c"}}  # fmt: skip
    expected = {"stop_sequence": "END", "container": {"id": "c"}, "citations": cited}
    assert whole(claude(ScriptedReply.json(answer))).response.extra == expected
    deltas = [
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "citations_delta", "citation": one}}
        for one in cited
    ]  # fmt: skip
    end = {"stop_reason": "stop_sequence", "stop_sequence": "END", "container": {"id": "c"}}
    last = {"type": "message_delta", "delta": end}
    invented = {"type": "not_yet_invented", "what": 1}
    node = streamed(claude(claude_events("ab", None, *deltas, last, invented)))
    assert node.response.extra == expected | {"not_yet_invented": [invented]}


def test_unread_keys_are_saved_with_the_tree(tmp_path):
    node = whole(custom(ScriptedReply.json(body(content="a") | {"citations": ["u"]})))
    node.save_tree(tmp_path / "tree.jsonl")
    (again,) = ChatNode.load_tree(tmp_path / "tree.jsonl").leaves()
    assert again.response.extra == {"citations": ["u"]}


def test_unread_keys_without_end_are_a_limit_exceeded():
    generator = custom(events(*(chunk(content="a", notes=["x" * 1000]) for _ in range(100))))
    limits = minillmlib.Limits(text_chars=50_000)
    with pytest.raises(minillmlib.LimitExceededError):
        streamed(generator.replace(limits=limits))


def test_values_that_each_chunk_repeats_take_no_more_room():
    each = [chunk(content="a") | {"citations": ["u" * 1000]} for _ in range(100)]
    generator = custom(events(*each, chunk("stop")))
    limits = minillmlib.Limits(text_chars=5_000)
    assert streamed(generator.replace(limits=limits)).response.extra["citations"] == ["u" * 1000]


def test_fields_of_thoughts_that_each_piece_repeats_take_no_more_room():
    details = [{"type": "reasoning.text", "index": 0, "text": "a", "format": "f" * 1000}]
    each = [chunk(content="a", reasoning_details=details) for _ in range(100)]
    generator = custom(events(*each, chunk("stop")))
    limits = minillmlib.Limits(text_chars=5_000)
    (block,) = streamed(generator.replace(limits=limits)).response.reasoning_blocks
    assert (block.fields["text"], block.fields["format"]) == ("a" * 100, "f" * 1000)


@UNTIMED
@given(st.sampled_from(["choices", "delta", "message"]), st.text(min_size=1), st.integers(1, 9))
def test_an_unknown_key_is_never_dropped(place, key, value):
    one = chunk("stop", content="a")
    if key in ("choices", "id", "model", "object", "usage", "error", "index", "obfuscation"):
        return
    target = {"choices": one, "delta": one["choices"][0], "message": one["choices"][0]["delta"]}
    if key in target[place]:
        return
    target[place][key] = value
    try:
        response = streamed(custom(events(one))).response
    except MiniLLMError:
        return  # a key that is read, of another type
    assert response.extra.get(key) == value or key in ("role", "logprobs", "reasoning_details")
