"""Measures what observers cost a call: none, a plain one, and those of OpenTelemetry.

Run it with `python benchmarks/observing.py`. The answers are canned and nothing is sent. Each way
is timed in turn, so that all run under the same load; the best of many rounds is the cost itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from minillmlib import ChatNode, GeneratorInfo, TokenPrice
from minillmlib.otel import OtelObserver
from minillmlib.testing import ScriptedReply, ScriptedTransport

CALLS = 50
ROUNDS = 80
MAX_OTEL_US = 150
ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"content": "Paris."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


def otel_observer() -> OtelObserver:
    """Return an observer with the SDK as programs set it up; the exporter only keeps the spans."""
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    meters = MeterProvider([InMemoryMetricReader()])
    return OtelObserver(tracer_provider=tracers, meter_provider=meters)


def us_per_call(observe: Callable[[GeneratorInfo], GeneratorInfo]) -> float:
    """Return the CPU time of one call, in microseconds."""
    transport = ScriptedTransport([ScriptedReply.json(ANSWER)] * CALLS)
    generator = GeneratorInfo.openai("gpt-4o-mini").with_api_key("key").with_transport(transport)
    generator = observe(generator.with_token_price(TokenPrice(1, 5)))
    leaf = ChatNode.root("Be brief.").add_user("The capital of France?")

    async def ask() -> float:
        start = time.thread_time()
        for _ in range(CALLS):
            await leaf.complete(generator)
        return time.thread_time() - start

    return asyncio.run(ask()) / CALLS * 1e6


def main() -> None:
    """Measure and print."""
    otel = otel_observer()
    ways: dict[str, Callable[[GeneratorInfo], GeneratorInfo]] = {
        "nobody": lambda generator: generator,
        "a function": lambda generator: generator.with_observer(lambda _: None),
        "OpenTelemetry": lambda generator: generator.with_observer(otel),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            best[name] = min(best[name], us_per_call(way))
    for name, us in best.items():
        print(f"{name}: {us:.0f} us a call, {us - best['nobody']:+.0f} us")
    print(f"(limit with OpenTelemetry: {MAX_OTEL_US} us)")


if __name__ == "__main__":
    main()
