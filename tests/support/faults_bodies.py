"""Rows of the fault matrix for a whole body that is no answer, or not quite one.

Where a stream was asked for, the same bodies are an answer in one piece.
"""

from __future__ import annotations

from typing import Any

from fault_cells import Fault, refused, right, wrong
from fault_plays import answers, completes
from fault_wires import CHAT, RESPONSES, TEXT, Counts, Wire, encode

from minillmlib import (
    AttemptOutcome,
    EmptyResponseError,
    MalformedResponseError,
    NoJsonFoundError,
    OverloadedError,
    RateLimitError,
    ServerError,
    ServerTimeoutError,
)

__all__ = ["FAULTS"]

HTML = "text/html; charset=utf-8"


def page(title: str) -> bytes:
    """The bodies of gateways."""
    head = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head>"
    return f"{head}<body><center><h1>{title}</h1></center></body></html>".encode()


PAGES = [
    Fault(name=f"a gateway's page with {status}",
          play=answers(page(title), f"{status} {title}", HTML), expect=expect)
    for status, title, expect in (
        (200, "Just a moment", wrong(MalformedResponseError, says="Just a moment")),
        (502, "Bad Gateway", wrong(ServerError, status=502, says="Bad Gateway")),
        (503, "Unavailable", refused(OverloadedError, 503, says="Unavailable")),
        (504, "Gateway Time-out", wrong(ServerTimeoutError, status=504, says="Time-out")),
        (524, "A timeout occurred", wrong(ServerTimeoutError, status=524, says="timeout")),
    )
]  # fmt: skip


def failure(status: int, **more: Any) -> Any:
    """An error that the wire would send with this status, in a body of its own."""
    return lambda wire: encode({**wire.failure(status), **{
        name: value(wire) for name, value in more.items()
    }})  # fmt: skip


def failed_choice(wire: Wire) -> bytes:
    body = wire.message("Partial outp", "error")
    body["choices"][0]["error"] = {"code": 502, "message": "Provider disconnected"}
    return encode(body)


def spoiled(name: str, value: Any) -> Any:
    """An answer in which one of its fields holds something else."""
    return lambda wire: encode({**wire.message(), name: value})


def failed_response(wire: Wire) -> bytes:
    return encode(wire.message() | {"status": "failed"} | wire.failure(500))


INSIDE_A_SUCCESS = [
    Fault(name="an error with status 200", play=answers(failure(500)), expect=wrong(ServerError)),
    Fault(name="a rate limit with status 200", play=answers(failure(429)),
          expect=wrong(RateLimitError)),
    Fault(name="an overload with status 200", play=answers(failure(529)),
          expect=wrong(OverloadedError)),
    Fault(name="an error with status 200 that tells of tokens",
          play=answers(failure(500, usage=lambda wire: wire.usage())),
          expect=wrong(ServerError, "R")),
    Fault(name="an answer that failed", providers=RESPONSES, play=answers(failed_response),
          expect=wrong(ServerError, "R")),
    Fault(name="an answer that is in the background", providers=RESPONSES,
          play=answers(spoiled("status", "queued")), expect=wrong(MalformedResponseError, "R")),
    Fault(name="an error in a choice", play=answers(failed_choice), providers=CHAT,
          expect=wrong(ServerError, "R", "Partial outp")),
    Fault(name="a choice that ends with an error", providers=CHAT,
          play=answers(lambda wire: wire.completion("Partial outp", "error")),
          expect=wrong(ServerError, "R", "Partial outp")),
]  # fmt: skip


def without_choices(wire: Wire) -> bytes:
    body = wire.message()
    body.pop(next(key for key in ("choices", "content", "output") if key in body))
    return encode(body)


NO_ANSWER = [
    Fault(name=f"a body that is {name}", play=answers(body), expect=wrong(MalformedResponseError))
    for name, body in (
        ("empty", b""), ("blank", b" \r\n "), ("null", b"null"), ("an empty list", b"[]"),
        ("an empty object", b"{}"), ("a text", b'"hello"'), ("a number", b"3"), ("true", b"true"),
        ("not JSON", b"Low water at 06:12."), ("in UTF-16", '{"choices": []}'.encode("utf-16")),
        ("100,000 brackets", b"[" * 100_000),
        ("nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000),
        ("nested objects", b'{"choices":' * 50_000 + b"1" + b"}" * 50_000),
    )
] + [
    Fault(name="JSON that is cut though the body is whole",
          play=answers(lambda wire: wire.completion()[:-30]), expect=wrong(MalformedResponseError)),
    Fault(name="a number of 5,000 digits",
          play=answers(lambda wire: wire.completion().replace(b'"m"', b"1" * 5000)),
          expect=wrong(MalformedResponseError)),
    Fault(name="depth in a field that nobody reads",
          play=answers(lambda wire: wire.completion()[:-1]
                       + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
          expect=wrong(MalformedResponseError)),
    Fault(name="no answer in its frame", play=answers(lambda wire: wire.without_content(None)),
          expect=wrong(MalformedResponseError)),
    Fault(name="no answer in its frame, but counts",
          play=answers(lambda wire: wire.without_content()),
          expect=wrong(MalformedResponseError, "R")),
    Fault(name="no choices or content at all", play=answers(without_choices),
          expect=wrong(MalformedResponseError, "R")),
    *(Fault(name=f"choices that are {value!r}", play=answers(spoiled("choices", value)),
            providers=CHAT, expect=wrong(MalformedResponseError, "R"))
      for value in (None, 5, "ok", {}, [None], [{"index": 0}], [{"message": None}])),
    *(Fault(name=f"output that is {value!r}", play=answers(spoiled("output", value)),
            providers=RESPONSES, expect=wrong(MalformedResponseError, "R"))
      for value in (None, 5, "ok", {}, [None], [{"id": "x"}], [{"type": 3}])),
    *(Fault(name=f"content that is {value!r}", play=answers(spoiled("content", value)),
            providers=("anthropic",), expect=wrong(MalformedResponseError, "R"))
      for value in (None, 5, "ok", {}, [None], [{"type": "text", "text": 5}], [{"text": "ok"}])),
    Fault(name="a stream though a whole answer was asked", modes=("whole",),
          play=answers(lambda wire: b"".join(wire.events()), kind="text/event-stream"),
          expect=right()),
]  # fmt: skip


def said(text: str, escape: bytes) -> Any:
    """An answer with these bytes in its text."""
    return answers(lambda wire: wire.completion(text + "MARK").replace(b"MARK", escape))


TEXTS = [
    Fault(name="an answer in one piece", modes=("streamed",),
          play=answers(lambda wire: wire.completion()), expect=right()),
    Fault(name="text that is not UTF-8", play=said("Low ", b"\xff\xfe tide"),
          expect=right("Low \ufffd\ufffd tide")),
    Fault(name="half a surrogate pair", play=said("Low ", b"\\ud800 tide"),
          expect=right("Low \ufffd tide")),
    Fault(name="separators of lines in the text",
          play=said("Low", "\u2028\u2029\x85 tide".encode()),
          expect=right("Low\u2028\u2029\x85 tide")),
    Fault(name="control characters in the text", play=said("Low", b"\\u0000\\u001b[31m tide"),
          expect=right("Low\x00\x1b[31m tide")),
    Fault(name="blanks around the JSON",
          play=answers(lambda wire: b"\n\n  " + wire.completion() + b"\n\n"), expect=right()),
    Fault(name="fields that nobody knows",
          play=answers(lambda wire: encode({**wire.message(), "x": [{"y": 1e300}], "": None})),
          expect=right()),
    Fault(name="an empty text", play=answers(lambda wire: wire.completion("")), expect=right("")),
    Fault(name="an empty text that the call refuses",
          play=answers(lambda wire: wire.completion("")),
          settings={"crash_on_empty_response": True},
          expect=wrong(EmptyResponseError, "R", outcome=AttemptOutcome.REJECTED)),
    Fault(name="a text without the JSON that the call wants",
          play=answers(lambda wire: wire.completion()), settings={"crash_on_refusal": True},
          expect=wrong(NoJsonFoundError, "R", TEXT, outcome=AttemptOutcome.REJECTED)),
]  # fmt: skip


def broken(_info: object) -> None:
    raise ValueError("the caller's own")


def not_a_number(wire: Wire) -> Any:
    return wire.odd_usage(float("nan"))


def more_cached_than_all(wire: Wire) -> Any:
    return wire.usage(Counts(uncached=-36, read=1536))


COUNTED = [
    Fault(name=f"counts that are {name}", play=completes(usage), expect=right(cost="U"))
    for name, usage in (
        ("missing", lambda wire: None),
        ("NaN", not_a_number),
        ("a list", lambda wire: [wire.usage()]),
        ("a text", lambda wire: "many"),
        *((f"{count!r}", lambda wire, count=count: wire.odd_usage(count))
          for count in (-5, "409", 1e30, 10**30, 2**63, 40.5, True, None, [409])),
    )
] + [
    Fault(name="more cached tokens than all", play=completes(more_cached_than_all),
          expect=right(cost="U")),
    Fault(name="a callback for the cost that fails", settings={"cost_callback": broken},
          play=completes(lambda wire: wire.usage()), expect=right()),
]  # fmt: skip

FAULTS = [*PAGES, *INSIDE_A_SUCCESS, *NO_ANSWER, *TEXTS, *COUNTED]
