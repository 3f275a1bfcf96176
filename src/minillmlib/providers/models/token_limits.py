"""The upper bounds of a request's tokens that vendors have published (November 2026).

None where nothing is published: then there is no ceiling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.providers.models.claude import Claude
from minillmlib.types.media import ImagePart, MediaPart
from minillmlib.types.parameters import CompletionParameters

__all__ = ["claude_media_tokens", "max_output_tokens", "openai_media_tokens", "unpriced_keys"]

# Claude sees patches of 28 x 28 pixels and shrinks an image that has more; from 4.7 on it takes
# more patches (platform.claude.com, build-with-claude/vision).
_CLAUDE_PATCHES = 1568
_CLAUDE_PATCHES_FROM_4_7 = 4784

# Some of OpenAI's models count a base, and a price for each of at most 2 x 4 tiles of 512 pixels,
# since an image is fitted into 2048 x 2048 and its short side into 768. The others count patches
# of 32 x 32 pixels, up to a budget, times a factor (developers.openai.com, guides/images-vision).
# The page has changed budgets and factors before, so the largest one of each kind stands here.
_MAX_TILES = 8
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

# Keys that cost more than the tokens of the body, but for these values.
_UNPRICED: dict[str, tuple[JsonValue, ...]] = {
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
    """Return the most tokens of an image for one of Claude's models."""
    claude = Claude.of(model)
    if claude is None or not isinstance(part, ImagePart):
        return None
    return _CLAUDE_PATCHES if claude.version < (4, 7) else _CLAUDE_PATCHES_FROM_4_7


def openai_media_tokens(model: str, part: MediaPart) -> int | None:
    """Return the most tokens of an image for one of OpenAI's models."""
    if not isinstance(part, ImagePart):
        return None
    for names, base, tile in _TILES:
        if names.match(model):
            return base + (0 if part.detail == "low" else _MAX_TILES * tile)
    for names, patches, factor in _PATCHES:
        if names.match(model):
            return math.ceil(patches * factor)
    return None


def max_output_tokens(body: JsonObject, params: CompletionParameters) -> int | None:
    """Return the most tokens that a body lets the model write, in all of its answers.

    Another wire may have another key for its limit: then `max_tokens` of the parameters counts.
    Some servers take a limit of 0, or less, for none.
    """
    limits = [body[key] for key in _LIMITS if key in body] or [params.max_tokens]
    copies = [body.get(key, 1) for key in _COPIES]
    if not all(type(number) is int and number > 0 for number in (*limits, *copies)):
        return None
    return int(max(limits) * max(copies))


def unpriced_keys(body: Mapping[str, JsonValue]) -> list[str]:
    """Return the keys of a body with which a request may cost more than its tokens."""
    keys = [
        key
        for key, value in body.items()
        if key in _UNPRICED and value is not None and value not in _UNPRICED[key]
    ]
    if str(body.get("model")).endswith(":online"):  # OpenRouter's suffix for searches
        keys.append("model")
    tools = body.get("tools")
    if isinstance(tools, list) and not all(map(_runs_here, tools)):
        keys.append("tools")
    return keys


def _runs_here(tool: JsonValue) -> bool:
    """Whether the caller runs a tool; a vendor's tool has another type and costs fees."""
    return isinstance(tool, dict) and tool.get("type") in (None, "function", "custom")
