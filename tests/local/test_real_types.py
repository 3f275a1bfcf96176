"""Typed results of a real model over both wires, held to the schema by the server's grammar.

llama.cpp keeps to the schema of a request on the chat-completions wire only. For the messages
wire the server itself is started with it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from template_server import KEY, WIRES, over, served_with

from minillmlib import (
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    IncompleteJsonError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    ResponseValidationError,
    iterate,
    run,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
    ),
]

GREEDY = NodeCompletionParameters(
    retry=2, params=CompletionParameters(temperature=0, max_tokens=96)
)
LEAF = ChatNode.root("You are a helpful assistant.").add_user("What is the capital of France?")


@dataclass
class Capital:
    """The capital of a country."""

    city: Literal["Paris", "Rome"]
    is_certain: bool


class Country(pydantic.BaseModel):
    name: str
    capital: Capital


HELD = GREEDY.expecting(Capital)


@pytest.fixture(scope="module")
def held_url():
    with served_with(None, HELD.result_type.schema) as url:
        yield url


def heard(attempts):
    """Those that were answered: this server closes connections that rest, and one is sent anew."""
    return [attempt for attempt in attempts if attempt.status is not None]


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_has_its_type_whole_and_streamed(wire, held_url):
    generator = over(wire, held_url, KEY)
    whole = run(LEAF.complete(generator, HELD))
    assert isinstance(whole.parsed, Capital)
    assert whole.response.json() == msgspec.to_builtins(whole.parsed)
    assert [attempt.outcome for attempt in heard(whole.response.attempts)] == ["answered"]
    stream = LEAF.complete_streaming(generator, HELD)
    pieces = [chunk.delta for chunk in iterate(stream)]
    assert stream.node.parsed == whole.parsed
    assert msgspec.json.decode("".join(pieces)) == whole.response.json()


@pytest.mark.parametrize("wire", WIRES)
def test_a_wrong_answer_is_read_by_the_model_and_asked_for_again(wire, held_url):
    class Other(msgspec.Struct):
        city: Literal["London"]

    generator = over(wire, held_url, KEY)
    wrong = GREEDY.expecting(Other)
    if wire == WIRES[0]:  # so that the server's own grammar is not replaced by the request's
        wrong = wrong.replace(force_prepend="{")
    with pytest.raises(MaxRetriesExceededError) as caught:
        run(LEAF.complete(generator, wrong))
    assert isinstance(caught.value.last_error, ResponseValidationError)
    first, second, third = heard(caught.value.attempts)
    assert first.sent_bytes < second.sent_bytes
    assert abs(third.sent_bytes - second.sent_bytes) < 100, "only the last answer goes back"
    read = [attempt.cost.usage.prompt_tokens for attempt in (first, second)]
    assert read[0] < read[1]


KINDS: list[Any] = [Capital, Country, list[str], int, Literal["yes", "no"], bool, str | None]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_schema_of_a_request_holds_the_answer(kind, local_server):
    generator = over(WIRES[0], local_server.url, local_server.key)
    answer = run(LEAF.complete(generator, GREEDY.expecting(kind)))
    assert len(heard(answer.response.attempts)) == 1
    assert msgspec.json.decode(answer.text).keys()


def test_the_embedded_model_gives_types_as_well():
    assert isinstance(run(LEAF.complete(GeneratorInfo.local(), HELD)).parsed, Capital)


def test_a_limit_cuts_the_answer_of_a_real_model(local_server):
    generator = over(WIRES[0], local_server.url, local_server.key)
    short = HELD.with_params(CompletionParameters(temperature=0, max_tokens=6))
    with pytest.raises(IncompleteJsonError) as caught:
        run(LEAF.complete(generator, short))
    assert caught.value.partial
    assert len(heard(caught.value.attempts)) == 1
