"""Baselines: the same calls, written by hand with as little code as possible."""

from __future__ import annotations

from peer import MAX_TOKENS, SYSTEM, Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any


class Baseline(Peer):
    """A body, headers, and one struct for each kind of answer, for all baselines."""

    def open(self) -> None:
        import msgspec

        def struct(name: str, **fields: Any) -> Any:
            return msgspec.defstruct(name, [(key, *value) for key, value in fields.items()])

        if self.is_anthropic:
            text = struct("Text", text=(str, ""))
            whole, event = struct("Whole", content=(list[text],)), struct("Event", delta=(text,))
            self.text_of = lambda answer: answer.content[0].text
            self.delta_of = lambda event: event.delta.text
            self.event_prefix, self.path = b'data: {"type":"content_block_delta"', "/v1/messages"
        else:
            content = struct("Content", content=(str, ""))
            choice = struct("Choice", message=(content, None), delta=(content, None))
            whole = event = struct("Whole", choices=(list[choice],))
            self.text_of = lambda answer: answer.choices[0].message.content
            self.delta_of = lambda event: event.choices[0].delta.content if event.choices else ""
            self.event_prefix, self.path = b"data: {", "/v1/chat/completions"
        self.encode = msgspec.json.Encoder().encode
        self.decode = msgspec.json.Decoder(whole).decode
        self.decode_event = msgspec.json.Decoder(event).decode
        self.headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        self.connect()

    def connect(self) -> None:
        """Make the HTTP client."""

    def body(self, messages: Any, *, is_stream: bool = False) -> bytes:
        """Return the body of a request."""
        fields = {"model": self.model, "messages": messages, "stream": is_stream}
        if self.is_anthropic:
            fields |= {"system": SYSTEM, "messages": messages[1:], "max_tokens": MAX_TOKENS}
        return self.encode(fields)

    def parse_texts(self, lines: list[bytes]) -> list[str]:
        """Return the texts in the lines of a stream."""
        events = (
            self.decode_event(line[6:]) for line in lines if line.startswith(self.event_prefix)
        )
        return [text for text in map(self.delta_of, events) if text]


class Aiohttp(Baseline):
    requires = ("aiohttp", "msgspec")
    session: Any = None

    def connect(self) -> None:
        import aiohttp

        self.connector, self.client = aiohttp.TCPConnector, aiohttp.ClientSession
        self.address = self.origin + self.path

    def post(self, body: bytes) -> Any:
        """Send a request. The session is made here, because it needs a running loop."""
        if self.session is None:
            self.session = self.client(connector=self.connector(limit=0))
        return self.session.post(self.address, data=body, headers=self.headers)

    async def complete(self, messages: Any) -> str:
        async with self.post(self.body(messages)) as response:
            return self.text_of(self.decode(await response.read()))

    async def stream(self) -> AsyncIterator[str]:
        async with self.post(self.body(self.prompt(), is_stream=True)) as response:
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for text in self.parse_texts(lines):
                    yield text


class Httpx2(Baseline):
    requires = ("httpx2", "msgspec")

    def connect(self) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self.client = httpx2.AsyncClient(headers=self.headers, limits=limits, timeout=60)
        self.address = self.origin + self.path

    async def complete(self, messages: Any) -> str:
        response = await self.client.post(self.address, content=self.body(messages))
        return self.text_of(self.decode(response.content))

    async def stream(self) -> AsyncIterator[str]:
        body = self.body(self.prompt(), is_stream=True)
        async with self.client.stream("POST", self.address, content=body) as response:
            async for line in response.aiter_lines():
                for text in self.parse_texts([line.encode()]):
                    yield text


class Sockets(Baseline):
    """Asyncio's streams, with only the HTTP that our server speaks."""

    requires = ("msgspec",)

    def connect(self) -> None:
        import asyncio

        self.idle: list[Any] = []
        self.dial = asyncio.open_connection
        self.head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            "Authorization: Bearer none\r\nContent-Length: "
        ).encode()

    async def send(self, body: bytes) -> Any:
        """Send a request; return its connection and the head of the response."""
        port = int(self.origin.rpartition(":")[2])
        reader, writer = self.idle.pop() if self.idle else await self.dial("127.0.0.1", port)
        writer.write(b"%s%d\r\n\r\n%s" % (self.head, len(body), body))
        return reader, writer, await reader.readuntil(b"\r\n\r\n")

    async def complete(self, messages: Any) -> str:
        reader, writer, head = await self.send(self.body(messages))
        length = int(head.partition(b"Content-Length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        self.idle.append((reader, writer))
        return self.text_of(self.decode(answer))

    async def stream(self) -> AsyncIterator[str]:
        reader, writer, _ = await self.send(self.body(self.prompt(), is_stream=True))
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            *lines, rest = (rest + await reader.read(65536)).split(b"\n\n")
            for text in self.parse_texts([line[line.find(b"data: ") :] for line in lines]):
                yield text
        self.idle.append((reader, writer))
