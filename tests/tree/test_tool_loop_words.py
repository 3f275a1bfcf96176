"""What a tool loop sends, tells and raises, word for word, and when its time is over."""

from __future__ import annotations

import asyncio
import functools
import re

import msgspec
import pytest
from tool_scripts import (
    CANCELLED,
    NOT_STARTED,
    UNCERTAIN,
    add,
    asked,
    call,
    flags,
    greet,
    model,
    says,
    sent,
    sleep,
    streams,
    texts,
)
from virtual_clock import now, run_virtually

from minillmlib import (
    ChatNode,
    CompletionParameters,
    ImagePart,
    IncompleteStreamError,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    RequestTimeoutError,
    StorageError,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolError,
    ToolEvent,
    ToolLoop,
    TurnLimitError,
    run,
)
from minillmlib.tree.tool_loop import ToolRun, open_calls

HUMAN = ToolDefinition(name="ask_human")


def refusal_of(act, *given, **named) -> str:
    with pytest.raises(InvalidParameterError) as caught:
        act(*given, **named)
    return str(caught.value)


async def turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


# What is refused.


def lines():
    """Read."""
    yield "a"


async def observe(_: object) -> None:
    """Observe."""


SETTINGS = [
    ({"max_turns": 0}, "max_turns must be at least 1, not 0"),
    ({"max_parallel": 0}, "max_parallel must be at least 1, not 0"),
    ({"max_result_chars": 0}, "max_result_chars must be at least 1, not 0"),
    ({"max_turns": None}, "max_turns must be a whole number, not None"),
    ({"max_parallel": 1.5}, "max_parallel must be a whole number, not 1.5"),
    ({"tool_timeout_secs": -1}, "tool_timeout_secs must be at least 0, not -1"),
    ({"deadline_secs": -1}, "deadline_secs must be at least 0, not -1"),
    ({"deadline_secs": "1"}, "deadline_secs must be a finite number, not '1'"),
    ({"approve": 5}, "approve must be a function, not 5"),
    ({"on_event": "x" * 90}, f"on_event must be a function, not '{'x' * 79}"),
    ({"on_event": observe}, "on_event is called and not awaited, so a coroutine function would do "
     "nothing; read the events of run_tools_streaming instead"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "told"), SETTINGS)
def test_settings_that_make_no_sense_are_named(settings, told):
    assert refusal_of(ToolLoop, **settings) == told


def test_what_a_loop_does_unless_it_is_told_otherwise():
    assert ToolLoop() == ToolLoop(
        max_turns=8, max_parallel=8, tool_timeout_secs=None, deadline_secs=None,
        max_result_chars=100_000, on_error="tell", approve=None, on_event=None,
    )  # fmt: skip
    for name in ("max_turns", "max_parallel", "max_result_chars"):
        assert getattr(ToolLoop(**{name: 1}), name) == 1
    for name in ("tool_timeout_secs", "deadline_secs"):
        assert getattr(ToolLoop(**{name: 0}), name) == 0


TOOLS = [
    ((add,), None, None),
    (add, None, "the tools of run_tools must be a list of functions or tools"),
    ([add, greet, add], None, "two of the tools have the name 'add'"),
    ([add, ToolDefinition(name="add")], None, "two of the tools have the name 'add'"),
    ([lines], None, "lines is a generator function, which has no result; a tool returns its result "
     "whole"),
    ([add], CompletionParameters(tools=[add, greet]), "the parameters have a tool 'greet' that "
     "run_tools was not given; give all tools to run_tools"),
    ([add, greet], CompletionParameters(tools=[greet]), None),
]  # fmt: skip


@pytest.mark.parametrize(("tools", "params", "told"), TOOLS)
async def test_tools_that_cannot_be_used_are_named(tools, params, told):
    if told is None:
        generator = model(says("ok"))
        await asked().run_tools(generator, tools, params)
        names = [one["function"]["name"] for one in sent(generator, 0)["tools"]]
        assert names == [tool.__name__ for tool in tools]
    else:
        assert refusal_of(asked().run_tools_streaming, model(), tools, params) == told


@pytest.mark.parametrize(
    "given", [{"definition": "x", "run": print}, {"definition": HUMAN, "run": 5}]
)
def test_a_tool_needs_a_definition_and_a_function(given):
    assert refusal_of(Tool, **given) == ("a Tool needs a ToolDefinition, and a function as its run")


@pytest.mark.parametrize("approval", [1, 0, b"yes", ["x"]])
async def test_an_approval_is_yes_no_a_reason_or_later(approval):
    with pytest.raises(InvalidParameterError) as caught:
        await asked().run_tools(
            model(says(None, call(1, "add", a=1, b=1))), [add],
            loop=ToolLoop(approve=lambda _: approval),
        )  # fmt: skip
    assert str(caught.value) == (
        f"approve returns True, False, a reason or None, not {approval!r:.80}"
    )


async def test_a_call_that_is_refused_is_told_with_the_reason():
    reasons = {"call_1": True, "call_2": False, "call_3": "", "call_4": "not today"}
    calls = [call(number, "add", a=number, b=0) for number in range(1, 5)]
    answer = await asked().run_tools(
        model(says(None, *calls), says("ok")), [add],
        loop=ToolLoop(approve=lambda one: reasons[one.id]),
    )  # fmt: skip
    refused = "the user did not allow this call"
    assert texts(answer) == [None, "1", refused, refused, "not today", "ok"]
    assert flags(answer) == [False, True, True, True]


# What is told to the model.


class SilentError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def raising(error: Exception):
    def work() -> str:
        """Work."""
        raise error

    return work


ERRORS = [
    (LookupError("no x"), "LookupError: no x"),
    (LookupError(), "LookupError"),
    (SilentError(), "SilentError"),
    (ToolError("closed"), "closed"),
    (ToolError(""), None),
    (TimeoutError("slow"), "TimeoutError: slow"),
    (ValueError("x" * 30), "ValueError: xxxxxxxx\n[22 more characters were cut off]"),
    (ValueError("x" * 8), "ValueError: xxxxxxxx"),
    (ValueError("x" * 9), "ValueError: xxxxxxxx\n[1 more character was cut off]"),
]


@pytest.mark.parametrize(("error", "told"), ERRORS)
async def test_an_error_of_a_tool_is_its_name_and_its_text(error, told):
    answer = await asked().run_tools(
        model(says(None, call(1, "work")), says("ok")), [raising(error)],
        loop=ToolLoop(max_result_chars=20),
    )  # fmt: skip
    assert texts(answer) == [None, told, "ok"]
    assert flags(answer) == [True]


class Dumped:
    def model_dump(self, mode: str) -> dict[str, str]:
        return {"mode": mode}


class Shown:
    model_dump = "no function"

    def __str__(self) -> str:
        return "shown"


class Both:
    """Can be neither JSON nor a list of parts."""

    def __str__(self) -> str:
        return "both"


IMAGE = ImagePart(data=b"GIF89a")
RESULTS = [
    ("", None), ("a" * 40, "a" * 40), ("a" * 41, "a" * 40 + "\n[1 more character was cut off]"),
    ("a" * 2041, "a" * 40 + "\n[2,001 more characters were cut off]"),
    ([1] * 30, "[" + "1," * 19 + "1" + "\n[21 more characters were cut off]"),
    (Dumped(), '{"mode":"json"}'), (Shown(), '"shown"'), ([Both()], '["both"]'), ([], "[]"), ((), "[]"),
    (False, "false"), (0, "0"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "told"), RESULTS)
async def test_a_result_is_a_text_or_json_and_not_too_long(value, told):
    def work() -> object:
        """Work."""
        return value

    answer = await asked().run_tools(
        model(says(None, call(1, "work")), says("ok")), [work], loop=ToolLoop(max_result_chars=40)
    )
    assert texts(answer) == [None, told, "ok"]
    assert flags(answer) == [False]


async def test_the_texts_of_a_result_of_parts_share_its_limit():
    async def parts() -> tuple:
        """Return parts."""
        return TextPart("abc"), IMAGE, TextPart("defg"), TextPart(""), TextPart("hi")

    async def part() -> TextPart:
        """Return a part."""
        return TextPart("abcdefgh")

    for tool, content in (
        (parts, (TextPart("abc"), IMAGE, TextPart("de\n[2 more characters were cut off]"),
                 TextPart(""), TextPart("\n[2 more characters were cut off]"))),
        (part, (TextPart("abcde\n[3 more characters were cut off]"),)),
    ):  # fmt: skip
        node = asked()
        with pytest.raises(TurnLimitError):
            await node.run_tools(
                model(says(None, call(1, tool.__name__))), [tool],
                loop=ToolLoop(max_turns=1, max_result_chars=5),
            )  # fmt: skip
        assert next(node.leaves()).message.content == content


async def test_a_tool_that_there_is_not_is_told_with_those_there_are():
    long = "x" * 100
    generator = model(says(None, call(1, "remove"), call(2, long)), says("ok"))
    answer = await asked().run_tools(generator, [add, greet])
    assert texts(answer)[1:3] == [
        "there is no tool 'remove'; the tools are add, greet",
        f"there is no tool '{'x' * 79}; the tools are add, greet",
    ]
    generator = model(says(None, call(1, "remove")), says("ok"))
    answer = await asked().run_tools(generator, [])
    assert texts(answer)[1] == "there is no tool 'remove'; the tools are none"


# The order of things.


def told(event: ToolEvent) -> tuple:
    chunk = None if event.chunk is None else event.chunk.delta
    return event.kind, event.node.depth, event.node.text, event.call and event.call.id, chunk


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_every_step_is_an_event_with_its_node_and_its_call(is_streamed):
    seen: list[ToolEvent] = []
    calls = [call(1, "add", a=1, b=2), call(2, "greet", name="x"), call(3, "add", a=3, b=4)]
    reply = streams if is_streamed else says
    generator = model(reply("I add.", *calls), reply("Done."))
    loop = ToolLoop(on_event=seen.append)
    node = asked()
    if is_streamed:
        async with node.run_tools_streaming(generator, [add, greet], loop=loop) as events:
            taken = [event async for event in events]
        assert taken == seen
    else:
        await node.run_tools(generator, [add, greet], loop=loop)
    steps = [
        ("answer", 2, "I add.", None, None),
        ("call", 2, "I add.", "call_1", None),
        ("call", 2, "I add.", "call_2", None),
        ("call", 2, "I add.", "call_3", None),
        ("result", 3, "3", "call_1", None),
        ("result", 4, "Hello x", "call_2", None),
        ("result", 5, "7", "call_3", None),
        ("answer", 6, "Done.", None, None),
    ]
    assert [told(event) for event in seen if event.kind != "chunk"] == steps
    chunks = [told(event) for event in seen if event.kind == "chunk" and event.chunk.delta]
    assert chunks == (
        [("chunk", 1, "u", None, "I add."), ("chunk", 5, "7", None, "Done.")] if is_streamed else []
    )
    assert sorted(next(node.leaves()).path()[2].notes.items()) == [
        ("_started 0", True), ("_started 1", True), ("_started 2", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "choices"),
    [
        (None, [None, None]),
        ("auto", ["auto", "auto"]),
        ("required", ["required", None]),
        (ToolChoice.tool("add"), [{"type": "function", "function": {"name": "add"}}, None]),
        ("none", ["none", "none"]),
    ],
)
async def test_only_a_choice_that_forces_a_call_is_for_the_first_turn(choice, choices):
    generator = model(says(None, call(1, "add", a=1, b=1)), says("ok"))
    await asked().run_tools(
        generator, [add], CompletionParameters(tool_choice=choice, max_tokens=9)
    )
    assert [sent(generator, n).get("tool_choice") for n in (0, 1)] == choices
    assert [sent(generator, n).get("max_tokens") for n in (0, 1)] == [9, 9]


async def test_an_answer_that_is_forced_for_the_first_turn_is_free_in_the_next_loop():
    generator = model(says(None, call(1, "add", a=1, b=1)), says("a"), says("b"))
    params = CompletionParameters(tool_choice="required")
    answer = await asked().run_tools(generator, [add], params)
    await answer.add_user("more").run_tools(generator, [add], params)
    assert [sent(generator, n).get("tool_choice") for n in range(3)] == [
        "required", None, "required",
    ]  # fmt: skip


async def test_calls_of_which_one_is_left_to_the_caller_are_not_started():
    ran = []

    async def work() -> str:
        """Work."""
        ran.append(1)
        return "done"

    generator = model(
        says("wait", call(1, "work"), call(2, "ask_human"), call(3, "work")), says("ok")
    )
    async with asked().run_tools_streaming(generator, [work, HUMAN]) as events:
        kinds = [event.kind async for event in events]
    assert kinds[-1] == "answer"
    assert (events.node.text, ran, events.node.notes) == ("wait", [], {})
    node = events.node.add_tool_result("call_2", "yes")
    answer = await node.run_tools(generator, [work, HUMAN])
    assert texts(answer) == ["wait", "yes", "done", "done", "ok"]


# Which calls are open.


def thread(*results: str, calls: str = "abc") -> ChatNode:
    """A node whose calls have these ids, and these results below it."""
    made = [ToolCall(id=one, name=one, arguments="{}") for one in calls]
    _, node = ChatNode.from_messages([Message.user("u"), Message.assistant("", made)])
    for one in results:
        node = node.add_tool_result(one, f"of {one}")
    return node


@pytest.mark.parametrize(
    ("results", "calls", "places"),
    [
        ("", "abc", [0, 1, 2]),
        ("a", "abc", [1, 2]),
        ("c", "abc", [0, 1]),
        ("ba", "abc", [2]),
        ("cab", "abc", []),
        ("a", "aab", [1, 2]),
        ("aa", "aab", [2]),
        ("aaa", "aab", [2]),
        ("ba", "aab", [1]),
        ("bb", "aab", [0, 1]),
    ],
)
def test_calls_are_open_until_they_have_a_result_and_the_first_of_twins_first(
    results, calls, places
):
    node = thread(*results, calls=calls)
    asking, found = open_calls(node)
    assert asking.depth == 1
    assert list(found) == places
    assert [one.id for one in found.values()] == [calls[place] for place in places]


def test_a_node_that_is_no_result_has_its_own_calls_open():
    node = thread("a", "b", "c").add_user("next")
    assert open_calls(node) == (node, {})
    ((root, leaf),) = [ChatNode.from_messages([Message.tool_result("x", "lost")])]
    assert open_calls(leaf) == (root, {})


async def test_a_result_that_another_branch_has_is_taken_with_its_flag():
    ran = []

    async def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        if amount == 2:
            raise ConnectionError("cut")
        return f"paid {amount}"

    calls = [call(number, "pay", amount=number) for number in range(3)]
    node = asked()
    first = await node.run_tools(model(says(None, *calls), says("a")), [pay])
    asking = first.path()[2]
    other = asking.add_user("never mind").add_assistant("fine")
    again = await asking.run_tools(model(says("b")), [pay])
    assert texts(again) == [None, "paid 0", "paid 1", "ConnectionError: cut", "b"]
    assert flags(again) == [False, False, True]
    middle = first.path()[4]
    onwards = await middle.run_tools(model(says("c")), [pay])
    assert texts(onwards) == [None, "paid 0", "paid 1", "ConnectionError: cut", "c"]
    assert ran == [0, 1, 2]
    assert other.is_leaf


async def test_a_call_that_was_started_and_has_no_result_anywhere_is_told_as_uncertain():
    calls = [call(number, "add", a=number, b=0) for number in range(3)]
    asking = await asked().complete(model(says(None, *calls)), tools=[add])
    asking.note("_started 1", value=True)
    answer = await asking.run_tools(model(says("ok")), [add])
    assert texts(answer) == [None, "0", UNCERTAIN, "2", "ok"]
    assert flags(answer) == [False, True, False]


# When the time is over.


def after(secs: float):
    async def work() -> str:
        """Work."""
        await asyncio.sleep(secs)
        return "done"

    return work


@pytest.mark.parametrize(
    ("limit", "secs", "text"),
    [(5, 4, "done"), (5, 6, "work did not end within 5 s"), (0.5, 1, "work did not end within 0.5 s"),
     (None, 10_000, "done"), (0, 1, "work did not end within 0 s")],
)  # fmt: skip
def test_a_tool_has_the_time_of_its_limit(limit, secs, text):
    async def main():
        answer = await asked().run_tools(
            model(says(None, call(1, "work")), says("ok")), [after(secs)],
            loop=ToolLoop(tool_timeout_secs=limit),
        )  # fmt: skip
        assert texts(answer) == [None, text, "ok"]
        assert now() == (secs if text == "done" else limit)

    run_virtually(main())


async def ask_for(secs: float, _: object) -> bool:
    await asyncio.sleep(secs)
    return True


@pytest.mark.parametrize("place", ["tool", "second tool", "approval", "model"])
@pytest.mark.parametrize("secs", [9, 11])
def test_a_loop_has_the_time_of_its_deadline_wherever_it_waits(place, secs):
    class Slow:
        def __init__(self, inner) -> None:
            self.inner = inner

        async def send(self, request):
            await asyncio.sleep(secs if place == "model" else 0)
            return await self.inner.send(request)

    async def main():
        node = asked()
        approve = functools.partial(ask_for, secs) if place == "approval" else None
        calls = [call(1, "add", a=1, b=1), call(2, "work")] if place == "second tool" else [
            call(1, "work")]  # fmt: skip
        generator = model(says(None, *calls), *[says(None, *calls)] * 9)
        generator = generator.with_transport(Slow(generator.transport))
        work = after(secs if "tool" in place else 0)
        loop = ToolLoop(deadline_secs=10, approve=approve, max_turns=1)
        with pytest.raises((RequestTimeoutError, TurnLimitError)) as caught:
            await node.run_tools(generator, [add, work], NodeCompletionParameters(retry=0), loop)
        assert (type(caught.value) is TurnLimitError) == (secs == 9)
        assert now() == min(secs, 10)
        if secs == 9:
            assert str(caught.value) == (
                "the model still asks for tools after 1 turn; call run_tools on the last node to "
                "go on, or raise max_turns"
            )
        elif place != "model":
            assert str(caught.value) == ("the tool loop did not end within 10 s (deadline_secs)")
            last = {"approval": [None], "tool": [None, CANCELLED]}.get(
                place, [None, "2", CANCELLED]
            )
            assert texts(next(node.leaves())) == last

    run_virtually(main())


def test_a_deadline_that_has_passed_sends_nothing_more():
    async def main():
        node, generator = asked(), model(says(None, call(1, "work")), says("never asked for"))
        loop = ToolLoop(deadline_secs=10)
        events = node.run_tools_streaming(generator, [after(0)], loop=loop)
        with pytest.raises(RequestTimeoutError, match="within 10 s"):
            async for event in events:
                if event.kind == "result":
                    await asyncio.sleep(10)
        assert len(generator.transport.requests) == 1
        with pytest.raises(IncompleteStreamError) as caught:
            await anext(events)
        assert str(caught.value) == (
            "the tool run cannot be read on: it failed (RequestTimeoutError: the tool loop did not "
            "end within 10 s (deadline_secs))"
        )

    run_virtually(main())


@pytest.mark.parametrize(("own", "expected"), [(3, 3), (None, 10), (30, 10)])
def test_a_call_of_the_model_has_the_shorter_of_two_deadlines(own, expected):
    class Never:
        async def send(self, request):
            await asyncio.sleep(1000)

    async def main():
        generator = model().with_transport(Never())
        params = NodeCompletionParameters(retry=0, deadline_secs=own)
        with pytest.raises(RequestTimeoutError):
            await asked().run_tools(generator, [add], params, ToolLoop(deadline_secs=10))
        assert now() == expected

    run_virtually(main())


# Ends.


async def test_whoever_reads_on_is_told_why_it_ended():
    events = asked().run_tools_streaming(model(streams("", call(1, "sleep"))), [sleep])
    reader = asyncio.create_task(events.collect())
    await turns()
    with pytest.raises(InvalidParameterError) as caught:
        await anext(events)
    assert str(caught.value) == "a tool run is read by one task at a time"
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    with pytest.raises(IncompleteStreamError) as caught:
        await anext(events)
    assert str(caught.value) == (
        "the tool run cannot be read on: its reader was cancelled or interrupted"
    )
    assert texts(events.node) == [None, CANCELLED]


async def double(a: int) -> int:
    """Double a number."""
    if a == 4:
        raise LookupError("no 4")
    return 2 * a


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_what_had_ended_when_a_loop_was_left_keeps_its_result(is_streamed):
    calls = [call(number, "double", a=number) for number in range(1, 6)]
    calls[1] = call(2, "sleep")
    node = asked()
    generator = model((streams if is_streamed else says)("", *calls))
    loop = ToolLoop(max_parallel=2)
    if is_streamed:
        async with node.run_tools_streaming(generator, [double, sleep], loop=loop) as events:
            async for event in events:
                if event.kind == "result":
                    await turns()
                    break
        last = events.node
    else:
        task = asyncio.create_task(node.run_tools(generator, [double, sleep], loop=loop))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        last = next(node.leaves())
    assert texts(last) == [None, "2", CANCELLED, "6", "LookupError: no 4", "10"]
    assert flags(last) == [False, True, False, True, False]


async def test_a_tool_that_waits_for_its_turn_when_a_loop_is_left_was_never_started():
    calls = [call(number, "sleep") for number in range(4)]
    node = asked()
    async with node.run_tools_streaming(
        model(streams("", *calls)), [sleep], loop=ToolLoop(max_parallel=2)
    ) as events:
        async for event in events:
            if event.kind == "call" and event.call.id == "call_3":
                await turns()
                break
    assert texts(events.node) == [None, CANCELLED, CANCELLED, NOT_STARTED, NOT_STARTED]
    assert [event async for event in events] == []


async def test_a_result_that_its_journal_refuses_is_below_its_call_beside_what_was_there(tmp_path):
    path = tmp_path / "journal"

    async def work() -> str:
        """Work."""
        path.unlink()
        path.write_text("another file\n")
        return "done"

    node = asked()
    node.root_node.attach_journal(path)
    asking = await node.complete(model(says(None, call(1, "work"))), tools=[work])
    before = [asking.add_user("before"), asking.add_user("and this")]
    events = asking.run_tools_streaming(model(says("never")), [work])
    with pytest.raises(StorageError, match="replaced"):
        await events.collect()
    assert events.node.text == "done"
    assert asking.children() == [*before, events.node]


def test_a_loop_that_is_dropped_warns_with_what_to_do():
    async def main():
        events = asked().run_tools_streaming(model(streams("", call(1, "add", a=1, b=1))), [add])
        while (await anext(events)).kind != "answer":
            pass
        pattern = re.escape(
            "a tool run was dropped before its end; use `async with` to leave early"
        )
        with pytest.warns(ResourceWarning, match=f"^{pattern}$") as warned:  # noqa: PT031
            del events
            await asyncio.sleep(0)
        assert (warned[0].filename, type(warned[0].source)) == (__file__, ToolRun)

    run(main())


@pytest.mark.parametrize(
    ("kind", "given", "name"),
    [
        (ToolEvent, {"kind": "answer", "node": None}, "node"),
        (ToolLoop, {"max_turns": 3}, "max_turns"),
        (Tool, {"definition": HUMAN, "run": print}, "run"),
    ],
)
def test_what_a_loop_takes_and_gives_is_made_by_name_and_does_not_change(kind, given, name):
    made = kind(**given)
    with pytest.raises(AttributeError):
        setattr(made, name, given[name])
    with pytest.raises(TypeError):
        kind(*given.values())


async def test_a_tool_is_a_struct_with_its_definition_and_its_function():
    tool = Tool.from_function(add)
    assert tool.definition == ToolDefinition.from_function(add)
    assert tool.run(ToolCall(id="c", name="add", arguments='{"a": 1, "b": 2}')) == 3
    later = Tool.from_function(greet)
    assert await later.run(ToolCall(id="c", name="greet", arguments='{"name": "x"}')) == "Hello x"
    with pytest.raises(AttributeError):
        tool.definition = HUMAN
    assert msgspec.structs.replace(tool, definition=HUMAN).definition == HUMAN
