"""The most that a request can consume, by what vendors have published (November 2026).

None wherever nothing is published: then no ceiling can be told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.providers.models.claude import Claude
from minillmlib.types.media import ImagePart, MediaPart

__all__ = ["claude_media_tokens", "openai_media_tokens", "output_tokens", "surcharges"]

# Claude sees patches of 28 x 28 pixels and shrinks what has more of them; from 4.7 on it looks
# closer (platform.claude.com, build-with-claude/vision).
_CLAUDE_PATCHES = 1568
_CLAUDE_PATCHES_FROM_4_7 = 4784

# OpenAI's models of tiles: a base, and so much for each of at most 2 x 4 tiles of 512 pixels, since
# an image is fitted into 2048 x 2048 and its short side into 768. The others count patches of
# 32 x 32 pixels, up to a budget, times a factor (developers.openai.com, guides/images-vision). The
# page has changed budgets and factors before, so the largest of each kind stands for all of it.
_MOST_TILES = 8
_SNAPSHOT = r"(?:-\d{4}-\d{2}-\d{2})?$"
_TILES = (
    (re.compile(r"gpt-4o-mini" + _SNAPSHOT), 2833, 5667),
    (re.compile(r"gpt-4o" + _SNAPSHOT), 85, 170),
    (re.compile(r"chatgpt-4o-latest$"), 85, 170),
    (re.compile(r"gpt-4\.1" + _SNAPSHOT), 85, 170),
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

_LIMITS = ("max_completion_tokens", "max_tokens")
_COPIES = ("n", "best_of")

# What costs more than its tokens tell, or adds tokens of its own, but for these values.
_SURCHARGES: dict[str, tuple[JsonValue, ...]] = {
    "audio": (),
    "inference_geo": (),
    "mcp_servers": (),
    "modalities": (["text"],),
    "models": (),
    "plugins": (),
    "prediction": (),
    "service_tier": ("auto", "default", "flex", "standard", "standard_only"),
    "speed": ("standard",),
    "web_search_options": (),
}


def claude_media_tokens(model: str, part: MediaPart) -> int | None:
    """The most tokens of an image for one of Claude's models."""
    claude = Claude.of(model)
    if claude is None or not isinstance(part, ImagePart):
        return None
    return _CLAUDE_PATCHES if claude.version < (4, 7) else _CLAUDE_PATCHES_FROM_4_7


def openai_media_tokens(model: str, part: MediaPart) -> int | None:
    """The most tokens of an image for one of OpenAI's models."""
    if not isinstance(part, ImagePart):
        return None
    for names, base, tile in _TILES:
        if names.match(model):
            return base + (0 if part.detail == "low" else _MOST_TILES * tile)
    for names, patches, factor in _PATCHES:
        if names.match(model):
            return math.ceil(patches * factor)
    return None


def output_tokens(body: JsonObject, max_tokens: int | None) -> int | None:
    """The most tokens that a body lets the model write, in all of its answers.

    A wire of its own may name its limit otherwise: then `max_tokens` is what it was told. Some
    servers take a limit of 0, or less, for none.
    """
    limits = [body[key] for key in _LIMITS if key in body] or [max_tokens]
    copies = [body.get(key, 1) for key in _COPIES]
    if not all(type(number) is int and number > 0 for number in (*limits, *copies)):
        return None
    return int(max(limits) * max(copies))


def surcharges(body: Mapping[str, JsonValue]) -> Iterator[str]:
    """The keys of a body with which a request may cost more than its tokens tell."""
    for key, value in body.items():
        if key in _SURCHARGES and value is not None and value not in _SURCHARGES[key]:
            yield key
    if str(body.get("model")).endswith(":online"):  # OpenRouter's mark for searches
        yield "model"
    tools = body.get("tools")
    if isinstance(tools, list) and not all(map(_is_own, tools)):
        yield "tools"


def _is_own(tool: JsonValue) -> bool:
    """Whether a tool runs at the caller's; a vendor's has a type of its own and costs fees."""
    return isinstance(tool, dict) and tool.get("type") in (None, "function", "custom")
