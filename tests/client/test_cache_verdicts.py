"""Why a call missed the prompt cache, and what a call will cache."""

from __future__ import annotations

import gc
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import pytest
from cache_server import CacheServer, caching
from msgspec.structs import replace

from minillmlib import (
    CachePlan,
    CacheVerdict,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    OpenAiProvider,
    OpenRouterProvider,
    PromptCache,
    ReasoningConfig,
    ResponseFormat,
    TextPart,
    TokenPrice,
    ToolCall,
    ToolDefinition,
)
from minillmlib.client import sent_prompts
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

CACHED = NodeCompletionParameters().with_cache(True)
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


def tokens(count: int, letter: str = "w") -> str:
    """A text of so many of the server's tokens, which are four bytes each."""
    return letter * (4 * count)


def claude(server: CacheServer, model: str = "claude-sonnet-4-5") -> GeneratorInfo:
    return GeneratorInfo.anthropic(model).with_base_url(server.url).with_api_key("key")


def routed(server: CacheServer, model: str = "anthropic/claude-sonnet-4.5") -> GeneratorInfo:
    generator = GeneratorInfo.custom("openrouter", server.url, model).with_api_key("key")
    return generator.with_provider(OpenRouterProvider())


def openai(server: CacheServer, model: str = "gpt-4o") -> GeneratorInfo:
    generator = GeneratorInfo.custom("openai", server.url, model).with_api_key("key")
    return generator.with_provider(OpenAiProvider())


def tool(name: str, description: str = "Looks.") -> ToolDefinition:
    return ToolDefinition(name=name, description=description, parameters=SCHEMA)


@pytest.fixture
async def server():
    async with caching() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_earlier_calls(monkeypatch):
    monkeypatch.setattr(sent_prompts, "prompt_log", log := sent_prompts.PromptLog())
    monkeypatch.setattr("minillmlib.client.cache_verdict.prompt_log", log)


class Clock:
    """The time of the server and of the program."""

    def __init__(self, server: CacheServer, monkeypatch: pytest.MonkeyPatch) -> None:
        real, self.server = time.time, server
        monkeypatch.setattr(time, "time", lambda: real() + self.server.now)

    def advance(self, secs: float) -> None:
        self.server.advance(secs)


@pytest.fixture
def clock(server, monkeypatch):
    return Clock(server, monkeypatch)


# One element is changed, in a new tree, and the old one is gone.


class Conversation:
    """A call that a program makes each time anew, with one element that may be changed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        roles = [Message.user, Message.assistant]
        self.system = f"conversation {seed} " + tokens(self.random.randint(1100, 1500))
        self.messages = [
            roles[place % 2](f"{seed} {place} " + tokens(self.random.randint(1, 400)))
            for place in range(self.random.randrange(1, 16, 2))
        ]
        self.marks = self.random.sample(
            range(len(self.messages)), k=min(3, len(self.messages) // 2)
        )
        self.tools = [
            tool(f"tool_{number}", f"{seed}") for number in range(self.random.randint(2, 5))
        ]
        self.params = {}
        self.model = 0
        self.secs = 0.0

    def change(self, what: str) -> str:
        """Change an element; return the name that the verdict must have for it."""
        chosen = self.random.choice
        if what == "system":
            self.system = chosen([f"at {time.time()}: ", "\n"]) + self.system
            return "system prompt"
        if what == "tool":
            place = self.random.randrange(len(self.tools))
            name = self.tools[place].name
            if chosen([True, False]):
                del self.tools[place]
            else:
                self.tools[place] = tool(name, "Looks elsewhere.")
            return f"tool {name!r}"
        if what == "message":
            place = self.random.randrange(len(self.messages))
            self.messages[place] = replace(
                self.messages[place], content=self.messages[place].content + chosen("!?")
            )
            return f"message {place + 1}"
        if what == "model":
            self.model = 1
            return "model"
        if what == "time":
            self.secs = chosen([300, 301, 1000])
            return "time"
        name, value = chosen(PARAMETERS)
        self.params = {name: value}
        return f"parameter {'speed' if name == 'extra' else name}"

    def leaf(self) -> ChatNode:
        root = ChatNode.root(self.system)
        if self.random.random() < 0.5:
            root.cache_breakpoint()
        node = root
        for place, message in enumerate(self.messages):
            add = node.add_user if message.role == "user" else node.add_assistant
            node = add(message.content)
            if place in self.marks:
                node.cache_breakpoint()
        return node

    async def call(self, generators: list[GeneratorInfo]) -> CacheVerdict:
        params = CompletionParameters(tools=self.tools, **self.params)
        settings = NodeCompletionParameters(params=params, use_cache=True)
        answer = await self.leaf().complete(generators[self.model], settings)
        return answer.cache_verdict


PARAMETERS = [
    ("tool_choice", "required"),
    ("parallel_tool_calls", False),
    ("reasoning", ReasoningConfig(effort="low")),
    ("response_format", ResponseFormat.json_schema(SCHEMA)),
    ("extra", {"speed": "fast"}),
]
ELEMENTS = ("system", "tool", "message", "model", "parameter", "time")


async def test_the_verdict_names_the_element_that_was_changed_in_500_of_500(server, clock):
    generators = [claude(server), claude(server, "claude-opus-5-0")]
    wrong, kinds = [], Counter()
    for seed in range(500):
        what = ELEMENTS[seed % len(ELEMENTS)]
        conversation = Conversation(seed)
        first = await conversation.call(generators)
        expected = conversation.change(what)
        clock.advance(conversation.secs)
        verdict = await conversation.call(generators)
        kinds[what, verdict.kind] += 1
        is_right = verdict.changed == expected and "not documented" not in verdict.explanation
        if not is_right or first.cache_write_tokens == 0:
            wrong.append((seed, what, expected, str(verdict)))
    assert wrong == []
    assert {kind for what, kind in kinds if what in ("system", "tool", "model")} == {"miss"}
    assert {kind for what, kind in kinds if what == "time"} == {"expired"}
    assert {kind for what, kind in kinds if what in ("message", "parameter")} == {"miss", "partial"}


@pytest.mark.parametrize(
    ("generator", "models", "elements"),
    [
        (routed, ("anthropic/claude-sonnet-4.5", "anthropic/claude-opus-5"), ELEMENTS[:4]),
        (openai, ("gpt-4o", "gpt-4o-mini"), (*ELEMENTS[:4], "time")),
    ],
    ids=["openrouter", "openai"],
)
async def test_it_names_it_on_other_wires(server, clock, generator, models, elements):
    generators = [generator(server, model) for model in models]
    for seed in range(100):
        conversation = Conversation(seed)
        conversation.messages = conversation.messages[-1:] if seed % 2 else conversation.messages
        conversation.marks = []
        await conversation.call(generators)
        expected = conversation.change(elements[seed % len(elements)])
        clock.advance(conversation.secs)
        verdict = await conversation.call(generators)
        assert verdict.changed == expected, (seed, str(verdict))
        assert verdict.kind in ("miss", "partial", "expired")


async def test_the_schema_of_an_answer_comes_before_all_else_at_openai(server):
    root = ChatNode.root(tokens(2000))
    await root.chat("a", openai(server))
    form = CompletionParameters(response_format=ResponseFormat.json_schema(SCHEMA))
    verdict = (await root.chat("a", openai(server), form)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", "parameter response_format")
    assert "not documented" not in verdict.explanation


async def test_of_two_changes_the_first_in_the_order_of_the_cache_is_named(server):
    before_system = ("parameter response_format", "parameter speed")
    for seed in range(60):
        conversation = Conversation(seed)
        await conversation.call([claude(server)])
        chosen = conversation.random.sample(["system", "tool", "message", "parameter"], 2)
        names = {what: conversation.change(what) for what in chosen}
        order = ["tool", "system", "parameter", "message"]
        if names.get("parameter") in before_system:
            order = ["tool", "parameter", "system", "message"]
        verdict = await conversation.call([claude(server)])
        assert verdict.changed == names[min(names, key=order.index)], (seed, names)


# The kinds.


async def verdicts(server: CacheServer, *nodes: ChatNode) -> list[CacheVerdict]:
    return [(await node.complete(claude(server), CACHED)).cache_verdict for node in nodes]


async def test_a_first_call_is_first_and_its_repetition_and_continuation_are_hits(server):
    root = ChatNode.root(tokens(2000))
    answer = await root.chat("a", claude(server), CACHED)
    again = await root.chat("a", claude(server), CACHED)
    longer = await answer.chat("b", claude(server), CACHED)
    kinds = [node.cache_verdict.kind for node in (answer, again, longer)]
    assert kinds == ["first", "hit", "hit"]
    verdict = again.cache_verdict
    assert (verdict.cache_read_tokens, verdict.cache_write_tokens) == (2001, 0)
    assert str(verdict).startswith("hit: 2,001 of 2,001 prompt tokens were read from the cache")
    assert answer.cache_verdict.kind == "first", "later calls change nothing"


async def test_branches_are_hits_if_they_differ_behind_the_breakpoint(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    answers = [await root.chat(letter, claude(server)) for letter in "abc"]
    assert [node.cache_verdict.kind for node in answers] == ["first", "hit", "hit"]
    assert answers[2].cache_verdict.changed is None


async def test_a_difference_behind_the_first_breakpoint_is_a_partial_hit(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    await root.chat("a", claude(server), CACHED)
    verdict = (await root.chat("b", claude(server), CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed, verdict.cache_read_tokens) == (
        "partial",
        "message 1",
        2000,
    )


async def test_a_prefix_that_was_kept_no_longer_is_expired(server, clock):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("1h")
    leaf = root.add_user("a").cache_breakpoint()
    await leaf.complete(claude(server))
    clock.advance(299)
    assert (await leaf.complete(claude(server))).cache_verdict.kind == "hit"
    clock.advance(301)
    half = (await leaf.complete(claude(server))).cache_verdict
    assert (half.kind, half.changed) == ("partial", "time")
    assert "301 s" not in half.explanation
    assert "5 min" in half.explanation
    clock.advance(3601)
    whole = (await leaf.complete(claude(server))).cache_verdict
    assert (whole.kind, whole.changed) == ("expired", "time")
    assert "ensure_cached" in whole.explanation


async def test_a_prompt_below_the_minimum_is_too_short(server):
    leaf = ChatNode.root(tokens(900)).cache_breakpoint().add_user("a")
    for _ in range(2):
        verdict = (await leaf.complete(claude(server))).cache_verdict
        assert verdict.kind == "too short"
        assert "minimum of 1,024" in verdict.explanation
    tiny = await ChatNode.root("s").cache_breakpoint().chat("a", claude(server))
    assert tiny.cache_verdict.kind == "too short"


async def test_a_breakpoint_before_the_minimum_is_too_short_in_a_long_prompt(server):
    root = ChatNode.root(tokens(100)).cache_breakpoint()
    verdict = (await root.chat(tokens(3000), claude(server))).cache_verdict
    assert verdict.kind == "too short"
    assert "further down" in verdict.explanation


async def test_claude_caches_nothing_without_a_breakpoint(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    await root.chat("a", claude(server))
    root.clear_cache_breakpoint()
    verdict = (await root.chat("b", claude(server))).cache_verdict
    assert (verdict.kind, verdict.changed) == ("uncached", None)
    assert "cache_breakpoint()" in verdict.explanation


async def test_a_model_that_is_too_old_has_no_cache(server):
    verdict = (await ChatNode.root(tokens(900)).chat("a", openai(server, "gpt-4"))).cache_verdict
    assert (verdict.kind, verdict.explanation.partition(": ")[2]) == (
        "uncached", "the model has no prompt cache")  # fmt: skip


async def test_a_breakpoint_that_moved_back_is_named(server):
    root = ChatNode.root(tokens(1100))
    leaf = root.add_user(tokens(1000)).cache_breakpoint()
    await leaf.complete(claude(server))
    leaf.clear_cache_breakpoint()
    root.cache_breakpoint()
    verdict = (await leaf.complete(claude(server))).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", "breakpoints")


async def test_a_breakpoint_too_far_behind_the_last_one_is_named(server):
    question = ChatNode.root(tokens(2000)).add_user("u")
    await question.complete(claude(server), CACHED)
    calls = [ToolCall(id=f"c{number}", name="look", arguments="{}") for number in range(25)]
    asking = Message(role="assistant", content="", tool_calls=calls)
    results = [Message.tool_result(call.id, "done") for call in calls]
    _, leaf = ChatNode.from_messages([*question.thread(), asking, *results])
    verdict = (await leaf.complete(claude(server), CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", "breakpoints")
    near = ChatNode.from_messages(
        [question.parent.message, replace(question.message, cache_ttl="5m"), asking, *results]
    )[1]
    assert (await near.complete(claude(server), CACHED)).cache_verdict.kind == "hit"


async def test_images_anywhere_change_how_all_messages_are_cached(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    answer = await root.chat(tokens(1000), claude(server), CACHED)
    looked = answer.add_user([TextPart("see"), ImagePart.from_bytes(PNG)])
    verdict = (await looked.complete(claude(server), CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed, verdict.cache_read_tokens) == ("partial", "images", 2000)
    assert "not documented" not in verdict.explanation


async def test_more_system_text_is_read_before_all_other_messages(server):
    root = ChatNode.root(tokens(2000))
    leaf = root.add_user(tokens(100)).cache_breakpoint()
    await leaf.complete(claude(server))
    _, later = ChatNode.from_messages([*leaf.thread(), Message.system(tokens(9))])
    verdict = (await later.chat("b", claude(server), CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", "message 2")


# What is compared with what.


async def test_a_warm_up_is_an_earlier_call(server, clock):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    await root.ensure_cached(claude(server))
    assert (await root.chat("a", claude(server))).cache_verdict.kind == "hit"
    clock.advance(301)
    assert (await root.chat("b", claude(server))).cache_verdict.kind == "expired"


async def test_calls_side_by_side_are_told_to_wait(server):
    import asyncio

    server.at_once = asyncio.Barrier(3)
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    nodes = await asyncio.gather(*(root.chat(letter, claude(server)) for letter in "abc"))
    found = sorted((node.cache_verdict for node in nodes), key=lambda verdict: verdict.kind)
    assert [verdict.kind for verdict in found] == ["first", "miss", "miss"]
    assert "ensure_cached" in found[-1].explanation


async def test_the_conversation_that_shares_most_is_compared_and_not_the_last_one(server):
    system = tokens(2000)
    long = await ChatNode.root(system).chat(tokens(100, "l"), claude(server), CACHED)
    await ChatNode.root(system).chat(tokens(100, "o"), claude(server), CACHED)
    await ChatNode.root(tokens(1500, "x")).chat("other", claude(server), CACHED)
    assert (await long.chat("on", claude(server), CACHED)).cache_verdict.kind == "hit"


async def test_of_strangers_the_one_with_the_same_model_is_compared(server):
    for model, letter in (("claude-sonnet-4-5", "a"), ("claude-opus-5-0", "b")):
        await ChatNode.root(tokens(2000, letter)).chat(letter, claude(server, model), CACHED)
    verdict = (
        await ChatNode.root(tokens(2000, "c")).chat("c", claude(server), CACHED)
    ).cache_verdict
    assert verdict.changed == "system prompt"


async def test_anthropics_own_breakpoint_at_the_end_counts(server, clock):
    own = CompletionParameters(extra={"cache_control": {"type": "ephemeral"}})
    root = ChatNode.root(tokens(2000))
    first = await root.chat("a", claude(server), own)
    assert first.response.usage.cache_write_tokens == 2001
    assert (await first.chat("b", claude(server), own)).cache_verdict.kind == "hit"
    verdict = (await root.chat("b", claude(server), own)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", "message 1")
    clock.advance(301)
    assert (await root.chat("b", claude(server), own)).cache_verdict.kind == "expired"


async def test_another_key_and_another_server_have_caches_of_their_own(server):
    root = ChatNode.root(tokens(2000))
    await root.chat("a", claude(server), CACHED)
    async with caching() as other:
        for generator in (claude(server).with_api_key("other"), claude(other)):
            server.ends.clear()
            verdict = (await root.chat("a", generator, CACHED)).cache_verdict
            assert verdict.kind == "first", str(verdict)


async def test_a_server_is_the_same_with_a_slash_at_the_end_of_its_address(server):
    root, generator = ChatNode.root(tokens(2000)), claude(server)
    await root.chat("a", generator, CACHED)
    generator = generator.with_base_url(f"{generator.base_url}/")
    assert (await root.chat("a", generator, CACHED)).cache_verdict.kind == "hit"


async def test_an_earlier_turn_that_is_asked_again_is_a_hit(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    answer = await root.chat("a", claude(server), CACHED)
    await answer.chat("b", claude(server), CACHED)
    assert (await answer.parent.complete(claude(server), CACHED)).cache_verdict.kind == "hit"


async def test_a_prefix_that_was_cached_once_is_never_too_short():
    def reply(written: int) -> ScriptedReply:
        usage = {"input_tokens": 2000 - written, "output_tokens": 1,
                 "cache_creation_input_tokens": written, "cache_read_input_tokens": 0}  # fmt: skip
        return ScriptedReply.json({
            "type": "message", "role": "assistant", "stop_reason": "end_turn", "usage": usage,
            "content": [{"type": "text", "text": "yes"}],
        })  # fmt: skip

    transport = ScriptedTransport([reply(1990), reply(0)])
    generator = CLAUDE.with_api_key("key").with_transport(transport)
    root = ChatNode.root("s")
    await root.chat("a", generator, CACHED)
    verdict = (await root.chat("a", generator, CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", None)


async def test_a_cache_that_lost_a_prefix_is_not_the_callers_fault(server):
    root = ChatNode.root(tokens(2000))
    await root.chat("a", claude(server), CACHED)
    server.ends.clear()
    verdict = (await root.chat("a", claude(server), CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", None)
    assert "neither the prompt nor a parameter differs" in verdict.explanation


async def test_a_parameter_that_the_cache_ignores_is_never_named(server):
    root = ChatNode.root(tokens(2000))
    await root.chat("a", claude(server), CACHED)
    hot = CACHED.with_params(CompletionParameters(temperature=0.9, max_tokens=50))
    assert (await root.chat("a", claude(server), hot)).cache_verdict.kind == "hit"
    server.ends.clear()
    verdict = (await root.chat("a", claude(server), CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", None)


async def test_a_parameter_of_unknown_effect_is_neither_blamed_nor_cleared(server):
    root = ChatNode.root(tokens(2000))
    await root.chat("a", claude(server), CACHED)
    managed = CACHED.with_params(CompletionParameters(extra={"context_management": {"edits": []}}))
    assert (await root.chat("a", claude(server), managed)).cache_verdict.kind == "hit"
    server.ends.clear()
    verdict = (await root.chat("a", claude(server), CACHED)).cache_verdict
    assert (verdict.kind, verdict.changed) == ("miss", "parameter context_management")
    assert "not documented" in verdict.explanation


async def test_placeholders_count_with_their_values(server):
    root = ChatNode.root("It is {now}. " + tokens(2000))
    for now in ("noon", "noon", "night"):
        answer = await root.chat("a", claude(server), CACHED.with_format_kwarg("now", now))
    assert answer.cache_verdict.changed == "system prompt"
    system = CACHED.with_system_prompt(tokens(1900, "p") + "{now}")
    for now in ("noon", "night"):
        leaf = ChatNode.root().add_user("a")
        answer = await leaf.complete(claude(server), system.with_format_kwarg("now", now))
    assert answer.cache_verdict.changed == "system prompt"
    for text in "bc":
        leaf = ChatNode.root().add_user("a").add_assistant(text).add_user("d")
        answer = await leaf.complete(claude(server), system.with_format_kwarg("now", now))
    assert answer.cache_verdict.changed == "message 2"
    assert leaf.path()[2].text == "c"


async def test_a_stream_and_a_copy_have_the_same_verdict(server):
    root = ChatNode.root(tokens(2000))
    await root.chat("a", claude(server), CACHED)
    async with root.chat_streaming("a", claude(server), CACHED) as stream:
        async for _ in stream:
            pass
    assert stream.node.cache_verdict.kind == "hit"
    assert ChatNode.root().graft(stream.node).cache_verdict == stream.node.cache_verdict


@pytest.mark.parametrize("system", [tokens(50), ""])
async def test_long_conversations_are_compared_message_by_message(server, system):
    """They are encoded once; so are their digests."""
    turns = [Message.user(f"turn {n} " + tokens(20)) if n % 2 else Message.assistant(f"turn {n}")
             for n in range(1, 99)]  # fmt: skip
    _, leaf = ChatNode.from_messages([Message.system(system), *turns])
    for text in "abc":
        leaf = await leaf.chat(text + tokens(100), openai(server))
    assert leaf._tree.prefix_cache._prefixes, "the test is about them"
    assert leaf.cache_verdict.kind == "hit"
    for place in (33, 77, 97, 101, 103):
        messages = leaf.thread()
        messages[place] = Message.user(f"other {place}")
        answer = await ChatNode.from_messages(messages)[1].chat("on", openai(server))
        assert answer.cache_verdict.changed == f"message {place}"
        again = await answer.chat("on", openai(server))
        assert again.cache_verdict.kind == "hit"


# What is not known.


async def test_a_message_that_was_not_generated_has_no_verdict():
    with pytest.raises(InvalidParameterError, match="not generated"):
        _ = ChatNode.root("s").cache_verdict


async def test_a_loaded_call_is_unknown(server, tmp_path):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    answer = await root.chat("a", claude(server))
    root.save_tree(tmp_path / "tree")
    loaded = ChatNode.load_tree(tmp_path / "tree").find(answer.id).cache_verdict
    assert (loaded.kind, loaded.cache_write_tokens) == ("unknown", 2000)
    assert answer.cache_verdict.kind == "first"


async def test_without_counts_nothing_is_known():
    body = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    generator = GeneratorInfo.custom("c", "https://c.example/v1", "m")
    generator = generator.with_transport(ScriptedTransport([ScriptedReply.json(body)]))
    verdict = (await ChatNode.root("s").chat("a", generator)).cache_verdict
    assert (verdict.kind, verdict.explanation) == (
        "unknown", "the server sent no usable token counts")  # fmt: skip


async def test_only_so_many_calls_are_remembered(server, monkeypatch):
    monkeypatch.setattr(sent_prompts, "_MAX_WEIGHT", 8 * 257)
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    nodes = [await root.chat(letter, claude(server)) for letter in "abcdefghijkl"]
    kinds = [node.cache_verdict.kind for node in nodes]
    assert kinds == ["unknown"] * 5 + ["hit"] * 7


async def test_no_text_and_no_key_is_remembered(server):
    secret, system = "sk-" + "k" * 40, "the patient's name is " + tokens(2000, "n")
    described = tool("look", "a secret tool")
    held = sys.getrefcount(system)
    params = CompletionParameters(tools=[described], stop=["a secret stop"])
    root = ChatNode.root(system).cache_breakpoint()
    await root.chat("a", claude(server).with_api_key(secret), params)
    for node in (root, params):
        assert node is not None
    del root, node, params
    gc.collect()
    assert sys.getrefcount(system) == held
    kept = list(everything_below(sent_prompts.prompt_log))
    assert len(kept) > 5
    texts = " ".join(map(repr, kept))
    assert "look" in texts
    for text in (secret, system, "patient", "a secret", "kkkk"):
        assert text not in texts


def everything_below(thing: object) -> Iterator[object]:
    """Yield all values that a record holds, by their parts."""
    if isinstance(thing, str | bytes | int | float):
        yield thing
    elif isinstance(thing, dict):
        yield from everything_below([*thing, *thing.values()])
    elif hasattr(thing, "__iter__"):
        for part in thing:
            yield from everything_below(part)
    elif hasattr(thing, "__struct_fields__"):
        for name in thing.__struct_fields__:
            yield from everything_below(getattr(thing, name))
    elif type(thing) is sent_prompts.PromptLog:
        yield from everything_below(list(thing._prompts))


# Plans.


def states(plan: CachePlan) -> list[tuple[str, str]]:
    return [(each.name, each.state) for each in plan.breakpoints]


CLAUDE = GeneratorInfo.anthropic("claude-sonnet-4-5")


def test_a_plan_tells_what_is_marked_dropped_and_too_short():
    node = ChatNode.root(tokens(1000)).cache_breakpoint("1h")
    for place in range(1, 6):
        said = node.add_user(tokens(100)) if place % 2 else node.add_assistant(tokens(100))
        node = said.cache_breakpoint()
    plan = node.cache_plan(CLAUDE)
    assert states(plan) == [
        ("system prompt", "dropped"), ("message 1", "dropped"),
        *[(f"message {place}", "marked") for place in range(2, 6)],
    ]  # fmt: skip
    assert [each.tokens for each in plan.breakpoints] == [1000, 1100, 1200, 1300, 1400, 1500]
    assert plan.breakpoints[0].reason == "only the last 4 can be sent"
    assert (plan.min_tokens, plan.prompt_tokens, plan.is_automatic) == (1024, 1500, False)
    node.path()[3].clear_cache_breakpoint()
    node.path()[4].clear_cache_breakpoint()
    plan = node.cache_plan(CLAUDE)
    assert states(plan)[:2] == [("system prompt", "too short"), ("message 1", "marked")]
    assert "estimate" in plan.breakpoints[0].reason
    assert [node.path()[each.place].role for each in plan.breakpoints] == [
        "system", "user", "assistant", "user"]  # fmt: skip


async def test_a_plan_is_what_the_call_then_does(server):
    for seed in range(60):
        conversation = Conversation(seed)
        leaf, params = conversation.leaf(), CompletionParameters(tools=conversation.tools)
        settings = NodeCompletionParameters(params=params, use_cache=seed % 3 > 0)
        plan = leaf.cache_plan(claude(server), settings)
        answer = await leaf.complete(claude(server), settings)
        sent = str(server.bodies[-1]).count("cache_control")
        assert sent == sum(each.state in ("marked", "too short") for each in plan.breakpoints)
        is_cached = any(each.state == "marked" for each in plan.breakpoints)
        assert is_cached == (answer.response.usage.cache_write_tokens > 0)


def test_a_plan_has_the_lifetimes_that_are_sent():
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    leaf = root.add_user("u").cache_breakpoint("1h")
    assert [each.ttl for each in leaf.cache_plan(CLAUDE).breakpoints] == ["1h", "1h"]
    cached = leaf.add_assistant("a").add_user("v").cache_plan(CLAUDE, CACHED)
    assert [(each.name, each.ttl) for each in cached.breakpoints][-1] == ("message 3", "5m")


def test_a_message_without_content_takes_no_breakpoint():
    calls = [ToolCall(id="c", name="look", arguments="{}")]
    asking = Message(role="assistant", content="", tool_calls=calls, cache_ttl="5m")
    _, leaf = ChatNode.from_messages(
        [Message.user(tokens(2000)), asking, Message.tool_result("c", "done")]
    )
    routed_claude = GeneratorInfo.openrouter("anthropic/claude-sonnet-4.5")
    (found,) = leaf.cache_plan(routed_claude).breakpoints
    assert (found.state, found.reason) == ("dropped", "a message without content takes none")
    assert leaf.cache_plan(CLAUDE).breakpoints[0].state == "marked"


@pytest.mark.parametrize(
    ("generator", "state", "minimum", "advice"),
    [
        (GeneratorInfo.openai("gpt-4o"), "automatic", 1024, "Keep the beginning"),
        (GeneratorInfo.openai("gpt-5.6"), "automatic", 1024, "Keep the beginning"),
        (GeneratorInfo.openai("gpt-4-turbo"), "no cache", None, "no prompt cache"),
        (GeneratorInfo.openrouter("openai/gpt-4o"), "automatic", 1024, "Keep the beginning"),
        (GeneratorInfo.openrouter("google/gemini-3"), "automatic", None, "Keep the beginning"),
        (GeneratorInfo.preset("groq", "llama"), "automatic", None, "Keep the beginning"),
        (GeneratorInfo.preset("deepseek-anthropic", "deepseek-v4"), "marked", None, "Keep"),
        (GeneratorInfo.anthropic("claude-haiku-4-5"), "too short", 4096, "shorter than the"),
        (GeneratorInfo.anthropic("claude-mythos-preview"), "marked", None, ""),
    ],
)
def test_a_plan_knows_the_service(generator, state, minimum, advice):
    plan = ChatNode.root(tokens(2000)).cache_breakpoint().add_user("u").cache_plan(generator)
    assert states(plan) == [("system prompt", state)]
    assert plan.min_tokens == minimum
    assert advice in plan.advice
    assert str(plan).splitlines()[1].startswith(f"system prompt: {state}")


def test_a_plan_says_if_nothing_will_be_cached():
    plan = ChatNode.root(tokens(2000)).add_user("u").cache_plan(CLAUDE)
    assert plan.breakpoints == ()
    assert "cache_breakpoint()" in plan.advice
    late = ChatNode.root("s").cache_breakpoint().add_user(tokens(2000)).cache_plan(CLAUDE)
    assert "further down" in late.advice
    short = ChatNode.root("s").add_user("u").cache_plan(GeneratorInfo.openai("gpt-4o"))
    assert "shorter" in short.advice


def test_a_plan_guesses_nothing_about_media_of_unknown_size():
    root = ChatNode.root(tokens(100)).cache_breakpoint()
    leaf = root.add_user([TextPart("see"), ImagePart.from_bytes(PNG)]).cache_breakpoint()
    first, second = leaf.cache_plan(CLAUDE).breakpoints
    assert (first.state, second.tokens) == ("too short", 100 + 1 + 1568)
    other = GeneratorInfo.anthropic("another-model")
    assert [each.tokens for each in leaf.cache_plan(other).breakpoints] == [100, None]


def test_a_plan_refuses_what_a_call_refuses():
    root = ChatNode.root("{topic}").set_format_kwarg("topic", None)
    with pytest.raises(InvalidParameterError, match="must have a value"):
        root.add_user("u").cache_plan(CLAUDE)
    with pytest.raises(InvalidParameterError, match="GeneratorInfo"):
        ChatNode.root("s").cache_plan("gpt-4o")


async def test_a_provider_of_ones_own_states_its_facts():
    class Mine(OpenAiProvider):
        capabilities = OpenAiProvider.capabilities.replace(
            prompt_cache=lambda model: PromptCache(min_tokens=600, lifetime_secs=60)
        )

    usage = {"prompt_tokens": 700, "completion_tokens": 1}
    body = {"usage": usage, "choices": [{"message": {"content": "y"}, "finish_reason": "stop"}]}
    generator = GeneratorInfo.custom("c", "https://c.example/v1", "m").with_provider(Mine())
    generator = generator.with_transport(ScriptedTransport([ScriptedReply.json(body)] * 2))
    root = ChatNode.root("s")
    assert root.cache_plan(generator).min_tokens == 600
    first, second = [await root.chat("a", generator) for _ in range(2)]
    assert (first.cache_verdict.kind, second.cache_verdict.kind) == ("first", "miss")


@pytest.mark.parametrize(
    ("price", "calls", "saved"),
    [
        (None, 16, None),
        (TokenPrice(3, 15), 16, None),
        (TokenPrice(3, 15).with_cache_rates("0.3", "3.75"), 1, "-0.0015"),
        (TokenPrice(3, 15).with_cache_rates("0.3", "3.75"), 2, "0.0039"),
    ],
)
def test_a_plan_estimates_what_the_cache_saves(price, calls, saved):
    generator = GeneratorInfo.anthropic("claude-sonnet-4-5").replace(token_price=price)
    node = ChatNode.root(tokens(2000)).cache_breakpoint().add_user("Hi")
    assert node.cache_plan(generator).savings(calls) == (saved and Decimal(saved))
    short = ChatNode.root("Hi").cache_breakpoint().add_user("Hi")
    assert short.cache_plan(generator).cached_tokens == 0
