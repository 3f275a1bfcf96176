"""Several answers to one prompt: siblings, whose costs add up to what was paid."""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib.util
import json
import pickle
from decimal import Decimal

import msgspec
import pytest
from cache_server import caching
from hypothesis import given
from hypothesis import strategies as st

from minillmlib import (
    AuthenticationError,
    BadRequestError,
    Budget,
    ChatNode,
    CompletionParameters,
    CostInfo,
    CostOutcome,
    FinishReason,
    GeneratorInfo,
    IncompleteStreamError,
    InvalidParameterError,
    NodeCompletionParameters,
    PartialFailureError,
    RateLimitError,
    StorageError,
    TokenPrice,
    Usage,
    iterate,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.tree.siblings import SiblingStreams

PRICE = TokenPrice(3, 15).with_cache_rates(0.3, 3.75, 6)
TINY = NodeCompletionParameters(retry=0)


def answers(*texts: str, completion_tokens: int = 2) -> ScriptedReply:
    """A body with a choice for each text, not in order; it counts the tokens of all."""
    choices = [
        {"index": number, "message": {"content": text}, "finish_reason": "stop"}
        for number, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": completion_tokens}
    return ScriptedReply.json({"id": "c-1", "choices": choices[::-1], "usage": usage})


def openai(*replies: ScriptedReply, model: str = "gpt-4o") -> GeneratorInfo:
    generator = GeneratorInfo.openai(model).with_api_key("key").with_token_price(PRICE)
    return generator.with_transport(ScriptedTransport(replies))


def custom(*replies: ScriptedReply) -> GeneratorInfo:
    return GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(
        ScriptedTransport(replies)
    )


def anthropic(*texts: str) -> GeneratorInfo:
    replies = [
        ScriptedReply.json({
            "type": "message", "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 2},
        })
        for text in texts
    ]  # fmt: skip
    generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("key")
    return generator.with_transport(ScriptedTransport(replies))


def stream(text: str) -> ScriptedReply:
    choices = [{"delta": {"content": piece}} for piece in text.split("|")]
    choices += [{"delta": {}, "finish_reason": "stop"}]
    events = [f"data: {json.dumps({'choices': [choice]})}\n\n".encode() for choice in choices]
    return ScriptedReply.events(*events, b"data: [DONE]\n\n")


def question() -> ChatNode:
    return ChatNode.root("Be brief.").add_user("A city?")


def bodies(generator: GeneratorInfo) -> list[dict]:
    return [json.loads(request.body) for request in generator.transport.requests]


# By one request.


def test_one_request_of_openai_gives_siblings_in_the_order_of_their_index():
    generator, node = openai(answers("Oslo", "Rome", "Paris")), question()
    nodes = run(node.complete_many(3, generator))
    assert [one.text for one in nodes] == ["Oslo", "Rome", "Paris"]
    assert node.children() == nodes
    assert [body["n"] for body in bodies(generator)] == [3]


def test_the_one_request_is_reported_once_and_its_cost_is_shared_exactly():
    reports: list[CostInfo] = []
    params = NodeCompletionParameters().with_cost_callback(reports.append)
    node = question()
    nodes = run(node.complete_many(3, openai(answers("a", "b", "c")), params))
    paid = Decimal(3 * 10 + 15 * 2) / 1_000_000
    assert [info.cost for info in reports] == [paid]
    assert node.root_node.subtree_cost().cost == paid
    assert [one.response.attempts[0].share_of for one in nodes] == [3, 3, 3]
    assert {one.cost.cost for one in nodes} == {paid / 3}
    assert all(one.response.usage.completion_tokens == 2 for one in nodes)


def test_a_budget_sets_aside_what_all_answers_may_cost():
    params = NodeCompletionParameters(
        params=CompletionParameters(max_tokens=1000), budget=Budget("0.02")
    )
    with pytest.raises(Exception, match="budget"):  # 3 x $0.015
        run(question().complete_many(3, openai(answers("a", "b", "c")), params))


def test_what_a_failed_attempt_may_have_cost_is_shared_too():
    node = question()
    generator = openai(
        ScriptedReply.json({"error": {"message": "no"}}, status=500), answers("a", "b")
    )
    nodes = run(
        node.complete_many(2, generator, NodeCompletionParameters(retry=1, back_off_time=0))
    )
    assert [len(one.response.attempts) for one in nodes] == [2, 2]
    assert not node.root_node.subtree_cost().is_exact


def test_a_server_that_gives_fewer_answers_is_asked_for_the_rest():
    generator = openai(answers("a", "b"), answers("c"))
    nodes = run(question().complete_many(3, generator))
    assert [one.text for one in nodes] == ["a", "b", "c"]
    assert [body.get("n") for body in bodies(generator)] == [3, None]


def test_shared_answers_survive_a_file(tmp_path):
    node = question()
    run(node.complete_many(3, openai(answers("a", "b", "c"))))
    node.root_node.save_tree(tmp_path / "t")
    loaded = ChatNode.load_tree(tmp_path / "t")
    assert loaded.subtree_cost() == node.root_node.subtree_cost()
    assert [leaf.response.attempts[0].share_of for leaf in loaded.leaves()] == [3, 3, 3]


def test_a_choice_without_a_message_is_asked_for_again():
    empty = {"index": 1, "finish_reason": "stop"}
    fine = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    generator = openai(ScriptedReply.json({"choices": [fine, empty], "usage": usage}), answers("b"))
    node = question()
    assert [one.text for one in run(node.complete_many(2, generator))] == ["a", "b"]
    assert node.root_node.subtree_cost().cost == 2 * Decimal(3 * 10 + 15 * 2) / 1_000_000


def test_all_choices_are_in_the_tree_if_the_journal_cannot_be_written(tmp_path):
    node, path = question(), tmp_path / "journal"
    node.root_node.attach_journal(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError):
        run(node.complete_many(3, openai(answers("a", "b", "c"))))
    assert [one.text for one in node.children()] == ["a", "b", "c"]


# By several requests.


@pytest.mark.parametrize(
    "generator",
    [
        custom(answers("a"), answers("b"), answers("c")),
        openai(answers("a"), answers("b"), answers("c"), model="gpt-5.1"),
        anthropic("a", "b", "c"),
    ],
    ids=["custom", "reasons", "anthropic"],
)
def test_other_wires_are_asked_once_for_each_answer(generator):
    node = question()
    nodes = run(node.complete_many(3, generator))
    assert sorted(one.text for one in nodes) == ["a", "b", "c"]
    assert [body.get("n") for body in bodies(generator)] == [None] * 3


def test_answers_that_must_be_parsed_are_asked_for_one_by_one():
    generator = openai(answers("[1]"), answers("[2]"))
    params = NodeCompletionParameters().expecting(list[int])
    nodes = run(question().complete_many(2, generator, params))
    assert sorted(one.parsed for one in nodes) == [[1], [2]]


def test_one_failure_leaves_the_other_answers_and_says_so():
    generator = custom(
        answers("a"),
        ScriptedReply.json({"error": {"message": "slow down"}}, status=429),
        answers("c"),
    )
    node = question()
    with pytest.raises(PartialFailureError, match="1 of 3 answers failed.*slow down") as caught:
        run(node.complete_many(3, generator, TINY))
    assert (
        [one.text for one in caught.value.nodes]
        == ["a", "c"]
        == [one.text for one in node.children()]
    )
    assert [type(error) for error in caught.value.errors] == [RateLimitError]
    assert caught.value.is_retryable
    assert [attempt.status for attempt in caught.value.attempts] == [429]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.nodes == ()
    assert [type(error) for error in copy.errors] == [RateLimitError]


def test_if_all_fail_the_first_error_comes_with_all_attempts_and_the_tree_is_as_before():
    denied = ScriptedReply.json({"error": {"message": "bad key"}}, status=401)
    node = question()
    with pytest.raises(AuthenticationError) as caught:
        run(node.chat_many("More?", 2, custom(denied, denied), TINY))
    assert len(caught.value.attempts) == 2
    assert node.is_leaf


def test_the_answers_to_a_message_share_it():
    root = ChatNode.root("Be brief.")
    nodes = run(root.chat_many("A city?", 3, custom(answers("a"), answers("b"), answers("c"))))
    (asked,) = root.children()
    assert asked.text == "A city?"
    assert set(asked.children()) == set(nodes)


def test_a_cancelled_call_keeps_the_answers_that_have_come():
    class Slow:
        def __init__(self):
            self.inner = ScriptedTransport([answers("a"), answers("b")])
            self.count = 0

        async def send(self, request):
            self.count += 1
            if self.count == 2:
                await asyncio.sleep(60)
            return await self.inner.send(request)

    async def cancel():
        node = question()
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(Slow())
        task = asyncio.create_task(node.complete_many(2, generator))
        while node.is_leaf:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [one.text for one in node.children()] == ["a"]
        assert len(asyncio.all_tasks()) == 1

    run(cancel())


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None])
def test_the_number_of_answers_is_a_positive_whole_number(n):
    with pytest.raises(InvalidParameterError, match="n must"):
        run(question().complete_many(n, custom()))
    with pytest.raises(InvalidParameterError, match="n must"):
        question().complete_many_streaming(n, custom())


# A prompt that is cached.


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_sixteen_answers_cost_one_write_and_fifteen_reads(is_streamed):
    async def ask():
        async with caching() as server:
            generator = GeneratorInfo.anthropic("claude-sonnet-4-5").with_base_url(server.url)
            generator = generator.with_api_key("key").with_token_price(PRICE)
            root = ChatNode.root("w" * 8000).cache_breakpoint()
            node = root.add_user("A city?")
            if is_streamed:
                async with node.complete_many_streaming(16, generator) as streams:
                    nodes = await streams.collect()
            else:
                nodes = await node.complete_many(16, generator)
            assert sum(counts.written > 0 for counts in server.counts) == 1
            assert sum(counts.read > 0 for counts in server.counts) == 15
            assert set(node.children()) == set(nodes)
            assert root.subtree_cost().is_exact
            whole = [
                Usage(uncached_input_tokens=one.prompt, completion_tokens=one.output)
                for one in server.counts
            ]
            saved = sum(map(PRICE.cost_of, whole)) - root.subtree_cost().cost
            assert saved == node.cache_plan(generator).savings(16) > 0

    run(ask())


def test_the_answer_that_goes_ahead_is_retried_as_the_others_are():
    generator = custom(stream("no| list"), stream("[1]"), answers("[2]"))
    params = NodeCompletionParameters(retry=1, back_off_time=0).with_cache(True)
    nodes = run(question().complete_many(2, generator, params.expecting(list[int])))
    assert sorted(node.parsed for node in nodes) == [[1], [2]]


# Streams.


def test_chunks_come_with_the_index_of_their_answer():
    node = question()
    streams = node.complete_many_streaming(2, custom(stream("a|b"), stream("c|d")))
    texts = ["", ""]
    for index, chunk in iterate(streams):
        texts[index] += chunk.delta
    assert texts == ["ab", "cd"] == [one.text for one in streams.nodes]
    assert set(node.children()) == set(streams.nodes)


def test_the_nodes_of_streams_are_there_when_all_were_read():
    with pytest.raises(InvalidParameterError, match="read to their ends"):
        _ = question().complete_many_streaming(2, custom()).nodes


def test_a_failed_stream_is_told_when_the_others_have_ended():
    root = ChatNode.root()
    cut = ScriptedReply.events(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
    streams = root.chat_many_streaming(
        "A city?", 3, custom(stream("a|b"), cut, stream("c|d")), TINY
    )
    texts = ["", "", ""]
    with pytest.raises(PartialFailureError, match="1 of 3"):
        for index, chunk in iterate(streams):
            texts[index] += chunk.delta
    assert texts == ["ab", "x", "cd"]
    assert [leaf.text for leaf in root.leaves()] == ["ab", "cd"]


def test_leaving_early_ends_all_requests():
    async def leave():
        node = question()
        async with node.complete_many_streaming(
            3, custom(*[stream("a|" * 200 + "b")] * 3)
        ) as streams:
            async for _ in streams:
                break
        assert len(asyncio.all_tasks()) == 1
        assert len(node.children()) < 3

    run(leave())


def test_leaving_late_ends_all_requests_though_many_chunks_wait():
    async def leave():
        node = question()
        long = "a|" * 200 + "b"
        async with node.complete_many_streaming(3, custom(*[stream(long)] * 3)) as streams:
            await anext(streams)
            for _ in range(1000):
                await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        assert [chunk async for chunk in streams] == []

    run(leave())


def test_streams_belong_to_one_task_at_a_time():
    async def read_twice():
        streams = question().complete_many_streaming(2, custom(stream("a|b"), stream("c|d")))
        first = asyncio.create_task(streams.collect())
        await asyncio.sleep(0)
        with pytest.raises(InvalidParameterError, match="one task"):
            await streams.collect()
        assert [node.text for node in await first] == ["ab", "cd"]

    run(read_twice())


async def cancel_reader(streams):
    reader = asyncio.create_task(streams.collect())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


def test_streams_whose_reader_was_cancelled_do_not_end_as_if_they_were_whole():
    async def cancel():
        streams = question().complete_many_streaming(2, custom(stream("a|b"), stream("c|d")))
        await cancel_reader(streams)
        assert len(asyncio.all_tasks()) == 1
        with pytest.raises(IncompleteStreamError, match="cannot be read on"):
            await anext(streams)

    run(cancel())


def test_streams_closed_by_another_task_end_for_their_reader():
    async def close():
        streams = question().complete_many_streaming(2, custom(stream("a|b"), stream("c|d")))
        reader = asyncio.create_task(anext(streams, None))
        await asyncio.sleep(0)
        await streams.aclose()
        assert await reader is None
        assert len(asyncio.all_tasks()) == 1

    run(close())


def test_streams_that_are_dropped_end_with_a_warning():
    async def drop():
        streams = question().complete_many_streaming(2, custom(*[stream("a|" * 200 + "b")] * 2))
        await anext(streams)
        told = "streams were dropped before their end; use `async with` to leave early"
        with pytest.warns(ResourceWarning, match=f"^{told}$") as warned:
            del streams
        assert (warned[0].filename, type(warned[0].source)) == (__file__, SiblingStreams)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run(drop())


def test_streams_cannot_be_copied():
    streams = question().complete_many_streaming(2, custom())
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(InvalidParameterError, match="copied"):
            duplicate(streams)


def test_a_failure_is_told_again_to_who_reads_on():
    streams = question().complete_many_streaming(
        2, custom(stream("a|b"), ScriptedReply.json({"error": "no"}, status=400)), TINY
    )

    async def read_twice():
        for _ in range(2):
            with pytest.raises(PartialFailureError):
                await streams.collect()

    run(read_twice())


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_a_call_that_is_cancelled_before_its_requests_begin_leaves_nothing(is_streamed):
    async def cancel():
        node = question()
        generator = custom(*[answers("a")] * 2)
        work = (
            node.complete_many_streaming(2, generator).collect()
            if is_streamed
            else node.complete_many(2, generator)
        )
        task = asyncio.create_task(work)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    run(cancel())
    gc.collect()  # a coroutine that was never awaited would be told of


# What is sent and kept, to the last field.


async def test_each_sibling_has_its_choice_and_what_belongs_to_the_whole_request():
    reply = msgspec.structs.replace(answers("a", "b"), headers={"x-request-id": "r-1"})
    first, second = await question().complete_many(2, openai(reply))
    for node, text, number in ((first, "a", 0), (second, "b", 1)):
        response = node.response
        assert (response.content, response.id) == (text, "c-1")
        assert response.finish_reason is FinishReason.STOP
        assert response.usage == Usage(uncached_input_tokens=10, completion_tokens=2)
        assert (response.origin, response.request_id) == ("OpenAiProvider:gpt-4o", "r-1")
        assert response.request_report.sent == ("model", "messages", "n")
        (choice,) = response.raw_response["choices"]
        assert choice == {"index": number, "message": {"content": text}, "finish_reason": "stop"}
        (attempt,) = response.attempts
        assert (attempt.share_of, attempt.number, attempt.response_id) == (2, 1, "c-1")
        assert response.cost == attempt.cost
        assert response.cost.cost == Decimal("0.00003")


def cached() -> ChatNode:
    return ChatNode.root("Be brief.").cache_breakpoint().add_user("A city?")


ALONE = NodeCompletionParameters(retry=0).with_cache(True)


@pytest.mark.parametrize(
    ("node", "params", "n", "are_streamed"),
    [
        (question(), None, 3, [None, None, None]),
        (cached(), None, 3, [True, None, None]),
        (question(), ALONE, 3, [True, None, None]),
        (cached(), None, 1, [None]),
        (question(), ALONE, 2, [True, None]),
    ],
)
async def test_one_request_that_is_streamed_goes_ahead_where_a_prompt_is_cached(
    node, params, n, are_streamed
):
    replies = [stream(f"{number}|!") if is_streamed else answers(f"{number}!")
               for number, is_streamed in enumerate(are_streamed)]  # fmt: skip
    generator = custom(*replies)
    nodes = await node.complete_many(n, generator, params)
    assert [one.text for one in nodes] == [f"{number}!" for number in range(n)]
    assert node.children() == nodes
    assert [body.get("stream") for body in bodies(generator)] == are_streamed


class Gate:
    """A transport that counts its requests, and whose first answer waits for `opened`."""

    def __init__(self, *replies: ScriptedReply) -> None:
        self.inner, self.opened, self.count = ScriptedTransport(replies), asyncio.Event(), 0

    async def send(self, request):
        self.count += 1
        if self.count == 1:
            await self.opened.wait()
        return await self.inner.send(request)


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
async def test_the_others_follow_once_the_first_has_begun_or_failed(fails, is_streamed):
    lead = ScriptedReply.json({"error": "no"}, status=400) if fails else stream("a|b")
    gate = Gate(lead, *([stream("c")] * 2 if is_streamed else [answers("c")] * 2))
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(gate)
    node = cached()
    streams = node.complete_many_streaming(3, generator, TINY)
    work = streams.collect() if is_streamed else node.complete_many(3, generator, TINY)
    task = asyncio.create_task(work)
    await turns()
    assert gate.count == 1
    gate.opened.set()
    if fails:
        with pytest.raises(PartialFailureError):
            await task
    else:
        assert [one.text for one in await task] == ["ab", "c", "c"]
    assert gate.count == 3


async def test_without_a_cache_all_go_at_once():
    for is_streamed in (False, True):
        gate = Gate(*[stream("a") if is_streamed else answers("a")] * 3)
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(gate)
        node = question()
        streams = node.complete_many_streaming(3, generator)
        work = streams.collect() if is_streamed else node.complete_many(3, generator)
        task = asyncio.create_task(work)
        await turns()
        assert gate.count == 3
        gate.opened.set()
        assert len(await task) == 3


async def test_streams_are_read_chunk_by_chunk_and_then_have_their_nodes():
    node, generator = question(), custom(stream("a|b"), stream("c"), stream("d|e"))
    async with node.complete_many_streaming(3, generator) as streams:
        assert aiter(streams) is streams
        chunks = [(index, chunk.delta) async for index, chunk in streams if chunk.delta]
    assert sorted(chunks) == [(0, "a"), (0, "b"), (1, "c"), (2, "d"), (2, "e")]
    assert [one.text for one in streams.nodes] == ["ab", "c", "de"]
    assert await streams.collect() == streams.nodes
    assert [body.get("stream") for body in bodies(generator)] == [True] * 3
    assert len(asyncio.all_tasks()) == 1


WORDS = {
    "not read": (
        lambda streams: streams.nodes,
        "the streams have not been read to their ends; read every chunk, or call collect()",
    ),
    "copied": (copy.copy, "streams cannot be pickled or copied; their nodes can be saved"),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_streams_cannot_do_is_told_with_what_to_do(name):
    act, told = WORDS[name]
    with pytest.raises(InvalidParameterError) as caught:
        act(question().complete_many_streaming(2, custom()))
    assert str(caught.value) == told


async def test_the_number_of_answers_must_be_given():
    with pytest.raises(InvalidParameterError) as caught:
        await question().complete_many(None, custom())
    assert str(caught.value) == "n must be a whole number, not None"


def test_streams_are_read_in_one_event_loop():
    streams = question().complete_many_streaming(2, custom(stream("a|b"), stream("c|d")))

    async def begin():
        await anext(streams)
        await streams.aclose()

    asyncio.run(begin())
    with pytest.raises(InvalidParameterError) as caught:
        asyncio.run(anext(streams))
    assert str(caught.value) == "a stream is read by one task of one event loop at a time"


async def test_streams_that_were_closed_unread_send_nothing():
    generator = custom(stream("a"), stream("b"))
    streams = question().complete_many_streaming(2, generator)
    await streams.aclose()
    assert [chunk async for chunk in streams] == []
    assert generator.transport.requests == []
    with pytest.raises(InvalidParameterError, match="not been read"):
        _ = streams.nodes
    del streams
    gc.collect()


async def test_what_ended_the_reader_is_told_to_the_next_one():
    streams = question().complete_many_streaming(2, custom(stream("a|b"), stream("c|d")))
    await cancel_reader(streams)
    with pytest.raises(IncompleteStreamError) as caught:
        await anext(streams)
    assert str(caught.value) == (
        "the streams cannot be read on: its reader was interrupted (CancelledError)"
    )


async def test_a_partial_failure_says_how_many_failed_and_why_first():
    def no(word: str) -> ScriptedReply:
        return ScriptedReply.json({"error": {"message": word}}, status=400)

    for is_streamed in (False, True):
        node = question()
        generator = custom(no("one"), stream("b") if is_streamed else answers("b"), no("three"))
        streams = node.complete_many_streaming(3, generator, TINY)
        with pytest.raises(PartialFailureError) as caught:
            await (streams.collect() if is_streamed else node.complete_many(3, generator, TINY))
        error = caught.value
        assert [type(one) for one in error.errors] == [BadRequestError] * 2
        assert str(error) == (
            "2 of 3 answers failed; the others are in the tree, and in nodes of this error; the "
            f"first failure: {error.errors[0]}"
        )
        assert error.__cause__ is error.errors[0]
        assert [one.text for one in error.nodes] == ["b"]
        everything = custom(no("one"), no("two"))
        streams = node.complete_many_streaming(2, everything, TINY)
        with pytest.raises(BadRequestError, match="one") as caught:
            await (streams.collect() if is_streamed else node.complete_many(2, everything, TINY))
        assert [attempt.status for attempt in caught.value.attempts] == [400, 400]


async def test_at_most_sixty_four_chunks_wait_for_who_takes_them():
    long = stream("a|" * 300 + "b")
    async with question().complete_many_streaming(2, custom(long, long)) as streams:
        for taken in range(3):
            await anext(streams)
            for _ in range(300):
                await asyncio.sleep(0)
            assert streams._arrived.qsize() == 64, taken


# A real model.


@pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
)
def test_the_local_model_gives_three_siblings():
    node = ChatNode.root("Be brief.").add_user("Name a city.")
    nodes = run(node.complete_many(3, GeneratorInfo.local(), CompletionParameters(max_tokens=8)))
    assert len(nodes) == 3
    assert set(node.children()) == set(nodes)
    assert all(one.text for one in nodes)


# Shares.


@given(
    st.decimals(0, 10**6, allow_nan=False, allow_infinity=False, places=12),
    st.integers(1, 500),
)
def test_shares_of_a_cost_add_up_to_it(amount, count):
    cost = CostOutcome.resolved(amount, Usage())
    shares = [share.cost for share in cost.shares(count)]
    assert len(shares) == count
    assert sum(shares) == amount
    assert max(shares) - min(shares) <= Decimal("1e-12")


def test_a_fallback_answers_for_the_siblings_that_are_missing():
    broken = ScriptedReply.json({"error": {"message": "no"}}, status=500)
    other = custom(answers("x"), answers("y"), answers("z"))
    node = question()
    nodes = run(node.complete_many(3, openai(*[broken] * 3).or_else(other), TINY))
    assert sorted(one.text for one in nodes) == ["x", "y", "z"]
    assert len(node.children()) == 3


def test_a_fallback_whose_one_answer_comes_as_two_choices_gives_one_node():
    broken = ScriptedReply.json({"error": {"message": "no"}}, status=500)
    other = custom(answers("x", "y"), answers("x", "y"))
    nodes = run(question().complete_many(2, openai(*[broken] * 2).or_else(other), TINY))
    assert [node.text for node in nodes] == ["yx", "yx"]
