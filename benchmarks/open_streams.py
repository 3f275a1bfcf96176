"""Many streams open at once: errors, memory a stream, and wall time beside bare asyncio sockets.

`python benchmarks/open_streams.py [COUNT]`; 10,000 unless said otherwise. Every stream has five
events, a second apart, so all of them are open at the same time.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

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


async def ours(url: str) -> bool:
    """One stream through the library."""
    generator = GeneratorInfo.custom("bench", url, "m")
    async with ChatNode.root("s").chat_streaming("u", generator) as stream:
        text = "".join([chunk.delta async for chunk in stream])
    return text == "word " * EVENTS and stream.response.usage is not None


async def bare(url: str) -> bool:
    """The same over a plain socket."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(REQUEST) + REQUEST
    )
    data = await reader.read()
    pieces = [data]
    while data:
        data = await reader.read()
        pieces.append(data)
    writer.close()
    return b"".join(pieces).count(b"word ") == EVENTS


async def measure(name: str, kind: object, url: str, count: int) -> float:
    """Opens all streams, a few hundred at a time, and prints what it took."""
    started, before = time.monotonic(), memory_kb()
    opening = asyncio.Semaphore(count)

    async def one(number: int) -> bool:
        await asyncio.sleep(number / 5000)  # five thousand new connections a second
        async with opening:
            return await kind(url)

    work = asyncio.gather(*(one(number) for number in range(count)), return_exceptions=True)
    results = asyncio.ensure_future(work)
    peak = await peak_of(results)
    right = sum(result is True for result in results.result())
    odd = next((result for result in results.result() if result is not True), None)
    secs = time.monotonic() - started
    print(
        f"{name}: {right} of {count} right, {secs:.1f} s wall, "
        f"{(peak - before) / count:.1f} kB a stream" + (f", first error: {odd!r}" if odd else "")
    )
    return secs


async def main(count: int) -> None:
    """Measures both, the bare one first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * count)), hard))
    with serving(gap_secs=GAP_SECS, events=EVENTS) as server:
        await ours(server.url)  # the engine is imported now
        floor = await measure("bare asyncio", bare, server.url, count)
        secs = await measure("minillmlib", ours, server.url, count)
    print(f"wall ratio {secs / floor:.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
