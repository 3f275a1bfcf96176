"""What is kept of earlier calls: encoded prefixes, digests of prompts, and what runs share."""

from __future__ import annotations

import json

import pytest

from minillmlib import (
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    ImagePart,
    Message,
    OpenAiProvider,
    OpenRouterProvider,
    Pace,
    TextPart,
    ToolCall,
)
from minillmlib.bulk.width import Width
from minillmlib.client import sent_prompts
from minillmlib.client.message_digests import NO_DIGESTS, MessageDigests
from minillmlib.client.pacing import share, shared_pace
from minillmlib.client.prefix_cache import EncodedPrefix, EncodedPrefixCache
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types.reasoning import Reasoning

OPENAI, ROUTER = OpenAiProvider(), OpenRouterProvider()
PNG = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n")


def prefix(count: int, provider=OPENAI, model: str = "m") -> EncodedPrefix:
    return EncodedPrefix(count=count, provider=provider, model=model)


def found(cache: EncodedPrefixCache, *path: int, provider=OPENAI, model: str = "m") -> int:
    return cache.find(path, provider, model).count


def test_the_nearest_prefix_of_the_same_model_is_found():
    cache = EncodedPrefixCache()
    assert cache.find([1], OPENAI, "m") == EncodedPrefix()
    cache.store(1, prefix(10))
    cache.store(2, prefix(20, model="n"))
    cache.store(3, prefix(30, ROUTER))
    assert found(cache, 3, 2, 1) == 10
    assert found(cache, 3, 2, 1, model="n") == 20
    assert found(cache, 3, 2, 1, provider=ROUTER) == 30
    assert found(cache, 3, 2, 1, provider=ROUTER, model="n") == 0
    cache.store(1, prefix(11))
    assert found(cache, 1) == 11
    assert found(cache, *range(100, 163), 1) == 11
    assert found(cache, *range(100, 164), 1) == 0


def test_the_prefix_that_was_stored_first_is_dropped_of_more_than_eight():
    cache = EncodedPrefixCache()
    for index in range(8):
        cache.store(index, prefix(index + 1))
    cache.store(0, prefix(1))
    assert [found(cache, index) for index in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]
    cache.store(8, prefix(9))
    assert [found(cache, index) for index in range(9)] == [1, 0, 3, 4, 5, 6, 7, 8, 9]


# Digests.


CALL = ToolCall(id="c", name="look", arguments="{}")
DIFFERENT = [
    Message.user("a"),
    Message.user("b"),
    Message.system("a"),
    Message.assistant("a"),
    Message.assistant("a", [CALL]),
    Message.assistant("a", [ToolCall(id="d", name="look", arguments="{}")]),
    Message.assistant("a", media=[PNG]),
    Message(role="assistant", content="a", reasoning=Reasoning(text="hm")),
    Message(role="assistant", content="a", reasoning=Reasoning(text="ho")),
    Message(role="assistant", content="a", media=[PNG], reasoning=Reasoning(text="hm")),
    Message(role="assistant", content="b", reasoning=Reasoning(text="hm")),
    Message(role="assistant", content="a", tool_calls=[CALL], reasoning=Reasoning(text="hm")),
    Message.tool_result("c", "a"),
    Message.tool_result("d", "a"),
    Message.tool_result("c", "a", is_error=True),
    Message.user([TextPart("a"), PNG]),
]


def digest(message: Message) -> int:
    return NO_DIGESTS.with_more([message]).values[0]


def test_messages_have_one_digest_if_they_are_equal_but_for_a_breakpoint():
    assert len({digest(message) for message in DIFFERENT}) == len(DIFFERENT)
    for message in DIFFERENT:
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        assert digest(Message(**{**fields, "cache_ttl": "1h"})) == digest(message)


def test_digests_grow_by_further_messages():
    system, image, plain = (
        Message.system("s"),
        Message.user([TextPart("a"), PNG]),
        Message.user("u"),
    )
    parts = Message.user([TextPart("a"), TextPart("b")])
    first = NO_DIGESTS.with_more([system, plain])
    assert (list(first.values), first.system, first.has_images) == (
        [digest(system), digest(plain)], (0,), False,
    )  # fmt: skip
    more = first.with_more([parts, system]).with_more([])
    assert (len(more.values), more.system, more.has_images) == (4, (0, 3), False)
    seen = more.with_more([image, plain]).with_more([system, parts])
    assert (len(seen.values), seen.system, seen.has_images) == (8, (0, 3, 6), True)
    assert list(seen.values)[:4] == list(more.values)
    assert isinstance(seen, MessageDigests)


# The log of the last prompts.


@pytest.fixture
def log(monkeypatch):
    monkeypatch.setattr(sent_prompts, "prompt_log", log := sent_prompts.PromptLog())
    return log


async def call(words: int = 1, tokens: int = 600, generator=None, **params) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": 1}
    choice = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
    reply = ScriptedReply.json({"choices": [choice], "usage": usage})
    generator = generator or GeneratorInfo.openai("gpt-4o").with_api_key("k")
    turns = [(Message.user, Message.assistant)[n % 2](f"{n}") for n in range(words)]
    leaf = ChatNode.from_messages(turns)[1]
    asked = generator.with_transport(ScriptedTransport([reply]))
    await leaf.complete(asked, CompletionParameters(**params))


async def test_half_of_the_calls_is_forgotten_when_their_messages_are_too_many(log, monkeypatch):
    monkeypatch.setattr(sent_prompts, "_MAX_WEIGHT", 10 * 257)
    lengths = []
    for _ in range(13):
        await call()
        lengths.append(len(log._prompts))
    assert lengths == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 5, 6, 7]
    for words, kept in ((1025, [1025]), (1025, [1025, 1025]), (3000, [3000]), (1, [1])):
        await call(words)
        assert [len(prompt.messages.values) for prompt in log._prompts] == kept


async def test_short_prompts_are_not_recorded(log):
    await call(tokens=511)
    assert len(log._prompts) == 0
    await call(tokens=512)
    assert len(log._prompts) == 1


async def test_a_key_has_a_digest_and_a_token_has_none(log):
    keyed = GeneratorInfo.openai("gpt-4o").with_api_key("k")
    generators = [keyed, keyed, keyed.with_api_key("l"), keyed.with_bearer_token("t"),
                  GeneratorInfo.custom("c", "https://c.example/v1", "m")]  # fmt: skip
    for generator in generators:
        await call(generator=generator)
    one, again, other, token, nothing = [prompt.credential for prompt in log._prompts]
    assert one == again != other
    assert (token, nothing) == (0, 0)
    assert 0 not in (one, other)


async def test_parameters_are_recorded_by_what_they_say(log):
    await call()
    await call(temperature=0.5, extra={"a": 1})
    await call(temperature=0.5, extra={"a": 1})
    await call(temperature=0.6, extra={"a": 2})
    none, one, again, other = [prompt.digests for prompt in log._prompts]
    assert none == ({}, ())
    assert one == again
    assert list(one[0]) == ["temperature", "a"]
    assert all(one[0][name] != other[0][name] for name in one[0])


@pytest.mark.parametrize("tokens", [600, 9], ids=["recorded", "short"])
async def test_a_long_conversation_is_kept_as_it_was_sent_with_its_digests(log, tokens):
    usage = {"prompt_tokens": tokens, "completion_tokens": 1}
    choice = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
    transport = ScriptedTransport([ScriptedReply.json({"choices": [choice], "usage": usage})] * 3)
    generator = GeneratorInfo.openai("gpt-4o").with_api_key("k").with_transport(transport)
    turns = [(Message.user, Message.assistant)[n % 2](f"{n}") for n in range(41)]
    leaf = ChatNode.from_messages([Message.system("s"), *turns])[1]
    answer = await leaf.complete(generator)
    more = await answer.chat("more", generator)
    await more.chat("and more", generator)
    prefixes = leaf._tree.prefix_cache._prefixes.values()
    assert [each.count for each in prefixes] == [41, 43, 45]
    messages = json.loads(transport.requests[-1].body)["messages"]
    for each in prefixes:
        assert json.loads(b"[%b]" % each.data) == messages[: each.count]
        assert each.last_role == messages[each.count - 1]["role"]
        digests = NO_DIGESTS.with_more(more.thread()[: each.count])
        assert each.digests == (digests if tokens == 600 else NO_DIGESTS)
    assert [len(prompt.messages.values) for prompt in log._prompts] == (
        [42, 44, 46] if tokens == 600 else []
    )


# What runs share.


async def test_what_runs_share_is_of_one_server_key_and_model():
    own = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_api_key("k")
    pace = shared_pace(own)
    assert isinstance(pace, Pace)
    same = [
        own.replace(name="other"), own.with_header("x", "y"),
        own.with_base_url("https://own.example/v2"), own.with_api_key("k"),
    ]  # fmt: skip
    assert all(shared_pace(each) is pace for each in same)
    others = [
        own.with_api_key("l"), own.replace(model="n"), own.with_base_url("https://own.example:8/v1"),
        own.replace(allow_http=True, base_url="http://own.example/v1"),
    ]  # fmt: skip
    assert len({id(shared_pace(each)) for each in [own, *others]}) == 5
    assert share(Pace, own) is share(Pace, own) is not pace
    assert isinstance(share(Width, own), Width)


async def test_what_is_used_again_is_not_forgotten(monkeypatch):
    monkeypatch.setattr("minillmlib.client.pacing.MAX_SHARED", 3)
    models = [GeneratorInfo.openai(f"m{number}") for number in range(4)]
    first, second, third = map(shared_pace, models[:3])
    assert shared_pace(models[0]) is first
    fourth = shared_pace(models[3])
    assert [shared_pace(models[place]) for place in (0, 2, 3)] == [first, third, fourth]
    assert shared_pace(models[1]) is not second
