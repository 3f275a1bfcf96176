"""What can go wrong around a tool loop: nothing hangs, nothing runs twice, every call is answered."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import time
from collections import Counter

import pytest
from tool_scripts import (
    CANCELLED,
    NOT_STARTED,
    UNCERTAIN,
    add,
    asked,
    call,
    fail,
    flags,
    greet,
    model,
    says,
    sleep,
    streams,
    texts,
)

from minillmlib import (
    Budget,
    BudgetExceededError,
    ChatNode,
    CompletionParameters,
    IncompleteStreamError,
    InvalidParameterError,
    NodeCompletionParameters,
    RequestTimeoutError,
    StorageError,
    TokenPrice,
    Tool,
    ToolArgumentError,
    ToolDefinition,
    ToolError,
    ToolLoop,
    run,
)


async def turns() -> None:
    """Let everything that is ready in the loop run."""
    for _ in range(20):
        await asyncio.sleep(0)


# Leaving.


@pytest.mark.parametrize("steps", range(1, 9))
async def test_a_loop_that_is_left_answers_each_call_once_and_starts_nothing_more(steps):
    started = []

    async def work(number: int) -> int:
        """Work."""
        started.append(number)
        await asyncio.sleep(0)
        return number

    node = asked()
    calls = [call(number, "work", number=number) for number in range(3)]
    generator = model(streams("a", *calls), streams("b"))
    async with node.run_tools_streaming(generator, [work], loop=ToolLoop(max_parallel=1)) as events:
        for _ in range(steps):
            await anext(events)
    before = list(started)
    left = events.node
    await turns()
    assert started == before
    ids = [message.tool_call_id for message in left.thread() if message.tool_call_id]
    if left != node:
        assert ids == ["call_0", "call_1", "call_2"]
    assert list(node.leaves()) == [left]
    told = dict(zip(ids, texts(left)[1:], strict=False))
    for number in started:
        assert told[f"call_{number}"] in (str(number), CANCELLED)
    for number in {0, 1, 2} - set(started):
        assert told.get(f"call_{number}", NOT_STARTED) == NOT_STARTED


async def test_the_model_is_told_which_calls_had_begun_when_the_loop_was_left():
    node, generator = asked(), model(says(None, call(1, "sleep"), call(2, "sleep")))
    task = asyncio.create_task(node.run_tools(generator, [sleep], loop=ToolLoop(max_parallel=1)))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert texts(next(node.leaves())) == [None, CANCELLED, NOT_STARTED]


@pytest.mark.parametrize("waits_for", ["the tool", "the approval"])
async def test_another_task_can_stop_a_loop(waits_for):
    async def approve(_):
        await may_answer.wait()
        return True

    may_answer = asyncio.Event()
    generator = model(streams("", call(1, "sleep")))
    loop = ToolLoop(approve=approve if waits_for == "the approval" else None)
    node = asked()
    events = node.run_tools_streaming(generator, [sleep], loop=loop)
    reader = asyncio.create_task(events.collect())
    await turns()
    await events.aclose()
    may_answer.set()
    assert await asyncio.wait_for(reader, 5) == events.node == next(node.leaves())
    await events.aclose()
    told = CANCELLED if waits_for == "the tool" else NOT_STARTED
    assert texts(events.node) == [None, told]


async def test_what_was_cancelled_or_failed_cannot_be_read_on_as_if_it_were_whole():
    node = asked()
    events = node.run_tools_streaming(model(streams("", call(1, "sleep"))), [sleep])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(events.collect(), 0.1)
    with pytest.raises(IncompleteStreamError, match="cancelled"):
        await events.collect()
    assert texts(events.node) == [None, CANCELLED]
    events = node.run_tools_streaming(model(), [add])
    with pytest.raises(InvalidParameterError, match="no reply"):
        await events.collect()
    with pytest.raises(IncompleteStreamError, match="no reply"):
        await anext(events)


async def test_two_tasks_cannot_read_one_loop():
    async with asked().run_tools_streaming(model(streams("", call(1, "sleep"))), [sleep]) as events:
        reader = asyncio.create_task(events.collect())
        await turns()
        with pytest.raises(InvalidParameterError, match="one task"):
            await anext(events)
        reader.cancel()


@pytest.mark.parametrize("steps", [1, 4, 6])
async def test_a_loop_that_is_dropped_in_the_middle_warns(steps):
    generator = model(streams("a", call(1, "add", a=1, b=1)), streams("b"))
    events = asked().run_tools_streaming(generator, [add])
    for _ in range(steps):
        await anext(events)
    with pytest.warns(ResourceWarning, match="async with"):  # noqa: PT031 - to the last reference
        del events
        gc.collect()


async def test_an_observer_that_raises_leaves_a_valid_tree():
    def refuse(event):
        if event.kind == "call":
            raise ZeroDivisionError

    node = asked()
    calls = [call(1, "add", a=1, b=2), call(2, "greet", name="x")]
    with pytest.raises(ZeroDivisionError):
        await node.run_tools(
            model(says(None, *calls)), [add, greet], loop=ToolLoop(on_event=refuse)
        )
    assert texts(next(node.leaves())) == [None, NOT_STARTED, NOT_STARTED]


async def test_a_loop_that_was_never_read_changes_nothing():
    node = asked()
    waiting = await node.run_tools(
        model(says(None, call(1, "add", a=1, b=1))), [add], loop=ToolLoop(approve=lambda _: None)
    )
    async with waiting.run_tools_streaming(model(), [add]):
        pass
    assert waiting.is_leaf


# Once is enough.


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_calls_with_the_same_id_are_each_run_and_answered(tmp_path, is_recorded):
    """As servers send them that number the calls of each answer, or use the tool's name."""
    ran = []

    async def work(number: int) -> int:
        """Work."""
        ran.append(number)
        return number

    node = asked()
    if is_recorded:
        node.root_node.attach_journal(tmp_path / "journal")
    twins = [call(0, "work", number=1), call(0, "work", number=2)]
    generator = model(streams("", *twins), streams("", call(0, "work", number=3)), streams("ok"))
    async with node.run_tools_streaming(generator, [work]) as events:
        answer = await events.collect()
    assert texts(answer) == [None, "1", "2", None, "3", "ok"]
    # A crash between the results of twins: only the second is left.
    first = next(one for one in answer.path() if one.text == "1")
    again = await first.run_tools(model(says("ok")), [work])
    assert texts(again) == [None, "1", "2", "ok"]
    assert ran == [1, 2, 3]


async def test_a_call_runs_once_however_often_its_node_is_continued(tmp_path):
    ran = []

    async def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        if amount == 2:
            raise ConnectionError("broke off")
        return f"paid {amount}"

    calls = [call(1, "pay", amount=1), call(2, "pay", amount=2), call(3, "pay", amount=3)]
    node, generator = asked(), model(says(None, *calls))
    waiting = await node.run_tools(generator, [pay], loop=ToolLoop(approve=lambda _: None))
    loop = ToolLoop(approve=lambda one: one.id != "call_3")
    expected = [None, "paid 1", "ConnectionError: broke off", "the user did not allow this call"]
    first = await waiting.run_tools(model(says("a")), [pay], loop=loop)
    assert texts(first) == [*expected, "a"]
    waiting.root_node.save_tree(tmp_path / "tree")
    loaded = ChatNode.load_tree(tmp_path / "tree").find(waiting.id)
    for place in (waiting, loaded):
        asked_for = []
        loop = ToolLoop(approve=lambda one, seen=asked_for: seen.append(one.id) or False)
        again = await place.run_tools(model(says("b")), [pay], loop=loop)
        assert texts(again) == [*expected, "b"]
        assert flags(again) == [False, True, True]
        assert asked_for == ["call_3"]
    assert ran == [1, 2]


async def test_two_loops_on_one_node_at_once_do_not_run_its_call_twice():
    ran, may_end = [], asyncio.Event()

    async def pay() -> str:
        """Pay."""
        ran.append(1)
        await may_end.wait()
        return "paid"

    waiting = await asked().run_tools(
        model(says(None, call(1, "pay"))), [pay], loop=ToolLoop(approve=lambda _: None)
    )
    first = asyncio.create_task(waiting.run_tools(model(says("a")), [pay]))
    await turns()
    assert texts(await waiting.run_tools(model(says("b")), [pay])) == [None, UNCERTAIN, "b"]
    may_end.set()
    assert texts(await first) == [None, "paid", "a"]
    assert ran == [1]


def test_loops_in_many_threads_do_not_run_a_call_twice(tmp_path):
    ran, ready = [], threading.Barrier(8)

    async def pay() -> str:
        """Pay."""
        ran.append(1)
        return "paid"

    waiting = run(
        asked().run_tools(
            model(says(None, *[call(n, "pay") for n in range(20)])), [pay],
            loop=ToolLoop(approve=lambda _: None),
        )
    )  # fmt: skip

    waiting.root_node.attach_journal(tmp_path / "journal")  # to write makes threads take turns

    def go_on():
        ready.wait()
        asyncio.run(waiting.run_tools(model(says("ok")), [pay]))

    threads = [threading.Thread(target=go_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ran) == 20
    assert [len(texts(leaf)) for leaf in waiting.leaves()] == [22] * 8


# Tools.


async def test_a_function_that_ends_an_iteration_does_not_hang_the_loop():
    def find(name: str) -> str:
        """Find."""
        return next(one for one in ("a", "b") if one == name)

    answer = await asyncio.wait_for(
        asked().run_tools(model(says(None, call(1, "find", name="c")), says("ok")), [find]), 5
    )
    assert "StopIteration" in texts(answer)[1]


@pytest.mark.parametrize("cancels_itself", [True, False])
async def test_a_tool_that_waits_for_something_cancelled_does_not_cancel_the_loop(cancels_itself):
    async def wait() -> str:
        """Wait."""
        task = asyncio.ensure_future(asyncio.sleep(60))
        (asyncio.current_task() if cancels_itself else task).cancel()
        try:
            await task
        finally:
            task.cancel()
        return "never"

    answer = await asked().run_tools(
        model(says(None, call(1, "wait"), call(2, "add", a=1, b=1)), says("ok")), [wait, add]
    )
    assert texts(answer) == [None, "what wait waited for was cancelled", "2", "ok"]


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Unwritable:
    def __str__(self):
        raise ZeroDivisionError("no text")

    def model_dump(self, **_):
        raise ZeroDivisionError("no text")


def nested() -> list[object]:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Unwritable, "ZeroDivisionError: no text"),
        (lambda: [Unwritable()], "ZeroDivisionError: no text"),
        (nested, "RecursionError"),
        (lambda: 10**5000, "ValueError: Exceeds the limit"),
    ],
)
async def test_a_result_that_has_no_text_is_an_error_for_the_model(make, told):
    def get() -> object:
        """Get it."""
        return make()

    answer = await asked().run_tools(
        model(says(None, call(1, "get"), call(2, "add", a=1, b=1)), says("ok")), [get, add]
    )
    assert texts(answer)[1].startswith(told)
    assert texts(answer)[2:] == ["2", "ok"]
    assert flags(answer) == [True, False]


async def test_an_exception_without_a_text_has_its_name_and_a_long_text_is_cut():
    def shout(times: int) -> str:
        """Shout."""
        raise UnprintableError if times == 0 else LookupError("x" * times)

    calls = [call(1, "shout", times=0), call(2, "shout", times=1000)]
    answer = await asked().run_tools(
        model(says(None, *calls), says("ok")), [shout], loop=ToolLoop(max_result_chars=100)
    )
    assert texts(answer)[1] == "UnprintableError"
    assert texts(answer)[2] == f"LookupError: {'x' * 87}\n[913 more characters were cut off]"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_tool_that_ends_the_program_leaves_a_valid_tree(kind, is_async):
    async def leave() -> str:
        """Leave."""
        raise kind

    def leave_at_once() -> str:
        """Leave."""
        raise kind

    node = asked()
    tool = leave if is_async else leave_at_once
    calls = [call(1, tool.__name__), call(2, "add", a=1, b=1), call(3, "sleep")]
    generator = model(says(None, *calls))
    with pytest.raises(kind):
        asyncio.run(node.run_tools(generator, [tool, add, sleep], loop=ToolLoop(max_parallel=3)))
    ids = [message.tool_call_id for message in next(node.leaves()).thread()][3:]
    assert ids == ["call_1", "call_2", "call_3"]
    assert texts(next(node.leaves()))[1] == CANCELLED
    with pytest.raises(kind):
        run(asked().run_tools(model(says(None, *calls)), [tool, add, sleep]))


async def test_as_many_blocking_tools_as_may_run_at_once_do_also_when_others_hang():
    meeting, forever = threading.Barrier(100, timeout=20), threading.Event()

    def hang() -> str:
        """Hang."""
        forever.wait()
        return "late"

    def meet() -> str:
        """Meet all others."""
        meeting.wait()
        return "met"

    loop = ToolLoop(max_parallel=100, tool_timeout_secs=0.2)
    hanging = [call(number, "hang") for number in range(50)]
    node = await asked().run_tools(model(says(None, *hanging), says("ok")), [hang], loop=loop)
    calls = [call(number, "meet") for number in range(100)]
    loop = ToolLoop(max_parallel=100)
    answer = await node.add_user("u").run_tools(
        model(says(None, *calls), says("ok")), [meet], loop=loop
    )
    assert Counter(texts(answer)) == Counter(
        {"hang did not end within 0.2 s": 50, "met": 100, None: 2, "ok": 2, "u": 1}
    )
    forever.set()


def test_a_program_can_end_while_a_tool_hangs():
    def hang() -> str:
        """Hang."""
        threading.Event().wait()
        return "never"

    before = time.monotonic()
    answer = asyncio.run(
        asked().run_tools(
            model(says(None, call(1, "hang")), says("ok")), [hang],
            loop=ToolLoop(tool_timeout_secs=0.05),
        )
    )  # fmt: skip
    assert answer.text == "ok"
    assert time.monotonic() - before < 10
    assert [one.daemon for one in threading.enumerate() if one.name == "minillmlib hang"] == [True]


async def test_a_tool_of_a_function_that_blocks_has_a_thread_and_a_time_limit():
    here = threading.get_ident()

    def run_it(one):
        if one.arguments_json().get("hangs"):
            threading.Event().wait()
        return str(threading.get_ident() == here)

    async def run_later(one):
        return str(threading.get_ident() == here)

    async def later(_, one):
        return await run_later(one)

    tools = [
        Tool(definition=ToolDefinition(name="blocks"), run=run_it),
        Tool(definition=ToolDefinition(name="returns"), run=lambda one: later("x", one)),
        Tool(definition=ToolDefinition(name="waits"), run=run_later),
    ]
    calls = [call(1, "blocks"), call(2, "returns"), call(3, "waits"), call(4, "blocks", hangs=1)]
    answer = await asked().run_tools(
        model(says(None, *calls), says("ok")), tools, loop=ToolLoop(tool_timeout_secs=0.2)
    )
    assert texts(answer)[1:-1] == ["False", "True", "True", "blocks did not end within 0.2 s"]


class Worker:
    async def __call__(self, name: str) -> str:
        """Work in the loop."""
        return f"{name} {threading.current_thread() is threading.main_thread()}"


async def test_coroutines_run_in_the_loop_in_whatever_they_are_wrapped():
    async def base(name: str, place: str) -> str:
        """Work in the loop."""
        return f"{name} {threading.current_thread() is threading.main_thread()}"

    @functools.wraps(base)
    def wrapped(*args, **kwargs):
        return base(*args, **kwargs)

    wrapped.__name__ = "wrapped"
    tools = [Worker(), functools.partial(base, place="x"), wrapped]
    calls = [
        call(1, "Worker", name="a"), call(2, "base", name="b"),
        call(3, "wrapped", name="c", place="y"),
    ]  # fmt: skip
    answer = await asked().run_tools(model(says(None, *calls), says("ok")), tools)
    assert texts(answer)[1:-1] == ["a True", "b True", "c True"]


async def test_tools_see_the_context_variables_of_the_caller():
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

    def who() -> str:
        """Say who."""
        return user.get()

    async def who_else() -> str:
        """Say who."""
        return user.get()

    user.set("Ada")
    calls = [call(1, "who"), call(2, "who_else")]
    answer = await asked().run_tools(model(says(None, *calls), says("ok")), [who, who_else])
    assert texts(answer)[1:-1] == ["Ada", "Ada"]


# The policy for errors.


@pytest.mark.parametrize(
    ("one", "kind", "match"),
    [
        (call(1, "remove"), ToolError, "no tool 'remove'"),
        (call(1, "add", a="x", b=1), ToolArgumentError, r"\$\.a"),
        (call(1, "sleep"), ToolError, "did not end within"),
        (call(1, "fail", what="x"), LookupError, "no x"),
    ],
)
async def test_every_error_of_a_tool_is_raised_on_demand(one, kind, match):
    node = asked()
    loop = ToolLoop(on_error="raise", tool_timeout_secs=0.5)
    generator = model(says(None, one, call(2, "add", a=1, b=1)))
    with pytest.raises(kind, match=match):
        await node.run_tools(generator, [add, sleep, fail], loop=loop)
    last = next(node.leaves())
    assert texts(last)[2] == "2"
    assert flags(last) == [True, False]


@pytest.mark.parametrize("place", ["tool", "approve", "on_event"])
async def test_the_end_of_an_iteration_in_a_function_does_not_pass_for_the_end_of_the_loop(place):
    def end(_: object) -> None:
        raise StopAsyncIteration

    async def find() -> str:
        """Find."""
        raise StopAsyncIteration

    loop = ToolLoop(on_error="raise") if place == "tool" else ToolLoop(**{place: end})
    with pytest.raises(RuntimeError, match="StopAsyncIteration"):
        await asked().run_tools(model(says(None, call(1, "find")), says("ok")), [find], loop=loop)


async def test_a_refusal_is_never_raised():
    loop = ToolLoop(on_error="raise", approve=lambda _: False)
    generator = model(says(None, call(1, "add", a=1, b=1)), says("ok"))
    assert (await asked().run_tools(generator, [add], loop=loop)).text == "ok"


async def test_the_text_of_a_tool_error_is_told_as_it_is():
    def refuse() -> str:
        """Refuse."""
        raise ToolError("the shop is closed")

    answer = await asked().run_tools(model(says(None, call(1, "refuse")), says("ok")), [refuse])
    assert texts(answer)[1] == "the shop is closed"
    assert flags(answer) == [True]


# Limits.


async def test_an_approval_that_does_not_come_is_bounded_by_the_deadline():
    async def approve(_):
        await asyncio.sleep(60)

    node = asked()
    with pytest.raises(RequestTimeoutError, match="deadline_secs"):
        await node.run_tools(
            model(says(None, call(1, "add", a=1, b=1))), [add],
            loop=ToolLoop(deadline_secs=0.1, approve=approve),
        )  # fmt: skip
    waiting = next(node.leaves())
    assert (await waiting.run_tools(model(says("ok")), [add])).text == "ok"


async def test_an_approval_that_raises_runs_nothing_and_can_be_asked_again():
    async def approve(_):
        raise TimeoutError("nobody is there")

    node = asked()
    with pytest.raises(TimeoutError, match="nobody"):
        await node.run_tools(
            model(says(None, call(1, "add", a=1, b=1))), [add],
            loop=ToolLoop(deadline_secs=60, approve=approve),
        )  # fmt: skip
    waiting = next(node.leaves())
    assert texts(await waiting.run_tools(model(says("ok")), [add])) == [None, "2", "ok"]


async def test_only_what_can_run_needs_an_approval():
    seen = []
    human = ToolDefinition(name="ask_human")
    loop = ToolLoop(approve=lambda one: seen.append(one.name) or True)
    generator = model(says(None, call(1, "remove"), call(2, "add", a=1, b=1)), says("ok"))
    await asked().run_tools(generator, [add], loop=loop)
    assert seen == ["add"]
    generator = model(says(None, call(1, "add", a=1, b=1), call(2, "ask_human")))
    await asked().run_tools(generator, [add, human], loop=loop)
    assert seen == ["add"]


async def test_a_budget_that_ends_in_the_middle_leaves_the_results():
    node = asked()
    generator = model(says(None, call(1, "add", a=1, b=1))).with_token_price(TokenPrice(1, 1))
    params = CompletionParameters(max_tokens=10, tools=[add])
    ceiling = node.estimate_cost(generator, params).ceiling
    settings = NodeCompletionParameters(params=params, budget=Budget(ceiling), retry=0)
    with pytest.raises(BudgetExceededError):
        await node.run_tools(generator, [add], settings)
    assert texts(next(node.leaves())) == [None, "2"]


@pytest.mark.parametrize("name", ["max_turns", "max_parallel", "max_result_chars"])
def test_a_limit_cannot_be_left_out(name):
    with pytest.raises(InvalidParameterError, match=name):
        ToolLoop(**{name: None})


def test_what_is_no_function_is_refused_before_it_is_called():
    for name in ("approve", "on_event"):
        with pytest.raises(InvalidParameterError, match=name):
            ToolLoop(**{name: True})
    with pytest.raises(InvalidParameterError, match="function"):
        Tool(definition=ToolDefinition(name="a"), run="print")
    with pytest.raises(InvalidParameterError, match="ToolDefinition"):
        Tool(definition={"name": "a"}, run=print)


def test_an_observer_that_would_have_to_be_awaited_is_refused():
    async def observe(_: object) -> None:
        raise AssertionError

    with pytest.raises(InvalidParameterError, match="not awaited"):
        ToolLoop(on_event=observe)


async def test_a_generator_function_is_no_tool():
    def lines():
        """Read the lines."""
        yield "a"

    async def pages():
        """Read the pages."""
        yield "a"

    for function in (lines, pages, functools.partial(lines)):
        with pytest.raises(InvalidParameterError, match="generator function"):
            await asked().run_tools(model(), [function])


# Files.


@pytest.mark.parametrize("when", ["before", "while"])
async def test_a_journal_that_cannot_be_written_ends_the_loop_with_a_valid_tree(tmp_path, when):
    path, ran = tmp_path / "journal", []

    def spoil() -> None:
        path.unlink()
        path.write_text("another file\n")

    async def work(number: int) -> int:
        """Work."""
        ran.append(number)
        if when == "while" and number == 1:
            spoil()
        return number

    node = asked()
    node.root_node.attach_journal(path)
    calls = [call(number, "work", number=number) for number in (1, 2)]
    asking = await node.complete(model(says(None, *calls)), tools=[work])
    if when == "before":
        spoil()
    with pytest.raises(StorageError, match="replaced"):
        await asking.run_tools(model(), [work], loop=ToolLoop(max_parallel=1))
    expected = {"before": [NOT_STARTED, NOT_STARTED], "while": ["1", NOT_STARTED]}[when]
    last = next(asking.leaves())
    assert texts(last) == [None, *expected]
    path.unlink()
    assert (await last.run_tools(model(says("ok")), [work])).text == "ok"
    assert ran == {"before": [], "while": [1]}[when]
    assert texts(next(ChatNode.load_tree(path).leaves())) == [None, *expected, "ok"]
