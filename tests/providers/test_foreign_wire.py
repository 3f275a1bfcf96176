"""A wire that the library does not know is one folder of a user's: `support/gemini_like`."""

from __future__ import annotations

import ast
import json
from decimal import Decimal
from pathlib import Path

import gemini_like
import msgspec
import pytest
from gemini_like import GeminiLike

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionParameters,
    CostResolution,
    FinishReason,
    GeneratorInfo,
    ImagePart,
    IncompleteJsonError,
    IncompleteStreamError,
    InvalidParameterError,
    MalformedResponseError,
    Message,
    NodeCompletionParameters,
    NoJsonFoundError,
    OverloadedError,
    TokenPrice,
    ToolDefinition,
    Usage,
)
from minillmlib.testing import ProviderCase, ScriptedReply, ScriptedTransport, check_provider

BASE = "https://gemini.example/v1beta"
MODEL = "gemini-3.8-flash"
PRICE = TokenPrice(Decimal("0.75"), Decimal("3.75"), cache_read=Decimal("0.075"))


def event(parts=None, counts=None, finish=None, **more):
    """One event of a stream; a whole answer has the same form."""
    candidate = {"index": 0}
    if parts is not None:
        parts = [{"text": part} if isinstance(part, str) else part for part in parts]
        candidate["content"] = {"parts": parts, "role": "model"}
    if finish is not None:
        candidate["finishReason"] = finish
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")
    usage = {name: count for name, count in zip(names, counts or (), strict=False) if count}
    ids = {"modelVersion": MODEL, "responseId": "fakeRespId0001"}
    return {"candidates": [candidate], "usageMetadata": usage, **ids, **more}


SIGNED = {"text": "", "thoughtSignature": "ZmFrZSB0aG91Z2h0IHNpZ25hdHVyZQ=="}
THOUGHT = [{"text": "I look at ", "thought": True}, {"text": "the column.", "thought": True}]

# Each as a whole answer and as the events of a stream. They have the form of the service's answers
# and are made by hand: no recording.
TEXT = (
    event(["The tide turns at six."], (11, 7, 96, 114), "STOP"),
    [event(["The tide "], (11, 3, 96, 110)), event(["turns at six."], (11, 7, 96, 114)),
     event([SIGNED], (11, 7, 96, 114), "STOP")],
)  # fmt: skip
THOUGHTS = (
    event([*THOUGHT, "Two tides a day."], (14, 6, 90, 110), "STOP"),
    [event(THOUGHT[:1], (14, 0, 71, 85)), event(THOUGHT[1:], (14, 0, 90, 104)),
     event(["Two tides a day."], (14, 6, 90, 110)), event([SIGNED], (14, 6, 90, 110), "STOP")],
)  # fmt: skip
CUT = (
    event(['{"first": "six", "second": "ni'], (12, 5, 0, 17), "MAX_TOKENS"),
    [event(['{"first": "six", '], (12, 2, 0, 14)),
     event(['"second": "ni'], (12, 5, 0, 17), "MAX_TOKENS")],
)  # fmt: skip
BLOCKED = (
    event(["To build it you first"], (23, 5, 0, 28), "SAFETY"),
    [event(["To build it you first"], (23, 5, 0, 28)), event(None, (23, 5, 0, 28), "SAFETY")],
)
_PROMPT_BLOCKED = {
    "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
    "usageMetadata": {"promptTokenCount": 31, "totalTokenCount": 31},
    "modelVersion": MODEL, "responseId": "fakeRespId0002",
}  # fmt: skip
PROMPT_BLOCKED = (_PROMPT_BLOCKED, [_PROMPT_BLOCKED])
NEWS = (event(["So"], (5, 1, 0, 6), "TIDE"), [event(["So"], (5, 1, 0, 6), "TIDE")])
ANSWERS = {
    "text": TEXT, "thoughts": THOUGHTS, "cut": CUT, "blocked": BLOCKED,
    "prompt_blocked": PROMPT_BLOCKED, "news": NEWS,
}  # fmt: skip


def streamed(events):
    """The stream of these events: no name, no id, no end marker."""
    return ScriptedReply.events(*(f"data: {json.dumps(each)}\r\n\r\n".encode() for each in events))


def generator_of(*replies, provider=None, model=MODEL):
    transport = ScriptedTransport(replies)
    made = GeneratorInfo.custom("gemini", BASE, model).with_provider(provider or GeminiLike())
    return made.with_api_key("g-key").with_token_price(PRICE).with_transport(transport), transport


def ask(whole, params=None):
    generator, _ = generator_of(ScriptedReply.json(whole))
    return minillmlib.run(ChatNode.root("s").chat("u", generator, params)).response


def stream(events, params=None):
    generator, _ = generator_of(streamed(events))
    chunks = ChatNode.root("s").chat_streaming("u", generator, params)
    for _ in minillmlib.iterate(chunks):
        pass
    return chunks.response


def test_it_uses_public_names_only():
    folder = Path(gemini_like.__file__).parent
    trees = [ast.parse(file.read_text()) for file in folder.glob("*.py")]
    imports = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    ]
    ours = [node for node in imports if str(node.module).startswith("minillmlib")]
    assert {node.module for node in ours} == {"minillmlib"}
    assert {alias.name for node in ours for alias in node.names} <= set(minillmlib.__all__)


def test_it_keeps_the_contract():
    used = {"text": Usage(uncached_input_tokens=11, completion_tokens=103, reasoning_tokens=96),
            "cut": Usage(uncached_input_tokens=12, completion_tokens=5),
            "blocked": Usage(uncached_input_tokens=23, completion_tokens=5)}  # fmt: skip
    cases = [
        ProviderCase(
            name=name,
            body=json.dumps(ANSWERS[name][0]).encode(),
            events=tuple(map(json.dumps, ANSWERS[name][1])),
            text=text,
            finish_reason=reason,
            usage=used[name],
        )
        for name, text, reason in (
            ("text", "The tide turns at six.", FinishReason.STOP),
            ("cut", '{"first": "six", "second": "ni', FinishReason.LENGTH),
            ("blocked", "To build it you first", FinishReason.CONTENT_FILTER),
        )
    ]
    check_provider(GeminiLike(), cases, model=MODEL)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_and_a_streamed_one_agree(name):
    whole, events = ANSWERS[name]
    one, other = ask(whole), stream(events)
    assert one.raw_response == whole
    same = msgspec.structs.replace
    nothing = {"raw_response": None, "attempts": ()}
    assert same(one, **nothing) == same(other, **nothing)
    assert [attempt.cost for attempt in one.attempts] == [a.cost for a in other.attempts]


def test_the_model_is_in_the_address_and_the_body_has_the_wires_keys():
    for model, place in ((MODEL, f"models/{MODEL}"), ("models/a b", "models/a%20b"),
                         ("tunedModels/t", "tunedModels/t")):  # fmt: skip
        generator, transport = generator_of(
            ScriptedReply.json(TEXT[0]), streamed(TEXT[1]), model=model
        )
        params = CompletionParameters(max_tokens=9, temperature=0.5, stop=["x"])
        node = minillmlib.run(ChatNode.root("Be brief.").chat("one", generator, params))
        for _ in minillmlib.iterate(node.chat_streaming("two", generator, params)):
            pass
        assert [request.url for request in transport.requests] == [
            f"{BASE}/{place}:generateContent", f"{BASE}/{place}:streamGenerateContent?alt=sse",
        ]  # fmt: skip
        assert dict(transport.requests[0].expose_headers())["x-goog-api-key"] == "g-key"
        assert json.loads(transport.requests[1].body) == {
            "contents": [
                {"role": "user", "parts": [{"text": "one"}]},
                {"role": "model", "parts": [{"text": "The tide turns at six."}]},
                {"role": "user", "parts": [{"text": "two"}]},
            ],
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "generationConfig": {"maxOutputTokens": 9, "temperature": 0.5, "stopSequences": ["x"]},
        }


def test_a_stream_is_over_at_its_finish_reason_and_cut_without_one():
    assert stream(TEXT[1]).finish_reason is FinishReason.STOP
    for count in range(len(TEXT[1])):
        with pytest.raises(IncompleteStreamError):
            stream(TEXT[1][:count])


@pytest.mark.parametrize("answer", [lambda p: ask(CUT[0], p), lambda p: stream(CUT[1], p)])
def test_a_truncated_answer_is_no_json(answer):
    with pytest.raises(IncompleteJsonError) as caught:
        answer(NodeCompletionParameters(parse_json=True))
    assert caught.value.partial == '{"first": "six", "second": "ni'
    response = answer(None)
    assert response.is_truncated
    assert (response.finish_reason, response.raw_finish_reason) == (
        FinishReason.LENGTH, "MAX_TOKENS",
    )  # fmt: skip
    with pytest.raises(IncompleteJsonError):
        response.json()


def test_an_unknown_finish_word_is_not_taken_for_success():
    response = ask(NEWS[0])
    assert (response.finish_reason, response.raw_finish_reason) == (FinishReason.UNKNOWN, "TIDE")


def test_a_block_is_a_refusal_with_the_vendors_reason():
    blocked, prompt = ask(BLOCKED[0]), ask(PROMPT_BLOCKED[0])
    assert blocked.finish_reason is prompt.finish_reason is FinishReason.CONTENT_FILTER
    assert (blocked.text, blocked.refusal) == (
        "To build it you first", "the answer was blocked (SAFETY)",
    )  # fmt: skip
    assert (prompt.text, prompt.refusal) == ("", "the prompt was blocked (PROHIBITED_CONTENT)")
    for answer in (BLOCKED, PROMPT_BLOCKED):
        with pytest.raises(NoJsonFoundError):
            ask(answer[0], NodeCompletionParameters(crash_on_refusal=True))


def test_thoughts_are_no_text():
    response = stream(THOUGHTS[1])
    assert (response.text, response.reasoning) == ("Two tides a day.", "I look at the column.")


def test_the_buckets_are_disjoint_and_priced():
    cached = event(["Three keepers."], (9622, 4, 136, 9762), "STOP")
    cached["usageMetadata"]["cachedContentTokenCount"] = 9609
    response = ask(cached)
    assert response.usage == Usage(
        uncached_input_tokens=13, cache_read_tokens=9609, completion_tokens=140,
        reasoning_tokens=136,
    )  # fmt: skip
    expected = (13 * Decimal("0.75") + 9609 * Decimal("0.075") + 140 * Decimal("3.75")) / 10**6
    assert response.cost.cost == expected
    # A gateway may leave out a count of an earlier event; the totals are of the whole stream.
    first = event(["Three "], (9622, 2, 136, 9760))
    first["usageMetadata"]["cachedContentTokenCount"] = 9609
    later = event(["keepers."], (9622, 4, 136, 9762), "STOP")
    assert stream([first, later]).usage == response.usage


@pytest.mark.parametrize(
    "counts", [{"totalTokenCount": 99}, {"cachedContentTokenCount": 12}, {"promptTokenCount": -1}]
)
def test_counts_that_contradict_each_other_are_no_bill(counts):
    whole = event(["So"], (11, 7, 0, 18), "STOP")
    whole["usageMetadata"] |= counts
    for response in (ask(whole), stream([whole])):
        assert response.usage is None
        assert response.cost.resolution is CostResolution.UNKNOWN
        assert response.usage_record == whole["usageMetadata"]


def test_an_error_inside_a_stream_is_one_of_ours():
    failed = {
        "error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}
    }
    with pytest.raises(OverloadedError, match="is overloaded") as caught:
        stream([TEXT[1][0], failed])
    assert caught.value.partial == "The tide "
    raw = ScriptedReply.events(*streamed(TEXT[1][:1]).pieces, json.dumps(failed, indent=2).encode())
    generator, _ = generator_of(raw)
    with pytest.raises(OverloadedError, match="is overloaded"):  # though its lines are no events
        list(minillmlib.iterate(ChatNode.root("s").chat_streaming("u", generator)))


@pytest.mark.parametrize(
    "body", [{}, {"hello": 1}, [], event([{"functionCall": {}}], (1, 1, 0, 2), "STOP")]
)
def test_what_is_no_answer_of_the_wire_is_malformed(body):
    with pytest.raises(MalformedResponseError):
        ask(body)


@pytest.mark.parametrize(
    "params",
    [CompletionParameters(repetition_penalty=2), CompletionParameters(extra={"contents": []}),
     CompletionParameters(tools=[ToolDefinition(name="f")]),
     NodeCompletionParameters(force_prepend="A")],
)  # fmt: skip
def test_what_the_wire_cannot_carry_is_refused(params):
    with pytest.raises(InvalidParameterError):
        ask(TEXT[0], params)


def test_content_that_is_no_text_is_refused():
    generator, transport = generator_of()
    with pytest.raises(InvalidParameterError, match="text"):
        minillmlib.run(
            ChatNode.root("s").chat([ImagePart.from_url("https://a.example/i.png")], generator)
        )
    assert transport.requests == []


class Counting(GeminiLike):
    """Remembers the messages that it encoded."""

    def __init__(self):
        self.encoded = []

    def encode_message(self, message):
        self.encoded.append(message.text)
        return super().encode_message(message)


def conversation(turns):
    roles = (Message.user, Message.assistant)
    return [Message.system("s"), *(roles[n % 2](f"turn {n}") for n in range(turns))]


def test_a_long_conversation_encodes_only_its_new_turns_and_sends_the_whole():
    provider = Counting()
    generator, transport = generator_of(
        *[ScriptedReply.json(TEXT[0])] * 3, streamed(TEXT[1]), provider=provider
    )
    _, leaf = ChatNode.from_messages(conversation(45))
    node = minillmlib.run(leaf.complete(generator))
    assert len(provider.encoded) == 45
    provider.encoded.clear()
    node = minillmlib.run(node.chat("more", generator, CompletionParameters(seed=3)))
    assert provider.encoded == ["turn 44", "The tide turns at six.", "more"]
    provider.encoded.clear()
    node = minillmlib.run(node.chat("and more", generator))
    assert provider.encoded == ["more", "The tide turns at six.", "and more"]
    for _ in minillmlib.iterate(node.chat_streaming("at last", generator)):
        pass
    assert transport.requests[3].url.endswith(":streamGenerateContent?alt=sse")

    # A tree that was never sent before sends the same bytes.
    answers = [Message.assistant("The tide turns at six.")] * 3
    new = [Message.user(text) for text in ("more", "and more", "at last")]
    thread = conversation(45)
    params = (None, CompletionParameters(seed=3), None, None)
    for index, request in enumerate(transport.requests):
        fresh, sent = generator_of(ScriptedReply.json(TEXT[0]))
        minillmlib.run(ChatNode.from_messages(thread)[1].complete(fresh, params[index]))
        assert sent.requests[0].body == request.body
        assert len(json.loads(request.body)["contents"]) == 45 + 2 * index
        thread = [*thread, *answers[:1], *new[index : index + 1]]


IN_FRENCH = [*conversation(20), Message.system("French, please"), *conversation(45)[21:]]


@pytest.mark.parametrize("history", [conversation(45), IN_FRENCH], ids=["plain", "late_system"])
def test_turns_that_are_no_item_of_the_wire_are_sent_as_from_a_fresh_tree(history):
    generator, transport = generator_of(*[ScriptedReply.json(TEXT[0])] * 3)
    node = minillmlib.run(ChatNode.from_messages(history)[1].complete(generator))
    node = node.add_user("a question").add_assistant("")  # its parts would be empty
    for text in ("go on", "and on"):
        node = minillmlib.run(node.chat(text, generator))
        fresh, sent = generator_of(ScriptedReply.json(TEXT[0]))
        thread = node.thread()[:-1]
        minillmlib.run(ChatNode.from_messages(thread)[1].complete(fresh))
        assert sent.requests[0].body == transport.requests[-1].body
