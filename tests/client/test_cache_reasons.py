"""The whole verdict on a second call, by what differs from the first one and what the server counted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from golden import GOLDEN
from minillmlib import (
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    ImagePart,
    Message,
    NodeCompletionParameters,
    OpenAiProvider,
    PromptCache,
    ReasoningConfig,
    ResponseFormat,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from minillmlib.client import sent_prompts
from minillmlib.testing import ScriptedReply, ScriptedTransport

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
OPENAI = ("openai", "gpt-4o")
OPUS = ("anthropic", "claude-opus-4-5")


def tool(name: str, description: str = "Looks.") -> ToolDefinition:
    return ToolDefinition(name=name, description=description, parameters=SCHEMA)


LOOK, FIND, SEND = tool("look"), tool("find"), tool("send")


@dataclass
class Ask:
    """A call: the thread by its texts, the breakpoints by their places in it, and the counts.

    The texts are those of the system, the user, the assistant and so on; `counts` are the tokens of
    the prompt, those that were read from the cache and those that were written to it.
    """

    texts: str = "sabc"
    marks: dict[int, str] = field(default_factory=lambda: {3: "5m"})
    counts: tuple[int, int, int] = (2000, 0, 1900)
    params: dict[str, object] = field(default_factory=dict)
    model: tuple[str, str] = ("anthropic", "claude-sonnet-4-5")
    key: str = "key"
    url: str | None = None
    more: tuple[Message, ...] = ()
    provider: object = None
    secs: float = 0.0  # that it takes
    after: float = 7.0  # seconds since the call before it was made

    def leaf(self) -> ChatNode:
        roles = [Message.system, *[Message.user, Message.assistant] * len(self.texts)]
        thread = [role(text) for role, text in zip(roles, self.texts, strict=False)]
        thread += self.more
        thread = [replace(one, cache_ttl=self.marks.get(n)) for n, one in enumerate(thread)]
        return ChatNode.from_messages(thread)[1]

    def reply(self) -> ScriptedReply:
        prompt, read, written = self.counts
        if self.model[0] == "openai":
            usage = {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1,
                     "prompt_tokens_details": {"cached_tokens": read}}  # fmt: skip
            choice = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}
            return ScriptedReply.json({"choices": [choice], "usage": usage})
        usage = {"input_tokens": prompt - read - written, "output_tokens": 1,
                 "cache_read_input_tokens": read, "cache_creation_input_tokens": written}  # fmt: skip
        content = [{"type": "text", "text": "yes"}]
        return ScriptedReply.json({"content": content, "stop_reason": "end_turn", "usage": usage})


class Clock:
    """The time of the program, which stands still between two calls until a test moves it."""

    def __init__(self, monkeypatch) -> None:
        self.secs = 0.0
        for name in ("time", "monotonic"):
            real = getattr(time, name)()
            monkeypatch.setattr(time, name, lambda real=real: real + self.secs)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def _no_earlier_calls(monkeypatch):
    monkeypatch.setattr(sent_prompts, "prompt_log", log := sent_prompts.PromptLog())
    monkeypatch.setattr("minillmlib.client.cache_verdict.prompt_log", log)


async def answer_to(ask: Ask, clock: Clock) -> ChatNode:
    class Slow(ScriptedTransport):
        async def send(self, request):
            clock.secs += ask.secs
            return await super().send(request)

    service, model = ask.model
    generator = getattr(GeneratorInfo, service)(model).with_api_key(ask.key)
    if ask.url is not None:
        generator = generator.with_base_url(ask.url)
    if ask.provider is not None:
        generator = generator.with_provider(ask.provider)
    generator = generator.with_transport(Slow([ask.reply()]))
    params = NodeCompletionParameters(params=CompletionParameters(**ask.params))
    return await ask.leaf().complete(generator, params)


PNG = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 8)
CALLS = [ToolCall(id=f"c{number}", name="look", arguments="{}") for number in range(25)]
MANY = (Message(role="assistant", content="", tool_calls=CALLS),
        *(Message.tool_result(call.id, "done") for call in CALLS))  # fmt: skip


def of_mine(**facts) -> object:
    """A provider whose cache has these facts."""
    cache = PromptCache(**facts)

    class Mine(OpenAiProvider):
        capabilities = OpenAiProvider.capabilities.replace(prompt_cache=lambda _: cache)

    return Mine()


READ = (2000, 1900, 0)
UNREAD = (2000, 0, 0)
HALF = (2000, 900, 1000)
AUTOMATIC = {"model": OPENAI, "marks": {}, "counts": UNREAD}
SHORT = {"model": OPENAI, "marks": {}}
TOOLS = {"tools": [LOOK, FIND, SEND]}
FORCED = {**TOOLS, "tool_choice": "required"}
THINKING = {"reasoning": ReasoningConfig(effort="low")}
FORM = {"response_format": ResponseFormat.json_schema(SCHEMA)}
EDITING = {"extra": {"context_management": {}}}
TWO, LONG = {1: "5m", 3: "5m"}, {0: "1h", 3: "5m"}
FIRST, NEXT = Ask(), Ask("sabcde", {3: "5m"}, READ)

# The calls, of which the last one is explained.
CALLS_OF: dict[str, tuple[Ask, ...]] = {
    "a first call": (FIRST,),
    "the same again": (FIRST, Ask(counts=READ)),
    "just below two minutes later": (FIRST, Ask(counts=READ, after=119)),
    "two minutes later": (FIRST, Ask(counts=READ, after=120)),
    "one token less": (FIRST, Ask(counts=(2000, 1899, 0))),
    "dropped": (FIRST, Ask()),
    "the clock was set back": (FIRST, Ask(after=-3)),
    "system": (FIRST, Ask("Sabc")),
    "the first question": (FIRST, Ask("sAbc")),
    "the first answer": (FIRST, Ask("saBc")),
    "the last question": (FIRST, Ask("sabC")),
    "two messages": (FIRST, Ask("sABc")),
    "cut before the breakpoint": (FIRST, Ask("sab")),
    "breakpoint one message earlier": (FIRST, Ask("sab", {2: "5m"})),
    "continued": (FIRST, NEXT),
    "continued without a breakpoint": (FIRST, Ask("sabcde", {}, UNREAD)),
    "continued with an early breakpoint": (FIRST, Ask("sabcde", {1: "5m"})),
    "continued with a later breakpoint": (FIRST, Ask("sabcde", {5: "5m"}, (2000, 0, 2000))),
    "20 messages behind": (FIRST, Ask(marks={22: "5m"}, more=MANY)),
    "21 messages behind": (FIRST, Ask(marks={23: "5m"}, more=MANY)),
    "changed behind the first of two breakpoints": (Ask(marks=TWO), Ask("sabC", counts=HALF)),
    "missed behind the first of two breakpoints": (Ask(marks=TWO), Ask("sabC")),
    "all read of two breakpoints": (Ask(marks=LONG), Ask(counts=READ, after=301)),
    "half read before its end": (Ask(marks=LONG), Ask(counts=HALF, after=299)),
    "half read at its end": (Ask(marks=LONG), Ask(counts=HALF, after=300)),
    "nothing read at the end of one": (Ask(marks=LONG), Ask(after=300)),
    "nothing read before the end of both": (Ask(marks=LONG), Ask(after=3599)),
    "nothing read at the end of both": (Ask(marks=LONG), Ask(after=3600)),
    "changed, late and missed": (Ask(marks={0: "5m", 3: "5m"}), Ask("sAbc", after=300)),
    "changed, late and half read": (
        Ask(marks={0: "5m", 3: "5m"}), Ask("sAbc", counts=HALF, after=300),
    ),
    "all changed and late": (FIRST, Ask("Sabc", after=300)),
    "a tool's description": (
        Ask(params=TOOLS), Ask(params={"tools": [LOOK, tool("find", "Finds."), SEND]}),
    ),
    "the order of tools": (Ask(params=TOOLS), Ask(params={"tools": [FIND, LOOK, SEND]})),
    "a tool between left out": (Ask(params=TOOLS), Ask(params={"tools": [LOOK, SEND]})),
    "the last tool left out": (Ask(params=TOOLS), Ask(params={"tools": [LOOK, FIND]})),
    "one more tool": (
        Ask(params=TOOLS), Ask(params={"tools": [*TOOLS["tools"], tool("last")]}),
    ),
    "all tools left out": (Ask(params=TOOLS), FIRST),
    "tools added": (FIRST, Ask(params=TOOLS)),
    "model": (FIRST, Ask(model=OPUS)),
    "model, tools and system": (FIRST, Ask("Sabc", model=OPUS, params=TOOLS)),
    "form": (FIRST, Ask("sAbc", params=FORM)),
    "a parameter and system": (FIRST, Ask("Sabc", params={"extra": {"speed": "fast"}})),
    "tool choice": (Ask(params=TOOLS), Ask("sAbc", params=FORCED)),
    "tool choice and system": (Ask(params=TOOLS), Ask("Sabc", params=FORCED)),
    "tool choice left out": (Ask(params=FORCED), Ask(params=TOOLS)),
    "reasoning": (FIRST, Ask(params=THINKING)),
    "reasoning and tools": (FIRST, Ask(params={**TOOLS, **THINKING})),
    "reasoning and parallel calls": (
        Ask(params=TOOLS), Ask(params={**TOOLS, **THINKING, "parallel_tool_calls": False}),
    ),
    "what the cache ignores": (
        FIRST, Ask(params={"temperature": 1.0, "max_tokens": 9, "stop": ["x"]}),
    ),
    "an unknown parameter": (FIRST, Ask(params={**EDITING, "temperature": 1.0})),
    "an unknown parameter left out": (Ask(params=EDITING), FIRST),
    "an image": (
        Ask("sa", {1: "5m"}),
        Ask("sab", {1: "5m"}, more=(Message.user([TextPart("see"), PNG]),)),
    ),
    "a part that is no image": (
        Ask("sa", {1: "5m"}), Ask("sab", {1: "5m"}, more=(Message.user([TextPart("see")]),)),
    ),
    "a later system text": (
        Ask("sa", {1: "5m"}), Ask("sabc", {1: "5m"}, more=(Message.system("late"),)),
    ),
    "a later system text left out": (
        Ask("sa", {1: "5m"}, more=(Message.system("t"),)), Ask("sa", {1: "5m"}),
    ),
    "side by side": (Ask(secs=9), Ask(after=8)),
    "one after the other": (Ask(secs=9), Ask(after=9)),
    "another key": (FIRST, Ask(key="other")),
    "another key whose cache was read": (FIRST, Ask(key="other", counts=READ)),
    "another server": (FIRST, Ask(url="https://other.example/v1")),
    "the address with a slash": (
        Ask(url="https://other.example/v1/"), Ask(url="https://other.example/v1", counts=READ),
    ),
    "below the minimum": (Ask(counts=(1023, 0, 0)),),
    "at the minimum": (Ask(counts=(1024, 0, 0)),),
    "too short to be recorded": (Ask(counts=(511, 0, 0)),),
    "just long enough to be recorded": (Ask(counts=(512, 0, 0)),),
    "too short to be recorded and read": (Ask(counts=(511, 5, 0)),),
    "cached before and not written": (FIRST, Ask(counts=UNREAD)),
    "cached before and now unmarked": (FIRST, Ask(marks={}, counts=UNREAD)),
    "automatic, half read": (Ask(**AUTOMATIC), Ask(**SHORT, counts=(2000, 1000, 0))),
    "automatic, almost half read": (Ask(**AUTOMATIC), Ask(**SHORT, counts=(2000, 999, 0))),
    "automatic, almost half read late": (
        Ask(**AUTOMATIC), Ask(**SHORT, counts=(2000, 999, 0), after=300),
    ),
    "automatic, missed in time": (Ask(**AUTOMATIC), Ask(**AUTOMATIC, after=299)),
    "automatic, missed late": (Ask(**AUTOMATIC), Ask(**AUTOMATIC, after=300)),
    "automatic, changed and late": (Ask(**AUTOMATIC), Ask("sAbc", **AUTOMATIC, after=300)),
    "automatic, changed and read": (
        Ask(**AUTOMATIC), Ask("sAbc", **SHORT, counts=(2000, 1999, 0)),
    ),
    "automatic, continued": (Ask(**AUTOMATIC), Ask("sabcde", **SHORT, counts=(4000, 1000, 0))),
    "automatic, cut": (Ask(**AUTOMATIC), Ask("sa", **SHORT, counts=(1100, 550, 0))),
    "automatic, at the minimum": (
        Ask(**SHORT, counts=(1024, 0, 0)), Ask(**SHORT, counts=(1024, 0, 0)),
    ),
    "automatic, below the minimum": (Ask(**SHORT, counts=(1023, 0, 0)),),
    "automatic, the one before was below the minimum": (
        Ask(**SHORT, counts=(1023, 0, 0)), Ask(**AUTOMATIC),
    ),
    "automatic, below the minimum though cached": (
        Ask(**AUTOMATIC), Ask(**SHORT, counts=(1023, 0, 0)),
    ),
    "automatic, form": (Ask(**AUTOMATIC), Ask(**AUTOMATIC, params=FORM)),
    "automatic, an unknown parameter": (
        Ask(**AUTOMATIC), Ask(**AUTOMATIC, params={"extra": {"new": 1}}),
    ),
    "no cache": (Ask(model=("openai", "gpt-4"), marks={}, counts=UNREAD),),
    "a minute": (
        Ask(**AUTOMATIC, provider=of_mine(lifetime_secs=60)),
        Ask(**SHORT, provider=of_mine(lifetime_secs=60), counts=(600, 0, 0), after=60),
    ),
    "no lifetime known": (
        Ask(**AUTOMATIC, provider=of_mine()), Ask(**AUTOMATIC, provider=of_mine(), after=1e6),
    ),
    # With which of several calls it is compared.
    "the nearest of two equal ones": (FIRST, FIRST, FIRST),
    "the longest prefix": (FIRST, Ask("saBc"), NEXT),
    "the longest prefix though another has more in common": (
        Ask("sXY", {0: "5m"}, params=TOOLS), Ask("Sabc", params=TOOLS), Ask(params=TOOLS),
    ),
    "the same model": (Ask("Sabc"), Ask("Tabc", model=OPUS), FIRST),
    "the same tools": (Ask("Sabc", params=TOOLS), Ask("Tabc"), Ask(params=TOOLS)),
    "one tool in common": (
        Ask("Sabc", params={"tools": [LOOK]}), Ask("Tabc", params={"tools": [FIND]}),
        Ask(params={"tools": [SEND, LOOK]}),
    ),
    "the same parameters": (
        Ask("Sabc", params={"top_p": 0.5}), Ask("Tabc"), Ask(params={"top_p": 0.5}),
    ),
    "the same messages": (Ask("Sabc"), Ask("TabC"), FIRST),
    "one that had cached nothing": (
        FIRST, Ask(counts=UNREAD, marks={}), Ask(counts=READ),
    ),
}  # fmt: skip
VERDICTS = dict(
    line.split(": ", 1) for line in (GOLDEN / "texts/cache_verdicts.txt").read_text().splitlines()
)


async def explain(asks: tuple[Ask, ...], clock: Clock) -> str:
    """The verdict on the last of some calls, as a line of the golden file."""
    for ask in asks:
        clock.secs += ask.after
        answer = await answer_to(ask, clock)
        clock.secs -= ask.secs
    verdict, (_, read, written) = answer.cache_verdict, ask.counts
    written = 0 if ask.model[0] == "openai" else written
    assert (verdict.cache_read_tokens, verdict.cache_write_tokens) == (read, written)
    return f"{verdict.changed} | {verdict}"


async def test_the_verdict_says_what_was_counted_what_changed_and_what_to_do(clock):
    found = {}
    for name, asks in CALLS_OF.items():
        sent_prompts.prompt_log._prompts.clear()
        found[name] = await explain(asks, clock)
    assert found == VERDICTS
