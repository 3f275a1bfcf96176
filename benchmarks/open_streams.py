"""Many streams open at once: errors, memory, and time beside bare asyncio and bare aiohttp.

`python benchmarks/open_streams.py [COUNT]`; 10,000 unless said otherwise. Every stream has five
events, a second apart, so all of them are open at the same time.
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
from servers import serving

from minillmlib import ChatNode, GeneratorInfo

GAP_SECS = 1.0
EVENTS = 5
REQUEST = b'{"stream":true}'


def memory_kb() -> int:
    """The resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0])


async def peak_of(work: asyncio.Task[list[bool]]) -> int:
    """The most memory seen while the work goes on."""
    peak = 0
    while not work.done():
        peak = max(peak, memory_kb())
        await asyncio.sleep(0.1)
    return peak


async def ours(generator: GeneratorInfo) -> bool:
    """One stream through the library."""
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


def text_in(line: bytes) -> str:
    """What one line of the stream says."""
    if not line.startswith(b"data: {"):
        return ""
    return "".join(choice.delta.content for choice in decode_chunk(line[6:]).choices)


async def by_aiohttp(session: aiohttp.ClientSession, url: str) -> bool:
    """The same with the HTTP library alone: no clocks, no checks, no record."""
    text = ""
    async with session.post(f"{url}/chat/completions", data=REQUEST) as response:
        async for line in response.content:
            text += text_in(line)
    return text == "word " * EVENTS


async def bare(url: str) -> bool:
    """The same over asyncio's own streams, which know no HTTP."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(REQUEST) + REQUEST
    )
    text = ""
    async for line in reader:
        text += text_in(line)
    writer.close()
    return text == "word " * EVENTS


async def measure(name: str, stream: Callable[[], Awaitable[bool]], count: int) -> float:
    """Opens all streams, five thousand a second, and prints what it took."""
    started, before, cpu_before = time.monotonic(), memory_kb(), time.process_time()

    async def one(number: int) -> bool:
        await asyncio.sleep(number / 5000)
        return await stream()

    work = asyncio.gather(*(one(number) for number in range(count)), return_exceptions=True)
    results = asyncio.ensure_future(work)
    peak = await peak_of(results)
    right = sum(result is True for result in results.result())
    odd = next((result for result in results.result() if result is not True), None)
    secs = time.monotonic() - started
    cpu = (time.process_time() - cpu_before) / count
    print(
        f"{name}: {right} of {count} right, {secs:.1f} s wall, {cpu * 1e6:,.0f} µs CPU and "
        f"{(peak - before) / count:.1f} kB a stream" + (f", first error: {odd!r}" if odd else "")
    )
    return secs


async def main(count: int) -> None:
    """Measures both, the bare one first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * count)), hard))
    with serving(gap_secs=GAP_SECS, events=EVENTS) as server:
        generator = GeneratorInfo.custom("bench", server.url, "m")
        await ours(generator)  # the engine is imported now
        bare_secs = await measure("bare asyncio", lambda: bare(server.url), count)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            aiohttp_secs = await measure(
                "bare aiohttp", lambda: by_aiohttp(session, server.url), count
            )
        secs = await measure("minillmlib", lambda: ours(generator), count)
    print(f"wall ratio {secs / bare_secs:.2f} to asyncio, {secs / aiohttp_secs:.2f} to aiohttp")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
