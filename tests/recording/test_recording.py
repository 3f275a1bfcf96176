"""A recording is what servers sent, byte for byte; a replay repeats it without a network."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
from decimal import Decimal
from functools import partial

import msgspec
import pytest
from batch_vendors import VENDORS
from hypothesis import given, settings
from hypothesis import strategies as st
from openrouter_server import COST, Router
from recorded_calls import Tap, all_calls, count_sockets, kind_server, outcome_of
from short_answers import said, streamed
from tool_scripts import add, call, says
from virtual_clock import run_virtually

from golden import GOLDEN
from minillmlib import (
    AnswerCache,
    ChatNode,
    CompletionParameters,
    ConnectError,
    GeneratorInfo,
    HttpRequest,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    NotRecordedError,
    ReadError,
    Recording,
    RequestTimeoutError,
    Secret,
    StorageError,
    TokenPrice,
    map_complete,
)
from minillmlib.auth.redaction import Redactor
from minillmlib.client import deferred_cost
from minillmlib.testing import ScriptedReply, ScriptedTransport, forbid_network, use_transport
from minillmlib.transport.aiohttp import AiohttpTransport

GENERATOR = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_api_key(
    "sk-own-0123456"
)
ROOT = ChatNode.root("Be brief.")


def over(recording: Recording) -> GeneratorInfo:
    return GENERATOR.with_transport(recording)


def recorded(path, *replies: ScriptedReply) -> Recording:
    return Recording(path, transport=ScriptedTransport(replies))


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_replay_of_fifty_calls_over_all_wires_opens_no_socket_and_repeats_every_byte(
    tmp_path,
):
    calls = all_calls()
    assert len(calls) >= 50
    async with kind_server() as server:
        engine = AiohttpTransport()
        taps = [Tap(Recording(tmp_path / "r", transport=engine)) for _ in calls]
        pairs = zip(calls, taps, strict=True)
        before = await asyncio.gather(*(outcome_of(call, server.url, tap) for call, tap in pairs))
    replay = Recording(tmp_path / "r", mode="replay")
    again = [Tap(replay) for _ in calls]
    with count_sockets() as events:
        pairs = zip(calls, again, strict=True)
        after = await asyncio.gather(*(outcome_of(call, server.url, tap) for call, tap in pairs))
    assert events == []
    for each, one, other, tap, repeated in zip(calls, before, after, taps, again, strict=True):
        assert one == other, each
        assert tap.noted == repeated.noted, each
    assert sum(
        b"read_gauge" in piece for tap in again for piece in tap.noted if type(piece) is bytes
    )
    assert "CancelledError()" in [noted for tap in again for noted in tap.noted]


async def test_what_was_recorded_through_litellm_and_from_a_local_model_needs_neither():
    path = GOLDEN / "recordings" / "litellm_local.jsonl"
    replay = Recording(path, mode="replay")
    url = lines_of(path)[1]["request"]["url"].removesuffix("/v1/chat/completions")
    chat = GeneratorInfo.custom("litellm", f"{url}/v1", "smollm2").with_api_key("another")
    claude = GeneratorInfo.anthropic("smollm2").with_base_url(url).with_api_key("another")
    params = CompletionParameters(temperature=0, max_tokens=12)
    root, question = ChatNode.root("You are a helpful assistant."), "What is the capital of France?"
    costs = []
    with count_sockets() as events:
        for each in (chat, claude, GeneratorInfo.local()):
            generator = each.with_transport(replay)
            answer = await root.chat(question, generator, params)
            assert answer.text == "The capital of France is Paris."
            costs.append(answer.cost)
            if generator.name != "local":
                stream = root.chat_streaming(question, generator, params)
                deltas = [chunk.delta async for chunk in stream]
                assert deltas[:7] == ["The", " capital", " of", " France", " is", " Paris", "."]
                costs.append(stream.node.cost)
        with pytest.raises(MiniLLMError, match="Invalid model name"):
            await root.chat(question, chat.replace(model="nobody").with_transport(replay))
    assert events == []
    stated = Decimal("0.0000042999999999999995")  # as litellm says, but not in a stream of messages
    assert [cost.cost for cost in costs] == [stated, stated, stated, 0, 0]
    assert [cost.is_exact for cost in costs] == [True, True, True, False, True]


async def test_the_file_can_be_read(tmp_path):
    path = tmp_path / "r"
    data = b'{"choices": [{"message": {"content": "\xc3\xa9"}, "finish_reason": "stop"}]}'
    reply = ScriptedReply(pieces=(data[:40], data[40:]), headers={"X-Request-Id": "7"})
    answer = await ROOT.chat("Caf\N{LATIN SMALL LETTER E WITH ACUTE}?", over(recorded(path, reply)))
    header, exchange = lines_of(path)
    assert header == {"kind": "minillmlib recording", "version": 1}
    assert exchange["request"]["method"] == "POST"
    assert exchange["request"]["url"] == "https://own.example/v1/chat/completions"
    assert exchange["request"]["headers"]["authorization"] == "[hidden]"
    assert exchange["request"]["body"]["json"]["messages"][1] == {
        "content": "Caf\N{LATIN SMALL LETTER E WITH ACUTE}?", "role": "user",
    }  # fmt: skip
    assert exchange["status"] == 200
    assert exchange["headers"] == {"x-request-id": "7"}
    assert exchange["body"]["json"]["choices"][0]["message"]["content"] == answer.text
    assert [size for _, size in exchange["pieces"]] == [40, len(data) - 40]


@settings(deadline=None, max_examples=50)
@given(
    pieces=st.lists(
        st.binary(min_size=1) | st.sampled_from([b'{"a":1}', b"[\n]", b"{}"]), max_size=5
    )
)
async def test_any_bytes_come_back_in_the_same_pieces(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("r") / "r"
    request = HttpRequest(url="https://own.example/", headers=(), body=b"")

    async def read(recording: Recording) -> list[bytes]:
        response = await recording.send(request)
        return [piece async for piece in _pieces(response)]

    assert await read(recorded(path, ScriptedReply(pieces=tuple(pieces)))) == pieces
    assert await read(Recording(path, mode="replay")) == pieces


async def _pieces(response):
    while piece := await response.read():
        yield piece


@pytest.mark.parametrize(
    "body", [b'{"b":1,"a":[1.50]}', b"--x\r\n\xff\x00", b"", b"text", b"[[[[", b"{\n}"]
)
async def test_equal_requests_are_found_whatever_their_bodies_are(tmp_path, body):
    request = HttpRequest(url="https://own.example/?n=1", headers=(("X-Tenant", "t"),), body=body)
    response = await recorded(tmp_path / "r", said("ok")).send(request)
    assert [piece async for piece in _pieces(response)]
    recording = Recording(tmp_path / "r", mode="replay")
    again = msgspec.structs.replace(
        request, headers=(("x-tenant", "t"), ("User-Agent", "another"), ("traceparent", "00-1"))
    )
    assert (await recording.send(again)).status == 200
    for changed in ({"method": "GET"}, {"url": "https://own.example/?n=2"}, {"body": body + b" x"},
                    {"headers": (("X-Tenant", "u"),)}):  # fmt: skip
        with pytest.raises(NotRecordedError):
            await recording.send(msgspec.structs.replace(request, **changed))


async def test_once_records_what_is_missing_and_replay_and_new_keep_to_their_words(tmp_path):
    path = tmp_path / "r"
    for expected in ("Paris.", "Paris."):
        assert (await ROOT.chat("France?", over(recorded(path, said("Paris."))))).text == expected
    assert len(lines_of(path)) == 2, "the second call was replayed"
    await ROOT.chat("Italy?", over(recorded(path, said("Rome."))))
    assert len(lines_of(path)) == 3
    with use_transport(ScriptedTransport([])):
        replay = over(Recording(path, mode="replay"))
        assert (await ROOT.chat("Italy?", replay)).text == "Rome."
        with pytest.raises(NotRecordedError):
            await ROOT.chat("Spain?", replay)
    before = path.read_bytes()
    renewal = Recording(path, mode="new", transport=ScriptedTransport([said("Lutetia.")]))
    with renewal:
        assert (await ROOT.chat("France?", over(renewal))).text == "Lutetia."
        assert path.read_bytes() == before, "replaced at the end"
    assert len(lines_of(path)) == 2
    assert (await ROOT.chat("France?", over(Recording(path, mode="replay")))).text == "Lutetia."


async def test_a_renewal_that_fails_or_is_forgotten_leaves_the_file(tmp_path):
    path = tmp_path / "r"
    await ROOT.chat("France?", over(recorded(path, said("Paris."))))
    before = path.read_bytes()
    renewal = Recording(path, mode="new", transport=ScriptedTransport([said("x")]))
    with pytest.raises(ZeroDivisionError), renewal:
        await ROOT.chat("France?", over(renewal))
        1 / 0  # noqa: B018
    renewal = Recording(path, mode="new", transport=ScriptedTransport([said("x")]))
    await ROOT.chat("France?", over(renewal))
    with pytest.warns(ResourceWarning, match="close it"):
        del renewal
    assert path.read_bytes() == before


async def test_a_miss_shows_the_nearest_request_and_the_difference(tmp_path):
    path = tmp_path / "capitals.jsonl"
    recording = recorded(path, said("Rome."), said("Paris."))
    await ROOT.chat("The capital of Italy?", over(recording))
    await ROOT.chat("The capital of France?", over(recording), CompletionParameters(seed=1))
    replay = over(Recording(path, mode="replay"))
    with pytest.raises(NotRecordedError) as caught:
        await ROOT.chat("The capital of Frankia?", replay, CompletionParameters(temperature=0))
    assert str(caught.value) == (
        f"{str(path)!r} has no answer for POST https://own.example/v1/chat/completions: the "
        "nearest request, in line 2, differs in\n"
        "  body.messages[1].content: recorded 'The capital of Italy?', now 'The capital of "
        "Frankia?'\n"
        "  body.temperature: recorded nothing, now 0\n"
        'to record it, use mode="once" or "new"'
    )
    with pytest.raises(NotRecordedError, match="the nearest request, in line 2"):
        await ROOT.chat("The capital of Frankia?", replay, CompletionParameters(temperature=0))
    assert not caught.value.was_sent
    assert [attempt.cost for attempt in caught.value.attempts] == [None]
    await ROOT.chat("The capital of Italy?", replay)
    with pytest.raises(NotRecordedError, match="it was recorded once, and is asked once more"):
        await ROOT.chat("The capital of Italy?", replay)


async def test_a_difference_in_a_long_text_is_shown_where_it_is(tmp_path):
    text = "word " * 1000
    await ROOT.chat(text + "A", over(recorded(tmp_path / "r", said("ok"))))
    with pytest.raises(NotRecordedError) as caught:
        await ROOT.chat(text + "B", over(Recording(tmp_path / "r", mode="replay")))
    assert "ord word word word A', now" in str(caught.value)
    assert len(str(caught.value)) < 500


async def test_an_empty_recording_says_so(tmp_path):
    Recording(tmp_path / "r", mode="new").close()
    with pytest.raises(NotRecordedError, match="it has none at all"):
        await ROOT.chat("u", over(Recording(tmp_path / "r", mode="replay")))


async def test_equal_requests_in_flight_together_get_their_answers_in_order(tmp_path):
    class Slow:
        """Answers the first request last."""

        async def send(self, _request):
            Slow.count += 1
            number = Slow.count
            await asyncio.sleep(0.01 * (5 - number))
            return await ScriptedTransport([said(str(number))]).send(_request)

    Slow.count = 0
    recording = Recording(tmp_path / "r", transport=Slow())
    nodes = await asyncio.gather(*(ROOT.chat("u", over(recording)) for _ in range(4)))
    assert [node.text for node in nodes] == ["1", "2", "3", "4"]
    replay = over(Recording(tmp_path / "r", mode="replay"))
    nodes = await asyncio.gather(*(ROOT.chat("u", replay) for _ in range(4)))
    assert [node.text for node in nodes] == ["1", "2", "3", "4"]
    items = [ROOT.add_user("u") for _ in range(4)]
    run = map_complete(items, over(Recording(tmp_path / "r", mode="replay")))
    assert [(o.index, o.node.text) async for o in run] == [(0, "1"), (1, "2"), (2, "3"), (3, "4")]


async def test_retries_and_tool_loops_are_replayed(tmp_path):
    busy = ScriptedReply.json({"error": {"message": "busy"}}, status=503)
    recording = recorded(tmp_path / "r", busy, says(None, call(1, "add", a=1, b=2)), says("3"))
    for make in (lambda: recording, lambda: Recording(tmp_path / "r", mode="replay")):
        settings = NodeCompletionParameters(retry=1)
        answer = await ROOT.add_user("1 + 2?").run_tools(over(make()), [add], settings)
        assert answer.text == "3"


@pytest.mark.parametrize("line", [
    b"{}", b"null", b"\xff", b"[" * 5000, b'{"kind":"exchange"}', b'{"kind":"other"}',
    b"<<<<<<< HEAD", b'{"kind":"minillmlib recording","version":2}', b'{"kind":"exchange","x":1}',
])  # fmt: skip
async def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "r"
    await ROOT.chat("u", over(recorded(path, said("ok"))))
    good = path.read_bytes()
    path.write_bytes(good + line + b"\n" + good)
    with pytest.raises(StorageError, match="line 3 is not of a recording"):
        Recording(path)


@pytest.mark.parametrize("change", [
    {"status": 0}, {"status": 10**6}, {"status": "200"}, {"pieces": [[0, 1]]}, {"pieces": [[0, -5]]},
    {"body": {"base64": "%%%"}}, {"body": {"text": "x"}}, {"ended": "failed"}, {"ended": "sunk"},
    {"started_at": "now"}, {"headers": {"a": 1}}, {"request": {}}, {"status": None},
    {"error": {"type": "ReadError", "message": "m", "is_retryable": True}},
])  # fmt: skip
async def test_a_line_that_contradicts_itself_is_named(tmp_path, change):
    path = tmp_path / "r"
    await ROOT.chat("u", over(recorded(path, said("ok"))))
    header, exchange = path.read_bytes().splitlines()
    changed = json.dumps(json.loads(exchange) | change).encode()
    path.write_bytes(header + b"\n" + changed + b"\n")
    with pytest.raises(StorageError, match="line 2 is not of a recording"):
        Recording(path)


async def test_a_file_of_another_kind_is_refused_and_stays(tmp_path):
    path = tmp_path / "r"
    for text in ("precious", "precious\n", '{"kind":"minillmlib run","version":1}\n'):
        path.write_text(text)
        with pytest.raises(StorageError, match="line 1 is not of a recording"):
            Recording(path)
        assert path.read_text() == text
    with pytest.raises(StorageError, match="a directory"):
        Recording(tmp_path)
    with pytest.raises(StorageError, match="does not exist"):
        Recording(tmp_path / "none", mode="replay")
    with pytest.raises(InvalidParameterError, match="'once', 'replay' or 'new'"):
        Recording(tmp_path / "r", mode="all")


async def test_a_folder_that_is_missing_is_named_when_the_first_exchange_is_written(tmp_path):
    with pytest.raises(StorageError, match="make its folder first"):
        await ROOT.chat("u", over(recorded(tmp_path / "none" / "r", said("ok"))))


async def test_a_line_that_a_crash_left_unfinished_is_written_anew(tmp_path):
    path = tmp_path / "r"
    await ROOT.chat("a", over(recorded(path, said("A"))))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:50])
    await ROOT.chat("b", over(recorded(path, said("B"))))
    assert path.read_bytes().startswith(whole)
    assert len(lines_of(path)) == 3


def test_threads_write_one_file_together(tmp_path):
    def work(number: int) -> None:
        generator = over(recorded(tmp_path / "r", *[said("ok")] * 5))
        for turn in range(5):
            asyncio.run(ROOT.chat(f"{number} {turn}", generator))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    header, *exchanges = lines_of(tmp_path / "r")
    assert header["version"] == 1
    assert len(exchanges) == 20


async def test_the_errors_of_a_transport_come_back_as_they_were(tmp_path):
    class Fails:
        async def send(self, _request):
            raise failure

    unsent = ReadError("early")
    unsent.was_sent = False
    failures = {
        ConnectError("nobody"): False,
        ReadError("cut"): True,
        KeyError("k"): True,
        unsent: False,
    }
    for number, (failure, was_sent) in enumerate(failures.items()):
        path = tmp_path / str(number)
        with pytest.raises(type(failure)):
            await ROOT.chat("u", over(Recording(path, transport=Fails())))
        with pytest.raises(MiniLLMError, match=str(failure).strip("'")) as caught:
            await ROOT.chat("u", over(Recording(path, mode="replay")))
        assert [attempt.was_sent for attempt in caught.value.attempts] == [was_sent]


async def test_the_reader_of_a_stream_that_was_left_may_not_read_on(tmp_path):
    recording = recorded(tmp_path / "r", streamed("a", "b", "c"))
    async with ROOT.chat_streaming("u", over(recording)) as stream:
        await anext(stream)
    replay = Recording(tmp_path / "r", mode="replay")
    with pytest.raises(ReadError, match="its reader left; record it anew") as caught:
        await ROOT.chat_streaming("u", over(replay)).collect()
    assert caught.value.partial == "a"


class Stalling:
    """Sends one piece of a stream, and no more."""

    status, headers = 200, {"content-type": "text/event-stream"}

    async def send(self, _request):
        self.pieces = iter(streamed("a", finish=None).pieces)
        return self

    async def read(self):
        return next(self.pieces, None) or await asyncio.get_running_loop().create_future()

    def close(self):
        pass


async def test_a_wait_that_a_clock_ended_is_ended_by_it_again(tmp_path):
    settings = NodeCompletionParameters(timeout_secs=0.05)
    for transport in (Stalling(), ScriptedTransport([])):
        with pytest.raises(RequestTimeoutError) as caught:
            recording = Recording(tmp_path / "r", transport=transport)
            await ROOT.chat_streaming("u", over(recording), settings).collect()
        assert caught.value.partial == "a"


async def test_a_replay_that_waits_ends_when_it_is_closed(tmp_path):
    stream = ROOT.chat_streaming("u", over(Recording(tmp_path / "r", transport=Stalling())))
    await anext(stream)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait({reading})
    stream = ROOT.chat_streaming("u", over(Recording(tmp_path / "r", mode="replay")))
    await anext(stream)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    await stream.aclose()
    await asyncio.wait({reading}, timeout=5)
    assert isinstance(reading.exception(), StopAsyncIteration)


async def test_the_pieces_come_at_once_or_at_their_times(tmp_path):
    class Dripping:
        async def send(self, request):
            return self

        status, headers, pieces = 200, {"content-type": "text/event-stream"}, None

        async def read(self):
            self.pieces = self.pieces or iter(streamed("a", "b").pieces)
            await asyncio.sleep(0.05)
            return next(self.pieces, b"")

        def close(self):
            pass

    async def secs(recording: Recording) -> float:
        started = time.monotonic()
        await ROOT.chat_streaming("u", over(recording)).collect()
        return time.monotonic() - started

    taken = await secs(Recording(tmp_path / "r", transport=Dripping()))
    assert await secs(Recording(tmp_path / "r", mode="replay", keeps_timing=True)) >= 0.14
    assert await secs(Recording(tmp_path / "r", mode="replay")) < 0.14 <= taken


async def test_a_cost_that_is_looked_up_later_is_recorded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(deferred_cost, "WAITS_SECS", (0.0, 0.0))
    for router in (Router(), ScriptedTransport([])):
        recording = Recording(tmp_path / "r", transport=router)
        generator = Router().generator().with_transport(recording)
        costs = []
        settings = NodeCompletionParameters(cost_callback=costs.append)
        stream = ROOT.chat_streaming("u", generator, settings)
        await anext(stream)
        assert (await stream.cancel()).cost == COST
        assert [cost.cost for cost in costs] == [COST]
    methods = [line["request"]["method"] for line in lines_of(tmp_path / "r")[1:]]
    assert methods == ["POST", "GET", "GET"]


SECRETS = {
    "key": "sk-planted-key-0123456789",
    "query": "planted-query-0123456789",
    "cookie": "planted-cookie-0123456789",
    "proxy": "planted-proxy-0123456789",
    "header": "planted-header-0123456789",
}


async def test_no_planted_secret_is_in_the_file(tmp_path, caplog):
    echo = " ".join(SECRETS.values()).encode()
    request = HttpRequest(
        url=f"https://own.example/v1?api_key={SECRETS['query']}&alt=sse",
        headers=(("Authorization", Secret(f"Bearer {SECRETS['key']}")), ("X-Api-Token", SECRETS["header"]),
                 ("Cookie", f"id={SECRETS['cookie']}"), ("X-Tenant", "shown")),
        body=json.dumps({"prompt": f"my key is {SECRETS['key']}"}).encode(),
        proxy=Secret(f"http://me:{SECRETS['proxy']}@127.0.0.1:1"),
    )  # fmt: skip
    pieces = tuple(echo[start : start + 7] for start in range(0, len(echo), 7))
    headers = {
        "Set-Cookie": "another-cookie",
        "X-Echo": echo.decode(),
        "x-ratelimit-limit-tokens": "9",
    }
    transport = ScriptedTransport([ScriptedReply(pieces=pieces, headers=headers, breaks_off=True)])
    response = await Recording(tmp_path / "r", transport=transport).send(request)
    with pytest.raises(ReadError):
        while await response.read():
            pass

    class Fails:
        async def send(self, _request):
            raise ConnectError(f"no way with {echo.decode()}")

    other = msgspec.structs.replace(request, method="PUT")
    with pytest.raises(ConnectError):
        await Recording(tmp_path / "r", transport=Fails()).send(other)
    text = (tmp_path / "r").read_text()
    assert not [name for name, secret in SECRETS.items() if secret[:10] in text]
    assert "another-cookie" not in text
    _, exchange, failed = lines_of(tmp_path / "r")
    assert exchange["request"]["url"] == "https://own.example/v1?api_key=[hidden]&alt=sse"
    assert exchange["request"]["headers"]["x-tenant"] == "shown"
    assert exchange["request"]["body"]["json"] == {"prompt": "my key is [hidden]"}
    assert exchange["headers"]["x-ratelimit-limit-tokens"] == "9"
    assert exchange["body"]["text"] == " ".join(["[hidden]"] * 5)
    assert failed["error"]["message"].startswith("no way with [hidden]")
    assert caplog.text == ""


@given(
    st.lists(
        st.sampled_from([b"sk-a-", b"secret-", b"0123", b"456789", b" ", b"x" * 50]), max_size=30
    )
)
def test_a_secret_is_cut_out_of_pieces_as_out_of_the_whole(pieces):
    redactor = Redactor(Secret("sk-a-secret-0123456789"))
    redacted = redactor.redact_pieces(pieces)
    assert len(redacted) == len(pieces)
    assert b"".join(redacted) == redactor.redact(b"".join(pieces))


def test_a_recording_can_be_sent_to_other_processes_but_not_a_renewal(tmp_path):
    Recording(tmp_path / "r", mode="new").close()
    replay = pickle.loads(pickle.dumps(Recording(tmp_path / "r", mode="replay", keeps_timing=True)))
    assert repr(replay) == repr(Recording(tmp_path / "r", mode="replay"))
    with pytest.raises(InvalidParameterError, match="cannot be pickled"):
        pickle.dumps(Recording(tmp_path / "r", mode="new"))


async def test_a_recording_under_all_generators_records_what_the_engine_would_send(tmp_path):
    with use_transport(ScriptedTransport([said("ok")])):
        recording = Recording(tmp_path / "r")
        await ROOT.chat("u", GENERATOR.with_transport(recording))
    with use_transport(Recording(tmp_path / "r")):
        assert (await ROOT.chat("u", GENERATOR)).text == "ok"
        with pytest.raises(ConnectError):
            await ROOT.chat("u", GENERATOR.with_base_url("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize("kind", [Recording, partial(AnswerCache, any_temperature=True)])
@pytest.mark.parametrize("is_inner_to_all", [False, True])
async def test_what_is_under_a_script_asks_the_script_and_no_network(
    tmp_path, kind, is_inner_to_all
):
    with forbid_network(allow_loopback=False), use_transport(ScriptedTransport(lambda _: "ok")):
        wraps = kind(tmp_path / "r")
        if is_inner_to_all:
            with use_transport(wraps), use_transport(kind(tmp_path / "s", transport=wraps)):
                assert (await ROOT.chat("u", GENERATOR)).text == "ok"
        else:
            with use_transport(wraps):
                assert (await ROOT.chat("u", GENERATOR)).text == "ok"
                assert (await ROOT.chat("v", GENERATOR.with_transport(wraps))).text == "ok"
        assert len(lines_of(tmp_path / "r")) == (2 if is_inner_to_all else 3)


async def test_a_recording_within_a_transport_in_use_asks_what_is_outside_of_it(tmp_path):
    with use_transport(ScriptedTransport(["ok"])):
        cache = AnswerCache(tmp_path / "c", transport=Recording(tmp_path / "r"))
        with use_transport(cache):
            assert (await ROOT.chat("u", GENERATOR)).text == "ok"
    assert len(lines_of(tmp_path / "r")) == 2


@pytest.mark.parametrize("path", [5, None, "a\0b", "a\ud800", object()])
@pytest.mark.parametrize("kind", [Recording, AnswerCache])
def test_what_is_no_path_or_no_transport_is_refused(tmp_path, kind, path):
    with pytest.raises(StorageError, match="a file is named by a str or a path"):
        kind(path)
    for transport in (5, ScriptedTransport):
        with pytest.raises(InvalidParameterError, match="a transport is an object"):
            kind(tmp_path / "r", transport=transport)


async def test_a_recording_is_priced_as_it_is_replayed(tmp_path):
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}
    reply = ScriptedReply.json(json.loads(said("ok").pieces[0]) | {"usage": usage})
    for price, cost in ((TokenPrice(1, 2), 3), (TokenPrice(10, 20), 30)):
        generator = over(recorded(tmp_path / "r", reply)).with_token_price(price)
        assert (await ROOT.chat("u", generator)).cost.cost == cost


@pytest.mark.parametrize("kind", VENDORS)
def test_a_batch_is_recorded_and_a_run_that_names_its_rows_anew_is_told_so(kind, tmp_path):
    vendor = kind()

    def ask(recording: Recording, journal: str) -> list[str | None]:
        generator = vendor.generator.with_transport(recording)
        bulk = map_complete(["a", "b"], generator, batch=True, journal=tmp_path / journal)
        return run_virtually(collect(bulk))

    async def collect(bulk) -> list[str | None]:
        return sorted(outcome.text for outcome in await bulk.collect())

    recording = Recording(tmp_path / "r", transport=vendor.generator.transport)
    assert ask(recording, "j") == ["A", "B"]
    assert {line["request"]["method"] for line in lines_of(tmp_path / "r")[1:]} == {"POST", "GET"}
    with pytest.raises(NotRecordedError, match=r"custom_id: recorded|content-type: recorded"):
        ask(Recording(tmp_path / "r", mode="replay"), "k")
