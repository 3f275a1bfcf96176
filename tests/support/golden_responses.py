"""The content of the golden files in the Responses wire, for `golden_expected`.

The items that are kept sealed are read off the files by JSON alone; their places, the texts, the
calls and the counts stand here, by hand.
"""

from __future__ import annotations

import base64
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from minillmlib import (
    CompletionResponse,
    FinishReason,
    ImagePart,
    ReasoningBlock,
    ToolCall,
    Usage,
)

GOLDEN = Path(__file__).parents[1] / "golden"
GAUGES = ('{"station":"north pier"}', '{"station":"south pier"}')


def events_of(name: str) -> list[dict[str, Any]]:
    """The events of a stream as JSON."""
    lines = re.findall(r"^data: ?(\{.*)$", (GOLDEN / name).read_text(), re.MULTILINE)
    return list(map(json.loads, lines))


def response_of(name: str) -> dict[str, Any]:
    """The whole response in a file: the body, or what the last event of a stream has."""
    if name.endswith(".json"):
        return json.loads((GOLDEN / name).read_text())
    return events_of(name)[-1]["response"]


def items_of(name: str) -> list[dict[str, Any]]:
    """The items of an answer, of a stream as their own events have them."""
    if name.endswith(".json"):
        return response_of(name)["output"]
    done = {
        event.get("output_index", place): event["item"]
        for place, event in enumerate(events_of(name))
        if event["type"] == "response.output_item.done"
    }
    return [done[index] for index in sorted(done)]


def usage(uncached: int, output: int, reasoning: int = 0, **more: Any) -> Usage:
    return Usage(
        uncached_input_tokens=uncached,
        completion_tokens=output,
        reasoning_tokens=reasoning,
        **more,
    )


SEALED, COMMENTARY, FINAL = "sealed", "commentary", "final_answer"


def blocks_of(name: str, kinds: tuple[str, ...]) -> tuple[ReasoningBlock, ...]:
    """The items that are neither text nor call, and the phases, all before the text and calls."""
    sealed = iter([
        item for item in items_of(name)
        if item["type"] not in ("message", "function_call", "custom_tool_call")
    ])  # fmt: skip
    found = [
        next(sealed) if kind is SEALED else {"type": "message", "phase": kind} for kind in kinds
    ]
    assert next(sealed, None) is None, f"{name} has more items"
    return tuple(ReasoningBlock(fields=fields) for fields in found)


def answer(
    name: str,
    content: str,
    kinds: tuple[str, ...],
    counts: Usage,
    *,
    finish: FinishReason = FinishReason.STOP,
    raw: str = "completed",
    calls: tuple[tuple[str, str], ...] = (),
    custom: bool = False,
    **more: Any,
) -> CompletionResponse:
    response = response_of(name)
    ids = [item["call_id"] for item in items_of(name) if "call_id" in item]
    assert len(ids) == len(calls)
    return CompletionResponse(
        id=response["id"],
        model=response["model"],
        content=content,
        finish_reason=finish,
        raw_finish_reason=raw,
        reasoning_blocks=blocks_of(name, kinds),
        usage=counts,
        tool_calls=tuple(
            ToolCall(
                id=call_id,
                name=function,
                arguments=arguments,
                extra={"type": "custom"} if custom else {},
            )
            for call_id, (function, arguments) in zip(ids, calls, strict=True)
        ),
        **more,
    )


TWO = "Two high waters on Tuesday."
CITED = "High water is at 03:12. ([example.org](https://example.org/tides))"
HIGHER = "The north pier, by 14 cm."
COMPARED = (
    "**Comparing two readings**\n\nThe north pier shows 212 cm, the south pier 198 cm.\n\n"
    "**Choosing the higher one**\n\nThe difference is 14 cm, so the north pier is higher."
)
DOT = ImagePart.from_bytes(base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
))  # fmt: skip
GAUGE = '{"station":"north pier","cm":212}'
NORTH = (("read_gauge", GAUGES[0]),)
BOTH = tuple(("read_gauge", station) for station in GAUGES)
TOOLS, LENGTH, FILTER = FinishReason.TOOL_CALLS, FinishReason.LENGTH, FinishReason.CONTENT_FILTER
CUT = {"finish": LENGTH, "raw": "max_output_tokens"}
FILTERED = {"finish": FILTER, "raw": "content_filter"}
CALLED = {"finish": TOOLS}

_ROWS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "text.json": ((TWO, (SEALED, FINAL), usage(27, 70, 64)), {}),
    "text_no_reasoning.json": ((TWO, (), usage(27, 6)), {}),
    "usage_cached.json": (
        ("High water at 03:12.", (SEALED, FINAL),
         usage(80, 74, 64, cache_read_tokens=4096, cache_write_tokens=1024)), {}),
    "reasoning_summary.json": (
        (HIGHER, (SEALED, FINAL), usage(58, 203, 192)), {"reasoning": COMPARED}),
    "json_schema.json": ((GAUGE, (SEALED, FINAL), usage(88, 78, 64)), {}),
    "refusal.json": (("", (SEALED, FINAL), usage(61, 82, 64)), {
        "finish": FILTER,
        "refusal": "I'm sorry, but I can't help with opening someone else's lock house."}),
    "tool_calls_parallel.json": (
        ("", (SEALED,), usage(96, 180, 128)), {**CALLED, "calls": BOTH}),
    "commentary_then_tool_call.json": (
        ("I will read both gauges first.", (SEALED, COMMENTARY), usage(96, 92, 64)),
        {**CALLED, "calls": NORTH}),
    "custom_tool_call.json": (("", (SEALED,), usage(80, 90, 64)), {
        **CALLED, "custom": True,
        "calls": (("query", "SELECT cm FROM gauge WHERE station = 'north pier'"),)}),
    "incomplete_max_output_tokens.json": (
        ("The tide book lists for Monday: high water at 03:12, low water at 09:2", (FINAL,),
         usage(27, 24)), CUT),
    "incomplete_reasoning_only.json": (("", (SEALED,), usage(27, 64, 64)), CUT),
    "incomplete_in_arguments.json": (("", (), usage(96, 40)), {
        **CUT, "calls": (("read_gauge", '{"station":"north pier and then al'),)}),
    "incomplete_content_filter.json": (
        ("To begin", (SEALED, FINAL), usage(40, 68, 64)), FILTERED),
    # A search costs a fee beside its tokens.
    "web_search.json": ((CITED, (SEALED, FINAL), usage(
        8614, 95, 48, non_token_charges="web_search num_requests: 1")), {}),
    # The tokens of an image are not among the others.
    "image_generation.json": (("", (SEALED, SEALED, FINAL), usage(
        1200, 90, 64, non_token_charges="image_gen total_tokens: 333")), {"media": (DOT,)}),
    "deepseek_tool_calls.json": (
        ("", (SEALED,), usage(64, 88, 12, cache_read_tokens=256)),
        {**CALLED, "reasoning": "Read both gauges.",
         "calls": tuple((name, text.replace(":", ": ")) for name, text in BOTH)}),
    "ollama_thinking.json": (
        ("Two high waters.", (SEALED,), usage(18, 24)), {"reasoning": "They want the tide."}),
    "xai_text.json": (("Two high waters.", (SEALED,), usage(
        12, 61, 55, cache_read_tokens=128, native_cost=Decimal("0.000043775"),
        native_cost_source="usage.cost_in_usd_ticks")), {"reasoning": "They want the tide."}),
    "stream_text.sse": ((TWO, (SEALED, FINAL), usage(27, 70, 64)), {}),
    "stream_tool_call.sse": (("", (SEALED,), usage(96, 84, 64)), {**CALLED, "calls": NORTH}),
    "stream_tool_calls_parallel.sse": (
        ("I read both gauges.", (SEALED, COMMENTARY), usage(96, 190, 128)),
        {**CALLED, "calls": BOTH}),
    "stream_custom_tool_call.sse": (("", (SEALED,), usage(80, 88, 64)), {
        **CALLED, "custom": True, "calls": (("query", "SELECT cm FROM gauge LIMIT 1"),)}),
    "stream_reasoning_summary.sse": (
        (HIGHER, (SEALED, FINAL), usage(58, 203, 192)), {"reasoning": COMPARED}),
    "stream_refusal.sse": (("", (SEALED, FINAL), usage(61, 80, 64)), {
        "finish": FILTER, "refusal": "I'm sorry, but I can't help with that."}),
    "stream_json_schema.sse": ((GAUGE, (SEALED, FINAL), usage(88, 78, 64)), {}),
    "stream_web_search.sse": ((CITED, (SEALED, SEALED, SEALED, FINAL), usage(
        8614, 150, 112, non_token_charges="web_search num_requests: 1")), {}),
    "stream_incomplete_max_output_tokens.sse": (
        ("The tide book lists: high water at 03:1", (FINAL,), usage(27, 24)), CUT),
    "stream_incomplete_reasoning_only.sse": (("", (SEALED,), usage(27, 64, 64)), CUT),
    "stream_content_filter.sse": (("To begin", (SEALED, FINAL), usage(40, 68, 64)), FILTERED),
    # With `background` it is as any other, once it ends.
    "stream_background.sse": (("Two high waters.", (SEALED, FINAL), usage(27, 69, 64)), {}),
    # With what the filter said, as `content_filters`.
    "azure_text.json": ((TWO, (SEALED,), usage(27, 70, 64)), {}),
    "azure_stream_content_filter.sse": (("To begin", (), usage(40, 4)), FILTERED),
    "openrouter_stream.sse": (("Two high waters.", (SEALED,), usage(
        74, 19, 8, service_tier="auto", native_cost=Decimal("4.48e-06"),
        native_cost_source="usage.cost")), {"reasoning": "They want the tide."}),
    "lmstudio_stream_arguments_done_only.sse": (
        ("", (SEALED,), usage(171, 31, 5)),
        {**CALLED, "reasoning": "Read the gauge.", "calls": NORTH}),
    # It has no indexes.
    "llamacpp_stream_no_index.sse": (
        ("Two high waters\u2028\N{WATER WAVE}.", (), usage(1, 7, cache_read_tokens=32)), {}),
}  # fmt: skip

ANSWERS = {
    f"responses_{name}": answer(f"responses_{name}", *facts, **more)
    for name, (facts, more) in _ROWS.items()
}


def extra_of(name: str) -> dict[str, Any]:
    """The keys of a response that no field has, without those that repeat the request."""
    response = response_of(name)
    kept = ("created_at", "completed_at", "service_tier", "billing", "content_filters")
    extra = {key: response[key] for key in kept if response.get(key)}
    if ANSWERS[name].usage.non_token_charges:
        extra["tool_usage"] = response["tool_usage"]
    if CITED in ANSWERS[name].content:
        extra["annotations"] = [{
            "type": "url_citation", "start_index": 24, "end_index": 66,
            "title": "Tide tables", "url": "https://example.org/tides"}]  # fmt: skip
    return extra


EXTRA = {name: extra_of(name) for name in ANSWERS}
