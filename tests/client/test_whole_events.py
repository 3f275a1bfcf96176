"""All events of some calls, and all lines that are logged of them, with every field."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time

import msgspec
import pytest
from tool_scripts import add, call, model, says

from golden import GOLDEN
from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    GeneratorInfo,
    MiniLLMError,
    NodeCompletionParameters,
    TokenPrice,
    log_requests,
    map_complete,
    observe,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types.events import AttemptEnded, CompletionEnded
from minillmlib.version import __version__

KEY = "sk-own-0123456789"
OWN = (
    GeneratorInfo.custom("own", "https://own.example/v1", "m")
    .with_token_price(TokenPrice(1, 5))
    .with_api_key(KEY)
)
OTHER = GeneratorInfo.custom("other", "https://other.example/v1", "n")
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
BUSY = ScriptedReply.json({"error": {"message": f"{KEY}: slow down"}}, status=429)
NO_RETRY = NodeCompletionParameters(retry=0)
ONCE_MORE = NodeCompletionParameters(retry=1, back_off_time=0)


def answer(text: str = "Paris.", **fields) -> ScriptedReply:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    body = {"id": "c-1", "model": "m-2", "choices": [choice], "usage": USAGE, **fields}
    return ScriptedReply(pieces=(json.dumps(body).encode(),), headers={"X-Request-Id": "r-1"})


def stream_of(*words: str, ends: bool = True) -> ScriptedReply:
    events = [{"id": "s-1", "choices": [{"delta": {"content": word}}]} for word in words]
    if ends:
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    return ScriptedReply.events(*(b"data: %b\n\n" % msgspec.json.encode(each) for each in events))


def on(*replies: ScriptedReply, generator: GeneratorInfo = OWN) -> GeneratorInfo:
    return generator.with_transport(ScriptedTransport(replies))


def asked() -> ChatNode:
    return ChatNode.root("s").add_user("u")


async def whole() -> None:
    await asked().complete(on(answer()))


async def streamed() -> None:
    await asked().complete_streaming(on(stream_of("Pa", "ris"))).collect()


async def left() -> None:
    async with asked().complete_streaming(on(stream_of("Pa", "ris", ends=False))) as stream:
        await anext(stream)


async def with_all_parameters() -> None:
    params = CompletionParameters(
        max_tokens=9, temperature=0.5, top_p=0.6, top_k=7, frequency_penalty=0.1,
        presence_penalty=0.2, seed=3, stop=["x"],
    )  # fmt: skip
    await asked().complete(on(answer()), params)


async def two_answers() -> None:
    choices = [{"index": number, "message": {"content": "a"}, "finish_reason": "stop"}
               for number in range(2)]  # fmt: skip
    openai = GeneratorInfo.openai("gpt-4o-mini").with_api_key(KEY)
    generator = on(answer(choices=choices), generator=openai)
    await asked().complete_many(2, generator)


async def of_a_text() -> None:
    reply = ScriptedReply.json({"choices": [{"text": "ok", "finish_reason": "length"}]})
    await asked().complete(on(reply, generator=OWN.with_provider(CompletionsProvider())))


async def retried() -> None:
    await asked().complete(on(BUSY, answer()), ONCE_MORE)


async def failed() -> None:
    await asked().complete(on(BUSY), NO_RETRY)


async def fallen_back() -> None:
    unable = OTHER.with_provider(AnthropicProvider())
    settings = NO_RETRY.with_params(CompletionParameters(seed=1))
    other = on(answer("Rome."), generator=OTHER)
    await asked().complete(on(BUSY).or_else(unable, other), settings)


async def not_built() -> None:
    await asked().complete(on(), CompletionParameters(extra={"model": KEY}))


async def published_later() -> None:
    found = {"data": {"total_cost": 0.5, "tokens_prompt": 7, "tokens_completion": 3,
                      "native_tokens_prompt": 7, "native_tokens_completion": 3}}  # fmt: skip
    routed = GeneratorInfo.openrouter("x/y").with_api_key("k")
    generator = on(stream_of("a", "b", ends=False), ScriptedReply.json(found), generator=routed)
    settings = NodeCompletionParameters(cost_callback=lambda _: None)
    stream = asked().complete_streaming(generator, settings)
    await anext(stream)
    await stream.cancel()


def fail(what: str) -> str:
    """Fail."""
    raise ValueError(what)


async def in_a_tool_loop() -> None:
    replies = [says(None, call(1, "add", a=1, b=2)), says(None, call(2, "fail", what=KEY)), says("ok")]  # fmt: skip
    await asked().run_tools(model(*replies).with_api_key(KEY), [add, fail])


async def in_a_tool_loop_that_fails() -> None:
    await asked().run_tools(model(BUSY).with_api_key(KEY), [add], NO_RETRY)


async def in_a_bulk_run() -> None:
    refused = ScriptedReply.json({"error": {"message": "no"}}, status=400)
    await map_complete(["a", "b"], on(answer(), refused), NO_RETRY, width=1).collect()


async def in_a_bulk_run_that_fails() -> None:
    refused = ScriptedReply.json({"error": {"message": "no"}}, status=401)
    await map_complete(["a"], on(refused), NO_RETRY, width=1).collect()


CALLS = (
    whole, streamed, left, with_all_parameters, two_answers, of_a_text, retried, failed,
    fallen_back, not_built, published_later, in_a_tool_loop, in_a_tool_loop_that_fails,
    in_a_bulk_run, in_a_bulk_run_that_fails,
)  # fmt: skip
VARYING = ("at", "started_at", "elapsed_secs", "id", "parent")


def lines_of(events: list[object]) -> list[str]:
    """The events as lines, without their times; things are numbered as they begin."""
    numbers: dict[int | None, int | None] = {None: None}

    def plain(value, key=None):
        if key in ("id", "parent") and (value is None or isinstance(value, int)):
            return numbers.setdefault(value, len(numbers))
        if key in VARYING and isinstance(value, float):
            return "a time" if value > 0 else value
        if key == "attempts":  # each of them was told before
            return [each["number"] for each in value]
        if isinstance(value, dict):
            fields = {name: plain(each, name) for name, each in value.items()}
            return {name: each for name, each in fields.items() if each is not None}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return value.decode() if isinstance(value, bytes) else value

    def line_of(event) -> str:
        fields = plain(msgspec.to_builtins(event, builtin_types=(bytes,)))
        text = json.dumps(fields).replace(__version__, "VERSION")
        return f"{type(event).__name__} {text}"

    return [line_of(event) for event in events]


async def events_of(make, *, content: bool) -> list[str]:
    events: list[object] = []
    with observe(events.append, content=content):
        try:
            await make()
        except MiniLLMError as error:
            assert KEY not in str(error)
    assert all(abs(event.at - time.time()) < 60 for event in events)
    ended = [event.attempt for event in events if isinstance(event, AttemptEnded)]
    over = [event.attempts for event in events if isinstance(event, CompletionEnded)]
    assert ended == [attempt for attempts in over for attempt in attempts]
    return lines_of(events)


def blocks_of(name: str) -> dict[str, list[str]]:
    """The blocks of a golden file, by the line that each begins with."""
    blocks = (GOLDEN / f"texts/{name}.txt").read_text().strip().split("\n\n")
    return {first: lines for first, *lines in map(str.splitlines, blocks)}


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr("minillmlib.client.deferred_cost.WAITS_SECS", (0.0, 0.0))


async def test_each_event_has_all_its_fields():
    found = {make.__name__: await events_of(make, content=True) for make in CALLS}
    assert found == blocks_of("observed_events")


CONTENT = ("messages", "headers", "body", "message", "response", "arguments", "result")


async def test_without_content_the_events_are_the_same_but_for_the_content():
    for make, whole in blocks_of("observed_events").items():
        bare = await events_of(globals()[make], content=False)
        assert len(bare) == len(whole)
        for line, full in zip(bare, whole, strict=True):
            (kind, fields), (full_kind, full_fields) = line.split(" ", 1), full.split(" ", 1)
            expected = {key: value for key, value in json.loads(full_fields).items()
                        if key not in CONTENT}  # fmt: skip
            assert (kind, json.loads(fields)) == (full_kind, expected)


async def test_each_line_of_the_log_has_all_that_is_said(caplog):
    caplog.set_level(logging.INFO, "minillmlib")
    found = {}
    for make in CALLS:
        caplog.clear()
        with log_requests():
            with contextlib.suppress(MiniLLMError):
                await make()
        lines = [record.getMessage() for record in caplog.records]
        numbers: dict[str, str] = {}

        def renumber(found, numbers=numbers) -> str:
            return f"call {numbers.setdefault(found[1], str(len(numbers) + 1))}"

        text = re.sub(r"call ([0-9]+)", renumber, "\n".join(lines).replace(__version__, "VERSION"))
        found[make.__name__] = re.sub(r"[0-9]\.[0-9]{3} s", "some s", text).splitlines()
    assert found == blocks_of("request_log")


@pytest.mark.parametrize("sizes", [(600_000, 400_000), (999_000,), (999_999, 5, 5), (2_000_000,)])
async def test_of_a_long_body_a_million_bytes_are_shown(sizes):
    events: list[object] = []
    pieces = (*(b" " * size for size in sizes), *answer().pieces)
    with observe(events.append, content=True):
        await asked().complete(on(ScriptedReply(pieces=pieces)))
    (ended,) = (event for event in events if isinstance(event, AttemptEnded))
    assert ended.body == b"".join(pieces)[:1_000_000]
