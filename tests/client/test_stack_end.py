"""Calls at the end of Python's stack: a RecursionError stays one, and nothing is left half done."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from concurrent.futures import Future

import pytest
from answer_pieces import TEXT, begun, generator_at, whole, word
from short_answers import said, scripted, streamed
from threaded_server import ThreadedServer

from minillmlib import (
    Budget,
    ChatNode,
    CompletionParameters,
    MiniLLMError,
    NodeCompletionParameters,
    TokenPrice,
    run,
)


@pytest.fixture(autouse=True)
def no_hook_of_pytest(monkeypatch):
    """What aiohttp and asyncio lose at the end of the stack; pytest's hook has no stack there."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


async def collect(root, generator, settings):
    return await root.chat_streaming("u", generator, settings).collect()


async def chat(root, generator, settings):
    return await root.chat("u", generator, settings)


async def at_depth(frames: int, call, *args):
    return await (at_depth(frames - 1, call, *args) if frames else call(*args))


def frames_left() -> int:
    depth, frame = 0, sys._getframe()
    while frame := frame.f_back:
        depth += 1
    return sys.getrecursionlimit() - depth


async def outcomes(call, make_generator, settings, step: int, seen: list[str]) -> None:
    """Add the outcome of the call at each of the last depths of the stack."""
    for depth in range(frames_left() - 150, frames_left() + 1, step):
        try:
            node = await at_depth(depth, call, ChatNode.root("s"), make_generator(), settings)
            seen.append(node.text)
        except (RecursionError, MiniLLMError) as error:
            kind = type(error).__name__  # from Python 3.13 on, there may be stack left to explain
            seen.append("RecursionError" if "RecursionError" in str(error) else kind)


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(("call", "reply"), [(chat, said("ok")), (collect, streamed("ok"))])
def test_a_call_at_the_end_of_the_stack_works_or_raises_recursion_error(call, reply):
    budget = Budget(1000)
    settings = NodeCompletionParameters(
        params=CompletionParameters(max_tokens=9), budget=budget, retry=0
    )
    price = TokenPrice("1", "1")
    seen: list[str] = []
    work = outcomes(call, lambda: scripted(reply).with_token_price(price), settings, 1, seen)
    asyncio.run(work)
    assert set(seen) == {"ok", "RecursionError"}
    assert budget.reserved == 0


def in_thread(work, seen: object = "", secs: float = 60):
    """The result of the work. The loop itself may break at the end of the stack, and never end."""
    future: Future = Future()

    def fill():
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the other thread
            future.set_exception(error)

    threading.Thread(target=fill, daemon=True).start()
    try:
        return future.result(secs)
    except TimeoutError:
        raise AssertionError(f"it did not end within {secs} s {seen}") from None


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what aiohttp itself loses there
def test_the_engine_does_not_take_the_end_of_the_stack_for_that_of_the_loop():
    with ThreadedServer(whole("openai")) as server:
        settings = NodeCompletionParameters(retry=0, timeout_secs=0.5)
        generator = generator_at(server, "openai")
        run(ChatNode.root("s").chat("u", generator))  # imports the engine
        seen: list[str] = []
        work = outcomes(chat, lambda: generator, settings, 2, seen)
        in_thread(lambda: asyncio.run(work), seen)
        gc.collect()
    assert {TEXT, "RecursionError"} <= set(seen)
    assert not {"ReadError", "ConnectError"} & set(seen)


async def drop_at_each_depth(generator) -> list[RecursionError]:
    """The errors of streams that met the end of the stack when they were dropped in the middle."""
    # All begin before one is dropped: after that, asyncio may be unable to connect.
    streams = [ChatNode.root("s").chat_streaming("u", generator) for _ in range(30)]
    for stream in streams:
        await anext(stream)
    errors = []  # with their frames, which hold the connections
    for height, stream in enumerate(streams):
        try:
            await at_depth(frames_left() - height, stream.aclose)
        except RecursionError as error:
            errors.append(error)
    return errors


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what asyncio could not close there
def test_a_loop_ends_also_if_a_connection_could_not_be_closed_at_the_end_of_the_stack():
    with ThreadedServer((*begun(), word("openai", "one "))) as server:
        generator = generator_at(server, "openai")
        assert in_thread(lambda: asyncio.run(drop_at_each_depth(generator)))
        gc.collect()
