"""A server may repeat a secret in any form and anywhere: nothing that is kept of a failure has it."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import inspect
import io
import json
import pickle
import pprint
import types
from contextlib import suppress

import msgspec
import pytest
import rich
from cost_of_work import check_linear
from rich.console import Console
from rich.pretty import pretty_repr
from secret_echoes import FORMS, GIVEN, KEY, PASSWORD, PLACES, USER, Reply
from secret_shapes import Canary
from secret_sinks import SINKS, Catch, watched

import minillmlib
from minillmlib import (
    ApiError,
    ChatNode,
    GeneratorInfo,
    GenericProvider,
    MiniLLMError,
    NodeCompletionParameters,
    Secret,
)
from minillmlib.auth.redaction import Redactor
from minillmlib.local.process import Settings
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.transport.proxy import parse_proxy

OWN = GeneratorInfo.custom("own", "https://own.example/v1", "m")
FEW = 6  # characters of a cut secret that do not matter


async def fail(generator: GeneratorInfo, reply: Reply, *, logs_bodies: bool = True) -> Catch:
    """Make a call that fails, and return everything that is left of it."""
    answer, is_streamed, settings = reply
    transport = ScriptedTransport([answer])
    generator = generator.with_transport(transport)
    with watched(logs_bodies=logs_bodies) as seen:
        catch = Catch("echo", generator, transport, seen)
        settings = settings.replace(cost_callback=catch.costs.append)
        root = ChatNode.root("s")
        try:
            if is_streamed:
                async with root.chat_streaming("u", generator, settings) as stream:
                    async for _ in stream:
                        pass
            else:
                await root.chat("u", generator, settings)
        except MiniLLMError as error:
            catch.error = error
    assert catch.error is not None
    return catch


def traces(catch: Catch, *words: str) -> dict[str, str]:
    """The sinks that show one of the words, as it is or as `repr` writes it."""
    forms = {form for word in words for form in (word, repr(word)[1:-1])}
    names = ["the error's text", "the error's attributes", "costs, nodes, responses and streams",
             "their attributes", "the log", "the fields of the log"]  # fmt: skip
    found = {}
    for name in names:
        for text in SINKS[name](catch):
            shown = text if isinstance(text, str) else bytes(text).decode("latin-1")
            if any(form in shown for form in forms):
                found[name] = shown
    return found


def unshifted(form: str, written: str) -> str:
    """The part of a form that its neighbours do not change."""
    return written[4:-8] if "base64" in form else written


@pytest.mark.parametrize("form", FORMS)
async def test_no_form_of_a_secret_is_left_of_any_place(form):
    generator = OWN.with_api_key(KEY)
    for place, reply in PLACES.items():
        written = FORMS[form](KEY)
        catch = await fail(generator, reply(written))
        found = traces(catch, KEY, unshifted(form, written))
        assert not found, (place, found)


@pytest.mark.parametrize("given", GIVEN)
async def test_no_part_of_a_header_is_left_in_any_form(given):
    change, words = GIVEN[given]
    for word in words:
        for form, write in FORMS.items():
            written = write(word)
            catch = await fail(change(OWN), PLACES["the message"](written))
            found = traces(catch, word, unshifted(form, written))
            assert not found, (form, word, found)


@pytest.mark.parametrize("given", GIVEN)
async def test_no_part_of_a_header_is_left_of_any_place(given):
    change, words = GIVEN[given]
    for place, reply in PLACES.items():
        for word in words:
            found = traces(await fail(change(OWN), reply(word)), word)
            assert not found, (place, word, found)


@pytest.mark.parametrize("place", PLACES)
async def test_what_a_place_holds_is_in_no_sink(place):
    canary = Canary("plain")
    catch = await fail(OWN.with_api_key(canary.sent), PLACES[place](canary.sent))
    for name, sink in SINKS.items():
        assert not [*filter(None, map(canary.trace_in, sink(catch)))], name


async def test_the_password_of_a_proxy_of_the_environment_is_a_secret_too(monkeypatch):
    monkeypatch.setenv("https_proxy", f"http://user:{PASSWORD}@127.0.0.1:3128")
    for word in (PASSWORD, base64.b64encode(f"user:{PASSWORD}".encode()).decode()):
        assert not traces(await fail(OWN, PLACES["the message"](word)), word)


CUT = {
    "an error": lambda text: ScriptedReply(
        pieces=(b'{"error": {"message": "bad key: ' + text.encode(),), status=401
    ),
    "a text": lambda text: ScriptedReply(pieces=(f"bad key: {text}".encode(),), status=500),
    "an answer": lambda text: ScriptedReply(
        pieces=(b'{"choices": [{"message": {"content": "' + text.encode(),)
    ),
    "an event": lambda text: ScriptedReply.events(
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: {"choices": "' + text.encode()
    ),
}


@pytest.mark.parametrize("form", [form for form in FORMS if "base64" not in form])
@pytest.mark.parametrize("where", CUT)
async def test_of_a_secret_that_breaks_off_a_few_characters_are_left(where, form):
    generator, whole = OWN.with_api_key(KEY), FORMS[form](KEY)
    start = FORMS[form](KEY[:FEW])
    start = start[: -(len(start) - len(FORMS[form](KEY[: FEW - 1]))) // 2 or None]
    for length in range(len(FORMS[form](KEY[:FEW])) + 2, len(whole) + 1, 1 + len(whole) // 12):
        reply = CUT[where](whole[:length]), where == "an event", NodeCompletionParameters(retry=0)
        found = traces(await fail(generator, reply), FORMS[form](KEY[:FEW]))
        assert not found, (length, found)


async def test_of_a_secret_at_the_end_of_a_broken_stream_a_few_characters_are_left():
    for length in range(FEW, len(KEY)):
        reply = PLACES["a stream without an end"](KEY[:length])
        # In the middle of a text, as in a body, less than half of a key may be any word.
        catch = await fail(OWN.with_api_key(KEY), reply, logs_bodies=False)
        assert not traces(catch, KEY[:FEW])
        assert catch.error.partial == "a [hidden]"


async def test_a_message_that_we_cut_within_a_secret_shows_a_few_characters():
    for before in range(170, 200):
        words = f"{'x' * before} {KEY}{KEY}"
        catch = await fail(OWN.with_api_key(KEY), PLACES["words that are rejected"](words))
        assert not traces(catch, KEY[:FEW])


async def test_only_the_secret_is_removed():
    reply = PLACES["the message"](f"{KEY}; keys begin with sk-proj- or sk-, p. 12: a%20b &amp; c")
    error = (await fail(OWN.with_api_key(KEY), reply)).error
    assert "bad key: [hidden]; keys begin with sk-proj- or sk-, p. 12: a%20b &amp; c" in str(error)


async def test_a_short_key_that_names_the_model_or_the_host_is_no_secret():
    generator = GeneratorInfo.custom("own", "http://127.0.0.1:1/v1", "ollama/m").with_api_key(
        "ollama"
    )
    error = (await fail(generator, PLACES["the message"]("no model ollama/m"))).error
    assert "no model ollama/m" in str(error)
    assert error.attempts[0].model == "ollama/m"


def answer(**fields: object) -> ScriptedReply:
    choice = {"index": 0, "message": {"content": f"is {KEY} yours?"}, "finish_reason": "stop"}
    return ScriptedReply.json({"choices": [choice], **fields})


async def test_the_words_of_a_good_answer_stay_but_the_record_of_it_has_no_secret():
    said = {"id": KEY, "model": KEY, "provider": KEY, "usage": {"prompt_tokens": KEY}}
    streamed = [{**said, "choices": [{"delta": {"content": f"is {KEY} yours?"}}]},
                {"choices": [{"delta": {}, "finish_reason": "stop"}]}]  # fmt: skip
    events = [b"data: %b\n\n" % json.dumps(event).encode() for event in streamed]
    replies = [answer(**said), ScriptedReply.events(*events)]
    generator = OWN.with_api_key(KEY).with_transport(ScriptedTransport(replies))
    whole = await ChatNode.root("s").chat("u", generator)
    stream = ChatNode.root("s").chat_streaming("u", generator)
    for response in (whole.response, (await stream.collect()).response):
        assert response.text == f"is {KEY} yours?"
        words = msgspec.structs.replace(response, content="")
        assert KEY not in repr(words)
        assert response.usage_record == {"prompt_tokens": "[hidden]"}


# Of any size.


HOSTILE = {
    "starts": KEY[:12], "halves": KEY[:14], "whole": KEY, "backslashes": "\\", "percent": "%",
    "ampersands": "&", "zeros": "&#0000000", "names": "&amp;", "escapes": "\\u0073",
    "blanks": "c2s \n", "hex": KEY.encode().hex()[:20], "brackets": "\\u{0000",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_looked_through_in_linear_time(name):
    redactor, piece = Redactor(Secret(KEY), Secret("a" * 4000 + "b")), HOSTILE[name]
    check_linear(lambda size: redactor.redact(piece * (size // len(piece))), 128 * 1024)


def test_a_secret_is_found_wherever_it_is_in_a_large_text():
    redactor = Redactor(Secret(KEY))
    for written in (KEY, FORMS["in turn"](KEY), FORMS["base64, shifted by one"](KEY)):
        for start in (0, 256 * 1024 - 40, 256 * 1024 - 1, 288 * 1024 - 13, 700_000):
            text = f"{'x ' * (start // 2)}{written} {'y' * (700_000 - start)}"
            assert written[4:-8] not in redactor.redact(text)


def test_a_value_that_is_nested_deeply_is_looked_through_or_removed():
    deep: object = [KEY]
    for _ in range(5000):
        deep = [deep]
    redacted = Redactor(Secret(KEY)).redact_value({"a": deep, "b": KEY})
    assert redacted["b"] == "[hidden]"
    value = redacted["a"]
    while isinstance(value, list):
        value = value[0]
    assert value == "[hidden]"


# Tools that print every field.


def with_rich(value: object) -> str:
    page = io.StringIO()
    console = Console(file=page, width=200)
    rich.inspect(value, console=console, all=True)
    console.print(value)
    return page.getvalue() + pretty_repr(value)


PRINTERS = {
    "rich": with_rich,
    "pprint": pprint.pformat,
    "inspect": lambda value: repr(inspect.getmembers(value)),
    "msgspec": lambda value: repr(msgspec.structs.asdict(value)),
    "to_builtins": lambda value: repr(msgspec.to_builtins(value, enc_hook=repr)),
    "msgspec.json": lambda value: repr(msgspec.json.encode(value, enc_hook=str)),
    "json": lambda value: json.dumps(value, default=vars),
    "copy": lambda value: with_rich(copy.copy(value)),
    "deepcopy": lambda value: with_rich(copy.deepcopy(value)),
    "pickle": lambda value: repr(pickle.dumps(value)),
}


async def test_no_tool_that_prints_every_field_shows_a_secret():
    transport = ScriptedTransport([answer()])
    proxy = f"http://{USER.partition('@')[0]}:{PASSWORD}@127.0.0.1:3128"
    generator = OWN.with_api_key(KEY).with_header("Cookie", f"a={KEY}").with_proxy(proxy)
    generator = generator.with_transport(transport)
    await ChatNode.root("s").chat("u", generator)
    (request,) = transport.requests
    shown = [
        generator, generator.credential, generator.credential.resolve(), generator.headers,
        generator.credential.resolve().secret(), request, request.headers, transport,
        parse_proxy(generator.proxy), parse_proxy(generator.proxy).authorization,
        msgspec.structs.replace(request, url=f"https://own.example/v1?key={KEY}", headers=()),
    ]  # fmt: skip
    shown.insert(0, Settings(model="m", alias="m", key=KEY))
    login = base64.b64encode(f"carol:{PASSWORD}".encode()).decode()
    for value in shown[1:-1]:
        for name, show in PRINTERS.items():
            try:
                text = show(value)
            except (TypeError, ValueError, AttributeError, MiniLLMError) as error:
                text = str(error)
            for word in (KEY, PASSWORD, login):
                assert word not in text, (name, type(value))
    for value in (shown[0], shown[-1]):  # their fields hold it as it is, to be sent
        assert KEY not in pretty_repr(value) + repr(value)


# Later questions, and what is left of a call.


def leads_to(url: str) -> GenericProvider:
    class Elsewhere(GenericProvider):
        def resolve_post_stream(self, base, response_id):
            return url

    return Elsewhere()


@pytest.mark.parametrize("given", ["api key", "Basic", "cookies"])
@pytest.mark.parametrize(
    "url",
    ["https://elsewhere.example/g", "https://own.example:8443/g", "http://own.example/g",
     "https://own.example@evil.example/g", "https://own.example.evil.example/g",
     "https://evil.example/https://own.example/g", "https://own.example\\@evil.example/g", "/g"],
)  # fmt: skip
async def test_the_question_for_a_late_cost_goes_to_no_other_server(url, given, monkeypatch):
    asked = await late_questions(GIVEN[given][0](OWN).with_provider(leads_to(url)), monkeypatch)
    assert asked == []


async def late_questions(generator, monkeypatch, *replies) -> list[str]:
    monkeypatch.setattr("minillmlib.client.deferred_cost.WAITS_SECS", (0.0, 0.0))
    chunk = b'data: {"id":"g1","choices":[{"delta":{"content":"x"}}]}\n\n'
    transport = ScriptedTransport([ScriptedReply.events(chunk), *replies])
    generator = generator.with_transport(transport)
    stream = ChatNode.root("s").chat_streaming(
        "u", generator, NodeCompletionParameters(retry=0, cost_callback=lambda _: None)
    )
    with pytest.raises(MiniLLMError):
        async for _ in stream:
            pass
    await stream.cancel()
    return [request.url for request in transport.requests[1:]]


async def test_the_question_for_a_late_cost_follows_no_redirect(monkeypatch):
    there = ScriptedReply(pieces=(), status=307, headers={"location": "https://evil.example/g"})
    generator = GIVEN["api key"][0](OWN).with_provider(leads_to("https://own.example/g"))
    assert await late_questions(generator, monkeypatch, there) == ["https://own.example/g"]


def alive(*words: str) -> list[str]:
    """What holds one of the words, among all objects, but for those of this test."""
    gc.collect()
    found = []
    for holder in gc.get_objects():
        if isinstance(holder, types.FrameType) and holder.f_code.co_filename == __file__:
            continue
        for text in gc.get_referents(holder):
            if isinstance(text, str | bytes | bytearray) and any(
                (word if isinstance(text, str) else word.encode()) in text for word in words
            ):
                found.append(f"{type(holder).__name__}: {text[:80]!r}")
    return found


@pytest.mark.parametrize("way", ["whole", "failed", "streamed", "left", "cancelled", "run"])
async def test_nothing_of_a_call_is_alive_after_it(way):
    parts = [(f"kept-{way}-", word) for word in ("prompt", "answer", "secret-key")]

    async def call() -> None:
        prompt, said, key = ("".join(part) for part in parts)
        event = {"id": said, "choices": [{"delta": {"content": said}}]}
        data = b"data: %b\n\n" % json.dumps(event).encode()
        end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
        failing = ScriptedReply.json({"error": {"message": f"{said} {key}"}}, status=500)
        choice = {"message": {"content": said}, "finish_reason": "stop"}
        good = ScriptedReply.json({"id": key, "choices": [choice]})
        replies = {"failed": failing, "whole": good, "run": good}
        reply = replies.get(way, ScriptedReply.events(data, data, end))
        generator = OWN.with_api_key(key).with_transport(ScriptedTransport([reply]))
        root = ChatNode.root("s")
        if way in replies:
            with suppress(ApiError):
                await root.chat(prompt, generator, NodeCompletionParameters(retry=0))
            return
        with suppress(asyncio.CancelledError):
            async with root.chat_streaming(prompt, generator) as stream:
                async for _ in stream:
                    if way == "left":
                        break
                    if way == "cancelled":
                        asyncio.current_task().cancel()
                        await asyncio.sleep(0)

    if way == "run":
        await asyncio.to_thread(minillmlib.run, call())
    else:
        task = asyncio.create_task(call())  # kept, with its coroutine and its context
        await asyncio.wait([task])
        assert task.result() is None
    left = [each for each in alive(*map("".join, parts)) if not each.startswith("list: ")]
    assert left == []
