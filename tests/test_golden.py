"""Recorded answers of real servers give the right response or the right typed error."""

from __future__ import annotations

from decimal import Decimal

import pytest

import minillmlib
from conftest import GOLDEN, golden_generator
from minillmlib import ChatNode, CostResolution, FinishReason, IncompleteStreamError, Usage
from minillmlib.testing import ScriptedReply, ScriptedTransport

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
TOOLS, FILTER, PAUSE = FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER, FinishReason.PAUSE


def usage(uncached, read, write, completion, reasoning=0, cost=None):
    return Usage(
        uncached_input_tokens=uncached,
        cache_read_tokens=read,
        cache_write_tokens=write,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
        native_cost=None if cost is None else Decimal(cost),
    )


# file: text, finish reason, the wire's word for it, usage
ANSWERS = {
    "anthropic_text.json": (
        "The tide table lists two highs on Tuesday.", STOP, "end_turn", usage(41, 0, 0, 12)),
    "anthropic_cache_usage.json": (
        "Clause 14 caps liability at twelve months of fees.", STOP, "end_turn",
        usage(37, 18240, 2816, 512, 384)),
    "anthropic_prewarm_max_tokens_0.json": ("", LENGTH, "max_tokens", usage(6, 0, 7421, 0)),
    "anthropic_refusal.json": (
        "The request could enable harm to computer systems.", FILTER, "refusal",
        usage(204, 0, 0, 0)),
    "compat_deepseek_usage.json": ("21", STOP, "stop", usage(276, 1024, 0, 40, 32)),
    "compat_llamacpp_anthropic_skin.json": (
        "alpha beta ", STOP, "end_turn", usage(8, 19, 0, 4)),
    "compat_llamacpp_prefill_echo.json": (
        "Planets:\n- Mercury\n- Venus", STOP, "stop", usage(9, 22, 0, 7)),
    "openai_text.json": ("Two high waters on Tuesday.", STOP, "stop", usage(27, 0, 0, 6)),
    "openai_length.json": ("", LENGTH, "length", usage(80, 0, 0, 64, 64)),
    "openai_refusal.json": (
        "I can't help with that request.", FILTER, "stop", usage(63, 0, 0, 11)),
    "openai_cache_usage.json": (
        "Capped at twelve months.", STOP, "stop", usage(256, 7168, 1792, 148, 96)),
    "openai_tool_calls_parallel.json": ("", TOOLS, "tool_calls", usage(140, 0, 0, 52)),
    "openai_forced_tool_finish_stop.json": ("", TOOLS, "stop", usage(120, 0, 0, 18)),
    "openrouter_byok_cost.json": (
        "ok", STOP, "stop", usage(9171, 0, 0, 113, 55, "0.037883475")),
    "openrouter_claude_cache_cost.json": (
        "Clause 14 caps liability.", STOP, "end_turn", usage(500, 8000, 2000, 320, 120, "0.0162")),
    "openrouter_claude_refusal_content_filter.json": (
        "", FILTER, "refusal", usage(58, 0, 0, 0, 0, "0")),
    "openrouter_image_output.json": (
        "Here it is.", STOP, "STOP", usage(14, 0, 0, 1302, 0, "0.0391")),
    "openrouter_web_annotations.json": (
        "High water is at 12:31 [example.org].", STOP, "stop", usage(2100, 0, 0, 40, 0, "0.0121")),
    "anthropic_stream_text.sse": (
        "Low water at 06:12.", STOP, "end_turn", usage(25, 4096, 0, 9)),
    "anthropic_stream_thinking_omitted.sse": (
        "12,231", STOP, "end_turn", usage(88, 0, 0, 341, 334)),
    "anthropic_stream_thinking_summarized.sse": (
        "gcd = 21", STOP, "end_turn", usage(88, 0, 0, 210)),
    "anthropic_stream_tool_use.sse": (
        "Reading the gauges.", TOOLS, "tool_use", usage(472, 0, 1500, 96)),
    "anthropic_stream_pause_turn_server_tool.sse": (
        "", PAUSE, "pause_turn", usage(310, 0, 0, 44)),
    "anthropic_beta_stream_fallback.sse": (
        "Here is a safe overview.", STOP, "end_turn", usage(535, 0, 0, 64)),
    "compat_llamacpp_prefill_stream_no_echo.sse": (
        " Mercury\n- Venus", STOP, "stop", None),
    "compat_llamacpp_stream_n2_order.sse": ("coffee", LENGTH, "length", usage(1, 17, 0, 2)),
    "compat_llamacpp_stream_usage_same_chunk.sse": (
        "Hi", LENGTH, "length", usage(43, 0, 0, 1)),
    "compat_mistral_stream_last_chunk_content.sse": (
        "Bonjour.", STOP, "stop", usage(8, 0, 0, 4)),
    "compat_vllm_stream_continuous_usage.sse": ("ok", STOP, "stop", usage(9, 0, 0, 3)),
    "openai_stream_usage.sse": ("Low water at 06:12.", STOP, "stop", usage(84, 1536, 0, 9)),
    "openai_stream_tool_calls.sse": ("", TOOLS, "tool_calls", usage(140, 0, 0, 61)),
    "openrouter_stream_debug_first_chunk.sse": (
        "ok", STOP, "end_turn", usage(9, 0, 0, 2, 0, "0.00006")),
    "openrouter_stream_usage_empty_choices.sse": (
        "ok", STOP, "end_turn", usage(11, 0, 0, 2, 0, "0.000063")),
    "sse_framing_edge_cases.sse": (
        "Aline\u2028sep\x85end", STOP, "stop", None),
}  # fmt: skip

# file: the status it comes with, the error, its code, the wait it asks for
FAILURES = {
    "anthropic_error_overloaded.json": (529, "OverloadedError", "overloaded_error", None),
    "anthropic_error_prefill.json": (400, "BadRequestError", "invalid_request_error", None),
    "anthropic_error_prompt_too_long.json": (
        400, "ContextLengthError", "invalid_request_error", None),
    "anthropic_error_rate_limit.json": (429, "RateLimitError", "rate_limit_error", None),
    "compat_fastapi_detail_422.json": (422, "BadRequestError", None, None),
    "compat_gemini_error_array.json": (400, "BadRequestError", "INVALID_ARGUMENT", None),
    "compat_llamacpp_error_context.json": (
        400, "ContextLengthError", "exceed_context_size_error", None),
    "compat_llamacpp_error_loading_503.json": (
        503, "ModelLoadingError", "unavailable_error", None),
    "compat_mistral_error_object_message.json": (
        422, "BadRequestError", "invalid_request_error", None),
    "compat_mistral_error_tool_id.json": (400, "BadRequestError", "invalid_request_error", None),
    "openai_error_context_length.json": (
        400, "ContextLengthError", "context_length_exceeded", None),
    "openai_error_insufficient_quota.json": (429, "BillingError", "insufficient_quota", None),
    "openai_error_rate_limit.json": (429, "RateLimitError", "rate_limit_exceeded", None),
    "openai_error_tools_with_reasoning_effort.json": (
        400, "BadRequestError", "invalid_request_error", None),
    "openrouter_error_402.json": (402, "BillingError", "payment_required", None),
    "openrouter_error_429_availability.json": (429, "RateLimitError", "rate_limit_exceeded", 40.0),
    "openrouter_error_moderation_403.json": (403, "ContentFilterError", None, None),
    "openrouter_http200_choice_error.json": (200, "ServerError", "provider_unavailable", None),
    "openrouter_http200_top_level_error.json": (200, "ServerError", "provider_unavailable", None),
}  # fmt: skip

# file: the error, the text that had arrived
BROKEN_STREAMS = {
    "anthropic_stream_error_midway.sse": ("OverloadedError", "The first"),
    "compat_llamacpp_stream_data_error.sse": ("ContextLengthError", "def f"),
    "compat_llamacpp_stream_error_field.sse": ("ContextLengthError", ""),
    "openai_stream_error_midway.sse": ("ServerError", "The first"),
    "openai_stream_truncated.sse": ("IncompleteStreamError", "Cut off"),
    "openrouter_midstream_error.sse": ("RateLimitError", "The first"),
    "openrouter_midstream_error_empty_choices.sse": ("ServerError", ""),
}

# file: the calls it makes, as id, name, arguments
CALLS = {
    "openai_forced_tool_finish_stop.json": [
        ("call_Gg7Hh8Ii9", "read_gauge", '{"station":"mole"}')],
    "openai_tool_calls_parallel.json": [
        ("call_Aa1Bb2Cc3", "read_gauge", '{"station":"north pier"}'),
        ("call_Dd4Ee5Ff6", "list_stations", "{}")],
    "openai_stream_tool_calls.sse": [
        ("call_N1", "read_gauge", '{"station":"north pier"}'),
        ("call_S2", "read_gauge", '{"station":"south pier"}')],
    "anthropic_stream_tool_use.sse": [
        ("toolu_01Hn5bQxRk2mYtW8vLcPz4Ds", "read_gauge", '{"station": "north pier"}'),
        ("toolu_01Zv3sGfJq7aNwEu5rKbXy9T", "list_stations", "{}")],
}  # fmt: skip


def reply_of(name: str, status: int = 200) -> ScriptedReply:
    data = (GOLDEN / name).read_bytes()
    return (
        ScriptedReply.events(data)
        if name.endswith(".sse")
        else ScriptedReply.json(data, status=status)
    )


def test_every_golden_file_has_an_expectation():
    names = {path.name for path in GOLDEN.iterdir()}
    assert names == ANSWERS.keys() | FAILURES.keys() | BROKEN_STREAMS.keys()
    assert names >= CALLS.keys()


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_read_to_the_last_token(name):
    text, finish, raw_finish, counts = ANSWERS[name]
    root = ChatNode.root("Be brief.")
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    if name.endswith(".sse"):
        async with root.chat_streaming("Hi", generator) as stream:
            pieces = [chunk.delta or chunk.refusal or "" async for chunk in stream]
        answer = stream.node
        assert "".join(pieces) == text
    else:
        answer = await root.chat("Hi", generator)
    response = answer.response
    assert (answer.text or "", response.finish_reason) == (text, finish)
    assert response.raw_finish_reason == raw_finish
    assert response.usage == counts
    calls = [(call.id, call.name, call.arguments) for call in response.tool_calls]
    assert calls == CALLS.get(name, [])
    assert answer.tool_calls == response.tool_calls
    assert response.id
    assert response.model


@pytest.mark.parametrize("name", [name for name in ANSWERS if name.endswith(".json")])
async def test_a_whole_answer_to_a_streaming_request_is_delivered_as_one_chunk(name):
    text, finish, _, counts = ANSWERS[name]
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    async with ChatNode.root("Be brief.").chat_streaming("Hi", generator) as stream:
        chunks = [chunk async for chunk in stream]
    assert len(chunks) == 1
    assert (stream.response.text, stream.response.finish_reason) == (text, finish)
    assert stream.response.usage == counts
    assert len(stream.node.tool_calls) == len(CALLS.get(name, []))


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_an_error_answer_is_the_right_error(name, streaming):
    status, kind, code, retry_after = FAILURES[name]
    root = ChatNode.root("Be brief.")
    transport = ScriptedTransport([reply_of(name, status)])
    generator = golden_generator(name).with_transport(transport)
    with pytest.raises(minillmlib.ApiError) as caught:
        if streaming:
            await anext(root.chat_streaming("Hi", generator))
        else:
            await root.chat("Hi", generator)
    error = caught.value
    assert type(error).__name__ == kind
    assert (error.status, error.code, error.retry_after_secs) == (status, code, retry_after)
    assert error.is_retryable == (kind in RETRYABLE)
    assert root.children() == []


RETRYABLE = {"OverloadedError", "RateLimitError", "ServerError", "ModelLoadingError"}


def test_an_error_inside_a_choice_keeps_the_partial_text():
    name = "openrouter_http200_choice_error.json"
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    with pytest.raises(minillmlib.ServerError) as caught:
        minillmlib.run(ChatNode.root("Be brief.").chat("Hi", generator))
    assert caught.value.partial == "Partial outp"


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_a_broken_stream_is_an_error_that_carries_the_text_so_far(name):
    kind, partial = BROKEN_STREAMS[name]
    root = ChatNode.root("Be brief.")
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    delivered = []
    with pytest.raises(minillmlib.MiniLLMError) as caught:
        async with root.chat_streaming("Hi", generator) as stream:
            async for chunk in stream:
                delivered.append(chunk.delta)
    assert type(caught.value).__name__ == kind
    assert caught.value.partial == partial == "".join(delivered)
    assert root.children() == []


async def test_a_resolved_cost_comes_from_the_provider_or_a_price_and_else_is_unpriced():
    name = "openai_text.json"
    price = minillmlib.TokenPrice("1", "5")
    for generator, resolution, cost in [
        (golden_generator(name), CostResolution.UNPRICED, "0"),
        (golden_generator(name).with_token_price(price), CostResolution.RESOLVED, "0.000057"),
    ]:
        scripted = generator.with_transport(ScriptedTransport([reply_of(name)]))
        answer = await ChatNode.root("Be brief.").chat("Hi", scripted)
        assert answer.response.cost.resolution is resolution
        assert answer.response.cost.cost == Decimal(cost)


STREAMS = [name for name in ANSWERS | BROKEN_STREAMS if name.endswith(".sse")]


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("breaks_off", [False, True], ids=["clean end", "broken connection"])
async def test_a_stream_cut_anywhere_is_never_a_success_before_its_end_signal(name, breaks_off):
    data = (GOLDEN / name).read_bytes()
    text = ANSWERS[name][0] if name in ANSWERS else BROKEN_STREAMS[name][1]
    finishes_at = end_signal_of(name, data)
    for cut in range(len(data)):
        root = ChatNode.root("Be brief.")
        reply = ScriptedReply.events(data[:cut], breaks_off=breaks_off)
        generator = golden_generator(name).with_transport(ScriptedTransport([reply]))
        delivered = []
        try:
            async for chunk in root.chat_streaming("Hi", generator):
                delivered.append(chunk.delta)
        except minillmlib.MiniLLMError as error:
            assert cut < finishes_at or name in BROKEN_STREAMS, f"no success when cut at {cut}"
            assert error.partial == "".join(delivered)
            assert root.children() == []
            kinds = (minillmlib.ReadError, minillmlib.ApiError, IncompleteStreamError)
            assert isinstance(error, kinds)
        else:
            assert cut >= finishes_at, f"a success when cut at {cut} of {finishes_at}"
            assert len(root.children()) == 1
        assert text.startswith("".join(delivered))


def end_signal_of(name: str, data: bytes) -> int:
    """Where the event that holds the finish reason has ended, read off the bytes by hand."""
    if name in BROKEN_STREAMS:
        return len(data)
    word = b'"stop_reason":"' if name.startswith("anthropic") else b'"finish_reason":"'
    return data.index(b"\n\n", data.rindex(word)) + 2
