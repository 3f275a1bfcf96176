"""The facts about OpenAI's models, as documented in November 2026. None blocks a request."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec

from minillmlib.protocols.cache_control import OUTSIDE_PROMPT, Effect, PromptCache
from minillmlib.types.media import ImagePart, MediaPart
from minillmlib.types.parameters import CompletionParameters, ResponseFormat

# Some of OpenAI's models count a base, and a price for each of at most 2 x 4 tiles of 512 pixels,
# since an image is fitted into 2048 x 2048 and its short side into 768. The others count patches
# of 32 x 32 pixels, up to a budget, times a factor (developers.openai.com, guides/images-vision).
# The page has changed budgets and factors before, so the largest one of each kind stands here.
_MAX_TILES = 8
_SNAPSHOT = r"(?:-\d{4}-\d{2}-\d{2})?$"
_TILES = (
    (re.compile(r"gpt-4o-mini" + _SNAPSHOT), 2833, 5667),
    (re.compile(r"(?:gpt-4o|gpt-4\.1)" + _SNAPSHOT), 85, 170),
    (re.compile(r"chatgpt-4o-latest$"), 85, 170),
    (re.compile(r"(?:o1|o1-pro|o3)" + _SNAPSHOT), 75, 150),
    (re.compile(r"gpt-5(?:\.1)?(?:-chat-latest)?" + _SNAPSHOT), 70, 140),
)
_PATCHES = (
    (re.compile(r"(?:gpt-4\.1-mini|gpt-4\.1-nano|o4-mini)" + _SNAPSHOT), 6144, 2.46),
    (re.compile(r"gpt-5(?:\.4)?-(?:mini|nano)" + _SNAPSHOT), 6144, 2.46),
    (re.compile(r"gpt-5\.2" + _SNAPSHOT), 6144, 2.46),
    (re.compile(r"gpt-5\.[45]" + _SNAPSHOT), 10_000, 2.46),
    (re.compile(r"gpt-5\.6(?:-(?:sol|terra|luna))?" + _SNAPSHOT), 30_000, 1.2),
)

# gpt-oss is no model of OpenAI's own service; whoever runs it decides.
_NAME = re.compile(r"(?:^|[/.])(?:o\d|(?:chat)?gpt-(?!oss))")
_NEW_LIMIT = re.compile(r"(?:^|[/.])(?:o\d|gpt-(?:[5-9]|\d\d))")

# A model that reasons takes only these values.
_DEFAULTS = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "stop": None,
}

# See `may_seal_reasoning`.
_WITHOUT_REASONING = re.compile(r"(?:^|[/.])(?:gpt-[34]|chatgpt-|gpt-5(?:\.\d+)?-chat)")
MIN_RESPONSES_TOKENS = 16  # 400 integer_below_min_value, of all models

_WITHOUT_SCHEMAS = re.compile(r"gpt-3|gpt-4(?![.o])|gpt-4o-2024-05-13|chatgpt-|o1-(?:mini|preview)")

# developers.openai.com, guides/prompt-caching: models from gpt-4o on, prompts of 1024 tokens, kept
# for 30 minutes from gpt-5.6 on and for 5 to 10 before. The schema of the answer comes before the
# system message, and the key chooses the machine.
_WITHOUT_CACHE = re.compile(r"gpt-3|gpt-4(?![.o])")
_MIN_CACHED_TOKENS = 1024
_LONG_LIVED = re.compile(r"gpt-(?:5\.[6-9]|[6-9])")
_CACHE_EFFECTS: Mapping[str, Effect] = {
    **OUTSIDE_PROMPT,
    "response_format": "everything",
    "prompt_cache_key": "everything",
}


class _Family(msgspec.Struct, frozen=True):
    """Some models that refuse the same. `thinks`: they reason without being asked to."""

    names: re.Pattern[str]
    refused_efforts: tuple[str, ...] = ()
    thinks: bool = True
    has_tools: bool = True
    thinks_with_tools: bool = True


_FAMILIES = (
    _Family(re.compile(r"o[134](?:-|$)"), ("none", "minimal", "xhigh", "max")),
    _Family(re.compile(r"gpt-5(?:-(?!chat)|$)"), ("none", "xhigh", "max")),
    _Family(re.compile(r"gpt-5\.[1-4](?:-(?!chat)|$)"), thinks=False),
    _Family(re.compile(r"gpt-5\.5(?:-(?!chat)|$)")),
    _Family(re.compile(r"gpt-5\.6(?:-(?!chat)|$)"), ("minimal",), thinks_with_tools=False),
    _Family(re.compile(r"gpt-6"), ("none", "minimal"), has_tools=False, thinks_with_tools=False),
)


def why_no_prefill(model: str) -> str | None:
    """Return why a model does not continue a prefix; a model of another name may."""
    if _NAME.search(model) is None:
        return None
    return f"{model} begins a new answer after an assistant message, like all of OpenAI's models"


def refuses_max_tokens(model: str) -> bool:
    """Whether a model takes only `max_completion_tokens`; one of another name takes `max_tokens`.

    The o series, and from gpt-5 on (OpenAI's reference, November 2026).
    """
    return _NEW_LIMIT.search(model) is not None


def why_no_schema(model: str, form: ResponseFormat) -> str | None:
    """Return why a model is not held to a schema: those before gpt-4o of August 2024 have none."""
    del form
    return f"{model} is older than schemas for answers" if _WITHOUT_SCHEMAS.match(model) else None


def max_choices(model: str) -> int:
    """Return the most answers that one request may ask for with `n`.

    128 by OpenAI's reference. Those of o1 refused more than one, and nothing is said of later
    models that reason, so they are asked once for each answer.
    """
    return 128 if _WITHOUT_REASONING.search(model) else 1


def needs_responses(model: str) -> bool:
    """Whether a model refuses tools on chat completions while it thinks, as it does by itself.

    Its 400 names the Responses wire: gpt-5.6 and gpt-6 (litellm#39631, onyx#15008). A model of
    another name is taken to call tools on either wire.
    """
    family = _family(model)
    return family is not None and family.thinks and not family.thinks_with_tools


@lru_cache(maxsize=64)
def may_seal_reasoning(model: str) -> bool:
    """Whether to ask a model for sealed reasoning. All but OpenAI's that never think are asked.

    Those refuse it: "Encrypted content is not supported with this model."
    """
    return _WITHOUT_REASONING.search(model) is None


def explain_refusal(model: str, params: CompletionParameters) -> str | None:
    """Return the known reasons for which chat completions refuse a request, or None."""
    family = _family(model)
    return _join(model, () if family is None else (*_tool_refusals(family, params),
                                                   *_refusals(family, params)))  # fmt: skip


def explain_responses_refusal(model: str, params: CompletionParameters) -> str | None:
    """Return the known reasons for which the Responses wire refuses a request, or None."""
    family = _family(model)
    reasons = [] if family is None else list(_refusals(family, params))
    if params.max_tokens is not None and params.max_tokens < MIN_RESPONSES_TOKENS:
        reasons.append(f"takes no max_tokens below {MIN_RESPONSES_TOKENS} on the Responses wire")
    return _join(model, reasons)


def _family(model: str) -> _Family | None:
    return next((family for family in _FAMILIES if family.names.match(model)), None)


def _join(model: str, reasons: Iterable[str]) -> str | None:
    return "; ".join(f"{model} {reason}" for reason in reasons) or None


def _tool_refusals(family: _Family, params: CompletionParameters) -> Iterator[str]:
    if params.tools and not family.has_tools:
        yield "calls no tools on the chat-completions wire; use the Responses wire for tools"
    effort = params.reasoning.effort if params.reasoning else None
    thinks = family.thinks if effort is None else effort != "none"
    if params.tools and thinks and not family.thinks_with_tools:
        yield (
            "calls tools on this wire only without reasoning: use the Responses wire, or set "
            "reasoning=ReasoningConfig(effort='none')"
        )


def _refusals(family: _Family, params: CompletionParameters) -> Iterator[str]:
    effort = params.reasoning.effort if params.reasoning else None
    if effort in family.refused_efforts:
        yield f"has no reasoning effort {effort}; use another one or leave it out"
    thinks = family.thinks if effort is None else effort != "none"
    if not thinks:
        return
    can_stop = "none" not in family.refused_efforts
    advice = "leave it out" + (" or set the reasoning effort to none" if can_stop else "")
    for field, default in _DEFAULTS.items():
        if getattr(params, field) not in (None, default):
            yield f"takes no {field} while it thinks; {advice}"


@lru_cache(maxsize=64)
def prompt_cache(model: str) -> PromptCache | None:
    """Return the facts about a model's cache, or None for a model that is too old for one."""
    if _NAME.search(model) is None:
        return PromptCache()
    if _WITHOUT_CACHE.match(model):
        return None
    return PromptCache(
        min_tokens=_MIN_CACHED_TOKENS,
        lifetime_secs=1800 if _LONG_LIVED.match(model) else 300,
        effects=_CACHE_EFFECTS,
    )


def max_media_tokens(model: str, part: MediaPart) -> int | None:
    """Return the most tokens that an image counts as, or None if no rule is published."""
    if not isinstance(part, ImagePart):
        return None
    for names, base, tile in _TILES:
        if names.match(model):
            return base + (0 if part.detail == "low" else _MAX_TILES * tile)
    for names, patches, factor in _PATCHES:
        if names.match(model):
            return math.ceil(patches * factor)
    return None
