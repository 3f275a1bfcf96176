"""All parsers of what a server sends, and a check that what they return is well-formed and soon there.

Use `fed` with the inputs of `fuzz_inputs`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import NamedTuple

from msgspec.structs import astuple

import minillmlib
from minillmlib import (
    AnthropicProvider,
    ApiError,
    CompletionResponse,
    CompletionsProvider,
    FinishReason,
    InvalidParameterError,
    MiniLLMError,
    OpenRouterProvider,
    Provider,
    ResponsesProvider,
    StreamChunk,
    Usage,
)
from minillmlib.json_value import decode_json
from minillmlib.protocols.errors import error_from_payload, error_from_reply
from minillmlib.streaming.sse import SseDecoder, SseEvent

SHOWN = 2_000  # bytes of an input that fails


# What an input may take, in CPU time.
BASE_SECS = 0.020


SECS_PER_BYTE = 2e-6


ROUTER, CLAUDE, RESPONSES = OpenRouterProvider(), AnthropicProvider(), ResponsesProvider()


GENERIC = minillmlib.GenericProvider()


COMPLETIONS = CompletionsProvider()


def check_text(*texts: object) -> None:
    for text in texts:
        assert isinstance(text, str)
        text.encode()  # no half of a surrogate pair


def texts_in(value: object) -> Iterator[str]:
    """Every text in a JSON value, however deep."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            yield value


def check_count(count: object) -> None:
    assert type(count) is int
    assert count >= 0


COUNTS = [name for name in Usage.__struct_fields__ if name.endswith("_tokens")]


def check_usage(usage: Usage | None) -> None:
    if usage is None:
        return
    for name in COUNTS:
        check_count(getattr(usage, name))
    assert isinstance(usage.non_token_charges, str | None)
    cost = usage.native_cost
    assert cost is None or (isinstance(cost, Decimal) and cost.is_finite() and cost >= 0)


def check_chunk(chunk: StreamChunk) -> None:
    check_text(chunk.id, chunk.model, chunk.delta, chunk.reasoning)
    check_text(chunk.refusal or "", chunk.raw_finish_reason or "")
    assert isinstance(chunk.finish_reason, FinishReason | None)
    for call in chunk.tool_calls:
        check_text(call.id, call.name, call.arguments)
        assert isinstance(call.index, int | None)
    for block in chunk.reasoning_blocks:
        assert isinstance(block.index, int)
        check_text(*texts_in(block.fields))
    check_usage(chunk.usage)


def check_response(response: CompletionResponse) -> None:
    check_text(response.id, response.model, response.content, response.reasoning, response.text)
    check_text(response.refusal or "", response.raw_finish_reason or "")
    assert isinstance(response.finish_reason, FinishReason)
    for call in response.tool_calls:
        check_text(call.id, call.name, call.arguments)
        assert call.id
    for block in response.reasoning_blocks:
        check_text(*texts_in(block.fields))
        assert 0 <= block.text_before <= len(response.content)
        assert 0 <= block.calls_before <= len(response.tool_calls)
    check_usage(response.usage)
    check_text(response.to_assistant_message().content)


def check_error(error: MiniLLMError) -> None:
    # A server's answer is never the caller's fault.
    assert not isinstance(error, InvalidParameterError)
    said = str(error)
    check_text(said, error.partial, error.request_id or "")
    assert said.isprintable()
    assert len(said) < 3000
    if isinstance(error, ApiError):
        check_text(error.code or "")
        wait = error.retry_after_secs
        assert wait is None or 0 < wait < float("inf")


def check(value: object) -> None:
    match value:
        case MiniLLMError():
            check_error(value)
        case CompletionResponse():
            check_response(value)
        case StreamChunk():
            check_chunk(value)
        case Usage():
            check_usage(value)
        case list():
            for texts in value:
                check_text(*texts)
        case _:
            assert value is None


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def decoded(pieces: list[bytes]) -> list[SseEvent]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def whole_reader(provider: Provider) -> Callable[[bytes], CompletionResponse]:
    return lambda data: provider.parse_response(decode_json(text_of(data)))


def chunk_reader(provider: Provider) -> Callable[[bytes], StreamChunk | None]:
    return lambda data: provider.parse_chunk(text_of(data))


def stream_reader(provider: Provider) -> Callable[[bytes], StreamChunk | None]:
    """Read one event after the other, until an error or an end begins another stream."""
    readers = [provider.chunk_reader()]

    def read(data: bytes) -> StreamChunk | None:
        reader = readers.pop() if readers else provider.chunk_reader()
        chunk = reader(text_of(data))
        if chunk is None or not chunk.is_end:
            readers.append(reader)
        return chunk

    return read


def usage_reader(provider: Provider) -> Callable[[bytes], Usage | None]:
    return lambda data: provider.parse_usage(decode_json(data))


WAITS = ("7", "1.5", "-3", "nan", "1e999", "9" * 400, "Wed, 21 Oct 2026 07:28:00 GMT", "soon", "",
         "Thu, 99 Foo 20269 99:99:99 +9999", "Mon, 1 Jan 0001 00:00:00 +2359", "1 Jan 99999", "\x00",
         "Fri, 31 Dec 9999 23:59:59 -2359", ",,,", "(((", '"')  # fmt: skip


def read_failure(data: bytes) -> ApiError:
    chance = random.Random(data)
    names = ("retry-after", "retry-after-ms", "location", "x-request-id", "request-id")
    values = (*WAITS, text_of(data[:50]))
    headers = {name: chance.choice(values) for name in names if chance.random() < 0.4}
    status = chance.choice((300, 307, 400, 401, 403, 404, 413, 422, 429, 500, 503, 529, 599))
    error = error_from_reply(status, headers, data)
    assert error.status == status
    return error


def read_failure_inside_success(data: bytes) -> ApiError:
    return error_from_payload(decode_json(text_of(data)))


class Parser(NamedTuple):
    """One parser: what it is fed with, and its readers, which all get every input."""

    corpus: str
    readers: tuple[Callable[[bytes], object], ...]
    share: int = 1
    """It gets one in so many of the inputs that others get: its answers are long."""


PARSERS = {
    "events": Parser("streams", (lambda data: [astuple(one) for one in decoded([data])],)),
    "chat completion": Parser("chat_whole", (whole_reader(GENERIC), whole_reader(ROUTER))),
    "chat chunk": Parser("chat_chunk", (chunk_reader(GENERIC), chunk_reader(ROUTER))),
    "claude message": Parser("claude_whole", (whole_reader(CLAUDE),)),
    "claude event": Parser("claude_chunk", (chunk_reader(CLAUDE),)),
    "response": Parser("responses_whole", (whole_reader(RESPONSES),), share=4),
    "response event": Parser("responses_chunk", (stream_reader(RESPONSES),), share=4),
    "completion": Parser("completions_whole", (whole_reader(COMPLETIONS),), share=4),
    "completion chunk": Parser("completions_chunk", (chunk_reader(COMPLETIONS),), share=4),
    "failure": Parser("failures", (read_failure, read_failure_inside_success)),
    "usage": Parser("counts", tuple(map(usage_reader, (GENERIC, ROUTER, CLAUDE, RESPONSES)))),
}


def outcome_of(read: Callable[[bytes], object], data: bytes) -> object:
    """Return a value, or an error of ours. Anything else fails, and shows the input."""
    try:
        return read(data)
    except MiniLLMError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error} over {data[:SHOWN]!r}") from error


def cpu_secs(read: Callable[[bytes], object], data: bytes) -> float:
    started = time.thread_time()
    outcome_of(read, data)
    return time.thread_time() - started


def fed(read: Callable[[bytes], object], data: bytes) -> object:
    """The checked outcome, which was there in time: at once, or in the best of three more runs."""
    most = BASE_SECS + SECS_PER_BYTE * len(data)
    started = time.thread_time()
    value = outcome_of(read, data)
    if time.thread_time() - started > most:
        assert min(cpu_secs(read, data) for _ in range(3)) <= most, data[:SHOWN]
    try:
        check(value)
    except Exception as error:
        raise AssertionError(f"{value!r:.2000} of {data[:SHOWN]!r}") from error
    return value
