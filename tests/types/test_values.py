"""What is made of values: sums, shares, texts, copies and messages, each compared whole."""

from __future__ import annotations

import enum
import os
from datetime import date
from decimal import Decimal

import msgspec
import pytest
from recorded_values import PUBLIC, recorded, said, value_of

from minillmlib import (
    Attempt,
    AttemptOutcome,
    CachePlan,
    CompletionEnded,
    CompletionParameters,
    CostInfo,
    CostOutcome,
    ImagePart,
    NodeCompletionParameters,
    Observer,
    PlannedBreakpoint,
    ResponseFormat,
    TokenPrice,
    ToolCall,
    ToolDefinition,
    Usage,
)
from minillmlib.auth import secret
from minillmlib.types import costs, events, parameters, tools, usage
from minillmlib.types.messages import content_text


class Number(enum.IntEnum):
    FIVE = 5


class Word(enum.StrEnum):
    HELLO = "hello"


class Uncopied:
    def __deepcopy__(self, _memo: object) -> object:
        raise OSError


def remind(day: date, note: str = "") -> None:
    """Remind of a day."""


async def coroutine_function(event: object) -> None:
    """Do nothing, if nobody awaits it."""


def told(observer: Observer) -> list[object]:
    """What a function is told as an observer."""
    heard: list[object] = []
    events.as_observer(heard.append, content=False).on_event(observer)
    return [each is observer for each in heard]


def plan() -> CachePlan:
    states = (
        ("5m", "marked", 100),
        ("1h", "dropped", 900),
        ("1h", "marked", 400),
        ("5m", "marked", None),
    )
    breakpoints = tuple(
        PlannedBreakpoint(place=place, name=f"message {place}", ttl=ttl, state=state, tokens=size)
        for place, (ttl, state, size) in enumerate(states)
    )
    price = TokenPrice(10, 20, cache_read=1, cache_write=12, cache_write_1h=20)
    return CachePlan(
        model="model", breakpoints=breakpoints, is_automatic=False, min_tokens=1024,
        prompt_tokens=12_345, advice="Do so.", token_price=price,
    )  # fmt: skip


COUNTS = Usage(
    uncached_input_tokens=1000, cache_read_tokens=200, cache_write_tokens=30, completion_tokens=4
)
OUTCOMES = [
    CostOutcome.resolved(Decimal("0.10"), COUNTS, source="usage.cost"),
    CostOutcome.unpriced(COUNTS),
    CostOutcome.unknown(),
    CostOutcome.unknown(minimum_usage=COUNTS, minimum_cost=Decimal("0.02"), record={"a": 1}),
]
ATTEMPT = Attempt(
    number=1, url="https://x.example/v1", model="m", sent_bytes=5, started_at=2.0, elapsed_secs=0.5,
    outcome=AttemptOutcome.ANSWERED, status=200, cost=OUTCOMES[0], generator="own",
)  # fmt: skip
NAMES = {
    **PUBLIC,
    **{name: getattr(costs, name) for name in ("equal_shares", "exact_sum", "first_share", "total_words")},
    **{name: getattr(events, name) for name in ("as_observer", "without_content")},
    **{name: getattr(parameters, name) for name in ("CALL_FIELDS", "node_parameters")},
    **{name: getattr(tools, name) for name in ("as_tool", "as_tool_choice")},
    **{name: getattr(secret, name) for name in ("header_problem", "header_text_problem", "protect_header")},
    "convert_counts": usage.convert_counts, "Count": usage.Count, "content_text": content_text,
    "Decimal": Decimal, "msgspec": msgspec, "said": said, "told": told,
    "Number": Number, "Word": Word, "Uncopied": Uncopied, "remind": remind,
    "coroutine_function": coroutine_function, "observer": Observer(), "plan": plan(),
    "price": TokenPrice(1, 2, cache_read="0.1", cache_write="1.25", cache_write_1h=3),
    "tiers": TokenPrice(
        1, 2, threshold=100,
        next_tier=TokenPrice(3, 6, threshold=200, next_tier=TokenPrice(5, 10, source="top")),
    ),
    "outcomes": OUTCOMES, "attempt": ATTEMPT,
    "info": CostInfo.of(
        tuple(msgspec.structs.replace(ATTEMPT, number=number, cost=cost)
              for number, cost in enumerate([*OUTCOMES, None], 1))
    ),
    "picture": ImagePart(data=b"xyz", media_type="image/x-new"),
    "broken": (ToolCall(id="1", name="n", arguments="{}"), ToolCall(id="a.b", name="n", arguments="{")),
    "ended": CompletionEnded(id=1, at=2.0, outcome="answered", attempts=()),
}  # fmt: skip
RECORDED = recorded("values.txt")


@pytest.fixture(autouse=True)
def _without_variables(monkeypatch):
    for name in [
        name for name in os.environ if name.endswith(("_BASE_URL", "_ENDPOINT", "_VERSION"))
    ]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("first", range(0, len(RECORDED), 20))
def test_each_expression_has_the_value_that_is_recorded(first):
    texts = dict(list(RECORDED.items())[first : first + 20])
    assert {one: value_of(one, NAMES) for one in texts} == texts


def test_a_value_keeps_a_copy_of_what_its_caller_may_change_later():
    schema: dict = {"properties": {"a": {}}}
    extra: dict = {"a": [1]}
    words = {"name": "Ann"}
    kept = [
        ResponseFormat(schema=schema).schema,
        ToolDefinition(name="n", parameters=schema).parameters["properties"],
        CompletionParameters(extra=extra).extra,
        ToolCall(id="1", name="n", arguments="", extra=extra).extra,
        NodeCompletionParameters(format_kwargs=words).format_kwargs,
    ]
    schema["properties"]["a"]["type"] = "null"
    extra["a"].append(2)
    words["name"] = "Bob"
    assert kept == [{"properties": {"a": {}}}, {"a": {}}, {"a": [1]}, {"a": [1]}, {"name": "Ann"}]
