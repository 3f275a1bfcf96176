"""What Claude's models take, by family and version, as the vendor documents it (November 2026).

A name that is not known here is not checked: then the server decides. What is refused here can
still be sent by `extra`, should a model take it by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningConfig
from minillmlib.types.tools import as_tool_choice

__all__ = ["Claude", "budget_refusal", "schema_refusal", "thinking_budget"]

Thinking: TypeAlias = Literal["budget", "either", "adaptive"]

# claude-3-5-sonnet-20241022, claude-opus-4-1-20250805, anthropic/claude-opus-4.8
_NAME = re.compile(
    r"claude-(?:(\d)(?:[.-](\d))?-)?(opus|sonnet|haiku|fable|mythos)"
    r"(?:-(\d{1,2})(?:[.-](\d{1,2}))?)?(?![0-9])"
)

LEAST_BUDGET = 1024
ROOM = 20_480  # for thinking and answer together, where the caller sets no limit
# OpenRouter's shares of the limit, for models that know budgets but no efforts.
_SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}


class Claude(msgspec.Struct, frozen=True):
    """One model, by its family and its version."""

    name: str
    family: str
    version: tuple[int, int]

    @staticmethod
    @lru_cache(maxsize=64)
    def of(name: str) -> Claude | None:
        """The model with this name, or None for a name that tells no version."""
        found = _NAME.search(name)
        if found is None:
            return None
        old, old_minor, family, major, minor = found.groups()
        if old or major:
            return Claude(name, family, (int(old or major), int(old_minor or minor or 0)))
        return None

    @property
    def takes_prefill(self) -> bool:
        """Whether it continues a given beginning."""
        return self.version <= (4, 5)

    @property
    def takes_sampling(self) -> bool:
        """Whether temperature, top_p and top_k may be set."""
        return self.version < (4, 7)

    @property
    def takes_schemas(self) -> bool:
        """Whether its answer can be held to a JSON schema."""
        return self.version >= (4, 5) or (self.family, self.version) == ("opus", (4, 1))

    @property
    def thinking(self) -> Thinking:
        """How it is told to think."""
        if self.version <= (4, 5):
            return "budget"
        return "either" if self.version == (4, 6) else "adaptive"

    @property
    def may_not_think(self) -> bool:
        """Whether thinking can be switched off."""
        if self.version < (5, 0) or (self.family, self.version) == ("haiku", (5, 5)):
            return True
        return self.family in ("opus", "sonnet") and self.version == (5, 0)

    @property
    def can_be_forced(self) -> bool:
        """Whether it can be made to call a tool."""
        is_newest = self.family in ("opus", "sonnet") and self.version >= (5, 5)
        return not is_newest and self.family not in ("fable", "mythos")

    def check(self, params: CompletionParameters) -> None:
        """Raises `InvalidParameterError` for what this model is known to refuse."""
        for refusal in self._refusals(params):
            raise InvalidParameterError(f"{self.name} {refusal}")

    def _refusals(self, params: CompletionParameters) -> Iterator[str]:
        yield from self._sampling_refusals(params)
        if params.reasoning is not None:
            yield from self._reasoning_refusals(params, params.reasoning)
        choice = params.tool_choice and as_tool_choice(params.tool_choice)
        if choice and choice.mode in ("required", "tool"):
            if not self.can_be_forced:
                yield f"cannot be forced to call a tool; use auto in place of {choice.mode}"
            if self.has_budget(params):
                yield "cannot be forced to call a tool while it thinks; leave out one of the two"

    def _sampling_refusals(self, params: CompletionParameters) -> Iterator[str]:
        if not self.takes_sampling:
            for field, default in (("temperature", 1), ("top_p", 1), ("top_k", None)):
                if getattr(params, field) not in (None, default):
                    yield f"takes no {field}; leave it out"
        if self.version >= (4, 0) and None not in (params.temperature, params.top_p):
            yield "takes temperature or top_p, not both"

    def _reasoning_refusals(
        self, params: CompletionParameters, reasoning: ReasoningConfig
    ) -> Iterator[str]:
        if reasoning.max_tokens is not None and self.thinking == "adaptive":
            yield "takes no reasoning max_tokens; give an effort"
        if reasoning.effort == "none" and not self.may_not_think:
            yield "always thinks; leave out the reasoning effort none, or use low"
        if reasoning.effort == "xhigh" and self.thinking == "either":
            yield "has no reasoning effort xhigh; use high or max"
        if self.has_budget(params):
            yield from _budget_refusals(params, reasoning)

    def has_budget(self, params: CompletionParameters) -> bool:
        """Whether it is told how much to think by a number of tokens."""
        reasoning = params.reasoning
        if reasoning is None or reasoning.effort == "none":
            return False
        return reasoning.max_tokens is not None or self.thinking == "budget"


def _budget_refusals(params: CompletionParameters, reasoning: ReasoningConfig) -> Iterator[str]:
    if reasoning.max_tokens is not None and reasoning.max_tokens < LEAST_BUDGET:
        yield f"thinks with at least {LEAST_BUDGET} tokens; raise the max_tokens of reasoning"
    if params.max_tokens is not None and params.max_tokens <= (
        reasoning.max_tokens or LEAST_BUDGET
    ):
        yield "counts its thinking against max_tokens; raise max_tokens above the budget"
    if params.temperature not in (None, 1):
        yield "takes no temperature while it thinks; leave it out"
    if params.top_p is not None and params.top_p < 0.95:
        yield "takes no top_p below 0.95 while it thinks; leave it out"
    if params.top_k is not None:
        yield "takes no top_k while it thinks; leave it out"


def budget_refusal(model: str, params: CompletionParameters) -> str | None:
    """Why a prompt cannot be warmed with next to no output, or None if it can.

    The limit on output must be above the budget, and other thinking would be another prompt.
    """
    claude, reasoning = Claude.of(model), params.reasoning
    has_tokens = reasoning is not None and reasoning.max_tokens is not None
    if not (has_tokens or (claude is not None and claude.has_budget(params))):
        return None
    return f"{model} would think up to its budget first; leave the reasoning out"


def schema_refusal(model: str, form: ResponseFormat) -> str | None:
    """Why a model is not held to this form, or None for one that is, or whose name is unknown."""
    claude = Claude.of(model)
    if claude is not None and not claude.takes_schemas:
        return f"{model} is older than schemas for answers"
    return None if form.strict else "Claude takes only strict schemas"


def thinking_budget(effort: str, max_tokens: int | None) -> int:
    """The budget that stands for an effort: a share of the limit, at least 1024."""
    room = max_tokens or ROOM
    return max(LEAST_BUDGET, min(int(room * _SHARES[effort]), room - 1))
