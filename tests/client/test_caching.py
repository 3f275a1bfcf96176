"""Prompt caching, against a server that caches as Anthropic does and against a real one."""

from __future__ import annotations

import asyncio
import importlib.util
from decimal import Decimal

import pytest
from cache_server import CacheServer, caching
from msgspec.structs import replace

from minillmlib import (
    ChatNode,
    CompletionParameters,
    CostInfo,
    CostResolution,
    GeneratorInfo,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    OpenAiProvider,
    OpenRouterProvider,
    ReasoningConfig,
    ResponseFormat,
    TokenPrice,
    ToolCall,
    ToolDefinition,
)

pytestmark = pytest.mark.long

PRICE = TokenPrice(3, 15).with_cache_rates(0.3, 3.75, 6)
CALL = ToolCall(id="c1", name="look", arguments="{}")
OTHER_CALL = ToolCall(id="c2", name="look", arguments="{}")
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = ToolDefinition(name="look", parameters=SCHEMA)


def tokens(count: int, letter: str = "w") -> str:
    """A text of so many of the server's tokens, which are four bytes each."""
    return letter * (4 * count)


def usd(micro: float) -> Decimal:
    return Decimal(str(micro)) / 1_000_000


def claude(server: CacheServer, model: str = "claude-sonnet-4-5") -> GeneratorInfo:
    generator = GeneratorInfo.anthropic(model).with_base_url(server.url).with_api_key("key")
    return generator.with_token_price(PRICE)


def routed(server: CacheServer, model: str = "anthropic/claude-sonnet-4.5") -> GeneratorInfo:
    generator = GeneratorInfo.custom("openrouter", server.url, model).with_api_key("key")
    return generator.with_provider(OpenRouterProvider())


def openai(server: CacheServer, model: str = "gpt-4o") -> GeneratorInfo:
    generator = GeneratorInfo.custom("openai", server.url, model).with_api_key("key")
    return generator.with_provider(OpenAiProvider()).with_token_price(PRICE)


@pytest.fixture
async def server():
    async with caching() as running:
        yield running


async def streamed(node: ChatNode, text: str, generator: GeneratorInfo) -> ChatNode:
    stream = node.chat_streaming(text, generator)
    async for _ in stream:
        pass
    return stream.node


async def whole(node: ChatNode, text: str, generator: GeneratorInfo) -> ChatNode:
    return await node.chat(text, generator)


def buckets(node: ChatNode) -> tuple[int, int, int]:
    """Uncached, read and written."""
    usage = node.response.usage
    return usage.uncached_input_tokens, usage.cache_read_tokens, usage.cache_write_tokens


@pytest.mark.parametrize("asked", [whole, streamed])
async def test_a_cold_prompt_costs_the_write_and_a_warm_one_the_read(server, asked):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    cold = await asked(root, tokens(100, "a"), claude(server))
    assert buckets(cold) == (100, 0, 2000)
    assert cold.response.cost.cost == usd(2000 * 3.75 + 100 * 3 + 5 * 15)
    warm = await asked(root, tokens(100, "b"), claude(server))
    assert buckets(warm) == (100, 2000, 0)
    assert warm.response.cost.cost == usd(2000 * 0.3 + 100 * 3 + 5 * 15)


@pytest.mark.parametrize("asked", [whole, streamed])
async def test_what_is_written_for_an_hour_costs_the_rate_for_an_hour(server, asked):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("1h")
    node = root.add_user(tokens(1000, "a")).cache_breakpoint()
    both = await asked(node, tokens(100, "b"), claude(server))
    usage = both.response.usage
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (3000, 2000)
    assert both.response.cost.cost == usd(2000 * 6 + 1000 * 3.75 + 100 * 3 + 5 * 15)


async def test_without_a_price_for_an_hour_the_cost_is_not_made_up(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("1h")
    cheap = claude(server).with_token_price(TokenPrice(3, 15).with_cache_rates(0.3, 3.75))
    answer = await root.chat("a", cheap)
    assert answer.response.cost.resolution is CostResolution.UNPRICED


async def test_openrouter_hands_the_marks_on_to_claude_and_states_the_cost(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("1h")
    cold = await root.chat(tokens(100, "a"), routed(server))
    assert buckets(cold) == (100, 0, 2000)
    assert cold.response.cost.cost == usd(2000 * 6 + 100 * 3 + 5 * 15)
    warm = await root.chat(tokens(100, "b"), routed(server))
    assert buckets(warm) == (100, 2000, 0)
    assert warm.response.cost.cost == usd(2000 * 0.3 + 100 * 3 + 5 * 15)


async def test_the_branches_of_a_tree_read_the_prefix_they_share(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    trunk = (await root.chat(tokens(500, "a"), claude(server))).cache_breakpoint()
    first = await trunk.chat(tokens(100, "b"), claude(server))
    second = await trunk.chat(tokens(200, "c"), claude(server))
    elsewhere = await root.chat(tokens(300, "d"), claude(server))
    assert buckets(first) == (100, 2000, 505)  # 500 asked and 5 answered
    assert buckets(second) == (200, 2505, 0)
    assert buckets(elsewhere) == (300, 2000, 0)


async def test_a_mark_stays_where_it_was_put_when_neighbours_are_one_turn(server):
    facts = ChatNode.root("s").add_user(tokens(2000)).cache_breakpoint()
    for letter in "ab":
        answer = await facts.add_user(tokens(50, letter)).chat(tokens(50, letter), claude(server))
    assert buckets(answer)[1] == 2001  # "s" is a token as well
    (turn,) = server.bodies[-1]["messages"]
    assert ["cache_control" in block for block in turn["content"]] == [True, False]


async def test_tools_are_the_beginning_of_what_is_cached(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    with_tool = CompletionParameters(tools=[TOOL])
    cold = await root.chat("a", claude(server), with_tool)
    warm = await root.chat("b", claude(server), with_tool)
    assert buckets(cold)[2] == buckets(warm)[1] > 2000
    without = await root.chat("c", claude(server))
    assert buckets(without)[1:] == (0, 2000)


@pytest.mark.parametrize("generator", [claude, routed])
async def test_of_many_marks_the_last_four_are_written(server, generator):
    node = ChatNode.root(tokens(2000)).cache_breakpoint()
    for place in range(5):
        said = node.add_user(tokens(100)) if place % 2 == 0 else node.add_assistant(tokens(100))
        node = said.cache_breakpoint()
    await node.complete(generator(server))
    first = next(server.ends[digest] for digest in server.ends)
    assert first == 300
    assert len(server.ends) == 4
    assert server.counts[-1].written == 2500


@pytest.mark.parametrize("generator", [claude, routed])
async def test_system_text_in_the_middle_is_the_first_to_be_marked(server, generator):
    """Anthropic reads all system text first, so that is where longer lifetimes begin."""
    node = ChatNode.root(tokens(1500)).add_user(tokens(100)).cache_breakpoint("1h")
    history = [*node.thread(), Message.system(tokens(1000, "m"))]
    marked = [
        Message(role=m.role, content=m.content, cache_ttl=ttl)
        for m, ttl in zip(history, ["5m", "1h", "5m"], strict=True)
    ]
    _, leaf = ChatNode.from_messages(marked)
    answer = await leaf.chat("go on", generator(server))
    assert answer.response.usage.cache_write_tokens == 2600
    assert server.counts[-1].for_1h == 2600


async def test_a_short_lifetime_before_a_long_one_is_made_long(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("5m")
    node = root.add_user(tokens(1000)).cache_breakpoint("1h")
    answer = await node.complete(claude(server))
    assert answer.response.usage.cache_write_1h_tokens == 3000


async def test_a_system_text_of_two_pieces_is_found_again_when_its_mark_is_left_out(server):
    """The fifth mark pushes the first one out; the text before the others must stay the same."""
    pieces = [Message(role="system", content=tokens(1500), cache_ttl="5m"),
              Message(role="system", content=tokens(500))]  # fmt: skip
    _, node = ChatNode.from_messages(pieces)
    for letter in "abcd":
        node = (await node.chat(tokens(100, letter), claude(server))).cache_breakpoint()
    last = await node.chat("e", claude(server))
    assert buckets(last) == (1, 2000 + 3 * 105, 105)


async def test_what_is_cached_ends_with_its_lifetime_and_each_read_renews_it(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    written = [await root.chat("a", claude(server))]
    for secs in (299, 299, 301):
        server.advance(secs)
        written.append(await root.chat("b", claude(server)))
    assert [buckets(node)[2] for node in written] == [2000, 0, 0, 2000]


async def test_an_hour_is_an_hour(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("1h")
    await root.chat("a", claude(server))
    server.advance(3599)
    assert buckets(await root.chat("b", claude(server))) == (1, 2000, 0)
    server.advance(3601)
    assert buckets(await root.chat("c", claude(server))) == (1, 0, 2000)


async def test_a_prompt_below_the_models_least_is_not_written_and_costs_the_plain_price(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    for _ in range(2):
        answer = await root.chat(tokens(100), claude(server, "claude-haiku-4-5"))
        assert buckets(answer) == (2100, 0, 0)
        assert answer.response.cost.cost == usd(2100 * 3 + 5 * 15)


@pytest.mark.parametrize("generator", [claude, routed])
async def test_with_cache_each_turn_reads_what_the_one_before_wrote(server, generator):
    cached = NodeCompletionParameters().with_cache(True)
    root = ChatNode.root(tokens(2000))
    first = await root.chat(tokens(100), generator(server), cached)
    assert buckets(first) == (0, 0, 2100)
    second = await first.chat(tokens(100), generator(server), cached)
    assert buckets(second) == (0, 2100, 105)
    plain = await second.chat(tokens(100), generator(server), cached.with_cache(False))
    assert buckets(plain) == (2000 + 100 + 5 + 100 + 5 + 100, 0, 0)


async def test_with_cache_the_marks_of_nodes_are_sent_too(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("1h")
    await root.chat(tokens(100), claude(server), NodeCompletionParameters().with_cache(True))
    assert (server.counts[-1].for_1h, server.counts[-1].for_5m) == (2000, 100)


async def test_a_mark_that_is_cleared_is_not_sent(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    branch = root.add_user(tokens(100)).cache_breakpoint()
    other = root.add_user(tokens(200)).cache_breakpoint()
    await branch.clear_cache_breakpoint().complete(claude(server))
    assert server.counts[-1].written == 2000
    await other.complete(claude(server))
    assert server.counts[-1].written == 200
    branch.clear_all_cache_breakpoints()
    for node in (root.add_user("a"), branch, other):
        await node.complete(claude(server))
        assert "cache_control" not in str(server.bodies[-1])


async def test_a_mark_that_came_with_a_message_is_cleared_like_one_of_a_node(server):
    said = Message(role="user", content=tokens(2000), cache_ttl="5m")
    _, leaf = ChatNode.from_messages([Message.system("s"), said])
    await leaf.complete(claude(server))
    assert server.counts[-1].written == 2001
    await leaf.clear_cache_breakpoint().complete(claude(server))
    assert "cache_control" not in str(server.bodies[-1])
    await leaf.cache_breakpoint("1h").complete(claude(server))
    assert "1h" in str(server.bodies[-1])
    other_root, other = ChatNode.from_messages([Message.system("s"), said])
    other_root.clear_all_cache_breakpoints()
    await other.complete(claude(server))
    assert "cache_control" not in str(server.bodies[-1])
    assert said.cache_ttl == "5m"


@pytest.mark.parametrize(
    ("generator", "bears"), [(claude, True), (routed, False)], ids=["anthropic", "openrouter"]
)
async def test_a_mark_on_calls_without_text_takes_no_others_place(server, generator, bears):
    """OpenRouter takes marks on texts only; the receipt tells of one that had nowhere to stand."""
    asking = Message(role="assistant", content="", tool_calls=(CALL,), cache_ttl="5m")
    said = [Message(role=role, content=tokens(500), cache_ttl="5m")
            for role in ("system", "user", "assistant", "user")]  # fmt: skip
    _, leaf = ChatNode.from_messages([*said, asking, Message.tool_result("c1", "done")])
    answer = await leaf.complete(generator(server))
    body = server.bodies[-1]
    assert str(body).count("cache_control") == 4
    assert ("cache_control" in str(body.get("system", body["messages"][0]))) is (not bears)
    told = answer.response.request_report.omitted["cache breakpoints"]
    assert ("last 4" in told, "without" in told) == (bears, not bears)


def test_a_lifetime_that_does_not_exist_is_refused():
    with pytest.raises(InvalidParameterError, match="'5m' or '1h'"):
        ChatNode.root("s").cache_breakpoint("2h")


# Warming.


async def test_a_warm_call_writes_without_output_and_the_next_call_reads(server):
    told: list[CostInfo] = []
    settings = NodeCompletionParameters(cost_callback=told.append)
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    cold = await root.ensure_cached(claude(server), settings)
    assert (cold.cache_write_tokens, cold.completion_tokens) == (2000, 0)
    assert cold.cost == usd(2000 * 3.75 + 1 * 3)  # the last word is the user's: one token
    assert cold.resolution is CostResolution.RESOLVED
    assert server.bodies[-1]["max_tokens"] == 0
    again = await root.ensure_cached(claude(server), settings)
    assert again.cost == usd(2000 * 0.3 + 1 * 3)
    assert told == [cold, again]
    assert root.children() == []
    answer = await root.chat(tokens(100), claude(server))
    assert answer.response.cost.cost == usd(2000 * 0.3 + 100 * 3 + 5 * 15)


async def test_a_warm_call_renews_the_lifetime(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    for _ in range(3):
        await root.ensure_cached(claude(server))
        server.advance(299)
    assert buckets(await root.chat("a", claude(server))) == (1, 2000, 0)


async def test_a_warm_call_sends_the_prompt_up_to_its_last_mark(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint("1h")
    node = root.add_user(tokens(100)).cache_breakpoint()
    leaf = node.add_assistant(tokens(300)).add_user(tokens(400))
    info = await leaf.ensure_cached(claude(server))
    assert (info.prompt_tokens, info.cache_write_tokens) == (2100, 2100)
    assert info.cost == usd(2000 * 6 + 100 * 3.75)


async def test_a_warm_call_without_a_mark_or_with_cache_takes_the_whole_prompt(server):
    cached = NodeCompletionParameters().with_cache(True)
    plain = ChatNode.root(tokens(2000)).add_user(tokens(100))
    assert (await plain.ensure_cached(claude(server))).cache_write_tokens == 2100
    answer = await plain.complete(claude(server), cached)
    assert buckets(answer) == (0, 2100, 0)
    marked = ChatNode.root(tokens(3000, "m")).cache_breakpoint().add_user(tokens(100))
    assert (await marked.ensure_cached(claude(server), cached)).cache_write_tokens == 3100


async def test_a_warm_call_has_the_settings_of_the_calls_that_follow(server):
    settings = NodeCompletionParameters(
        params=CompletionParameters(tools=[TOOL], temperature=0.5),
        system_prompt="Speak of {topic}. " + tokens(2000),
        format_kwargs={"topic": "cats"},
        force_prepend="It",
    )
    _, node = ChatNode.from_messages([Message.user(tokens(100))])
    await node.ensure_cached(claude(server), settings)
    assert server.counts[0].prompt == server.counts[0].written  # and no word of the beginning
    answer = await node.cache_breakpoint().complete(claude(server), settings)
    assert buckets(answer)[1] == server.counts[0].written > 2100


@pytest.mark.parametrize("generator", [claude, routed])
async def test_a_mark_on_calls_or_on_one_of_their_results_can_be_warmed(server, generator):
    root = ChatNode.root(tokens(2000)).add_user("u")
    _, asking = ChatNode.from_messages(
        [*root.thread(), Message(role="assistant", content="look", tool_calls=(CALL, OTHER_CALL))]
    )
    first = asking.add_tool_result("c1", tokens(100))
    last = first.add_tool_result("c2", tokens(100))
    for node in (asking, first):
        node.cache_breakpoint()
        info = await node.ensure_cached(generator(server))
        assert info.cache_write_tokens > 0
    answer = await last.complete(generator(server))
    assert buckets(answer)[1] == sum(counts.written for counts in server.counts)


@pytest.mark.parametrize(
    "params",
    [
        CompletionParameters(tools=[TOOL], tool_choice="required"),
        CompletionParameters(response_format=ResponseFormat.json_schema(SCHEMA)),
    ],
    ids=["forced tool", "schema"],
)
async def test_what_a_request_without_output_may_not_ask_is_warmed_with_one_token(server, params):
    root = ChatNode.root(tokens(2000)).add_user(tokens(100)).cache_breakpoint()
    info = await root.ensure_cached(claude(server), params)
    assert (info.cache_write_tokens >= 2100, info.completion_tokens) == (True, 1)
    answer = await root.complete(claude(server), params)
    assert buckets(answer) == (0, info.cache_write_tokens, 0)


async def test_adaptive_thinking_needs_no_output_to_be_warmed(server):
    thinking = CompletionParameters(reasoning=ReasoningConfig(effort="low"))
    node = ChatNode.root(tokens(2000)).add_user(tokens(100)).cache_breakpoint()
    opus = claude(server, "claude-opus-5-0")
    assert (await node.ensure_cached(opus, thinking)).completion_tokens == 0
    assert buckets(await node.complete(opus, thinking)) == (0, 2100, 0)


@pytest.mark.parametrize("generator", [claude, routed])
@pytest.mark.parametrize(
    "reasoning",
    [ReasoningConfig(max_tokens=1024), ReasoningConfig(effort="low")],
    ids=["tokens", "effort"],
)
async def test_where_a_budget_would_be_thought_first_warming_says_so(server, generator, reasoning):
    thinking = CompletionParameters(reasoning=reasoning)
    with pytest.raises(InvalidParameterError, match="nothing can be warmed"):
        await ChatNode.root(tokens(2000)).ensure_cached(generator(server), thinking)
    assert server.bodies == []


@pytest.mark.parametrize(
    ("generator", "model"), [(claude, "a-relays-own-name"), (routed, "google/gemini-3")]
)
async def test_a_budget_in_tokens_is_too_much_whatever_the_model(server, generator, model):
    thinking = CompletionParameters(reasoning=ReasoningConfig(max_tokens=1024))
    with pytest.raises(InvalidParameterError, match="nothing can be warmed"):
        await ChatNode.root(tokens(2000)).ensure_cached(generator(server, model), thinking)


async def test_calls_side_by_side_read_what_was_warmed_and_else_each_write_it(server):
    server.at_once = asyncio.Barrier(3)
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    cold = await asyncio.gather(*(root.chat(letter, claude(server)) for letter in "abc"))
    assert [buckets(node) for node in cold] == [(1, 0, 2000)] * 3
    server.advance(301)
    server.at_once = asyncio.Barrier(1)
    await root.ensure_cached(claude(server))
    server.at_once = asyncio.Barrier(3)
    warm = await asyncio.gather(*(root.chat(letter, claude(server)) for letter in "abc"))
    assert [buckets(node) for node in warm] == [(1, 2000, 0)] * 3


@pytest.mark.parametrize(("ttl", "read"), [(None, 0), ("5m", 2100)])
async def test_a_turn_of_many_blocks_reads_by_the_mark_on_the_node_before_it(server, ttl, read):
    cached = NodeCompletionParameters().with_cache(True)
    question = ChatNode.root(tokens(2000)).add_user(tokens(100))
    await question.complete(claude(server), cached)
    calls = [ToolCall(id=f"c{number}", name="look", arguments="{}") for number in range(25)]
    asking = Message(role="assistant", content="", tool_calls=calls)
    results = [Message.tool_result(call.id, "done") for call in calls]
    _, leaf = ChatNode.from_messages(
        [question.parent.message, replace(question.message, cache_ttl=ttl), asking, *results]
    )
    assert buckets(await leaf.complete(claude(server), cached))[1] == read


async def test_openrouter_warms_claude_with_one_token_and_says_what_it_cost(server):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    info = await root.ensure_cached(routed(server))
    assert info.cost == usd(2000 * 3.75 + 1 * 3 + 1 * 15)
    assert buckets(await root.chat("a", routed(server))) == (1, 2000, 0)


@pytest.mark.parametrize(
    ("generator", "model", "least"),
    [(openai, "gpt-4o", 1), (routed, "openai/gpt-4o", 16), (routed, "x-ai/grok-4", 1)],
)
async def test_what_caches_by_itself_is_warmed_with_the_least_it_permits(
    server, generator, model, least
):
    root = ChatNode.root(tokens(2000)).cache_breakpoint()
    info = await root.ensure_cached(generator(server, model))
    body = server.bodies[-1]
    assert body.get("max_tokens", body.get("max_completion_tokens")) == least
    assert info.completion_tokens == min(least, 5)
    assert "cache_control" not in str(body)
    answer = await root.chat("a", generator(server, model))
    assert answer.response.usage.cache_read_tokens == 1920  # 1024 and seven steps of 128


async def test_what_is_too_short_to_be_cached_shows_in_the_counts(server):
    info = await ChatNode.root(tokens(10)).ensure_cached(claude(server))
    assert (info.prompt_tokens, info.cache_write_tokens, info.cache_read_tokens) == (11, 0, 0)


async def test_a_warm_call_takes_the_empty_answer_that_other_settings_would_refuse(server):
    strict = NodeCompletionParameters(crash_on_empty_response=True, crash_on_refusal=True)
    root = ChatNode.root(tokens(2000))
    assert (await root.ensure_cached(claude(server), strict)).cache_write_tokens >= 2000


async def test_only_a_generator_can_be_warmed():
    with pytest.raises(InvalidParameterError, match="GeneratorInfo"):
        await ChatNode.root("s").ensure_cached("gpt-4o")


# A real server.


@pytest.fixture(params=["chat completions", "messages"])
def real(request, local_server):
    if request.param == "messages":
        generator = GeneratorInfo.anthropic("smollm2").with_base_url(local_server.url)
    else:
        generator = GeneratorInfo.custom("real", local_server.base_url, "smollm2")
    return generator.with_api_key(local_server.key)


needs_local = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
)
SHORT = CompletionParameters(max_tokens=4, temperature=0)


@needs_local
async def test_a_real_server_reads_a_repeated_prompt_from_its_cache(real):
    root = ChatNode.root("You know all the capitals of the world. " * 20)
    await root.chat("What is the capital of France?", real, SHORT)
    again = await root.chat("What is the capital of France?", real, SHORT)
    usage = again.response.usage
    assert usage.cache_read_tokens > 100
    assert usage.prompt_tokens - usage.cache_read_tokens < 20
    stream = root.chat_streaming("What is the capital of Italy?", real, SHORT)
    async for _ in stream:
        pass
    assert stream.response.usage.cache_read_tokens > 100


@needs_local
async def test_a_real_server_is_warmed_by_a_call_of_one_token(real):
    root = ChatNode.root("You know all the rivers of the world. " * 20)
    info = await root.ensure_cached(real, CompletionParameters(temperature=0))
    assert info.completion_tokens == 1
    assert info.prompt_tokens > 100
    answer = await root.chat("Which one flows through Paris?", real, SHORT)
    assert answer.response.usage.cache_read_tokens > 100
