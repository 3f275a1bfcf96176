"""What is recorded of a stream that was left, whichever way, and the line that is logged of a request."""

from __future__ import annotations

import asyncio
import gc
import logging
import re

import msgspec
import pytest
from scripted_server import COUNTS, FINISH, Dripping, Server, event, play, slow, status, whole
from virtual_clock import now, run_virtually

from minillmlib import (
    AttemptOutcome,
    ChatNode,
    CompletionContext,
    CostInfo,
    GeneratorInfo,
    InvalidParameterError,
    NodeCompletionParameters,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply

CLAUDE = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("sk-ant-0123456789abcdef")
PRICED = CLAUDE.with_token_price(TokenPrice(1, 2))


def claude(*events: dict) -> ScriptedReply:
    return ScriptedReply.events(*(b"data: %b\n\n" % msgspec.json.encode(one) for one in events))


START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "c",
        "content": [],
        "usage": {"input_tokens": 1000, "output_tokens": 1},
    },
}
SAYS = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
ENDS = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}  # fmt: skip
A = event({"content": "a"})


async def by_aclose(stream) -> None:
    await stream.aclose()


async def by_cancelling(stream) -> None:
    await stream.cancel()


async def by_async_with(stream) -> None:
    async with stream:
        pass


async def by_an_interrupt(stream) -> None:
    with pytest.raises(KeyboardInterrupt):
        async with stream:
            raise KeyboardInterrupt


async def by_dropping(handles) -> None:
    handles.clear()
    await asyncio.sleep(0)


async def by_dropping_in_a_thread(handles) -> None:
    await asyncio.to_thread(handles.clear)
    await asyncio.sleep(0)


WAYS = [by_aclose, by_cancelling, by_async_with, by_an_interrupt, by_dropping, by_dropping_in_a_thread]  # fmt: skip


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
@pytest.mark.parametrize("leave", WAYS, ids=lambda leave: leave.__name__)
@pytest.mark.parametrize(
    ("generator", "reply", "reads", "record"),
    [
        (None, ScriptedReply.events(A, A), 1, ("1", "unknown", "0")),
        (None, ScriptedReply.events(A, FINISH, COUNTS), 3, ("1", "$0.000005", "0")),
        (PRICED, claude(START, SAYS), 1, ("msg_1", "unknown (1,000 tokens in, 1 out)", "0.001002")),
        (PRICED, claude(START, SAYS, ENDS), 2, ("msg_1", "$0.001018", "0")),
        (CLAUDE, claude(START, SAYS, ENDS), 2, ("msg_1", "unpriced (1,000 tokens in, 9 out)", "0")),
    ],
)  # fmt: skip
def test_what_came_of_a_stream_that_was_left_is_recorded(leave, generator, reply, reads, record):
    async def slowly(request):
        return Dripping(await play(reply, request), pause=1e6)

    async def main() -> None:
        server = Server([slowly])
        asked = server.generator() if generator is None else generator.with_transport(server)
        settings = NodeCompletionParameters(cost_callback=told.append)
        handles = [ChatNode.root("s").chat_streaming("u", asked, settings)]
        for _ in range(reads):
            await anext(handles[0])
        await leave(handles if leave.__name__.startswith("by_dropping") else handles[0])

    told: list[CostInfo] = []
    run_virtually(main())
    ((attempt,),) = (info.attempts for info in told)
    cost = attempt.cost
    assert attempt.outcome is AttemptOutcome.ABANDONED
    assert (attempt.response_id, str(cost), str(cost.minimum_cost)) == record


# Answers that wait for the first one.


def test_the_others_are_asked_when_the_first_one_has_begun():
    class Noting:
        moments = ()

        async def send(self, request):
            self.moments = (*self.moments, now())
            if b'"stream":true' not in request.body:
                return await play(slow(2, ScriptedReply.text("b")), request)
            return Late(await play(claude(START, SAYS, ENDS), request))

    class Late(Dripping):
        async def read(self):
            await asyncio.sleep(3)
            return await super().read()

    async def main() -> tuple[list[str], float]:
        settings = NodeCompletionParameters(use_cache=True)
        leaf = ChatNode.root("s").add_user("u")
        nodes = await leaf.complete_many(3, CLAUDE.with_transport(server), settings)
        return [node.text for node in nodes], now()

    server = Noting()
    assert run_virtually(main()) == (["a", "b", "b"], 11.0)
    assert server.moments == (0, 6, 6)


# The line of the log.


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (whole("ok"), "answered, status 200, 88 bytes sent, N s, request None"),
        (
            status(400, {"x-request-id": "r-1"}),
            "denied, status 400, 88 bytes sent, N s, request r-1",
        ),
        (ScriptedReply(breaks_off=True), "failed, status 200, 88 bytes sent, N s, request None"),
    ],
)
def test_each_request_is_logged_on_a_line(step, line, caplog):
    async def main() -> None:
        await asyncio.gather(
            ChatNode.root("s").chat("u", Server([step]).generator()), return_exceptions=True
        )

    for level, expected in (
        (logging.DEBUG, [f"POST own.example/v1/chat/completions: {line}"]),
        (logging.INFO, []),
    ):
        caplog.clear()
        caplog.set_level(level, "minillmlib")
        run_virtually(main())
        found = [record.getMessage() for record in caplog.records if record.name == "minillmlib"]
        assert [re.sub(r"[0-9]\.[0-9]{3} s", "N s", text) for text in found] == expected


@pytest.mark.parametrize("is_tracked", [False, True], ids=["alone", "beside a context's"])
def test_a_coroutine_that_no_loop_can_run_is_closed_and_logged(is_tracked, caplog):
    async def tell(*_) -> None:
        """Never runs."""

    async def main() -> list:
        settings = NodeCompletionParameters(cost_callback=tell)
        generator = Server([ScriptedReply.events(A, A)]).generator()
        root = ChatNode.root("s")
        if is_tracked:
            context = CompletionContext(generator, None, tell)
            stream = root.chat_streaming_tracked("u", context, settings)
        else:
            stream = root.chat_streaming("u", generator, settings)
        await anext(stream)
        return [stream]

    handles = run_virtually(main())
    with pytest.warns(ResourceWarning, match="dropped"):
        handles.clear()
    gc.collect()
    logged = [record.getMessage() for record in caplog.records if record.name == "minillmlib"]
    line = "a coroutine of a cost_callback was not run: its event loop has ended"
    assert logged == [line] * (1 + is_tracked)


def test_reports_of_a_context_need_an_event_loop():
    context = CompletionContext(Server([]).generator(), None, print)
    with pytest.raises(InvalidParameterError, match="^no event loop of asyncio runs here"):
        context.aclose().send(None)
