"""The tool loop: every step is a node, and no call is left without a result."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

import msgspec
import pytest
from tool_scripts import (
    CANCELLED,
    UNCERTAIN,
    add,
    asked,
    call,
    fail,
    flags,
    greet,
    model,
    says,
    sent,
    sleep,
    streams,
    texts,
)

from minillmlib import (
    BadRequestError,
    ChatNode,
    CompletionParameters,
    ImagePart,
    InvalidParameterError,
    NodeCompletionParameters,
    RequestTimeoutError,
    TextPart,
    Tool,
    ToolDefinition,
    ToolEvent,
    ToolLoop,
    TurnLimitError,
    iterate,
    run,
)
from minillmlib.testing import ScriptedReply

PNG = b"\x89PNG\r\n\x1a\n"


ONCE = NodeCompletionParameters(retry=0)


async def test_tools_run_until_the_model_answers_and_each_step_is_a_node():
    generator = model(
        says("I add.", call(1, "add", a=1, b=2), call(2, "greet", name="Ada")),
        says(None, call(3, "add", a=3, b=4)),
        says("It is 7."),
    )
    node = asked()
    answer = await node.run_tools(generator, [add, greet])
    assert texts(answer) == ["I add.", "3", "Hello Ada", None, "7", "It is 7."]
    assert answer.parent.parent.parent.parent.parent.parent == node
    tools = [tool["function"]["name"] for tool in sent(generator, 0)["tools"]]
    assert tools == ["add", "greet"]
    assert [one["role"] for one in sent(generator, 2)["messages"]][2:] == [
        "assistant", "tool", "tool", "assistant", "tool",
    ]  # fmt: skip


async def test_what_goes_wrong_is_told_to_the_model_and_not_to_the_caller():
    calls = [
        call(1, "fail", what="luck"), call(2, "add", a="x", b=1), call(3, "remove", all=True),
        {"id": "call_4", "function": {"name": "add", "arguments": "{"}}, call(5, "add", a=1, b=1),
    ]  # fmt: skip
    answer = await asked().run_tools(model(says(None, *calls), says("ok")), [add, fail])
    _, failed, wrong, unknown, broken, right, ok = texts(answer)
    assert failed == "LookupError: no luck"
    assert "`$.a`" in wrong
    assert unknown == "there is no tool 'remove'; the tools are add, fail"
    assert "not JSON" in broken
    assert (right, ok) == ("2", "ok")
    assert flags(answer) == [True, True, True, True, False]


async def test_an_exception_is_raised_on_demand_once_all_results_are_in_the_tree():
    node = asked()
    generator = model(says(None, call(1, "fail", what="x"), call(2, "add", a=1, b=1)), says("ok"))
    with pytest.raises(LookupError, match="no x"):
        await node.run_tools(generator, [add, fail], loop=ToolLoop(on_error="raise"))
    last = next(node.leaves())
    assert texts(last) == [None, "LookupError: no x", "2"]
    assert (await last.run_tools(generator, [add, fail])).text == "ok"


async def test_calls_run_at_once_in_threads_or_as_tasks_and_their_results_keep_the_order():
    meeting = threading.Barrier(2, timeout=5)

    def meet(name: str) -> str:
        """Wait for the other."""
        meeting.wait()
        time.sleep(0.05 if name == "a" else 0)
        return name

    answer = await asked().run_tools(
        model(says(None, call(1, "meet", name="a"), call(2, "meet", name="b")), says("ok")), [meet]
    )
    assert texts(answer) == [None, "a", "b", "ok"]


async def test_at_most_so_many_tools_run_at_the_same_time():
    running, most = 0, 0

    async def work(number: int) -> int:
        """Work."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return number

    calls = [call(number, "work", number=number) for number in range(20)]
    answer = await asked().run_tools(
        model(says(None, *calls), says("ok")), [work], loop=ToolLoop(max_parallel=3)
    )
    assert texts(answer)[1:-1] == [str(number) for number in range(20)]
    assert most == 3


async def test_a_tool_that_takes_too_long_is_told_to_the_model():
    async def own() -> str:
        """Time out by itself."""
        raise TimeoutError

    generator = model(says(None, call(1, "sleep"), call(2, "own")), says("ok"))
    answer = await asked().run_tools(generator, [sleep, own], loop=ToolLoop(tool_timeout_secs=0.01))
    assert texts(answer) == [None, "sleep did not end within 0.01 s", "TimeoutError", "ok"]


async def test_the_turns_are_limited_and_the_last_results_are_kept():
    node, generator = asked(), model(*[says(None, call(1, "add", a=1, b=1))] * 3, says("ok"))
    with pytest.raises(TurnLimitError, match="after 3 turns"):
        await node.run_tools(generator, [add], loop=ToolLoop(max_turns=3))
    last = next(node.leaves())
    assert texts(last) == [None, "2"] * 3
    assert (await last.run_tools(generator, [add])).text == "ok"


async def test_eight_turns_are_enough_unless_the_caller_says_otherwise():
    calls = [says(None, call(1, "add", a=1, b=1))] * 8
    answer = await asked().run_tools(model(*calls[:7], says("ok")), [add])
    assert answer.text == "ok"
    with pytest.raises(TurnLimitError, match="after 8 turns"):
        await asked().run_tools(model(*calls, says("ok")), [add])


async def test_the_whole_loop_has_a_deadline_also_within_a_tool():
    node = asked()
    with pytest.raises(RequestTimeoutError, match="deadline_secs"):
        await node.run_tools(
            model(says(None, call(1, "sleep"), call(2, "add", a=1, b=1))), [sleep, add],
            loop=ToolLoop(deadline_secs=0.2),
        )  # fmt: skip
    assert texts(next(node.leaves())) == [None, CANCELLED, "2"]


async def test_an_error_of_the_model_leaves_the_steps_before_it():
    node = asked()
    generator = model(
        says(None, call(1, "add", a=1, b=1)),
        ScriptedReply.json({"error": {"message": "no"}}, status=400),
        says("ok"),
    )
    with pytest.raises(BadRequestError):
        await node.run_tools(generator, [add], ONCE)
    last = next(node.leaves())
    assert texts(last) == [None, "2"]
    assert (await last.run_tools(generator, [add])).text == "ok"


# Approval.


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_call_runs_only_when_it_is_approved(is_async):
    def approve(asked_for):
        return {"add": True, "greet": False, "fail": "ask somebody else"}[asked_for.name]

    async def approve_later(asked_for):
        return approve(asked_for)

    calls = [call(1, "add", a=1, b=2), call(2, "greet", name="x"), call(3, "fail", what="x")]
    loop = ToolLoop(approve=approve_later if is_async else approve)
    answer = await asked().run_tools(
        model(says(None, *calls), says("ok")), [add, greet, fail], loop=loop
    )
    told = ["the user did not allow this call", "ask somebody else"]
    assert texts(answer) == [None, "3", *told, "ok"]
    assert flags(answer) == [False, True, True]


async def test_an_approval_that_is_not_given_now_ends_the_loop_until_later_in_another_process(
    tmp_path,
):
    ran = []

    def record(what: str) -> str:
        """Record."""
        ran.append(what)
        return what

    generator = model(
        says("wait", call(1, "record", what="a"), call(2, "record", what="b")), says("ok")
    )
    node = asked()
    paused = await node.run_tools(
        generator, [record], loop=ToolLoop(approve=lambda c: None if c.id == "call_2" else True)
    )
    assert (paused.text, len(paused.tool_calls), ran) == ("wait", 2, [])
    paused.root_node.save_tree(tmp_path / "paused")
    again = ChatNode.load_tree(tmp_path / "paused").find(paused.id)
    answer = await again.run_tools(generator, [record], loop=ToolLoop(approve=lambda _: True))
    assert texts(answer) == ["wait", "a", "b", "ok"]
    assert ran == ["a", "b"]


async def test_a_tool_without_a_function_is_left_to_the_caller():
    human = ToolDefinition(name="ask_human", description="Ask.")
    generator = model(says(None, call(1, "ask_human"), call(2, "add", a=1, b=2)), says("ok"))
    node = await asked().run_tools(generator, [human, add])
    assert [one.name for one in node.tool_calls] == ["ask_human", "add"]
    answer = await node.add_tool_result("call_1", "yes").run_tools(generator, [human, add])
    assert texts(answer) == [None, "yes", "3", "ok"]


async def test_an_answer_that_is_not_yes_no_a_reason_or_later_is_refused():
    with pytest.raises(InvalidParameterError, match="approve returns"):
        await asked().run_tools(
            model(says(None, call(1, "add", a=1, b=1))), [add], loop=ToolLoop(approve=lambda _: 1)
        )


# Crashes, and leaving early.


async def test_a_call_that_a_crash_interrupted_is_not_run_again(tmp_path):
    path, ran = tmp_path / "journal", []

    class Crash(BaseException):
        pass

    async def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        if amount == 2 and len(ran) == 2:
            raise Crash  # as a process that is killed: nothing of it is recorded
        return f"paid {amount}"

    root = ChatNode.root("s")
    root.attach_journal(path)
    calls = [call(number, "pay", amount=number) for number in (1, 2)]
    node = await root.add_user("u").complete(model(says(None, *calls)), tools=[pay])
    node.note("_started 1", value=True)
    ran.append(2)
    again = ChatNode.load_tree(path)
    again.attach_journal(path)
    answer = await again.find(node.id).run_tools(model(says("ok")), [pay])
    assert ran == [2, 1]
    assert texts(answer)[1] == "paid 1"
    assert texts(answer)[2] == UNCERTAIN


@pytest.mark.parametrize("steps", range(9))
async def test_a_loop_that_is_left_early_leaves_no_call_without_a_result(steps):
    node = asked()
    calls = [call(1, "add", a=1, b=2), call(2, "greet", name="x")]
    generator = model(streams("a|b", *calls), streams("c|d"))
    async with node.run_tools_streaming(generator, [add, greet]) as events:
        for _ in range(steps):
            await anext(events)
    for leaf in node.leaves():
        results = {message.tool_call_id for message in leaf.thread() if message.tool_call_id}
        asked_for = {c.id for message in leaf.thread() for c in message.tool_calls}
        assert results == asked_for
    assert (await events.node.run_tools(model(says("ok")), [add, greet])).text == "ok"


async def test_a_loop_that_is_cancelled_in_a_tool_leaves_no_call_without_a_result():
    node, is_in = asked(), asyncio.Event()

    async def sleep() -> str:
        """Sleep."""
        is_in.set()
        await asyncio.sleep(60)
        return "never"

    calls = [call(1, "add", a=1, b=2), call(2, "sleep")]
    task = asyncio.create_task(node.run_tools(model(says(None, *calls)), [add, sleep]))
    await is_in.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert texts(next(node.leaves())) == [None, "3", CANCELLED]


# Events.


async def test_the_steps_can_be_watched_as_they_happen():
    seen: list[ToolEvent] = []
    calls = [call(1, "add", a=1, b=2), call(2, "greet", name="x")]
    generator = model(streams("a|b", *calls), streams("c|d"))
    async with asked().run_tools_streaming(
        generator, [add, greet], loop=ToolLoop(on_event=seen.append)
    ) as events:
        taken = [event async for event in events]
    assert taken == seen
    kinds = [event.kind for event in taken if event.kind != "chunk"]
    assert kinds == ["answer", "call", "call", "result", "result", "answer"]
    assert "".join(event.chunk.delta for event in taken if event.chunk) == "abcd"
    assert [event.node.text for event in taken if event.kind == "result"] == ["3", "Hello x"]
    assert events.node.text == "cd"


def test_the_steps_can_be_read_in_plain_code():
    events = asked().run_tools_streaming(model(streams("a|b")), [add])
    assert [event.kind for event in iterate(events)] == ["chunk", "chunk", "chunk", "answer"]


# Results.


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"), (None, None), (3.5, "3.5"), (Point(1, 2), '{"x":1,"y":2}'),
        ([Point(1, 2)], '[{"x":1,"y":2}]'), ({"a": [1]}, '{"a":[1]}'), (b"ab", '"YWI="'),
        (1j, '"1j"'), ({1j: 2}, '{"1j":2}'), (TextPart("part"), "part"),
    ],
)  # fmt: skip
async def test_whatever_a_tool_returns_becomes_the_content_of_its_result(value, text):
    def get() -> object:
        """Get it."""
        return value

    answer = await asked().run_tools(model(says(None, call(1, "get")), says("ok")), [get])
    assert texts(answer)[1] == text


async def test_a_result_may_hold_media_and_its_text_is_limited():
    def look() -> list[object]:
        """Look."""
        return [TextPart("x" * 30), ImagePart.from_bytes(PNG, "image/png"), TextPart("y" * 30)]

    loop = ToolLoop(max_turns=1, max_result_chars=40)
    node = asked()
    with pytest.raises(TurnLimitError):  # the wire of the script takes no media in results
        await node.run_tools(model(says(None, call(1, "look"))), [look], loop=loop)
    first, image, last = next(node.leaves()).message.content
    assert first.text == "x" * 30
    assert isinstance(image, ImagePart)
    assert last.text == "y" * 10 + "\n[20 more characters were cut off]"


# Parameters.


async def test_a_choice_that_forces_a_call_holds_for_the_first_turn_only():
    generator = model(says(None, call(1, "add", a=1, b=1)), says("ok"))
    params = CompletionParameters(tool_choice="required")
    await asked().run_tools(generator, [add], params)
    assert [sent(generator, n).get("tool_choice") for n in (0, 1)] == ["required", None]


async def test_the_last_answer_may_be_typed():
    generator = model(says(None, call(1, "add", a=1, b=1)), says('{"x": 1, "y": 2}'))
    params = NodeCompletionParameters().expecting(Point)
    answer = await asked().run_tools(generator, [add], params)
    assert answer.parsed == Point(1, 2)


async def test_a_tool_may_have_a_definition_of_its_own():
    definition = ToolDefinition(name="any", parameters={"type": "object"})
    tool = Tool(definition=definition, run=lambda asked_for: asked_for.arguments_json()["q"])
    answer = await asked().run_tools(model(says(None, call(1, "any", q="z")), says("ok")), [tool])
    assert texts(answer) == [None, "z", "ok"]


@pytest.mark.parametrize(
    ("tools", "params", "loop", "match"),
    [
        (add, None, ToolLoop(), "must be a list"),
        ([add, add], None, ToolLoop(), "two of the tools"),
        (["add"], None, ToolLoop(), "a tool must be .* a function, not str"),
        ([add], CompletionParameters(tools=[greet]), ToolLoop(), "'greet'"),
        ([add], None, 3, "ToolLoop"),
        ([print], None, ToolLoop(), "any number of values"),
    ],
)
async def test_what_cannot_be_a_loop_is_refused_before_anything_is_sent(tools, params, loop, match):
    with pytest.raises(InvalidParameterError, match=match):
        await asked().run_tools(model(), tools, params, loop)


@pytest.mark.parametrize("name", ["max_turns", "max_parallel", "max_result_chars"])
def test_the_limits_of_a_loop_are_at_least_one(name):
    for value in (0, -1, 1.5, "3"):
        with pytest.raises(InvalidParameterError, match=name):
            ToolLoop(**{name: value})
    with pytest.raises(InvalidParameterError, match="on_error"):
        msgspec.structs.replace(ToolLoop(), on_error="ignore")


# Notes.


def test_notes_are_kept_with_their_nodes(tmp_path):
    path = tmp_path / "tree"
    root = ChatNode.root("s")
    root.attach_journal(path)
    node = root.add_user("u").note("score", 0.5).note("label", "good").note("wrong", value=True)
    node.note("wrong", None).note("score", 0.75)
    assert node.notes == {"score": 0.75, "label": "good"}
    for loaded in (ChatNode.load_tree(path), root.graft(node).parent):
        assert [one.notes for one in loaded.depth_first() if one.text == "u"][-1] == node.notes
    root.save_tree(tmp_path / "saved")
    best = ChatNode.load_tree(tmp_path / "saved").find(lambda one: one.notes.get("score", 0) > 0.7)
    assert best.id == node.id
    assert run(node.complete(model(says("ok")))).notes == {}


@pytest.mark.parametrize(
    ("name", "value"), [("", 1), ("a\nb", 1), (5, 1), (["a"], 1), ("a", [1]), ("a", "\ud800")]
)
def test_a_note_that_a_file_cannot_keep_is_refused(name, value):
    with pytest.raises(InvalidParameterError, match="name of a note|the note 'a' must be a text"):
        ChatNode.root().note(name, value)


def test_notes_are_shown_in_the_page_and_not_those_of_the_library():
    root = ChatNode.root("s")
    root.add_user("u").note("score", 0.5).note("_started 0", value=True)
    page = root.to_html()
    assert '"notes":[["score","0.5"]]' in page
    assert "_started" not in page
