"""Answers read as JSON: `parse_json`, `expecting_json`, `crash_on_refusal`, `response.json()`."""

from __future__ import annotations

import msgspec
import pytest
from typed_wires import Chat, Claude, Responses

from minillmlib import (
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    IncompleteJsonError,
    MaxRetriesExceededError,
    Message,
    NodeCompletionParameters,
    NoJsonFoundError,
    RejectedResponseError,
    ResponseFormat,
    TextPart,
    iterate,
    run,
)
from minillmlib.testing import ScriptedTransport

WIRES = pytest.mark.parametrize("wire", [Chat, Claude, Responses])
FENCED = "Sure!\n```json\n{'city': 'Oslo',}\n```"
REPAIRED = '{"city": "Oslo"}'
PARSING = NodeCompletionParameters().with_parse_json(True)
REFUSING = NodeCompletionParameters(crash_on_refusal=True)
ROOT = ChatNode.root("s")


def asked(scripted, params=PARSING):
    return run(ROOT.chat("u", scripted.generator, params))


@WIRES
def test_the_text_becomes_the_repaired_json_and_the_raw_response_keeps_what_came(wire):
    answer = asked(wire(FENCED))
    assert answer.text == answer.response.content == answer.thread()[-1].text == REPAIRED
    assert answer.response.json() == {"city": "Oslo"}
    assert "```json" in str(answer.response.raw_response)
    stream = ROOT.chat_streaming(
        "u", wire(wire.streamed(FENCED[:9], FENCED[9:])).generator, PARSING
    )
    assert "".join(chunk.delta for chunk in iterate(stream)) == FENCED, "pieces come as they are"
    assert stream.response.content == stream.node.text == REPAIRED


LISTS = [
    ('[{"n": 1}]},\n{"n": 2}]', [{"n": 1}, {"n": 2}]),
    ('{"n": 1}, {"n": 2}, {"n": 3}', [{"n": 1}, {"n": 2}, {"n": 3}]),
    ('"n": 1,\n"more": {"n": 2},\n"tags": ["x"]\n}', {"n": 1, "more": {"n": 2}, "tags": ["x"]}),
    ('{"tags": ["x", "y"], "z"], "n": 3}', {"tags": ["x", "y", "z"], "n": 3}),
]


@WIRES
@pytest.mark.parametrize(("text", "value"), LISTS)
def test_brackets_that_end_too_early_lose_nothing_of_the_answer(wire, text, value):
    assert asked(wire(text)).response.json() == value
    stream = ROOT.chat_streaming("u", wire(wire.streamed(text[:9], text[9:])).generator, PARSING)
    *_, last = iterate(stream.partial_json())
    assert last == value
    assert msgspec.json.decode(stream.node.text) == value


PARTS = ['{"n": 1}, "more", "tags": 2}', '[1, 2], 3, 4', 'Here: "n": 1, "more": {"k": [2]}, "x"',
         '{"n": 1}}, more: 2, tags: 3}']  # fmt: skip


@WIRES
@pytest.mark.parametrize("text", PARTS)
def test_a_part_of_the_json_does_not_pass_as_the_answer(wire, text):
    stream = ROOT.chat_streaming("u", wire(wire.streamed(text[:5], text[5:])).generator, PARSING)
    assert "".join(chunk.delta for chunk in iterate(stream)) == text
    for node in (asked(wire(text)), stream.node):
        assert node.text == text, "it stays as it came"
        with pytest.raises(NoJsonFoundError, match="only in part"):
            node.response.json()
    accepting = PARSING.replace(allow_incomplete_json=True)
    assert asked(wire(text), accepting).text != text
    other = f"{text}\n\nIn short:\n{REPAIRED}"
    assert asked(wire(other)).text == REPAIRED, "it is about another value"


def test_json_that_is_whole_stays_as_it_was_written():
    for text in ('{ "a":1.0,\n"b" : "\\u00e9" }', "[1, 2]\n", '"text"', "7"):
        assert asked(Chat(text)).text == text


def test_nothing_is_touched_without_being_asked():
    answer = asked(Chat(FENCED), None)
    assert answer.text == FENCED
    assert answer.response.json() == {"city": "Oslo"}


@WIRES
def test_expecting_json_asks_for_it_and_repairs_it(wire):
    scripted = wire(FENCED)
    assert asked(scripted, NodeCompletionParameters().expecting_json()).text == REPAIRED
    if wire is Chat:
        assert scripted.bodies[0]["response_format"] == {"type": "json_object"}
    elif wire is Responses:
        assert scripted.bodies[0]["text"] == {"format": {"type": "json_object"}}
    else:
        assert "JSON" in scripted.bodies[0]["system"]


def test_expecting_json_keeps_a_form_that_is_asked_for_already():
    form = ResponseFormat.json_schema({"type": "object"})
    params = NodeCompletionParameters(params=CompletionParameters(response_format=form))
    assert params.expecting_json().params.response_format == form
    assert params.expecting_json().parse_json


def sent_by(leaf: ChatNode) -> list[dict]:
    scripted = Chat(REPAIRED)
    run(leaf.complete(scripted.generator, NodeCompletionParameters().expecting_json()))
    return scripted.bodies[0]["messages"]


def test_the_word_json_is_in_the_messages_since_openai_insists():
    assert [turn["content"] for turn in sent_by(ROOT.add_user("u"))] == [
        "s",
        "u\n\nAnswer in JSON.",
    ]
    assert [turn["content"] for turn in sent_by(ROOT.add_user("as Json"))] == ["s", "as Json"]
    parts = sent_by(ROOT.add_user([TextPart(text="u")]))[-1]["content"]
    assert parts == [{"type": "text", "text": "u"}, {"type": "text", "text": "Answer in JSON."}]
    _, alone = ChatNode.from_messages([Message.assistant("a")])
    assert [turn["content"] for turn in sent_by(alone)] == ["a"]
    leaf = ROOT.add_user("u").add_assistant("a")
    assert [turn["content"] for turn in sent_by(leaf)] == ["s", "u\n\nAnswer in JSON.", "a"]


@WIRES
def test_an_answer_without_json_stays_as_it_is_and_json_of_it_is_an_error(wire):
    for scripted, text in ((wire("I would rather not."), "I would rather not."),
                           (wire(wire.refused), wire.refused_text), (wire(""), "")):  # fmt: skip
        answer = asked(scripted)
        assert (answer.text or "") == text
        with pytest.raises(NoJsonFoundError, match="no JSON"):
            answer.response.json()


@WIRES
@pytest.mark.parametrize("text", ['{"a": [1, 2', '{"a": "b', "", "Let me", "12", "tru", '"te'])
def test_cut_json_is_an_error_of_its_own(wire, text):
    root = ChatNode.root("s")
    scripted = wire((text, wire.cut))
    with pytest.raises(IncompleteJsonError) as caught:
        run(root.chat("u", scripted.generator, PARSING.replace(retry=2)))
    assert isinstance(caught.value, RejectedResponseError)
    assert caught.value.partial == text
    assert [attempt.outcome for attempt in caught.value.attempts] == ["rejected"]
    assert root.is_leaf
    left = asked(wire((text, wire.cut)), None)
    assert (left.text or "") == text
    with pytest.raises(IncompleteJsonError):
        left.response.json()


@WIRES
def test_a_cut_stream_is_the_same_error(wire):
    stream = ROOT.chat_streaming(
        "u", wire(wire.streamed('{"a": 1', finish=wire.cut)).generator, PARSING
    )
    with pytest.raises(IncompleteJsonError):
        list(iterate(stream))


@WIRES
def test_cut_json_can_be_taken_as_far_as_it_came(wire):
    answer = asked(wire(('{"a": [1, 2', wire.cut)), PARSING.replace(allow_incomplete_json=True))
    assert answer.text == '{"a": [1, 2]}'
    assert answer.response.is_truncated


@WIRES
def test_json_that_ended_before_the_cut_is_whole(wire):
    assert asked(wire(('{"a": 1}\nI hope this', wire.cut))).text == '{"a": 1}'
    for text in ('Draft: {"a": 1}\nBetter: {"a": 2, "b', '{"a": 1}\n{"a": 2'):
        with pytest.raises(IncompleteJsonError):
            asked(wire((text, wire.cut)))


def test_a_cut_answer_is_no_refusal():
    assert asked(Chat(('{"a": [1, 2', "length")), REFUSING).text == '{"a": [1, 2'


def test_a_cache_is_warmed_without_an_answer():
    scripted = Claude(("", "max_tokens"))
    run(ROOT.add_user("u").ensure_cached(scripted.generator, PARSING))
    assert scripted.bodies[0]["max_tokens"] == 0


def test_json_that_the_model_itself_left_open_is_repaired():
    assert asked(Chat('{"a": [1, 2')).text == '{"a": [1, 2]}'


@WIRES
def test_calls_of_tools_are_neither_refused_nor_repaired(wire):
    params = PARSING.replace(crash_on_refusal=True, crash_on_empty_response=True)
    answer = asked(wire(wire.calls()), params)
    assert answer.tool_calls
    assert answer.text == "Let me look."
    assert asked(wire(wire.calls("")), params).tool_calls


REFUSALS = [
    "no",
    "",
    "null",
    '""',
    "{}",
    "[]",
    "```json\n{}\n```",
    "The answer is: []",
    "{ }",
    "None",
]


@pytest.mark.parametrize("text", REFUSALS)
@pytest.mark.parametrize(
    "params", [REFUSING, REFUSING.expecting_json()], ids=["alone", "with json"]
)
def test_a_refusal_is_told_by_the_value(text, params):
    scripted = Chat(text, '{"a": 1}')
    assert asked(scripted, params.replace(retry=1, back_off_time=0)).text == '{"a": 1}'
    assert len(scripted.bodies) == 2
    with pytest.raises(NoJsonFoundError, match="no JSON"):
        asked(Chat(text), params)


@pytest.mark.parametrize(
    "text", ["0", "false", "[0]", '{"a": null}', "Well: {'a': 1", "[[]]", "```\n[1]"]
)
def test_what_holds_something_is_no_refusal(text):
    assert asked(Chat(text), REFUSING).text == text, "and nothing is repaired"


@WIRES
def test_words_of_refusal_are_one(wire):
    with pytest.raises(MaxRetriesExceededError) as caught:
        asked(wire(wire.refused, wire.refused), REFUSING.replace(retry=1, back_off_time=0))
    assert isinstance(caught.value.last_error, NoJsonFoundError)
    assert caught.value.partial == "I cannot help with that."


def test_a_forced_beginning_is_part_of_the_json():
    scripted = Claude('": 1}')
    assert asked(scripted, PARSING.with_force_prepend('{"a')).text == '{"a": 1}'
    prose = asked(Claude('{"a": 1}'), PARSING.with_force_prepend("Answer: "))
    assert prose.text == '{"a": 1}'


def test_sealed_thoughts_stay_with_a_text_that_was_repaired():
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    later = {"type": "thinking", "thinking": "so", "signature": "t"}
    said = [{"type": "text", "text": text} for text in ("{city:", " Oslo}")]
    scripted = Claude(Claude.whole("", "", thought, said[0], later, said[1]), "ok")
    answer = asked(scripted)
    run(answer.chat("And now?", scripted.generator))
    said = scripted.bodies[1]["messages"][1]["content"]
    assert said == [thought, {"type": "text", "text": REPAIRED}, later]


def test_the_local_wire_of_a_custom_server_is_asked_in_the_same_way():
    transport = ScriptedTransport([Chat.whole(FENCED)])
    generator = GeneratorInfo.custom("c", "http://127.0.0.1:1/v1", "m").with_transport(transport)
    answer = run(ROOT.chat("JSON?", generator, NodeCompletionParameters().expecting_json()))
    assert answer.text == REPAIRED
    body = msgspec.json.decode(transport.requests[0].body)
    assert body["response_format"] == {"type": "json_object"}
