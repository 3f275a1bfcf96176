"""The plan of a prompt cache before a call, and the verdict on it afterwards."""

from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from minillmlib.json_value import plural
from minillmlib.types.costs import TokenPrice, exact_sum
from minillmlib.types.messages import CacheTtl
from minillmlib.types.usage import Usage

BreakpointState: TypeAlias = Literal["marked", "dropped", "too short", "automatic", "no cache"]
CacheOutcome: TypeAlias = Literal[
    "hit", "partial", "miss", "expired", "first", "too short", "uncached", "unknown"
]


class PlannedBreakpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One cache breakpoint of a thread, and what happens to it.

    `place` is the index of its node in `path()`, and `name` a readable form of it. `ttl` is the
    lifetime as it is sent, and `tokens` the estimated length of the prefix, None if it has media
    of unknown size.
    `state` is "marked"; "dropped" if it is not sent; "too short" if it is sent and the prefix is
    estimated to be below the model's minimum; "automatic" if the service caches by itself and
    takes none; "no cache" if the model has no cache. `reason` says why.
    """

    place: int
    name: str
    ttl: CacheTtl
    state: BreakpointState
    tokens: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        size = ""
        if self.tokens is not None:
            size = f", about {self.tokens:,} {plural('token', self.tokens)}"
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.name}: {self.state}{reason}, {self.ttl}{size}"


class CachePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The breakpoints of a call before it is made; see `ChatNode.cache_plan`. Print it to read it.

    `breakpoints` are those of the thread, first to last. `is_automatic` says whether the service
    caches without any, `min_tokens` is the documented length of the shortest prefix that it
    caches, None if that is not known, and `prompt_tokens` the estimated length of the whole
    prompt. `advice` is a sentence on what to do, or empty, and `token_price` the price of the call.
    """

    model: str
    breakpoints: tuple[PlannedBreakpoint, ...] = ()
    is_automatic: bool
    min_tokens: int | None = None
    prompt_tokens: int | None = None
    advice: str = ""
    token_price: TokenPrice | None = None

    @property
    def cached_tokens(self) -> int:
        """The estimated number of tokens that the cache will hold after the call."""
        if self.is_automatic:
            tokens = self.prompt_tokens or 0
            return tokens if tokens >= (self.min_tokens or 0) else 0
        marked = [each.tokens or 0 for each in self.breakpoints if each.state == "marked"]
        return max(marked, default=0)

    def savings(self, calls: int) -> Decimal | None:
        """Estimate the USD that the cache saves for so many calls that begin with this prompt.

        The first call writes it and the others read it. Below 0 if writing costs more than the
        reads save, and None without a price that has the rates.
        """
        price, tokens = self.token_price, self.cached_tokens
        is_long = any(each.ttl == "1h" for each in self.breakpoints if each.state == "marked")
        usage = Usage(cache_write_tokens=tokens, cache_write_1h_tokens=tokens if is_long else 0)
        if price is None or price.cache_read is None or not price.has_rates_for(usage):
            return None
        write = price.cost_of(usage)
        read = price.cost_of(Usage(cache_read_tokens=tokens))
        plain = price.cost_of(Usage(uncached_input_tokens=tokens))
        return exact_sum([*[plain] * calls, -write, *[-read] * (calls - 1)])

    def __str__(self) -> str:
        facts = [self.model]
        if self.prompt_tokens is not None:
            tokens = plural("token", self.prompt_tokens)
            facts.append(f"a prompt of about {self.prompt_tokens:,} {tokens}")
        if self.min_tokens is not None:
            facts.append(f"cache minimum {self.min_tokens:,}")
        lines = [", ".join(facts), *map(str, self.breakpoints), self.advice]
        return "\n".join(filter(None, lines))


class CacheVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the prompt cache for a call, and its cause; see `ChatNode.cache_verdict`.

    The call is compared with the most similar earlier one of this process to the same server.

    Attributes:
        kind: The result:

            - "hit": all that the earlier call had cached was read, or more,
            - "partial": only a part of it,
            - "miss": nothing,
            - "expired": nothing, because the cache had kept it no longer,
            - "first": nothing, because no earlier call had cached anything,
            - "too short": nothing, because the prompt is below the minimum,
            - "uncached": the model has no cache, or needs a breakpoint and got none,
            - "unknown": the server sent no counts, or the call is not one of the last (at least)
              512 of this process.
        cache_read_tokens: The tokens that were read from the cache.
        cache_write_tokens: The tokens that were written to it.
        changed: The first thing that differs within what the earlier call had cached: "model",
            "tool 'weather'", "system prompt", "message 3" (in `path()`), "images", "parameter
            tool_choice", "breakpoints" or "time". None if nothing does.
        explanation: A sentence that says what happened and what to do.
    """

    kind: CacheOutcome
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    changed: str | None = None
    explanation: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.explanation}"
