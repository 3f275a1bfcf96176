"""Opens many streams at once: errors, memory, and time beside bare asyncio and bare aiohttp.

`python benchmarks/open_streams.py [COUNT]`; 10,000 by default. Every stream has five events, a
second apart, so all of them are open at the same time.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
from servers import run_server

from minillmlib import ChatNode, GeneratorInfo

GAP_SECS = 1.0
EVENTS = 5
REQUEST = b'{"stream":true}'


def memory_kb() -> int:
    """Return the resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0])


async def watch_peak(work: asyncio.Task[list[bool]]) -> int:
    """Return the maximum memory during the work."""
    peak = 0
    while not work.done():
        peak = max(peak, memory_kb())
        await asyncio.sleep(0.1)
    return peak


async def stream_library(generator: GeneratorInfo) -> bool:
    """Read one stream through the library."""
    async with ChatNode.root("s").chat_streaming("u", generator) as stream:
        text = "".join([chunk.delta async for chunk in stream])
    return text == "word " * EVENTS and stream.response.usage is not None


class _Delta(msgspec.Struct):
    content: str = ""


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


decode_chunk = msgspec.json.Decoder(_Chunk).decode


def parse_line(line: bytes) -> str:
    """Return the text in one line of the stream."""
    if not line.startswith(b"data: {"):
        return ""
    return "".join(choice.delta.content for choice in decode_chunk(line[6:]).choices)


async def stream_aiohttp(session: aiohttp.ClientSession, url: str) -> bool:
    """Read one stream with the HTTP library alone: no timeouts, no checks, no record."""
    text = ""
    async with session.post(f"{url}/chat/completions", data=REQUEST) as response:
        async for line in response.content:
            text += parse_line(line)
    return text == "word " * EVENTS


async def stream_sockets(url: str) -> bool:
    """Read one stream over asyncio's streams, without an HTTP library."""
    target = urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(REQUEST) + REQUEST
    )
    text = ""
    async for line in reader:
        text += parse_line(line)
    writer.close()
    return text == "word " * EVENTS


async def measure(name: str, stream: Callable[[], Awaitable[bool]], count: int) -> float:
    """Open all streams, five thousand a second, and print their cost."""
    started, before, cpu_before = time.monotonic(), memory_kb(), time.process_time()

    async def open_one(number: int) -> bool:
        await asyncio.sleep(number / 5000)
        return await stream()

    work = asyncio.gather(*(open_one(number) for number in range(count)), return_exceptions=True)
    results = asyncio.ensure_future(work)
    peak = await watch_peak(results)
    right = sum(result is True for result in results.result())
    error = next((result for result in results.result() if result is not True), None)
    secs = time.monotonic() - started
    cpu = (time.process_time() - cpu_before) / count
    print(
        f"{name}: {right} of {count} right, {secs:.1f} s wall, {cpu * 1e6:,.0f} µs CPU and "
        f"{(peak - before) / count:.1f} kB a stream"
        + (f", first error: {error!r}" if error else "")
    )
    return secs


async def main(count: int) -> None:
    """Measure all three, the bare ones first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * count)), hard))
    with run_server(gap_secs=GAP_SECS, events=EVENTS) as server:
        generator = GeneratorInfo.custom("bench", server.url, "m")
        await stream_library(generator)  # imports the engine
        bare_secs = await measure("bare asyncio", lambda: stream_sockets(server.url), count)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            aiohttp_secs = await measure(
                "bare aiohttp", lambda: stream_aiohttp(session, server.url), count
            )
        secs = await measure("minillmlib", lambda: stream_library(generator), count)
    print(f"wall ratio {secs / bare_secs:.2f} to asyncio, {secs / aiohttp_secs:.2f} to aiohttp")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
