"""What OpenAI's reasoning models refuse on this wire, as the vendor documents it (November 2026).

A name that is not known here is not checked: then the server decides. What is refused here can
still be sent by `extra`, should a model take it by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.types.parameters import CompletionParameters

__all__ = ["check_openai_model", "has_no_schemas"]

# What a model that thinks leaves at its default.
_DEFAULTS = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "stop": None,
}

_WITHOUT_SCHEMAS = re.compile(r"gpt-3|gpt-4(?![.o])|gpt-4o-2024-05-13|chatgpt-|o1-(?:mini|preview)")


class _Family(msgspec.Struct, frozen=True, kw_only=True):
    """Some models that refuse the same.

    `thinks` says whether they do so unasked; `takes_tools` whether they call functions while
    they think, and `has_tools` whether they do so at all.
    """

    names: re.Pattern[str]
    thinks: bool
    refused_efforts: tuple[str, ...]
    takes_tools: bool = True
    has_tools: bool = True


_FAMILIES = (
    _Family(
        names=re.compile(r"o[134](?:-|$)"),
        thinks=True,
        refused_efforts=("none", "minimal", "xhigh", "max"),
    ),
    _Family(
        names=re.compile(r"gpt-5(?:-(?!chat)|$)"),
        thinks=True,
        refused_efforts=("none", "xhigh", "max"),
    ),
    _Family(names=re.compile(r"gpt-5\.[1-4](?:-(?!chat)|$)"), thinks=False, refused_efforts=()),
    _Family(names=re.compile(r"gpt-5\.5(?:-(?!chat)|$)"), thinks=True, refused_efforts=()),
    _Family(
        names=re.compile(r"gpt-5\.6(?:-(?!chat)|$)"),
        thinks=True,
        refused_efforts=("minimal",),
        takes_tools=False,
    ),
    _Family(
        names=re.compile(r"gpt-6"),
        thinks=True,
        refused_efforts=("none", "minimal"),
        takes_tools=False,
        has_tools=False,
    ),
)


def has_no_schemas(model: str) -> bool:
    """Whether the model is older than JSON schemas for answers."""
    return _WITHOUT_SCHEMAS.match(model) is not None


def check_openai_model(model: str, params: CompletionParameters) -> None:
    """Raises `InvalidParameterError` for what this model is known to refuse."""
    family = _family_of(model)
    if family is None:
        return
    for refusal in _refusals(family, params):
        raise InvalidParameterError(f"{model} {refusal}")


@lru_cache(maxsize=64)
def _family_of(model: str) -> _Family | None:
    return next((family for family in _FAMILIES if family.names.match(model)), None)


def _refusals(family: _Family, params: CompletionParameters) -> Iterator[str]:
    effort = params.reasoning.effort if params.reasoning else None
    if effort in family.refused_efforts:
        yield f"has no reasoning effort {effort}; use another one or leave it out"
    if params.tools and not family.has_tools:
        yield "calls no tools on the chat-completions wire; use another model for tools"
    thinks = family.thinks if effort is None else effort != "none"
    if not thinks:
        return
    if params.tools and not family.takes_tools:
        yield "calls tools only without reasoning: set reasoning=ReasoningConfig(effort='none')"
    can_stop = "none" not in family.refused_efforts
    advice = "leave it out" + (" or set the reasoning effort to none" if can_stop else "")
    for field, default in _DEFAULTS.items():
        if getattr(params, field) not in (None, default):
            yield f"takes no {field} while it thinks; {advice}"
