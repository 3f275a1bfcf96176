"""What a line of a recording holds, whole, for each way that an exchange ends; and its replay."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode

import msgspec
import pytest
from manual_clock import EPOCH, Clock, follow_loop
from virtual_clock import now, run_virtually

from minillmlib import (
    ConnectError,
    HttpRequest,
    MiniLLMError,
    ReadError,
    RequestTimeoutError,
    Secret,
    StorageError,
    TransportError,
)
from minillmlib.recording.exchanges import ExchangeRecorder, replay
from minillmlib.recording.records import (
    Body,
    RecordedError,
    RecordedExchange,
    RecordedRequest,
    decode_record,
    encode_record,
    redact_request,
    redactor_for,
)

REQUEST = HttpRequest(
    url="https://own.example/v1", headers=(("X-Tenant", "t"),), body=b'{"b":1,"a":2}'
)
ASKED = {
    "method": "POST", "url": "https://own.example/v1", "headers": {"x-tenant": "t"},
    "body": {"json": {"a": 2, "b": 1}},
}  # fmt: skip
READ = {
    "kind": "exchange", "started_at": EPOCH, "request": ASKED, "status": 201,
    "headers": {"x-a": "b"}, "headers_secs": 0.5,
}  # fmt: skip


class Server:
    """Sends headers after half a second, and each piece after a quarter."""

    status, headers = 201, {"x-a": "b"}

    def __init__(self, clock: Clock, *pieces, at_once: BaseException | None = None):
        self._clock, self._pieces, self._at_once = clock, iter(pieces), at_once
        self.closed = self.accepted = 0

    async def send(self, _request):
        self._clock.now += 0.5
        if self._at_once is not None:
            raise self._at_once
        return self

    async def read(self) -> bytes:
        self._clock.now += 0.25
        piece = next(self._pieces)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def close(self):
        self.closed += 1

    def accept(self):
        self.accepted += 1


class Unsent(Server):
    was_sent = False


@pytest.fixture
def clock(monkeypatch):
    return Clock().install(monkeypatch)


async def record(server: Server, *steps: str) -> list[dict]:
    """The lines of an exchange of which so much was read."""
    lines: list[dict] = []

    def write(exchange: RecordedExchange) -> None:
        lines.append(json.loads(encode_record(exchange)))
        assert decode_record(encode_record(exchange)) == exchange

    recorder = ExchangeRecorder(REQUEST, write, lambda: lines.append({"accepted": True}))
    try:
        response = await recorder.send(REQUEST, server)
        for step in steps:
            result = getattr(response, step)()
            if step == "read":
                await result
    except (MiniLLMError, KeyError, asyncio.CancelledError):
        pass
    else:
        assert (response.status, response.headers) == (201, {"x-a": "b"})
        assert response.was_sent == getattr(server, "was_sent", True)
    return lines


TWO = {"body": {"text": "abcde"}, "pieces": [[0.75, 2], [1.0, 3]]}
ONE = {"body": {"text": "ab"}, "pieces": [[0.75, 2]]}


async def test_an_exchange_that_is_read_to_its_end_is_whole_and_recorded_once(clock):
    server = Server(clock, b"ab", b"cde", b"", b"")
    lines = await record(server, "read", "read", "read", "read", "close", "accept")
    assert lines == [{**READ, **TWO}, {"accepted": True}]
    assert (server.closed, server.accepted) == (1, 1)
    server = Server(clock, b"")
    clock.now = 5000.0
    assert await record(server, "accept", "read") == [
        {"accepted": True}, {**READ, "body": {"text": ""}},
    ]  # fmt: skip


async def test_an_exchange_whose_reader_leaves_says_so(clock):
    server = Server(clock, b"ab", b"cde")
    assert await record(server, "read", "read", "close") == [{**READ, **TWO, "ended": "left"}]
    clock.now = 5000.0
    assert await record(Server(clock), "close") == [{**READ, "body": {"text": ""}, "ended": "left"}]


def failed(kind: str, message: str, *, is_retryable: bool = True) -> dict:
    error = {"type": kind, "message": message, "is_retryable": is_retryable}
    return {"ended": "failed", "error": error}


async def test_an_exchange_that_breaks_off_has_its_error(clock):
    for error, end in (
        (ReadError("cut"), failed("ReadError", "cut")),
        (KeyError("k"), failed("KeyError", "'k'", is_retryable=False)),
        (asyncio.CancelledError(), {"ended": "cancelled"}),
    ):
        clock.now = 5000.0
        server = Server(clock, b"ab", error)
        assert await record(server, "read", "read", "close") == [{**READ, **ONE, **end}]


async def test_an_exchange_that_never_began_has_no_status(clock):
    unsent = ReadError("early")
    unsent.was_sent = False
    begun = {"kind": "exchange", "started_at": EPOCH, "request": ASKED, "headers_secs": 0.0,
             "body": {"text": ""}}  # fmt: skip
    for error, end in (
        (ConnectError("nobody"), {"was_sent": False, **failed("ConnectError", "nobody")}),
        (ReadError("cut"), failed("ReadError", "cut")),
        (unsent, {"was_sent": False, **failed("ReadError", "early")}),
        (asyncio.CancelledError(), {"ended": "cancelled"}),
    ):
        clock.now = 5000.0
        assert await record(Server(clock, at_once=error)) == [{**begun, **end}]


async def test_what_was_not_sent_is_recorded_so(clock):
    lines = await record(Unsent(clock, b"ab", b""), "read", "read")
    assert lines == [{**READ, **ONE, "was_sent": False}]


async def test_times_have_a_millionth_of_a_second(clock):
    clock.now = 5000.00000049
    (line,) = await record(Server(clock, b"x", b""), "read", "read")
    assert (line["headers_secs"], line["pieces"]) == (0.5, [[0.75, 1]])
    recorder = ExchangeRecorder(REQUEST, lambda exchange: None)
    clock.now += 1.23456789
    assert recorder._secs() == 1.234568


async def test_an_error_goes_before_that_of_a_disk_that_is_full(clock, caplog):
    def fail(_exchange) -> None:
        raise StorageError("no room")

    for error in (ReadError("cut"), asyncio.CancelledError()):
        caplog.clear()
        recorder = ExchangeRecorder(REQUEST, fail)
        with pytest.raises(type(error)):
            await recorder.send(REQUEST, Server(clock, at_once=error))
        assert caplog.messages == ["an exchange was not recorded: no room"]
    caplog.clear()
    response = await ExchangeRecorder(REQUEST, fail).send(REQUEST, Server(clock))
    response.close()
    assert caplog.messages == ["an exchange was not recorded: no room"]
    response = await ExchangeRecorder(REQUEST, fail).send(REQUEST, Server(clock, b""))
    with pytest.raises(StorageError):
        await response.read()


# Replays.


def exchange_of(**changes) -> RecordedExchange:
    exchange = decode_record(msgspec.json.encode({**READ, **TWO, **changes}))
    assert isinstance(exchange, RecordedExchange)
    return exchange


ERROR = {"type": "RequestTimeoutError", "message": "late", "is_retryable": False}
NOTHING = {"status": None, "body": {"text": ""}, "pieces": [], "headers": {}}


async def read_all(response) -> list[bytes]:
    pieces = [await response.read()]
    while pieces[-1]:
        pieces.append(await response.read())
    return pieces


@pytest.mark.parametrize(
    ("changes", "error", "was_sent"),
    [
        ({"ended": "failed", "error": ERROR}, RequestTimeoutError("late"), True),
        ({"ended": "failed", "error": ERROR, "was_sent": False}, RequestTimeoutError("late"), False),
        ({"ended": "failed", "error": {**ERROR, "type": "KeyError"}},
         TransportError("KeyError: late"), True),
        ({"ended": "left"},
         ReadError("the recording ends here, because its reader left; record it anew, and read on"),
         True),
        ({"ended": "left", "was_sent": False},
         ReadError("the recording ends here, because its reader left; record it anew, and read on"),
         False),
    ],
)  # fmt: skip
async def test_a_replay_ends_as_the_exchange_did(changes, error, was_sent):
    exchange = exchange_of(**changes)
    with pytest.raises(MiniLLMError) as caught:
        response = await replay(exchange)
        assert (response.status, dict(response.headers)) == (201, {"x-a": "b"})
        assert [await response.read(), await response.read()] == [b"ab", b"cde"]
        await response.read()
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))
    assert vars(caught.value).get("was_sent", True) == was_sent
    assert caught.value.is_retryable == (changes["ended"] == "left")


@pytest.mark.parametrize("was_sent", [True, False])
async def test_a_replay_of_what_never_began_raises_at_once(was_sent):
    exchange = exchange_of(**NOTHING, ended="failed", error=ERROR, was_sent=was_sent)
    with pytest.raises(RequestTimeoutError, match="^late$") as caught:
        await replay(exchange)
    assert vars(caught.value).get("was_sent", True) == was_sent


async def test_a_whole_replay_ends_again_and_again():
    response = await replay(exchange_of())
    assert await read_all(response) == [b"ab", b"cde", b""]
    assert await response.read() == b""


@pytest.mark.parametrize("ended", ["left", "cancelled", "whole"])
async def test_a_replay_that_is_closed_has_ended(ended):
    response = await replay(exchange_of(ended=ended))
    assert await response.read() == b"ab"
    response.close()
    response.close()
    assert await response.read() == b""


@pytest.mark.parametrize("was_sent", [True, False])
@pytest.mark.parametrize("has_begun", [True, False])
async def test_who_reads_what_was_cancelled_waits_until_it_is_cancelled(was_sent, has_begun):
    changes = {"ended": "cancelled", "was_sent": was_sent, **({} if has_begun else NOTHING)}

    async def read() -> None:
        await read_all(await replay(exchange_of(**changes)))

    task = asyncio.ensure_future(read())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    error = caught.value
    while error is not None and "was_sent" not in vars(error):
        error = error.__context__
    assert (error is None) == was_sent


@pytest.mark.parametrize("was_sent", [True, False])
async def test_a_wait_for_what_was_cancelled_ends_when_it_is_closed(was_sent):
    response = await replay(exchange_of(ended="cancelled", was_sent=was_sent))
    reading = asyncio.ensure_future(read_all(response))
    for _ in range(20):
        await asyncio.sleep(0)
    response.close()
    response.close()
    with pytest.raises(ReadError, match="^the response was closed while it was read$") as caught:
        await reading
    assert vars(caught.value).get("was_sent", True) == was_sent


HEADERS = {"x-ratelimit-limit": "1", "anthropic-ratelimit-x": "2", "x-request-id": "3"}


@pytest.mark.parametrize(
    ("recorded", "given", "was_sent", "headers"),
    [
        (True, True, True, HEADERS),
        (False, True, False, HEADERS),
        (True, False, False, {"x-request-id": "3"}),
    ],
)
async def test_what_was_not_sent_now_has_no_limits_of_then(recorded, given, was_sent, headers):
    exchange = exchange_of(headers=HEADERS, was_sent=recorded)
    response = await replay(exchange, was_sent=given)
    assert (response.was_sent, dict(response.headers)) == (was_sent, headers)


@pytest.mark.parametrize(
    ("keeps_timing", "late", "times"),
    [(True, 0, [0.5, 0.75, 1.0, 1.0]), (True, 0.8, [0.5, 1.3, 1.3, 1.3]), (False, 0, [0.0] * 4)],
)
def test_pieces_come_at_their_times_or_as_soon_as_they_are_asked_for(
    monkeypatch, keeps_timing, late, times
):
    async def main() -> list[float]:
        follow_loop(monkeypatch)
        response = await replay(exchange_of(), keeps_timing=keeps_timing)
        found = [now()]
        await asyncio.sleep(late)
        for _ in range(3):
            await response.read()
            found.append(now())
        return found

    assert run_virtually(main()) == pytest.approx(times)


# Records.


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b'{"a":1}', {"json": {"a": 1}}),
        (b"[]", {"json": []}),
        (b"{}", {"json": {}}),
        (b"[1]", {"json": [1]}),
        (b"", {"text": ""}),
        (b"1", {"text": "1"}),
        (b'"a"', {"text": '"a"'}),
        (b"{\n}", {"text": "{\n}"}),
        (b"[1, 2", {"text": "[1, 2"}),
        (b" [1]", {"text": " [1]"}),
        (b"{a}", {"text": "{a}"}),
        (b"[[]", {"text": "[[]"}),
        (b"{1]", {"text": "{1]"}),
        ("é".encode(), {"text": "é"}),
        (b"\xff\x00", {"base64": "/wA="}),
        (b'["\xff"]', {"base64": "WyL/Il0="}),
        (b"[" * 99_999 + b"]" * 99_999, {"text": "[" * 99_999 + "]" * 99_999}),
    ],
)  # fmt: skip
def test_a_body_is_as_readable_as_it_can_be_and_exactly_its_bytes(data, body):
    made = Body.of(data)
    assert json.loads(msgspec.json.encode(made)) == body
    assert made.data == data
    assert msgspec.json.decode(msgspec.json.encode(made), type=Body).data == data


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pieces": [[0, 5], [1, 1]]}, "the pieces of a body must add up to its 5 bytes"),
        ({"pieces": [[0, 5], [1, 0]]}, "the pieces of a body must add up to its 5 bytes"),
        ({"pieces": []}, "the pieces of a body must add up to its 5 bytes"),
        ({"status": 1000}, "1000 is no status of a response with a body"),
        ({"status": -1}, "-1 is no status of a response with a body"),
        ({"status": None, "ended": "cancelled"}, "None is no status of a response with a body"),
        ({"ended": "failed"}, "an exchange that failed has an error, and no other has one"),
        ({"error": ERROR}, "an exchange that failed has an error, and no other has one"),
        (NOTHING, "an exchange that was read has a status"),
        ({**NOTHING, "ended": "left"}, "an exchange that was read has a status"),
    ],
)
def test_a_line_that_contradicts_itself_says_where(changes, problem):
    with pytest.raises(StorageError) as caught:
        exchange_of(**changes)
    assert str(caught.value) == problem


def test_what_is_no_base64_is_no_body():
    assert exchange_of(body={"base64": "YWJjZGU="}).body.data == b"abcde"
    with pytest.raises(ValueError, match="base64"):
        exchange_of(body={"base64": "YWJj!ZGU="})


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 1}, {"status": 999}, {"pieces": [[0, 1], [0, 4]]}, {"ended": "left"},
        {"ended": "cancelled"}, {"ended": "failed", "error": ERROR},
        {**NOTHING, "ended": "cancelled"}, {**NOTHING, "ended": "failed", "error": ERROR},
    ],
)  # fmt: skip
def test_a_line_may_be_at_each_bound(changes):
    exchange = exchange_of(**changes)
    assert decode_record(encode_record(exchange)) == exchange


@pytest.mark.parametrize(
    ("kind", "made", "text"),
    [
        ("ReadError", ReadError, "m"), ("MiniLLMError", MiniLLMError, "m"),
        ("KeyError", TransportError, "KeyError: m"), ("annotations", TransportError, "annotations: m"),
        ("Enum", TransportError, "Enum: m"), ("", TransportError, ": m"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_retryable", [True, False])
def test_an_error_comes_back_as_what_it_was(kind, made, text, is_retryable):
    error = RecordedError(type=kind, message="m", is_retryable=is_retryable).to_error()
    assert (type(error), str(error), error.is_retryable) == (made, text, is_retryable)


UNCOMPARED = (
    "user-agent", "accept-encoding", "traceparent", "tracestate", "baggage", "x-request-id",
    "x-client-request-id", "idempotency-key", "x-idempotency-key",
)  # fmt: skip


def request_of(**changes) -> RecordedRequest:
    request = msgspec.structs.replace(REQUEST, **changes)
    return redact_request(request, redactor_for(request))


@pytest.mark.parametrize("name", [*UNCOMPARED, "User-Agent"])
def test_a_header_that_two_programs_differ_in_is_not_compared(name):
    one, other = (request_of(headers=((name, value),)) for value in "ab")
    assert one.key == other.key == request_of(headers=()).key
    assert one.compared_headers == {}
    assert one.headers == {name.lower(): "[hidden]" if "key" in name else "a"}


SAME = request_of()


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"body": b'{"a": 2, "b": 1}'}, True),
        ({"body": b'{"a":2,"b":"1"}'}, False),
        ({"body": b'{"a":2}'}, False),
        ({"method": "GET"}, False),
        ({"url": "https://own.example/v2"}, False),
        ({"headers": (("x-tenant", "t"),)}, True),
        ({"headers": (("x-tenant", "t"), ("User-Agent", "a"))}, True),
        ({"headers": (("x-tenant", "u"),)}, False),
        ({"headers": (("x-tenants", "t"),)}, False),
        ({"headers": ()}, False),
    ],
)
def test_requests_are_equal_if_they_ask_the_same(changes, is_same):
    assert (request_of(**changes).key == SAME.key) is is_same


def test_the_order_of_headers_is_none():
    pairs = (("b", "1"), ("a", "2"))
    assert request_of(headers=pairs).key == request_of(headers=pairs[::-1]).key


PASSWORD = "planted-secret-0123456789"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/v1", "https://h/v1"),
        ("https://h/v1?a=b&c=d", "https://h/v1?a=b&c=d"),
        (f"https://h/v1?key={PASSWORD}", "https://h/v1?key=[hidden]"),
        (f"https://h/v1?x=1&API_KEY={PASSWORD}&y=2", "https://h/v1?x=1&API_KEY=[hidden]&y=2"),
        (f"https://h/v1?sig={PASSWORD}&token=", "https://h/v1?sig=[hidden]&token="),
        (f"https://h/v1?X-Amz-Signature={PASSWORD}", "https://h/v1?X-Amz-Signature=[hidden]"),
        (f"https://me:{PASSWORD}@h/v1", "https://[hidden]@h/v1"),
        (f"https://me@h/v1?Auth={PASSWORD}#f", "https://[hidden]@h/v1?Auth=[hidden]#f"),
        ("https://@h/v1", "https://[hidden]@h/v1"),
        (f"https://h/v1?key=a={PASSWORD}", "https://h/v1?key=[hidden]"),
        ("https://me:ab@h/v1?key=abc&n=1", "https://[hidden]@h/v1?key=[hidden]&n=1"),
    ],
)
def test_an_address_is_kept_without_its_secrets(url, shown):
    request = msgspec.structs.replace(REQUEST, url=url, body=json.dumps([PASSWORD]).encode())
    kept = redact_request(request, redactor_for(request))
    assert kept.url == shown
    if PASSWORD in url and f":{PASSWORD}@" not in url:
        assert PASSWORD not in kept.body.data.decode()
    assert PASSWORD not in kept.url


@pytest.mark.parametrize(
    ("key", "model", "shown"),
    [
        ("llama-3.1-8b", '"llama-3.1-8b"', "llama-3.1-8b said own.example"),
        ("own.example", '"llama-3.1-8b"', "own.example said llama"),
        ("llama-3.1-8b", '"qwen"', "[hidden] said own.example"),
        ("llama-3.1-8b", '["llama-3.1-8b"]', "[hidden] said own.example"),
    ],
)
def test_a_short_key_that_is_a_part_of_the_host_or_the_model_is_shown(key, model, shown):
    text = shown.replace("[hidden]", key)
    request = msgspec.structs.replace(
        REQUEST, headers=(("Authorization", Secret(f"Bearer {key}")),),
        body=f'{{"model":{model},"text":"{text}"}}'.encode(),
    )  # fmt: skip
    kept = redact_request(request, redactor_for(request))
    assert json.loads(kept.body.data)["text"] == shown
    assert kept.headers == {"authorization": "[hidden]"}


@pytest.mark.parametrize("proxy", [None, "http://me:planted-proxy-0123456789@127.0.0.1:1"])
def test_the_password_of_the_proxy_in_the_environment_is_no_text_of_a_file(monkeypatch, proxy):
    login = b64encode(b"me:planted-proxy-0123456789").decode()
    text = f"Basic {login} or {login} or planted-proxy-0123456789"
    if proxy is not None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    request = msgspec.structs.replace(REQUEST, body=json.dumps({"text": text}).encode())
    kept = redact_request(request, redactor_for(request))
    shown = text if proxy is None else "[hidden] or [hidden] or [hidden]"
    assert json.loads(kept.body.data) == {"text": shown}


async def test_the_headers_of_a_response_are_kept_without_secrets(clock):
    server = Server(clock, b"")
    server.headers = {
        "set-cookie": "abcdefgh", "x-auth": "abcdefgh", "x-api-key": "abcdefgh", "x-key": "123",
        "x-secret": "abcdefgh", "password-hint": "abcdefgh", "token": "abcdefgh",
        "x-ratelimit-limit-tokens": "9 a minute", "x-ratelimit-key": "abcdefgh",
        "input-tokens": "many", "content-type": "text/plain",
    }  # fmt: skip
    lines: list[RecordedExchange] = []
    response = await ExchangeRecorder(REQUEST, lines.append).send(REQUEST, server)
    assert await response.read() == b""
    hidden = ("set-cookie", "x-auth", "x-api-key", "x-secret", "password-hint", "token")
    assert lines[0].headers == {**server.headers, **dict.fromkeys(hidden, "[hidden]")}
