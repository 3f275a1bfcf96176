"""The content of each golden file, read off its bytes by hand and by nothing of ours.

Add an entry here with each file in `tests/golden`. A name that an answer does not give has its
default: no refusal, no calls, no media, no reasoning.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import golden_completions
import golden_responses
import msgspec

from minillmlib import (
    CompletionResponse,
    FinishReason,
    ImagePart,
    ReasoningBlock,
    ToolCall,
    Usage,
)

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
TOOLS, FILTER, PAUSE = FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER, FinishReason.PAUSE

CLAUDE_ID = "msg_01Wk9TqLZ4hR7nVbQm2XcA8d"
ROUTER_ID = "gen-1795000100-Sm4plEgEnErAtIoN01"
AZURE_ID, AZURE_STREAM_ID = "chatcmpl-CkSampleAzure01", "chatcmpl-CkSampleAzure02"
WHOLE_ID, STREAM_ID = "chatcmpl-CkSample0001", "chatcmpl-CkSample0002"


def usage(
    uncached,
    read,
    write,
    completion,
    reasoning=0,
    cost=None,
    for_1h=0,
    beside=None,
    source="usage.cost",
    surcharges=(),
) -> Usage:
    return Usage(
        surcharges=surcharges,
        cache_write_1h_tokens=for_1h,
        non_token_charges=beside,
        uncached_input_tokens=uncached,
        cache_read_tokens=read,
        cache_write_tokens=write,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
        native_cost=None if cost is None else Decimal(cost),
        native_cost_source=None if cost is None else source,
    )


def call(call_id: str, name: str, arguments: str) -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


def block(text_before: int, calls_before: int, **fields) -> ReasoningBlock:
    return ReasoningBlock(fields=fields, text_before=text_before, calls_before=calls_before)


ANSWERS = {
    "anthropic_text.json": CompletionResponse(
        id=CLAUDE_ID, model="claude-sonnet-4-6",
        content="The tide table lists two highs on Tuesday.",
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(41, 0, 0, 12)),
    "anthropic_cache_usage.json": CompletionResponse(
        id=CLAUDE_ID, model="claude-sonnet-4-6",
        content="Clause 14 caps liability at twelve months of fees.",
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(
            37, 18240, 2816, 512, 384, for_1h=2048, beside="web searches: 2")),
    "anthropic_prewarm_max_tokens_0.json": CompletionResponse(
        id=CLAUDE_ID, model="claude-opus-5-5", content="",
        finish_reason=LENGTH, raw_finish_reason="max_tokens", usage=usage(6, 0, 7421, 0, for_1h=7421)),
    "anthropic_refusal.json": CompletionResponse(
        id=CLAUDE_ID, model="claude-opus-5-5", content="",
        refusal_reason="The request could enable harm to computer systems.",
        finish_reason=FILTER, raw_finish_reason="refusal", usage=usage(204, 0, 0, 0)),
    "anthropic_stream_text.sse": CompletionResponse(
        id=CLAUDE_ID, model="claude-sonnet-4-6", content="Low water at 06:12.",
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(25, 4096, 0, 9)),
    # The thought is not shown, but its seal comes.
    "anthropic_stream_thinking_omitted.sse": CompletionResponse(
        id=CLAUDE_ID, model="claude-sonnet-4-6", content="12,231",
        finish_reason=STOP, raw_finish_reason="end_turn",
        reasoning="",
        reasoning_blocks=(
            block(0, 0, type="thinking", thinking="", signature="EosnCkYICxIMSampleSig0123456789"),
        ),
        usage=usage(88, 0, 0, 341, 334)),
    # Its last event has no input counts: those of the first stand.
    "anthropic_stream_thinking_summarized.sse": CompletionResponse(
        id=CLAUDE_ID, model="claude-sonnet-4-6", content="gcd = 21",
        finish_reason=STOP, raw_finish_reason="end_turn",
        reasoning="Split 1071 into two parts of 462 and a rest.",
        reasoning_blocks=(
            block(0, 0, type="thinking", thinking="Split 1071 into two parts of 462 and a rest.",
                  signature="EqQBCgIYAhIMSampleSigSummarized"),
            block(0, 0, type="redacted_thinking", data="EnQKSampleRedactedOpaque=="),
        ),
        usage=usage(88, 0, 0, 210)),
    "anthropic_stream_tool_use.sse": CompletionResponse(
        id=CLAUDE_ID, model="claude-sonnet-4-6", content="Reading the gauges.",
        finish_reason=TOOLS, raw_finish_reason="tool_use",
        tool_calls=(
            call("toolu_01Hn5bQxRk2mYtW8vLcPz4Ds", "read_gauge", '{"station": "north pier"}'),
            call("toolu_01Zv3sGfJq7aNwEu5rKbXy9T", "list_stations", "{}"),
        ),
        usage=usage(472, 0, 1500, 96)),
    # A tool that runs at the vendor is no call of ours, but a block to give back.
    "anthropic_stream_pause_turn_server_tool.sse": CompletionResponse(
        id=CLAUDE_ID, model="claude-sonnet-4-6", content="",
        finish_reason=PAUSE, raw_finish_reason="pause_turn",
        reasoning_blocks=(
            block(0, 0, type="server_tool_use", id="srvtoolu_01Q2w3E4r5T6y7U8i9O0pAsD",
                  name="web_search", input={"query": "tide tables 2026"}),
        ),
        usage=usage(310, 0, 0, 44, beside="web searches: 1")),
    # What follows the mark is by the second model, whose own counts the last event has.
    "anthropic_beta_stream_fallback.sse": CompletionResponse(
        id=CLAUDE_ID, model="claude-opus-4-8", content="Here is a safe overview.",
        finish_reason=STOP, raw_finish_reason="end_turn",
        reasoning_blocks=(
            ReasoningBlock(fields={
                "type": "fallback",
                "from": {"model": "claude-fable-5-1"},
                "to": {"model": "claude-opus-4-8"},
                "trigger": {"type": "refusal", "category": "cyber"}}),
        ),
        # Both attempts, as `iterations` tells them; no one price fits.
        usage=usage(947, 0, 0, 64, beside="several models: claude-fable-5-1, claude-opus-4-8")),
    "compat_deepseek_usage.json": CompletionResponse(
        id="ds-1", model="deepseek-v4-pro", content="21",
        finish_reason=STOP, raw_finish_reason="stop", reasoning="Use Euclid.",
        reasoning_key="reasoning_content",
        usage=usage(276, 1024, 0, 40, 32)),
    "compat_llamacpp_anthropic_skin.json": CompletionResponse(
        id="chatcmpl-AnthSk1n", model="local-135m", content="alpha beta ",
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(8, 19, 0, 4)),
    "compat_llamacpp_prefill_echo.json": CompletionResponse(
        id="chatcmpl-PrEf1llEch0", model="local-135m", content="Planets:\n- Mercury\n- Venus",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(9, 22, 0, 7)),
    "compat_llamacpp_prefill_stream_no_echo.sse": CompletionResponse(
        id="chatcmpl-PrEf1llStream", model="local-135m", content=" Mercury\n- Venus",
        finish_reason=STOP, raw_finish_reason="stop", usage=None),
    "compat_llamacpp_stream_usage_same_chunk.sse": CompletionResponse(
        id="chatcmpl-77", model="local.gguf", content="Hi",
        finish_reason=LENGTH, raw_finish_reason="length", usage=usage(43, 0, 0, 1)),
    "compat_mistral_stream_last_chunk_content.sse": CompletionResponse(
        id="chatcmpl-77", model="mistral-large-latest", content="Bonjour.",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(8, 0, 0, 4)),
    # It begins with an event of the gateway's own, which has no type.
    "compat_litellm_anthropic_skin_cut.json": CompletionResponse(
        id="resp_bGl0ZWxsbTpjdXN0b21fbGxtX3Byb3ZpZGVyOm9wZW5haTttb2RlbF9pZDo5YWM5Y2UyNDkxNGZ"
        "hM2I4NWU3N2M4NTM0Y2FmZWFhY2M4YWFlYjkzYWI3YWQ0OTg4YjVkY2ViNmM4NWE4NDEwO3Jlc3BvbnN"
        "lX2lkOnJlc3BfYzFxY0hCaDVUemQzTjg0WmZTT2JIa3RXaGZZQ3NRdDc=",
        model="smollm2",
        content='{"type":"object","properties":{"city":{"type"'
        ':"string"}},"required":["city"],"additional',
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(69, 7, 0, 24)),
    "compat_portkey_anthropic_skin_stream_flagged.sse": CompletionResponse(
        id="chatcmpl-9Z1fEdvYrGII54K3z2KNUn3iNGcbtNvi", model="smollm2",
        content="The capital of France is Paris.",
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(27, 0, 0, 8)),
    "compat_vllm_stream_continuous_usage.sse": CompletionResponse(
        id="chatcmpl-77", model="m", content="ok",
        finish_reason=STOP, raw_finish_reason="stop", reasoning="hm",
        reasoning_key="reasoning", usage=usage(9, 0, 0, 3)),
    # What was written before the filter is kept, and billed.
    "azure_chat_output_filtered.json": CompletionResponse(
        id=AZURE_ID, model="gpt-4.1-2025-04-14", content="To begin",
        finish_reason=FILTER, raw_finish_reason="content_filter", usage=usage(27, 0, 0, 2)),
    "azure_chat_text.json": CompletionResponse(
        id=AZURE_ID, model="gpt-4.1-2025-04-14", content="Two high waters on Tuesday.",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(27, 0, 0, 6)),
    "azure_stream_prompt_filter_first_chunk.sse": CompletionResponse(
        id=AZURE_STREAM_ID, model="gpt-4.1-2025-04-14", content="Two high waters.",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(27, 0, 0, 6)),
    # An event about the filter comes after the end.
    "azure_stream_async_filter.sse": CompletionResponse(
        id=AZURE_STREAM_ID, model="gpt-4.1-2025-04-14", content="Two high waters.",
        finish_reason=STOP, raw_finish_reason="stop", usage=None),
    "azure_stream_async_filter_blocked.sse": CompletionResponse(
        id=AZURE_STREAM_ID, model="gpt-4.1-2025-04-14", content="To begin",
        finish_reason=FILTER, raw_finish_reason="content_filter", usage=None),
    "compat_alibaba_usage_explicit_cache.json": CompletionResponse(
        id="chatcmpl-fake02", model="qwen3.5-plus", content="Three keepers.",
        finish_reason=STOP, raw_finish_reason="stop", reasoning_key="reasoning_content",
        usage=usage(95, 1024, 1900, 104, 90)),
    "compat_cerebras_stream_reasoning.sse": CompletionResponse(
        id="chatcmpl-fake01", model="gpt-oss-120b", content="ok",
        finish_reason=STOP, raw_finish_reason="stop", reasoning="One word.",
        reasoning_key="reasoning", usage=usage(70, 0, 0, 14, 8)),
    "compat_databricks_content_reasoning_list.json": CompletionResponse(
        id="chatcmpl-fake02", model="databricks-claude-sonnet-4-5", content="Three keepers.",
        finish_reason=STOP, raw_finish_reason="stop",
        reasoning="The log lists three keepers.", usage=usage(30, 0, 0, 44)),
    "compat_deepseek_anthropic_message.json": CompletionResponse(
        id="fake-uuid-0001", model="deepseek-v4-pro", content="Three keepers.",
        finish_reason=STOP, raw_finish_reason="end_turn", reasoning="Three names.",
        reasoning_blocks=(
            block(0, 0, type="thinking", thinking="Three names.", signature="fake-uuid-0001"),
        ),
        usage=usage(20, 128, 0, 24)),
    "compat_minimax_reasoning_split.json": CompletionResponse(
        id="chatcmpl-fake02", model="MiniMax-M3", content="Three keepers.",
        finish_reason=STOP, raw_finish_reason="stop",
        reasoning="I count them.", reasoning_key="reasoning_details",
        reasoning_blocks=(
            block(0, 0, type="reasoning.text", id="reasoning-text-1", format="MiniMax-response-v1",
                  index=0, text="I count them."),
        ),
        usage=usage(47, 0, 0, 24, 18)),
    "compat_mistral_usage_num_cached.json": CompletionResponse(
        id="chatcmpl-fake02", model="mistral-large-latest", content="Three keepers.",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(152, 2048, 0, 5)),
    # The counts stand in the choice.
    "compat_moonshot_stream_choice_usage.sse": CompletionResponse(
        id="chatcmpl-fake01", model="kimi-k2.6", content="3.1 m",
        finish_reason=STOP, raw_finish_reason="stop", reasoning="One gauge.",
        reasoning_key="reasoning_content", usage=usage(186, 1024, 0, 19)),
    "compat_perplexity_usage_cost.json": CompletionResponse(
        id="chatcmpl-fake02", model="sonar-deep-research", content="The pier opened in 1904 [1].",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(
            12, 0, 0, 258, 240, "0.01781", source="usage.cost.total_cost",
            beside="searches: 3, search_queries_cost: 0.015")),
    # 199 + 26 + 285 = 510: reasoning is in the total only. A tick is 1e-10 USD.
    "compat_xai_usage_ticks.json": CompletionResponse(
        id="chatcmpl-fake02", model="grok-4.6", content="",
        finish_reason=TOOLS, raw_finish_reason=None, reasoning="I call the tool.",
        reasoning_key="reasoning_content",
        tool_calls=(call("call_fake01", "read_gauge", '{"station":"north pier"}'),),
        usage=usage(71, 128, 0, 311, 285, "0.0003157", source="usage.cost_in_usd_ticks")),
    "openai_text.json": CompletionResponse(
        id=WHOLE_ID, model="gpt-5.6-terra", content="Two high waters on Tuesday.",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(27, 0, 0, 6)),
    "openai_length.json": CompletionResponse(
        id=WHOLE_ID, model="gpt-5.6-terra", content="",
        finish_reason=LENGTH, raw_finish_reason="length", usage=usage(80, 0, 0, 64, 64)),
    "openai_refusal.json": CompletionResponse(
        id=WHOLE_ID, model="gpt-5.6-terra", content="",
        refusal="I can't help with that request.",
        finish_reason=FILTER, raw_finish_reason="stop", usage=usage(63, 0, 0, 11)),
    "openai_cache_usage.json": CompletionResponse(
        id=WHOLE_ID, model="gpt-5.6-terra", content="Capped at twelve months.",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(256, 7168, 1792, 148, 96)),
    "openai_tool_calls_parallel.json": CompletionResponse(
        id=WHOLE_ID, model="gpt-5.6-terra", content="",
        finish_reason=TOOLS, raw_finish_reason="tool_calls",
        tool_calls=(
            call("call_Aa1Bb2Cc3", "read_gauge", '{"station":"north pier"}'),
            call("call_Dd4Ee5Ff6", "list_stations", "{}"),
        ),
        usage=usage(140, 0, 0, 52)),
    # The wire says "stop" of a forced call.
    "openai_forced_tool_finish_stop.json": CompletionResponse(
        id=WHOLE_ID, model="gpt-4.1", content="",
        finish_reason=TOOLS, raw_finish_reason="stop",
        tool_calls=(call("call_Gg7Hh8Ii9", "read_gauge", '{"station":"mole"}'),),
        usage=usage(120, 0, 0, 18)),
    "openai_stream_usage.sse": CompletionResponse(
        id=STREAM_ID, model="gpt-5.6-terra", content="Low water at 06:12.",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(84, 1536, 0, 9)),
    "openai_stream_tool_calls.sse": CompletionResponse(
        id=STREAM_ID, model="gpt-5.6-terra", content="",
        finish_reason=TOOLS, raw_finish_reason="tool_calls",
        tool_calls=(
            call("call_N1", "read_gauge", '{"station":"north pier"}'),
            call("call_S2", "read_gauge", '{"station":"south pier"}'),
        ),
        usage=usage(140, 0, 0, 61)),
    # With the user's own key at the vendor both bills count: 0.001803975 + 0.0360795.
    "openrouter_byok_cost.json": CompletionResponse(
        id=ROUTER_ID, model="openai/gpt-5.6-terra", content="ok",
        finish_reason=STOP, raw_finish_reason="stop",
        usage=usage(9171, 0, 0, 113, 55, "0.037883475")),
    "openrouter_claude_cache_cost.json": CompletionResponse(
        id=ROUTER_ID, model="anthropic/claude-sonnet-4.6", content="Clause 14 caps liability.",
        finish_reason=STOP, raw_finish_reason="end_turn",
        reasoning="Look for the cap.",
        reasoning_key="reasoning_details",
        reasoning_blocks=(
            block(0, 0, type="reasoning.text", text="Look for the cap.",
                  signature="EqQBSampleSig==", format="anthropic-claude-v1", id=None, index=0),
        ),
        usage=usage(500, 8000, 2000, 320, 120, "0.0162")),
    "openrouter_claude_refusal_content_filter.json": CompletionResponse(
        id="gen-1795300043-rEfUsAl", model="anthropic/claude-opus-5.5", content="",
        finish_reason=FILTER, raw_finish_reason="refusal", usage=usage(58, 0, 0, 0, 0, "0")),
    # "iVBORw0KGgo=" in base64 is the signature of a PNG file and nothing more.
    "openrouter_image_output.json": CompletionResponse(
        id=ROUTER_ID, model="google/gemini-3-pro-image", content="Here it is.",
        finish_reason=STOP, raw_finish_reason="STOP",
        media=(ImagePart(media_type="image/png", data=b"\x89PNG\r\n\x1a\n"),),
        usage=usage(
            14, 0, 0, 1302, 0, "0.0391", surcharges=("image tokens",))),
    "openrouter_web_annotations.json": CompletionResponse(
        id=ROUTER_ID, model="anthropic/claude-sonnet-4.6",
        content="High water is at 12:31 [example.org].",
        finish_reason=STOP, raw_finish_reason="stop", usage=usage(
            2100, 0, 0, 40, 0, "0.0121",
            beside="tool_calls_requested: 1, tool_calls_executed: 1, web_search_requests: 1")),
    "openrouter_stream_debug_first_chunk.sse": CompletionResponse(
        id=ROUTER_ID, model="anthropic/claude-sonnet-4.6", content="ok",
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(9, 0, 0, 2, 0, "0.00006")),
    "openrouter_stream_usage_empty_choices.sse": CompletionResponse(
        id=ROUTER_ID, model="anthropic/claude-sonnet-4.6", content="ok",
        finish_reason=STOP, raw_finish_reason="end_turn", usage=usage(11, 0, 0, 2, 0, "0.000063")),
    # What follows the end marker is never dispatched.
    "sse_framing_edge_cases.sse": CompletionResponse(
        id=STREAM_ID, model="gpt-5.6-terra", content="Aline\u2028sep\x85end",
        finish_reason=STOP, raw_finish_reason="stop", usage=None),
    **golden_completions.ANSWERS,
    **golden_responses.ANSWERS,
}  # fmt: skip


# Keys of the files that no field of a response has; in every file of OpenAI's, and of most, also
# `created`, and what the server calls itself.
OPENAI_WHOLE, OPENAI_STREAM = (
    {"created": created, "service_tier": "default"} for created in (1795000000, 1795000001)
)
LLAMA = {"system_fingerprint": "b9999-sample"}
LLAMA_TIMINGS = {"timings": {"cache_n": 22, "prompt_n": 9, "predicted_n": 7}}
PORTKEY = Path(__file__).parents[1] / "golden" / "compat_portkey_anthropic_skin_stream_flagged.sse"
SAFE = {"filtered": False, "severity": "safe"}
UNSEEN = {"filtered": False, "detected": False}
CATEGORIES = dict.fromkeys(("hate", "self_harm", "sexual", "violence"), SAFE)
PROMPT = [{"prompt_index": 0, "content_filter_results": {**CATEGORIES, "jailbreak": UNSEEN}}]
AZURE = {"system_fingerprint": "fp_sample0001"}
FAKE = {"created": 1795000000}  # of the files that the vendors' packages make up
EXTRA = {
    "azure_chat_output_filtered.json": {
        "created": 1795000300, **AZURE, "prompt_filter_results": PROMPT,
        "content_filter_results": {
            **CATEGORIES, "violence": {"filtered": True, "severity": "medium"}}},
    "azure_chat_text.json": {
        "created": 1795000300, **AZURE, "prompt_filter_results": PROMPT,
        "content_filter_results": {
            **CATEGORIES, "protected_material_code": UNSEEN, "protected_material_text": UNSEEN}},
    "azure_stream_prompt_filter_first_chunk.sse": {
        "created": 1795000301, **AZURE, "prompt_filter_results": PROMPT,
        "content_filter_results": CATEGORIES},
    "azure_stream_async_filter.sse": {
        "created": 1795000301, **AZURE, "prompt_annotations": PROMPT,
        "content_filter_results": CATEGORIES,
        "content_filter_offsets": {"check_offset": 12, "start_offset": 12, "end_offset": 16}},
    "azure_stream_async_filter_blocked.sse": {
        "created": 1795000301, **AZURE, "prompt_annotations": PROMPT,
        "content_filter_results": {
            **CATEGORIES, "violence": {"filtered": True, "severity": "high"}},
        "content_filter_offsets": {"check_offset": 0, "start_offset": 0, "end_offset": 8}},
    "compat_alibaba_usage_explicit_cache.json": FAKE,
    "compat_cerebras_stream_reasoning.sse": {**FAKE, "time_info": {
        "queue_time": 0.0002, "prompt_time": 0.002, "completion_time": 0.01, "total_time": 0.02,
        "created": 1795000000.5}},
    "compat_databricks_content_reasoning_list.json": {
        **FAKE, "signature": "ZmFrZS1kYXRhYnJpY2tz"},
    "compat_minimax_reasoning_split.json": {
        **FAKE, "base_resp": {"status_code": 0, "status_msg": ""}},
    "compat_mistral_usage_num_cached.json": FAKE,
    "compat_moonshot_stream_choice_usage.sse": FAKE,
    "compat_perplexity_usage_cost.json": {
        **FAKE, "citations": ["https://example.org/pier"], "search_results": [{
            "title": "The pier", "url": "https://example.org/pier", "date": "2026-01-01",
            "last_updated": None}]},
    "compat_xai_usage_ticks.json": {**FAKE, "system_fingerprint": "fp_fake"},
    PORTKEY.name: json.loads(PORTKEY.read_text().splitlines()[1].removeprefix("data: ")),
    "compat_deepseek_usage.json": {"created": 1795000204},
    "compat_llamacpp_anthropic_skin.json": {"stop_sequence": "gamma"},
    "compat_llamacpp_prefill_echo.json": {"created": 1795300000, **LLAMA, **LLAMA_TIMINGS},
    "compat_llamacpp_prefill_stream_no_echo.sse": {
        "created": 1795300001, **LLAMA, **LLAMA_TIMINGS},
    "compat_llamacpp_stream_usage_same_chunk.sse": {
        "created": 1795000200, "timings": {"prompt_n": 43, "predicted_n": 1}},
    "compat_mistral_stream_last_chunk_content.sse": {"created": 1795000200},
    "compat_vllm_stream_continuous_usage.sse": {"created": 1795000200},
    **{name: OPENAI_WHOLE for name in ANSWERS if name.startswith("openai") and ".json" in name},
    **{name: OPENAI_STREAM for name in ANSWERS if name.startswith("openai") and ".sse" in name},
    "openrouter_byok_cost.json": {"provider": "OpenAI", "created": 1795000100},
    "openrouter_claude_cache_cost.json": {"provider": "Anthropic", "created": 1795000100},
    "openrouter_claude_refusal_content_filter.json": {
        "provider": "Anthropic", "created": 1795300043},
    "openrouter_image_output.json": {"provider": "Google", "created": 1795000100},
    "openrouter_stream_debug_first_chunk.sse": {
        "provider": "Anthropic", "created": 1795000101,
        "debug": {"echo_upstream_body": {
            "model": "claude-sonnet-4-6", "stream": True, "max_tokens": 64000}}},
    "openrouter_stream_usage_empty_choices.sse": {"provider": "Anthropic", "created": 1795000101},
    "openrouter_web_annotations.json": {
        "provider": "Anthropic", "created": 1795000100,
        "annotations": [{"type": "url_citation", "url_citation": {
            "url": "https://example.org/tides", "title": "Tide tables",
            "content": "Tuesday 12:31", "start_index": 23, "end_index": 36}}]},
    "sse_framing_edge_cases.sse": OPENAI_STREAM,
    **golden_completions.EXTRA,
    **golden_responses.EXTRA,
}  # fmt: skip


def expected_of(name: str) -> CompletionResponse:
    """The answer in a golden file, without what the call and not the wire puts into it."""
    return msgspec.structs.replace(ANSWERS[name], extra=EXTRA.get(name, {}))


class Failure(NamedTuple):
    """An error; `said` are the server's own words in its message, `partial` the text so far."""

    kind: str
    status: int | None
    code: str | None
    said: str
    retry_after_secs: float | None = None
    request_id: str | None = None
    partial: str = ""


# Whole answers, with the status that they come with.
FAILURES = {
    "anthropic_error_overloaded.json": Failure(
        "OverloadedError", 529, "overloaded_error", "Overloaded",
        request_id="req_011CTsampleOver00000000001"),
    "anthropic_error_prefill.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "This model does not support assistant message prefill. "
        "The conversation must end with a user message.",
        request_id="req_011CTsamplePref00000000001"),
    "anthropic_error_prompt_too_long.json": Failure(
        "ContextLengthError", 400, "invalid_request_error",
        "prompt is too long: 1204518 tokens > 1000000 maximum",
        request_id="req_011CTsampleLong00000000001"),
    "anthropic_error_rate_limit.json": Failure(
        "RateLimitError", 429, "rate_limit_error",
        "This request would exceed the rate limit for your organization of "
        "400,000 input tokens per minute.",
        request_id="req_011CTsampleRate00000000001"),
    "azure_error_401.json": Failure(
        "AuthenticationError", 401, None,
        "Access denied due to invalid subscription key or wrong API endpoint."),
    "azure_error_content_filter.json": Failure(
        "ContentFilterError", 400, "content_filter",
        "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy."),
    "azure_error_deployment_not_found_404.json": Failure(
        "NotFoundError", 404, "DeploymentNotFound",
        "The API deployment for this resource does not exist."),
    "azure_error_rate_limit_429.json": Failure(
        "RateLimitError", 429, "RateLimitReached", "exceeded token rate limit",
        retry_after_secs=22),
    "compat_cerebras_error_flat.json": Failure(
        "AuthenticationError", 401, "wrong_api_key", "Wrong API Key"),
    "compat_cloudflare_error_v4.json": Failure(
        "AuthenticationError", 401, None, "status 401: Authentication error"),
    "compat_deepseek_error_json_schema.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "This response_format type is unavailable now"),
    "compat_litellm_error_code_string.json": Failure(
        "RateLimitError", 429, "throttling_error", "litellm.RateLimitError: AnthropicException"),
    "compat_together_error.json": Failure(
        "NotFoundError", 404, "model_not_available", "Unable to access model acme/none."),
    "compat_vertex_claude_stream_error_429.json": Failure(
        "RateLimitError", 429, "RESOURCE_EXHAUSTED",
        "Quota exceeded for aiplatform.googleapis.com/"),
    "compat_minimax_base_resp_200.json": Failure(
        "BillingError", 200, None, "response: insufficient balance"),
    "compat_moonshot_error_balance_429.json": Failure(
        "BillingError", 429, "exceeded_current_quota_error", "is suspended"),
    "compat_zai_error_balance_429.json": Failure(
        "BillingError", 429, None, "Insufficient balance or no resource package."),
    "compat_zai_error_rate_429.json": Failure(
        "RateLimitError", 429, None, "Rate limit reached for requests"),
    "gemini_error_400_api_key.json": Failure(
        "AuthenticationError", 400, "INVALID_ARGUMENT", "API key not valid."),
    "gemini_error_400_context.json": Failure(
        "ContextLengthError", 400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds"),
    "gemini_error_429_daily_quota.json": Failure(
        "BillingError", 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"),
    "gemini_error_429_retryinfo.json": Failure(
        "RateLimitError", 429, "RESOURCE_EXHAUSTED", "Please retry in 34.4s.",
        retry_after_secs=34.4),
    "compat_fastapi_detail_422.json": Failure(
        "BadRequestError", 422, None, "body.messages: Field required"),
    "compat_gemini_error_array.json": Failure(
        "BadRequestError", 400, "INVALID_ARGUMENT",
        "Function call is missing a thought_signature in functionCall parts."),
    "compat_llamacpp_error_context.json": Failure(
        "ContextLengthError", 400, "exceed_context_size_error",
        "request (4390 tokens) exceeds the available context size (4096 tokens), "
        "try increasing it"),
    "compat_llamacpp_error_loading_503.json": Failure(
        "ModelLoadingError", 503, "unavailable_error", "Loading model"),
    "compat_mistral_error_object_message.json": Failure(
        "BadRequestError", 422, "invalid_request_error",
        "body.max_completion_tokens: Extra inputs are not permitted"),
    "compat_mistral_error_tool_id.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "Tool call id was call_0fypS1hVX but must be a-z, A-Z, 0-9, with a length of 9."),
    "completions_openai_error_chat_model_404.json": Failure(
        "NotFoundError", 404, "invalid_request_error",
        "This is a chat model and not supported in the v1/completions endpoint."),
    "openai_error_context_length.json": Failure(
        "ContextLengthError", 400, "context_length_exceeded",
        "This model's maximum context length is 400000 tokens. "
        "However, your messages resulted in 412345 tokens."),
    "openai_error_insufficient_quota.json": Failure(
        "BillingError", 429, "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details."),
    "openai_error_rate_limit.json": Failure(
        "RateLimitError", 429, "rate_limit_exceeded",
        "Rate limit reached for gpt-5.6-terra on tokens per min (TPM): "
        "Limit 30000, Used 29010, Requested 2200. Please try again in 2.42s.",
        retry_after_secs=2.42),
    "openai_error_tools_with_reasoning_effort.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "Function tools with reasoning_effort are not supported for gpt-5.6-luna in "
        "/v1/chat/completions. To use function tools, use /v1/responses or set "
        "reasoning_effort to 'none'."),
    "openrouter_error_402.json": Failure(
        "BillingError", 402, "payment_required",
        "This request requires more credits, or fewer max_tokens. "
        "You requested up to 64000 tokens, but can only afford 1180."),
    "openrouter_error_429_availability.json": Failure(
        "RateLimitError", 429, "rate_limit_exceeded",
        "All providers for anthropic/claude-sonnet-4.6 are at capacity. Retry after 40 seconds.",
        retry_after_secs=40.0),
    "openrouter_error_moderation_403.json": Failure(
        "ContentFilterError", 403, None,
        "Your chosen model requires moderation and your input was flagged"),
    "openrouter_http200_choice_error.json": Failure(
        "ServerError", 200, "provider_unavailable", "Provider disconnected mid-stream",
        partial="Partial outp"),
    "openrouter_http200_top_level_error.json": Failure(
        "ServerError", 200, "provider_unavailable",
        "Provider returned error (upstream: upstream connect error)"),
    "responses_error_context_length.json": Failure(
        "ContextLengthError", 400, "context_length_exceeded",
        "Your input exceeds the context window of this model."),
    "responses_error_encrypted_content.json": Failure(
        "BadRequestError", 400, "invalid_encrypted_content",
        "Reason: Encrypted content could not be decrypted or parsed."),
    "responses_error_item_id_prefix.json": Failure(
        "BadRequestError", 400, "invalid_value",
        "Invalid 'input[2].id': 'call_N1'. Expected an ID that begins with 'fc'."),
    "responses_error_item_not_persisted_404.json": Failure(
        "NotFoundError", 404, "invalid_request_error",
        "not found. Items are not persisted when `store` is set to false."),
    "responses_error_min_output_tokens.json": Failure(
        "BadRequestError", 400, "integer_below_min_value",
        "integer below minimum value. Expected a value >= 16, but got 5 instead."),
    "responses_error_no_tool_output.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "No tool output found for function call call_N1."),
    "responses_error_orphan_function_call.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "of type 'function_call' was provided without its required 'reasoning' item"),
    "responses_error_orphan_reasoning.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "of type 'reasoning' was provided without its required following item."),
    "responses_error_unsupported_parameter.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "Unsupported parameter: 'temperature' is not supported with this model."),
    "responses_failed.json": Failure(
        "ServerError", 200, "server_error",
        "The server had an error processing your request. Sorry about that!"),
    "responses_llamacpp_error_previous_response_id.json": Failure(
        "BadRequestError", 400, "invalid_request_error",
        "llama.cpp does not support 'previous_response_id'."),
    "responses_openrouter_error_prompt.json": Failure(
        "BadRequestError", 400, "invalid_prompt", "Model openai/gpt-none is not available"),
}  # fmt: skip

BROKEN_STREAMS = {
    "anthropic_stream_error_midway.sse": Failure(
        "OverloadedError", 200, "overloaded_error", "Overloaded",
        request_id="req_011CTsampleMid00000000001", partial="The first"),
    "compat_llamacpp_stream_data_error.sse": Failure(
        "ContextLengthError", 200, "server_error", "Context size has been exceeded.",
        partial="def f"),
    "compat_llamacpp_stream_error_field.sse": Failure(
        "ContextLengthError", 200, "exceed_context_size_error",
        "the request exceeds the available context size. "
        "try increasing the context size or enable context shift"),
    "completions_vllm_stream_error_midway.sse": Failure(
        "ServerError", 200, "InternalServerError", "Internal server error", partial="Low water"),
    "completions_vllm_stream_truncated.sse": Failure(
        "IncompleteStreamError", None, None, "", partial="Low water at"),
    "openai_stream_error_midway.sse": Failure(
        "ServerError", 200, "server_error",
        "The server had an error while processing your request. Sorry about that!",
        partial="The first"),
    "openai_stream_truncated.sse": Failure(
        "IncompleteStreamError", None, None, "", partial="Cut off"),
    "openrouter_midstream_error.sse": Failure(
        "RateLimitError", 200, "rate_limit_exceeded", "Rate limit exceeded", partial="The first"),
    "openrouter_midstream_error_empty_choices.sse": Failure(
        "ServerError", 200, "provider_unavailable", "Upstream worker at capacity"),
    "responses_stream_error_flat.sse": Failure(
        "ServerError", 200, "server_error",
        "The server had an error while processing your request. Sorry about that!",
        partial="High water"),
    "responses_stream_error_nested_then_failed.sse": Failure(
        "BillingError", 200, "insufficient_quota", "You exceeded your current quota"),
    "responses_stream_failed_midway.sse": Failure(
        "RateLimitError", 200, "rate_limit_exceeded", "Rate limit reached for gpt-5.6-terra",
        retry_after_secs=1.8, partial="High water"),
    "responses_stream_truncated.sse": Failure(
        "IncompleteStreamError", None, None, "", partial="Two high wat"),
    "responses_stream_truncated_after_item_done.sse": Failure(
        "IncompleteStreamError", None, None, "", partial="Two high waters."),
    "responses_stream_truncated_in_arguments.sse": Failure("IncompleteStreamError", None, None, ""),
}  # fmt: skip
