"""How long a stream is waited for after its last words, and what counts as its end."""

from __future__ import annotations

import asyncio

import pytest
from scripted_server import COUNTS, DONE, FINISH, Server, event, tried
from virtual_clock import now, run_virtually

from minillmlib import (
    ChatNode,
    GeneratorInfo,
    Limits,
    MiniLLMError,
    NodeCompletionParameters,
    ReadError,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply

OWN = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_token_price(TokenPrice(1, 2))
HANG = 1e6
A, B, FINAL = event({"content": "a"}), event({"content": "b"}), event({"content": "c"}, "stop")
EMPTY = event()
LATE_COUNTS = (
    b'data: {"id": "1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n'
)


class Timed:
    """A transport and its response: each piece comes after some seconds; an error is raised."""

    def __init__(self, pieces: list) -> None:
        self.pieces = pieces
        self.status, self.headers = 200, {"content-type": "text/event-stream"}
        self.is_closed = False

    async def send(self, _request):
        return self

    async def read(self) -> bytes:
        secs, piece = self.pieces.pop(0) if self.pieces else (0, b"")
        await asyncio.sleep(secs)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.is_closed = True


def read(pieces: list, **settings) -> tuple[str, float, str]:
    """The text, the seconds until the stream was over, and the cost or the error."""
    limits = settings.pop("limits", Limits())
    params = NodeCompletionParameters(retry=0, **settings)
    timed = Timed(list(pieces))

    async def main() -> tuple[str, float, str]:
        text = ""
        generator = OWN.with_transport(timed).replace(limits=limits)
        stream = ChatNode.root("s").chat_streaming("u", generator, params)
        try:
            async for chunk in stream:
                text += chunk.delta
        except MiniLLMError as error:
            assert error.partial == text
            return text, now(), type(error).__name__
        return text, now(), str(stream.response.cost)

    found = run_virtually(main())
    assert timed.is_closed
    return found


PAID, UNKNOWN, CUT = "$0.000005", "unknown", "IncompleteStreamError"
START = [(0, A), (0, B)]
PLAIN = {"cost_tracking": False}


@pytest.mark.parametrize(
    ("pieces", "settings", "expected"),
    [
        # Nothing comes after the finish reason.
        ([*START, (0, FINISH)], {}, ("ab", 0, UNKNOWN)),
        ([*START, (0, FINISH), (HANG, b"")], {}, ("ab", 2.0, UNKNOWN)),
        ([*START, (0, FINISH), (HANG, b"")], PLAIN, ("ab", 0.25, UNKNOWN)),
        ([*START, (0, FINISH), (HANG, b"")], {"progress_timeout_secs": 1}, ("ab", 1.0, UNKNOWN)),
        ([*START, (0, FINISH), (HANG, b"")], {"progress_timeout_secs": 3}, ("ab", 2.0, UNKNOWN)),
        ([*START, (0, FINISH), (0, ReadError("x"))], {}, ("ab", 0, UNKNOWN)),
        ([*START, (0, FINAL), (HANG, b"")], {}, ("abc", 2.0, UNKNOWN)),
        # The counts come in time, or too late.
        ([*START, (0, FINISH), (1.9, COUNTS), (HANG, b"")], {}, ("ab", 2.0, PAID)),
        ([*START, (0, FINISH), (2.1, COUNTS)], {}, ("ab", 2.0, UNKNOWN)),
        ([*START, (0, FINISH), (1.5, EMPTY), (0.4, COUNTS)], {}, ("ab", 1.9, PAID)),
        ([*START, (0, FINISH), (1.5, EMPTY), (0.6, COUNTS)], {}, ("ab", 2.0, UNKNOWN)),
        ([*START, (0, FINISH), (0.2, LATE_COUNTS)], PLAIN, ("ab", 0.2, PAID)),
        ([*START, (0, FINISH), (0.3, LATE_COUNTS)], PLAIN, ("ab", 0.25, UNKNOWN)),
        ([*START, (5, FINISH), (1.9, COUNTS), (0, DONE)], {}, ("ab", 6.9, PAID)),
        # Each chunk may have the reason, of which the last one counts.
        ([(0, FINAL), (1.5, FINAL), (1.5, COUNTS)], {}, ("cc", 3.0, PAID)),
        ([(0, FINAL), (1.5, FINAL), (2.1, COUNTS)], {}, ("cc", 3.6, PAID)),
        ([(0, FINAL), (1.5, FINAL)], PLAIN, ("cc", 1.5, UNKNOWN)),
        ([(0, FINAL), (HANG, b"")], PLAIN, ("c", 2.0, UNKNOWN)),
        # More words prove that the model had not finished.
        ([*START, (0, FINISH), (0.2, A), (5, FINISH), (0, COUNTS)], {}, ("aba", 5.2, PAID)),
        # The connection is given so much time to end after the end marker.
        ([*START, (0, FINISH), (0, COUNTS), (0, DONE)], {}, ("ab", 0, PAID)),
        ([*START, (0, FINISH), (0, COUNTS), (0, DONE), (0.2, b"")], {}, ("ab", 0.2, PAID)),
        ([*START, (0, FINISH), (0, COUNTS), (0, DONE), (HANG, b"")], {}, ("ab", 0.25, PAID)),
        # Without a finish reason it is cut, late or broken.
        (START, {}, ("ab", 0, CUT)),
        ([*START, (0, COUNTS)], {}, ("ab", 0, CUT)),
        ([*START, (HANG, b"")], {"progress_timeout_secs": 7}, ("ab", 7.0, "RequestTimeoutError")),
        ([*START, (1, ReadError("x"))], {}, ("ab", 1.0, "ReadError")),
    ],
)  # fmt: skip
def test_a_stream_ends_so_long_after_its_last_words(pieces, settings, expected):
    assert read(pieces, **settings) == expected


def test_what_comes_beyond_the_limits_after_the_finish_reason_is_left():
    limits = Limits(event_bytes=200)
    pieces = [*START, (0, FINISH), (0, b"data: " + b" " * 300 + b"\n\n")]
    assert read(pieces, limits=limits) == ("ab", 0, UNKNOWN)
    assert read([*START, *pieces[-1:]], limits=limits) == ("ab", 0, "LimitExceededError")


def test_the_memory_of_a_stream_is_limited_up_to_its_last_chunk():
    words = event({"content": "a" * 1000})
    pieces = [(0, words), (0, words), (0, FINISH), (0, DONE)]
    assert read(pieces, limits=Limits(stream_bytes=20_000))[1:] == (0, UNKNOWN)
    last = (0, b"".join([words] * 9) + event({"content": "c"}, "stop") + DONE)
    assert read([last], limits=Limits(stream_bytes=20_000)) == ("a" * 9000 + "c", 0, UNKNOWN)
    found = read([last], limits=Limits(stream_bytes=9_000))
    assert found[1:] == (0, "LimitExceededError")


@pytest.mark.parametrize(
    ("reply", "streamed", "attempts"),
    [
        (b"data: {\n\n", True, 2),
        (b'data: {"choices": 7}\n\n', True, 2),
        (event({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}), True, 2),
        (b"{", False, 1),
        (b'{"choices": 7}', False, 1),
    ],
)
def test_a_broken_event_is_asked_for_again_and_a_broken_body_is_not(reply, streamed, attempts):
    kind = "text/event-stream" if streamed else "application/json"
    broken = ScriptedReply(pieces=(reply,), headers={"content-type": kind})
    server = Server([broken] * 2)
    settings = NodeCompletionParameters(retry=1, back_off_time=0)
    assert isinstance(run_virtually(tried(server, settings, streamed=streamed)), MiniLLMError)
    assert len(server.requests) == attempts
