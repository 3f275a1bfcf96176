"""Runs over many items: every item has an outcome, and none harms another."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import pytest
from bulk_server import PROMPT, Server, answer, refuses

from minillmlib import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    Budget,
    BudgetExceededError,
    BulkProgress,
    ChatNode,
    CompletionParameters,
    CostTotal,
    HttpRequest,
    HttpResponse,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    PartialFailureError,
    RateLimitError,
    ReadError,
    RequestTimeoutError,
    ToolLoop,
    Width,
    iterate,
    map_complete,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

ONCE = NodeCompletionParameters(retry=0, deadline_secs=0.2)  # a 429 is not waited for


# The items.


def test_mappings_fill_the_placeholders_of_the_prompt():
    server = Server()
    rows = [{"country": "France", "id": None, "more": [1]}, {"country": "Italy"}]
    outcomes = run(map_complete(rows, server.generator, prompt=PROMPT, ordered=True).collect())
    assert [one.text for one in outcomes] == ["THE CAPITAL OF FRANCE?", "THE CAPITAL OF ITALY?"]
    assert [one.index for one in outcomes] == [0, 1]
    assert outcomes[0].node is not None
    assert outcomes[0].node.formatted_thread()[1].text == "The capital of France?"
    assert PROMPT.is_leaf


def test_a_text_of_a_row_is_never_a_template():
    server = Server()
    params = NodeCompletionParameters().with_format_kwargs({"secret": "s"})
    run(map_complete([{"country": "{secret}"}], server.generator, params, prompt=PROMPT).collect())
    assert server.said == ["The capital of {secret}?"]


def test_texts_follow_the_prompt_or_stand_alone():
    server = Server()
    outcomes = run(map_complete(["a"], server.generator).collect())
    assert outcomes[0].text == "A"
    prompt = ChatNode.root("Translate.")
    (outcome,) = run(map_complete(["b"], server.generator, prompt=prompt).collect())
    assert [message.text for message in outcome.node.thread()] == ["Translate.", "b", "B"]
    assert prompt.is_leaf


def test_the_answer_to_a_node_is_its_child():
    root = ChatNode.root("Be brief.")
    nodes = [root.add_user(text) for text in "abc"]
    run(map_complete(nodes, Server().generator).collect())
    assert [[child.text for child in node.children()] for node in nodes] == [["A"], ["B"], ["C"]]


def test_items_may_come_lazily_and_asynchronously():
    async def rows() -> AsyncIterator[str]:
        for text in "abc":
            await asyncio.sleep(0)
            yield text

    outcomes = run(map_complete(rows(), Server().generator, ordered=True).collect())
    assert [one.text for one in outcomes] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"city": "Paris"}, r"item 1 has no value for \{country\}"),
        ({"country": None}, r"item 1 has no value for \{country\}"),
        ({"country": ["a"]}, "a text or a number"),
        (7, "item 1 is int"),
    ],
)
def test_an_item_that_cannot_be_asked_fails_alone(item, problem):
    server = Server()
    rows = [{"country": "France"}, item, {"country": "Italy"}]
    outcomes = run(map_complete(rows, server.generator, prompt=PROMPT, ordered=True).collect())
    assert [one.error is None for one in outcomes] == [True, False, True]
    with pytest.raises(InvalidParameterError, match=problem):
        raise outcomes[1].error
    assert len(server.said) == 2


def test_a_mapping_needs_a_prompt():
    (outcome,) = run(map_complete([{"a": 1}], Server().generator).collect())
    assert "no prompt" in str(outcome.error)


@pytest.mark.parametrize("items", ["text", {"a": 1}, 7, None, PROMPT], ids=repr)
def test_the_items_are_a_list_or_an_iterable(items):
    with pytest.raises(InvalidParameterError, match="list or an iterable of items"):
        map_complete(items, Server().generator)


def test_what_the_input_raises_ends_the_run_after_the_outcomes_before_it():
    def rows() -> Iterator[str]:
        yield "a"
        yield "b"
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for outcome in iterate(map_complete(rows(), Server().generator)):
            seen.append(outcome.text)
    assert sorted(seen) == ["A", "B"]


# Outcomes.


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), (429, RateLimitError), (500, ApiError)]
)
def test_a_failure_is_an_outcome_and_harms_no_other(status, kind):
    server = Server(refuses(status, "b"))
    bulk = map_complete(["abc", *"abc"], server.generator, ONCE, ordered=True)
    outcomes = run(bulk.collect())
    assert [one.text for one in outcomes] == ["ABC", "A", None, "C"]
    assert isinstance(outcomes[2].error, kind)
    assert [attempt.status for attempt in outcomes[2].cost.attempts] == [status]
    with pytest.raises(PartialFailureError, match="1 of 4 items failed; the first failure: .*no b"):
        bulk.raise_for_failures()


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_an_error_that_all_items_would_meet_ends_the_run(status):
    server = Server(refuses(status, "b"), secs=0.001)
    seen = []
    with pytest.raises(ApiError):
        seen.extend(iterate(map_complete(list("abcdefgh"), server.generator, ONCE, width=1)))
    assert [one.text for one in seen] == ["A", None]
    assert server.said == ["a", "b"]


def test_typed_answers_are_parsed():
    @dataclass
    class Label:
        mood: Literal["good", "bad"]

    params = NodeCompletionParameters().expecting(Label)
    server = Server(lambda said: ScriptedReply.json(answer('{"mood": "good"}')))
    (outcome,) = run(map_complete(["x"], server.generator, params).collect())
    assert outcome.parsed == Label("good")


def test_parsed_raises_the_error_of_a_failed_item_and_needs_a_type():
    bad, good = run(
        map_complete(["b", "a"], Server(refuses(400, "b")).generator, ordered=True).collect()
    )
    with pytest.raises(BadRequestError):
        _ = bad.parsed
    with pytest.raises(InvalidParameterError, match="expecting"):
        _ = good.parsed


def test_tools_run_for_each_item():
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a":1,"b":2}'},
    }

    def reply(said: str) -> ScriptedReply:
        return ScriptedReply.json(answer("", call) if said == "sum" else answer(f"It is {said}"))

    bulk = map_complete(["sum"] * 3, Server(reply).generator, tools=[add], loop=ToolLoop())
    outcomes = run(bulk.collect())
    assert [one.text for one in outcomes] == ["It is 3"] * 3
    assert [len(one.cost.attempts) for one in outcomes] == [2, 2, 2]
    assert bulk.total.cost == Decimal("0.0002") * 6


def test_ordered_outcomes_come_in_the_order_of_the_items():
    class Uneven(Server):
        async def send(self, request: HttpRequest) -> HttpResponse:
            await asyncio.sleep(0.01 if b'"0"' in request.body else 0)
            return await super().send(request)

    outcomes = run(map_complete(list("0123456789"), Uneven().generator, ordered=True).collect())
    assert [one.text for one in outcomes] == list("0123456789")
    early = run(map_complete(list("0123456789"), Uneven().generator).collect())
    assert early[-1].text == "0"


# Width and room.


def test_no_more_calls_are_in_flight_than_the_width():
    server = Server(secs=0.001)
    run(map_complete(map(str, range(100)), server.generator, width=7).collect())
    assert server.most == 7


def test_unread_outcomes_stop_the_asking():
    async def read_slowly() -> None:
        taken = 0

        def rows() -> Iterator[str]:
            nonlocal taken
            for number in range(10_000):
                taken += 1
                yield str(number)

        server = Server()
        async with map_complete(rows(), server.generator, width=4) as bulk:
            await anext(bulk)
            for _ in range(200):
                await asyncio.sleep(0)
            assert taken <= 2 * 4 + 1

    run(read_slowly())


def test_leaving_early_ends_the_calls_in_flight():
    async def leave() -> None:
        server = Server(secs=60)
        async with map_complete(list("abc"), server.generator) as bulk:
            task = asyncio.ensure_future(anext(bulk))
            while server.in_flight < 3:
                await asyncio.sleep(0)
            task.cancel()
        assert server.in_flight == 0
        assert len(asyncio.all_tasks()) <= 2

    run(leave())


def test_a_stopped_run_delivers_what_is_in_flight():
    async def stop() -> None:
        server = Server(secs=0.01)
        bulk = map_complete(map(str, range(1000)), server.generator, width=5)
        outcomes = []
        async for outcome in bulk:
            outcomes.append(outcome)
            bulk.stop()
        assert 0 < len(outcomes) <= 10
        assert len(outcomes) == len(server.said)

    run(stop())


@pytest.mark.parametrize("status", [None, 401])
def test_a_run_that_ends_does_not_wait_for_an_input_that_comes_no_more(status):
    async def items() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async def stop() -> None:
        server = Server() if status is None else Server(refuses(status, "a"))
        bulk = map_complete(items(), server.generator)
        async with asyncio.timeout(5):
            async for _ in bulk:
                if status is None:
                    bulk.stop()

    if status is None:
        run(stop())
    else:
        with pytest.raises(AuthenticationError):
            run(stop())


def test_an_input_that_is_cancelled_is_no_end():
    async def items() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError

    with pytest.raises(MiniLLMError, match="input of the run was cancelled"):
        run(map_complete(items(), Server().generator).collect())


class Breaks:
    """A transport that raises an error of its own for one text."""

    def __init__(self, server: Server, said: str, error: BaseException):
        self._server, self._said, self._error = server, said, error

    async def send(self, request: HttpRequest) -> HttpResponse:
        if f'"{self._said}"'.encode() in request.body:
            raise self._error
        return await self._server.send(request)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ZeroDivisionError()])
def test_a_call_without_an_outcome_ends_the_run_and_loses_no_other(error):
    async def main() -> None:
        server = Server()
        generator = server.generator.with_transport(Breaks(server, "b", error))
        bulk = map_complete(list("abcd") * 50, generator, width=4, ordered=True)
        texts = []
        with pytest.raises((MiniLLMError, ZeroDivisionError)):
            async with asyncio.timeout(5):
                async for outcome in bulk:
                    texts.append(outcome.text)
        assert len(texts) == len(server.said)

    run(main())


def test_runs_that_are_cut_at_any_time_leave_the_whole_width():
    async def main() -> None:
        server, width = Server(), Width(4, 4)
        for turns in range(60):
            bulk = map_complete(map(str, range(100)), server.generator, width=width)
            task = asyncio.ensure_future(bulk.collect())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await bulk.aclose()
        assert width.in_use == 0

    run(main())


def test_closing_a_run_ends_the_waiting_of_its_readers():
    async def main() -> None:
        for turns in range(5):
            bulk = map_complete(["a"], Server(secs=60).generator)
            reader = asyncio.ensure_future(bulk.collect())
            for _ in range(turns):
                await asyncio.sleep(0)
            await bulk.aclose()
            async with asyncio.timeout(5):
                assert await reader == []

    run(main())


def test_the_cost_of_calls_that_were_ended_is_unknown():
    async def main() -> None:
        server = Server(secs=60)
        async with map_complete(list("abc"), server.generator) as bulk:
            task = asyncio.ensure_future(anext(bulk))
            while server.in_flight < 3:
                await asyncio.sleep(0)
            task.cancel()
        assert bulk.total.unknown == 3

    run(main())


def test_a_tool_may_ask_the_same_model_about_many_items():
    def reply(said: str) -> ScriptedReply:
        call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        return ScriptedReply.json(answer("", call) if said.startswith("q") else answer("ok"))

    async def main() -> None:
        server = Server(reply)

        async def look() -> str:
            """Look."""
            return str(len(await map_complete(["x", "y"], server.generator).collect()))

        async with asyncio.timeout(10):
            questions = [f"q{number}" for number in range(30)]
            outcomes = await map_complete(questions, server.generator, tools=[look]).collect()
        assert [one.text for one in outcomes] == ["ok"] * 30

    run(main())


def test_keys_have_a_width_each():
    async def main() -> None:
        widths = []
        for key in ("one", "two", "two"):
            bulk = map_complete(["a"], Server().generator.with_api_key(key))
            await bulk.collect()
            widths.append(bulk.width)
        assert widths[0] is not widths[1]
        assert widths[1] is widths[2]

    run(main())


def test_threads_with_loops_of_their_own_share_a_width():
    server, width = Server(secs=0.001), Width(3, 3)

    def work() -> int:
        bulk = map_complete(map(str, range(30)), server.generator, width=width)
        return len(asyncio.run(asyncio.wait_for(bulk.collect(), 10)))

    with ThreadPoolExecutor() as pool:
        counts = [pool.submit(work) for _ in range(4)]
    assert [count.result() for count in counts] == [30] * 4
    assert server.most <= 3


def test_runs_share_the_width_of_one_server():
    async def two() -> None:
        server = Server(secs=0.001)
        width = Width(3, 3)
        runs = [map_complete(map(str, range(30)), server.generator, width=width) for _ in range(2)]
        await asyncio.gather(*(each.collect() for each in runs))
        assert server.most == 3

    run(two())


def test_the_width_doubles_until_the_first_refusal_and_is_cut_at_most_once_in_a_while():
    async def grow() -> None:
        refused = False

        def reply(said: str) -> ScriptedReply:
            if refused:
                return ScriptedReply.json({"error": {"message": "slow"}}, status=503)
            return ScriptedReply.json(answer(said))

        server = Server(reply, secs=0.001)
        width = Width(4, 64)
        await map_complete(map(str, range(400)), server.generator, ONCE, width=width).collect()
        assert [limit for _, limit in width.history] == [4, 8, 16, 32, 64]
        refused = True
        await map_complete(map(str, range(200)), server.generator, ONCE, width=width).collect()
        assert [limit for _, limit in width.history][5:] == [51]

    run(grow())


@pytest.mark.parametrize("bad", [0, -1, 1.5, "3", True])
def test_the_width_is_a_positive_whole_number(bad):
    with pytest.raises(InvalidParameterError, match="of a width must"):
        run(map_complete(["a"], Server().generator, width=bad).collect())


def test_a_width_refuses_to_be_pickled():
    with pytest.raises(InvalidParameterError, match="give each process a number"):
        pickle.dumps(Width())


# Budget and progress.


def test_a_budget_is_spent_up_to_the_dearest_row_and_ends_the_run():
    budget = Budget("0.01")  # a row costs 0.0002 and at most some 0.0014
    params = CompletionParameters(max_tokens=20)
    server = Server(secs=0.001)
    bulk = map_complete((str(n) for n in range(1000)), server.generator, params, budget=budget)

    async def read() -> int:
        return sum([one.error is None async for one in bulk])

    with pytest.raises(BudgetExceededError):
        run(read())
    ceiling = ChatNode.root().add_user("999").estimate_cost(server.generator, params).ceiling
    assert Decimal("0.01") - ceiling <= budget.spent <= Decimal("0.01")
    assert bulk.total.cost == budget.spent == len(server.said) * Decimal("0.0002")


def test_progress_counts_and_is_told_at_the_end():
    told: list[BulkProgress] = []
    server = Server(refuses(400, "b"))
    bulk = map_complete(list("abc"), server.generator, on_progress=told.append)
    run(bulk.collect())
    last = told[-1]
    assert (last.items, last.done, last.failed, last.in_flight) == (3, 2, 1, 0)
    assert last.cost.cost == Decimal("0.0004")
    assert last == bulk.progress or last.elapsed_secs <= bulk.progress.elapsed_secs


def test_a_refused_key_is_the_error_of_the_run():
    server = Server(refuses(401, "a"))
    with pytest.raises(AuthenticationError, match="no a"):
        run(map_complete(["a"], server.generator).collect())


@pytest.mark.parametrize("fault", ["hangs", "breaks off"])
def test_a_call_that_hangs_or_breaks_off_harms_no_other(fault):
    class Faulty(Server):
        async def send(self, request: HttpRequest) -> HttpResponse:
            if b'"b"' not in request.body:
                return await super().send(request)
            if fault == "hangs":
                await asyncio.sleep(60)
            cut = ScriptedReply(pieces=(b'{"choices": [',), breaks_off=True)
            return await ScriptedTransport([cut]).send(request)

    params = NodeCompletionParameters(retry=0, timeout_secs=0.1)
    outcomes = run(map_complete(list("abc"), Faulty().generator, params, ordered=True).collect())
    assert [one.text for one in outcomes] == ["A", None, "C"]
    kind = RequestTimeoutError if fault == "hangs" else ReadError
    assert isinstance(outcomes[1].error, kind)
    assert not CostTotal.of([outcomes[1].cost]).is_exact
