"""Plans of the cache, and the requests that warm it: whole, without a server."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from golden import GOLDEN
from minillmlib import (
    ChatNode,
    CompletionParameters,
    EmptyThreadError,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    ReasoningConfig,
    ResponseFormat,
    TextPart,
    TokenPrice,
    ToolCall,
    ToolDefinition,
    Usage,
)
from minillmlib.client.cache_warmup import warm_cache
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types.reasoning import Reasoning

CLAUDE = GeneratorInfo.anthropic("claude-sonnet-4-5").with_api_key("key")
ROUTED = GeneratorInfo.openrouter("anthropic/claude-sonnet-4.5").with_api_key("key")
GPT = GeneratorInfo.openai("gpt-4o").with_api_key("key")
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
LOOK = ToolDefinition(name="look", description="Looks.", parameters=SCHEMA)
PNG = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 8)
CALLS = [ToolCall(id=f"c{number}", name="look", arguments='{"at": 1}') for number in range(3)]
ASKING = Message(role="assistant", content="", tool_calls=CALLS)
PRICE = TokenPrice(3, 15).with_cache_rates("0.3", "3.75")
CACHED = NodeCompletionParameters().with_cache(True)


def thread(*messages: Message | str, **ttls: str) -> list[Message]:
    """Messages, of which a text is the user's; `m3="1h"` puts a breakpoint on the fourth."""
    said = [Message.user(each) if isinstance(each, str) else each for each in messages]
    return [replace(one, cache_ttl=ttls.get(f"m{number}")) for number, one in enumerate(said)]


def words(count: int, text: str = "w") -> str:
    """A text of so many tokens, by the estimate of four bytes each."""
    return text * (4 * count)


S, A = Message.system, Message.assistant
TURNS = [S(words(1000)), words(100), A(words(100)), words(100), A(words(100)), words(100)]
PARAMS = CompletionParameters
LATE = [S(words(1)), words(10), S(words(100)), A(words(1000)), words(10000)]

# The thread, the generator and the settings of each plan.
PLANS: dict[str, tuple] = {
    "six breakpoints": (thread(*TURNS, m0="1h", m1="5m", m2="5m", m3="5m", m4="5m", m5="5m"), CLAUDE),
    "four breakpoints": (thread(*TURNS, m0="1h", m1="5m", m3="5m", m5="5m"), CLAUDE),
    "an hour after five minutes": (thread(*TURNS, m0="5m", m1="1h", m5="5m"), CLAUDE),
    "with the cache of the whole": (thread(*TURNS, m0="1h"), CLAUDE, CACHED),
    "with the cache of the whole, which has one": (thread(*TURNS, m5="1h"), CLAUDE, CACHED),
    "with tools": (thread(*TURNS, m0="5m"), CLAUDE, PARAMS(tools=[LOOK])),
    "at the minimum": (thread(words(1024), m0="5m"), CLAUDE),
    "a byte above a token": (thread(words(1023) + "w", m0="5m"), CLAUDE),
    "below the minimum": (thread(words(1023), m0="5m"), CLAUDE),
    "a breakpoint below the minimum": (thread(words(1023), words(1), "b", m1="5m", m0="5m"), CLAUDE),
    "only a breakpoint below the minimum": (thread(words(1023), A("a"), words(9), m0="5m"), CLAUDE),
    "two bytes a letter": (thread(words(1024, "é"), m0="5m"), CLAUDE),
    "half a pair": (thread(words(1024, "\ud800"), m0="5m"), CLAUDE),
    "tool calls": (thread(words(1024), ASKING, *(Message.tool_result(call.id, words(10)) for call in CALLS),
                          m1="5m", m4="5m"), CLAUDE),
    "tool calls at a gateway": (thread(words(1024), ASKING, *(Message.tool_result(call.id, words(10)) for call in CALLS),
                                       m1="5m", m4="5m"), ROUTED),
    "reasoning": (thread(words(1024), replace(A("a"), reasoning=Reasoning(text=words(50))), "b", m1="5m"), CLAUDE),
    "an image": (thread(words(100), Message.user([TextPart(words(1)), PNG, PNG]), m0="5m", m1="5m"), CLAUDE),
    "an image of unknown size": (thread(words(2000), Message.user([TextPart("see"), PNG]), A("x"), "y", m0="5m", m1="5m", m3="5m"),
                                 GeneratorInfo.anthropic("another-model").with_api_key("key")),
    "late system text": (thread(*LATE, m0="5m", m1="5m", m2="5m", m4="5m"), CLAUDE),
    "late system text at openai": (thread(*LATE, m0="5m", m2="5m", m4="5m"), GPT),
    "automatic": (thread(*TURNS, m1="5m"), GPT),
    "automatic, at the minimum": (thread(words(1024)), GPT),
    "automatic, below the minimum": (thread(words(1023)), GPT),
    "no cache": (thread(*TURNS, m1="5m"), GeneratorInfo.openai("gpt-4").with_api_key("key")),
    "nothing marked": (thread(*TURNS), CLAUDE),
    "a blank root": (thread(S(""), words(2000), A("a"), "b", m1="5m", m3="5m"), CLAUDE),
    "a system prompt of the settings": (thread(words(2000), A("a"), "b", m0="5m", m2="5m"), CLAUDE,
                                        NodeCompletionParameters(system_prompt=words(500))),
    "a blank root and a system prompt": (thread(S(""), words(2000), A("a"), "b", m1="5m", m3="5m"), CLAUDE,
                                         CACHED.with_system_prompt(words(500))),
    "the end by a key of the vendor": (thread(*TURNS, m0="5m"), CLAUDE, PARAMS(extra={"cache_control": {"type": "ephemeral"}})),
    "an hour by a key of the vendor": (thread(*TURNS, m5="5m"), CLAUDE, PARAMS(extra={"cache_control": {"ttl": "1h"}})),
    "only the end by a key of the vendor": (thread(*TURNS), CLAUDE, PARAMS(extra={"cache_control": {}})),
    "no breakpoint by a key of the vendor": (thread(*TURNS, m5="5m"), CLAUDE, PARAMS(extra={"cache_control": None})),
    "a price": (thread(*TURNS, m0="1h", m1="5m"), CLAUDE.with_token_price(PRICE)),
    "a price of the call": (thread(*TURNS), CLAUDE, NodeCompletionParameters(token_price=PRICE)),
    "neighbours": (thread(S("s"), words(2000), words(500), "c", A("d"), "e", m2="1h", m5="5m"), CLAUDE),
    "a type": (thread(*TURNS, m0="1h"), GeneratorInfo.custom("c", "https://c.example/v1", "m"), CACHED.expecting(int)),
    "a form by the prompt": (thread(*TURNS, m0="1h"), CLAUDE,
                             CACHED.with_params(PARAMS(response_format=ResponseFormat.json_schema(SCHEMA))).expecting(int)),
}  # fmt: skip


def plan_of(messages: list[Message], generator: GeneratorInfo, params=None) -> str:
    """The plan as it is read, and below what else it says."""
    plan = ChatNode.from_messages(messages)[1].cache_plan(generator, params)
    places = [each.place for each in plan.breakpoints]
    return f"{plan}\nplaces {places}, automatic {plan.is_automatic}, saves {plan.savings(3)}"


def test_a_plan_says_what_becomes_of_each_breakpoint():
    found = "\n\n".join(f"# {name}\n{plan_of(*given)}" for name, given in PLANS.items())
    assert f"{found}\n" == (GOLDEN / "texts/cache_plans.txt").read_text()


# What warms the cache.

OK, LOOKED = A("a"), Message.tool_result("c1", "done")
RESULTS = [Message.tool_result(call.id, "done") for call in CALLS]
SETTINGS = NodeCompletionParameters(
    params=PARAMS(tools=[LOOK], temperature=0.5, max_tokens=99),
    system_prompt="Of {what}.",
    format_kwargs={"what": "cats"},
    force_prepend="It",
    parse_json=True,
    crash_on_refusal=True,
    crash_on_empty_response=True,
)
WARMUPS: dict[str, tuple] = {
    "no breakpoint": (thread(S("s"), "a", OK, "b"), CLAUDE),
    "up to a breakpoint": (thread(S("s"), "a", OK, "b", m1="5m"), CLAUDE),
    "up to the last breakpoint": (thread(S("s"), "a", OK, "b", OK, "c", m0="1h", m3="1h"), CLAUDE),
    "up to the system text": (thread(S("s"), "a", OK, "b", m0="1h"), CLAUDE),
    "up to an answer": (thread(S("s"), "a", OK, "b", m2="5m"), CLAUDE),
    "with the cache of the whole": (thread(S("s"), "a", OK, "b", m1="5m"), CLAUDE, CACHED),
    "the last one is an answer": (thread("a", OK), CLAUDE),
    "up to calls": (thread("a", ASKING, *RESULTS, "b", m1="5m"), CLAUDE),
    "up to the first result": (thread("a", ASKING, *RESULTS, "b", m2="5m"), CLAUDE),
    "up to the second of three results": (thread("a", ASKING, *RESULTS, "b", m3="5m"), CLAUDE),
    "up to the last result": (thread("a", ASKING, *RESULTS, "b", m4="5m"), CLAUDE),
    "the settings of the calls that follow": (thread("a", m0="1h"), CLAUDE, SETTINGS),
    "a forced tool": (thread("a", m0="1h"), CLAUDE, PARAMS(tools=[LOOK], tool_choice="required")),
    "a type": (thread("a"), CLAUDE, NodeCompletionParameters().expecting(int)),
    "a gateway": (thread(S("s"), "a", OK, "b", m1="5m"), ROUTED),
    "a gateway, up to the system text": (thread(S("s"), "a", m0="5m"), ROUTED),
    "automatic": (thread(S("s"), "a", OK, "b", m1="5m"), GPT),
    "fallbacks": (thread("a"), CLAUDE.or_else(GPT)),
}  # fmt: skip


async def warm(messages: list[Message], generator: GeneratorInfo, params=None, usage=None):
    transport = ScriptedTransport([ScriptedReply.text("", usage=usage)])
    info = await ChatNode.from_messages(messages)[1].ensure_cached(
        generator.with_transport(transport), params
    )
    return info, transport


async def test_a_warm_up_sends_the_prompt_up_to_its_last_breakpoint_and_asks_for_nothing():
    lines = []
    for name, given in WARMUPS.items():
        _, transport = await warm(*given)
        (request,) = transport.requests
        lines.append(f"{name}: {request.body.decode()}")
    assert lines == (GOLDEN / "texts/cache_warmups.txt").read_text().splitlines()


async def test_a_warm_up_returns_what_it_cost():
    usage = Usage(cache_write_tokens=2000, uncached_input_tokens=3)
    generator = CLAUDE.with_token_price(PRICE)
    info, _ = await warm(thread("a"), generator, usage=usage)
    assert str(info.cost) == "0.007509"
    assert (len(info.attempts), info.cache_write_tokens) == (1, 2000)


@pytest.mark.parametrize(
    ("messages", "generator", "params", "problem"),
    [
        (thread("a"), "claude", None, "the generator must be a GeneratorInfo, for example"
         " GeneratorInfo.openai(model), not str"),
        (thread("a"), CLAUDE, PARAMS(reasoning=ReasoningConfig(max_tokens=1024)),
         "nothing can be warmed here: claude-sonnet-4-5 would think up to its budget first; leave "
         "the reasoning out"),
    ],
)  # fmt: skip
async def test_where_nothing_can_be_warmed_it_says_why(messages, generator, params, problem):
    with pytest.raises(InvalidParameterError) as raised:
        await ChatNode.from_messages(messages)[1].ensure_cached(generator, params)
    assert str(raised.value) == problem


async def test_a_thread_without_messages_cannot_be_warmed():
    with pytest.raises(EmptyThreadError, match="^there is nothing to cache$"):
        await warm_cache([], CLAUDE, None)
