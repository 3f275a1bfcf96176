"""Tool loops against a model, a program and a machine that do anything at any time.

No tool runs twice for one call, no call stays without a result where the conversation goes on, and
the costs of the nodes and of the reports are those in the books of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from interrupt_at_each_await import Stepped
from tool_scripts import CANCELLED, NOT_STARTED, UNCERTAIN
from tool_server import Bill, ServerTools, Stop, ToolServer, problem_of
from virtual_clock import VirtualClockLoop

from minillmlib import (
    ApiError,
    BadRequestError,
    ChatNode,
    CostInfo,
    CostResolution,
    CostTotal,
    NodeCompletionParameters,
    ReadError,
    RequestTimeoutError,
    ToolArgumentError,
    ToolCall,
    ToolDefinition,
    ToolError,
    ToolEvent,
    ToolLoop,
    ToolRun,
    TurnLimitError,
)

REFUSED = ("the user did not allow this call", "not today")
ENDS = (
    "whole", "whole", "cancelled", "cancelled", "cancelled twice", "left", "left", "crashed",
    "crashed", "observer raises", "two at once",
)  # fmt: skip
INTERRUPTS = {
    "cancelled": asyncio.CancelledError,
    "cancelled twice": asyncio.CancelledError,
    "crashed": asyncio.CancelledError,
    "observer raises": ZeroDivisionError,
}
RUNS = settings(
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
MAX_NODES = 150
SEEDS = st.integers(0, 2**24 - 1)
SEEN: set[object] = set()
COMES_UP = {
    NOT_STARTED, CANCELLED, UNCERTAIN, *REFUSED, type(None), Stop, asyncio.CancelledError,
    ZeroDivisionError, ReadError, BadRequestError, RequestTimeoutError, TurnLimitError, ToolError,
    ToolArgumentError, LookupError,
}  # fmt: skip


class ToolLoops(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.files = 0
        self.runner = asyncio.Runner(loop_factory=VirtualClockLoop)
        self.server = ToolServer()
        self.effects: Counter[str] = Counter()
        self.begun: set[str] = set()  # those of them outside of threads
        self.life = 0  # of the process; a crash begins another
        self.reports: list[CostInfo] = []
        self.root = ChatNode.root("s")
        self.begin_journal()

    def teardown(self) -> None:
        self.runner.close()
        self.folder.cleanup()

    # The program.

    def begin_journal(self) -> None:
        self.files += 1
        self.path = Path(self.folder.name, f"{self.files}.tree")
        self.root.attach_journal(self.path)

    def tools(self, seed: float) -> list[Callable[..., object] | ToolDefinition]:
        """The tools of a process. What it does after it has crashed never happened."""
        life = self.life

        def begin(key: str) -> None:
            if life == self.life:
                self.effects[key] += 1
                if threading.current_thread() is threading.main_thread():
                    self.begun.add(key)

        tools = ServerTools(begin, random.Random(seed))
        return [*tools.functions(), ToolDefinition(name="ask")]

    def loop(self, rng: random.Random) -> ToolLoop:
        """Settings at random."""
        decisions = rng.choice(((True,), (True, True, False, "not today"), (*[True] * 5, None)))

        def approve(_: ToolCall) -> bool | str | None:
            return rng.choice(decisions)

        async def approve_later(call: ToolCall) -> bool | str | None:
            await asyncio.sleep(rng.choice((0, 0.1)))
            return approve(call)

        return ToolLoop(
            max_turns=rng.choice((1, 2, 4)),
            max_parallel=rng.choice((1, 2, 8)),
            tool_timeout_secs=rng.choice((None, 1)),
            deadline_secs=rng.choice((None, None, 2)),
            on_error=rng.choice(("tell", "tell", "raise")),
            approve=rng.choice((None, approve, approve_later)),
        )

    def report(self, info: CostInfo) -> None:
        self.reports.append(info)

    def open(
        self, node: ChatNode, loop: ToolLoop, is_streamed: bool, seed: float
    ) -> ToolRun[ChatNode]:
        settings = NodeCompletionParameters(retry=0, cost_callback=self.report)
        generator, tools = self.server.generator(), self.tools(seed)
        if is_streamed:
            return node.run_tools_streaming(generator, tools, settings, loop)
        return ToolRun(node, generator, tools, settings, loop, is_streamed=False)

    # What happens.

    def place(self, rng: random.Random) -> ChatNode:
        """A node that can be continued, often the newest; a person may have done a part of it."""
        nodes = self.root.in_insertion_order()
        node = rng.choice([*nodes, *[nodes[-1]] * (2 * len(nodes))])
        calls = pending_of(node)
        if not calls and node.role.value in ("assistant", "system"):
            return node.add_user(f"u{rng.random()}")
        if rng.random() < 0.9:
            for call in calls:
                if call.name == "ask":
                    node = node.add_tool_result(call.id, "asked")
        return node

    @rule(seed=SEEDS, end=st.sampled_from(ENDS))
    def play(self, seed: int, end: str) -> None:
        """Run a loop somewhere, and end it in some way."""
        if self.root.node_count() > MAX_NODES:
            self.root = ChatNode.root("s")
            self.begin_journal()
        self.server.rng = rng = random.Random(f"{seed} {len(self.server.bills)}")
        before = {node.id for node in self.root.depth_first()}
        done = set(self.effects)
        node = self.place(rng)
        loops = [self.loop(rng) for _ in range(2)]
        plans = [(loop, rng.random() < 0.5, rng.random()) for loop in loops]
        runs = [self.open(node, *plan) for plan in plans[: 2 if end == "two at once" else 1]]
        note(f"{end} after {node.id[:6]}, {'streamed' if runs[0]._is_streamed else 'whole'}")
        errors = self.runner.run(self.play_out(runs, end, rng))
        for run, error in zip(runs, errors, strict=False):
            note(f"{error!r}, {len(run.node.path())} nodes")
            self.check_end(run, error, end)
        if end == "crashed":
            self.restart(b'[{"kind":"notes","node":"9'[: rng.randint(0, 26)])
        new = [node for node in self.root.depth_first() if node.id not in before]
        self.check_results(new, done if end != "two at once" else set(self.effects))

    async def play_out(
        self, runs: list[ToolRun[ChatNode]], end: str, rng: random.Random
    ) -> list[BaseException | None]:
        """Read the first loop, or both, and do something to them; return their errors."""
        if end == "two at once":
            coroutines = [self.read(run, 0) for run in runs]
        else:
            at = rng.randint(1, 25)
            events = rng.randint(1, 12) if end in ("left", "observer raises") else 0
            coroutine = self.read(runs[0], events, raises=end == "observer raises")
            if "cancelled" in end:
                stepped = Stepped(
                    coroutine, at, asyncio.Task.cancel, when=rng.choice(("waiting", "ready")),
                    again=end.endswith("twice"),
                )  # fmt: skip
                coroutine = stepped.run()
            elif end == "crashed":
                coroutine = Stepped(coroutine, at, self.crash).run()
            coroutines = [coroutine]
        tasks = [asyncio.ensure_future(one) for one in coroutines]
        await asyncio.wait(tasks)
        begun = set(self.begun)
        errors: list[BaseException | None] = [
            asyncio.CancelledError() if task.cancelled() else task.exception() for task in tasks
        ]
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for other in others:
                other.cancel()
            await asyncio.wait(others)
        await asyncio.sleep(0)
        assert self.begun == begun, "a tool was started after the end of its loop"
        return errors

    async def read(self, run: ToolRun[ChatNode], events: int, *, raises: bool = False) -> None:
        """Read a loop to its end, or so many events of it."""
        async with contextlib.aclosing(run):
            async for event in run:
                self.look_at(event)
                events -= 1
                if events == 0:
                    if raises:
                        raise ZeroDivisionError
                    return

    def look_at(self, event: ToolEvent) -> None:
        if event.kind == "result":
            assert event.node.message.tool_call_id == event.call.id

    def crash(self, task: asyncio.Task) -> None:
        """End the process: what is on the disk is all that is left."""
        content = self.path.read_bytes()
        self.files += 1
        self.path = Path(self.folder.name, f"{self.files}.tree")
        self.path.write_bytes(content)
        self.life += 1
        task.cancel()

    def restart(self, cut: bytes) -> None:
        """Begin anew with what is on the disk, where a line may be cut off."""
        with self.path.open("ab") as file:
            file.write(cut)
        self.root = ChatNode.load_tree(self.path)
        self.root.attach_journal(self.path)

    # What must be so.

    def check_end(self, run: ToolRun[ChatNode], error: BaseException | None, end: str) -> None:
        """A loop ends with an answer, with calls that wait, or with all of them answered."""
        pending = pending_of(run.node)
        SEEN.add(type(error))
        expected = [
            ApiError, ReadError, TurnLimitError, RequestTimeoutError, LookupError, ToolError, Stop,
        ]  # fmt: skip
        if end in INTERRUPTS:
            expected.append(INTERRUPTS[end])
        assert error is None or isinstance(error, tuple(expected)), repr(error)
        if not pending or not run._is_begun:
            return
        if error is None:
            assert run._loop.approve is not None or any(call.name == "ask" for call in pending)
        else:  # an approval that came too late, and may be asked for again
            assert isinstance(error, RequestTimeoutError)
            assert run._loop.approve is not None

    def check_results(self, nodes: list[ChatNode], done: set[str]) -> None:
        """A new result is of its own call, and true. `done` is what may have been done before."""
        for node in nodes:
            if node.message.tool_call_id is None:
                continue
            pending = pending_of(node.parent)
            call = next(one for one in pending if one.id == node.message.tool_call_id)
            text, key = node.text or "", key_of(call)
            SEEN.add(text)
            if text in (NOT_STARTED, *REFUSED):
                assert key not in self.effects or key in done
            elif text in (CANCELLED, UNCERTAIN):
                assert call.name not in ("ask", "vanish")
            elif call.name == "ask":
                assert text == "asked"
            elif call.name == "vanish":
                assert text.startswith("there is no tool")
            elif key is None:
                assert text.endswith("call it again with other arguments")
            elif text != f"{call.name} did not end within 1 s":
                assert self.effects[key] == 1
                assert text in (
                    f"did {key}", f"LookupError: {key}", "what stop waited for was cancelled",
                )  # fmt: skip

    @invariant()
    def no_tool_runs_twice(self) -> None:
        assert all(count == 1 for count in self.effects.values()), self.effects

    @invariant()
    def the_server_refuses_nothing(self) -> None:
        assert self.server.problems == []

    @invariant()
    def no_call_is_without_a_result_where_the_conversation_goes_on(self) -> None:
        for leaf in self.root.leaves():
            messages = [
                {
                    "role": message.role.value,
                    "tool_call_id": message.tool_call_id,
                    "tool_calls": [{"id": call.id} for call in message.tool_calls],
                }
                for message in leaf.thread()
            ]
            problem = problem_of(messages)
            assert problem is None or problem.startswith("the calls"), problem  # at its end
            asking = [node for node in leaf.path() if node.tool_calls]
            for node in asking:
                calls = node.tool_calls
                at = leaf.path().index(node)
                ids = [one.message.tool_call_id for one in leaf.path()[at + 1 :]][: len(calls)]
                if not any(call.name == "ask" for call in calls):
                    assert ids == [call.id for call in calls][: len(ids)], "not in their order"

    @invariant()
    def the_books_agree(self) -> None:
        bills = {bill.response_id: bill for bill in self.server.bills}
        attempts = [attempt for info in self.reports for attempt in info.attempts]
        sent = [attempt for attempt in attempts if attempt.was_sent]
        abandoned = [one for one in sent if one.outcome.value == "abandoned"]
        assert len(sent) - len(abandoned) <= len(bills) <= len(sent)
        known = [one for one in sent if one.cost and one.cost.resolution is CostResolution.RESOLVED]
        assert len({one.response_id for one in known}) == len(known)
        for attempt in known:
            assert attempt.cost.cost == bills[attempt.response_id].cost
        free = sum(1 for one in sent if one.cost is None)
        assert free == sum(1 for bill in bills.values() if bill.kind == "error") or abandoned
        self.check_nodes(bills)

    def check_nodes(self, bills: dict[str, Bill]) -> None:
        """The nodes cost what they were billed at, each once, and sums are sums."""
        nodes = list(self.root.depth_first())
        made = [node for node in nodes if node.is_generated]
        assert len({node.response.id for node in made}) == len(made)
        for node in made:
            assert node.cost == CostTotal(cost=bills[node.response.id].cost)
        total = sum((node.cost for node in nodes), CostTotal())
        assert self.root.subtree_cost() == total
        parts = [child.subtree_cost() for child in self.root.children()]
        assert sum(parts, self.root.cost) == total
        for leaf in list(self.root.leaves())[-3:]:
            assert leaf.path_cost() == sum((one.cost for one in leaf.path()), CostTotal())

    @invariant()
    def the_journal_is_the_tree(self) -> None:
        if self.root.node_count() % 5 == 0:  # it takes a while
            loaded = ChatNode.load_tree(self.path)
            for one, other in zip(self.root.in_insertion_order(), loaded.in_insertion_order(), strict=True):  # fmt: skip
                assert (one.id, one.notes) == (other.id, other.notes)


def pending_of(node: ChatNode) -> list[ToolCall]:
    """The calls up to a node that have no result."""
    pending: list[ToolCall] = []
    for message in node.thread():
        if message.tool_call_id is not None:
            place = [call.id for call in pending].index(message.tool_call_id)
            del pending[place]
        pending += message.tool_calls
    return pending


def key_of(call: ToolCall) -> str | None:
    with contextlib.suppress(Exception):
        key = call.arguments_json().get("key")
        return key if isinstance(key, str) else None
    return None


@pytest.mark.long
def test_loops_that_end_in_any_way():
    run_state_machine_as_test(ToolLoops, settings=settings(RUNS, max_examples=30))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_loops_that_end_in_any_way_for_long():
    run_state_machine_as_test(ToolLoops, settings=settings(RUNS, max_examples=300))
    assert COMES_UP <= SEEN
