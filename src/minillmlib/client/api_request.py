"""Sends requests that are no completions to the generator's server, such as those about batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from minillmlib.auth.credentials import token_credential
from minillmlib.client.attempt import PendingAttempt
from minillmlib.client.http_request import build_api_request
from minillmlib.client.prepare import Call
from minillmlib.errors import MiniLLMError
from minillmlib.json_value import JsonValue, T, decode_json, exceeds_value_count
from minillmlib.protocols.batches.base import ApiRequest
from minillmlib.protocols.errors import error_from_reply
from minillmlib.streaming.sse import limit_error
from minillmlib.transport.timeout import Timeout

REQUEST_TIMEOUT = Timeout(600.0, "total")  # also for an upload of 200 MB
LINE_TIMEOUT = Timeout(120.0, "silence")


async def fetch(
    call: Call, request: ApiRequest, parse: Callable[[JsonValue], T]
) -> tuple[T, Mapping[str, str]]:
    """Send a request; return what `parse` makes of the reply's JSON, and its headers.

    Raises what the reply says went wrong, without a secret. `error.was_sent` says whether the
    server may have acted on the request.
    """
    pending = await _start(call, request)
    exchange = pending.exchange
    try:
        body = await exchange.fetch(REQUEST_TIMEOUT)
        parsed = pending.parse_redacted(lambda text: parse(_decode(pending, text)), body)
    except MiniLLMError as error:
        raise _record(pending, error) from None
    return parsed, exchange.headers


async def read_lines(call: Call, request: ApiRequest, on_line: Callable[[bytes], object]) -> None:
    """Send a request and call `on_line` with each line of the reply that is not blank.

    A line may be as long as a whole answer (`Limits.body_bytes`); their number has no limit.
    """
    pending = await _start(call, request)
    exchange = pending.exchange
    try:
        await exchange.open(REQUEST_TIMEOUT)
        if (exchange.status or 0) >= 300:
            body = await exchange.fetch(REQUEST_TIMEOUT)
            pending.parse_redacted(lambda text: _decode(pending, text), body)
        await _read(pending, on_line)
    except MiniLLMError as error:
        raise _record(pending, error) from None
    finally:
        exchange.close()


async def _start(call: Call, request: ApiRequest) -> PendingAttempt:
    token = token_credential(call.generator.credential)
    if token is not None:
        await token.renew()
    return PendingAttempt(1, call, build_api_request(call, request), None)


def _decode(pending: PendingAttempt, body: bytes) -> JsonValue:
    status = pending.exchange.status or 0
    if status >= 300:
        raise error_from_reply(status, pending.exchange.headers, body)
    return decode_json(body)


async def _read(pending: PendingAttempt, on_line: Callable[[bytes], object]) -> None:
    limits = pending.call.generator.limits
    rest = bytearray()
    is_end = False
    while not is_end:
        piece = await pending.exchange.next_piece(LINE_TIMEOUT)
        is_end = not piece
        rest += piece or b"\n"
        if b"\n" in piece or is_end:
            *lines, rest = rest.split(b"\n")
            for line in filter(bytes.strip, map(bytes, lines)):
                if exceeds_value_count(line, limits.json_values):
                    raise limit_error("a line", limits.json_values, "json_values", "values")
                on_line(line)
        if len(rest) > limits.body_bytes:
            raise limit_error("a line", limits.body_bytes, "body_bytes")


def _record(pending: PendingAttempt, error: MiniLLMError) -> MiniLLMError:
    """Return the error without secrets, with the server's id and whether anything was sent."""
    error.was_sent = pending.record_failure(error, None).was_sent
    error.__traceback__ = None
    return error
