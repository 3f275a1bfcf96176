"""A word that no table lists is kept, refused or marked, never plain success.

Each table of these rooms has a door here: a function that feeds an unknown member through the
public surface, whole and streamed, on each wire that has the table. A table without a door fails
the last tests, which find the tables in the code.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import json
import pkgutil
import re
import string
import tempfile
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sent_bodies import CHAT, CLAUDE_WIRE, COMPLETIONS_WIRE, PNG, RESPONSES_WIRE, asked, body_of

import minillmlib
from minillmlib import (
    ApiError,
    AudioPart,
    BudgetExceededError,
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    CostResolution,
    DocumentPart,
    FinishReason,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    MalformedResponseError,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    OpenAiProvider,
    OpenRouterProvider,
    ReasoningConfig,
    ResponseFormat,
    ServerError,
    StorageError,
    TextPart,
    TokenPrice,
    ToolChoice,
    ToolDefinition,
    VideoPart,
)
from minillmlib.protocols.chat_completions.dialect import ChatDialect
from minillmlib.testing import ScriptedReply, ScriptedTransport

ROOMS = ("protocols", "providers", "streaming", "types")
ONCE = NodeCompletionParameters(retry=0)
PRICE = TokenPrice(1, 2)

# Both wires.


def generator_of(wire: str, *replies: ScriptedReply) -> GeneratorInfo:
    if wire == "claude":
        generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    elif wire == "responses":
        generator = GeneratorInfo.openai("m", wire="responses").with_api_key("k")
    else:
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    return generator.with_token_price(PRICE).with_transport(ScriptedTransport(replies))


def chat_body(finish: str | None = "stop", **message: object) -> dict:
    message = {"role": "assistant", **message}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def chat_events(finish: str | None = "stop", **message: object) -> list[dict]:
    """The same answer in two events."""
    delta = {"role": "assistant", **message}
    return [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
    ]


def claude_body(*blocks: dict, stop: str | None = "end_turn") -> dict:
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": list(blocks),
            "stop_reason": stop}  # fmt: skip


def claude_events(*blocks: dict, stop: str | None = "end_turn") -> list[dict]:
    starts = [
        {"type": "content_block_start", "index": place, "content_block": block}
        for place, block in enumerate(blocks)
    ]
    return [
        {"type": "message_start", "message": {"id": "msg_1", "role": "assistant"}},
        *starts,
        {"type": "message_delta", "delta": {"stop_reason": stop}},
        {"type": "message_stop"},
    ]


def responses_body(*items: dict, status: str = "completed", **more: object) -> dict:
    return {"id": "resp_1", "status": status, "output": list(items), **more}


def responses_events(*items: dict, status: str = "completed", **more: object) -> list[dict]:
    """The same answer, with each item in one event."""
    done = [
        {"type": "response.output_item.done", "output_index": place, "item": item}
        for place, item in enumerate(items)
    ]
    end = responses_body(*items, status=status, **more)
    return [{"type": "response.created", "response": {"id": "resp_1"}}, *done,
            {"type": "response.completed", "response": end}]  # fmt: skip


def said(*parts: dict, **more: object) -> dict:
    """A message of the Responses wire."""
    return {"type": "message", "role": "assistant", "content": list(parts or (PART,)), **more}


PART = {"type": "output_text", "text": "a"}
TEXT = {"type": "text", "text": "a"}


def as_json(body: object, **options: object) -> ScriptedReply:
    return ScriptedReply.json(body, **options)


def as_events(payloads: list[dict]) -> ScriptedReply:
    lines = (b"data: " + msgspec.json.encode(payload) + b"\n\n" for payload in payloads)
    return ScriptedReply.events(*lines)


def ask(wire: str, reply: ScriptedReply, *, streams: bool) -> CompletionResponse | MiniLLMError:
    """The answer that a caller gets, or the error that it is in place of one."""
    generator = generator_of(wire, reply)
    try:
        if not streams:
            return minillmlib.run(ChatNode.root("s").chat("u", generator, ONCE)).response
        stream = ChatNode.root("s").chat_streaming("u", generator, ONCE)
        list(minillmlib.iterate(stream))
    except MiniLLMError as error:
        return error
    return stream.node.response


def outcomes(
    wire: str, body: object, events: list[dict]
) -> Iterator[CompletionResponse | MiniLLMError]:
    """What comes of an answer: whole, streamed, and whole to a request for a stream."""
    yield ask(wire, as_json(body), streams=False)
    yield ask(wire, as_events(events), streams=True)
    yield ask(wire, as_json(body), streams=True)


def check_kept(wire: str, body: object, events: list[dict], word: str) -> None:
    for found in outcomes(wire, body, events):
        assert isinstance(found, CompletionResponse), found
        assert holds(found.extra, word), f"{word} is not on response.extra: {found.extra}"


def check_refused(
    wire: str, body: object, events: list[dict], word: str, kind: type[MiniLLMError]
) -> None:
    for found in outcomes(wire, body, events):
        assert isinstance(found, kind), found
        assert word in str(found)


def holds(value: object, word: str) -> bool:
    if isinstance(value, dict):
        return any(holds(part, word) for item in value.items() for part in item)
    if isinstance(value, list | tuple):
        return any(holds(part, word) for part in value)
    return value == word


# The doors: each takes a word that no table has.

DOORS: dict[str, Callable[[str], None]] = {}


def door(*tables: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """Say which tables a function feeds."""

    def add(feed: Callable[[str], None]) -> Callable[[str], None]:
        for table in tables:
            assert table not in DOORS, f"{table} has two doors"
            DOORS[table] = feed
        return feed

    return add


@door(
    "protocols.finish_reasons._WORDS",
    "protocols.finish_reasons._PREFIXES",
    "protocols.finish_reasons.FINISH_REASONS",
    "protocols.finish_reasons._REASONS",
    "types.responses.FinishReason",
    "types.responses._UNKNOWN_ENDS",
    "types.responses._TRUNCATED",
)
def feed_a_finish_reason(word: str) -> None:
    half = '{"city": "Bo'
    for wire, body, events in (
        ("chat", chat_body(word, content=half), chat_events(word, content=half)),
        ("claude", claude_body({"type": "text", "text": half}, stop=word),
         claude_events({"type": "text", "text": half}, stop=word)),
    ):  # fmt: skip
        for found in outcomes(wire, body, events):
            assert found.finish_reason is FinishReason.UNKNOWN
            assert found.raw_finish_reason == word
            assert not found.is_end_known
            with pytest.raises(minillmlib.IncompleteJsonError):
                found.json()


@door("streaming.accumulator.PLAIN_ENDS")
def feed_an_end_beside_a_plain_one(word: str) -> None:
    # One after the other, as Azure's late filter ends an answer again.
    for ends in (("stop", word), (word, "stop")):
        late = [{"choices": [{"index": 0, "delta": {}, "finish_reason": end}]} for end in ends]
        events = as_events([*chat_events(content="a")[:-1], *late])
        found = ask("chat", events, streams=True)
        assert (found.finish_reason, found.raw_finish_reason) == (FinishReason.UNKNOWN, word)
    for ends in (("stop", word), (word, "stop")):
        body, events = chat_body(content="a"), chat_events(content="a")
        for answer, key in ((body, "message"), (events[-1], "delta")):
            answer["choices"] = [
                {"index": place, key: {"content": ""}, "finish_reason": end}
                for place, end in enumerate(ends)
            ]
        for found in outcomes("chat", body, events):
            assert found.finish_reason is FinishReason.UNKNOWN
            assert found.raw_finish_reason == word


@door(
    "protocols.chat_completions.response._PARTS",
    "protocols.chat_completions.response._TEXT_PARTS",
)
def feed_a_content_part(word: str) -> None:
    content = [TEXT, {"type": word, word: "x", "text": "x"}]
    body, events = chat_body(content=content), chat_events(content=content)
    check_refused("chat", body, events, word, MalformedResponseError)


@door("protocols.chat_completions.response._REASONING_KEYS")
def feed_a_key_of_a_reasoning_part(word: str) -> None:
    content = [{"type": "reasoning", word: "x"}, TEXT]
    check_kept("chat", chat_body(content=content), chat_events(content=content), word)


@door("protocols.chat_completions.response._READ_OF_BODY")
def feed_a_key_of_a_body(word: str) -> None:
    more = {word: [1]}
    events = [event | more for event in chat_events(content="a")]
    check_kept("chat", chat_body(content="a") | more, events, word)


@door("protocols.chat_completions.response._READ_OF_CHOICE")
def feed_a_key_of_a_choice(word: str) -> None:
    body, events = chat_body(content="a"), chat_events(content="a")
    for answer in (body, events[0]):
        answer["choices"][0][word] = {"x": 1}
    check_kept("chat", body, events, word)


@door(
    "protocols.chat_completions.response._READ_OF_MESSAGE",
    "protocols.chat_completions.dialect.REPLAYED_KEYS",
    "types.reasoning.BLOCK_KEYS",
    "types.reasoning.REASONING_KEYS",
)
def feed_a_key_of_a_message_such_as_another_name_of_reasoning(word: str) -> None:
    message = {"content": "a", word: "hm"}
    check_kept("chat", chat_body(**message), chat_events(**message), word)


@door("protocols.chat_completions.response.PLAIN_ROLES", "types.messages.Role")
def feed_a_role(word: str) -> None:
    message = {"role": word, "content": "a"}
    check_kept("chat", chat_body(**message), chat_events(**message), word)
    body, events = claude_body(TEXT), claude_events(TEXT)
    body["role"] = events[0]["message"]["role"] = word
    check_kept("claude", body, events, word)
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        Message(role=word, content="a")
    for like in ({"role": word, "content": "a"}, {"role": "user", "content": "a", word: 1}):
        with pytest.raises(InvalidParameterError, match=re.escape(word)):
            ChatNode.from_messages([like])


@door(
    "protocols.chat_completions.response._CALL_KEYS",
    "protocols.chat_completions.response._FUNCTION_KEYS",
    "protocols.chat_completions.response._CUSTOM_KEYS",
    "protocols.chat_completions.response._CALL_TYPES",
    "protocols.anthropic.response._TOOL_USE_KEYS",
)
def feed_a_key_and_a_type_of_a_tool_call(word: str) -> None:
    function = {"name": "f", "arguments": "{}"}
    plain = {"id": "call_1", "type": "function", "function": function}
    custom = {"name": "f", "input": "x", word: 1}
    for call in (
        plain | {word: 1}, plain | {"type": word}, plain | {"function": function | {word: 1}},
        {"id": "call_1", "type": "custom", "custom": custom},
    ):  # fmt: skip
        message = {"tool_calls": [call]}
        check_call(outcomes("chat", chat_body("tool_calls", **message),
                            chat_events("tool_calls", **message)), word)  # fmt: skip
    message = {"function_call": function | {word: 1}}
    found = outcomes("chat", chat_body("function_call", **message),
                     chat_events("function_call", **message))  # fmt: skip
    check_call(found, word)
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}, word: 1}
    check_call(outcomes("claude", claude_body(use), claude_events(use)), word)


def check_call(found: Iterator[CompletionResponse | MiniLLMError], word: str) -> None:
    for response in found:
        (call,) = response.tool_calls
        assert holds(call.extra, word)
        # It goes back as it came, to the model that made it.
        (again,) = response.to_assistant_message().tool_calls
        assert again.extra == call.extra


@door(
    "protocols.chat_completions.response._TEXT_KEYS",
    "streaming.reasoning_blocks.APPENDED_FIELDS",
)
def feed_a_field_and_a_type_of_a_reasoning_block(word: str) -> None:
    for detail in ({"type": word, word: "x", "index": 0}, {word: "x", "index": 0}):
        message = {"content": "a", "reasoning_details": [detail]}
        for found in outcomes("chat", chat_body(**message), chat_events(**message)):
            assert [block.fields for block in found.reasoning_blocks] == [detail]


@door("protocols.chat_completions.response._parse_image")
def feed_an_image_of_another_shape(word: str) -> None:
    message = {"content": "a", "images": [{"type": word, word: "x"}]}
    check_refused(
        "chat", chat_body(**message), chat_events(**message), word, MalformedResponseError
    )
    message = {"content": "a", "images": [{"type": "image_url", "image_url": {"url": word}}]}
    for found in outcomes("chat", chat_body(**message), chat_events(**message)):
        assert isinstance(found, MalformedResponseError)


@door("protocols.anthropic.response._READ_OF_MESSAGE")
def feed_a_key_of_claudes_message(word: str) -> None:
    body, events = claude_body(TEXT) | {word: [1]}, claude_events(TEXT)
    for place in (events[0]["message"], events[-2], events[-2]["delta"]):
        place[word] = [1]
        check_kept("claude", body, events, word)
        del place[word]
    details = {"type": word, word: 1}
    body, events = claude_body(TEXT) | {"stop_details": details}, claude_events(TEXT)
    events[-2]["delta"]["stop_details"] = details
    check_kept("claude", body, events, word)


@door("protocols.anthropic.response._READ_OF_STOP_DETAILS")
def feed_a_key_of_claudes_refusal(word: str) -> None:
    details = {"type": "refusal", "category": word, "explanation": None, word + "_more": 1}
    body = claude_body(TEXT, stop="refusal") | {"stop_details": details}
    events = claude_events(TEXT, stop="refusal")
    events[-2]["delta"]["stop_details"] = details
    check_kept("claude", body, events, word + "_more")
    for found in outcomes("claude", body, events):
        assert found.finish_reason is FinishReason.CONTENT_FILTER
        assert word in found.refusal_reason


@door("protocols.anthropic.response._READ_OF_TEXT")
def feed_a_key_of_claudes_text(word: str) -> None:
    for others in ((), (TEXT,)):
        blocks = (TEXT | {word: [1]}, *others)
        check_kept("claude", claude_body(*blocks), claude_events(*blocks), word)


@door("protocols.anthropic.response._parse_other_event", "protocols.anthropic.request.CACHEABLE")
def feed_a_kind_of_claudes_blocks(word: str) -> None:
    block = {"type": word, word: "x"}
    for found in outcomes("claude", claude_body(TEXT, block), claude_events(TEXT, block)):
        assert [sealed.fields for sealed in found.reasoning_blocks] == [block]
        # A breakpoint on nothing but such a block is not sent, and the report says so.
        message = msgspec.structs.replace(found.to_assistant_message(), content="", cache_ttl="5m")
        omitted = CLAUDE_WIRE.capabilities.omitted("m", [message], CompletionParameters())
        assert "cache breakpoints" in omitted


def claude_events_with(*events: dict) -> list[dict]:
    first, *rest = claude_events(TEXT)
    return [first, *events, *rest]


@door(
    "protocols.anthropic.response._DELTA_KEYS",
    "protocols.anthropic.response._KNOWN_EVENTS",
    "protocols.anthropic.response._KEYS_OF_EVENTS",
)
def feed_a_delta_and_an_event_of_claude(word: str) -> None:
    for event in (
        {"type": "content_block_delta", "index": 0, "delta": {"type": word, word: "x"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "", word: "x"}},
        {"type": "content_block_delta", "index": 0, "delta": {word: "x"}},
        {"type": "content_block_start", "index": 0, "content_block": {word: "x"}},
        {"type": word, word: "x"},
        {"type": "ping", word: "x"},
        {word: "x"},
    ):  # fmt: skip
        found = ask("claude", as_events(claude_events_with(event)), streams=True)
        assert isinstance(found, CompletionResponse), found
        assert holds(found.extra, word)
    found = ask("claude", as_events(claude_events_with({"content": word})), streams=True)
    assert isinstance(found, MalformedResponseError)
    assert word in str(found)


@door("protocols.anthropic.response.DELTA_FIELDS")
def feed_a_delta_of_a_block_that_never_began(word: str) -> None:
    for kind, field in (("thinking_delta", "thinking"), ("signature_delta", "signature"),
                        ("compaction_delta", "content")):  # fmt: skip
        delta = {"type": kind, field: word}
        event = {"type": "content_block_delta", "index": 9, "delta": delta}
        found = ask("claude", as_events([*claude_events(TEXT)[:-2], event, *claude_events()[-2:]]),
                    streams=True)  # fmt: skip
        assert isinstance(found, MalformedResponseError)
        assert "9" in str(found)


@door(
    "protocols.responses.response._READ_OF_RESPONSE",
    "protocols.responses.response._ECHOES",
    "protocols.responses.response._KEPT_NOWHERE",
)
def feed_a_key_of_a_response(word: str) -> None:
    more = {word: [1]}
    check_kept("responses", responses_body(said(), **more), responses_events(said(), **more), word)


@door(
    "protocols.responses.response._READ_OF_MESSAGE",
    "protocols.responses.response._READ_OF_PART",
)
def feed_a_key_of_a_message_of_responses(word: str) -> None:
    for item in (said(**{word: [1]}), said(PART | {word: [1]})):
        check_kept("responses", responses_body(item), responses_events(item), word)


@door("protocols.responses.response._PARTS")
def feed_a_part_of_a_message_of_responses(word: str) -> None:
    for item in (
        said({"type": word, word: "x"}),
        {"type": "reasoning", "content": [{"type": word}]},
    ):
        for found in outcomes("responses", responses_body(item), responses_events(item)):
            assert isinstance(found, MalformedResponseError)
            assert word in str(found)


@door("protocols.responses.response._CALLS", "protocols.responses.response._LAST_ITEMS")
def feed_a_kind_of_item(word: str) -> None:
    item = {"type": word, "id": "x", word: "x", "arguments": "{}"}
    for found in outcomes(
        "responses", responses_body(said(), item), responses_events(said(), item)
    ):
        assert [block.fields for block in found.reasoning_blocks] == [item]
        assert found.finish_reason is FinishReason.UNKNOWN


@door("protocols.responses.response._READ_OF_CALL")
def feed_a_key_of_a_call_of_responses(word: str) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", word: 1}
    check_call(outcomes("responses", responses_body(call), responses_events(call)), word)


@door("protocols.responses.response._ENDS", "protocols.responses.response._UNFINISHED")
def feed_a_status_and_a_reason(word: str) -> None:
    body, events = responses_body(said(), status=word), responses_events(said(), status=word)
    for found in outcomes("responses", body, events):
        assert not found.is_end_known
    events[-1]["type"] = f"response.{word}"
    found = ask("responses", as_events(events), streams=True)
    assert isinstance(found, minillmlib.IncompleteStreamError)
    end = {"status": "incomplete", "incomplete_details": {"reason": word}}
    body, events = responses_body(said(), **end), responses_events(said(), **end)
    for found in outcomes("responses", body, events):
        assert (found.is_truncated, found.raw_finish_reason) == (True, word)


@door(
    "protocols.responses.response._READERS",
    "protocols.responses.response._SILENT",
    "protocols.responses.response._TEXT_EVENTS",
)
def feed_an_event_of_responses(word: str) -> None:
    start, *rest = responses_events(said())
    for kind in (word, f"response.{word}", f"response.{word}.delta"):
        event = {"type": kind, word: "x"}
        found = ask("responses", as_events([start, event, *rest]), streams=True)
        assert holds(found.extra, word)
        # The end of an item repeats what is said of it.
        place = {"output_index": 0, "delta": "b"}
        found = ask("responses", as_events([start, event | place, *rest]), streams=True)
        assert (found.content, found.extra) == ("a", {})


@door(
    "protocols.responses.usage._ItemWithoutFee",
    "protocols.responses.usage._WITHOUT_FEE",
    "protocols.responses.usage._STATED_AS",
    "protocols.responses.usage._PARTS_OF_TOTAL",
)
def feed_a_tool_at_the_vendor(word: str) -> None:
    usage = {"input_tokens": 5, "output_tokens": 2}
    beside_total = {"tool_usage": {"image_gen": {"total_tokens": 3, word: 1}}}
    of_word = ({"tool_usage": {word: {"count": 1}}}, {"tool_usage": {word: 1}})
    for more in (*of_word, beside_total, {}):
        items = (said(),) if more else (said(), {"type": word})
        body = responses_body(*items, usage=usage, **more)
        events = responses_events(*items, usage=usage, **more)
        for found in outcomes("responses", body, events):
            assert word in found.usage.non_token_charges
            assert found.cost.resolution is CostResolution.UNPRICED


# Errors.


@door(
    "protocols.error_words.WORDS",
    "protocols.error_words.GENERAL_WORDS",
    "protocols.error_words.PHRASES",
    "protocols.error_words.PHRASE_STATUSES",
    "protocols.error_words.ZAI_BILLING_CODES",
    "protocols.errors._BY_STATUS",
    "protocols.errors._ADVICE",
    "protocols.errors.SUBSCRIPTION_WORDS",
)
def feed_an_error(word: str) -> None:
    error = {"error": {"code": word, "type": word, "message": word}}
    for wire in ("chat", "claude"):
        for found in outcomes(wire, error, [error]):
            assert type(found) is ServerError  # inside a success no number says more
            assert (found.code, word in str(found)) == (word, True)
        for status in (418, 499, 555, 599):
            for streams in (False, True):
                found = ask(wire, as_json(error, status=status), streams=streams)
                assert type(found) is (minillmlib.BadRequestError if status < 500 else ServerError)
                assert (found.status, found.code) == (status, word)
        number = {"error": {"code": "9999", "message": word}}
        assert all(type(found) is ServerError for found in outcomes(wire, number, [number]))


@door("protocols.error_words.BASE_RESP_CODES")
def feed_a_code_of_minimax(word: str) -> None:
    failure = {"base_resp": {"status_code": 987_654, "status_msg": word}}
    for body in (failure, chat_body(content="a") | failure):
        check_refused("chat", body, [body], word, ServerError)


@door("protocols.error_words.MESSAGE_KEYS", "protocols.error_words.MORE_MESSAGE_KEYS")
def feed_a_key_of_an_error(word: str) -> None:
    for wire in ("chat", "claude"):
        for found in outcomes(wire, {word: "no"}, [{word: "no"}]):
            assert isinstance(found, MiniLLMError)
        for streams in (False, True):
            for body in ({word: "no"}, {"error": {word: "no"}}):
                found = ask(wire, as_json(body, status=400), streams=streams)
                assert isinstance(found, ApiError)
                assert word in str(found)


@door(
    "protocols.errors.RETRY_WORDS",
    "protocols.rate_limits._DURATION",
    "protocols.rate_limits._UNIT_SECS",
    "protocols.rate_limits._WAIT_UNIT_SECS",
    "protocols.rate_limits._HTTP_DATES",
    "protocols.rate_limits._KINDS",
    "protocols.rate_limits._MONTHS",
)
def feed_a_header_about_time(word: str) -> None:
    for text in (word, f"5{word}", f"5 {word}", f"Sun, 06 {word[:3]} 2094 08:49:37 GMT"):
        headers = {"retry-after": text, "x-should-retry": word}
        error = {"error": {"message": f"Try again in {text}"}}
        for status, is_retryable in ((429, True), (400, False)):
            for streams in (False, True):
                reply = msgspec.structs.replace(as_json(error, status=status), headers=headers)
                found = ask("chat", reply, streams=streams)
                assert (found.retry_after_secs, found.is_retryable) == (None, is_retryable)
        for provider, name in ((OpenAiProvider(), "x-ratelimit-{}-{}"),
                               (CLAUDE_WIRE, "anthropic-ratelimit-{1}-{0}")):  # fmt: skip
            facts = ("limit", "remaining", "reset")
            headers = {
                name.format(fact, of): text for fact in facts for of in ("tokens", "requests")
            }
            headers |= {name.format(fact, word): "5" for fact in facts}
            assert provider.limits_of(headers) == provider.limits_of({})


# Costs.


def check_unpriced(usage: dict, word: str, **more: object) -> None:
    """No answer with this record has a price, and its cost names the word."""
    for wire in ("chat", "claude"):
        counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        body, events = chat_body(content="a"), chat_events(content="a")
        last = events[-1]
        if wire == "claude":
            counts = {"input_tokens": 5, "output_tokens": 2}
            body, events = claude_body(TEXT), claude_events(TEXT)
            last = events[-2]
            if more:  # this wire has its facts in the record
                continue
        body |= {"usage": counts | usage, **more}
        last |= {"usage": counts | usage, **more}
        for found in outcomes(wire, body, events):
            assert found.cost.resolution is CostResolution.UNPRICED
            assert holds(msgspec.to_builtins(found.usage), word) or word in str(found.usage)


@door(
    "protocols.billing_facts.STANDARD",
    "protocols.billing_facts._StandardTier",
    "protocols.billing_facts._StandardGeo",
    "protocols.billing_facts._StandardSpeed",
)
def feed_a_tier_and_a_region(word: str) -> None:
    for key in ("service_tier", "inference_geo", "speed"):
        named = word if key == "service_tier" else f"{key} {word}"
        check_unpriced({key: word}, named)
        if key == "service_tier":
            check_unpriced({}, named, service_tier=word)


@door(
    "protocols.billing_facts._MEDIA_TOKENS",
    "protocols.billing_facts._COUNTED_TOKENS",
    "protocols.anthropic.usage.COUNTS",
)
def feed_a_count_of_tokens(word: str) -> None:
    name = f"{word}_tokens"
    check_unpriced({name: 3}, name)
    check_unpriced({"prompt_tokens_details": {name: 3}}, name)
    check_unpriced({f"video_{name}": 3, "video_seconds": 3}, "video tokens")


@door(
    "protocols.billing_facts._FEES",
    "protocols.billing_facts._FREE",
    "protocols.billing_facts._FEE_NAMES",
)
def feed_a_fee(word: str) -> None:
    for name in (f"{word}_requests", f"{word}_calls", f"{word}_fee"):
        check_unpriced({name: 3}, f"{name}: 3")
        check_unpriced({"server_tool_use": {name: 3}}, f"{name}: 3")


@door("protocols.stated_costs.cost_in_record")
def feed_a_cost_of_another_shape(word: str) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    whole = {"total_cost": 1, "input_tokens_cost": 1, "output_tokens_cost": 0}
    for cost in ({word: 1}, {"total_cost": 1, word: 1}, whole | {"currency": word}, word):
        record = usage | {"cost": cost}
        body, events = chat_body(content="a"), chat_events(content="a")
        body["usage"] = events[-1]["usage"] = record
        for found in outcomes("chat", body, events):
            assert (
                found.usage.native_cost is None
            )  # the price of the tokens counts, if there is one


def check_no_bound(
    provider: minillmlib.Provider,
    extra: dict,
    *content: TextPart | ImagePart,
    model: str = "gpt-4o",
) -> None:
    """A request whose cost is not known before it is sent does not fit into any budget."""
    content = content or (TextPart(text="u"), TextPart(text="v"))
    transport = ScriptedTransport([])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", model).with_provider(provider)
    generator = generator.with_token_price(PRICE).with_transport(transport)
    params = CompletionParameters(max_tokens=5, extra=extra)
    settings_ = NodeCompletionParameters(params=params, budget=minillmlib.Budget("1000"), retry=0)
    with pytest.raises(BudgetExceededError):
        minillmlib.run(asked(*content).complete(generator, settings_))
    assert not transport.requests


@door("providers.base.PRICED_EXTRA", "providers.anthropic.PRICED_EXTRA",
      "providers.responses.PRICED_EXTRA", "providers.base._UNPRICED")  # fmt: skip
def feed_a_key_that_may_cost_more(word: str) -> None:
    for provider in (*CHAT, CLAUDE_WIRE, RESPONSES_WIRE, COMPLETIONS_WIRE):
        check_no_bound(provider, {word: 1})
        check_no_bound(provider, {"service_tier": word})
        check_no_bound(provider, {"speed": word})


@door("providers.models.openai._TILES", "providers.models.openai._PATCHES",
      "providers.models.claude._NAME")  # fmt: skip
def feed_a_model_to_the_tables_of_images(word: str) -> None:
    for provider in (*CHAT, CLAUDE_WIRE, RESPONSES_WIRE):
        for model in (word, f"openai/{word}", f"anthropic/{word}"):
            check_no_bound(provider, {}, TextPart(text="u"), ImagePart.from_bytes(PNG), model=model)


@door("providers.openrouter.NO_RECORD", "providers.openrouter._is_usage_pending")
def feed_a_404_of_another_program(word: str) -> None:
    is_pending = OpenRouterProvider().billing.is_usage_pending
    for body in ({"error": {"message": word}}, {word: 1}, word, None):
        assert not is_pending(body)


# What a caller sends.


@door(
    "protocols.chat_completions.dialect._PLAIN",
    "protocols.chat_completions.dialect.OPENAI_FIELDS",
    "protocols.chat_completions.dialect.ALL_FIELDS",
    "protocols.chat_completions.dialect.REASONING_ECHOES",
    "protocols.fields.FIELDS",
)
def feed_a_fact_of_a_dialect(word: str) -> None:
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        ChatDialect(reasoning_echo=word)
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        ChatDialect(fields={word: "max_tokens"})


@door(
    "protocols.anthropic.request._PLAIN",
    "protocols.anthropic.request._FIELDS",
    "protocols.anthropic.request._ENCODED",
    "protocols.chat_completions.request._ENCODED",
    "protocols.responses.request._ENCODED",
    "protocols.responses.request._FIELDS",
    "protocols.completions.request._FIELDS",
    "protocols.fields.COMMON",
    "types.parameters._PARAMETER_CHECKS",
    "types.parameters._SETTING_CHECKS",
    "types.parameters.CALL_FIELDS",
    "types.parameters.node_parameters",
)
def feed_a_parameter(word: str) -> None:
    for value in (CompletionParameters(), NodeCompletionParameters()):
        with pytest.raises(InvalidParameterError, match=re.escape(word)):
            value.replace(**{word: 1})
        with pytest.raises(TypeError, match=re.escape(word)):
            type(value)(**{word: 1})
    with pytest.raises(TypeError, match=re.escape(word)):
        minillmlib.run(asked("u").complete(generator_of("chat"), **{word: 1}))
    for params in (word, {word: 1}):
        with pytest.raises(InvalidParameterError):
            minillmlib.run(asked("u").complete(generator_of("chat"), params))
    # A parameter that a wire has no key for is refused by its name.
    with pytest.raises(InvalidParameterError, match="logprobs"):
        body_of(CLAUDE_WIRE, asked("u"), CompletionParameters(logprobs=1))
    with pytest.raises(InvalidParameterError, match="seed"):
        body_of(RESPONSES_WIRE, asked("u"), CompletionParameters(seed=1))
    with pytest.raises(InvalidParameterError, match="response_format"):
        body_of(COMPLETIONS_WIRE, asked("u"), CompletionParameters().with_json_response())


@door(
    "protocols.fields.RESERVED",
    "protocols.responses.request._STATEFUL",
    "protocols.responses.request._JOINED_LISTS",
    "protocols.responses.request._JOINED_OBJECTS",
)
def feed_an_extra_key(word: str) -> None:
    for provider in (*CHAT, CLAUDE_WIRE, RESPONSES_WIRE, COMPLETIONS_WIRE):
        assert body_of(provider, asked("u"), CompletionParameters(extra={word: 1}))[word] == 1


@door("types.reasoning.Effort", "protocols.anthropic.request._SHARES")
def feed_an_effort(word: str) -> None:
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        ReasoningConfig(effort=word)
    for effort in set(get_args(minillmlib.types.reasoning.Effort)) - {"none"}:  # each has a share
        budget = CompletionParameters(reasoning=ReasoningConfig(effort=effort))
        body = CLAUDE_WIRE.build_request(
            "claude-haiku-4-5", [Message.user("u")], budget, stream=False, include_usage=False
        )
        assert body["thinking"]["budget_tokens"] > 0


@door("types.tools.ToolMode", "types.tools.as_tool_choice")
def feed_a_tool_choice(word: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for choice in (word, {"type": word}, {"type": word, "function": {"name": "f"}}):
        with pytest.raises(InvalidParameterError, match=re.escape(word)):
            CompletionParameters(tools=tools, tool_choice=choice)
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        ToolChoice(mode=word)
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        CompletionParameters(tools=[{"type": word}])
    with pytest.raises(InvalidParameterError, match="response_format"):
        CompletionParameters(response_format={"type": word})


@door("types.tools.NAME", "types.tools._PORTABLE_ID")
def feed_a_name_and_an_id_of_another_form(word: str) -> None:
    for make in (lambda name: ToolDefinition(name=name), ToolChoice.tool,
                 lambda name: ResponseFormat(name=name)):  # fmt: skip
        with pytest.raises(InvalidParameterError, match=re.escape(word)):
            make(f"{word} {word}")
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        CompletionParameters(tools=[{"type": "function", "function": {"name": "f", word: 1}}])
    call = {
        "id": f"{word}::{word}",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    message = {"tool_calls": [call]}
    for found in outcomes("chat", chat_body("tool_calls", **message),
                          chat_events("tool_calls", **message)):  # fmt: skip
        (again,) = found.to_assistant_message().tool_calls
        assert (again.id, bool(again.origin)) == (call["id"], True)


@door(
    "types.media._SIGNATURES",
    "types.media._CONTAINERS",
    "types.media._SHORT",
    "types.media._SYNONYMS",
    "types.media._SAME_TYPES",
    "types.media._RAW_SAMPLES",
    "types.media._FOREIGN_TYPES",
    "protocols.anthropic.request.IMAGE_TYPES",
    "protocols.chat_completions.dialect.IMAGE_TYPES",
    "protocols.chat_completions.request._part",
    "protocols.responses.request.AUDIO_FORMATS",
    "protocols.responses.request._part",
)
def feed_media(word: str) -> None:
    data = b"\0" + word.encode()
    for part in (ImagePart, AudioPart, VideoPart, DocumentPart):
        with pytest.raises(InvalidParameterError, match="unknown"):
            part.from_bytes(data)
        with pytest.raises(InvalidParameterError, match=re.escape(word)):
            part.from_bytes(data, word)
    with pytest.raises(InvalidParameterError, match=re.escape(word.lower())):
        DocumentPart.from_bytes(data, f"application/{word}")
    sent = [
        ImagePart.from_bytes(data, f"image/{word}"),
        AudioPart.from_bytes(data, f"audio/{word}"),
    ]
    for provider in (OpenAiProvider(), OpenRouterProvider(), CLAUDE_WIRE):
        for part in sent:
            with pytest.raises(InvalidParameterError, match=f"{re.escape(word.lower())}|no audio"):
                body_of(provider, asked(TextPart(text="u"), part))
    with pytest.raises(InvalidParameterError, match=re.escape(word.lower())):
        body_of(RESPONSES_WIRE, asked(TextPart(text="u"), sent[1]))
    for provider in (OpenAiProvider(), CLAUDE_WIRE, RESPONSES_WIRE):
        with pytest.raises(InvalidParameterError, match="video"):
            body_of(
                provider, asked(VideoPart.from_bytes(data, f"video/{word}"), TextPart(text="u"))
            )
    # Of an answer's image the type is kept.
    url = ImagePart.from_bytes(data, f"image/{word}").data_url
    message = {"content": "a", "images": [{"image_url": {"url": url}}]}
    for found in outcomes("chat", chat_body(**message), chat_events(**message)):
        assert found.media[0].media_type == f"image/{word.lower()}"


@door("types.media.ImageDetail", "types.messages.CacheTtl", "types.messages.PARTS")
def feed_a_detail_a_lifetime_and_a_part(word: str) -> None:
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        ImagePart(url="https://t.example/a.png", detail=word)
    with pytest.raises(InvalidParameterError, match=re.escape(word)):
        Message(role="user", content="a", cache_ttl=word)
    with pytest.raises(InvalidParameterError):
        Message(role="user", content=({"type": word},))


@door("providers.azure._DATED")
def feed_a_version_of_azures_api(word: str) -> None:
    try:
        generator = GeneratorInfo.azure("m", "https://r.openai.azure.com", word)
    except InvalidParameterError as error:
        assert repr(word) in str(error)
        return
    url = generator.provider.request_url(generator.base_url, "m", stream=False)
    assert url == f"https://r.openai.azure.com/openai/v1/chat/completions?api-version={word}"


@door("providers.presets.PRESETS")
def feed_the_name_of_a_service(word: str) -> None:
    for make in (lambda: GeneratorInfo.preset(word, "m"), lambda: GeneratorInfo.from_spec(word),
                 lambda: GeneratorInfo.from_spec(f"{word}:m")):  # fmt: skip
        with pytest.raises(InvalidParameterError, match=re.escape(word)):
            make()


@door(
    "providers.published_prices.RATE_KEYS",
    "providers.published_prices.FEES",
    "providers.published_prices.FEES_ON_DEMAND",
    "providers.published_prices.SAME_MODEL",
)
def feed_the_table_of_prices(word: str) -> None:
    for generator in (GeneratorInfo.openai(word), GeneratorInfo.openai(f"gpt-4o-{word}"),
                      GeneratorInfo.custom("t", "https://t.example/v1", "gpt-4o")):  # fmt: skip
        assert generator.with_published_price().token_price is None  # and so its costs are UNPRICED


# Framing.


@door("streaming.framing._FIELDS", "streaming.framing._EVENT_START", "streaming.sse._decode_field")
def feed_a_field_of_events(word: str) -> None:
    """The standard has the field ignored; an answer that is in it alone is none."""
    lines = [word.encode() + b": " + msgspec.json.encode(event) + b"\n\n" for event in chat_events(content="a")]  # fmt: skip
    for content_type in ("text/event-stream", "application/json"):
        headers = {"content-type": content_type}
        body = b"".join(lines)
        for streams in (False, True):
            reply = ScriptedReply(pieces=(body,), headers=headers)
            found = ask("chat", reply, streams=streams)
            assert isinstance(found, MiniLLMError)
            assert word in str(found)


# Files.


@door("types.costs.CostResolution", "types.costs.AttemptOutcome")
def feed_a_record_of_a_tree(word: str) -> None:
    body = chat_body(content="a") | {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    node = minillmlib.run(ChatNode.root("s").chat("u", generator_of("chat", as_json(body)), ONCE))
    text = saved_tree(node)
    for known in ("resolved", "stop", "assistant"):
        assert f'"{known}"' in text
        with pytest.raises(StorageError):
            load_text(text.replace(f'"{known}"', f'"{word}"'))
    for record in ({"kind": word, "node": "0"}, {"kind": "mark", "node": "0", word: 1}):
        with pytest.raises(StorageError):
            load_text(text + msgspec.json.encode([record]).decode() + "\n")


# Beside these rooms: files and templates.


def saved_tree(node: ChatNode) -> str:
    with tempfile.TemporaryDirectory() as folder:
        node.save_tree(f"{folder}/tree.jsonl")
        return Path(folder, "tree.jsonl").read_text()


def load_text(text: str) -> ChatNode:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tree.jsonl").write_text(text)
        return ChatNode.load_tree(f"{folder}/tree.jsonl")


@settings(max_examples=10, deadline=None)  # the machine may be busy
@given(st.text(string.ascii_lowercase, min_size=3).map("q{}x".format))
def test_an_unknown_word_of_a_thread_file_or_a_template_is_refused_or_reported(word):
    call = {"id": "1", "type": word, "function": {"name": "f", "arguments": "{}"}}
    for message in (
        {"role": word, "content": "a"}, {"role": "user", "content": "a", word: 1},
        {"role": "user", "content": [{"type": word, word: "a"}]},
        {"role": "user", "content": [TEXT | {"cache_control": {"type": "ephemeral", "ttl": word}}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ):  # fmt: skip
        with pytest.raises(StorageError):
            ChatNode.from_thread_json(msgspec.json.encode([message]))
    with pytest.raises(StorageError):
        ChatNode.from_thread_json(msgspec.json.encode({"prompts": [], word: 1}))
    leaf = ChatNode.root("s").add_user(f"{{{word}}}")
    assert leaf.missing_format_kwargs() == [word]
    body = body_of(OpenAiProvider(), leaf)
    assert body["messages"][-1]["content"] == f"{{{word}}}"


# Tables that no word of a server or of a caller is looked up in, with the reason.

CACHE_EFFECTS = "names of parameters; any other one has an unknown effect, and a verdict says so"
MODEL_FACTS = (
    "a model of another name gets the common request, and the server's refusal is an error"
)
OUR_FIELDS = "fields of our own values; tests/streaming/test_accumulator.py walks them"


@door(
    "protocols.batches.anthropic.STATUSES",
    "protocols.batches.base._ID",
    "protocols.batches.openai.ENDED",
    "protocols.batches.openai.RUNNING",
    "protocols.batches.openai.SKIPPED",
)
def feed_a_batch(word: str) -> None:
    openai, claude = OpenAiProvider.batches, minillmlib.AnthropicProvider.batches
    assert openai is not None
    assert claude is not None
    batch = {"id": "batch_1", "status": word}
    with pytest.raises(MalformedResponseError, match="unknown state"):
        openai.parse_status(batch)
    with pytest.raises(MalformedResponseError):
        openai.parse_status({"id": f"../{word}", "status": "completed"})
    row = openai.parse_result(json.dumps({"custom_id": "a", "error": {"code": word}}).encode())
    assert (row.status, row.was_skipped) == (500, False)
    failure = {"type": "error", "error": {"type": word, "message": "no"}}
    result = {"type": "errored", "error": failure}
    row = claude.parse_result(json.dumps({"custom_id": "a", "result": result}).encode())
    assert (row.status, row.was_skipped) == (500, False)


NOT_FED = {
    "types.events.CONTENT_FIELDS": "names of our own fields",
    "protocols.cache_control.Effect": "words of our own",
    "protocols.cache_control.OUTSIDE_PROMPT": CACHE_EFFECTS,
    "protocols.chat_completions.request._CONTINUE": "keys that are sent, not looked up",
    "protocols.chat_completions.request._PREFILL_MARKS": MODEL_FACTS,
    "protocols.chat_completions.request.mark_prefill": "looks at our own body",
    "providers.base._LIMIT_KEYS": "looks at our own body",
    "providers.models.claude._CACHE_EFFECTS": CACHE_EFFECTS,
    "providers.models.claude._MIN_CACHED_TOKENS": MODEL_FACTS,
    "providers.models.hosts.CONDITIONS": "names of our own, all of which a test uses",
    "providers.models.hosts.REFUSALS": MODEL_FACTS,
    "providers.models.hosts._mark": "looks at our own body",
    "providers.models.openai._CACHE_EFFECTS": CACHE_EFFECTS,
    "providers.models.openai._DEFAULTS": "names of our own parameters",
    "providers.models.openai._FAMILIES": MODEL_FACTS,
    "providers.models.openai._LONG_LIVED": MODEL_FACTS,
    "providers.models.openai._NAME": MODEL_FACTS,
    "providers.models.openai._NEW_LIMIT": MODEL_FACTS,
    "providers.models.openai._WITHOUT_CACHE": MODEL_FACTS,
    "providers.models.openai._WITHOUT_REASONING": MODEL_FACTS,
    "providers.models.openai._WITHOUT_SCHEMAS": MODEL_FACTS,
    "providers.published_prices.NAMED_BY_USERS": "vendors that are refused though the table has them",
    "providers.published_prices.MORE_THAN_TEXT": "models that are refused though the table has them",
    "streaming.accumulator._CONTENT": OUR_FIELDS,
    "streaming.accumulator._FACTS": OUR_FIELDS,
    "streaming.accumulator._OWN_CODE": OUR_FIELDS,
    "streaming.accumulator._RULES": OUR_FIELDS,
    "streaming.framing._BLANK": "white space",
    "streaming.sse._PLAIN_START": "a miss is decoded by lines, and fed through `_decode_field`",
    "streaming.surrogates._ESCAPE": "halves of characters, which any text may hold",
    "streaming.surrogates._JOINED": OUR_FIELDS,
    "streaming.surrogates._PRIVATE": "halves of characters, which any text may hold",
    "streaming.surrogates._PRIVATE_ESCAPE": "halves of characters, which any text may hold",
    "streaming.surrogates._TEXTS": OUR_FIELDS,
    "streaming.surrogates._mend": "types of our own values; any other one stays as it is",
    "streaming.tool_calls.EMPTY": "values that say nothing",
    "types.caching.BreakpointState": "words of our own",
    "types.caching.CacheOutcome": "words of our own",
    "types.costs.RATES": "fields of our own `TokenPrice`",
    "types.messages.EMPTY": "an empty tuple",
    "types.pace.ONE_REQUEST": "a value of our own, in which nothing is looked up",
    "types.responses.SHARED_FIELDS": OUR_FIELDS,
    "types.values._PLAIN": "types of our own values",
}  # fmt: skip


# The tables in the code.


def is_table(value: object) -> bool:
    if get_origin(value) is Literal or (inspect.isclass(value) and issubclass(value, enum.Enum)):
        return True
    return isinstance(value, Mapping | AbstractSet | tuple | list | re.Pattern)


def find_tables(room: str) -> dict[str, object]:
    """The tables that a module of the room defines, and its match statements by their functions."""
    found: dict[str, object] = {}
    package = importlib.import_module(f"minillmlib.{room}")
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        tree = ast.parse(inspect.getsource(module))
        place = info.name.removeprefix("minillmlib.")
        for name in defined_names(tree):
            if is_table(getattr(module, name, None)):
                found[f"{place}.{name}"] = getattr(module, name)
        for function in ast.walk(tree):
            is_function = isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and any(isinstance(node, ast.Match) for node in ast.walk(function)):
                found[f"{place}.{function.name}"] = ()
    return found


def defined_names(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            yield statement.name
        targets = statement.targets if isinstance(statement, ast.Assign) else ()
        if isinstance(statement, ast.AnnAssign):
            targets = (statement.target,)
        yield from (target.id for target in targets if isinstance(target, ast.Name))


TABLES = {name: table for room in ROOMS for name, table in find_tables(room).items()}


def words_of(table: object) -> Iterator[str]:
    if isinstance(table, re.Pattern):
        return
    if get_origin(table) is Literal:
        table = get_args(table)
    if isinstance(table, Mapping):
        table = [*table, *table.values()]
    for item in table if isinstance(table, AbstractSet | tuple | list | type(enum.Enum)) else ():
        if isinstance(item, str):
            yield from item.lower().split()
        yield from words_of(item)


KNOWN = {word for table in TABLES.values() for word in words_of(table)}


@st.composite
def unknown_words(draw: st.DrawFn) -> str:
    """A word such as a vendor may add tomorrow: in no table, and no text with a number's unit."""
    word = "q" + draw(st.text(string.ascii_lowercase + "QXZ_", min_size=4, max_size=20)) + "x"
    assume(not any(known in word.lower() for known in KNOWN if len(known) > 2))
    return word


def test_each_table_of_these_rooms_has_a_door_or_a_reason():
    unlisted = sorted(TABLES.keys() - DOORS.keys() - NOT_FED.keys())
    assert not unlisted, (
        f"no test feeds an unknown member to {', '.join(unlisted)}: decide what a miss means (kept, "
        "refused or marked), write a door for it above, or a line in NOT_FED if nothing that a "
        "server or a caller sent is looked up there"
    )


def test_each_door_and_each_reason_is_of_a_table_that_is_there():
    gone = sorted((DOORS.keys() | NOT_FED.keys()) - TABLES.keys())
    assert not gone, f"take these out, or write their new names: {', '.join(gone)}"
    assert not DOORS.keys() & NOT_FED.keys()
    assert all(NOT_FED.values())


@pytest.mark.parametrize("feed", dict.fromkeys(DOORS.values()), ids=lambda feed: feed.__name__)
@settings(max_examples=10, deadline=None)  # the machine may be busy
@given(word=unknown_words())
def test_an_unknown_word_is_never_plain_success(feed, word):
    feed(word)
