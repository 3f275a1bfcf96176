"""Requests that are no completions: what they return, line by line, and how they fail."""

from __future__ import annotations

import asyncio
import json

import pytest
from scripted_server import Server, status
from virtual_clock import now, run_virtually

from minillmlib import (
    AuthenticationError,
    ChatNode,
    ConnectError,
    GeneratorInfo,
    LimitExceededError,
    Limits,
    MalformedResponseError,
    MiniLLMError,
    NotFoundError,
    RateLimitError,
    ReadError,
    RedirectError,
    RequestTimeoutError,
    ServerError,
)
from minillmlib.client.api_request import fetch, read_lines
from minillmlib.client.prepare import prepare
from minillmlib.protocols.batches.base import ApiRequest
from minillmlib.testing import ScriptedReply

KEY = "sk-own-0123456789"
WANTED = ApiRequest(url="https://own.example/v1/files/1")


def call_of(*steps, generator: GeneratorInfo | None = None, **changes):
    """A call whose transport takes these steps."""
    server = Server(steps)
    generator = (generator or server.generator()).with_api_key(KEY).replace(**changes)
    return prepare(ChatNode.root("s").thread(), generator, None, stream=False), server


def body(*pieces: bytes, **fields) -> ScriptedReply:
    return ScriptedReply(pieces=pieces, **fields)


def fetched(*steps, parse=lambda value: value, **changes):
    call, _ = call_of(*steps, **changes)
    return run_virtually(fetch(call, WANTED, parse))


def lines_of(*steps, **changes) -> list[bytes]:
    """The lines of a reply. Those before an error are in its `lines`."""
    call, _ = call_of(*steps, **changes)
    found: list[bytes] = []
    try:
        run_virtually(read_lines(call, WANTED, found.append))
    except MiniLLMError as error:
        error.lines = found
        raise
    return found


def test_a_reply_is_parsed_and_returned_with_its_headers():
    reply = body(b'{"id"', b": 7}", headers={"X-Request-Id": "r"})
    assert fetched(reply, parse=lambda value: value["id"] + 1) == (8, {"x-request-id": "r"})
    made = body(b"[]", status=299)
    assert fetched(made) == ([], {})


FAILURES = [
    (status(300, message="elsewhere"), RedirectError, True),
    (status(404, message="no such file"), NotFoundError, True),
    (status(429, {"retry-after": "7"}, message="slow down"), RateLimitError, True),
    (status(401, message=f"not {KEY}"), AuthenticationError, True),
    (status(500, message="oh"), ServerError, True),
    (ConnectError, ConnectError, False),
    (body(b"{}", breaks_off=True), ReadError, True),
]


@pytest.mark.parametrize("read", [fetched, lines_of], ids=["fetch", "lines"])
@pytest.mark.parametrize(("step", "kind", "was_sent"), FAILURES)
def test_a_failure_is_of_our_kinds_without_a_secret(read, step, kind, was_sent):
    with pytest.raises(kind) as raised:
        read(step)
    error = raised.value
    assert (type(error), error.was_sent) == (kind, was_sent)
    assert KEY not in str(error)
    if kind is RateLimitError:
        assert error.retry_after_secs == 7
    if kind is AuthenticationError:
        assert (error.status, "not [hidden]" in str(error)) == (401, True)


def test_a_failure_has_the_id_that_the_server_gave_it():
    for read in (fetched, lines_of):
        with pytest.raises(NotFoundError) as raised:
            read(status(404, {"x-request-id": "r-7"}, message="no"))
        assert raised.value.request_id == "r-7"


@pytest.mark.parametrize("reply", [b"", b"<html>", b'{"a": '])
def test_a_reply_that_is_no_json_is_malformed(reply):
    with pytest.raises(MalformedResponseError):
        fetched(body(reply))


def test_a_reply_of_another_form_is_malformed_without_a_secret():
    with pytest.raises(MalformedResponseError) as raised:
        fetched(body(json.dumps({"id": KEY}).encode()), parse=lambda value: int(value["id"]))
    assert str(raised.value) == (
        "the provider could not read the server's answer (ValueError: invalid literal for int() "
        "with base 10: '[hidden]')"
    )


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        ([b"a"], [b"a"]),
        ([b"a\n"], [b"a"]),
        ([b"a\nb"], [b"a", b"b"]),
        ([b"a", b"b\nc", b"d\n", b"e"], [b"ab", b"cd", b"e"]),
        ([b"a\n\n \n\t\nb\n\n"], [b"a", b"b"]),
        ([b"a\r\nb\r\n"], [b"a\r", b"b\r"]),
        ([b"\n\n"], []),
        ([b"\n", b"a", b"\n"], [b"a"]),
        ([b" a \n"], [b" a "]),
    ],
)
def test_each_line_that_is_not_blank_is_given_on(pieces, lines):
    assert lines_of(body(*pieces)) == lines
    assert lines_of(body(*pieces, status=299)) == lines


def test_the_lines_before_a_break_are_given_on():
    with pytest.raises(ReadError) as raised:
        lines_of(body(b"a\nb", breaks_off=True))
    assert raised.value.lines == [b"a"]


@pytest.mark.parametrize(
    ("pieces", "lines", "problem"),
    [
        ([b"x" * 20 + b"\n", b"y"], [b"x" * 20, b"y"], None),
        ([b"x" * 20, b"\n", b"x" * 20], [b"x" * 20, b"x" * 20], None),
        ([b"a\n", b"x" * 21], [b"a"], "the server sends a line of more than 20 bytes; raise body_bytes of the "
         "generator's limits if that is right"),
        ([b"[1,2,3]\n[1,2,3,4]\n"], [b"[1,2,3]", b"[1,2,3,4]"], None),
        ([b"a\n[1,2,3,4,5,6]\nb"], [b"a"], "the server sends a line of more than 5 values; raise json_values of "
         "the generator's limits if that is right"),
    ],
)  # fmt: skip
def test_a_line_may_be_as_long_as_the_limits_allow(pieces, lines, problem):
    limits = Limits(body_bytes=20, json_values=5)
    if problem is None:
        assert lines_of(body(*pieces), limits=limits) == lines
        return
    with pytest.raises(LimitExceededError) as raised:
        lines_of(body(*pieces), limits=limits)
    assert (raised.value.lines, str(raised.value)) == (lines, problem)


class Slow:
    """Sends each piece after some time."""

    def __init__(self, secs: float, *pieces: bytes) -> None:
        self.secs, self.pieces = secs, [*pieces, b""]
        self.status, self.headers, self.closed = 200, {}, 0

    async def read(self):
        await asyncio.sleep(self.secs)
        return self.pieces.pop(0)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(("secs", "is_late"), [(119.0, False), (121.0, True)])
def test_a_line_may_take_two_minutes_and_all_lines_longer(secs, is_late):
    slow = Slow(secs, *(b"a\n" for _ in range(9)))

    async def send(_request):
        return slow

    call, _ = call_of(send)
    found: list[bytes] = []

    async def main() -> float:
        try:
            await read_lines(call, WANTED, found.append)
        except RequestTimeoutError:
            assert is_late
        return now()

    assert run_virtually(main()) == (120.0 if is_late else 10 * secs)
    assert len(found) == (0 if is_late else 9)
    assert slow.closed


@pytest.mark.parametrize("read", [fetch, read_lines])
def test_a_reply_may_take_ten_minutes(read):
    async def hang(_request):
        await asyncio.sleep(1e6)

    call, _ = call_of(hang)

    async def main() -> float:
        with pytest.raises(RequestTimeoutError):
            await read(call, WANTED, lambda _: None)
        return now()

    assert run_virtually(main()) == 600.0


def test_a_token_is_renewed_before_the_request():
    tokens = iter(["one", "two", "three"])

    async def get_token():
        return next(tokens)

    server = Server([body(b"1"), body(b"2\n")])
    generator = server.generator().with_token_provider(get_token)
    call = prepare(ChatNode.root("s").thread(), generator, None, stream=False)
    run_virtually(fetch(call, WANTED, lambda value: value))
    run_virtually(read_lines(call, WANTED, lambda value: value))
    sent = [dict(request.expose_headers())["Authorization"] for request in server.requests]
    assert sent == ["Bearer one", "Bearer two"]
