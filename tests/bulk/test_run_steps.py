"""The steps of a run: what is asked when, what is told of it, and what it leaves behind."""

from __future__ import annotations

import asyncio
import errno
import json
from contextlib import suppress
from decimal import Decimal

import pytest
from bulk_server import Server, answer, refuses
from manual_clock import Clock
from virtual_clock import run_virtually

from minillmlib import (
    BadRequestError,
    Budget,
    BulkProgress,
    BulkRunEnded,
    BulkRunStarted,
    ChatNode,
    CompletionParameters,
    CostTotal,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    Pace,
    PartialFailureError,
    RateLimitError,
    StorageError,
    Width,
    iterate,
    map_complete,
    observe,
    run,
)
from minillmlib.bulk import run as runs
from minillmlib.testing import ScriptedReply, ScriptedTransport

ONCE = NodeCompletionParameters(retry=0, deadline_secs=0.2)
ROW_USD = Decimal("0.0002")


def texts_of(outcomes) -> list[str | None]:
    return [one.text for one in outcomes]


# Progress.


def test_progress_says_at_each_moment_how_far_the_run_is(monkeypatch):
    clock = Clock().install(monkeypatch)

    async def main() -> None:
        server = Server(refuses(400, "b"))
        bulk = map_complete(list("abcd"), server.generator, ONCE, width=2, ordered=True)
        none = BulkProgress(
            items=4, done=0, failed=0, from_journal=0, in_flight=0, width=0, elapsed_secs=0.0,
            cost=CostTotal(), is_over=False,
        )  # fmt: skip
        clock.now += 5
        assert bulk.progress == none
        with pytest.raises(InvalidParameterError, match="^the run has not begun$"):
            _ = bulk.width
        await anext(bulk)
        clock.now += 3
        begun = bulk.progress
        assert (begun.items, begun.width, begun.elapsed_secs, begun.is_over) == (4, 2, 3.0, False)
        assert begun.done + begun.failed >= 1
        assert repr(bulk.width) == f"Width(limit=2, in_use={begun.in_flight}, maximum=2)"
        assert len([one async for one in bulk]) == 3
        assert bulk.progress == BulkProgress(
            items=4, done=3, failed=1, from_journal=0, in_flight=0, width=2, elapsed_secs=3.0,
            cost=CostTotal(cost=3 * ROW_USD), is_over=True,
        )  # fmt: skip
        assert (bulk.total, bulk.earlier, bulk.maybe_paid) == (
            CostTotal(cost=3 * ROW_USD), CostTotal(), 0,
        )  # fmt: skip

    asyncio.run(main())


@pytest.mark.parametrize(
    ("items", "count"),
    [(list("abc"), 3), (tuple("ab"), 2), (iter("abcd"), None), (set("ab"), None)],
)
def test_only_a_sequence_says_how_many_items_there_are(items, count):
    assert map_complete(items, Server().generator).progress.items == count


def test_progress_is_told_ten_times_a_second_and_at_the_end(monkeypatch):
    clock = Clock().install(monkeypatch)
    told: list[tuple[int, float, bool]] = []

    def tell(progress: BulkProgress) -> None:
        told.append((progress.done, round(clock.now, 3), progress.is_over))

    def reply(said: str) -> ScriptedReply:
        clock.now += 0.04
        return ScriptedReply.json(answer(said))

    start = clock.now
    bulk = map_complete(list("abcdefg"), Server(reply).generator, width=1, on_progress=tell)
    assert len(run(bulk.collect())) == 7
    moments = [(done, round(now - start, 3), is_over) for done, now, is_over in told]
    assert moments == [(1, 0.04, False), (4, 0.16, False), (7, 0.28, False), (7, 0.28, True)]


def test_a_function_for_progress_is_called_and_not_awaited():
    async def tell(_progress) -> None:
        pass

    with pytest.raises(InvalidParameterError) as caught:
        map_complete(["a"], Server().generator, on_progress=tell)
    assert str(caught.value) == (
        "on_progress is called and not awaited, so a coroutine function would do nothing"
    )


# Failures.


def test_the_first_hundred_errors_are_kept_and_the_first_is_the_cause():
    items = [f"{n}" for n in range(104)]
    bulk = map_complete(items, Server(refuses(400, *items[1:])).generator, ONCE, width=1)
    run(bulk.collect())
    with pytest.raises(PartialFailureError) as caught:
        bulk.raise_for_failures()
    first = caught.value.errors[0]
    assert "no 1" in str(first)
    assert str(caught.value) == f"103 of 104 items failed; the first failure: {first}"
    assert caught.value.__cause__ is first
    assert len(caught.value.errors) == 100
    assert ["no 2" in str(caught.value.errors[1]), "no 100" in str(caught.value.errors[99])] == [
        True, True,
    ]  # fmt: skip
    good = map_complete(["a"], Server().generator)
    run(good.collect())
    assert good.raise_for_failures() is None


def test_the_sum_counts_every_attempt_once():
    flaky = iter([503, 200, 503, 503, 200, 400])

    def reply(said: str) -> ScriptedReply:
        status = next(flaky)
        if status != 200:
            return ScriptedReply.json({"error": {"message": "no"}}, status=status)
        return ScriptedReply.json(answer(said))

    params = NodeCompletionParameters(retry=2, back_off_time=0)
    bulk = map_complete(["a", "b", "c"], Server(reply).generator, params, width=1, ordered=True)
    outcomes = run_virtually(bulk.collect())
    assert [len(one.attempts) for one in outcomes] == [2, 3, 1]
    assert texts_of(outcomes) == ["a", "b", None]
    assert bulk.total == CostTotal(cost=2 * ROW_USD)


def test_an_answer_without_counts_is_of_unknown_cost():
    reply = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    bulk = map_complete(["a", "b"], Server(lambda _: ScriptedReply.json(reply)).generator)
    run(bulk.collect())
    assert bulk.total == CostTotal(unknown=2)


@pytest.mark.parametrize("is_shut", [True, False])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_has_long_refused_everything_ends_the_run(is_shut, status):
    pace = Pace()
    pace.is_shut = is_shut
    server = Server(refuses(status, *"abc"))
    bulk = map_complete(list("abc"), server.generator, ONCE, width=1, pace=pace)
    if is_shut and status == 429:
        with pytest.raises(RateLimitError):
            run_virtually(bulk.collect())
        assert (server.said, bulk.progress.failed) == (["a"], 1)
    else:
        assert texts_of(run_virtually(bulk.collect())) == [None] * 3


# Order and room.


def test_outcomes_that_cannot_be_ordered_come_at_the_end():
    class Breaks:
        def __init__(self, server):
            self.server = server

        async def send(self, request):
            if b'"1"' in request.body:
                await asyncio.sleep(0.01)
                raise ZeroDivisionError
            return await self.server.send(request)

    async def main() -> None:
        server = Server()
        generator = server.generator.with_transport(Breaks(server))
        bulk = map_complete(list("0123"), generator, width=4, ordered=True)
        texts = []
        with pytest.raises(ZeroDivisionError):
            async for outcome in bulk:
                texts.append(outcome.text)
        assert texts == ["0", "2", "3"]
        with pytest.raises(StopAsyncIteration):
            await anext(bulk)

    run(main())


@pytest.mark.parametrize("width", [1, 3])
def test_twice_as_many_items_are_taken_as_may_be_in_flight(width):
    async def main() -> None:
        taken = []

        def rows():
            for number in range(100):
                taken.append(number)
                yield str(number)

        bulk = map_complete(rows(), Server().generator, width=width)
        for read in range(1, 6):
            await anext(bulk)
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(taken) == 2 * width + read
        await bulk.aclose()

    run(main())


def test_items_that_need_no_request_give_others_a_turn():
    turns = []

    async def main() -> None:
        async def count() -> None:
            while True:
                turns.append(len(taken))
                await asyncio.sleep(0)

        taken = []

        def rows():
            for number in range(200):
                taken.append(number)
                yield 7  # which is no item

        counting = asyncio.ensure_future(count())
        bulk = map_complete(rows(), Server().generator, width=1000)
        assert len(await bulk.collect()) == 200
        counting.cancel()

    run(main())
    assert [turn for turn in turns if turn % 64 == 0 and turn][:3] == [64, 128, 192]


def test_an_input_is_closed_when_the_run_ends():
    closed = []

    async def rows():
        try:
            for text in "abc":
                yield text
        finally:
            closed.append("async")

    class Plain:
        def __init__(self):
            self.texts = iter("abc")

        def __aiter__(self):
            return self

        async def __anext__(self):
            try:
                return next(self.texts)
            except StopIteration:
                raise StopAsyncIteration from None

    async def main() -> None:
        bulk = map_complete(rows(), Server(secs=0).generator, width=1)
        await anext(bulk)
        assert closed == []
        await bulk.aclose()
        assert closed == ["async"]
        assert len(await map_complete(rows(), Server().generator).collect()) == 3
        assert closed == ["async"] * 2
        assert len(await map_complete(Plain(), Server().generator).collect()) == 3

    run(main())


def test_an_input_that_cannot_be_closed_is_the_problem_of_the_run():
    async def rows():
        try:
            for number in range(100):
                yield str(number)
        finally:
            raise OSError("the input cannot be closed")

    async def main() -> None:
        bulk = map_complete(rows(), Server().generator, width=1)
        await anext(bulk)
        bulk.stop()
        with pytest.raises(OSError, match="^the input cannot be closed$"):
            await bulk.collect()

    run(main())


# Ends.


def test_a_run_that_was_stopped_before_it_began_asks_nothing():
    server = Server()
    bulk = map_complete(["a"], server.generator)
    bulk.stop()
    bulk.stop()
    assert run(bulk.collect()) == []
    assert server.said == []
    assert bulk.progress.is_over


def test_a_run_that_is_stopped_while_it_waits_for_the_width_asks_no_more():
    async def main() -> None:
        server, width = Server(secs=0.01), Width(1, 1)
        bulk = map_complete(list("abc"), server.generator, width=width)
        reading = asyncio.ensure_future(bulk.collect())
        while not server.in_flight:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        bulk.stop()
        assert texts_of(await reading) == ["A"]
        assert (server.said, width.in_use) == (["a"], 0)
        bulk.stop()

    run(main())


def test_a_run_that_was_closed_can_be_closed_again():
    async def main() -> None:
        server = Server()
        bulk = map_complete(list("ab"), server.generator)
        assert len(await bulk.collect()) == 2
        for _ in range(2):
            await bulk.aclose()
        never = map_complete(list("ab"), server.generator)
        await never.aclose()
        assert await never.collect() == []
        assert server.said == ["a", "b"]

    run(main())


def test_a_call_that_is_cancelled_from_outside_ends_the_run_and_its_cost_is_unknown():
    class Cancels:
        async def send(self, request):
            raise asyncio.CancelledError

    bulk = map_complete(list("ab"), Server().generator.with_transport(Cancels()), width=1)
    with pytest.raises(MiniLLMError, match="^a call of the run was cancelled from outside$"):
        run(bulk.collect())
    assert bulk.total == CostTotal(unknown=1)


def test_an_input_that_is_cancelled_says_so():
    async def items():
        yield "a"
        raise asyncio.CancelledError

    with pytest.raises(MiniLLMError) as caught:
        run(map_complete(items(), Server().generator).collect())
    assert str(caught.value) == "the input of the run was cancelled before its end"


def test_an_item_that_cannot_be_recorded_is_not_asked_and_says_so(tmp_path, monkeypatch):
    def write(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    server, outcomes = Server(), []
    bulk = map_complete(list("abc"), server.generator, journal=tmp_path / "j", width=1, key=str)
    monkeypatch.setattr("os.write", write)
    with pytest.raises(StorageError) as caught:
        outcomes.extend(iterate(bulk))
    monkeypatch.undo()
    assert str(caught.value) == (
        f"the journal {str(tmp_path / 'j')!r} cannot be written (No space left on device); the run "
        "has ended: make room and run it again, and only what is missing is asked"
    )
    (outcome,) = outcomes
    assert (outcome.index, outcome.key, outcome.text, outcome.attempts) == (0, "a", None, ())
    assert outcome.error is caught.value
    assert (server.said, lines_of(tmp_path / "j")) == ([], [])


# Observers.


def told_of(*, items, **settings) -> list[tuple]:
    events = []
    with observe(events.append):
        bulk = map_complete(items, **settings)
        with suppress(MiniLLMError):
            run(bulk.collect())
    begun = [one for one in events if isinstance(one, BulkRunStarted)]
    ended = [one for one in events if isinstance(one, BulkRunEnded)]
    assert len(begun) == len(ended) == 1
    assert begun[0].id == ended[0].id
    children = {one.parent for one in events if type(one).__name__ == "CompletionStarted"}
    assert children <= {begun[0].id}
    first, last = begun[0], ended[0]
    return [
        (first.generator, first.model, first.items, first.parent),
        (last.done, last.failed, last.error, len(children)),
    ]


def test_an_observer_is_told_how_a_run_began_and_ended():
    server = Server(refuses(400, "b"))
    assert told_of(items=list("abc"), generator=server.generator, params=ONCE) == [
        ("t", "m", 3, None), (2, 1, None, 1),
    ]  # fmt: skip
    locked = Server(refuses(401, "b"))
    assert told_of(items=iter("abc"), generator=locked.generator, params=ONCE, width=1) == [
        ("t", "m", None, None), (1, 1, "AuthenticationError", 1),
    ]  # fmt: skip


def test_an_observer_is_told_of_a_run_that_was_left():
    events = []

    async def main() -> None:
        bulk = map_complete(list("abc"), Server().generator, width=1)
        await anext(bulk)
        await bulk.aclose()
        await bulk.aclose()

    with observe(events.append):
        run(main())
    (ended,) = [one for one in events if isinstance(one, BulkRunEnded)]
    assert (ended.done >= 1, ended.failed, ended.error) == (True, 0, None)


# Items.


@pytest.mark.parametrize(
    ("item", "prompt", "error"),
    [
        (7, None, "item 1 is int; the items of a run are texts, mappings for the placeholders of "
         "its prompt, or nodes"),
        ({"a": 1}, None, "item 1 is a mapping, but the run has no prompt whose placeholders it "
         "fills, and the item has no list of messages"),
        ({"messages": "text"}, None, "item 1 is a mapping, but the run has no prompt whose "
         "placeholders it fills, and the item has no list of messages"),
        ({"messages": []}, None, "item 1 is a mapping, but the run has no prompt whose "
         "placeholders it fills, and the item has no list of messages"),
        ({"messages": 5}, None, "item 1 is a mapping, but the run has no prompt whose "
         "placeholders it fills, and the item has no list of messages"),
        ({"b": None, "c": 1}, ChatNode.root().add_user("{a} {b} {c}"),
         "item 1 has no value for {a}, {b}"),
    ],
)  # fmt: skip
def test_an_item_that_is_none_says_what_it_lacks(item, prompt, error):
    good = {"a": 1, "b": 2, "c": 3, "messages": [{"role": "user", "content": "1 2 3"}]}
    bulk = map_complete([good, item], Server().generator, prompt=prompt, ordered=True)
    first, second = run(bulk.collect())
    assert (first.index, first.text, first.key) == (0, "1 2 3", "")
    assert (second.index, second.key, second.node, second.attempts, second.is_from_journal) == (
        1, "", None, (), False,
    )  # fmt: skip
    assert str(second.error) == error


def test_a_conversation_in_an_item_is_asked_as_it_is():
    messages = [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
    ]  # fmt: skip
    transport = ScriptedTransport(["C"])
    generator = Server().generator.with_transport(transport)
    (outcome,) = run(map_complete([{"messages": tuple(messages)}], generator).collect())
    assert json.loads(transport.requests[0].body)["messages"] == messages
    assert outcome.text == "C"


def test_a_prompt_is_a_node():
    with pytest.raises(InvalidParameterError) as caught:
        map_complete(["a"], Server().generator, prompt="Be brief.")
    assert str(caught.value) == (
        "the prompt of a run is a node, not str: ChatNode.root(...).add_user(...)"
    )


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}


def test_each_turn_of_a_tool_loop_is_recorded_before_its_request(tmp_path):
    turns = iter([answer("", CALL), answer("", CALL), answer("done")])
    server = Server(lambda _: ScriptedReply.json(next(turns)))
    params = CompletionParameters(max_tokens=20)
    bulk = map_complete(
        ["sum"], server.generator, params, tools=[add], journal=tmp_path / "j", budget=Budget(1),
        key=str,
    )  # fmt: skip
    (outcome,) = run(bulk.collect())
    *sent, end = lines_of(tmp_path / "j")
    assert [(one["kind"], one["key"], one.get("turn", 1)) for one in sent] == [
        ("sent", "sum", 1), ("sent", "sum", 2), ("sent", "sum", 3),
    ]  # fmt: skip
    ceilings = [Decimal(one["ceiling"]) for one in sent]
    assert ceilings == sorted(ceilings)
    assert ceilings[0] < ceilings[1] < ceilings[2]
    node = ChatNode.root().add_user("sum")
    assert ceilings[0] > node.estimate_cost(server.generator, params).ceiling, "the tools count"
    assert (end["kind"], end["key"], end["index"], len(end["turns"])) == ("done", "sum", 0, 5)
    assert ["response" in turn for turn in end["turns"]] == [True, False, True, False, True]
    assert not any("raw_response" in turn.get("response", {}) for turn in end["turns"])
    assert [len(outcome.attempts), outcome.key, outcome.index] == [3, "sum", 0]
    assert bulk.total.cost == 3 * ROW_USD


def test_a_tool_loop_that_fails_keeps_the_attempts_of_its_turns(tmp_path):
    replies = iter([ScriptedReply.json(answer("", CALL)),
                    ScriptedReply.json({"error": {"message": "no"}}, status=400)])  # fmt: skip
    server = Server(lambda _: next(replies))
    bulk = map_complete(
        ["sum"], server.generator, ONCE, tools=[add], journal=tmp_path / "j", key=str
    )
    (outcome,) = run(bulk.collect())
    assert isinstance(outcome.error, BadRequestError)
    assert [one.status for one in outcome.attempts] == [200, 400]
    assert [one.status for one in outcome.error.attempts] == [200, 400]
    assert bulk.total.cost == ROW_USD
    again = map_complete(
        ["sum"], server.generator, ONCE, tools=[add], journal=tmp_path / "j", key=str
    )
    (kept,) = run(again.collect())
    assert (kept.index, kept.key, kept.is_from_journal, type(kept.error), str(kept.error)) == (
        0, "sum", True, BadRequestError, str(outcome.error),
    )  # fmt: skip
    assert kept.attempts == kept.error.attempts == outcome.attempts
    assert (again.earlier.cost, again.total.cost) == (ROW_USD, 0)


def refuse(text: str) -> str:
    """Refuse."""
    raise ValueError(text)


def test_a_tool_loop_comes_back_from_the_journal_turn_by_turn(tmp_path):
    function = {"name": "refuse", "arguments": '{"text":"no"}'}
    calls = [CALL, {"id": "d", "type": "function", "function": function}]

    def reply(said: str) -> ScriptedReply:
        return ScriptedReply.json(answer("", *calls) if said == "sum" else answer("the end"))

    server = Server(reply)
    found = []
    for _ in range(2):
        settings = {"tools": [add, refuse], "journal": tmp_path / "j"}
        bulk = map_complete(["sum"], server.generator, **settings)
        (outcome,) = run(bulk.collect())
        found.append(outcome)
    first, again = found
    assert [one.is_from_journal for one in found] == [False, True]
    assert (again.index, again.key, again.attempts) == (0, first.key, first.attempts)
    assert again.node.thread() == first.node.thread()
    results = [message for message in again.node.thread() if message.role == "tool"]
    assert [(one.tool_call_id, one.is_error) for one in results] == [("c", False), ("d", True)]
    assert len(server.said) == 2


@pytest.mark.parametrize("name", ["", "a\tb", "a\n", 7, None, b"a"])
def test_a_name_of_an_item_is_a_line_of_text(tmp_path, name):
    bulk = map_complete(["a"], Server().generator, journal=tmp_path / "j", key=lambda _: name)
    (outcome,) = run(bulk.collect())
    assert str(outcome.error) == f"key() returns a line of text, not {name!r}"
    assert lines_of(tmp_path / "j") == []


def test_a_server_address_is_part_of_a_name(tmp_path):
    server = Server()
    for url in ("https://t.example/v1", "https://u.example/v1"):
        generator = server.generator.with_base_url(url)
        run(map_complete(["a"], generator, journal=tmp_path / "j").collect())
    assert server.said == ["a", "a"]
    keys = {line["key"] for line in lines_of(tmp_path / "j")}
    assert len(keys) == 2
    assert all(len(key) == 32 and key.isalnum() for key in keys)


def test_runs_have_these_bounds():
    assert (runs.PROGRESS_SECS, runs.TURN_ITEMS, runs.MAX_ERRORS) == (0.1, 64, 100)
