"""Reads the token counts and fees of the Responses wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, convert_plain, excerpt
from minillmlib.protocols.billing_facts import StandardPrice
from minillmlib.protocols.chat_completions.usage import (
    PlainInputDetails,
    PlainOutputDetails,
    PlainUsage,
    plain_buckets,
)
from minillmlib.protocols.chat_completions.usage import parse_usage as parse_counts
from minillmlib.types.usage import Count, Usage

# The items whose making costs no fee beyond the tokens (OpenAI's price list, November 2026). The
# calls of any other kind, also of an unknown one, are named as a charge.
_ItemWithoutFee: TypeAlias = Literal[
    "message", "reasoning", "compaction", "function_call", "custom_tool_call", "computer_call",
    "local_shell_call", "apply_patch_call", "tool_search_call", "tool_search_output", "mcp_call",
    "mcp_list_tools", "mcp_approval_request", "program", "program_output", "configuration_update",
    "shell_call_output",
]  # fmt: skip
_WITHOUT_FEE = frozenset(get_args(_ItemWithoutFee))
# The items whose number, or tokens, `tool_usage` states under another name.
_STATED_AS = {"web_search_call": "web_search", "image_generation_call": "image_gen"}
_PARTS_OF_TOTAL = frozenset((
    "input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details",
))  # fmt: skip
_Zeros: TypeAlias = dict[str, Literal[0] | None]


class _PlainUsage(PlainUsage, gc=False, kw_only=True, forbid_unknown_fields=True):
    """The counts by the names of this wire."""

    prompt_tokens: Count = msgspec.field(name="input_tokens")
    completion_tokens: Count = msgspec.field(name="output_tokens")
    prompt_tokens_details: PlainInputDetails | None = msgspec.field(
        name="input_tokens_details", default=None
    )
    completion_tokens_details: PlainOutputDetails | None = msgspec.field(
        name="output_tokens_details", default=None
    )


class _PlainItem(msgspec.Struct, gc=False):
    type: _ItemWithoutFee


class _NoSearches(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    num_requests: Literal[0] = 0


class _NoImages(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    input_tokens: Literal[0] = 0
    output_tokens: Literal[0] = 0
    total_tokens: Literal[0] = 0
    input_tokens_details: _Zeros = {}
    output_tokens_details: _Zeros = {}


class _NoToolUse(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    image_gen: _NoImages | None = None
    web_search: _NoSearches | None = None


class _PlainBody(StandardPrice, gc=False, kw_only=True):
    """Nearly every body with counts. It is read in a tenth of the steps."""

    usage: _PlainUsage
    output: list[_PlainItem]
    tool_usage: _NoToolUse | None = None


def parse_usage(raw: JsonValue) -> Usage | None:
    """Return the usage of a body or of an end event, or None if the counts cannot be trusted.

    They are read as those of chat completions, which some servers send under these names. The
    fees for tools at the vendor stand beside them.
    """
    body = raw.get("response", raw) if isinstance(raw, dict) else None
    if not isinstance(body, dict):
        return None
    plain = convert_plain(body, _PlainBody)
    if plain is not None:
        return plain_buckets(plain.usage)
    usage = parse_counts(body)
    if usage is None:
        return None
    charges = [*filter(None, [usage.non_token_charges]), *_tool_charges(body)]
    if not charges:
        return usage
    return msgspec.structs.replace(usage, non_token_charges=", ".join(charges))


def _tool_charges(body: JsonObject) -> Iterator[str]:
    stated = body.get("tool_usage")
    stated = stated if isinstance(stated, dict) else {"tool_usage": stated}
    for name, counts in stated.items():
        used = {fact: count for fact, count in _facts(counts).items() if not _is_zero(count)}
        for fact, count in used.items():
            if "total_tokens" not in used or fact not in _PARTS_OF_TOTAL:
                yield excerpt(f"{name} {fact}: {count}")
    output = body.get("output")
    items = output if isinstance(output, list) else ()
    kinds = [str(item.get("type")) for item in items if isinstance(item, dict)]
    if _WITHOUT_FEE.issuperset(kinds):  # as in most answers
        return
    for kind, count in Counter(kinds).items():
        if kind in _STATED_AS:
            facts = _facts(stated.get(_STATED_AS[kind]))
            is_stated = any(fact is not None for fact in facts.values())
        else:
            is_stated = kind in _WITHOUT_FEE
        if not is_stated:
            yield excerpt(f"{kind}: {count}")


def _facts(counts: JsonValue) -> JsonObject:
    """Return the counts of one tool by their names."""
    return counts if isinstance(counts, dict) else {"count": counts}


def _is_zero(count: JsonValue) -> bool:
    return not any(count.values()) if isinstance(count, dict) else not count
