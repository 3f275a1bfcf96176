"""What is read from many texts of servers, whole: `golden/tables` has a line for each, beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import msgspec
import pytest

from golden import GOLDEN
from minillmlib import (
    AnthropicProvider,
    ApiError,
    MiniLLMError,
    OpenAiProvider,
    OpenRouterProvider,
)
from minillmlib.protocols.batches.base import ApiRequest
from minillmlib.protocols.chat_completions import response as chat
from minillmlib.protocols.chat_completions.choices import split_choices
from minillmlib.protocols.chat_completions.usage import merge_usage, parse_usage, usage_record
from minillmlib.protocols.completions import response as completions
from minillmlib.protocols.error_words import BASE_RESP_CODES, GENERAL_WORDS, PHRASES, WORDS
from minillmlib.protocols.errors import (
    error_from_payload,
    error_from_reply,
    error_without_key,
)
from minillmlib.types.usage import UsageUpdate

TABLES = GOLDEN / "tables"
BATCHES = {
    "openai": OpenAiProvider.batches,
    "anthropic": AnthropicProvider.batches,
    "openrouter": OpenRouterProvider.batches,
}
INVENTED_ID = "call_[0-9a-f]{24}"  # of a call that the server gave none
CHECKER_WORDS = r"\((?:Expected|Object missing|JSON is malformed|Input data)[^)]*\)"  # of msgspec
WITHOUT = ("raw_response", "cost")  # of an answer: what was given, and what the call puts in


def facts_of(error: MiniLLMError) -> dict[str, Any]:
    """What an error says, as JSON, without what it does not know."""
    facts = {"error": type(error).__name__, "said": re.sub(CHECKER_WORDS, "(...)", str(error))}
    facts |= {"partial": error.partial, "request_id": error.request_id}
    facts |= {"is_retryable": error.is_retryable}
    if isinstance(error, ApiError):
        facts |= {"status": error.status, "code": error.code, "wait": error.retry_after_secs}
    return {name: fact for name, fact in facts.items() if fact not in (None, "", False)}


def plain(value: Any) -> Any:
    """A value as JSON: of an object, the fields that differ from their defaults."""
    match value:
        case MiniLLMError():
            return facts_of(value)
        case msgspec.Struct():
            found = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
            return {
                field.name: plain(one)
                for field, one in found
                if field.name not in WITHOUT and one not in (field.default, {})
            }
        case dict():
            return {name: plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case None | bool() | int() | float():
            return value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return re.sub(INVENTED_ID, "call_(invented)", text)


def outcome(read: Callable[..., Any], *given: Any) -> Any:
    """What is read, or the error, as JSON."""
    try:
        return plain(read(*given))
    except MiniLLMError as error:
        return plain(error)


def text_of(given: Any) -> str:
    """What a server sends: a text as it is, anything else as JSON."""
    return given if isinstance(given, str) else json.dumps(given)


def refusal(status: int, headers: dict[str, str], body: Any) -> Any:
    return error_from_reply(status, headers, text_of(body).encode())


def failure_in_a_success(payload: Any) -> Any:
    return [chat.is_error_payload(payload), error_from_payload(payload), error_without_key(payload)]


@cache
def kind_of(status: int, message: str) -> str:
    """The class of a refusal with this message."""
    return type(error_from_reply(status, {}, text_of({"message": message}).encode())).__name__


def phrase_statuses(words: str) -> Any:
    """The statuses with which a message changes the class of a failure, and the class."""
    found: dict[str, list[int]] = {}
    for status in (*range(400, 432), 451, *range(499, 506)):
        kind = kind_of(status, words)
        if kind != kind_of(status, "Sorry!"):
            found.setdefault(kind, []).append(status)
    return found


def phrase(words: str) -> Any:
    """The class of a failure that says so: inside a success, and with three statuses."""
    inside = error_from_payload({"error": {"message": words.replace("...", " 7 ")}})
    said = f"Sorry: {words.replace('...', ' (7) ').upper()}!"
    return [type(inside).__name__, *(kind_of(status, said) for status in (400, 500, 503))]


def word(code: str | int) -> Any:
    """The class of a failure with a code: inside a success, and with a status that says little."""
    if isinstance(code, int):
        return type(error_from_payload({"base_resp": {"status_code": code}})).__name__
    body = {"error": {"message": "Sorry!", "type": code.upper()}}
    kinds = error_from_payload(body), error_from_reply(418, {}, text_of(body).encode())
    return [type(error).__name__ for error in kinds]


def counts(*bodies: Any) -> Any:
    """The counts of a body, or of those of a stream; with their record, if it is not the last."""
    updates = [UsageUpdate(usage=parse_usage(body), record=usage_record(body)) for body in bodies]
    found = reduce(merge_usage, updates)
    return found.usage if found.record == bodies[-1].get("usage") else found


def answer(raw: Any) -> Any:
    """A whole answer, and each of the answers that it may hold."""
    found = chat.parse_completion(json.loads(json.dumps(raw)), parse_usage)
    several = split_choices(raw)
    if len(several) < 2:
        return found
    return [found, *(chat.parse_completion(each, parse_usage) for each in several)]


def event(data: Any) -> Any:
    return chat.parse_chunk(text_of(data), parse_usage)


def text_answer(raw: Any) -> Any:
    return completions.parse_completion(raw, parse_usage)


def text_event(data: Any) -> Any:
    return completions.parse_chunk(text_of(data), parse_usage)


def batch_state(vendor: str, raw: Any) -> Any:
    return BATCHES[vendor].parse_status(raw)


def batch_result(vendor: str, line: Any) -> Any:
    return BATCHES[vendor].parse_result(text_of(line).encode())


def batch_page(vendor: str, raw: Any) -> Any:
    return BATCHES[vendor].parse_recent(raw)


def result_page(raw: Any) -> Any:
    request = ApiRequest(url="https://h.example/v1/batches/b/results?limit=1000")
    return BATCHES["openrouter"].parse_page(request, raw)


READERS: dict[str, Callable[..., Any]] = {
    "refusals": refusal,
    "failures_in_successes": failure_in_a_success,
    "error_phrases": phrase,
    "error_phrase_statuses": phrase_statuses,
    "error_codes": word,
    "counts": counts,
    "chat_answers": answer,
    "chat_events": event,
    "completions_answers": text_answer,
    "completions_events": text_event,
    "batch_states": batch_state,
    "batch_results": batch_result,
    "batch_pages": batch_page,
    "batch_result_pages": result_page,
}


@pytest.mark.parametrize("name", READERS)
def test_each_text_of_a_table_is_read_to_the_last_field(name):
    for line in (TABLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        given, expected = json.loads(line)
        found = outcome(READERS[name], *given)
        assert json.loads(json.dumps(found)) == expected, json.dumps(given)


def test_every_table_is_read():
    names = {path.name for path in TABLES.iterdir()}
    assert names == {f"{name}.jsonl" for name in READERS}


def test_the_tables_of_failures_have_all_phrases_and_codes():
    def given(name: str) -> list[Any]:
        lines = (TABLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)[0][0] for line in lines]

    assert given("error_phrases") == [text for phrases in PHRASES.values() for text in phrases]
    first = [next(iter(phrases)) for phrases in PHRASES.values()]
    assert given("error_phrase_statuses") == first
    assert given("error_codes") == [*WORDS, *GENERAL_WORDS, *BASE_RESP_CODES]
