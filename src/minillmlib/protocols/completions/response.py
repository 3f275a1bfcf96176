"""Parses answers of the completions wire.

They are those of chat completions, but that a choice has a `text` in place of a message.
"""

from __future__ import annotations

from itertools import zip_longest

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.chat_completions import response as chat
from minillmlib.protocols.chat_completions.usage import UsageParser
from minillmlib.types.responses import CompletionResponse, StreamChunk


def parse_completion(raw: JsonValue, parse_usage: UsageParser) -> CompletionResponse:
    """Return a whole answer. Raises an `ApiError` for an error sent with status 200."""
    answer = chat.parse_completion(_as_chat(raw), parse_usage)
    return msgspec.structs.replace(answer, raw_response=raw)


def parse_chunk(data: str, parse_usage: UsageParser) -> StreamChunk | None:
    """Return one event of a stream, or None for one without content."""
    return chat.parse_any_chunk(data, parse_usage, _as_chat)


def _as_chat(raw: JsonValue) -> JsonValue:
    choices = raw.get("choices") if isinstance(raw, dict) else None
    if not isinstance(choices, list):
        return raw
    return {**raw, "choices": list(map(_with_message, choices))}


def _with_message(choice: JsonValue) -> JsonValue:
    """Return a choice with its text as a message; one that has a message already as it is."""
    if not isinstance(choice, dict) or "text" not in choice or choice.keys() & {"message", "delta"}:
        return choice
    others = {key: value for key, value in choice.items() if key != "text"}
    message = {"content": choice["text"]}
    return others | {"message": message, "logprobs": _as_chat_logprobs(choice.get("logprobs"))}


def _as_chat_logprobs(record: JsonValue) -> JsonValue:
    """Return a record of lists (OpenAI, vLLM) in the shape of chat completions.

    llama.cpp sends that shape itself. `text_offset` says nothing that the tokens do not.
    """
    if not isinstance(record, dict) or "tokens" not in record:
        return record
    names = ("tokens", "token_logprobs", "top_logprobs")
    lists = (record[name] if isinstance(record.get(name), list) else () for name in names)
    return {"content": [_as_chat_token(*facts) for facts in zip_longest(*lists)]}


def _as_chat_token(token: JsonValue, logprob: JsonValue, top: JsonValue) -> JsonObject:
    others = top.items() if isinstance(top, dict) else ()
    ranked = sorted([(p, name) for name, p in others if isinstance(p, int | float)], reverse=True)
    tops = [{"token": name, "logprob": p} for p, name in ranked]
    return {"token": token, "logprob": logprob, "top_logprobs": tops}
