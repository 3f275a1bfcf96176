"""Rows of the fault matrix for the way there and back: connections, heads, framing, statuses."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator
from email.utils import formatdate

from fault_cells import Fault, late, refused, right, unsent, wrong
from fault_plays import answers, bare, cut_short, do, fails, raw, silent
from fault_server import CAN_BE_OVERFULL, FaultExchange, FaultServer, Play, at, nobody, overfull
from fault_wires import CHAT, Wire, encode

from minillmlib import (
    AttemptOutcome,
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    ConnectError,
    LimitExceededError,
    Limits,
    MalformedResponseError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ReadError,
    RedirectError,
    RequestTimeoutError,
    RequestTooLargeError,
    ServerError,
    ServerTimeoutError,
    TlsError,
)

__all__ = ["FAULTS"]

BIG = "u" * 6_000_000  # more than the buffers of a connection take
LOADS = {"prompt": BIG, "ignores": ("Sending a large body",)}
OPEN_LINE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.asynccontextmanager
async def unknown_name(_play: Play) -> AsyncIterator[FaultServer]:
    """A name that no resolver knows."""
    server = FaultServer(_play)
    server.origin = "https://no-such-host.invalid"
    yield server


def after_a_good_one(play: Play) -> Play:
    """Answer the first request as it should be, and plays to the others."""

    async def both(exchange: FaultExchange) -> None:
        await (exchange.good() if exchange.number == 1 else play(exchange))

    return both


async def answer_and_close(exchange: FaultExchange) -> None:
    await exchange.good()
    exchange.close()


def with_one_too_many(status: str, then: str) -> Play:
    """Send one more answer some time after the first."""

    async def play(exchange: FaultExchange) -> None:
        await exchange.good()
        if exchange.number == 1:
            await exchange.silence(0.02)
            body = exchange.wire.completion("what nobody asked for")
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
            await exchange.send(head.encode() + body)
            if then == "close":
                exchange.close()

    return play


async def with_too_much(exchange: FaultExchange) -> None:
    await exchange.good()
    if exchange.number == 1:
        await exchange.send(b'{"more": "than was promised"}\r\n\r\n')


def once(move: str) -> Play:
    """Do it to the second request, and answers the others."""

    async def play(exchange: FaultExchange) -> None:
        await (do(exchange, move) if exchange.number == 2 else exchange.good())

    return play


async def refuse_and_take_the_rest(exchange: FaultExchange) -> None:
    await fails(413)(exchange)
    await exchange.take_rest()


async def refuse_and_take_no_more(exchange: FaultExchange) -> None:
    await fails(413)(exchange)
    await exchange.silence(1.0)
    exchange.close()


async def interim_for_ever(exchange: FaultExchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.1)


def slowly(data: bytes) -> Play:
    """Send one byte each fifth of a second."""
    return raw(*(piece for byte in data for piece in (bytes([byte]), 0.2)))


async def interim_then_good(exchange: FaultExchange) -> None:
    await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    await exchange.good()


async def without_framing(exchange: FaultExchange) -> None:
    """As in HTTP/1.0: the end of the connection is the end of the answer."""
    kind = b"text/event-stream" if exchange.is_stream else b"application/json"
    await exchange.send(b"HTTP/1.0 200 OK\r\nContent-Type: %b\r\n\r\n" % kind)
    exchange.is_chunked = False
    whole = exchange.wire.completion()
    for piece in exchange.wire.events() if exchange.is_stream else (whole,):
        await exchange.chunk(piece)
    exchange.close()


async def with_trailers(exchange: FaultExchange) -> None:
    kind = "text/event-stream" if exchange.is_stream else "application/json"
    await exchange.head(kind=kind)
    whole = exchange.wire.completion()
    for piece in exchange.wire.events() if exchange.is_stream else (whole,):
        await exchange.send(b"%x;name=value\r\n%b\r\n" % (len(piece), piece))
        exchange.note_payload(piece)
    await exchange.send(b"0\r\nX-Checksum: 1\r\n\r\n")
    exchange.is_whole = True


async def without_kind(exchange: FaultExchange) -> None:
    await exchange.head(kind=None)
    whole = exchange.wire.completion()
    for piece in exchange.wire.events() if exchange.is_stream else (whole,):
        await exchange.chunk(piece)
    await exchange.end()


def elsewhere(status: int, *, same_origin: bool) -> Play:
    """Point to a place that would answer, on this very server or at another name of it."""

    async def play(exchange: FaultExchange) -> None:
        if exchange.path.endswith("/elsewhere"):
            return await exchange.good()
        port = exchange.headers["host"].rpartition(":")[2]
        origin = "" if same_origin else f"http://localhost:{port}"
        place = f"Location: {origin}/{exchange.path.split('/')[1]}/elsewhere"
        return await exchange.answer(b"", f"{status} Moved", headers=(place,))

    return play


def cut_in_a_chunk(body: bytes, pause: float = 0.0) -> Play:
    """A chunk that is longer than what comes of it."""

    async def play(exchange: FaultExchange) -> None:
        await exchange.head()
        await exchange.send(b"ffff\r\n" + body)
        await asyncio.sleep(pause)
        exchange.close()

    return play


async def endless_body(exchange: FaultExchange) -> None:
    await exchange.head()
    while True:
        await exchange.chunk(b'{"choices": [' + b" " * 10_000)


def waits(secs: float, outcome: AttemptOutcome | None = None, **more: object) -> dict[str, object]:
    """Return what is right where nothing comes: the clock is another one for a stream."""
    if outcome is not None:
        more = {**more, "outcome": outcome, "cost": "-"}
    more = {"status": None, **more}
    return {
        "expect": late(RequestTimeoutError, secs, "total", **more),
        "streamed": late(RequestTimeoutError, secs, "silence", **more),
        "settings": {"timeout_secs": secs},
    }


CONNECTING = [
    Fault(name="nobody listens", play=silent, place=nobody, expect=unsent(ConnectError)),
    Fault(name="the name is unknown", play=silent, place=unknown_name,
          expect=unsent(ConnectError, says="no-such-host.invalid")),
    Fault(name="https towards a server without it", play=raw(b"HTTP/1.1 400 No\r\n\r\n"),
          place=at(scheme="https"), expect=unsent(TlsError)),
    Fault(name="a TLS handshake without an answer", play=silent, place=at(scheme="https"),
          ignores=("unclosed",),
          **waits(0.4, AttemptOutcome.NOT_SENT)),
    Fault(name="a reset within the TLS handshake", play=raw(then="reset"),
          place=at(scheme="https"), expect=unsent((ConnectError, TlsError))),
    Fault(name="an end within the TLS handshake", play=raw(then="close"),
          place=at(scheme="https"), expect=unsent((ConnectError, TlsError))),
]  # fmt: skip
if CAN_BE_OVERFULL:
    CONNECTING.append(
        Fault(name="no more connections are taken", play=silent, place=overfull,
              **waits(0.4, AttemptOutcome.NOT_SENT))
    )  # fmt: skip

FIRST_OF_TWO = ((AttemptOutcome.FAILED, "U"),)

KEPT = [
    Fault(name="a kept connection was closed meanwhile", play=answer_and_close, is_warm=True,
          expect=right()),
    Fault(name="a kept connection got an answer that nobody asked for", is_warm=True,
          play=with_one_too_many("200 OK", "silence"), expect=right()),
    Fault(name="a kept connection was told that its time is out", is_warm=True,
          play=with_one_too_many("408 Request Timeout", "silence"), expect=right()),
    Fault(name="a kept connection was told that its time is out, and ended", is_warm=True,
          play=with_one_too_many("408 Request Timeout", "close"), expect=right()),
    Fault(name="a kept connection got more than its length", is_warm=True, play=with_too_much,
          expect=right()),
    Fault(name="a kept connection is reset under the next request", play=once("reset"),
          is_warm=True, expect=right(earlier=FIRST_OF_TWO)),
    Fault(name="a kept connection ends under the next request", play=once("close"),
          is_warm=True, expect=right(earlier=FIRST_OF_TWO)),
    Fault(name="a kept connection is reset, and the new one too",
          play=after_a_good_one(raw(then="reset")), is_warm=True,
          expect=wrong(ReadError, status=None, earlier=FIRST_OF_TWO)),
]  # fmt: skip

SENDING = [
    Fault(name="a prompt of megabytes", play=FaultExchange.good, prompt=BIG[:1_500_000], expect=right()),
    Fault(name="the server hangs up without an answer", play=raw(),
          expect=wrong(ReadError, status=None)),
    Fault(name="a reset before the answer", play=raw(then="reset"),
          expect=wrong(ReadError, status=None)),
    Fault(name="a reset while the body is sent", play=raw(0.05, then="reset"), **LOADS,
          place=at(reads_body=False), expect=wrong(ReadError, status=None)),
    Fault(name="an end while the body is sent", play=raw(0.05, then="close"), **LOADS,
          place=at(reads_body=False), expect=wrong(ReadError, status=None)),
    Fault(name="413 before the body was taken, which then is", play=refuse_and_take_the_rest,
          **LOADS, place=at(reads_body=False), expect=refused(RequestTooLargeError, 413)),
    Fault(name="413 before the body was taken, which never is", play=refuse_and_take_no_more,
          **LOADS, place=at(reads_body=False), expect=refused(RequestTooLargeError, 413),
          over_httpx2=wrong(ReadError, status=None)),
]  # fmt: skip

WAITING = [
    Fault(name="no answer begins", play=silent, **waits(0.4)),
    Fault(name="no answer begins before the deadline", play=silent,
          settings={"deadline_secs": 0.4}, expect=late(RequestTimeoutError, 0.4, "deadline",
                                                       status=None)),
    Fault(name="the head comes byte by byte", play=slowly(OPEN_LINE * 9), **waits(0.5)),
    Fault(name="interim answers for ever", play=interim_for_ever, **waits(0.5)),
    Fault(name="the body comes byte by byte", modes=("whole",),
          play=raw(OPEN_LINE + b"Content-Length: 999\r\n\r\n", *[b" ", 0.2] * 99),
          **waits(0.5, status=200)),
    Fault(name="the body of an answer in one piece comes byte by byte", modes=("streamed",),
          play=raw(OPEN_LINE + b"Content-Length: 999\r\n\r\n", *[b" ", 0.2] * 99),
          **waits(0.5, status=200)),
    Fault(name="the body stops half way", modes=("whole",),
          play=cut_short("200 OK", lambda wire: wire.completion()[:40], 999, "silence"),
          **waits(0.4, status=200)),
    Fault(name="the body does not end before the deadline", settings={"deadline_secs": 0.5},
          play=raw(OPEN_LINE + b"Content-Length: 999\r\n\r\n", *[b" ", 0.2] * 99),
          expect=late(RequestTimeoutError, 0.5, "deadline")),
]  # fmt: skip

HEADERS = Limits(header_bytes=2000)
EITHER = (ProtocolError, LimitExceededError)

NOT_HTTP = [
    Fault(name=name, play=raw(data), expect=wrong(ProtocolError, status=None))
    for name, data in (
        ("a status line of nonsense", b"not http at all\r\n\r\n"),
        ("a status that is no number", b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
        ("an alert of TLS", b"\x15\x03\x03\x00\x02\x02\x46"),
        ("a length that is no number", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
        ("a header without a colon", OPEN_LINE + b"no colon\r\nContent-Length: 2\r\n\r\n{}"),
    )
] + [
    # An HTTP library may wait for more of a head, and then find that the connection has ended.
    Fault(name="the greeting of another protocol", play=raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
          expect=wrong((ProtocolError, ReadError), status=None)),
    Fault(name="a header of a megabyte", expect=wrong(EITHER, status=None),
          play=raw(OPEN_LINE + b"X-Big: " + b"x" * 1_000_000 + b"\r\n\r\n{}")),
    Fault(name="thousands of headers", expect=wrong(EITHER, status=None),
          play=raw(OPEN_LINE + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)) + b"\r\n{}")),
    Fault(name="more headers than the limits let in", limits=HEADERS,
          play=answers(Wire.completion, headers=tuple(f"X-{n}: {'x' * 300}" for n in range(10))),
          expect=wrong(LimitExceededError, says="header_bytes")),
    # aiohttp gives up at the header, and does not tell of the status that came before it.
    Fault(name="a header longer than the limits let in", limits=HEADERS,
          play=answers(Wire.completion, headers=("X-Big: " + "x" * 3000,)),
          expect=wrong(LimitExceededError, status=None, says="header_bytes"),
          over_httpx2=wrong(LimitExceededError, says="header_bytes")),
]  # fmt: skip

FRAMES = [
    Fault(name="interim answers, then the answer", play=interim_then_good, expect=right()),
    Fault(name="the end of the connection ends the answer", play=without_framing, expect=right()),
    Fault(name="chunks with extensions and trailers", play=with_trailers, expect=right()),
    Fault(name="an answer of no declared kind", play=without_kind, expect=right()),
    Fault(name="a body shorter than its length", modes=("whole",),
          play=cut_short("200 OK", lambda wire: wire.completion(), 9999),
          expect=wrong(ReadError)),
    Fault(name="an answer in one piece that is shorter than its length", modes=("streamed",),
          play=cut_short("200 OK", lambda wire: wire.completion(), 9999),
          expect=wrong(ReadError)),
    Fault(name="a body that ends within a chunk", play=cut_in_a_chunk(b'{"choices": ['),
          expect=wrong(ReadError)),
    Fault(name="a chunk whose size is no number", settings={"timeout_secs": 0.4},
          play=raw(OPEN_LINE + b"Transfer-Encoding: chunked\r\n\r\n", 0.05, b"zz\r\n{}\r\n"),
          expect=wrong((ReadError, ProtocolError))),
    Fault(name="a chunk that does not end where it says", settings={"timeout_secs": 0.4},
          play=raw(OPEN_LINE + b"Transfer-Encoding: chunked\r\n\r\n", 0.05, b"2\r\n{} 0\r\n\r\n"),
          expect=wrong((ReadError, ProtocolError))),
    Fault(name="an answer that is compressed though it was asked not to be",
          play=answers(lambda wire: gzip.compress(wire.completion()),
                       headers=("Content-Encoding: gzip",)),
          expect=wrong(MalformedResponseError, says="compress")),
    Fault(name="a bomb of compressed zeros",
          play=answers(gzip.compress(bytes(30_000_000)), headers=("Content-Encoding: gzip",)),
          expect=wrong(MalformedResponseError, says="compress")),
    Fault(name="a compressed answer that does not say so",
          play=answers(lambda wire: gzip.compress(wire.completion())),
          expect=wrong(MalformedResponseError)),
    Fault(name="a refusal that is compressed",
          play=answers(lambda wire: gzip.compress(encode(wire.failure(429))), "429 No",
                       headers=("Content-Encoding: gzip", "Retry-After: 7")),
          expect=refused(RateLimitError, 429, retry_after=(7, 7))),
    Fault(name="a body over the limit", limits=Limits(body_bytes=2000),
          play=answers(lambda wire: wire.completion("x" * 3000)),
          expect=wrong(LimitExceededError, says="body_bytes")),
    Fault(name="a body without end", limits=Limits(body_bytes=100_000), play=endless_body,
          expect=wrong(LimitExceededError, says="body_bytes")),
    Fault(name="204", play=bare("204 No Content"),
          expect=wrong(MalformedResponseError, status=204)),
    Fault(name="205 without a body", play=answers(b"", "205 Reset Content"),
          expect=wrong(MalformedResponseError, status=205)),
    Fault(name="101, a change of protocol",
          expect=wrong((MalformedResponseError, ProtocolError), status=(101, None)),
          play=raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                   b"Upgrade: websocket\r\n\r\n")),
]  # fmt: skip

REDIRECTS = [
    Fault(name=f"{status} to {'the same' if same_origin else 'another'} origin",
          play=elsewhere(status, same_origin=same_origin),
          expect=refused(RedirectError, status, says="/elsewhere"))
    for status in (301, 302, 303, 307, 308)
    for same_origin in (True, False)
] + [
    Fault(name="304", play=bare("304 Not Modified"), expect=refused(RedirectError, 304)),
]  # fmt: skip

STATUSES = [
    Fault(name=f"{status} with the wire's own error", play=fails(status),
          expect=refused(error, status))
    for status, error in (
        (400, BadRequestError), (401, AuthenticationError), (402, BillingError),
        (403, PermissionDeniedError), (404, NotFoundError), (409, ConflictError),
        (413, RequestTooLargeError), (422, BadRequestError), (429, RateLimitError),
        (503, OverloadedError), (529, OverloadedError),
    )
] + [
    Fault(name=f"{status} with the wire's own error", play=fails(status),
          expect=wrong(error, status=status))
    for status, error in ((408, ServerTimeoutError), (500, ServerError))
] + [
    Fault(name="429 for a quota that is used up",
          play=fails(429, "Retry-After: 7", message="Your credit balance is too low."),
          expect=refused(BillingError, 429, retry_after=(7, 7))),
    Fault(name="429 with the code of a used up quota", providers=CHAT,
          play=answers(encode({"error": {
              "message": "You exceeded your current quota.", "type": "insufficient_quota",
              "param": None, "code": "insufficient_quota"}}), "429 No"),
          expect=refused(BillingError, 429)),
    Fault(name="a refusal that tells of tokens", expect=refused(OverloadedError, 529, cost="R"),
          play=answers(lambda wire: encode({**wire.failure(529), "usage": wire.usage()}),
                       "529 Overloaded")),
    Fault(name="a refusal whose body is cut", play=cut_short("401 No", b'{"error": {"mess', 500),
          expect=refused(AuthenticationError, 401)),
    Fault(name="a refusal whose body stops half way", settings={"timeout_secs": 0.4},
          play=cut_short("401 No", b'{"error": {"mess', 500, "silence"),
          expect=refused(AuthenticationError, 401, secs=0.4)),
    Fault(name="a failure whose body is cut", play=cut_short("500 No", b'{"error": {"mess', 500),
          expect=wrong(ServerError, status=500)),
    Fault(name="a refusal without a body", play=answers(b"", "403 Forbidden"),
          expect=refused(PermissionDeniedError, 403)),
    Fault(name="a refusal that shows the key",
          play=fails(401, message="Incorrect API key provided: sk-fault-canary."),
          expect=refused(AuthenticationError, 401, says="Incorrect API key")),
]  # fmt: skip


def in_half_a_minute(_exchange: FaultExchange) -> str:
    return formatdate(time.time() + 30, usegmt=True)


async def ask_to_wait_until(exchange: FaultExchange) -> None:
    await fails(429, f"Retry-After: {in_half_a_minute(exchange)}")(exchange)


HINTS = [
    Fault(name=f"429 with {header}", play=fails(429, header),
          expect=refused(RateLimitError, 429, retry_after=wanted))
    for header, wanted in (
        ("Retry-After: 7", (7, 7)), ("Retry-After: 86400", (86400, 86400)),
        ("retry-after-ms: 1500", (1.5, 1.5)), ("Retry-After: 1e999", None),
        ("Retry-After: -5", None), ("Retry-After: 0", None), ("Retry-After: nan", None),
        ("Retry-After: soon", None), ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", None),
    )
] + [
    Fault(name="429 with a date in Retry-After", play=ask_to_wait_until,
          expect=refused(RateLimitError, 429, retry_after=(26, 31))),
]  # fmt: skip

FAULTS = [
    *CONNECTING, *KEPT, *SENDING, *WAITING, *NOT_HTTP, *FRAMES, *REDIRECTS, *STATUSES, *HINTS,
]  # fmt: skip
