"""A function that gets tokens is called when it must be, once for all that wait, and keeps quiet."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading
import time
from typing import NamedTuple

import pytest
from scripted_server import Server
from short_answers import said, scripted

import minillmlib
from minillmlib import (
    AuthenticationError,
    ChatNode,
    GeneratorInfo,
    InvalidParameterError,
    NodeCompletionParameters,
    RequestTimeoutError,
    Secret,
)
from minillmlib.testing import ScriptedReply

ROOT = ChatNode.root("s")
CANARY = "eyJ-canary-0123456789"
REFUSED = ScriptedReply.json({"error": {"code": "401", "message": "Access denied"}}, status=401)


class Token(NamedTuple):
    """What azure-core's credentials return."""

    token: str
    expires_on: float


class Tokens:
    """A provider that counts its calls and numbers its tokens."""

    def __init__(self, secs: float | None = None, fails: int = 0, waits: float = 0.0):
        self.calls, self.threads = 0, set()
        self.secs, self.fails, self.waits = secs, fails, waits

    def next(self) -> str | Token:
        self.calls += 1
        self.threads.add(threading.get_ident())
        if self.calls <= self.fails:
            raise OSError(f"no way to {CANARY}")
        text = f"{CANARY}-{self.calls}"
        return text if self.secs is None else Token(text, time.time() + self.secs)

    def blocking(self) -> str | Token:
        time.sleep(self.waits)
        return self.next()

    async def waiting(self) -> str | Token:
        await asyncio.sleep(self.waits)
        return self.next()

    async def __call__(self) -> str | Token:
        return await self.waiting()


def generator_of(provider, replies=1) -> GeneratorInfo:
    return scripted(*[said("ok")] * replies).with_token_provider(provider)


def sent_tokens(generator: GeneratorInfo) -> list[str]:
    headers = [dict(request.expose_headers()) for request in generator.transport.requests]
    return [found["Authorization"].removeprefix(f"Bearer {CANARY}-") for found in headers]


FORMS = {
    "sync": lambda tokens: tokens.blocking,
    "async": lambda tokens: tokens.waiting,
    "object": lambda tokens: tokens,
    "partial": lambda tokens: functools.partial(tokens.blocking),
    "wrapped": lambda tokens: functools.partial(lambda get: get(), tokens.waiting),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_token_that_is_a_text_is_asked_for_at_each_request(form):
    tokens = Tokens()
    generator = generator_of(FORMS[form](tokens), 3)
    await ROOT.chat("u", generator)
    await ROOT.chat("u", generator)
    await ROOT.chat_streaming("u", generator).collect()
    assert sent_tokens(generator) == ["1", "2", "3"]


@pytest.mark.parametrize("form", FORMS)
async def test_a_token_that_tells_its_end_is_used_until_shortly_before_it(form):
    tokens = Tokens(secs=3600)
    generator = generator_of(FORMS[form](tokens), 5)
    await ROOT.chat("u", generator)
    await ROOT.chat("u", generator.replace(model="another"))
    assert sent_tokens(generator) == ["1", "1"]
    tokens = Tokens(secs=60)  # ends within the margin
    generator = generator_of(FORMS[form](tokens), 2)
    await ROOT.chat("u", generator)
    await ROOT.chat("u", generator)
    assert sent_tokens(generator) == ["1", "2"]


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("secs", [None, 3600])
async def test_many_calls_wait_for_one_renewal(form, secs):
    tokens = Tokens(secs, waits=0.05)
    generator = generator_of(FORMS[form](tokens), 50)
    await asyncio.gather(*(ROOT.chat("u", generator) for _ in range(50)))
    assert set(sent_tokens(generator)) == {"1"}
    assert tokens.calls == 1


async def test_a_function_that_blocks_does_not_block_the_loop():
    tokens = Tokens(waits=0.2)
    task = asyncio.ensure_future(ROOT.chat("u", generator_of(tokens.blocking)))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 5
    assert threading.get_ident() not in tokens.threads


async def test_the_others_get_their_token_when_the_first_call_is_cancelled():
    tokens = Tokens(waits=0.05)
    generator = generator_of(tokens, 4)
    first, *others = (asyncio.ensure_future(ROOT.chat("u", generator)) for _ in range(5))
    await asyncio.sleep(0.01)
    first.cancel()
    assert [node.text for node in await asyncio.gather(*others)] == ["ok"] * 4
    assert first.cancelled()
    assert tokens.calls == 1


def test_loops_one_after_the_other_share_a_token_and_no_loop_hangs():
    tokens = Tokens(secs=3600)
    generator = generator_of(tokens, 2)
    assert asyncio.run(ROOT.chat("u", generator)).text == "ok"
    assert asyncio.run(ROOT.chat("u", generator)).text == "ok"
    assert minillmlib.run(ROOT.chat("u", generator_of(Tokens().blocking))).text == "ok"
    assert tokens.calls == 1


@pytest.mark.parametrize("form", FORMS)
async def test_a_failure_is_an_error_of_each_call_with_the_functions_own_as_its_cause(form):
    tokens = Tokens(fails=1, waits=0.02)
    generator = generator_of(FORMS[form](tokens), 1)
    calls = (ROOT.chat("u", generator) for _ in range(3))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert len(set(map(id, errors))) == 3
    for error in errors:
        assert type(error) is AuthenticationError
        assert "the token provider failed (OSError)" in str(error)
        assert "with_token_provider to see why; nothing was sent" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert (error.status, error.attempts, error.was_sent) == (None, (), False)
        assert CANARY not in str(error)
    assert generator.transport.requests == []
    assert (await ROOT.chat("u", generator)).text == "ok"  # it is asked anew


@pytest.mark.parametrize(
    ("token", "said_of_it"),
    [(None, "returned NoneType"), (b"x", "returned bytes"), (Secret("k"), "returned Secret"),
     ("", "is empty"), (f"{CANARY}\u2028x", "position 22 of 23"), (Token(None, 1), "NoneType")],
)  # fmt: skip
async def test_what_is_no_token_is_an_error_that_does_not_show_it(token, said_of_it):
    with pytest.raises(AuthenticationError, match=said_of_it) as caught:
        await ROOT.chat("u", generator_of(lambda: token))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("given", [CANARY, None, Secret("k"), 3])
def test_what_cannot_be_called_is_refused_at_once(given):
    with pytest.raises(InvalidParameterError, match="function that returns a token") as caught:
        GeneratorInfo.openai("m").with_token_provider(given)
    assert CANARY not in str(caught.value)


async def test_a_function_that_hangs_is_late_by_the_clock_of_the_call():
    generator = generator_of(Tokens(waits=30))
    for settings, clock in (
        ({"timeout_secs": 0.05}, "total"),
        ({"deadline_secs": 0.05}, "deadline"),
    ):
        with pytest.raises(RequestTimeoutError, match="the token provider is late") as caught:
            await ROOT.chat("u", generator, NodeCompletionParameters(**settings))
        assert (caught.value.clock, caught.value.was_sent) == (clock, False)


async def test_a_token_that_the_server_refuses_is_renewed_once():
    for secs, last in ((None, 3), (3600, 2)):  # a text is asked for at each request, too
        tokens = Tokens(secs)
        server = Server([REFUSED, said("ok")])
        generator = server.generator().with_token_provider(tokens)
        assert (await ROOT.chat("u", generator)).text == "ok"
        headers = [dict(request.expose_headers())["Authorization"] for request in server.requests]
        assert headers == [f"Bearer {CANARY}-1", f"Bearer {CANARY}-{last}"]
        server = Server([REFUSED])
        same = server.generator().with_token_provider(lambda: Token(CANARY, time.time() + 3600))
        with pytest.raises(AuthenticationError, match="Access denied"):
            await ROOT.chat("u", same)
        assert len(server.requests) == 1


async def test_a_variable_that_is_set_comes_before_the_function(monkeypatch):
    tokens = Tokens()
    generator = generator_of(tokens, 2).with_api_key_from_env("MINE")
    await ROOT.chat("u", generator)
    monkeypatch.setenv("MINE", f"{CANARY}-mine")
    await ROOT.chat("u", generator)
    assert sent_tokens(generator) == ["1", "mine"]
    assert tokens.calls == 1


async def test_neither_the_function_nor_its_token_is_shown_pickled_or_copied():
    generator = generator_of(functools.partial(lambda secret: secret, CANARY))
    node = await ROOT.chat("u", generator)
    assert CANARY not in repr(generator) + str(generator.credential) + repr(node.response)
    assert "TokenCredential()" in repr(generator)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidParameterError, match="token provider cannot be pickled"):
            copied(generator.credential)
    with pytest.raises(InvalidParameterError, match="token provider cannot be pickled"):
        pickle.dumps(generator.replace(transport=None))


async def test_a_token_that_a_server_echoes_is_not_shown():
    echo = ScriptedReply.json({"error": {"message": f"bad token {CANARY}"}}, status=400)
    generator = scripted(echo).with_token_provider(lambda: CANARY)
    with pytest.raises(minillmlib.BadRequestError) as caught:
        await ROOT.chat("u", generator)
    assert CANARY not in str(caught.value)
