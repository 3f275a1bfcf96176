"""Numbers of other types than Python's own: numpy's, and those of enums."""

from __future__ import annotations

import enum
import math
from numbers import Integral, Real

import msgspec
import pytest
from sent_bodies import CHAT, CLAUDE_WIRE, asked, body_of

from minillmlib import (
    CompletionParameters,
    InvalidParameterError,
    NodeCompletionParameters,
    ReasoningConfig,
    ToolDefinition,
)


class Float64(float):
    """As numpy's: a subclass."""


class Float32:
    """As numpy's: registered as a real number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value

    def __abs__(self) -> float:
        return abs(self.value)

    def __lt__(self, other: float) -> bool:
        return self.value < other


class Int64(Float32):
    """As numpy's: registered as a whole number."""

    def __int__(self) -> int:
        return int(self.value)


class Number(int):
    """A subclass."""


class Level(enum.IntEnum):
    """A level."""

    LOW = 9


Real.register(Float32)
Integral.register(Int64)


@pytest.mark.parametrize("limit", [Int64(9), Number(9), Level.LOW])
@pytest.mark.parametrize("amount", [Float64(0.5), Float32(0.5)])
@pytest.mark.parametrize("provider", [*CHAT, CLAUDE_WIRE])
def test_parameters_are_sent_as_plain_numbers(provider, limit, amount):
    params = CompletionParameters(max_tokens=limit, temperature=amount)
    assert (type(params.max_tokens), type(params.temperature)) == (int, float)
    body = body_of(provider, asked("u"), params)
    assert (body.get("max_tokens") or body.get("max_completion_tokens")) == 9
    assert body["temperature"] == 0.5


def test_numbers_in_extra_in_schemas_and_in_placeholders_are_sent():
    tool = ToolDefinition(name="f", parameters={"properties": {"a": {"minimum": Float64(1.5)}}})
    extra = {"a": [Float32(0.5), Int64(3)], "b": {"c": Number(2)}, "d": Level.LOW}
    params = CompletionParameters(extra=extra, tools=[tool])
    body = body_of(CHAT[0], asked("u"), params)
    assert (body["a"], body["b"], body["d"]) == ([0.5, 3], {"c": 2}, 9)
    assert body["tools"][0]["function"]["parameters"]["properties"]["a"]["minimum"] == 1.5
    settings = NodeCompletionParameters(format_kwargs={"n": Number(3)})
    assert body_of(CHAT[0], asked("{n}"), settings)["messages"][-1]["content"] == "3"


def test_settings_and_budgets_for_reasoning_too():
    assert type(ReasoningConfig(max_tokens=Int64(2000)).max_tokens) is int
    settings = NodeCompletionParameters(retry=Level.LOW, timeout_secs=Float32(3.0))
    assert (type(settings.retry), type(settings.timeout_secs)) == (int, float)


@pytest.mark.parametrize(
    "wrong", [True, Float64(math.nan), Float32(math.inf), Float64(-1), "9", Float64(2.0), 2.0]
)
def test_what_is_no_whole_number_of_tokens_is_still_refused(wrong):
    with pytest.raises(InvalidParameterError, match="max_tokens"):
        CompletionParameters(max_tokens=wrong)


def test_other_objects_in_extra_are_an_error_that_names_their_type():
    params = CompletionParameters(extra={"a": object()})
    with pytest.raises(InvalidParameterError, match="object"):
        body_of(CHAT[0], asked("u"), params)


@pytest.mark.parametrize(
    ("text", "sent"),
    [("cut \ud83d", "cut \ufffd"), ("\ude00", "\ufffd"), ("\ud83d\ude00", "\U0001f600"),
     ("é\ud83d\ud83d\ude00", "é\ufffd\U0001f600")],
)  # fmt: skip
@pytest.mark.parametrize("provider", [*CHAT, CLAUDE_WIRE])
def test_half_a_character_goes_out_as_a_replacement_and_a_pair_as_its_character(
    provider, text, sent
):
    params = CompletionParameters(stop=[text])
    body = body_of(provider, asked(text), params)
    content = body["messages"][-1]["content"]
    assert (content if isinstance(content, str) else content[0]["text"]) == sent
    assert body.get("stop", body.get("stop_sequences")) == [sent]
    keyed = body_of(provider, asked("u"), CompletionParameters(extra={"k": {text: [text]}}))
    assert keyed["k"] == {sent: [sent]}
    assert msgspec.json.encode(body)
