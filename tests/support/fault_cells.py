"""One cell of the fault matrix: a call against a server that goes wrong, and the verdict on it.

Use `Fault` for a new row. Four things must be right at once: what the caller sees, when, what is
recorded, and the tree.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from fault_server import FaultExchange, FaultServer, Play, at
from fault_wires import COUNTS, TEXT, WIRES, Counts
from short_answers import said, streamed

from minillmlib import (
    Attempt,
    AttemptOutcome,
    ChatNode,
    CostInfo,
    CostResolution,
    GeneratorInfo,
    Limits,
    MiniLLMError,
    NodeCompletionParameters,
    Recording,
    TokenPrice,
    Transport,
)
from minillmlib.testing import ScriptedTransport

__all__ = ["Cell", "Expect", "Fault", "late", "refused", "right", "unsent", "wrong"]

KEY = "sk-fault-canary"
MARGIN_SECS = 0.25  # beyond the bound, and beyond what the machine itself is late
QUICK_SECS = 1.5  # for what waits for nothing
TICK_SECS = 0.02
STALL_SECS = 0.1  # a machine that stands still for as long proves nothing about a clock
TRIES = 3
ONLY_TIME = (["too late"], ["too early"])  # a clock that is wrong is so each time
HANG_SECS = 5.0  # what takes longer is not waited for
NO_COST, UNKNOWN, EXACT = "-", "U", "R"

GENERATORS: Mapping[str, Callable[[str], GeneratorInfo]] = {
    "openai": lambda url: GeneratorInfo.openai("gpt-4o-mini").with_base_url(url),
    "openrouter": lambda url: GeneratorInfo.openrouter("a/m").with_base_url(url),
    "anthropic": lambda url: GeneratorInfo.anthropic("claude-haiku-4-5").with_base_url(url),
    "responses": lambda url: GeneratorInfo.openai("m", wire="responses").with_base_url(url),
    "generic": lambda url: GeneratorInfo.custom("generic", url, "m").with_token_price(PRICE),
    "azure": lambda url: GeneratorInfo.azure("m", url),
    "azure-dated": lambda url: GeneratorInfo.azure("m", url, "2024-10-21"),
    "azure-responses": lambda url: GeneratorInfo.azure("m", url, wire="responses"),
    "completions": lambda url: GeneratorInfo.custom("completions", url, "m", wire="completions"),
}
PRICE = TokenPrice(1, 5)
RESCUE = '{"from": "the fallback"}'


@dataclass(frozen=True, kw_only=True)
class Expect:
    """The right outcome. `text` is the answer, or of an error the part that had come."""

    error: type[MiniLLMError] | tuple[type[MiniLLMError], ...] = ()
    text: str | re.Pattern[str] = ""
    cost: str = UNKNOWN
    outcome: AttemptOutcome = AttemptOutcome.FAILED
    status: int | tuple[int | None, ...] | None = 200
    secs: float | None = None
    clock: str | None = None
    counts: Counts = COUNTS
    retry_after: tuple[float, float] | None = None
    says: str = ""
    earlier: tuple[tuple[AttemptOutcome, str], ...] = ()

    @property
    def errors(self) -> tuple[type[MiniLLMError], ...]:
        return self.error if isinstance(self.error, tuple) else (self.error,)


def right(text: str = TEXT, cost: str = EXACT, **more: Any) -> Expect:
    """An answer, in spite of it all."""
    return Expect(text=text, cost=cost, outcome=AttemptOutcome.ANSWERED, **more)


def wrong(error: Any, cost: str = UNKNOWN, text: Any = "", **more: Any) -> Expect:
    """An error after which the server may have worked."""
    return Expect(error=error, cost=cost, text=text, **more)


def refused(error: Any, status: int, **more: Any) -> Expect:
    """An error that says no before any work."""
    more = {"cost": NO_COST, **more}
    return Expect(error=error, status=status, outcome=AttemptOutcome.DENIED, **more)


def unsent(error: Any, **more: Any) -> Expect:
    """An error before anything has left."""
    return Expect(error=error, cost=NO_COST, status=None, outcome=AttemptOutcome.NOT_SENT, **more)


def late(error: Any, secs: float, clock: str, text: str = "", **more: Any) -> Expect:
    """A clock that runs out."""
    return Expect(error=error, secs=secs, clock=clock, text=text, **more)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row of the matrix."""

    name: str
    play: Play
    expect: Expect
    streamed: Expect | None = None
    """The right outcome of a stream, where that is another one."""
    over_httpx2: Expect | None = None
    """The right outcome where this engine knows more or less than aiohttp does."""
    modes: tuple[str, ...] = ("whole", "streamed")
    providers: tuple[str, ...] = tuple(WIRES)
    settings: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    place: Callable[[Play], AbstractAsyncContextManager[FaultServer]] = field(default_factory=at)
    prompt: str = "u"
    is_warm: bool = False
    """Whether a connection is kept from a call before."""
    pause_secs: float = 0.0
    """How long the reader of a stream thinks about its first chunk."""
    grace_secs: float | None = None
    """The wait for counts after a finish, where the row is about that."""
    ignores: tuple[str, ...] = ()
    """Warnings that are another row's business."""

    @property
    def is_about_a_clock(self) -> bool:
        """Whether the outcome depends on times, which a replay does not keep."""
        waits = (self.expect.secs, self.streamed and self.streamed.secs, self.grace_secs)
        return any(wait is not None for wait in waits) or self.pause_secs > 0


class Cell(NamedTuple):
    """One call of the matrix."""

    fault: Fault
    provider: str
    mode: str
    transport: str

    @property
    def expect(self) -> Expect:
        if self.fault.over_httpx2 is not None and self.transport == "httpx2":
            return self.fault.over_httpx2
        streamed = self.fault.streamed if self.mode == "streamed" else None
        return streamed or self.fault.expect

    async def complaints(
        self, transport: Transport, *, has_fallback: bool = False, path: Path | None = None
    ) -> list[str]:
        """Make the call, perhaps with a fallback, and return what of it is not right.

        With a path it is recorded there, and replayed without the server. It is made again if
        only its time is wrong, or the machine stood still meanwhile.
        """
        for _ in range(TRIES):
            told, late_secs = await self._verdict(transport, path, has_fallback=has_fallback)
            if not told or (late_secs < STALL_SECS and told not in ONLY_TIME):
                break
        return told

    async def _verdict(
        self, transport: Transport, path: Path | None, *, has_fallback: bool
    ) -> tuple[list[str], float]:
        """Return what of a call is not right, and how late the machine was."""
        fault = self.fault
        async with fault.place(fault.play) as server:
            generator = GENERATORS[self.provider](f"{server.url}/{self.provider}/v1")
            generator = generator.with_api_key(KEY).with_transport(transport)
            generator = generator.replace(limits=fault.limits)
            if fault.is_warm:
                await ChatNode.root("s").chat("warm up", generator)
                await _a_while()  # for a server that ends it after the answer
            if path is not None:
                generator = generator.with_transport(Recording(path, transport=transport))
            if has_fallback:
                generator = generator.or_else(self._rescuer())
            before = len(server.ledger)
            seen = await self._call(generator)
            await _reported(seen)
            is_rid = await server.is_rid_of_all(MARGIN_SECS + seen.late_secs)
            if fault.is_warm:
                await _a_while()  # it may have to read a request yet
            ledger = server.ledger[before:]
        told = [] if is_rid else ["the connection is still held"]
        if seen.foreign is not None:
            told = [f"{seen.foreign} escapes"]
        elif has_fallback and self._is_cured(seen):
            told += _about_the_rescue(seen, self.expect, ledger, self.provider)
        else:
            told += _about_what_is_seen(seen, self.expect)
            told += _about_time(seen, self.expect) if path is None else []  # it takes a while
            told += _about_the_record(seen, self.expect, ledger, self.provider)
            told += _about_the_tree(seen)
        if path is not None:
            told += await self._differences_in_a_replay(seen, generator, path)
        return told, seen.late_secs

    async def _differences_in_a_replay(
        self, seen: Seen, generator: GeneratorInfo, path: Path
    ) -> list[str]:
        """Make the call once more, on the recording alone, and say what is not the same."""
        again = await self._call(self._revived(generator, Recording(path, mode="replay")))
        await _reported(again)
        pairs = zip(_outcome_of(seen), _outcome_of(again), strict=True)
        return [f"{one!r:.300} is replayed as {two!r:.300}" for one, two in pairs if one != two]

    def _revived(self, generator: GeneratorInfo, transport: Transport) -> GeneratorInfo:
        """Return the generator over another transport, with a new rescuer if it has one."""
        fallbacks = (self._rescuer(),) if generator.fallbacks else ()
        return generator.replace(transport=transport, fallbacks=fallbacks)

    def _rescuer(self) -> GeneratorInfo:
        """Return a generator that answers."""
        reply = said(RESCUE) if self.mode == "whole" else streamed(RESCUE)
        fallback = GeneratorInfo.custom("rescuer", "https://rescuer.example/v1", "r")
        return fallback.with_transport(ScriptedTransport([reply]))

    def _is_cured(self, seen: Seen) -> bool:
        """Whether the fallback has to answer: after such an error, and before any chunk."""
        errors, was_rescued = self.expect.errors, seen.delivered == RESCUE
        allows = errors and all(kind.allows_fallback for kind in errors)
        return allows and self.expect.clock != "deadline" and (was_rescued or not seen.chunks)

    async def _call(self, generator: GeneratorInfo) -> Seen:
        seen = Seen(root=ChatNode.root("s"))
        callback = self.fault.settings.get("cost_callback")

        def note(info: CostInfo) -> None:
            seen.reports.append(info)
            if callback is not None:
                callback(info)

        settings = {"retry": 0, **self.fault.settings, "cost_callback": note}
        params = NodeCompletionParameters(**settings)
        lateness = asyncio.ensure_future(_note_lateness(seen))
        started = time.monotonic()
        try:
            async with asyncio.timeout(HANG_SECS):
                if self.mode == "whole":
                    seen.node = await seen.root.chat(self.fault.prompt, generator, params)
                else:
                    await self._read_stream(generator, params, seen)
        except MiniLLMError as error:
            seen.error = error
            seen.attempts = error.attempts
        except Exception as error:  # noqa: BLE001 - of all that may come, it must not
            seen.foreign = type(error).__name__
        else:
            seen.attempts = seen.node.response.attempts
        seen.secs = time.monotonic() - started
        lateness.cancel()
        await asyncio.wait({lateness})
        return seen

    async def _read_stream(
        self, generator: GeneratorInfo, params: NodeCompletionParameters, seen: Seen
    ) -> None:
        stream = seen.root.chat_streaming(self.fault.prompt, generator, params)
        try:
            async with stream:
                async for chunk in stream:
                    pause_secs = 0.0 if seen.delivered else self.fault.pause_secs
                    seen.chunks += 1
                    seen.delivered += chunk.delta
                    await asyncio.sleep(pause_secs)
            seen.node = stream.node
        finally:
            seen.stream_attempts = stream.attempts

    def __str__(self) -> str:
        return f"{self.fault.name} / {self.provider} / {self.mode} / {self.transport}"


async def _note_lateness(seen: Seen) -> None:
    """Add up by how much the timers of this loop are late, which no client can help."""
    while True:
        due = time.monotonic() + TICK_SECS
        try:
            await asyncio.sleep(TICK_SECS)
        finally:  # also when the call has ended before this timer had its turn
            seen.late_secs += max(time.monotonic() - due, 0)


async def _reported(seen: Seen) -> None:
    """Wait for a report that comes after the call, where the provider has the cost later."""
    until = time.monotonic() + HANG_SECS
    while not seen.reports and time.monotonic() < until:
        await asyncio.sleep(0.005)


async def _a_while() -> None:
    """Some time, and some turns of the loop, so that whatever was sent arrives."""
    for _ in range(8):
        await asyncio.sleep(0.01)


@dataclass
class Seen:
    """The outcome of a call."""

    root: ChatNode
    node: ChatNode | None = None
    error: MiniLLMError | None = None
    foreign: str | None = None
    """An error that is not ours."""
    delivered: str = ""
    chunks: int = 0
    secs: float = 0.0
    late_secs: float = 0.0
    """How late the machine itself was meanwhile."""
    attempts: tuple[Attempt, ...] = ()
    stream_attempts: tuple[Attempt, ...] | None = None
    reports: list[CostInfo] = field(default_factory=list)


def _outcome_of(seen: Seen) -> list[object]:
    """What of a call a replay repeats: all but its times."""
    error, node = seen.error, seen.node
    attempts = [msgspec.structs.replace(one, started_at=0, elapsed_secs=0) for one in seen.attempts]
    return [
        seen.foreign,
        error and (type(error), str(error), error.partial, error.is_retryable, error.was_sent),
        node and node.text,
        (seen.chunks, seen.delivered),
        attempts,
        [(report.cost, report.resolution) for report in seen.reports],
    ]


def _about_the_rescue(
    seen: Seen, expect: Expect, ledger: list[FaultExchange], provider: str
) -> list[str]:
    """Check that the fallback answered alone, and that the record has all attempts of both."""
    if seen.error is not None:
        return [f"{type(seen.error).__name__} instead of an answer of the fallback"]
    told = [] if seen.node.text == RESCUE else [f"text {seen.node.text!r}"]
    if seen.chunks > 2:  # the text and the end
        told.append(f"{seen.chunks} chunks")
    *failed, last = seen.attempts
    if (last.generator, last.outcome) != ("rescuer", AttemptOutcome.ANSWERED):
        told.append(f"the last attempt is of {last.generator}")
    if len([attempt for attempt in failed if attempt.was_sent]) != len(ledger):
        told.append(f"the server saw {len(ledger)} attempts")
    wanted = [*expect.earlier, (expect.outcome, expect.cost)]
    found = [(attempt.outcome, _cost_of(attempt, expect.counts, provider)) for attempt in failed]
    if found != wanted:
        told.append(f"recorded as {found}")
    if failed[-1].error not in {kind.__name__ for kind in expect.errors}:
        told.append(f"recorded with {failed[-1].error}")
    if [report.attempts for report in seen.reports] != [seen.attempts]:
        told.append(f"{len(seen.reports)} reports, or with other attempts")
    return told + _about_the_tree(seen)


def _about_what_is_seen(seen: Seen, expect: Expect) -> list[str]:
    error = seen.error
    if error is None:
        text = seen.node.text or ""
        kind = "an answer"
    else:
        text = error.partial
        kind = type(error).__name__
    wanted = " or ".join(one.__name__ for one in expect.errors) or "an answer"
    is_kind = type(error) in expect.errors if expect.errors else error is None
    told = [] if is_kind else [f"{kind} instead of {wanted}"]
    if is_kind and not _fits(text, expect.text):
        told.append(f"text {text[:80]!r}")
    if not (text.startswith(seen.delivered) if error else seen.delivered in ("", text)):
        told.append(f"delivered {seen.delivered[:80]!r}")
    if is_kind and error is not None:
        told += _about_the_error(error, expect)
    return told


def _fits(text: str, wanted: str | re.Pattern[str]) -> bool:
    return text == wanted if isinstance(wanted, str) else wanted.fullmatch(text) is not None


def _about_the_error(error: MiniLLMError, expect: Expect) -> list[str]:
    told = []
    if getattr(error, "clock", None) != expect.clock:
        told.append(f"clock {getattr(error, 'clock', None)}")
    hint = getattr(error, "retry_after_secs", None)
    low, high = expect.retry_after or (None, None)
    if (hint is None) != (low is None) or (hint is not None and not low <= hint <= high):
        told.append(f"retry_after_secs {hint}")
    if expect.says not in str(error):
        told.append(f"says {error}")
    if KEY in repr(error) or KEY in str(error):
        told.append("shows the key")
    return told


def _about_time(seen: Seen, expect: Expect) -> list[str]:
    most = QUICK_SECS if expect.secs is None else expect.secs + MARGIN_SECS + seen.late_secs
    least = 0.95 * (expect.secs or 0.0)
    if least <= seen.secs <= most:
        return []
    return ["too late" if seen.secs > most else "too early"]


def _about_the_record(
    seen: Seen, expect: Expect, ledger: list[FaultExchange], provider: str
) -> list[str]:
    attempts = seen.attempts
    told = []
    sent = [attempt for attempt in attempts if attempt.was_sent]
    if len(sent) != len(ledger):
        told.append(f"{len(sent)} attempts were sent, the server saw {len(ledger)}")
    if [attempt.number for attempt in attempts] != list(range(1, len(attempts) + 1)):
        told.append("the attempts are not numbered from 1")
    if seen.stream_attempts not in (None, attempts):
        told.append("the stream tells of other attempts")
    if [report.attempts for report in seen.reports] != [attempts]:
        told.append(f"{len(seen.reports)} reports, or with other attempts")
    wanted = [*expect.earlier, (expect.outcome, expect.cost)]
    found = [(attempt.outcome, _cost_of(attempt, expect.counts, provider)) for attempt in attempts]
    if found != wanted:
        shown = ", ".join(f"{outcome.value} {cost}" for outcome, cost in found)
        told.append(f"recorded as {shown or 'nothing'}")
    elif ledger:
        told += _about_the_bill(sent, ledger, expect, seen.reports)
    return told + (_about_the_last(seen, attempts[-1], expect, ledger) if attempts else [])


def _about_the_last(
    seen: Seen, last: Attempt, expect: Expect, ledger: list[FaultExchange]
) -> list[str]:
    told = []
    statuses = expect.status if isinstance(expect.status, tuple) else (expect.status,)
    if last.status not in statuses:
        told.append(f"status {last.status}")
    if last.error != (seen.error and type(seen.error).__name__):
        told.append(f"recorded with {last.error}")
    if seen.error is not None and seen.error.was_sent != bool(ledger):
        told.append(f"was_sent is {seen.error.was_sent}")
    if not ledger:
        return told
    if last.status is not None and last.request_id != ledger[-1].request_id:
        told.append(f"request_id {last.request_id}")
    if ledger[-1].has_all and last.sent_bytes != len(ledger[-1].body):
        told.append(f"sent_bytes {last.sent_bytes}")
    return told


def _cost_of(attempt: Attempt, counts: Counts, provider: str) -> str:
    """The letter of a cost; what is neither of the three in full, as it is."""
    cost = attempt.cost
    if cost is None:
        return NO_COST
    if cost.resolution is CostResolution.UNKNOWN:
        return UNKNOWN if cost.cost == 0 and cost.usage is None else repr(cost)
    usage = cost.usage
    found = usage and Counts(usage.uncached_input_tokens, usage.cache_read_tokens,
                             usage.completion_tokens)  # fmt: skip
    is_exact = found == counts and (cost.resolution, cost.cost) == _price(provider, counts)
    return EXACT if is_exact else repr(cost)


def _price(provider: str, counts: Counts) -> tuple[CostResolution, Decimal]:
    """OpenRouter states the cost, the generic generator has a price, the others have none."""
    if provider == "openrouter":
        return CostResolution.RESOLVED, Decimal("0.000063")
    if provider == "generic":
        micros = counts.uncached + counts.read + 5 * counts.out
        return CostResolution.RESOLVED, Decimal(micros) / 1_000_000
    return CostResolution.UNPRICED, Decimal(0)


def _about_the_bill(
    sent: list[Attempt], ledger: list[FaultExchange], expect: Expect, reports: list[CostInfo]
) -> list[str]:
    """Check what holds for every call: nothing possibly billed is missing, nothing is made up."""
    told = []
    for attempt, entry in zip(sent, ledger, strict=False):
        may_be_billed = entry.has_all and not _is_refusal(entry.status)
        if may_be_billed and attempt.cost is None:
            told.append("an attempt that may be billed has no cost")
        is_known = attempt.cost and attempt.cost.resolution is not CostResolution.UNKNOWN
        if is_known and not entry.has_counts(expect.counts.out):
            told.append("a known cost without counts from the server")
    known = [attempt.cost.resolution for attempt in sent if attempt.cost]
    for doubt in (CostResolution.UNKNOWN, CostResolution.UNPRICED, CostResolution.RESOLVED):
        if doubt in known or doubt is CostResolution.RESOLVED:
            told += [] if reports[0].resolution is doubt else [f"reported {reports[0].resolution}"]
            break
    return told


def _is_refusal(status: int | None) -> bool:
    return status in (503, 529) or (status is not None and 300 <= status < 500 and status != 408)


def _about_the_tree(seen: Seen) -> list[str]:
    below = [seen.root]
    shape = []
    while below:
        shape.append(len(below))
        below = [child for node in below for child in node.children()]
    wanted = [1] if seen.error is not None else [1, 1, 1]
    return [] if shape == wanted else [f"the tree has {shape} nodes by depth"]
