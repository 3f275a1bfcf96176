"""Observers: what they are told, of whom, in which order, and that they harm nothing."""

from __future__ import annotations

import asyncio
import json
import linecache
import logging
import pickle
import sys
import threading

import msgspec
import pytest
from cost_of_work import steps_of
from tool_scripts import add, call, greet, model, says, streams

import minillmlib
from minillmlib import (
    AttemptEnded,
    AttemptOutcome,
    AttemptStarted,
    BulkRunEnded,
    BulkRunStarted,
    ChatNode,
    CompletionEnded,
    CompletionParameters,
    CompletionStarted,
    CostUpdated,
    GeneratorInfo,
    HeadersReceived,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    Observer,
    RateLimitError,
    Recording,
    RequestSent,
    TokenPrice,
    ToolEnded,
    ToolLoop,
    ToolLoopEnded,
    ToolLoopStarted,
    ToolStarted,
    log_requests,
    map_complete,
    observe,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types import events as event_types

OWN = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_token_price(TokenPrice(1, 5))
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
BUSY = ScriptedReply.json({"error": {"message": "slow down"}}, status=429)
NO_RETRY = NodeCompletionParameters(retry=0)
ONCE_MORE = NodeCompletionParameters(retry=1, back_off_time=0)


def answer(text: str = "Paris.", usage: object = USAGE) -> ScriptedReply:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    body = {"id": "c-1", "model": "m-2", "choices": [choice], "usage": usage}
    return ScriptedReply.json(body if usage else {**body, "usage": None})


def stream_of(*words: str, end: bool = True) -> ScriptedReply:
    events = [{"id": "s-1", "choices": [{"delta": {"content": word}}]} for word in words]
    if end:
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    return ScriptedReply.events(*(b"data: %b\n\n" % msgspec.json.encode(each) for each in events))


def on(*replies: ScriptedReply, generator: GeneratorInfo = OWN) -> GeneratorInfo:
    return generator.with_transport(ScriptedTransport(replies))


def names(events: list[object]) -> list[str]:
    return [type(event).__name__ for event in events]


def only(events: list[object], kind: type) -> list[object]:
    return [event for event in events if isinstance(event, kind)]


WHOLE = [
    "CompletionStarted", "AttemptStarted", "RequestSent", "HeadersReceived", "FirstByteReceived",
    "AttemptEnded", "CompletionEnded",
]  # fmt: skip


async def test_a_call_is_told_step_by_step():
    events: list[object] = []
    with observe(events.append):
        node = await ChatNode.root("s").chat("u", on(answer()))
    assert names(events) == WHOLE
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert len({event.id for event in events}) == 1
    started, attempt, _, headers, _, ended, over = events
    assert (started.generator, started.model, started.is_streamed) == ("own", "m", False)
    assert attempt.url == "https://own.example/v1/chat/completions"
    assert headers.status == 200
    assert (ended.attempt,) == over.attempts == node.response.attempts
    assert str(ended.attempt.cost) == "$0.00015"
    assert (over.outcome, over.finish_reason, over.model) == ("answered", "stop", "m-2")
    assert over.usage.prompt_tokens == 100


async def test_a_stream_is_told_like_a_whole_answer():
    events: list[object] = []
    with observe(events.append):
        async with ChatNode.root("s").chat_streaming("u", on(stream_of("Pa", "ris"))) as stream:
            async for _ in stream:
                assert "CompletionEnded" not in names(events)
    assert names(events) == WHOLE
    assert events[0].is_streamed
    assert events[-1].outcome == "answered"


async def test_each_attempt_is_told_of_its_own():
    events: list[object] = []
    generator = on(BUSY, answer())
    with observe(events.append):
        await ChatNode.root("s").chat("u", generator, ONCE_MORE)
    assert names(events) == [*WHOLE[:6], *WHOLE[1:]]
    first, second = only(events, AttemptEnded)
    assert (first.attempt.outcome, first.attempt.status) == (AttemptOutcome.DENIED, 429)
    assert first.attempt.cost is None
    assert (first.attempt.number, second.attempt.number) == (1, 2)


async def test_a_failure_names_its_error():
    events: list[object] = []
    with observe(events.append), pytest.raises(RateLimitError):
        await ChatNode.root("s").chat("u", on(BUSY), NO_RETRY)
    assert (events[-1].outcome, events[-1].error) == ("failed", "RateLimitError")
    assert events[-1].message is None, "what the server said is content"


async def test_a_call_that_cannot_be_built_has_no_attempt():
    events: list[object] = []
    with observe(events.append), pytest.raises(InvalidParameterError):
        await ChatNode.root("s").chat("u", on(), CompletionParameters(extra={"model": "x"}))
    assert names(events) == ["CompletionStarted", "CompletionEnded"]
    assert events[-1].error == "InvalidParameterError"


class Hanging:
    async def send(self, request):
        await asyncio.Event().wait()


async def test_a_cancelled_call_is_abandoned_and_its_cost_is_unknown():
    events: list[object] = []
    with observe(events.append):
        task = asyncio.create_task(ChatNode.root("s").chat("u", OWN.with_transport(Hanging())))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    assert names(events) == [*WHOLE[:3], *WHOLE[5:]]
    assert events[-2].attempt.outcome is AttemptOutcome.ABANDONED
    assert events[-2].attempt.cost.is_unknown
    assert (events[-1].outcome, events[-1].error) == ("abandoned", None)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", ["left", "dropped"])
async def test_a_stream_that_is_not_read_to_its_end_is_abandoned(way):
    events: list[object] = []
    with observe(events.append):
        stream = ChatNode.root("s").chat_streaming("u", on(stream_of("a", "b", end=False)))
        await anext(stream)
        if way == "left":
            await stream.aclose()
        del stream
        await asyncio.sleep(0.01)
    assert events[-1].outcome == "abandoned"
    assert names(events)[-2:] == ["AttemptEnded", "CompletionEnded"]


async def test_a_fallback_is_told_with_the_generator_that_it_stands_in_for():
    events: list[object] = []
    other = GeneratorInfo.custom("other", "https://other.example/v1", "n")
    first = on(BUSY).with_observer(events.append).or_else(on(answer(), generator=other))
    await ChatNode.root("s").chat("u", first, NO_RETRY)
    assert [each.generator for each in only(events, AttemptStarted)] == ["own", "other"]
    assert [each.url for each in only(events, AttemptStarted)][1].startswith("https://other")
    assert len(only(events, CompletionEnded)) == 1


async def test_a_fallback_that_cannot_be_asked_has_a_start_too():
    events: list[object] = []
    bad = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    first = on(BUSY).with_observer(events.append).or_else(bad, on(answer()))
    settings = NodeCompletionParameters(retry=0, params=CompletionParameters(seed=1))
    await ChatNode.root("s").chat("u", first, settings)
    assert [each.number for each in only(events, AttemptStarted)] == [1, 2, 3]
    assert [each.attempt.number for each in only(events, AttemptEnded)] == [1, 2, 3]


async def test_a_cost_that_comes_later_is_told_later(monkeypatch):
    monkeypatch.setattr("minillmlib.client.deferred_cost.WAITS_SECS", (0.0, 0.0))
    events: list[object] = []
    found = {"data": {"total_cost": 0.5, "tokens_prompt": 7, "tokens_completion": 3,
                      "native_tokens_prompt": 7, "native_tokens_completion": 3}}  # fmt: skip
    generator = on(stream_of("a", "b", end=False), ScriptedReply.json(found),
                   generator=GeneratorInfo.openrouter("x/y").with_api_key("k"))  # fmt: skip
    settings = NodeCompletionParameters(cost_callback=lambda _: None)
    with observe(events.append):
        stream = ChatNode.root("s").chat_streaming("u", generator, settings)
        await anext(stream)
        await stream.cancel()
    ended, over, updated = events[-3:]
    assert ended.attempt.cost.is_unknown
    assert isinstance(over, CompletionEnded)
    assert isinstance(updated, CostUpdated)
    assert (str(updated.attempt.cost), updated.id) == ("$0.5", over.id)


# Who is told.


async def test_who_observes_a_context_hears_of_its_tasks_and_of_no_others():
    here: list[object] = []
    seen = asyncio.Event()

    async def elsewhere() -> None:
        await seen.wait()
        await ChatNode.root("s").chat("u", on(answer()))

    other = asyncio.create_task(elsewhere())
    with observe(here.append):
        await asyncio.gather(
            asyncio.create_task(ChatNode.root("s").chat("u", on(answer()))),
        )
        seen.set()
        await other
    await ChatNode.root("s").chat("u", on(answer()))
    assert len(only(here, CompletionStarted)) == 1


def test_who_observes_plain_code_hears_of_what_runs_in_the_background():
    here: list[object] = []
    with observe(here.append):
        run(ChatNode.root("s").chat("u", on(answer())))
        list(minillmlib.iterate(ChatNode.root("s").chat_streaming("u", on(stream_of("a")))))
    assert len(only(here, CompletionEnded)) == 2


def test_who_observes_everything_hears_of_all_threads():
    events: list[object] = []
    observation = observe(events.append, everywhere=True)
    thread = threading.Thread(target=lambda: run(ChatNode.root().chat("u", on(answer()))))
    thread.start()
    thread.join()
    observation.stop()
    observation.stop()
    run(ChatNode.root("s").chat("u", on(answer())))
    assert names(events) == WHOLE


async def test_an_observer_that_is_found_twice_is_told_once():
    class Counts(Observer):
        count = 0

        def on_event(self, event):
            self.count += 1

    counts = Counts()
    generator = on(answer()).with_observer(counts).with_observer(counts)
    with observe(counts), observe(counts, everywhere=True):
        await ChatNode.root("s").chat("u", generator)
    assert counts.count == len(WHOLE)


async def test_who_observes_everything_is_told_first_and_then_the_context_and_the_generator():
    told: list[str] = []
    generator = on(answer()).with_observer(lambda _: told.append("own 1"))
    generator = generator.with_observer(lambda _: told.append("own 2"))
    with (
        observe(lambda _: told.append("here 1")),
        observe(lambda _: told.append("all 1"), everywhere=True),
        observe(lambda _: told.append("here 2")) as second,
        observe(lambda _: told.append("here 3")),
        observe(lambda _: told.append("all 2"), everywhere=True),
    ):
        second.stop()
        await ChatNode.root("s").chat("u", generator)
    assert told == ["all 1", "all 2", "here 1", "here 3", "own 1", "own 2"] * len(WHOLE)


async def test_what_began_before_the_end_is_told_to_its_end():
    events: list[object] = []
    with observe(events.append):
        stream = ChatNode.root("s").chat_streaming("u", on(stream_of("a", "b")))
        await anext(stream)
    await stream.collect()
    assert isinstance(events[-1], CompletionEnded)


# What they are told.


async def test_content_comes_only_to_who_asks_for_it():
    plain: list[object] = []
    whole: list[object] = []
    generator = on(answer("a word of the model")).with_api_key("sk-secret-0123456789")
    with observe(plain.append), observe(whole.append, content=True):
        await ChatNode.root("s").chat("a word of mine", generator)
    assert "a word of" not in repr(plain)
    started, ended = only(whole, AttemptStarted)[0], only(whole, AttemptEnded)[0]
    assert json.loads(started.body)["messages"][1]["content"] == "a word of mine"
    assert started.messages[1].text == "a word of mine"
    assert started.headers["Authorization"] == "[hidden]"
    assert json.loads(ended.body)["model"] == "m-2"
    assert whole[-1].response.text == "a word of the model"
    assert only(whole, HeadersReceived)[0].headers == {"content-type": "application/json"}


async def test_events_are_frozen_and_can_be_kept_and_sent():
    events: list[object] = []
    with observe(events.append, content=True):
        await ChatNode.root("s").chat("u", on(answer()))
    for event in events:
        with pytest.raises(AttributeError):
            event.at = 0
        assert pickle.loads(pickle.dumps(event)) == event


def test_each_event_is_public_and_of_the_union():
    kinds = [kind for kind in vars(event_types).values()
             if isinstance(kind, type) and issubclass(kind, event_types._Event)]  # fmt: skip
    public = {kind for kind in kinds if kind is not event_types._Event}
    assert public == set(minillmlib.ObservedEvent.__args__)
    assert all(getattr(minillmlib, kind.__name__) is kind for kind in public)


# What they may do.


@pytest.mark.parametrize(
    "failure", [ValueError("x"), asyncio.CancelledError(), RecursionError(), StopAsyncIteration()]
)
async def test_what_an_observer_raises_is_logged_and_harms_nothing(failure, caplog):
    def fail(event):
        raise failure

    events: list[object] = []
    with observe(fail), observe(events.append):
        node = await ChatNode.root("s").chat("u", on(BUSY, answer()), ONCE_MORE)
        async with node.chat_streaming("u", on(stream_of("a", "b"))) as stream:
            async for _ in stream:
                pass
    assert node.text == "Paris."
    assert stream.node.text == "ab"
    assert names(events) == [*WHOLE[:6], *WHOLE[1:], *WHOLE]
    assert {record.getMessage() for record in caplog.records} == {"an observer failed"}


class Counting(ScriptedTransport):
    """Counts the responses that are open."""

    open = 0

    async def send(self, request):
        response = await super().send(request)
        self.open += 1
        is_open = True

        def close():
            nonlocal is_open
            self.open -= is_open
            is_open = False

        response.close = close
        return response


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_an_interrupt_within_an_observer_passes_and_the_attempt_is_settled(number):
    count = 0
    costs: list[object] = []

    def interrupt(event):
        nonlocal count
        count += 1
        if count == number + 1:
            raise KeyboardInterrupt

    transport = Counting([answer()])
    settings = NodeCompletionParameters(cost_callback=costs.append)
    with observe(interrupt), pytest.raises(KeyboardInterrupt):
        asyncio.run(ChatNode.root("s").chat("u", OWN.with_transport(transport), settings))
    assert transport.open == 0
    if number > 0:
        assert [len(info.attempts) for info in costs] == [1]


@pytest.mark.parametrize("given", [None, "x", Observer, asyncio.sleep])
def test_what_is_no_observer_is_refused(given):
    for refuse in (observe, OWN.with_observer):
        with pytest.raises(InvalidParameterError, match="observer"):
            refuse(given)
    with pytest.raises(InvalidParameterError, match="with_observer"):
        OWN.replace(observers=(print,))


class Tracing(Observer):
    def __init__(self, headers):
        self.headers = headers

    def request_headers(self, event):
        return self.headers


async def test_an_observer_may_add_headers_but_replace_none(caplog):
    generator = on(answer()).with_api_key("sk-0").with_header("X-Mine", "1")
    wanted = {"traceparent": "00-1", "authorization": "x", "x-mine": "2", "Host": "evil.example"}
    with observe(Tracing(wanted)), observe(Tracing({"traceparent": "00-2", "X-B3": "1"})):
        await ChatNode.root("s").chat("u", generator)
    headers = generator.transport.requests[0].expose_headers()
    by_name = {name.lower(): value for name, value in headers}
    assert len(headers) == len(by_name)
    assert by_name["traceparent"] == "00-1"
    assert by_name["x-b3"] == "1"
    assert (by_name["authorization"], by_name["x-mine"]) == ("Bearer sk-0", "1")
    assert "host" not in by_name
    assert caplog.records == []


@pytest.mark.parametrize("status", [200, 400])
async def test_a_secret_in_an_observers_header_is_shown_nowhere(status, caplog, tmp_path):
    caplog.set_level(logging.INFO, "minillmlib")
    secret, seen = "sk-observer-0123456789", []
    echo = {"error": {"message": f"no {secret}"}} if status == 400 else {"echo": secret}
    choice = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
    reply = ScriptedReply(
        pieces=(json.dumps({"choices": [choice], "id": secret} | echo).encode(),),
        status=status,
        headers={"x-request-id": secret},
    )
    script = ScriptedTransport([reply])
    shown = []
    with (
        Recording(tmp_path / "r", transport=script) as recording,
        log_requests(),
        observe(seen.append, content=True),
        observe(Tracing({"X-Api-Key": secret})),
    ):
        try:
            node = await ChatNode.root("s").chat("u", OWN.with_transport(recording), NO_RETRY)
            shown += [node.response.id, node.response.attempts]
        except MiniLLMError as error:
            shown += [str(error), error.attempts]
    assert dict(script.requests[0].expose_headers())["X-Api-Key"] == secret
    assert secret not in f"{shown}{seen}{caplog.text}{(tmp_path / 'r').read_text()}"


class Undecided(Observer):
    @property
    def wants_content(self):
        raise RuntimeError("not now")


async def test_an_observer_that_cannot_say_what_it_wants_harms_nothing(caplog):
    others = []
    with observe(Undecided()), observe(others.append):
        assert (await ChatNode.root("s").chat("u", on(answer()))).text == "Paris."
    assert len(others) == 7
    assert "an observer failed" in caplog.text


@pytest.mark.parametrize("headers", [{"a b": "1"}, {"x": "1\r\ny: 2"}, {"x": 1}, None, 7])
async def test_a_header_that_cannot_be_sent_is_logged_and_not_sent(headers, caplog):
    generator = on(answer())
    with observe(Tracing(headers)):
        await ChatNode.root("s").chat("u", generator)
    names = {name.lower() for name, _ in generator.transport.requests[0].headers}
    assert not names & {"x", "y", "a b"}
    assert "an observer failed" in caplog.text


# What they cost.


def asks_for_observers(frame) -> bool:
    """Whether the line that runs asks whether anybody observes."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
    return "emitter" in line or "observed_" in line


CLAUDE = ScriptedReply.json({
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "word"}], "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 1},
})  # fmt: skip
FAST = {
    "chat": (OWN, answer()),
    "anthropic": (GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k"), CLAUDE),
}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other interpreters take other steps")
@pytest.mark.parametrize("wire", FAST)
def test_a_call_that_nobody_observes_pays_less_than_a_hundredth(wire):
    generator, reply = FAST[wire]

    def steps(counts) -> int:
        asked, leaf = on(reply, reply, generator=generator), ChatNode.root("s").add_user("u")
        return steps_of(lambda: asyncio.run(leaf.complete(asked)), counts)

    assert 0 < steps(asks_for_observers) <= steps(lambda _: True) / 100


# The log of requests.


async def test_requests_are_logged_with_their_bodies_on_a_line_each(caplog):
    caplog.set_level(logging.INFO)
    generator = on(BUSY, answer("Par\nis\x1b[8m")).with_api_key("sk-secret-0123456789")
    with log_requests():
        await ChatNode.root("s").chat("a question", generator, ONCE_MORE)
    await ChatNode.root("s").chat("unseen", on(answer()))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 6
    assert "attempt 1: POST https://own.example/v1/chat/completions; " in lines[0]
    assert "Authorization: [hidden]" in lines[0]
    assert '"content":"a question"' in lines[0]
    assert "attempt 1: status 429; content-type: application/json" in lines[1]
    assert "denied after" in lines[2]
    assert '{"error":{"message":"slow down"}}' in lines[2]
    assert "answered after" in lines[5]
    assert "$0.00015" in lines[5]
    assert r"Par\nis" in lines[5]
    assert all(line.isprintable() for line in lines)
    assert {record.name for record in caplog.records} == {"minillmlib"}


async def test_a_long_body_is_cut_and_a_stream_is_logged_as_it_came(caplog):
    caplog.set_level(logging.DEBUG)
    with log_requests(logging.DEBUG, max_chars=10, everywhere=False):
        await ChatNode.root("s").chat_streaming("u", on(stream_of("a", "b"))).collect()
    last = [record.getMessage() for record in caplog.records if "call" in record.getMessage()][-1]
    assert ': data: {"id [' in last
    assert last.endswith(" more characters]")


async def test_at_the_lowest_level_and_with_no_characters_a_body_is_logged_as_its_length(caplog):
    caplog.set_level(1)
    reply = answer("Paris.")
    transport = ScriptedTransport([reply])
    with log_requests(1, max_chars=0):
        await ChatNode.root("s").chat("a question", OWN.with_transport(transport))
    first, _, last = [each.getMessage() for each in caplog.records if each.levelno == 1]
    assert first.endswith(f":  [{len(transport.requests[0].body)} more characters]")
    assert last.endswith(f":  [{len(reply.pieces[0])} more characters]")
    assert "question" not in first
    assert "Paris" not in last


async def test_a_log_that_nobody_reads_keeps_no_body(caplog):
    caplog.set_level(logging.WARNING)
    with log_requests():
        await ChatNode.root("s").chat("u", on(answer()))
    assert caplog.records == []


# Tool loops and bulk runs.


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_what_happens_in_a_tool_loop_is_told_below_it(is_streamed):
    events: list[object] = []
    replies = [says(None, call(1, "add", a=1, b=2), call(2, "greet", name="Ann")), says("done")]
    if is_streamed:
        replies = [streams("", call(1, "add", a=1, b=2), call(2, "greet", name="Ann")),
                   streams("done")]  # fmt: skip
    with observe(events.append, content=True):
        leaf = ChatNode.root("s").add_user("u")
        if is_streamed:
            await leaf.run_tools_streaming(model(*replies), [add, greet]).collect()
        else:
            await leaf.run_tools(model(*replies), [add, greet])
        await ChatNode.root("s").chat("u", on(answer()))
    (loop,), (ended,) = only(events, ToolLoopStarted), only(events, ToolLoopEnded)
    assert (loop.tools, loop.parent) == (("add", "greet"), None)
    assert (ended.id, ended.turns, ended.error) == (loop.id, 2, None)
    parents = [each.parent for each in only(events, CompletionStarted)]
    assert parents == [loop.id, loop.id, None]
    tools = only(events, ToolStarted)
    assert [(each.name, each.call_id, each.parent) for each in tools] == [
        ("add", "call_1", loop.id), ("greet", "call_2", loop.id),
    ]  # fmt: skip
    results = {each.id: each.result for each in only(events, ToolEnded)}
    assert [results[each.id] for each in tools] == ["3", "Hello Ann"]
    assert json.loads(tools[0].arguments) == {"a": 1, "b": 2}


async def test_a_tool_that_asks_a_model_is_its_parent_and_one_that_fails_names_its_error():
    events: list[object] = []

    async def ask(question: str) -> str:
        """Ask another model."""
        return (await ChatNode.root("s").chat(question, on(answer()))).text

    def fail() -> str:
        """Fail."""
        raise ValueError("secret words")

    replies = [says(None, call(1, "ask", question="?"), call(2, "fail")), says("done")]
    with observe(events.append):
        await ChatNode.root("s").add_user("u").run_tools(model(*replies), [ask, fail])
    tool = only(events, ToolStarted)[0]
    assert tool.id in [each.parent for each in only(events, CompletionStarted)]
    assert {each.error for each in only(events, ToolEnded)} == {None, "ValueError"}
    assert "secret words" not in repr(events)
    assert tool.arguments is None


@pytest.mark.parametrize("way", ["raises", "is closed", "is cancelled"])
async def test_a_tool_loop_that_ends_early_has_ended(way):
    events: list[object] = []

    async def wait() -> str:
        """Wait."""
        await asyncio.Event().wait()

    generator = model(says(None, call(1, "wait")), says("done"))
    loop = ToolLoop(max_turns=1, tool_timeout_secs=0.01 if way == "raises" else None)
    stream = ChatNode.root("s").add_user("u").run_tools_streaming(generator, [wait], None, loop)
    with observe(events.append):
        if way == "raises":
            with pytest.raises(minillmlib.TurnLimitError):
                await stream.collect()
        else:
            task = asyncio.create_task(stream.collect())
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])
            await stream.aclose()
    expected = "TurnLimitError" if way == "raises" else "CancelledError"
    assert [each.error for each in only(events, ToolLoopEnded)] == [expected]
    assert len(only(events, ToolStarted)) == len(only(events, ToolEnded)) == 1


async def test_what_happens_in_a_bulk_run_is_told_below_it():
    events: list[object] = []
    generator = on(answer(), ScriptedReply.json({"error": {"message": "no"}}, status=400), answer())
    with observe(events.append):
        run = map_complete(["a", "b", "c"], generator, NO_RETRY, width=1)
        async for _ in run:
            pass
    await ChatNode.root("s").chat("u", on(answer()))
    (started,), (ended,) = only(events, BulkRunStarted), only(events, BulkRunEnded)
    assert (started.items, started.parent, started.generator) == (3, None, "own")
    assert (ended.id, ended.done, ended.failed, ended.error) == (started.id, 2, 1, None)
    assert {each.parent for each in only(events, CompletionStarted)} == {started.id}
    assert len(only(events, CompletionEnded)) == 3


async def test_a_bulk_run_that_is_left_or_stopped_by_an_error_has_ended():
    events: list[object] = []
    refused = ScriptedReply.json({"error": {"message": "no"}}, status=401)
    with observe(events.append):
        async with map_complete(["a"] * 9, OWN.with_transport(Hanging())) as bulk:
            waiting = asyncio.create_task(anext(bulk))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
        with pytest.raises(minillmlib.AuthenticationError):
            await map_complete(["a"], on(refused), NO_RETRY).collect()
    assert [each.error for each in only(events, BulkRunEnded)] == [None, "AuthenticationError"]
    assert len(only(events, CompletionStarted)) == len(only(events, CompletionEnded))
    assert len(only(events, RequestSent)) == len(only(events, AttemptEnded))
