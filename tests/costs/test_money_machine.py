"""Honest money through the real client: whatever happens, its records agree with the true bill.

Hypothesis makes up what a program does and what a provider does to it. The provider stands behind
a socket, in a thread of its own, and keeps books that the client never sees.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import socket
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Coroutine, Iterator
from decimal import Decimal
from functools import cache

import pytest
from bill_wires import WIRES
from billing_provider import CONTRACTS, PLAYS, TEXTS, MoneyProvider, Plan
from cost_invariants import Asked, Call, check, check_budget_share
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from interrupt_at_each_await import Stepped
from threaded_server import HANG_UP_SECS, ThreadedServer

from minillmlib import (
    Budget,
    ChatNode,
    CompletionContext,
    CompletionParameters,
    CostCallbackError,
    CostTotal,
    GeneratorInfo,
    IncompleteStreamError,
    MiniLLMError,
    NodeCompletionParameters,
    StreamingCompletion,
    TrackedStream,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(0)]

# The same runs every time. A longer night is `MINILLMLIB_MONEY_RUNS=20000`.
RUNS = settings(
    max_examples=int(os.environ.get("MINILLMLIB_MONEY_RUNS", "200")),
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),  # a failure prints its steps; to shorten them would take an hour
    suppress_health_check=list(HealthCheck),
)
SILENCE_SECS = 0.03
PARAMS = CompletionParameters(max_tokens=20)
MOST_OPEN = 3

CALLBACKS = ("none", "plain", "coroutine", "raises", "raises later")


def asked_for(seed: str) -> Asked:
    """One of very many calls: by a seed, since to draw each part takes longer than to play it."""
    rng = random.Random(seed)
    plan = Plan(
        wire=rng.choice(("openai", "openrouter", "anthropic")),
        contract=rng.choice(sorted(CONTRACTS)),
        text=rng.choice(sorted(TEXTS)),
        plays=tuple(rng.choices(sorted(PLAYS), k=rng.randint(0, 3))),
        seed=seed,
    )
    return Asked(
        plan=plan,
        retry=rng.randint(0, 3),
        refuses=rng.choice(("nothing", "nothing", "empty", "prose")),
        callback=rng.choice(CALLBACKS),
        is_budgeted=rng.random() < 0.5,
    )


SEEDS = st.integers(0, 2**24 - 1)
COMES_UP = {
    *(f"answered, {known}" for known in ("resolved", "unpriced", "unknown")),
    *(f"rejected, {known}" for known in ("resolved", "unpriced", "unknown")),
    *(f"failed, {known}" for known in ("resolved", "unpriced", "unknown")),
    *("abandoned, resolved", "abandoned, unknown", "denied, free", "not_sent, free"),
}
WAYS = ("whole", "tracked", "stream", "bare", "collected")


@cache
def generator_at(url: str, wire: str, contract: str) -> GeneratorInfo:
    """A customer with this contract."""
    generator = GeneratorInfo.custom("vendor", url, "m").with_provider(WIRES[wire].provider)
    return generator.replace(token_price=CONTRACTS[contract][1])


class Stage:
    """What outlives a run: the provider, an event loop, and the numbers of the calls."""

    def __init__(self, server: ThreadedServer, provider: MoneyProvider, quota) -> None:
        self.server = server
        self.provider = provider
        self.quota = quota
        self.runner = asyncio.Runner()
        self.numbers = itertools.count(1)
        self.seen: Counter[str] = Counter()

    def note(self, call: Call) -> None:
        """Counts what came up, so that nobody has to believe that everything did."""
        for attempt in call.final():
            known = "free" if attempt.cost is None else attempt.cost.resolution.value
            self.seen[f"{attempt.outcome.value}, {known}"] += 1


class MoneyMachine(RuleBasedStateMachine):
    """A program that spends money in every way it can, and looks at its records all the time."""

    stage: Stage
    nowhere: str

    def __init__(self) -> None:
        super().__init__()
        self.root = ChatNode.root("Be brief.")
        self.nodes = [self.root]
        self.costs = {self.root: CostTotal()}
        self.calls: list[Call] = []
        self.open: list[tuple[Call, StreamingCompletion[ChatNode]]] = []
        self.budget = Budget(10**6)
        self.seed = 0
        self.stage.quota._remaining.clear()

    # What a program does. No frame that runs the loop has a stream for a local: aiohttp keeps the
    # frames of what it caught when a connection broke, and so would keep a dropped stream alive.

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        """Hypothesis likes to say the same again; this makes it another thing in another run."""
        self.seed = seed

    @rule(seed=SEEDS, way=st.sampled_from(WAYS))
    def ask(self, seed: int, way: str) -> None:
        """A call that is awaited to its end."""
        self._play(self._ended(self._new(seed), way))

    @rule(seeds=st.lists(SEEDS, min_size=2, max_size=3), way=st.sampled_from(WAYS))
    def ask_together(self, seeds: list[int], way: str) -> None:
        """Calls at the same time, on the same tree."""
        calls = [self._new(seed) for seed in seeds]

        async def all_of_them() -> None:
            await asyncio.gather(*(self._ended(call, way) for call in calls))

        self._play(all_of_them())

    @rule(
        seed=SEEDS,
        way=st.sampled_from(WAYS),
        at=st.integers(1, 12),
        when=st.sampled_from(("waiting", "ready")),
    )
    def cancel(self, seed: int, way: str, at: int, when: str) -> None:
        """A call that is cancelled at one of its waits."""
        self._play(self._cancelled(self._new(seed, is_heard=True), way, at, when))

    @rule(seed=SEEDS, way=st.sampled_from(WAYS))
    def ask_nobody(self, seed: int, way: str) -> None:
        """A call of a server that is not there."""
        self._play(self._ended(self._new(seed, url=self.nowhere), way))

    @precondition(lambda self: len(self.open) < MOST_OPEN)
    @rule(seed=SEEDS, chunks=st.integers(0, 2), is_tracked=st.booleans())
    def open_stream(self, seed: int, chunks: int, *, is_tracked: bool) -> None:
        """A stream that is read for a while."""
        call = self._new(seed, is_heard=True)
        self.open.append((call, self._stream(call, is_tracked=is_tracked)))
        self._play(self._read(*self.open[-1], chunks))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, MOST_OPEN - 1), chunks=st.integers(1, 9))
    def start_reading(self, which: int, chunks: int) -> None:
        """An open stream is read on, perhaps to its end."""
        self._play(self._read(*self.open[which % len(self.open)], chunks))

    @precondition(lambda self: self.open)
    @rule(
        which=st.integers(0, MOST_OPEN - 1),
        ways=st.lists(st.sampled_from(("close", "cancel")), max_size=3),
    )
    def leave(self, which: int, ways: list[str]) -> None:
        """An open stream is closed or cancelled, perhaps again and again; or else just dropped."""
        call = self.open[which % len(self.open)][0]
        if ways:
            self._play(self._left(*self.open[which % len(self.open)], ways))
        call.is_over = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            dropped = weakref.ref(self.open.pop(which % len(self.open))[1])
            if dropped() is not None:  # errors of broken connections may hold it in a cycle
                gc.collect()
            self._play(asyncio.sleep(0.001))

    def teardown(self) -> None:
        """Leaves what is open, and looks at everything once more: a server may hear late."""
        while self.open:
            self.leave(0, ["close"])
        for call in self.calls:
            self._check(call)

    # How it is done.

    def _new(self, seed: int, *, is_heard: bool = False, url: str | None = None) -> Call:
        """A call from somewhere near the end of the tree."""
        asked = asked_for(f"{self.seed}.{len(self.calls)}.{seed}")
        # A budget learns late costs without any callback, but then nobody else does.
        if (is_heard or asked.is_budgeted) and asked.callback == "none":
            asked = asked._replace(callback="plain")
        if url is not None:  # nothing new happens at a second retry
            asked = asked._replace(retry=min(asked.retry, 1))
        stage, number = self.stage, next(self.stage.numbers)
        place = random.Random(asked.plan.seed).choice(self.nodes[-4:])
        generator = generator_at(url or stage.server.url, asked.plan.wire, asked.plan.contract)
        call = Call(number, asked, place, generator)
        if asked.is_budgeted and call.generator.token_price is not None:
            said = place.add_user(call.said)
            call.ceiling = said.estimate_cost(call.generator, PARAMS).ceiling
        stage.provider.expect(number, asked.plan)
        self.calls.append(call)
        note(f"{call.said}: {asked}")
        return call

    def _settings(self, call: Call, *, is_tracked: bool) -> NodeCompletionParameters:
        asked = call.asked
        is_silent = any(PLAYS[name].is_silent for name in asked.plan.plays)
        return NodeCompletionParameters(
            params=PARAMS,
            cost_callback=None if is_tracked else call.callback(),
            retry=asked.retry,
            back_off_time=0,
            timeout_secs=SILENCE_SECS if is_silent else 20,
            crash_on_empty_response=asked.refuses != "nothing",
            crash_on_refusal=asked.refuses == "prose",
            budget=None if call.ceiling is None else self.budget,
        )

    def _context(self, call: Call) -> CompletionContext:
        call.is_heard = True  # a context has a callback
        callback = call.callback()
        tell = lambda info, _meta: callback(info)  # noqa: E731
        call.context = CompletionContext(call.generator, call.number, tell)
        return call.context

    def _stream(self, call: Call, *, is_tracked: bool) -> StreamingCompletion[ChatNode]:
        settings = self._settings(call, is_tracked=is_tracked)
        if not is_tracked:
            return call.place.chat_streaming(call.said, call.generator, settings)
        said = call.place.add_user(call.said)
        return said.complete_streaming_tracked(self._context(call), settings)

    async def _answered(self, call: Call, way: str) -> ChatNode:
        call.is_begun = True
        if way == "whole":
            settings = self._settings(call, is_tracked=False)
            return await call.place.chat(call.said, call.generator, settings)
        if way == "tracked":
            settings = self._settings(call, is_tracked=True)
            return await call.place.chat_tracked(call.said, self._context(call), settings)
        stream = self._stream(call, is_tracked=way == "collected")
        if isinstance(stream, TrackedStream):
            return await stream.collect()
        if way == "stream":
            async with stream:
                async for _ in stream:
                    pass
        else:
            async for _ in stream:
                pass
        return stream.node

    async def _ended(self, call: Call, way: str) -> None:
        try:
            self._answer(call, await self._answered(call, way))
        except MiniLLMError as error:
            call.fail(error)

    def _answer(self, call: Call, node: ChatNode) -> None:
        call.succeed(node)
        self.nodes.append(node)
        self.costs[node] = CostTotal.of(attempt.cost for attempt in node.response.attempts)

    async def _cancelled(self, call: Call, way: str, at: int, when: str) -> None:
        """C9: a cancellation comes out at once and as it is, and the record is there by then."""
        stepped = Stepped(self._answered(call, way), at, asyncio.Task.cancel, when=when)
        try:
            node = await asyncio.create_task(stepped.run())
        except asyncio.CancelledError:
            assert time.monotonic() - stepped.interrupted_at < HANG_UP_SECS
            is_told_at_once = call.asked.callback in ("plain", "raises")
            if is_told_at_once and call.asked.plan.wire != "openrouter":
                assert len(call.reports) == 1
        except MiniLLMError as error:
            call.fail(error)
            assert stepped.interrupted_at is None
        else:
            self._answer(call, node)
            assert stepped.interrupted_at is None
        call.is_over = True

    async def _read(self, call: Call, stream: StreamingCompletion, chunks: int) -> None:
        call.is_begun = call.is_begun or chunks > 0
        try:
            for _ in range(chunks):
                await anext(stream)
        except StopAsyncIteration:
            if not call.is_over:
                self._answer(call, stream.node)
        except MiniLLMError as error:
            if call.is_over:  # read on after its failure, when the cost may be known by then
                assert isinstance(error, IncompleteStreamError)
            else:
                call.fail(error)

    async def _left(self, call: Call, stream: StreamingCompletion, ways: list[str]) -> None:
        """C1: however often and in whatever order a stream is left, there is one record."""
        for place, way in enumerate(ways):
            if way == "cancel" and isinstance(stream, TrackedStream):
                info = await stream.cancel()
                assert not call.is_begun or call.reports == [info]
            else:
                await stream.aclose()
                if place == 0 and call.attempts is None:  # before anything is told later
                    call.attempts = stream.attempts
        call.is_over = True

    # What must hold after each step.

    def _play(self, coroutine: Coroutine) -> None:
        """Lets it happen, and all reports come in; then everything must be right."""

        async def whole() -> None:
            await coroutine
            await CompletionContext(GeneratorInfo.local(), None, print).aclose()
            for call in self._fresh():
                await _check_context(call)

        self.stage.runner.run(whole())
        for call in self._fresh():
            self._check(call)
            self.stage.note(call)
            call.is_checked = True
        self._check_tree()
        self._check_budget()

    def _fresh(self) -> list[Call]:
        return [call for call in self.calls if call.is_over and not call.is_checked]

    def _check(self, call: Call) -> None:
        provider = self.stage.provider
        check(call, provider.lines[call.number], provider.asked_later)

    def _check_tree(self) -> None:
        """C6: a tree costs what its nodes cost, each once, and so does a path."""
        assert self.root.subtree_cost() == sum(self.costs.values(), CostTotal())
        node: ChatNode | None = self.nodes[-1]
        path, total = node.path_cost(), CostTotal()
        while node is not None:
            total += self.costs.get(node, CostTotal())
            node = node.parent
        assert path == total

    def _check_budget(self) -> None:
        """C4, C6: a budget spends what is known, keeps what is not, and holds nothing back."""
        if all(call.ceiling is None for call, _ in self.open):
            shares = (check_budget_share(call) for call in self.calls)
            assert self.budget.reserved == 0
            assert self.budget.spent == sum(shares, Decimal(0))


async def _check_context(call: Call) -> None:
    """C7: what a callback raised is told at the end of its context, and loses nothing else."""
    if call.context is None:
        return
    try:
        await call.context.aclose()
    except CostCallbackError:
        assert call.asked.raises
    else:
        assert not call.asked.raises or not call.is_begun


@pytest.fixture
def stage(quota) -> Iterator[Stage]:
    provider = MoneyProvider()
    with ThreadedServer(provider.answer) as server:
        stage = Stage(server, provider, quota)
        with stage.runner:
            yield stage


@pytest.fixture
def nowhere() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_every_record_agrees_with_the_true_bill(stage, nowhere, monkeypatch, caplog):
    monkeypatch.setattr("minillmlib.client.deferred_cost.WAITS_SECS", (0.0, 0.0))
    caplog.set_level("CRITICAL", logger="minillmlib")  # what callbacks raise
    machine = type("Machine", (MoneyMachine,), {"stage": stage, "nowhere": nowhere})
    run_state_machine_as_test(machine, settings=RUNS)
    assert set(stage.seen) >= COMES_UP
