"""Answers that are to have a type: what is asked for, what is taken, and what is asked for again."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from typed_wires import Chat, Claude, Responses

from minillmlib import (
    Budget,
    Capabilities,
    ChatNode,
    CompletionContext,
    CompletionParameters,
    GeneratorInfo,
    GenericProvider,
    IncompleteJsonError,
    InvalidParameterError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    NoJsonFoundError,
    ParsedNode,
    ResponseFormat,
    ResponseValidationError,
    TokenPrice,
    ToolDefinition,
    iterate,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

WIRES = pytest.mark.parametrize("wire", [Chat, Claude, Responses])


@dataclass
class City:
    """A city of today."""

    name: str
    population: Annotated[int, msgspec.Meta(ge=1, description="all who live there")]


@dataclass
class Answer:
    city: City


OSLO = '{"city": {"name": "Oslo", "population": 717710}}'
MANY = '{"city": {"name": "Oslo", "population": "many"}}'
NONE = '{"city": {"name": "Oslo", "population": 0}}'
FORM = {
    "type": "object",
    "properties": {"city": {
        "type": "object",
        "description": "A city of today.",
        "properties": {
            "name": {"type": "string"},
            "population": {"type": "integer", "description": 'all who live there {"minimum": 1}'},
        },
        "required": ["name", "population"], "additionalProperties": False,
    }},
    "required": ["city"], "additionalProperties": False,
}  # fmt: skip
EXPECTING = NodeCompletionParameters(retry=2).expecting(Answer)
ROOT = ChatNode.root("s")


def asked(wire, params=EXPECTING, root=ROOT):
    return run(root.chat("u", wire.generator, params))


def failure(wire, params=EXPECTING):
    root = ChatNode.root("s")
    with pytest.raises((ResponseValidationError, NoJsonFoundError, IncompleteJsonError,
                        MaxRetriesExceededError)) as caught:  # fmt: skip
        asked(wire, params, root)
    assert root.is_leaf
    return caught.value


@WIRES
def test_an_answer_that_fits_is_a_value_of_the_type(wire):
    scripted = wire(OSLO)
    answer = asked(scripted)
    assert answer.parsed == Answer(City("Oslo", 717710))
    assert answer.text == OSLO
    assert answer.response.json() == msgspec.json.decode(OSLO)
    (body,) = scripted.bodies
    assert wire.form(body) == FORM
    assert scripted.turns()[-1] == ("user", "u"), "the prompt is as it was"
    assert "the schema of the answer" not in answer.response.request_report.omitted


def test_openai_is_asked_to_be_strict():
    scripted = Chat(OSLO)
    asked(scripted)
    form = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": FORM, "strict": True},
    }
    assert scripted.bodies[0]["response_format"] == form


ROME = OSLO.replace("Oslo", "Rome")
SEVERAL = [
    f'{OSLO}\n\nThe format was {{"version": 1}}.',
    f'Like {{"city": "a name"}}:\n{OSLO}\nIt is from {{"source": "a map"}} of today.',
    f'```json\n{OSLO}\n```\nThe request:\n```json\n{{"city": "Oslo"}}\n```',
    f'{{"thought": "Which?"}}\n{OSLO}',
]


@WIRES
@pytest.mark.parametrize("text", SEVERAL)
def test_of_several_values_the_one_that_fits_counts_without_another_request(wire, text):
    scripted = wire(text)
    answer = asked(scripted)
    assert answer.parsed == Answer(City("Oslo", 717710))
    assert answer.response.json() == msgspec.json.decode(OSLO)
    assert len(scripted.bodies) == 1
    stream = ROOT.chat_streaming(
        "u", wire(wire.streamed(text[:20], text[20:])).generator, EXPECTING
    )
    assert "".join(chunk.delta for chunk in iterate(stream)) == text
    assert stream.node.parsed == answer.parsed


def test_of_several_values_that_fit_the_last_counts_and_a_list_takes_those_in_a_row():
    text = f'{ROME}\nor rather\n{OSLO}\nas in {{"source": 1}}.'
    assert asked(Chat(text)).parsed.city.name == "Oslo"
    rows = NodeCompletionParameters().expecting(list[Answer])
    assert [one.city.name for one in asked(Chat(f"{OSLO}\n{ROME}\n"), rows).parsed] == [
        "Oslo",
        "Rome",
    ]
    assert [one.city.name for one in asked(Chat(f"{OSLO}, {ROME}"), rows).parsed] == [
        "Oslo",
        "Rome",
    ]


@pytest.mark.parametrize("text", [
    f"{OSLO}, {ROME}", '{"city": {"name": "Oslo"}} {} []', '{"n": 1} see [1]',
])  # fmt: skip
def test_a_part_or_a_remark_is_no_value_that_fits(text):
    assert isinstance(failure(Chat(text), EXPECTING.replace(retry=0)), ResponseValidationError)
    kinds = EXPECTING.replace(retry=0).expecting(list[int])
    assert isinstance(failure(Chat('{"n": 1} see [1]'), kinds), ResponseValidationError)


@WIRES
def test_wrong_answers_go_back_with_what_is_wrong_and_only_the_last_of_them(wire):
    scripted = wire(MANY, NONE, f"Here:\n```json\n{OSLO}\n```")
    root = ChatNode.root("s")
    answer = asked(scripted, EXPECTING, root)
    assert answer.parsed == Answer(City("Oslo", 717710))
    assert answer.text == OSLO
    assert scripted.turns(0)[-1] == ("user", "u")
    for number, wrong, problem in ((1, MANY, "got `str`"), (2, NONE, "Expected `int` >= 1")):
        before, said, correction = scripted.turns(number)[-3:]
        assert (before, said) == (("user", "u"), ("assistant", wrong))
        assert len(scripted.turns(number)) == len(scripted.turns(0)) + 2
        assert correction[0] == "user"
        assert problem in correction[1]
        assert "$.city.population" in correction[1]
        assert msgspec.json.decode(correction[1].splitlines()[-1]) == FORM
        assert wire.form(scripted.bodies[number]) == FORM
    assert [message.text for message in answer.thread()] == ["s", "u", OSLO], "nothing of it stays"
    assert root.node_count() == 3
    attempts = answer.response.attempts
    assert [attempt.outcome for attempt in attempts] == ["rejected", "rejected", "answered"]
    assert [attempt.error for attempt in attempts] == ["ResponseValidationError"] * 2 + [None]
    assert all(attempt.cost.usage.prompt_tokens == 3 for attempt in attempts)


@WIRES
def test_when_all_attempts_are_wrong_the_error_says_where(wire):
    error = failure(wire(MANY, MANY, NONE))
    assert isinstance(error, MaxRetriesExceededError)
    assert isinstance(error.last_error, ResponseValidationError)
    assert error.last_error.path == "$.city.population"
    assert "does not fit Answer: Expected `int` >= 1 - at `$.city.population`" in str(error)
    assert error.partial == error.last_error.partial == NONE
    assert [attempt.outcome for attempt in error.attempts] == ["rejected"] * 3
    again = pickle.loads(pickle.dumps(error.last_error))
    assert (again.path, again.partial) == ("$.city.population", NONE)


def test_without_retries_the_first_wrong_answer_is_the_error():
    error = failure(Chat(MANY), EXPECTING.replace(retry=0))
    assert type(error) is ResponseValidationError
    assert error.partial == MANY


def test_a_server_that_fails_in_between_is_asked_the_same_again(quota):
    busy = ScriptedReply.json({"error": {"message": "busy"}}, status=503)
    scripted = Chat(MANY, busy, NONE, OSLO)
    assert asked(scripted, EXPECTING.replace(retry=3, back_off_time=0)).parsed.city.name == "Oslo"
    assert scripted.turns(2) == scripted.turns(1)
    assert [text for role, text in scripted.turns(1) if role == "assistant"] == [MANY]
    assert [text for role, text in scripted.turns(3) if role == "assistant"] == [NONE]


def test_wrong_answers_take_nothing_from_the_quota_that_protects_a_server(quota):
    quota.CAPACITY = 0
    assert asked(Chat(MANY, OSLO)).parsed.city.name == "Oslo"


def test_every_attempt_counts_against_the_budget():
    budget = Budget(1)
    scripted = Chat(MANY, OSLO)
    generator = scripted.generator.with_token_price(TokenPrice(1, 1))
    params = EXPECTING.replace(budget=budget, params=CompletionParameters(max_tokens=100))
    run(ROOT.chat("u", generator, params))
    assert str(budget.spent) == "0.000008"


@WIRES
def test_prose_is_told_that_it_is_no_json(wire):
    scripted = wire("It is Oslo, of course.", OSLO)
    assert asked(scripted).parsed.city.name == "Oslo"
    assert scripted.turns()[-2] == ("assistant", "It is Oslo, of course.")
    assert "no JSON" in scripted.turns()[-1][1]
    error = failure(wire("no", "no", "no"))
    assert isinstance(error.last_error, NoJsonFoundError)
    assert error.partial == "no"


@WIRES
def test_a_refusal_and_an_empty_answer_are_asked_again_as_they_were(wire):
    scripted = wire(wire.refused, "", OSLO)
    assert asked(scripted).parsed.city.name == "Oslo"
    assert scripted.turns(0) == scripted.turns(1) == scripted.turns(2)
    error = failure(wire(wire.refused), EXPECTING.replace(retry=0))
    assert type(error) is NoJsonFoundError
    assert error.partial == "I cannot help with that."
    assert type(failure(wire(""), EXPECTING.replace(retry=0))) is NoJsonFoundError


def test_what_a_model_had_begun_before_it_refused_does_not_go_back():
    begun = Claude.whole("I will", "refusal", stop_details={"explanation": "No."})
    scripted = Claude(begun, OSLO)
    assert asked(scripted).parsed.city.name == "Oslo"
    assert scripted.turns(1) == scripted.turns(0)


def test_an_empty_answer_leaves_the_last_correction_where_it_was():
    scripted = Chat(MANY, "", OSLO)
    asked(scripted)
    assert scripted.turns(2) == scripted.turns(1) != scripted.turns(0)


@WIRES
@pytest.mark.parametrize("text", [OSLO[:-2], '{"city": {"name": "Oslo", "population": 7', "", "Hm"])
def test_a_cut_answer_is_neither_repaired_nor_asked_again(wire, text):
    error = failure(wire((text, wire.cut)))
    assert type(error) is IncompleteJsonError
    assert "limit" in str(error)
    assert error.partial == text
    assert len(error.attempts) == 1


@WIRES
def test_a_limit_that_ends_nothing_but_prose_does_no_harm(wire):
    assert asked(wire((f"{OSLO}\nThat is the cap", wire.cut))).parsed.city.name == "Oslo"
    error = failure(wire((f'{OSLO}\nNo, better: {{"city": {{"na', wire.cut)))
    assert type(error) is IncompleteJsonError


@WIRES
def test_what_there_is_of_a_cut_answer_can_be_taken(wire):
    params = EXPECTING.replace(allow_incomplete_json=True, retry=0)
    assert asked(wire((OSLO[:-2], wire.cut)), params).parsed.city.population == 717710
    error = failure(wire(('{"city": {"name": "Os', wire.cut)), params)
    assert type(error) is ResponseValidationError
    assert "population" in str(error)


@WIRES
def test_calls_of_tools_come_before_the_answer(wire):
    look = ToolDefinition(name="look", description="Looks.", parameters={"type": "object"})
    scripted = wire(wire.calls(), OSLO)
    params = EXPECTING.with_params(CompletionParameters(tools=[look]))
    if wire is Chat:
        scripted.model = "gpt-4o"
    asking = asked(scripted, params)
    assert [call.name for call in asking.tool_calls] == ["look"]
    assert asking.text == "Let me look."
    with pytest.raises(InvalidParameterError, match="tools before it answers"):
        _ = asking.parsed
    answer = run(asking.add_tool_result("c", "Oslo").complete(scripted.generator, params))
    assert answer.parsed.city.name == "Oslo"


def test_a_forced_beginning_is_part_of_the_answer_and_the_schema_goes_into_the_prompt():
    scripted = Claude('name": "Oslo", "population": "many"}}', 'name": "Oslo", "population": 9}}')
    answer = asked(scripted, EXPECTING.with_force_prepend('{"city": {"'))
    assert answer.parsed == Answer(City("Oslo", 9))
    assert [role for role, _ in scripted.turns(0)] == ["user", "assistant"]
    assert "JSON schema" in scripted.turns(0)[0][1]
    assert "output_config" not in scripted.bodies[0]
    assert "forced beginning" in answer.response.request_report.omitted["the schema of the answer"]
    roles, texts = zip(*scripted.turns(1), strict=True)
    assert roles == ("user", "assistant", "user", "assistant")
    assert texts[1] == '{"city": {"name": "Oslo", "population": "many"}}'
    assert texts[3] == '{"city": {"'


@WIRES
def test_a_stream_gives_the_same_value(wire):
    scripted = wire(wire.streamed(f"Here: {OSLO[:9]}", OSLO[9:]))
    stream = ROOT.chat_streaming("u", scripted.generator, EXPECTING)
    text = "".join(chunk.delta for chunk in iterate(stream))
    assert text == f"Here: {OSLO}"
    assert stream.node.parsed == Answer(City("Oslo", 717710))
    assert stream.node.text == stream.response.content == OSLO
    assert wire.form(scripted.bodies[0]) == FORM


@WIRES
def test_a_stream_that_was_delivered_is_not_asked_again_and_its_end_is_the_error(wire):
    root = ChatNode.root("s")
    stream = root.chat_streaming("u", wire(wire.streamed(MANY[:9], MANY[9:])).generator, EXPECTING)
    chunks = []
    with pytest.raises(ResponseValidationError) as caught:
        for chunk in iterate(stream):
            chunks.append(chunk.delta)
    assert "".join(chunks) == MANY
    assert (caught.value.path, caught.value.partial) == ("$.city.population", MANY)
    assert [attempt.outcome for attempt in stream.attempts] == ["rejected"]
    assert root.is_leaf


async def test_tracked_calls_give_values_too():
    costs = []
    scripted = Chat(OSLO, MANY, OSLO, Chat.streamed(OSLO))
    context = CompletionContext(scripted.generator, None, lambda info, _: costs.append(info))
    leaf = ROOT.add_user("u")
    for answer in (
        await leaf.complete_tracked(context, EXPECTING),
        await ROOT.chat_tracked("u", context, EXPECTING),
        await leaf.complete_streaming_tracked(context, EXPECTING).collect(),
    ):
        assert answer.parsed.city.name == "Oslo"
    await context.aclose()
    assert [len(info.attempts) for info in costs] == [1, 2, 1]


def test_only_the_handle_of_the_call_has_the_value():
    scripted = Chat(OSLO, "plain")
    answer = asked(scripted)
    (other,) = [node for node in answer.root_node.depth_first() if node == answer]
    assert other is not answer
    with pytest.raises(InvalidParameterError, match=r"keep the node .* response.json\(\)"):
        _ = other.parsed
    next_one = run(answer.chat("And now?", scripted.generator))
    assert next_one.text == "plain"
    assert isinstance(answer, ParsedNode)


# What is sent where a model cannot be held to a schema.


@pytest.mark.parametrize(("wire", "model"), [
    (Claude, "claude-3-5-haiku-latest"), (Claude, "claude-sonnet-4-0"), (Chat, "gpt-3.5-turbo"),
    (Chat, "gpt-4-turbo"), (Chat, "gpt-4o-2024-05-13"), (Chat, "o1-mini"),
])  # fmt: skip
def test_older_models_are_told_the_schema_in_the_prompt(wire, model):
    scripted = wire(OSLO)
    scripted.model = model
    answer = asked(scripted)
    assert answer.parsed.city.name == "Oslo"
    assert wire.form(scripted.bodies[0]) is None
    role, text = scripted.turns()[-1]
    assert role == "user"
    assert text.startswith("u\n\nAnswer with JSON")
    assert msgspec.json.decode(text.splitlines()[-1]) == FORM
    assert f"{model} is older" in answer.response.request_report.omitted["the schema of the answer"]
    assert [message.text for message in answer.thread()] == ["s", "u", OSLO]


@pytest.mark.parametrize(("wire", "model"), [
    (Claude, "claude-opus-4-1"), (Claude, "claude-sonnet-4-5"), (Claude, "claude-opus-5"),
    (Claude, "claude-next"), (Chat, "gpt-4o"), (Chat, "gpt-4.1-mini"), (Chat, "o3"),
])  # fmt: skip
def test_newer_and_unknown_models_are_held_to_it(wire, model):
    scripted = wire(OSLO)
    scripted.model = model
    asked(scripted)
    assert wire.form(scripted.bodies[0]) == FORM


@pytest.mark.parametrize("model", ["smollm2", "glm-5.3", "deepseek-v4", "qwen/qwen3", "gpt-4o"])
def test_a_model_of_another_vendor_on_the_messages_wire_reads_the_schema_at_once(model):
    scripted = Claude(OSLO)
    scripted.model = model
    answer = asked(scripted)
    assert Claude.form(scripted.bodies[0]) is None
    assert scripted.turns()[-1][1].startswith("u\n\nAnswer with JSON")
    assert model in answer.response.request_report.omitted["the schema of the answer"]


def test_claude_behind_openrouter_is_what_it_is_at_home():
    for model, is_held in (("anthropic/claude-3.5-haiku", False), ("anthropic/claude-opus-4.5", True),
                           ("google/gemini", True)):  # fmt: skip
        scripted = Chat(OSLO)
        generator = (
            GeneratorInfo.openrouter(model).with_api_key("k").with_transport(scripted.transport)
        )
        run(ROOT.chat("u", generator, EXPECTING))
        assert ("response_format" in scripted.bodies[0]) is is_held


def test_a_response_format_of_the_callers_own_stays_and_the_prompt_tells_the_schema():
    scripted = Chat(OSLO)
    params = EXPECTING.with_params(CompletionParameters().with_json_response())
    answer = asked(scripted, params)
    assert scripted.bodies[0]["response_format"] == {"type": "json_object"}
    assert msgspec.json.decode(scripted.turns()[-1][1].splitlines()[-1]) == FORM
    assert "of their own" in answer.response.request_report.omitted["the schema of the answer"]
    own = ResponseFormat.json_schema({"type": "object"}, name="own")
    again = Chat(OSLO)
    asked(again, EXPECTING.with_params(CompletionParameters(response_format=own)))
    assert again.bodies[0]["response_format"]["json_schema"]["name"] == "own"


class Schemaless(GenericProvider):
    def build_request(self, model, messages, params, *, stream, include_usage):
        params.check_only(wire="the schemaless wire")
        return super().build_request(
            model, messages, params, stream=stream, include_usage=include_usage
        )

    capabilities = Capabilities(why_no_schema=lambda model, _: f"{model} was never taught any")


def test_a_provider_of_the_callers_own_says_whether_it_takes_schemas():
    scripted = Chat(OSLO)
    answer = run(ROOT.chat("u", scripted.generator.with_provider(Schemaless()), EXPECTING))
    assert answer.parsed.city.name == "Oslo"
    assert "never taught" in answer.response.request_report.omitted["the schema of the answer"]


def test_a_cache_is_warmed_with_the_same_form_and_without_a_value():
    scripted = Claude("x")
    info = run(ROOT.add_user("u").ensure_cached(scripted.generator, EXPECTING))
    assert Claude.form(scripted.bodies[0]) == FORM
    assert scripted.bodies[0]["max_tokens"] == 1
    assert info.prompt_tokens == 3


# Kinds of types.


class Point(msgspec.Struct):
    x: float
    y: float = 0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=18)
    boss: Person | None = None


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    born: dt.date


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


class Tree(msgspec.Struct):
    value: int
    kids: list[Tree] = []


class Alarm(pydantic.BaseModel):
    kind: Literal["alarm"]
    decibel: float


class Light(pydantic.BaseModel):
    kind: Literal["light"]
    color: Color


class House(pydantic.BaseModel):
    device: Alarm | Light = pydantic.Field(discriminator="kind")


class Odd(pydantic.BaseModel, json_schema_extra={"not": {"required": ["y"]}}):
    x: int


class Price(msgspec.Struct):
    amount: decimal.Decimal


@dataclass
class Defaults:
    tags: list[str] = field(default_factory=list)
    note: str | None = None


BORN = dt.date(2020, 1, 2)


class Kind(msgspec.Struct):
    """A type, an answer, its value, and whether the type can be told strictly."""

    kind: Any
    answer: str
    value: Any
    is_strict: bool = True


KINDS = [
    Kind(Answer, OSLO, Answer(City("Oslo", 717710))),
    Kind(Point, '{"x": 1, "y": "2.5"}', Point(1.0, 2.5)),
    Kind(Point, '{"x": 1}', Point(1.0, 0.0)),
    Kind(Movie, '{"title": "Up"}', {"title": "Up"}),
    Kind(Defaults, "{}", Defaults()),
    Kind(Pet, '{"kind": "cat", "born": "2020-01-02"}', Pet(kind="cat", born=BORN)),
    Kind(list[Pet], '{"answer": [{"kind": "cat", "born": "2020-01-02"}]}',
         [Pet(kind="cat", born=BORN)]),
    Kind(Pet | None, '{"answer": null}', None),
    Kind(int, '{"answer": 7}', 7),
    Kind(int, '{"answer": "7"}', 7),
    Kind(int, "7", 7),
    Kind(str, '{"answer": "hi"}', "hi"),
    Kind(bool, '{"answer": false}', False),
    Kind(list[str], '{"answer": ["a", "b"]}', ["a", "b"]),
    Kind(list[str], '["a", "b"]', ["a", "b"]),
    Kind(list[str], '{"answer": []}', []),
    Kind(set[int], '{"answer": [1, 1]}', {1}),
    Kind(Literal["yes", "no"], '{"answer": "no"}', "no"),
    Kind(Literal["yes", 1], '{"answer": 1}', 1),
    Kind(Color, '{"answer": "blue"}', Color.BLUE),
    Kind(int | str, '{"answer": "7"}', "7"),
    Kind(City | None, '{"answer": {"name": "O", "population": 1}}', City("O", 1)),
    Kind(Cat | Dog, '{"answer": {"type": "Dog", "tricks": ["sit"]}}', Dog(["sit"])),
    Kind(dt.date, '{"answer": "2020-01-02"}', BORN),
    Kind(House, '{"device": {"kind": "light", "color": "red"}}',
         House(device=Light(kind="light", color=Color.RED))),
    Kind(Price, '{"amount": "0.10"}', Price(decimal.Decimal("0.10"))),
    Kind(Odd, '{"x": 1}', Odd(x=1), is_strict=False),
    Kind(Annotated[Any, msgspec.Meta(extra_json_schema={"enum": [[1], "a"]})], '{"answer": [1]}', [1],
         is_strict=False),
    Kind(dict[str, int], '{"a": 1}', {"a": 1}, is_strict=False),
    Kind(dict[str, Pet], '{"a": {"kind": "dog", "born": "2020-01-02"}}',
         {"a": Pet(kind="dog", born=BORN)}, is_strict=False),
    Kind(tuple[int, str], '{"answer": [1, "a"]}', (1, "a"), is_strict=False),
    Kind(Pair, '{"answer": [1, "a"]}', Pair(1, "a"), is_strict=False),
    Kind(Tree, '{"value": 1, "kids": [{"value": 2}]}', Tree(1, [Tree(2)]), is_strict=False),
    Kind(list[Tree], '[{"value": 1}]', [Tree(1)], is_strict=False),
    Kind(Person, '{"name": "A", "age": 20, "boss": {"name": "B", "age": 50}}',
         Person(name="A", age=20, boss=Person(name="B", age=50)), is_strict=False),
    Kind(Any, '{"answer": [1, null]}', [1, None], is_strict=False),
]  # fmt: skip


@pytest.mark.parametrize("case", KINDS, ids=[f"{case.kind} {case.answer}" for case in KINDS])
def test_every_kind_of_type_is_sent_and_read(case):
    chat, claude = Chat(case.answer), Claude(case.answer)
    params = EXPECTING.expecting(case.kind)
    for scripted in (chat, claude):
        parsed = asked(scripted, params).parsed
        assert parsed == case.value
        assert type(parsed) is type(case.value)
    form = chat.bodies[0]["response_format"]["json_schema"]
    assert form["strict"] is case.is_strict
    assert form["schema"]["type"] == "object", "vendors want one at the root"
    references_lead_somewhere(form["schema"], form["schema"])
    if case.is_strict:
        assert Claude.form(claude.bodies[0]) == form["schema"]
        fits_the_strict_subset(form["schema"])
    else:
        assert Claude.form(claude.bodies[0]) is None, "Claude takes strict schemas only"
        assert msgspec.json.decode(claude.turns()[-1][1].splitlines()[-1]) == form["schema"]


def references_lead_somewhere(schema, root):
    for key, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if key == "$ref":
            assert value.removeprefix("#/$defs/") in root["$defs"]
        elif isinstance(value, dict | list):
            references_lead_somewhere(value, root)


def fits_the_strict_subset(schema):
    allowed = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum",
               "const", "description", "format"}  # fmt: skip
    assert set(schema) <= allowed
    assert "type" in schema or "anyOf" in schema
    if schema.get("type") == "object":
        assert schema["required"] == list(schema["properties"])
        assert schema["additionalProperties"] is False
    assert schema.get("format") in (None, "date"), "other formats become a part of the description"
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    for one in inner + ([schema["items"]] if "items" in schema else []):
        fits_the_strict_subset(one)


@pytest.mark.parametrize(("kind", "answer", "path", "problem"), [
    (list[City], '[{"name": "Oslo"}]', "$.answer[0]", "population"),
    (int, '{"answer": "seven"}', "$.answer", "Expected `int`"),
    (int, "{}", "$", "answer"),
    (Answer, "[]", "$", "Expected `object`"),
    (Color, '"green"', "$.answer", "green"),
    (Person, '{"name": "A", "age": 7}', "$.age", "greater than or equal to 18"),
    (Person, '{"age": 18, "boss": {"name": "B", "age": "old"}}', "$.name", "$.boss.age"),
    (list[Person], '{"answer": [{"name": "A", "age": 7}]}', "$.answer[0].age", "18"),
    (dict[str, int], '{"a": "b"}', "$[...]", "Expected `int`"),
])  # fmt: skip
def test_the_error_names_the_place_and_the_problem(kind, answer, path, problem):
    error = failure(Chat(answer), EXPECTING.replace(retry=0).expecting(kind))
    assert type(error) is ResponseValidationError
    assert error.path == path
    assert problem in str(error)
    assert "pydantic" not in str(error)


class Picky(msgspec.Struct):
    word: str

    def __post_init__(self):
        if self.word == "bad":
            raise ValueError("no bad words")
        _ = {}[self.word] if self.word == "worse" else None


def test_what_the_type_itself_refuses_is_told_as_well():
    for word, told in (("bad", "no bad words"), ("worse", "KeyError")):
        error = failure(Chat(f'{{"word": "{word}"}}'), EXPECTING.replace(retry=0).expecting(Picky))
        assert type(error) is ResponseValidationError
        assert told in str(error)


class Opaque:
    pass


class Hidden(pydantic.BaseModel, arbitrary_types_allowed=True):
    thing: Opaque


@pytest.mark.parametrize(
    "kind", [Opaque, object, 3, "City", list[Opaque], City | Opaque, Hidden, type]
)
def test_a_type_without_a_schema_is_refused_when_the_parameters_are_made(kind):
    with pytest.raises(InvalidParameterError, match="no answer can be read as"):
        NodeCompletionParameters().expecting(kind)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (dict[tuple[int, int], str],
         "dict[tuple[int, int], str]: the keys of a JSON object are texts, and none of them is "
         "tuple[int, int]; use list[tuple[tuple[int, int], str]]"),
        (dict[frozenset[str], int | None],
         "dict[frozenset[str], int | None]: the keys of a JSON object are texts, and none of them "
         "is frozenset[str]; use list[tuple[frozenset[str], int | None]]"),
        (dict[City, dict[str, int]],
         f"dict[{__name__}.City, dict[str, int]]: the keys of a JSON object are texts, and "
         "none of them is City; use list[tuple[City, dict[str, int]]]"),
        (list[Mapping[list[int] | dict[str, int], int]],
         "list[collections.abc.Mapping[list[int] | dict[str, int], int]]: the keys of a JSON object "
         "are texts, and none of them is list[int] | dict[str, int]; use "
         "list[tuple[list[int] | dict[str, int], int]]"),
    ],
)  # fmt: skip
def test_a_mapping_whose_keys_no_text_can_state_is_refused_and_pairs_are_named(kind, problem):
    with pytest.raises(InvalidParameterError) as caught:
        NodeCompletionParameters().expecting(kind)
    assert str(caught.value) == f"no answer can be read as {problem}"


@pytest.mark.parametrize("kind", [dict[int, str], dict[int | tuple[int, int], str]])
def test_keys_that_a_text_can_state_are_read_from_it(kind):
    transport = ScriptedTransport(['{"1": "Oslo"}'])
    generator = GeneratorInfo.openai("m").with_api_key("k").with_transport(transport)
    answer = run(ROOT.chat("?", generator, NodeCompletionParameters().expecting(kind)))
    assert answer.parsed == {1: "Oslo"}


def test_a_wide_type_is_told_as_it_is_and_not_spelled_out_without_end():
    inner = City
    for depth in range(16):
        inner = msgspec.defstruct(f"Level{depth}", [("one", inner), ("two", inner)])
    params = NodeCompletionParameters().expecting(inner)
    assert not params.result_type.is_strict
    assert len(params.result_type.schema_text) < 10_000


def test_the_settings_keep_what_they_were_and_their_type():
    before = NodeCompletionParameters(system_prompt="s", retry=1)
    params = (
        before.expecting(Answer).with_system_prompt("t").with_params(CompletionParameters(seed=1))
    )
    assert (params.system_prompt, params.retry, params.params.seed) == ("t", 1, 1)
    scripted = Chat(OSLO, "7")
    assert asked(scripted, params).parsed == Answer(City("Oslo", 717710))
    assert asked(scripted, params.expecting(int)).parsed == 7
    again = pickle.loads(pickle.dumps(params))
    assert asked(Chat(OSLO), again).parsed == Answer(City("Oslo", 717710))
    assert "ResultType(Answer)" in repr(params)


def test_pydantic_is_never_imported_by_the_library():
    import subprocess
    import sys

    program = """
import sys, minillmlib
from dataclasses import dataclass
minillmlib.NodeCompletionParameters().expecting(list[int])
print("pydantic" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_json_that_breaks_off_where_the_answer_fills_its_limit_is_cut_whatever_its_end_says():
    golden = Path(__file__).parents[1] / "golden" / "compat_litellm_anthropic_skin_cut.json"
    body = ScriptedReply.json(golden.read_bytes())
    claude = GeneratorInfo.anthropic("smollm2").with_api_key("sk-key-of-tests")
    params = NodeCompletionParameters(params=CompletionParameters(max_tokens=24), retry=0)
    generator = claude.with_transport(ScriptedTransport([body, body]))
    with pytest.raises(IncompleteJsonError):
        run(ChatNode.root("s").chat("q", generator, params.with_parse_json(True)))
    longer = params.with_params(CompletionParameters(max_tokens=25)).with_parse_json(True)
    assert run(ChatNode.root("s").chat("q", generator, longer)).text.startswith("{")
