"""An answer cache asks once, and tells truly that the same answer is not paid again."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal

import msgspec
import pytest
from short_answers import CLAUDE, RESPONSE, said, streamed

from minillmlib import (
    AnswerCache,
    AttemptOutcome,
    Budget,
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    CostInfo,
    CostResolution,
    FinishReason,
    GeneratorInfo,
    GenericProvider,
    HttpRequest,
    MalformedResponseError,
    MiniLLMError,
    NodeCompletionParameters,
    Recording,
    StorageError,
    TokenPrice,
    map_complete,
    observe,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

GENERATOR = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_api_key(
    "sk-own-0123456"
)
PRICED = GENERATOR.with_token_price(TokenPrice(1, 2))
COLD = CompletionParameters(temperature=0, max_tokens=9)
ROOT = ChatNode.root("Be brief.")
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def counted(text: str) -> ScriptedReply:
    return ScriptedReply.json(json.loads(said(text).pieces[0]) | {"usage": USAGE})


class Model(ScriptedTransport):
    """Answers with replies in order, and counts its requests."""

    def cached(self, path, **options) -> GeneratorInfo:
        return PRICED.with_transport(AnswerCache(path, transport=self, **options))


async def test_an_answer_from_the_cache_costs_nothing_and_says_what_it_cost(tmp_path):
    model = Model([counted("Paris.")])
    costs: list[CostInfo] = []
    budget = Budget("0.01")
    settings = NodeCompletionParameters(params=COLD, cost_callback=costs.append, budget=budget)
    for is_cached in (False, True):
        node = await ROOT.chat("France?", model.cached(tmp_path / "c"), settings)
        assert node.text == "Paris."
        (attempt,) = node.response.attempts
        assert attempt.outcome is AttemptOutcome.ANSWERED
        assert (attempt.is_from_cache, attempt.was_sent) == (is_cached, not is_cached)
    assert len(model.requests) == 1
    paid = Decimal("0.0012")
    assert [info.cost for info in costs] == [paid, 0]
    assert [info.resolution for info in costs] == [CostResolution.RESOLVED] * 2
    assert [info.prompt_tokens for info in costs] == [1000, 0]
    assert attempt.cost.source == node.response.cost.source == "an answer cache"
    assert (attempt.cached_cost.cost, attempt.cached_cost.usage.prompt_tokens) == (paid, 1000)
    assert node.response.usage.prompt_tokens == 1000, "the counts of the answer are as they were"
    assert ROOT.subtree_cost().cost == paid
    assert budget.spent == paid


async def test_a_cached_answer_of_unknown_cost_is_no_unknown_cost(tmp_path):
    model = Model([said("no counts")])
    for expected in ("at least $0 (1 unknown)", "$0"):
        node = await ROOT.chat("u", model.cached(tmp_path / "c"), COLD)
        assert str(node.cost) == expected
    assert node.response.attempts[0].cached_cost.is_unknown


async def test_a_stream_comes_from_the_cache_in_its_pieces(tmp_path):
    model = Model([streamed("a", "b", "c")])
    for _ in range(2):
        async with ROOT.chat_streaming("u", model.cached(tmp_path / "c"), COLD) as stream:
            deltas = [chunk.delta async for chunk in stream]
        assert deltas == ["a", "b", "c", ""]
    assert len(model.requests) == 1
    assert stream.response.attempts[0].is_from_cache


async def test_a_stream_from_the_cache_that_is_left_costs_nothing_either(tmp_path):
    model = Model([streamed("a", "b", "c")])
    await ROOT.chat_streaming("u", model.cached(tmp_path / "c"), COLD).collect()
    stream = ROOT.chat_streaming("u", model.cached(tmp_path / "c"), COLD)
    await anext(stream)
    info = await stream.cancel()
    assert (info.cost, info.resolution) == (0, CostResolution.RESOLVED)
    assert not stream.attempts[0].was_sent


WIRES = [
    (GeneratorInfo.anthropic("m"), CLAUDE),
    (GeneratorInfo.openai("m", wire="responses"), RESPONSE),
    (GeneratorInfo.custom("g", "https://own.example/v1", "m"), json.loads(said("ok").pieces[0])),
]


@pytest.mark.parametrize(("generator", "answer"), WIRES)
async def test_only_what_is_asked_with_temperature_0_is_looked_up_unless_all_is(
    tmp_path, generator, answer
):
    generator = generator.with_api_key("k")
    for params, options, asked in (
        (CompletionParameters(max_tokens=9), {}, 2),
        (CompletionParameters(max_tokens=9, temperature=0.0), {}, 1),
        (CompletionParameters(max_tokens=9), {"any_temperature": True}, 1),
    ):
        model = ScriptedTransport([ScriptedReply.json(answer)] * 2)
        cache = AnswerCache(tmp_path / f"{params}{options}"[-50:], transport=model, **options)
        for _ in range(2):
            await ROOT.chat("u", generator.with_transport(cache), params)
        assert len(model.requests) == asked


async def test_another_question_model_or_parameter_is_another_request(tmp_path):
    model = Model([counted(text) for text in "abcd"])
    cached = model.cached(tmp_path / "c")
    changes = [("u", cached, COLD), ("v", cached, COLD), ("u", cached.replace(model="n"), COLD),
               ("u", cached, COLD.replace(max_tokens=10))]  # fmt: skip
    for _ in range(2):
        nodes = [await ROOT.chat(*change) for change in changes]
        assert [node.text for node in nodes] == ["a", "b", "c", "d"]
    assert len(model.requests) == 4


async def test_a_retry_asks_anew_and_its_answer_takes_the_place_of_the_rejected_one(tmp_path):
    settings = NodeCompletionParameters(params=COLD, crash_on_empty_response=True, retry=1)
    model = Model([said("")])
    with pytest.raises(MiniLLMError):
        await ROOT.chat("u", model.cached(tmp_path / "c"), settings.replace(retry=0))
    model = Model([said("ok")])
    for requests in (1, 1):
        node = await ROOT.chat("u", model.cached(tmp_path / "c"), settings)
        assert node.text == "ok"
        assert len(model.requests) == requests


BROKEN = {
    "an error": (ScriptedReply.json({"error": {"message": "busy"}}, status=503), False),
    "an error in a success": (ScriptedReply.json({"error": {"message": "busy"}}), False),
    "no JSON": (ScriptedReply(pieces=(b"<html>",)), False),
    "a list": (ScriptedReply.json([]), False),
    "a stream without an end": (streamed("a", finish=None), True),
    "a stream that breaks off": (
        ScriptedReply.events(*streamed("a").pieces, breaks_off=True), True,
    ),
    "a stream with an error": (
        ScriptedReply.events(*streamed("a", finish=None).pieces,
                             b'event: error\ndata: {"error": {"message": "finish_reason"}}\n\n',
                             b"data: [DONE]\n\n"), True,
    ),
    "a stream with an error in its data": (
        ScriptedReply.events(b'data: {"error": {"message": "x"}}\n\n', b"data: [DONE]\n\n"), True,
    ),
}  # fmt: skip


async def text_or_none(generator, params, is_streamed: bool) -> str | None:
    """The answer, or None after an error."""
    try:
        if is_streamed:
            node = await ROOT.chat_streaming("u", generator, params).collect()
        else:
            node = await ROOT.chat("u", generator, params)
    except MiniLLMError:
        return None
    return node.text


@pytest.mark.parametrize("kind", BROKEN)
async def test_what_is_no_whole_answer_is_not_kept(tmp_path, kind):
    reply, is_streamed = BROKEN[kind]
    model = Model([reply, streamed("ok") if is_streamed else said("ok")])
    texts = []
    for _ in range(2):
        cached = model.cached(tmp_path / "c")
        texts.append(await text_or_none(cached, COLD, is_streamed))
    assert texts[-1] == "ok"
    assert len(model.requests) == 2


def chat_choice(**fields: object) -> dict:
    return {"choices": [{"index": 0, "message": {"content": "x"}, **fields}]}


def events(*values: dict) -> ScriptedReply:
    named = (f"event: {v['type']}\n" if "type" in v else "" for v in values)
    return ScriptedReply.events(
        *(
            f"{name}data: {json.dumps(v)}\n\n".encode()
            for name, v in zip(named, values, strict=True)
        )
    )


CLAUDE_WIRE, RESPONSES_WIRE, CHAT_WIRE = (generator.with_api_key("k") for generator, _ in WIRES)
MISUNDERSTOOD = {
    "no choices": (CHAT_WIRE, {"choices": []}),
    "nothing": (CHAT_WIRE, {}),
    "a detail": (CHAT_WIRE, {"detail": "overloaded"}),
    "an error of a choice": (CHAT_WIRE, chat_choice(error={"message": "x"}, finish_reason="stop")),
    "an error as finish reason": (CHAT_WIRE, chat_choice(finish_reason="error")),
    "a content filter": (CHAT_WIRE, chat_choice(finish_reason="content_filter")),
    "an unknown finish reason": (CHAT_WIRE, chat_choice(finish_reason="bored")),
    **{
        f"a response that is {status}": (RESPONSES_WIRE, RESPONSE | {"status": status})
        for status in ("failed", "in_progress", "queued", "cancelled")
    },
    "nothing of Claude": (CLAUDE_WIRE, {"type": "message"}),
    "an error of Claude": (CLAUDE_WIRE, {"type": "error", "error": {"message": "x"}}),
    "a cut stream with a done": (
        CHAT_WIRE,
        events({"choices": [{"index": 0, "delta": {"content": "a"}}], "meta": {"done": True}}),
    ),
    "a cut stream of Claude": (
        CLAUDE_WIRE,
        events(
            {"type": "message_start", "message": CLAUDE | {"content": []}},
            {"type": "content_block_start", "index": 0,
             "content_block": {"type": "text", "text": "a"}},
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISUNDERSTOOD)
async def test_an_answer_that_no_completion_understands_as_whole_is_asked_for_again(tmp_path, kind):
    generator, reply = MISUNDERSTOOD[kind]
    is_streamed = isinstance(reply, ScriptedReply)
    model = ScriptedTransport([reply if is_streamed else ScriptedReply.json(reply), "good"])
    cached = generator.with_transport(AnswerCache(tmp_path / "c", transport=model))
    once = NodeCompletionParameters(params=COLD, retry=0)
    texts = []
    for _ in range(3):
        texts.append(await text_or_none(cached, once, is_streamed))
    assert len(model.requests) == 2, texts
    assert texts[1:] == ["good", "good"]


@pytest.mark.parametrize("generator", [each.with_api_key("k") for each, _ in WIRES])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_answer_that_is_as_long_as_was_asked_for_is_kept(tmp_path, generator, is_streamed):
    model = ScriptedTransport([ScriptedReply.text("Par", finish_reason=FinishReason.LENGTH)])
    cached = generator.with_transport(AnswerCache(tmp_path / "c", transport=model))
    for _ in range(2):
        if is_streamed:
            node = await ROOT.chat_streaming("u", cached, COLD).collect()
        else:
            node = await ROOT.chat("u", cached, COLD)
        assert (node.text, node.response.finish_reason) == ("Par", FinishReason.LENGTH)
    assert len(model.requests) == 1


async def test_an_answer_that_the_settings_reject_is_whole_and_kept(tmp_path):
    model = Model([said("")])
    strict = NodeCompletionParameters(params=COLD, crash_on_empty_response=True, retry=0)
    for _ in range(2):
        with pytest.raises(MiniLLMError):
            await ROOT.chat("u", model.cached(tmp_path / "c"), strict)
    assert (await ROOT.chat("u", model.cached(tmp_path / "c"), COLD)).text is None
    assert len(model.requests) == 1


def request_of(body: bytes, **changes) -> HttpRequest:
    request = HttpRequest(url="https://own.example/v1", headers=(), body=body, repeats=0)
    return msgspec.structs.replace(request, **changes)


async def read(response) -> bytes:
    """The body, whose end the completion understood."""
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    if accept := getattr(response, "accept", None):
        accept()
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("body", "is_kept"),
    [
        ({"temperature": 0}, True), ({"temperature": 0.0}, True), ({"temperature": 1}, False),
        ({"temperature": 0.1}, False), ({"temperature": "0"}, False), ({"temperature": None}, False),
        ({}, False), ({"top_p": 0}, False), ({"options": {"temperature": 0}}, True),
        ({"a": {"b": 1}, "options": {"x": 1, "temperature": 0}}, True),
        ({"options": {"temperature": 1}}, False), ({"options": {"deep": {"temperature": 0}}}, False),
        ({"messages": [{"temperature": 0}]}, False), ([{"temperature": 0}], False), ("a", False),
    ],
)  # fmt: skip
async def test_a_request_is_looked_up_whose_temperature_is_zero_anywhere_in_its_parameters(
    tmp_path, body, is_kept
):
    model = ScriptedTransport([counted("a"), counted("a")])
    cache = AnswerCache(tmp_path / "c", transport=model)
    for _ in range(2):
        assert await read(await cache.send(request_of(json.dumps(body).encode())))
    assert len(model.requests) == (1 if is_kept else 2)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000])
async def test_a_request_that_is_no_json_has_no_temperature(tmp_path, body):
    model = ScriptedTransport([counted("a"), counted("a")])
    cache = AnswerCache(tmp_path / "c", transport=model)
    for _ in range(2):
        assert await read(await cache.send(request_of(body)))
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    ("status", "ended", "is_answer"),
    [(200, "whole", True), (299, "whole", True), (201, "left", False), (199, "whole", False),
     (300, "whole", False), (404, "whole", False)],
)  # fmt: skip
async def test_the_last_exchange_is_an_answer_if_it_is_whole_and_a_success(
    tmp_path, status, ended, is_answer
):
    request = request_of(b'{"temperature":0}')
    for text, code in (("old", 200), ("new", status)):
        reply = ScriptedReply(pieces=(text.encode(),), status=code)
        recorded = await Recording(tmp_path / text, transport=ScriptedTransport([reply])).send(
            request
        )
        assert await recorded.read()
        if ended == "whole" or text == "old":
            assert await recorded.read() == b""
        recorded.close()
    (tmp_path / "c").write_bytes((tmp_path / "old").read_bytes() + (tmp_path / "new").read_bytes())
    model = ScriptedTransport([ScriptedReply(pieces=(b"asked",))])
    cache = AnswerCache(tmp_path / "c", transport=model)
    assert await read(await cache.send(request)) == (b"new" if is_answer else b"asked")


async def test_a_request_that_is_repeated_is_sent_and_its_answer_is_the_one_from_then_on(tmp_path):
    model = ScriptedTransport([ScriptedReply(pieces=(text,)) for text in (b"a", b"b", b"c")])
    cache = AnswerCache(tmp_path / "c", any_temperature=True, transport=model)
    given = [await read(await cache.send(request_of(b"{}", repeats=n))) for n in (0, 0, 1, 0, 2, 0)]
    assert given == [b"a", b"a", b"b", b"b", b"c", b"c"]
    assert (
        await read(await AnswerCache(tmp_path / "c", any_temperature=True).send(request_of(b"{}")))
        == b"c"
    )


async def test_an_answer_that_nobody_accepts_or_reads_to_its_end_is_not_kept(tmp_path):
    model = ScriptedTransport([ScriptedReply(pieces=(b"a", b"b"))] * 3)
    cache = AnswerCache(tmp_path / "c", any_temperature=True, transport=model)
    response = await cache.send(request_of(b"{}"))
    while await response.read():
        pass
    response = await cache.send(request_of(b"{}"))
    response.accept()
    await response.read()
    response.close()
    assert not (tmp_path / "c").exists()
    assert await read(await cache.send(request_of(b"{}"))) == b"ab"
    assert len((tmp_path / "c").read_text().splitlines()) == 2


async def test_a_cache_that_is_sent_elsewhere_has_its_settings(tmp_path):
    model = ScriptedTransport(["ok"])
    cache = AnswerCache(tmp_path / "c", any_temperature=True, transport=model)
    assert repr(cache) == f"AnswerCache({str(tmp_path / 'c')!r})"
    again = pickle.loads(pickle.dumps(cache))
    assert repr(again) == repr(cache)
    assert isinstance(again.inner, ScriptedTransport)
    assert pickle.loads(pickle.dumps(AnswerCache(tmp_path / "c"))).inner is None
    for each, count in ((cache, 1), (again, 1), (pickle.loads(pickle.dumps(again)), 1)):
        node = await ROOT.chat("u", GENERATOR.with_transport(each))
        assert node.text == "ok"
        each.close()
        each.close()
        assert len(model.requests) == count
        assert again.inner.requests == []


@pytest.mark.parametrize("damage", [b"junk\n"])
async def test_what_a_cache_cannot_do_is_logged_whole(tmp_path, caplog, damage):
    path = tmp_path / "none" / "c"
    cache = AnswerCache(path, any_temperature=True, transport=ScriptedTransport([counted("a")] * 2))
    await read(await cache.send(request_of(b"{}")))
    path.parent.mkdir()
    path.write_bytes(damage)
    await read(await cache.send(request_of(b"{}")))
    mend = "; mend or remove the line, or name another file"
    first, second, *_ = caplog.messages
    assert first == (
        f"an answer was not kept: {str(path)!r} cannot be written (No such file or directory); "
        "make its folder first"
    )
    assert second == (
        f"a request is sent, since its answer cannot be looked up: {str(path)!r}: line 1 is not of "
        f"a recording (JSON is malformed: invalid character (byte 0)){mend}"
    )


class Reversed(GenericProvider):
    """A wire that only its provider understands."""

    def parse_response(self, raw):
        if "txet" not in raw:
            raise MalformedResponseError("no text")
        return CompletionResponse(content=raw["txet"][::-1], finish_reason=FinishReason.STOP)


async def test_of_an_unknown_wire_its_provider_says_what_is_an_answer(tmp_path):
    replies = [{"choices": [], "finish_reason": "stop"}, {"txet": "sey"}]
    model = ScriptedTransport([ScriptedReply.json(reply) for reply in replies])
    cached = CHAT_WIRE.with_provider(Reversed()).with_transport(
        AnswerCache(tmp_path / "c", transport=model)
    )
    once = NodeCompletionParameters(params=COLD, retry=0)
    with pytest.raises(MalformedResponseError):
        await ROOT.chat("u", cached, once)
    for _ in range(2):
        assert (await ROOT.chat("u", cached, once)).text == "yes"
    assert len(model.requests) == 2


async def test_an_observed_answer_is_kept_too_and_costs_nothing(tmp_path):
    model = Model([counted("ok")])
    with observe(lambda event: None, content=True):
        for is_cached in (False, True):
            node = await ROOT.chat("u", model.cached(tmp_path / "c"), COLD)
            assert node.response.attempts[0].is_from_cache is is_cached
    assert str(node.cost) == "$0"


async def test_a_cache_over_a_cache_keeps_answers_in_both(tmp_path):
    model = Model([counted("ok")])
    lower = AnswerCache(tmp_path / "b", transport=model)
    await ROOT.chat("u", PRICED.with_transport(AnswerCache(tmp_path / "a", transport=lower)), COLD)
    for name in "ab":
        cache = AnswerCache(tmp_path / name, transport=model)
        assert (await ROOT.chat("u", PRICED.with_transport(cache), COLD)).text == "ok"
    assert len(model.requests) == 1


async def test_the_errors_in_a_recording_are_no_answers(tmp_path):
    once = NodeCompletionParameters(params=COLD, retry=0)
    failing = Recording(tmp_path / "c", transport=Model([ScriptedReply.error(503)]))
    with pytest.raises(MiniLLMError):
        await ROOT.chat("u", PRICED.with_transport(failing), once)
    model = Model([counted("ok")])
    assert (await ROOT.chat("u", model.cached(tmp_path / "c"), once)).text == "ok"


@pytest.mark.parametrize("damage", [b"{}\n", b"junk\n"])
async def test_a_cache_that_is_damaged_meanwhile_loses_no_call(tmp_path, caplog, damage):
    model = Model([counted("a"), counted("b")])
    cached = model.cached(tmp_path / "c")
    await ROOT.chat("1", cached, COLD)
    with (tmp_path / "c").open("ab") as file:
        file.write(damage)
    node = await ROOT.chat("2", cached, COLD)
    assert node.text == "b"
    assert [str(attempt.cost) for attempt in node.response.attempts] == ["$0.0012"]
    assert "cannot be looked up" in caplog.text
    assert "line 3" in caplog.text


async def test_a_recording_that_is_damaged_meanwhile_has_sent_nothing(tmp_path):
    path, model = tmp_path / "r", Model([counted("a")])
    with Recording(path, transport=model) as recording:
        await ROOT.chat("1", PRICED.with_transport(recording), COLD)
    replay = Recording(path, mode="replay")
    path.write_bytes(path.read_bytes().replace(b'"exchange"', b'"exchanged"'))
    with pytest.raises(StorageError) as caught:
        await ROOT.chat("1", PRICED.with_transport(replay), COLD)
    (attempt,) = caught.value.attempts
    assert (attempt.outcome, attempt.cost) == (AttemptOutcome.NOT_SENT, None)


async def test_requests_that_are_no_completions_pass(tmp_path):
    model = Model([ScriptedReply.json({"id": str(number)}) for number in range(2)])
    cache = AnswerCache(tmp_path / "c", any_temperature=True, transport=model)
    request = HttpRequest(
        url="https://own.example/v1/batches", headers=(), body=b'{"temperature":0}'
    )
    for number in range(2):
        response = await cache.send(request)
        assert msgspec.json.decode(await response.read()) == {"id": str(number)}
        assert await response.read() == b""
    assert not (tmp_path / "c").exists()


async def test_caches_of_one_file_share_their_answers(tmp_path):
    model = Model([counted("a"), counted("b")])
    first, second = model.cached(tmp_path / "c"), model.cached(tmp_path / "c")
    await ROOT.chat("1", first, COLD)
    await ROOT.chat("2", second, COLD)
    assert [(await ROOT.chat("1", second, COLD)).text, (await ROOT.chat("2", first, COLD)).text] == [
        "a", "b",
    ]  # fmt: skip
    third = pickle.loads(pickle.dumps(AnswerCache(tmp_path / "c")))
    assert (await ROOT.chat("1", PRICED.with_transport(third), COLD)).text == "a"
    assert (
        await ROOT.chat("2", GENERATOR.with_transport(Recording(tmp_path / "c")), COLD)
    ).text == "b"


async def test_a_rerun_of_many_calls_pays_for_none(tmp_path):
    items = [f"question {number}" for number in range(20)]
    settings = NodeCompletionParameters(params=COLD)
    model = Model([counted("ok")] * 20)
    run = map_complete(items, model.cached(tmp_path / "c"), settings)
    paid = CostInfo.of(tuple(one for outcome in [o async for o in run] for one in outcome.attempts))
    run = map_complete(items, model.cached(tmp_path / "c"), settings)
    again = [outcome async for outcome in run]
    assert paid.cost == 20 * Decimal("0.0012")
    assert sum(outcome.cost.cost for outcome in again) == 0
    assert len(model.requests) == 20


async def test_a_recording_over_a_cache_keeps_what_was_not_paid(tmp_path):
    model = Model([counted("ok")])
    for _ in range(2):
        cache = AnswerCache(tmp_path / "c", transport=model)
        recorded = PRICED.with_transport(Recording(tmp_path / "r", transport=cache))
        node = await ROOT.chat("u", recorded, COLD)
        assert node.cost.cost == Decimal("0.0012"), "recorded when it was paid, and replayed so"
    recorded = PRICED.with_transport(Recording(tmp_path / "s", transport=cache))
    assert (await ROOT.chat("u", recorded, COLD)).response.attempts[0].is_from_cache
    replay = PRICED.with_transport(Recording(tmp_path / "s", mode="replay"))
    assert (await ROOT.chat("u", replay, COLD)).response.attempts[0].is_from_cache


async def test_the_rate_limits_of_another_time_are_not_repeated(tmp_path):
    headers = {"x-ratelimit-remaining-requests": "0", "x-request-id": "7"}
    reply = ScriptedReply(pieces=counted("ok").pieces, headers=headers)
    await ROOT.chat("u", Model([reply]).cached(tmp_path / "c"), COLD)
    cache = AnswerCache(tmp_path / "c")
    request = Model([reply])
    await ROOT.chat("u", PRICED.with_transport(request), COLD)
    response = await cache.send(request.requests[0])
    assert dict(response.headers) == {"x-request-id": "7"}


async def test_an_answer_that_cannot_be_written_is_not_lost(tmp_path, caplog):
    folder = tmp_path / "gone"
    model = Model([counted("ok")])
    assert (await ROOT.chat("u", model.cached(folder / "c"), COLD)).text == "ok"
    assert "an answer was not kept" in caplog.text
    assert "make its folder first" in caplog.text


async def test_a_damaged_cache_is_named(tmp_path):
    model = Model([counted("ok")])
    await ROOT.chat("u", model.cached(tmp_path / "c"), COLD)
    with (tmp_path / "c").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(StorageError, match="line 3"):
        AnswerCache(tmp_path / "c")
