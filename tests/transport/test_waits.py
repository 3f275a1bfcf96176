"""The waits of a stream: each is bounded anew, with a timer that all of a loop share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest
from virtual_clock import VirtualClockLoop, now

from minillmlib import ChatNode, GeneratorInfo, NodeCompletionParameters, RequestTimeoutError

WORD = b'data: {"choices":[{"index":0,"delta":{"content":"w"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Loop(VirtualClockLoop):
    """Keeps every timer that was set."""

    def __init__(self):
        super().__init__()
        self.timers: list[asyncio.TimerHandle] = []

    def call_at(self, *args, **kwargs):
        timer = super().call_at(*args, **kwargs)
        self.timers.append(timer)
        return timer

    def running_timers(self) -> list[asyncio.TimerHandle]:
        return [one for one in self.timers if not one.cancelled() and one.when() > self.time()]


class Slow:
    """A transport of the user's own: each piece comes after so many seconds, None for never."""

    def __init__(self, *pieces: tuple[float | None, bytes]) -> None:
        self.status = 200
        self.headers = {"content-type": "text/event-stream"}
        self.pieces = iter(pieces)
        self.silence: asyncio.Future[bytes] | None = None
        self.is_closed = False

    async def send(self, _request) -> Slow:
        return self

    async def read(self) -> bytes:
        secs, piece = next(self.pieces, (0, b""))
        if secs is None:
            self.silence = asyncio.get_running_loop().create_future()
            return await self.silence
        await arrival(secs)
        return piece

    def close(self) -> None:
        self.is_closed = True
        if self.silence is not None and not self.silence.done():
            self.silence.set_result(b"")


async def arrival(secs: float) -> None:
    """A wait whose timer is not one of the library's."""
    came = asyncio.get_running_loop().create_future()
    VirtualClockLoop.call_at(asyncio.get_running_loop(), now() + secs, came.set_result, None)
    await came


def in_loop(main: Callable[[Loop], Awaitable[None]]) -> None:
    complaints = []
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _loop, context: complaints.append(context))
        runner.run(main(loop))
    assert complaints == []


def stream_of(transport: Slow, **settings: float):
    info = GeneratorInfo.custom("slow", "https://slow.example/v1", "m").with_transport(transport)
    params = NodeCompletionParameters(retry=0, **settings)
    return ChatNode.root("s").chat_streaming("u", info, params)


def words(*secs: float) -> Iterable[tuple[float, bytes]]:
    return ((each, WORD) for each in secs)


def test_hundreds_of_waits_share_one_timer():
    async def main(loop: Loop) -> None:
        async with stream_of(Slow(*words(*[0.1] * 300), (0.1, END))) as stream:
            assert "".join([chunk.delta async for chunk in stream]) == "w" * 300
        assert len(loop.timers) < 5
        assert len(loop.running_timers()) <= 1

    in_loop(main)


def test_each_wait_has_all_of_its_time_whenever_the_timer_was_set():
    async def main(_loop: Loop) -> None:
        async with stream_of(Slow(*words(6, 9, 1, 9, 9), (None, b"")), timeout_secs=10) as stream:
            for _ in range(5):
                await anext(stream)
            assert now() == 34
            with pytest.raises(RequestTimeoutError, match="within 10 s") as caught:
                await anext(stream)
            assert (now(), caught.value.clock) == (44, "silence")

    in_loop(main)


def test_a_bound_that_is_nearer_than_the_timer_is_kept():
    async def main(_loop: Loop) -> None:
        slow = Slow(*words(1), (1, END.partition(b"\n\n")[0] + b"\n\n"), (None, b""))
        async with stream_of(slow, timeout_secs=100) as stream:
            assert "".join([chunk.delta async for chunk in stream]) == "w"
        assert now() == 4  # the counts are awaited for two seconds

    in_loop(main)


def test_the_deadline_ends_a_wait_that_has_time_left():
    async def main(_loop: Loop) -> None:
        slow = Slow(*words(4, 4), (None, b""))
        with pytest.raises(RequestTimeoutError, match="within 10 s") as caught:
            async for _ in stream_of(slow, timeout_secs=7, deadline_secs=10):
                pass
        assert (now(), caught.value.clock) == (10, "deadline")
        assert slow.is_closed

    in_loop(main)


def test_a_reader_that_blocks_the_loop_for_longer_than_a_bound_loses_nothing():
    async def main(loop: Loop) -> None:
        async with stream_of(Slow(*words(1, 1), (1, END)), timeout_secs=10) as stream:
            async for _ in stream:
                loop.be_busy(60)
        assert stream.response.content == "ww"

    in_loop(main)


def test_a_reader_that_waits_for_longer_than_a_bound_loses_nothing():
    async def main(loop: Loop) -> None:
        async with stream_of(Slow(*words(1, 1), (1, END)), timeout_secs=10) as stream:
            async for _ in stream:
                await arrival(60)
        assert stream.response.content == "ww"
        assert len(loop.running_timers()) <= 1

    in_loop(main)


def test_without_a_bound_a_wait_takes_as_long_as_it_takes():
    async def main(loop: Loop) -> None:
        async with stream_of(Slow(*words(5000), (5000, END)), timeout_secs=0) as stream:
            assert "".join([chunk.delta async for chunk in stream]) == "w"
        assert len(loop.running_timers()) <= 1

    in_loop(main)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_cancellation_in_the_moment_of_a_time_out_is_no_time_out(is_first):
    async def main(loop: Loop) -> None:
        async def read() -> None:
            async for _ in stream_of(Slow((None, b"")), timeout_secs=10):
                pass

        task = asyncio.ensure_future(read())
        if is_first:
            loop.call_later(10, task.cancel)
        await asyncio.sleep(1)
        if not is_first:
            loop.call_at(10, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(loop.running_timers()) <= 1

    in_loop(main)


def test_a_time_out_leaves_no_cancellation_behind():
    async def main(_loop: Loop) -> None:
        async with asyncio.timeout(1000) as clock:
            with pytest.raises(RequestTimeoutError):
                await anext(stream_of(Slow((None, b"")), timeout_secs=10))
            await asyncio.sleep(1)
        assert not clock.expired()
        assert asyncio.current_task().cancelling() == 0

    in_loop(main)


def test_a_task_that_ignored_a_cancellation_before_still_has_its_time_outs():
    async def main(_loop: Loop) -> None:
        async def read() -> None:
            asyncio.current_task().cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(0)
            with pytest.raises(RequestTimeoutError):
                await anext(stream_of(Slow((None, b"")), timeout_secs=10))

        await asyncio.create_task(read())

    in_loop(main)


def test_a_time_out_of_the_callers_own_passes_on():
    async def main(loop: Loop) -> None:
        slow = Slow(*words(1), (None, b""))
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(5):
                async for _ in stream_of(slow, timeout_secs=10):
                    pass
        assert not isinstance(caught.value, RequestTimeoutError)
        assert slow.is_closed
        assert (now(), len(loop.running_timers())) == (5, 1)

    in_loop(main)


def test_a_stream_that_another_task_closes_ends_its_wait():
    async def main(loop: Loop) -> None:
        stream = stream_of(Slow(*words(1), (None, b"")), timeout_secs=1000)
        reading = asyncio.create_task(anext_twice(stream))
        await asyncio.sleep(3)
        await stream.aclose()
        await reading
        assert len(loop.running_timers()) <= 1

    in_loop(main)


async def anext_twice(stream) -> None:
    await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


def test_the_waits_of_one_stream_may_be_in_different_tasks():
    async def main(_loop: Loop) -> None:
        async with stream_of(Slow(*words(8, 8), (None, b"")), timeout_secs=10) as stream:
            for _ in range(2):
                await asyncio.create_task(stream.__anext__())
            with pytest.raises(RequestTimeoutError):
                await asyncio.create_task(stream.__anext__())
        assert now() == 26

    in_loop(main)


def test_each_of_many_waits_ends_at_its_own_time():
    async def main(loop: Loop) -> None:
        async def time_out(secs: float) -> float:
            with pytest.raises(RequestTimeoutError, match=f"within {secs:g} s"):
                await anext(stream_of(Slow((None, b"")), timeout_secs=secs))
            return now() - secs

        late = await asyncio.gather(*(time_out(1 + n / 1000) for n in reversed(range(300))))
        assert 0 <= min(late) <= max(late) <= 0.01
        assert len(loop.timers) < 450

    in_loop(main)


def test_a_wait_that_ends_sooner_than_all_others_is_not_kept_by_them():
    async def main(_loop: Loop) -> None:
        slow = asyncio.create_task(anext(stream_of(Slow((None, b"")), timeout_secs=100)))
        await asyncio.sleep(1)
        with pytest.raises(RequestTimeoutError):
            await anext(stream_of(Slow((None, b"")), timeout_secs=10))
        assert now() == 11
        with pytest.raises(RequestTimeoutError):
            await slow
        assert now() == 100

    in_loop(main)
