"""The facts about Claude's models, by family and version, as documented in November 2026.

Facts change a request (budgets, prefill, schemas) or explain a server's refusal; none blocks one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from minillmlib.protocols.anthropic.request import MIN_BUDGET
from minillmlib.protocols.cache_control import (
    OUTSIDE_PROMPT,
    Effect,
    PromptCache,
    SupportsBreakpoint,
)
from minillmlib.types.media import ImagePart, MediaPart
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningConfig
from minillmlib.types.tools import as_tool_choice

# claude-3-5-sonnet-20241022, claude-opus-4-1-20250805, anthropic/claude-opus-4.8
_NAME = re.compile(
    r"claude-(?:(\d)(?:[.-](\d))?-)?(opus|sonnet|haiku|fable|mythos)"
    r"(?:-(\d{1,2})(?:[.-](\d{1,2}))?)?(?![0-9])"
)

# The shortest prefix that is cached (platform.claude.com, build-with-claude/prompt-caching; of the
# models from 5.5 on openrouter.ai, prompt caching).
_MIN_CACHED_TOKENS = {
    ("opus", (5, 0)): 512,
    ("fable", (5, 0)): 512,
    ("mythos", (5, 0)): 512,
    ("opus", (5, 5)): 512,
    ("sonnet", (5, 5)): 512,
    ("haiku", (5, 5)): 512,
    ("opus", (4, 8)): 1024,
    ("sonnet", (5, 0)): 1024,
    ("sonnet", (4, 6)): 1024,
    ("sonnet", (4, 5)): 1024,
    ("sonnet", (4, 0)): 1024,
    ("opus", (4, 1)): 1024,
    ("opus", (4, 0)): 1024,
    ("sonnet", (3, 7)): 1024,
    ("opus", (4, 7)): 2048,
    ("haiku", (3, 5)): 2048,
    ("opus", (4, 6)): 4096,
    ("opus", (4, 5)): 4096,
    ("haiku", (4, 5)): 4096,
}

# The same page, "What invalidates the cache"; structured-outputs: another format is another system
# prompt. Some models read a change of their reasoning before the system text, too.
_CACHE_EFFECTS: Mapping[str, Effect] = {
    **OUTSIDE_PROMPT,
    "response_format": "system",
    "speed": "system",
    "tool_choice": "messages",
    "parallel_tool_calls": "messages",
    "images": "messages",
    "reasoning": "messages",
    "thinking": "messages",
}


class Claude(msgspec.Struct, frozen=True):
    """One model, by its family and its version."""

    family: str
    version: tuple[int, int]

    @staticmethod
    @lru_cache(maxsize=64)
    def of(name: str) -> Claude | None:
        """Return the model with this name, or None for a name without a known version."""
        found = _NAME.search(name)
        if found is None:
            return None
        old, old_minor, family, major, minor = found.groups()
        version = (int(old or major or 0), int(old_minor or minor or 0))
        return Claude(family, version) if old or major else None

    @property
    def has_efforts(self) -> bool:
        """Whether reasoning is set by an effort; older models take only budgets of tokens."""
        return self.version > (4, 5)

    @property
    def min_cached_tokens(self) -> int | None:
        """The tokens of the shortest prefix that is cached, or None if that is not known."""
        return _MIN_CACHED_TOKENS.get((self.family, self.version))

    def has_budget(self, params: CompletionParameters) -> bool:
        """Whether its reasoning is limited by a number of tokens."""
        reasoning = params.reasoning
        if reasoning is None or reasoning.effort == "none":
            return False
        return reasoning.max_tokens is not None or not self.has_efforts

    def refusals(self, params: CompletionParameters) -> Iterator[str]:
        """Yield the reasons for which the vendor refuses these parameters."""
        if self.version >= (4, 7):
            for field, default in (("temperature", 1), ("top_p", 1), ("top_k", None)):
                if getattr(params, field) not in (None, default):
                    yield f"takes no {field}; leave it out"
        if self.version >= (4, 0) and None not in (params.temperature, params.top_p):
            yield "takes temperature or top_p, not both"
        if params.reasoning is not None:
            yield from self._reasoning_refusals(params, params.reasoning)
        choice = params.tool_choice and as_tool_choice(params.tool_choice)
        if choice and choice.mode in ("required", "tool"):
            is_newest = self.family in ("opus", "sonnet") and self.version >= (5, 5)
            if is_newest or self.family in ("fable", "mythos"):
                yield f"cannot be forced to call a tool; use auto in place of {choice.mode}"
            if self.has_budget(params):
                yield "cannot be forced to call a tool while it thinks; leave out one of the two"

    def _reasoning_refusals(
        self, params: CompletionParameters, reasoning: ReasoningConfig
    ) -> Iterator[str]:
        if reasoning.max_tokens is not None and self.version > (4, 6):
            yield "takes no reasoning max_tokens; give an effort"
        may_not_think = self.version < (5, 0) or (self.family, self.version) in (
            ("haiku", (5, 5)),
            ("opus", (5, 0)),
            ("sonnet", (5, 0)),
        )
        if reasoning.effort == "none" and not may_not_think:
            yield "always thinks; leave out the reasoning effort none, or use low"
        if reasoning.effort == "xhigh" and self.version == (4, 6):
            yield "has no reasoning effort xhigh; use high or max"
        if not self.has_budget(params):
            return
        budget = reasoning.max_tokens or MIN_BUDGET
        if budget < MIN_BUDGET:
            yield f"thinks with at least {MIN_BUDGET} tokens; raise the max_tokens of reasoning"
        if params.max_tokens is not None and params.max_tokens <= budget:
            yield "counts its thinking against max_tokens; raise max_tokens above the budget"
        if params.temperature not in (None, 1):
            yield "takes no temperature while it thinks; leave it out"
        if params.top_p is not None and params.top_p < 0.95:
            yield "takes no top_p below 0.95 while it thinks; leave it out"
        if params.top_k is not None:
            yield "takes no top_k while it thinks; leave it out"


def explain_refusal(model: str, params: CompletionParameters) -> str | None:
    """Return the known reasons for which the server refuses a request, or None."""
    claude = Claude.of(model)
    reasons = () if claude is None else claude.refusals(params)
    return "; ".join(f"{model} {reason}" for reason in reasons) or None


def why_no_prefill(model: str) -> str | None:
    """Return why a model does not continue a prefix; a model of another name may."""
    claude = Claude.of(model)
    if claude is None or claude.version <= (4, 5):
        return None
    return f"{model} refuses a beginning, like all of Claude's models from 4.6 on"


def why_no_schema(model: str, form: ResponseFormat) -> str | None:
    """Return why a model is not held to this schema, or None for one that is.

    Other models on this wire are not: llama.cpp, litellm and more pass over `output_config`.
    """
    claude = Claude.of(model)
    if "claude" not in model.lower():
        return f"it is not known whether {model} is held to a schema on this wire"
    if claude is not None and claude.version < (4, 5) and claude != Claude("opus", (4, 1)):
        return f"{model} is older than schemas for answers"
    return None if form.strict else "Claude takes only strict schemas"


def why_no_warmup(model: str, params: CompletionParameters) -> str | None:
    """Return why a prompt cannot be written to the cache with next to no output.

    The limit on output must be above the budget, and other reasoning would be another prompt.
    """
    claude, reasoning = Claude.of(model), params.reasoning
    has_tokens = reasoning is not None and reasoning.max_tokens is not None
    if not (has_tokens or (claude is not None and claude.has_budget(params))):
        return None
    return f"{model} would think up to its budget first; leave the reasoning out"


@lru_cache(maxsize=64)
def prompt_cache(model: str, supports_breakpoint: SupportsBreakpoint) -> PromptCache:
    """Return the facts about a model's cache; one of another vendor may cache by itself."""
    claude = Claude.of(model)
    return PromptCache(
        supports_breakpoint=supports_breakpoint,
        is_automatic="claude" not in model.lower(),
        min_tokens=claude.min_cached_tokens if claude is not None else None,
        has_system_first=True,
        effects=_CACHE_EFFECTS,
    )


def max_media_tokens(model: str, part: MediaPart) -> int | None:
    """Return the most tokens that an image counts as, or None if no rule is published.

    It has patches of 28 x 28 pixels, and is shrunk if it has more than a model takes
    (platform.claude.com, build-with-claude/vision).
    """
    claude = Claude.of(model)
    if claude is None or not isinstance(part, ImagePart):
        return None
    return 1568 if claude.version < (4, 7) else 4784
