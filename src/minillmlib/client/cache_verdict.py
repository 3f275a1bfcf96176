"""Why a prompt cache was read or missed: a call is compared with an earlier one of this process."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile, zip_longest
from operator import eq

from minillmlib.client.cache_plan import place_name, reading_order
from minillmlib.client.sent_prompts import (
    MIN_CALLS,
    MIN_RECORDED_TOKENS,
    SentPrompt,
    prompt_log,
)
from minillmlib.types.caching import CacheOutcome, CacheVerdict
from minillmlib.types.messages import CacheTtl
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.usage import Usage

TTL_SECS: dict[CacheTtl, int] = {"5m": 300, "1h": 3600}
MAX_LOOK_BACK = 20  # blocks of Anthropic's, from a breakpoint back to a cached prefix
TIME, BREAKPOINTS, IMAGES = "time", "breakpoints", "images"

# What was found, and what to do. {ago} is how long before the earlier call was made.
_NO_COUNTS = "the server sent no usable token counts"
_NOT_RECORDED = (
    f"this process did not make the call, or made more than {MIN_CALLS} since, so there is nothing "
    "to compare it with"
)
_NO_CACHE = "the model has no prompt cache"
_UNMARKED = (
    "the model caches nothing without a breakpoint, and none was sent; set one with "
    "cache_breakpoint() or with_cache(True)"
)
_TOO_SHORT = "the prompt is shorter than the minimum of {minimum:,} tokens"
_MARKED_TOO_SHORT = (
    "the prompt up to its last breakpoint is probably shorter than the minimum of {minimum:,} "
    "tokens; set the breakpoint further down"
)
_WRITER_UNKNOWN = "this process does not remember the call that wrote them"
_FIRST = "no earlier call that this process remembers had cached anything at this server"
_READ_ALL = "that is all that the call {ago} before had cached"
_EXPIRED = (
    "the call before was {ago} earlier, and its prefix was kept for {lifetime}; renew it in time "
    "with ensure_cached, or set a breakpoint with ttl='1h'"
)
_FADED = (
    "the call before was {ago} earlier, and this cache is sure to keep a prefix for {lifetime} "
    "only; renew it in time with ensure_cached"
)
_CHANGED = "{changed} differs from the call {ago} before; {advice}"
_UNREACHED = (
    "no breakpoint stands at, or close behind, those of the call {ago} before; set one where that "
    "call had one"
)
_UNDOCUMENTED = (
    "{changed} differs from the call {ago} before, and nothing else; its effect on this cache is "
    "not documented"
)
_TOO_EARLY = (
    "the call was sent before the answer to the one before it was there; await that, or "
    "ensure_cached, first"
)
_DROPPED = (
    "neither the prompt nor a parameter differs from the call {ago} before; the server dropped the "
    "prefix early, or another of its machines answered"
)

_ADVICE = {
    "model": "each model has a cache of its own",
    "tool": "send the same tools in the same order",
    "system prompt": "put what changes, such as the time, into a later message",
    "message": "keep what was sent before, and put what changes behind it and its breakpoint",
    "parameter": "keep it the same",
    IMAGES: "messages with images and messages without are cached apart",
}


def explain_cache(response: CompletionResponse) -> CacheVerdict:
    """Return what the cache did in the call that a response came from, and why."""
    usage = response.usage
    if usage is None:
        return CacheVerdict(kind="unknown", explanation=_NO_COUNTS)
    prompts = prompt_log.up_to(response.request_report)
    return _explain(*prompts) if prompts else _explain_unrecorded(usage)


def _explain_unrecorded(usage: Usage) -> CacheVerdict:
    if not usage.cache_read_tokens and usage.prompt_tokens < MIN_RECORDED_TOKENS:
        return _verdict("too short", usage, _TOO_SHORT.format(minimum=MIN_RECORDED_TOKENS))
    return _verdict("unknown", usage, _NOT_RECORDED)


def _explain(now: SentPrompt, *before: SentPrompt) -> CacheVerdict:
    """Return the verdict on a prompt; the earlier ones are given newest first."""
    earlier = _closest(now, before)
    comparison = None if earlier is None else _Comparison(now, earlier)
    uncached = _explain_uncached(now, is_repeated=comparison is not None and comparison.is_repeated)
    if uncached is not None:
        return uncached
    if comparison is not None:
        return comparison.verdict()
    if now.usage.cache_read_tokens:
        return _verdict("hit", now.usage, _WRITER_UNKNOWN)
    return _verdict("first", now.usage, _FIRST)


def _verdict(
    kind: CacheOutcome, usage: Usage, cause: str, changed: str | None = None
) -> CacheVerdict:
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    counts = f"{read:,} of {usage.prompt_tokens:,} prompt tokens were read from the cache"
    counts += f", {written:,} written" if written else ""
    return CacheVerdict(
        kind=kind,
        cache_read_tokens=read,
        cache_write_tokens=written,
        changed=changed,
        explanation=f"{counts}: {cause}",
    )


def _explain_uncached(now: SentPrompt, *, is_repeated: bool) -> CacheVerdict | None:
    """Return the verdict on a call in which the cache took no part, or None for any other.

    A prompt that begins as one that was cached is long enough.
    """
    facts, usage = now.cache, now.usage
    kind: CacheOutcome = "too short"
    if usage.cache_read_tokens or usage.cache_write_tokens:
        return None
    if facts is None:
        kind, cause = "uncached", _NO_CACHE
    elif not facts.is_automatic and not now.marks:
        kind, cause = "uncached", _UNMARKED
    elif facts.min_tokens is None or is_repeated:
        return None
    elif usage.prompt_tokens < facts.min_tokens:
        cause = _TOO_SHORT.format(minimum=facts.min_tokens)
    elif now.marks:  # what is long enough is written, and counted
        cause = _MARKED_TOO_SHORT.format(minimum=facts.min_tokens)
    else:
        return None
    return _verdict(kind, usage, cause)


def _closest(now: SentPrompt, before: Sequence[SentPrompt]) -> SentPrompt | None:
    """Return the prompt that was cached and shares the longest prefix with this one, if any was.

    If none shares a message, it is the one with the most in common. Of several it is the newest,
    which comes first.
    """
    cached = [each for each in before if _may_share(each, now)]
    return max(cached, key=lambda each: _closeness(each, now), default=None)


def _may_share(earlier: SentPrompt, now: SentPrompt) -> bool:
    is_same_server = (earlier.server, earlier.credential) == (now.server, now.credential)
    return is_same_server and earlier.cached_tokens > 0


def _closeness(earlier: SentPrompt, now: SentPrompt) -> tuple[int, int]:
    shared, _ = _first_difference(earlier, now)
    if shared:
        return shared, 0
    common = sum(map(eq, earlier.messages.values, now.messages.values))
    common += earlier.model == now.model
    (their_parameters, their_tools), (our_parameters, our_tools) = earlier.digests, now.digests
    common += len(their_parameters.items() & our_parameters.items())
    return 0, common + len({*their_tools} & {*our_tools})


def _first_difference(earlier: SentPrompt, now: SentPrompt) -> tuple[int, str | None]:
    """Return the number of messages before the first part that differs, and the part's name.

    The messages count in the order in which the cache reads them. The name is None if one of the
    two prompts ends without a difference.
    """
    effects = {} if now.cache is None else now.cache.effects
    changed = {effects.get(name): name for name in reversed(_changed_parameters(earlier, now))}
    before_messages = (
        "model" if earlier.model != now.model else None,
        _parameter_name(changed.get("everything")),
        _changed_tool(earlier.digests[1], now.digests[1]),
        _parameter_name(changed.get("system")),
    )
    for name in before_messages:
        if name is not None:
            return 0, name
    order = _order(now)
    theirs = map(earlier.messages.values.__getitem__, _order(earlier))
    ours = map(now.messages.values.__getitem__, order)
    shared = sum(1 for _ in takewhile(bool, map(eq, theirs, ours)))
    system = frozenset(now.messages.system)
    system_texts = sum(1 for _ in takewhile(system.__contains__, order))
    if "messages" in changed and shared >= system_texts:
        return system_texts, _parameter_name(changed["messages"])
    if shared in (len(earlier.messages.values), len(order)):
        return shared, None
    index = order[shared]
    return shared, place_name(index, now.first_place, is_system=index in system)


def _order(prompt: SentPrompt) -> list[int]:
    """Return the indexes of the messages in the order in which the cache reads them."""
    system = frozenset(prompt.messages.system)
    return reading_order(len(prompt.messages.values), system, prompt.cache)


def _changed_parameters(earlier: SentPrompt, now: SentPrompt) -> list[str]:
    before, after = earlier.digests[0], now.digests[0]
    names = [name for name in {**after, **before} if after.get(name) != before.get(name)]
    return names + [IMAGES] * (earlier.messages.has_images != now.messages.has_images)


def _parameter_name(name: str | None) -> str | None:
    return name if name in (None, IMAGES) else f"parameter {name}"


def _changed_tool(
    before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]
) -> str | None:
    """Return the first tool that was changed, added or removed."""
    nothing = ("", 0)
    for (old, old_digest), (new, new_digest) in zip_longest(before, after, fillvalue=nothing):
        if (old, old_digest) != (new, new_digest):
            is_removed = old and old not in dict(after)
            return f"tool {old if is_removed else new!r}"
    return None


class _Comparison:
    """A prompt beside an earlier one that was cached.

    `changed` is what differs first within what the earlier call had cached. `reached` are the
    breakpoints of the earlier one before that, by the number of messages before them.
    """

    def __init__(self, now: SentPrompt, earlier: SentPrompt) -> None:
        self.now, self.earlier = now, earlier
        self.secs = max(now.started_at - earlier.started_at, 0.0)
        shared, name = _first_difference(earlier, now)
        ranks = {index: rank for rank, index in enumerate(_order(earlier))}
        marks = {ranks[index]: ttl for index, ttl in earlier.marks.items()}
        self.reached = {rank: ttl for rank, ttl in marks.items() if rank < shared}
        self.changed = name if not marks or len(self.reached) < len(marks) else None

    @property
    def is_repeated(self) -> bool:
        """Whether the prompt begins with all that the earlier call had cached."""
        return self.changed is None and len(self.reached) == len(self.earlier.marks)

    def verdict(self) -> CacheVerdict:
        usage = self.now.usage
        if usage.cache_read_tokens and self._has_read_all():
            return _verdict("hit", usage, _READ_ALL.format(ago=_ago(self.secs)))
        kind: CacheOutcome = "partial" if usage.cache_read_tokens else "miss"
        cause, changed = self._find_cause()
        lifetime = self._expired_lifetime()
        if lifetime is not None and (kind == "miss" or self.changed is None):
            kind = "expired" if kind == "miss" else kind
            cause, changed = _EXPIRED if self.earlier.marks else _FADED, TIME
        word = next((word for word in _ADVICE if str(changed).startswith(word)), None)
        text = cause.format(
            ago=_ago(self.secs),
            lifetime=_ago(lifetime or 0),
            changed=changed,
            advice=word and _ADVICE[word],
        )
        return _verdict(kind, usage, text, changed)

    def _find_cause(self) -> tuple[str, str | None]:
        """Return why not all was read, unless it was kept no longer, and what changed."""
        if self.changed is not None:
            return _CHANGED, self.changed
        if not self._looks_back():
            return _UNREACHED, BREAKPOINTS
        effects = {} if self.now.cache is None else self.now.cache.effects
        for name in _changed_parameters(self.earlier, self.now):
            if effects.get(name) != "nothing":
                return _UNDOCUMENTED, _parameter_name(name)
        if self.secs < self.earlier.elapsed_secs:
            return _TOO_EARLY, None
        return _DROPPED, None

    def _has_read_all(self) -> bool:
        """Whether all was read that could be. Automatic caches lose some tokens at the end."""
        read, cached = self.now.usage.cache_read_tokens, self.earlier.cached_tokens
        if read >= cached or self.changed is not None:
            return read >= cached
        if self.earlier.marks:  # those behind the end of this prompt cannot be read
            return not self.is_repeated and self._looks_back()
        return 2 * read >= min(cached, self.now.usage.prompt_tokens)

    def _expired_lifetime(self) -> int | None:
        """Return how long what this prompt shares was kept, if that is over."""
        facts = self.now.cache
        if self.earlier.marks:
            lifetimes = [TTL_SECS[ttl] for ttl in self.reached.values()]
            shortest = min if self.now.usage.cache_read_tokens else max
            lifetime = shortest(lifetimes, default=None)
        else:
            lifetime = facts.lifetime_secs if facts is not None and self.is_repeated else None
        return lifetime if lifetime is not None and self.secs >= lifetime else None

    def _looks_back(self) -> bool:
        """Whether a breakpoint is near enough to the last one that both calls share."""
        if not self.reached:
            return not self.earlier.marks
        last, ranks = (
            max(self.reached),
            {index: rank for rank, index in enumerate(_order(self.now))},
        )
        return any(0 <= ranks[index] - last < MAX_LOOK_BACK for index in self.now.marks)


def _ago(secs: float) -> str:
    return f"{secs:.0f} s" if secs < 120 else f"{secs / 60:.0f} min"
