"""Records of token counts as vendors send them, with the buckets and the bill worked out by hand.

Use it to check what usage costs. A price is in dollars per million tokens, so tokens times price are
millionths of a dollar; the sums stand above each bill. A bill of None is one that the price cannot
give.
"""

from __future__ import annotations

from typing import NamedTuple

from bill_wires import Record
from golden_expected import usage

from minillmlib import TokenPrice, Usage

PLAIN = TokenPrice(1, 5)
FREE = TokenPrice(0, 0)
SONNET_5M = TokenPrice(3, 15, cache_read="0.3", cache_write="3.75")
SONNET = SONNET_5M.with_cache_rates("0.3", "3.75", 6)
HAIKU = TokenPrice(
    "0.1", "0.5", cache_read="0.01", cache_write="0.125", threshold=100_000,
    next_tier=TokenPrice("0.5", "2.5", cache_read="0.05", cache_write="0.625", cache_write_1h=1),
)  # fmt: skip
GPT = TokenPrice("1.25", 10, cache_read="0.125", cache_write="1.5625")
DEEPSEEK = TokenPrice("0.28", "0.42", cache_read="0.028")
GROK = TokenPrice("0.2", "0.5", cache_read="0.05")
GEMINI = TokenPrice(
    "1.25", 10, cache_read="0.31", threshold=200_000,
    next_tier=TokenPrice("2.5", 15, cache_read="0.625"),
)  # fmt: skip
GROQ = TokenPrice("0.59", "0.79")
MISTRAL = TokenPrice(2, 6)


class Bill(NamedTuple):
    """The counts of one request: a record of a whole body, or those of a stream in their order."""

    wire: str
    records: Record | list[Record]
    price: TokenPrice | None
    buckets: Usage
    cost: str | None


def claude(
    fresh: int, output: int, read: int = 0, for_5m: int = 0, for_1h: int = 0, **more
) -> Record:
    """Anthropic's record with the counts of both lifetimes."""
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": for_5m + for_1h,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": for_5m,
            "ephemeral_1h_input_tokens": for_1h,
        },
        "output_tokens": output,
        "service_tier": "standard",
    } | more


def chat(prompt: int, completion: int, total: int | None = None, **more) -> Record:
    """OpenAI's record, with a total unless it is None."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return counts | ({} if total is None else {"total_tokens": total}) | more


def cached(read: int, written: int | None = None) -> Record:
    details = {"cached_tokens": read, "audio_tokens": 0}
    return details if written is None else details | {"cache_write_tokens": written}


def thought(tokens: int) -> Record:
    return {"reasoning_tokens": tokens, "audio_tokens": 0, "accepted_prediction_tokens": 0}


def answered(
    fresh: int, output: int, read: int = 0, written: int | None = None, thoughts: int = 0, **more
) -> Record:
    """OpenAI's record on the Responses wire: the input holds what the cache read and wrote."""
    details = {"cached_tokens": read} | ({} if written is None else {"cache_write_tokens": written})
    total = fresh + read + (written or 0)
    return {
        "input_tokens": total,
        "input_tokens_details": details,
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": thoughts},
        "total_tokens": total + output,
    } | more


ANTHROPIC = {
    "Claude without a cache": Bill("anthropic", {"input_tokens": 41, "output_tokens": 12},
        # 41 x 3 + 12 x 15 = 123 + 180
        SONNET, usage(41, 0, 0, 12), "0.000303"),
    "Claude reads a cache and thinks": Bill("anthropic",
        claude(37, 512, 18240, output_tokens_details={"thinking_tokens": 384}),
        # 37 x 3 + 18240 x 0.3 + 512 x 15 = 111 + 5472 + 7680
        SONNET, usage(37, 18240, 0, 512, 384), "0.013263"),
    "Claude writes for five minutes": Bill("anthropic", claude(6, 210, 0, 7421),
        # 6 x 3 + 7421 x 3.75 + 210 x 15 = 18 + 27828.75 + 3150
        SONNET, usage(6, 0, 7421, 210), "0.03099675"),
    "Claude only warms a cache for an hour": Bill("anthropic", claude(6, 0, for_1h=7421),
        # 6 x 3 + 7421 x 6 = 18 + 44526
        SONNET, usage(6, 0, 7421, 0, for_1h=7421), "0.044544"),
    "Claude writes for both lifetimes": Bill("anthropic", claude(37, 512, 18240, 768, 2048),
        # 37 x 3 + 18240 x 0.3 + 768 x 3.75 + 2048 x 6 + 512 x 15 = 111 + 5472 + 2880 + 12288 + 7680
        SONNET, usage(37, 18240, 2816, 512, for_1h=2048), "0.028431"),
    "an hour's tokens without a rate": Bill("anthropic", claude(37, 512, 18240, 768, 2048),
        SONNET_5M, usage(37, 18240, 2816, 512, for_1h=2048), None),
    "no hour's tokens need no rate": Bill("anthropic", claude(37, 512, 18240, 768),
        # 37 x 3 + 18240 x 0.3 + 768 x 3.75 + 512 x 15 = 111 + 5472 + 2880 + 7680
        SONNET_5M, usage(37, 18240, 768, 512), "0.016143"),
    "Claude writes and tells no lifetimes": Bill("anthropic", {
        "input_tokens": 37, "cache_creation_input_tokens": 2816, "cache_read_input_tokens": 0,
        "cache_creation": None, "output_tokens": 10},
        # 37 x 3 + 2816 x 3.75 + 10 x 15 = 111 + 10560 + 150
        SONNET, usage(37, 0, 2816, 10), "0.010821"),
    "Claude with null for every detail": Bill("anthropic", {
        "input_tokens": 100, "cache_creation_input_tokens": None, "cache_read_input_tokens": None,
        "cache_creation": None, "output_tokens": 20, "output_tokens_details": None,
        "server_tool_use": None, "iterations": None},
        # 100 x 3 + 20 x 15
        SONNET, usage(100, 0, 0, 20), "0.0006"),
    "Claude with null for each lifetime": Bill("anthropic", {
        "input_tokens": 100, "cache_creation": {"ephemeral_5m_input_tokens": None},
        "output_tokens": 20, "output_tokens_details": {"thinking_tokens": None}},
        # 100 x 3 + 20 x 15
        SONNET, usage(100, 0, 0, 20), "0.0006"),
    "web searches": Bill("anthropic", claude(1000, 100, server_tool_use={
        "web_search_requests": 2, "web_fetch_requests": 1}),
        SONNET, usage(1000, 0, 0, 100, beside="web searches: 2"), None),
    "fetched pages have no fee": Bill("anthropic", claude(1000, 100, server_tool_use={
        "web_search_requests": 0, "web_fetch_requests": 3}),
        # 1000 x 3 + 100 x 15
        SONNET, usage(1000, 0, 0, 100), "0.0045"),
    "Claude without a price": Bill("anthropic", claude(37, 512, 18240),
        None, usage(37, 18240, 0, 512), None),
    "Claude for nothing": Bill("anthropic", claude(37, 512, 18240, 768),
        FREE, usage(37, 18240, 768, 512), "0"),
    "Haiku at the threshold": Bill("anthropic", claude(40_000, 1000, 50_000, 10_000),
        # 40000 x 0.1 + 50000 x 0.01 + 10000 x 0.125 + 1000 x 0.5 = 4000 + 500 + 1250 + 500
        HAIKU, usage(40_000, 50_000, 10_000, 1000), "0.00625"),
    "Haiku one token above it": Bill("anthropic", claude(40_000, 1000, 50_001, 10_000),
        # 40000 x 0.5 + 50001 x 0.05 + 10000 x 0.625 + 1000 x 2.5 = 20000 + 2500.05 + 6250 + 2500
        HAIKU, usage(40_000, 50_001, 10_000, 1000), "0.03125005"),
    "an hour's tokens have a rate only above": Bill("anthropic", claude(1, 0, for_1h=100_000),
        # 1 x 0.5 + 100000 x 1
        HAIKU, usage(1, 0, 100_000, 0, for_1h=100_000), "0.1000005"),
    "an hour's tokens have no rate below": Bill("anthropic", claude(0, 0, for_1h=100_000),
        HAIKU, usage(0, 0, 100_000, 0, for_1h=100_000), None),
}  # fmt: skip

ANTHROPIC_STREAMS = {
    "the input first, the output last": Bill("anthropic", [
        claude(25, 1, 4096), {"output_tokens": 9}],
        # 25 x 3 + 4096 x 0.3 + 9 x 15 = 75 + 1228.8 + 135
        SONNET, usage(25, 4096, 0, 9), "0.0014388"),
    "counts grow and are not added": Bill("anthropic", [
        {"input_tokens": 472, "cache_creation_input_tokens": 1500, "output_tokens": 3},
        {"output_tokens": 40}, {"output_tokens": 96}],
        # 472 x 3 + 1500 x 3.75 + 96 x 15 = 1416 + 5625 + 1440
        SONNET, usage(472, 0, 1500, 96), "0.008481"),
    "the last event repeats everything": Bill("anthropic", [
        claude(472, 3, 200, 1500), claude(472, 96, 200, 1500), claude(472, 96, 200, 1500)],
        # 472 x 3 + 200 x 0.3 + 1500 x 3.75 + 96 x 15 = 1416 + 60 + 5625 + 1440
        SONNET, usage(472, 200, 1500, 96), "0.008541"),
    "a gateway counts the cache late": Bill("anthropic", [
        {"input_tokens": 120, "output_tokens": 0},
        {"input_tokens": 120, "cache_read_input_tokens": 3000, "cache_creation_input_tokens": 600,
         "output_tokens": 44}],
        # 120 x 3 + 3000 x 0.3 + 600 x 3.75 + 44 x 15 = 360 + 900 + 2250 + 660
        SONNET, usage(120, 3000, 600, 44), "0.00417"),
    "a gateway counts only the cache late": Bill("anthropic", [
        {"input_tokens": 120, "cache_read_input_tokens": None, "output_tokens": 0},
        {"cache_read_input_tokens": 3000, "output_tokens": 44}],
        # 120 x 3 + 3000 x 0.3 + 44 x 15 = 360 + 900 + 660
        SONNET, usage(120, 3000, 0, 44), "0.00192"),
    "a gateway corrects what it first took for fresh": Bill("anthropic", [
        {"input_tokens": 5000, "output_tokens": 1},
        {"input_tokens": 1000, "cache_read_input_tokens": 4000, "output_tokens": 7}],
        # 1000 x 3 + 4000 x 0.3 + 7 x 15 = 3000 + 1200 + 105
        SONNET, usage(1000, 4000, 0, 7), "0.004305"),
    "a gateway begins with zeros": Bill("anthropic", [
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": 700, "cache_read_input_tokens": 300, "output_tokens": 50}],
        # 700 x 3 + 300 x 0.3 + 50 x 15 = 2100 + 90 + 750
        SONNET, usage(700, 300, 0, 50), "0.00294"),
    "lifetimes are told only first": Bill("anthropic", [
        claude(10, 1, 0, 1000, 2000),
        {"input_tokens": 10, "cache_creation_input_tokens": 3000, "output_tokens": 20}],
        # 10 x 3 + 1000 x 3.75 + 2000 x 6 + 20 x 15 = 30 + 3750 + 12000 + 300
        SONNET, usage(10, 0, 3000, 20, for_1h=2000), "0.01608"),
    "an hour's tokens told first, without a rate": Bill("anthropic", [
        claude(10, 1, 0, 1000, 2000), {"output_tokens": 20}],
        SONNET_5M, usage(10, 0, 3000, 20, for_1h=2000), None),
    "null in the last event takes nothing back": Bill("anthropic", [
        claude(88, 1, 50),
        {"input_tokens": None, "cache_read_input_tokens": None, "cache_creation_input_tokens": None,
         "output_tokens": 341, "output_tokens_details": {"thinking_tokens": 334}}],
        # 88 x 3 + 50 x 0.3 + 341 x 15 = 264 + 15 + 5115
        SONNET, usage(88, 50, 0, 341, 334), "0.005394"),
    "web searches told last": Bill("anthropic", [
        claude(310, 1), {"output_tokens": 44, "server_tool_use": {"web_search_requests": 1}}],
        SONNET, usage(310, 0, 0, 44, beside="web searches: 1"), None),
    "web searches told once": Bill("anthropic", [
        claude(310, 1), {"output_tokens": 44, "server_tool_use": {"web_search_requests": 3}},
        {"output_tokens": 60}],
        SONNET, usage(310, 0, 0, 60, beside="web searches: 3"), None),
}  # fmt: skip

COMPACTED = claude(5000, 300, iterations=[
    claude(160_000, 2000, type="compaction"), claude(5000, 300, type="message")])  # fmt: skip
LOOPED = claude(130, 130, 4500, 500, iterations=[
    claude(100, 50, 2000, 500, type="message", model="sonnet"),
    claude(30, 80, 2500, type="message", model="sonnet")])  # fmt: skip
FELL_BACK = claude(412, 64, iterations=[
    claude(535, 0, type="message", model="fable"),
    claude(412, 64, type="fallback_message", model="opus")])  # fmt: skip
THOUGHT_IN_A_LOOP = LOOPED | {"output_tokens_details": {"thinking_tokens": 90}}

ITERATIONS = {
    # 160000 + 5000 in and 2000 + 300 out: 165000 x 1 + 2300 x 5 = 165000 + 11500
    "a compaction": Bill("anthropic", COMPACTED, PLAIN, usage(165_000, 0, 0, 2300), "0.1765"),
    "a compaction told last": Bill("anthropic", [
        {"input_tokens": 5000, "output_tokens": 1}, {"output_tokens": 300}, COMPACTED],
        PLAIN, usage(165_000, 0, 0, 2300), "0.1765"),
    "a loop of one model": Bill("anthropic", LOOPED,
        # 130 x 3 + 4500 x 0.3 + 500 x 3.75 + 130 x 15 = 390 + 1350 + 1875 + 1950
        SONNET, usage(130, 4500, 500, 130), "0.005565"),
    "a loop of one model that thinks": Bill("anthropic", THOUGHT_IN_A_LOOP,
        # As above: thoughts are a part of the output.
        SONNET, usage(130, 4500, 500, 130, 90), "0.005565"),
    "no iterations at all": Bill("anthropic", claude(41, 12, iterations=[]),
        # 41 x 3 + 12 x 15 = 123 + 180
        SONNET, usage(41, 0, 0, 12), "0.000303"),
    "a fallback to another model": Bill("anthropic", FELL_BACK,
        SONNET, usage(947, 0, 0, 64, beside="several models: fable, opus"), None),
    "a fallback told last": Bill("anthropic", [claude(535, 0), FELL_BACK],
        SONNET, usage(947, 0, 0, 64, beside="several models: fable, opus"), None),
    "several models for nothing": Bill("anthropic", FELL_BACK,
        FREE, usage(947, 0, 0, 64, beside="several models: fable, opus"), None),
}  # fmt: skip

LOCAL = {
    "DeepSeek on Anthropic's wire": Bill("anthropic", claude(20, 24, 128),
        # 20 x 0.28 + 128 x 0.028 + 24 x 0.42 = 5.6 + 3.584 + 10.08
        DEEPSEEK, usage(20, 128, 0, 24), "0.000019264"),
    "llama.cpp speaks like Anthropic": Bill("llama.cpp as anthropic", {
        "cache_read_input_tokens": 19, "input_tokens": 8, "output_tokens": 4},
        FREE, usage(8, 19, 0, 4), "0"),
    "a cache without a rate costs like input": Bill("llama.cpp as anthropic", {
        "cache_read_input_tokens": 19, "input_tokens": 8, "output_tokens": 4},
        # (8 + 19) x 1 + 4 x 5 = 27 + 20
        PLAIN, usage(8, 19, 0, 4), "0.000047"),
    "all of it cached": Bill("llama.cpp as anthropic", {
        "cache_read_input_tokens": 27, "input_tokens": 0, "output_tokens": 4},
        # 27 x 1 + 4 x 5
        PLAIN, usage(0, 27, 0, 4), "0.000047"),
    "llama.cpp with its cache": Bill("llama.cpp", chat(31, 7, 38, prompt_tokens_details={
        "cached_tokens": 22}),
        FREE, usage(9, 22, 0, 7), "0"),
    "llama.cpp of old": Bill("llama.cpp", chat(43, 1, 44),
        # 43 x 1 + 1 x 5
        PLAIN, usage(43, 0, 0, 1), "0.000048"),
    "vLLM counts in every chunk": Bill("vllm", [
        chat(9, done, 9 + done, prompt_tokens_details=None) for done in (0, 1, 2, 3)],
        # 9 x 1 + 3 x 5
        PLAIN, usage(9, 0, 0, 3), "0.000024"),
    "vLLM with details": Bill("vllm", chat(100, 5, 105, prompt_tokens_details={
        "cached_tokens": 64}),
        # 36 x 2 + 64 x 2 + 5 x 6 = 72 + 128 + 30: no rate of its own for what was read
        MISTRAL, usage(36, 64, 0, 5), "0.00023"),
}  # fmt: skip

OPENAI = {
    "OpenAI without details": Bill("openai", chat(27, 6, 33),
        # 27 x 1.25 + 6 x 10 = 33.75 + 60
        GPT, usage(27, 0, 0, 6), "0.00009375"),
    "OpenAI reads and writes a cache": Bill("openai", chat(9216, 148, 9364,
        prompt_tokens_details=cached(7168, 1792), completion_tokens_details=thought(96)),
        # 256 x 1.25 + 7168 x 0.125 + 1792 x 1.5625 + 148 x 10 = 320 + 896 + 2800 + 1480
        GPT, usage(256, 7168, 1792, 148, 96), "0.005496"),
    "OpenAI at plain rates": Bill("openai", chat(9216, 148, 9364,
        prompt_tokens_details=cached(7168, 1792), completion_tokens_details=thought(96)),
        # 9216 x 1 + 148 x 5 = 9216 + 740
        PLAIN, usage(256, 7168, 1792, 148, 96), "0.009956"),
    "null details": Bill("openai", chat(63, 11, 74,
        prompt_tokens_details=None, completion_tokens_details=None),
        # 63 x 1.25 + 11 x 10 = 78.75 + 110
        GPT, usage(63, 0, 0, 11), "0.00018875"),
    "null in the details": Bill("openai", chat(80, 64, 144,
        prompt_tokens_details={"cached_tokens": None, "cache_write_tokens": None},
        completion_tokens_details={"reasoning_tokens": None}),
        # 80 x 1.25 + 64 x 10 = 100 + 640
        GPT, usage(80, 0, 0, 64), "0.00074"),
    "empty details": Bill("openai", chat(80, 64, 144,
        prompt_tokens_details={}, completion_tokens_details={}),
        # 80 x 1.25 + 64 x 10 = 100 + 640
        GPT, usage(80, 0, 0, 64), "0.00074"),
    "rejected predictions are written, too": Bill("openai", chat(200, 90, 290,
        completion_tokens_details=thought(0) | {"rejected_prediction_tokens": 30}),
        # 200 x 1.25 + 90 x 10 = 250 + 900
        GPT, usage(200, 0, 0, 90), "0.00115"),
    "all of it thought": Bill("openai", chat(80, 64, 144, completion_tokens_details=thought(64)),
        # 80 x 1.25 + 64 x 10 = 100 + 640
        GPT, usage(80, 0, 0, 64, 64), "0.00074"),
    "the whole prompt cached": Bill("openai", chat(1024, 1, 1025,
        prompt_tokens_details=cached(1024)),
        # 1024 x 0.125 + 1 x 10 = 128 + 10
        GPT, usage(0, 1024, 0, 1), "0.000138"),
    "without a total": Bill("openai", chat(50, 10),
        # 50 x 1.25 + 10 x 10 = 62.5 + 100
        GPT, usage(50, 0, 0, 10), "0.0001625"),
    "OpenAI without a price": Bill("openai", chat(9216, 148, 9364,
        prompt_tokens_details=cached(7168, 1792)),
        None, usage(256, 7168, 1792, 148), None),
}  # fmt: skip


def routed(cost: float | None, upstream: float | None = None, **more) -> Record:
    """OpenRouter's fields for the money."""
    return {"cost": cost, "cost_details": {"upstream_inference_cost": upstream}} | more


OPENROUTER = {
    "OpenRouter's cost stands before a price": Bill("openrouter", chat(10500, 320, 10820,
        prompt_tokens_details=cached(8000, 2000), completion_tokens_details=thought(120),
        **routed(0.0162, 0.0162, is_byok=False)),
        SONNET, usage(500, 8000, 2000, 320, 120, cost="0.0162"), "0.0162"),
    "a key of one's own": Bill("openrouter", chat(9171, 113, 9284,
        completion_tokens_details=thought(55), **routed(0.001803975, 0.0360795, is_byok=True)),
        # 0.001803975 + 0.0360795
        None, usage(9171, 0, 0, 113, 55, cost="0.037883475"), "0.037883475"),
    "a key of one's own and no fee": Bill("openrouter", chat(900, 10, 910,
        **routed(0, 0.0125, is_byok=True)),
        None, usage(900, 0, 0, 10, cost="0.0125"), "0.0125"),
    "a key of one's own and no bill of the vendor": Bill("openrouter", chat(900, 10, 910,
        **routed(0.0001, None, is_byok=True)),
        None, usage(900, 0, 0, 10), None),
    "the vendor's cost repeats the whole": Bill("openrouter", chat(900, 10, 910,
        **routed(0.0042, 0.0042)),
        None, usage(900, 0, 0, 10, cost="0.0042"), "0.0042"),
    "OpenRouter answers from its own cache": Bill("openrouter", chat(0, 0, 0,
        prompt_tokens_details=cached(0), **routed(0, 0, is_byok=False)),
        SONNET, usage(0, 0, 0, 0, cost="0"), "0"),
    "a free model": Bill("openrouter", chat(11, 2, 13, cost=0),
        None, usage(11, 0, 0, 2, cost="0"), "0"),
    "a cost with an exponent": Bill("openrouter", chat(11, 2, 13, cost=6.3e-05),
        None, usage(11, 0, 0, 2, cost="0.000063"), "0.000063"),
    "a cost of null and a price": Bill("openrouter", chat(11, 2, 13, **routed(None)),
        # 11 x 1 + 2 x 5
        PLAIN, usage(11, 0, 0, 2), "0.000021"),
    "no cost and no price": Bill("openrouter", chat(11, 2, 13), None, usage(11, 0, 0, 2), None),
    "a cost below zero": Bill("openrouter", chat(11, 2, 13, cost=-0.01),
        None, usage(11, 0, 0, 2), None),
}  # fmt: skip

OTHERS = {
    "DeepSeek tells hits and misses twice": Bill("deepseek", chat(1300, 40, 1340,
        prompt_tokens_details={"cached_tokens": 1024}, completion_tokens_details=thought(32),
        prompt_cache_hit_tokens=1024, prompt_cache_miss_tokens=276),
        # 276 x 0.28 + 1024 x 0.028 + 40 x 0.42 = 77.28 + 28.672 + 16.8
        DEEPSEEK, usage(276, 1024, 0, 40, 32), "0.000122752"),
    "DeepSeek tells hits and misses once": Bill("deepseek", chat(900, 10, 910,
        prompt_cache_hit_tokens=640, prompt_cache_miss_tokens=260),
        # 260 x 0.28 + 640 x 0.028 + 10 x 0.42 = 72.8 + 17.92 + 4.2
        DEEPSEEK, usage(260, 640, 0, 10), "0.00009492"),
    "DeepSeek misses all": Bill("deepseek", chat(50, 5, 55,
        prompt_cache_hit_tokens=0, prompt_cache_miss_tokens=50),
        # 50 x 0.28 + 5 x 0.42 = 14 + 2.1
        DEEPSEEK, usage(50, 0, 0, 5), "0.0000161"),
    "xAI leaves its thoughts out": Bill("xai", chat(32, 9, 135,
        prompt_tokens_details=cached(8), completion_tokens_details=thought(94)),
        # 135 - 32 = 103 written; 24 x 0.2 + 8 x 0.05 + 103 x 0.5 = 4.8 + 0.4 + 51.5
        GROK, usage(24, 8, 0, 103, 94), "0.0000567"),
    "Gemini does not even name its thoughts": Bill("gemini", chat(20, 30, 150),
        # 150 - 20 = 130 written; 20 x 1.25 + 130 x 10 = 25 + 1300
        GEMINI, usage(20, 0, 0, 130), "0.001325"),
    "Gemini counts in every chunk": Bill("gemini", [
        chat(20, 0, 20), chat(20, 12, 72), chat(20, 30, 150)],
        # As above.
        GEMINI, usage(20, 0, 0, 130), "0.001325"),
    "Gemini at the threshold": Bill("gemini", chat(200_000, 100, 200_500,
        prompt_tokens_details=cached(50_000)),
        # 150000 x 1.25 + 50000 x 0.31 + 500 x 10 = 187500 + 15500 + 5000
        GEMINI, usage(150_000, 50_000, 0, 500), "0.208"),
    "Gemini one token above it": Bill("gemini", chat(200_001, 100, 200_501,
        prompt_tokens_details=cached(50_000)),
        # 150001 x 2.5 + 50000 x 0.625 + 500 x 15 = 375002.5 + 31250 + 7500
        GEMINI, usage(150_001, 50_000, 0, 500), "0.4137525"),
    "Groq with its clocks": Bill("groq", chat(60, 20, 80,
        queue_time=0.02, prompt_time=0.002, completion_time=0.05, total_time=0.052),
        # 60 x 0.59 + 20 x 0.79 = 35.4 + 15.8
        GROQ, usage(60, 0, 0, 20), "0.0000512"),
    "Groq with its cache": Bill("groq", chat(500, 10, 510,
        prompt_tokens_details={"cached_tokens": 256}),
        # 500 x 0.59 + 10 x 0.79 = 295 + 7.9
        GROQ, usage(244, 256, 0, 10), "0.0003029"),
    "Mistral": Bill("mistral", chat(8, 4, 12),
        # 8 x 2 + 4 x 6 = 16 + 24
        MISTRAL, usage(8, 0, 0, 4), "0.00004"),
    "Moonshot's cache": Bill("moonshot", chat(1210, 19, 1229, cached_tokens=1024),
        # 186 x 3 + 1024 x 0.3 + 19 x 15 = 558 + 307.2 + 285
        SONNET, usage(186, 1024, 0, 19), "0.0011502"),
}  # fmt: skip

# Other names and places of the counts, whose contradictions stand in `CONTRADICTIONS`.
HOSTS = {
    "mlx-vlm counts under the names of Responses": Bill("deepseek", {
        "input_tokens": 11, "output_tokens": 5, "total_tokens": 16},
        # 11 x 1 + 5 x 5
        PLAIN, usage(11, 0, 0, 5), "0.000036"),
    "names of Responses with their details": Bill("deepseek", {
        "input_tokens": 100, "output_tokens": 20, "total_tokens": 120,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens_details": {"reasoning_tokens": 12}},
        # 40 x 3 + 60 x 0.3 + 20 x 15 = 120 + 18 + 300
        SONNET, usage(40, 60, 0, 20, 12), "0.000438"),
    "names of Responses in zeros beside the real ones": Bill("deepseek", chat(11, 5, 16,
        input_tokens=0, output_tokens=0, input_tokens_details=None),
        PLAIN, usage(11, 0, 0, 5), "0.000036"),
    "the uncached input beside the whole": Bill("deepseek", chat(1000, 5, 1005,
        input_tokens=100, output_tokens=5, cache_read_input_tokens=900),
        # 100 x 3 + 900 x 0.3 + 5 x 15 = 300 + 270 + 75
        SONNET, usage(100, 900, 0, 5), "0.000645"),
    "a cache by Anthropic's names outside the prompt": Bill("deepseek", chat(12, 5, 1417,
        cache_read_input_tokens=900, cache_creation_input_tokens=500),
        # 12 x 3 + 900 x 0.3 + 500 x 3.75 + 5 x 15 = 36 + 270 + 1875 + 75
        SONNET, usage(12, 900, 500, 5), "0.002256"),
    "the same, thoughts outside as well": Bill("deepseek", chat(12, 5, 947,
        cache_read_input_tokens=900, completion_tokens_details={"reasoning_tokens": 30}),
        # 12 x 3 + 900 x 0.3 + 35 x 15 = 36 + 270 + 525
        SONNET, usage(12, 900, 0, 35, 30), "0.000831"),
    "the same, with both lifetimes": Bill("deepseek", chat(12, 5, 517,
        cache_creation_input_tokens=500, cache_creation={
            "ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 300}),
        # 12 x 3 + 200 x 3.75 + 300 x 6 + 5 x 15 = 36 + 750 + 1800 + 75
        SONNET, usage(12, 0, 500, 5, for_1h=300), "0.002661"),
    "a cache by Anthropic's names inside the prompt": Bill("deepseek", chat(1412, 5, 1417,
        cache_read_input_tokens=900, cache_creation_input_tokens=500),
        SONNET, usage(12, 900, 500, 5), "0.002256"),
    "LiteLLM tells the cache three times": Bill("deepseek", chat(1412, 5, 1417,
        cache_read_input_tokens=900, cache_creation_input_tokens=500,
        prompt_tokens_details={"cached_tokens": 900, "cache_write_tokens": 500,
            "cache_creation_tokens": 500, "cache_creation_token_details": {
                "ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 0}}),
        SONNET, usage(12, 900, 500, 5), "0.002256"),
    "no total, but OpenAI's names for the same": Bill("deepseek", chat(912, 5,
        cache_read_input_tokens=900, prompt_tokens_details={"cached_tokens": 900}),
        # 12 x 3 + 900 x 0.3 + 5 x 15 = 36 + 270 + 75
        SONNET, usage(12, 900, 0, 5), "0.000381"),
    "Alibaba writes a cache inside the prompt": Bill("deepseek", chat(3019, 104, 3123,
        prompt_tokens_details={"cached_tokens": 1024, "cache_creation_input_tokens": 1900,
            "cache_creation": {"ephemeral_5m_input_tokens": 1900}, "cache_type": "ephemeral"},
        completion_tokens_details={"reasoning_tokens": 90}),
        # 95 x 3 + 1024 x 0.3 + 1900 x 3.75 + 104 x 15 = 285 + 307.2 + 7125 + 1560
        SONNET, usage(95, 1024, 1900, 104, 90), "0.0092772"),
    "Mistral's cache": Bill("mistral", chat(2200, 5, 2205,
        num_cached_tokens=2048, prompt_tokens_details={"cached_tokens": 2048}),
        # 2200 x 2 + 5 x 6
        MISTRAL, usage(152, 2048, 0, 5), "0.00443"),
    "Perplexity's reasoning is in no other count": Bill("deepseek", chat(12, 18, 30,
        reasoning_tokens=240, citation_tokens=900, num_search_queries=3,
        search_context_size="low", cost={"input_tokens_cost": 2e-05, "output_tokens_cost": 0.00027,
            "request_cost": 0.0, "total_cost": 0.01781}),
        PLAIN, usage(12, 0, 0, 258, 240, cost="0.01781", beside="searches: 3",
            source="usage.cost.total_cost"), "0.01781"),
    "Perplexity's searches without its cost": Bill("deepseek", chat(12, 18, 30,
        reasoning_tokens=4, num_search_queries=3, search_context_size="low"),
        PLAIN, usage(12, 0, 0, 22, 4, beside="searches: 3"), None),
    "reasoning beside the details": Bill("deepseek", chat(12, 18, 30, reasoning_tokens=4),
        # 12 x 1 + 18 x 5
        PLAIN, usage(12, 0, 0, 18, 4), "0.000102"),
    "xAI's ticks": Bill("xai", chat(199, 26, 510, prompt_tokens_details=cached(128),
        completion_tokens_details=thought(285), num_sources_used=0, cost_in_usd_ticks=3157000),
        # 3157000 / 10^10
        GROK, usage(71, 128, 0, 311, 285, cost="0.0003157",
            source="usage.cost_in_usd_ticks"), "0.0003157"),
    "xAI's sources without its cost": Bill("xai", chat(30, 5, 35, num_sources_used=4),
        GROK, usage(30, 0, 0, 5, beside="sources: 4"), None),
    "no ticks are no cost": Bill("xai", chat(30, 5, 35, cost_in_usd_ticks=0),
        # 30 x 0.2 + 5 x 0.5 = 6 + 2.5
        GROK, usage(30, 0, 0, 5), "0.0000085"),
    "ticks as a float": Bill("xai", chat(30, 5, 35, cost_in_usd_ticks=1e7),
        None, usage(30, 0, 0, 5, cost="0.001", source="usage.cost_in_usd_ticks"), "0.001"),
    "the whole output under the other name": Bill("xai", chat(30, 5, 45, output_tokens=15,
        completion_tokens_details=thought(10)),
        # 30 x 1 + 15 x 5
        PLAIN, usage(30, 0, 0, 15, 10), "0.000105"),
    "Cerebras with its clocks": Bill("openai", chat(70, 14, 84, prompt_tokens_details=cached(0),
        completion_tokens_details=thought(8), time_info={"queue_time": 0.1, "total_time": 0.02}),
        # 70 x 1 + 14 x 5 = 70 + 70
        PLAIN, usage(70, 0, 0, 14, 8), "0.00014"),
    "Databricks": Bill("openai", chat(30, 44, 74),
        # 30 x 3 + 44 x 15 = 90 + 660
        SONNET, usage(30, 0, 0, 44), "0.00075"),
    "MiniMax counts characters, too": Bill("deepseek", chat(47, 24, 71, total_characters=0,
        completion_tokens_details={"reasoning_tokens": 18}),
        # 47 x 1 + 24 x 5 = 47 + 120
        PLAIN, usage(47, 0, 0, 24, 18), "0.000167"),
    "SambaNova with floats beside the counts": Bill("deepseek", chat(30, 5, 35,
        completion_tokens_per_sec=512.34, time_to_first_token=0.05, total_latency=0.2),
        # 30 x 1 + 5 x 5
        PLAIN, usage(30, 0, 0, 5), "0.000055"),
    "Azure": Bill("openai", chat(27, 6, 33, prompt_tokens_details=cached(0),
        completion_tokens_details=thought(0) | {"rejected_prediction_tokens": 0}),
        # 27 x 1.25 + 6 x 10 = 33.75 + 60
        GPT, usage(27, 0, 0, 6), "0.00009375"),
    "Azure's filter stopped the answer": Bill("openai", chat(27, 2, 29,
        prompt_tokens_details=cached(16), completion_tokens_details=thought(0)),
        # 11 x 1.25 + 16 x 0.125 + 2 x 10 = 13.75 + 2 + 20
        GPT, usage(11, 16, 0, 2), "0.00003575"),
    "Moonshot without a cache": Bill("moonshot", chat(50, 5, 55, cached_tokens=0),
        # 50 x 3 + 5 x 15 = 150 + 75
        SONNET, usage(50, 0, 0, 5), "0.000225"),
    "Moonshot reads all from its cache": Bill("moonshot", chat(1024, 19, 1043, cached_tokens=1024),
        # 1024 x 0.3 + 19 x 15 = 307.2 + 285
        SONNET, usage(0, 1024, 0, 19), "0.0005922"),
    "Alibaba reads a cache and writes none": Bill("openai", chat(3019, 104, 3123,
        prompt_tokens_details={"cached_tokens": 2924, "cache_creation_input_tokens": 0,
            "cache_type": "ephemeral"}),
        # 95 x 3 + 2924 x 0.3 + 104 x 15 = 285 + 877.2 + 1560
        SONNET, usage(95, 2924, 0, 104), "0.0027222"),
    "Alibaba writes the whole prompt": Bill("openai", chat(1900, 10, 1910,
        prompt_tokens_details={"cached_tokens": 0, "cache_creation_input_tokens": 1900,
            "cache_creation": {"ephemeral_5m_input_tokens": 1900}}),
        # 1900 x 3.75 + 10 x 15 = 7125 + 150
        SONNET, usage(0, 0, 1900, 10), "0.007275"),
    "Mistral's cache under its older name": Bill("mistral", chat(2200, 5, 2205,
        prompt_token_details={"cached_tokens": 2048}),
        # As under both names.
        MISTRAL, usage(152, 2048, 0, 5), "0.00443"),
    "xAI's ticks win over a price": Bill("xai", chat(30, 5, 35, cost_in_usd_ticks=5_000_000),
        PLAIN, usage(30, 0, 0, 5, cost="0.0005", source="usage.cost_in_usd_ticks"), "0.0005"),
    "a cost in a unit that nobody knows": Bill("deepseek", chat(30, 5, 35, cost=0.42),
        None, usage(30, 0, 0, 5), None),
    "a cost in another currency": Bill("deepseek", chat(30, 5, 35, cost={"currency": "CNY",
        "input_tokens_cost": 1, "output_tokens_cost": 1, "total_cost": 2}),
        None, usage(30, 0, 0, 5), None),
}  # fmt: skip

RESPONSES = {
    "Responses without a cache": Bill("responses", answered(27, 6),
        # 27 x 1.25 + 6 x 10 = 33.75 + 60
        GPT, usage(27, 0, 0, 6), "0.00009375"),
    "Responses with thoughts": Bill("responses", answered(27, 70, 0, 0, 64),
        # 27 x 1.25 + 70 x 10 = 33.75 + 700; the thoughts are a part of the 70
        GPT, usage(27, 0, 0, 70, 64), "0.00073375"),
    "Responses reads and writes a cache": Bill("responses", answered(80, 74, 4096, 1024, 64),
        # 80 x 1.25 + 4096 x 0.125 + 1024 x 1.5625 + 74 x 10 = 100 + 512 + 1600 + 740
        GPT, usage(80, 4096, 1024, 74, 64), "0.002952"),
    "Responses reads a cache only": Bill("responses", answered(64, 88, 256, None, 12),
        # 64 x 1.25 + 256 x 0.125 + 88 x 10 = 80 + 32 + 880
        GPT, usage(64, 256, 0, 88, 12), "0.000992"),
    "Responses writes a cache only": Bill("responses", answered(10, 5, 0, 2048),
        # 10 x 1.25 + 2048 x 1.5625 + 5 x 10 = 12.5 + 3200 + 50
        GPT, usage(10, 0, 2048, 5), "0.0032625"),
    "Responses all from a cache": Bill("responses", answered(0, 1, 1024, 0),
        # 1024 x 0.125 + 1 x 10 = 128 + 10
        GPT, usage(0, 1024, 0, 1), "0.000138"),
    "Responses that only thought": Bill("responses", answered(27, 64, 0, 0, 64),
        # 27 x 1.25 + 64 x 10 = 33.75 + 640
        GPT, usage(27, 0, 0, 64, 64), "0.00067375"),
    "Responses without details": Bill("responses",
        {"input_tokens": 33, "output_tokens": 7, "total_tokens": 40},
        # 33 x 1 + 7 x 5
        PLAIN, usage(33, 0, 0, 7), "0.000068"),
    "Responses of llama.cpp": Bill("responses", {"input_tokens": 33, "output_tokens": 7,
        "total_tokens": 40, "input_tokens_details": {"cached_tokens": 32}},
        # 1 x 1 + 32 x 1 + 7 x 5
        PLAIN, usage(1, 32, 0, 7), "0.000068"),
    "Responses with null for each detail": Bill("responses", {"input_tokens": 100,
        "input_tokens_details": None, "output_tokens": 20, "output_tokens_details": None,
        "total_tokens": 120},
        # 100 x 1 + 20 x 5
        PLAIN, usage(100, 0, 0, 20), "0.0002"),
    "Responses without a total": Bill("responses", {"input_tokens": 100, "output_tokens": 20},
        # 100 x 1 + 20 x 5
        PLAIN, usage(100, 0, 0, 20), "0.0002"),
    "Responses above a threshold": Bill("responses", answered(150_000, 100, 60_000),
        # 150000 x 2.5 + 60000 x 0.625 + 100 x 15 = 375000 + 37500 + 1500
        GEMINI, usage(150_000, 60_000, 0, 100), "0.414"),
    "Responses of xAI": Bill("responses", answered(12, 61, 128, None, 55,
        num_sources_used=0, num_server_side_tools_used=0, cost_in_usd_ticks=437_750),
        # 437750 / 10^10
        GROK, usage(12, 128, 0, 61, 55, cost="0.000043775",
            source="usage.cost_in_usd_ticks"), "0.000043775"),
    "Responses of xAI without its cost": Bill("responses", answered(12, 61, 128, None, 55),
        # 12 x 0.2 + 128 x 0.05 + 61 x 0.5 = 2.4 + 6.4 + 30.5
        GROK, usage(12, 128, 0, 61, 55), "0.0000393"),
    "Responses of OpenRouter": Bill("responses", answered(74, 19, 0, None, 8,
        **routed(4.48e-06, 4.48e-06, is_byok=False)),
        PLAIN, usage(74, 0, 0, 19, 8, cost="0.00000448"), "0.00000448"),
    "Responses of OpenRouter, with a key of one's own": Bill("responses", answered(74, 19, 0, None,
        8, **routed(0, 4.48e-06, is_byok=True)),
        None, usage(74, 0, 0, 19, 8), None),
    "Responses that write for a lifetime of their own": Bill("responses", answered(10, 5, 0, 2048,
        cache_write_tokens_details={"ttl_30m_tokens": 0, "ttl_12h_tokens": 2048}),
        GPT, usage(10, 0, 2048, 5, surcharges=("ttl_12h_tokens",)), None),
    "Responses of a count of tomorrow": Bill("responses", answered(10, 5, hologram_tokens=3),
        PLAIN, usage(10, 0, 0, 5, surcharges=("hologram_tokens",)), None),
    "Responses with audio": Bill("responses", answered(10, 5) | {
        "input_tokens_details": {"cached_tokens": 0, "audio_tokens": 4}},
        PLAIN, usage(10, 0, 0, 5, surcharges=("audio tokens",)), None),
}  # fmt: skip


class Fee(NamedTuple):
    """An answer of the Responses wire whose bill hangs on more than its record of counts."""

    facts: Record
    price: TokenPrice
    charges: str | None
    cost: str | None
    tier: str | None = None


FAST = TokenPrice("2.5", 20, service_tier="priority")
SEARCHED = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
DRAWN = {"type": "image_generation_call", "id": "ig_1", "status": "completed"}
NO_FEES = {"web_search": {"num_requests": 0},
           "image_gen": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}}  # fmt: skip
# Each answer is of 100 tokens in and 20 out.
FEES = {
    # 100 x 1.25 + 20 x 10 = 125 + 200
    "the tier that is the default": Fee({"service_tier": "default"}, GPT, None, "0.000325"),
    "no tier at all": Fee({"service_tier": None}, GPT, None, "0.000325"),
    "no fees": Fee({"tool_usage": NO_FEES}, GPT, None, "0.000325"),
    "a search that was no request": Fee(
        {"tool_usage": NO_FEES, "output": [SEARCHED]}, GPT, None, "0.000325"),
    # 100 x 2.5 + 20 x 20 = 250 + 400
    "a price for the faster tier": Fee(
        {"service_tier": "priority"}, FAST, None, "0.00065", "priority"),
    "the faster tier at another price": Fee(
        {"service_tier": "priority"}, GPT, None, None, "priority"),
    "the slower tier": Fee({"service_tier": "flex"}, GPT, None, None, "flex"),
    "the default tier at the faster price": Fee({"service_tier": "default"}, FAST, None, None),
    "a tier that is not said": Fee({"service_tier": "auto"}, GPT, None, None, "auto"),
    "a search": Fee({"tool_usage": NO_FEES | {"web_search": {"num_requests": 2}}}, GPT,
        "web_search num_requests: 2", None),
    "an image": Fee({"tool_usage": NO_FEES | {"image_gen": {
        "input_tokens": 61, "output_tokens": 272, "total_tokens": 333}}}, GPT,
        "image_gen total_tokens: 333", None),
    "an image without a total": Fee({"tool_usage": NO_FEES | {"image_gen": {
        "input_tokens": 61, "output_tokens": 272}}}, GPT,
        "image_gen input_tokens: 61, image_gen output_tokens: 272", None),
    "an image that its total denies": Fee({"tool_usage": NO_FEES | {"image_gen": {
        "input_tokens": 0, "output_tokens": 272, "total_tokens": 0}}}, GPT,
        "image_gen output_tokens: 272", None),
    "an image by its details alone": Fee({"tool_usage": {"image_gen": {"total_tokens": 0,
        "output_tokens_details": {"image_tokens": 272, "text_tokens": 0}}}}, GPT,
        "image_gen output_tokens_details: {'image_tokens': 272, 'text_tokens': 0}", None),
    "an image that was none": Fee({"tool_usage": {"image_gen": {"input_tokens": 0,
        "output_tokens": 0, "input_tokens_details": {"image_tokens": 0}}}, "output": [DRAWN]},
        GPT, None, "0.000325"),
    "an image without counts": Fee({"tool_usage": {"image_gen": {}}, "output": [DRAWN]}, GPT,
        "image_generation_call: 1", None),
    "an image whose counts are null": Fee({"tool_usage": {"image_gen": {"total_tokens": None}},
        "output": [DRAWN]}, GPT, "image_generation_call: 1", None),
    "a search whose record is null": Fee({"tool_usage": {"web_search": None},
        "output": [SEARCHED]}, GPT, "web_search_call: 1", None),
    "a search that nothing counts": Fee({"output": [SEARCHED, SEARCHED]}, GPT,
        "web_search_call: 2", None),
    "a container": Fee({"tool_usage": NO_FEES, "output": [{"type": "code_interpreter_call"}]}, GPT,
        "code_interpreter_call: 1", None),
    "a look into files": Fee({"output": [{"type": "file_search_call"}]}, GPT,
        "file_search_call: 1", None),
    "a tool of tomorrow": Fee({"tool_usage": {"hologram": {"seconds": 4}}}, GPT,
        "hologram seconds: 4", None),
    "a tool of tomorrow that counts within": Fee({"tool_usage": {"hologram": {
        "calls": {"ended": 0, "begun": 4}}}}, GPT,
        "hologram calls: {'ended': 0, 'begun': 4}", None),
    "a record of tools that is a list": Fee({"tool_usage": [{"hologram": 4}]}, GPT,
        "tool_usage count: [{'hologram': 4}]", None),
    "the caller's own tools": Fee({"output": [{"type": "function_call", "name": "f"},
        {"type": "reasoning"}, {"type": "mcp_call"}]}, GPT, None, "0.000325"),
}  # fmt: skip

CACHED = {"cache_read_input_tokens": 900, "cache_creation_input_tokens": 500}
CONTRADICTIONS = {
    "the total has neither none nor all of the cache": chat(12, 5, 1000, **CACHED),
    "more in the cache than came in": chat(12, 5, 17, **CACHED),
    "a cache without a total": chat(1412, 5, **CACHED),
    "Anthropic's record without a total": {"input_tokens": 12, "output_tokens": 5, **CACHED},
    "the total has a part of the cache": chat(2000, 5, 2500, cache_read_input_tokens=900),
    "the total may mean thoughts or the cache": chat(2000, 1000, 3900,
        cache_read_input_tokens=900, completion_tokens_details={"reasoning_tokens": 900}),
    "two counts of what was read": chat(1412, 5, 1417, cache_read_input_tokens=900,
        prompt_tokens_details={"cached_tokens": 100}),
    "two counts of what was written": chat(1412, 5, 1417, cache_creation_input_tokens=500,
        prompt_tokens_details={"cache_write_tokens": 499}),
    "lifetimes of another sum": chat(1412, 5, 1417, cache_creation_input_tokens=500,
        cache_creation={"ephemeral_1h_input_tokens": 499}),
    "more written at Alibaba than came in": chat(300, 5, 305,
        prompt_tokens_details={"cached_tokens": 200, "cache_creation_input_tokens": 101}),
    "two inputs": chat(1412, 5, 1417, input_tokens=7),
    "two outputs": chat(1412, 5, 1417, output_tokens=7),
    "a total below the names of Responses": {
        "input_tokens": 11, "output_tokens": 5, "total_tokens": 15},
    "more thought than written, beside the details": chat(12, 18, 30, reasoning_tokens=240),
    "two counts of thoughts": chat(12, 18, 30, reasoning_tokens=4,
        completion_tokens_details={"reasoning_tokens": 5}),
}  # fmt: skip

BILLS = (
    ANTHROPIC | ANTHROPIC_STREAMS | ITERATIONS | LOCAL | OPENAI | OPENROUTER | OTHERS | RESPONSES
)
