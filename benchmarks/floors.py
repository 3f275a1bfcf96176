"""The floors: the same by hand, with the least that does it."""

from __future__ import annotations

from asking import MAX_TOKENS, SYSTEM, Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any


class Bare(Peer):
    """What the floors share: a body and heads, and a struct for each answer."""

    def open(self) -> None:
        import msgspec

        def struct(name: str, **fields: Any) -> Any:
            return msgspec.defstruct(name, [(key, *value) for key, value in fields.items()])

        if self.is_anthropic:
            text = struct("Text", text=(str, ""))
            whole, event = struct("Whole", content=(list[text],)), struct("Event", delta=(text,))
            self.text_of = lambda answer: answer.content[0].text
            self.delta_of = lambda event: event.delta.text
            self.mark, self.path = b'data: {"type":"content_block_delta"', "/v1/messages"
        else:
            content = struct("Content", content=(str, ""))
            choice = struct("Choice", message=(content, None), delta=(content, None))
            whole = event = struct("Whole", choices=(list[choice],))
            self.text_of = lambda answer: answer.choices[0].message.content
            self.delta_of = lambda event: event.choices[0].delta.content if event.choices else ""
            self.mark, self.path = b"data: {", "/v1/chat/completions"
        self.encode = msgspec.json.Encoder().encode
        self.decode = msgspec.json.Decoder(whole).decode
        self.decode_event = msgspec.json.Decoder(event).decode
        self.headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        self.connect()

    def connect(self) -> None:
        """Makes the HTTP client."""

    def body(self, messages: Any, *, is_stream: bool = False) -> bytes:
        """The body of a request."""
        asked = {"model": self.model, "messages": messages, "stream": is_stream}
        if self.is_anthropic:
            asked |= {"system": SYSTEM, "messages": messages[1:], "max_tokens": MAX_TOKENS}
        return self.encode(asked)

    def texts(self, lines: list[bytes]) -> list[str]:
        """What the lines of a stream say."""
        events = (self.decode_event(line[6:]) for line in lines if line.startswith(self.mark))
        return [text for text in map(self.delta_of, events) if text]


class Aiohttp(Bare):
    requires = ("aiohttp", "msgspec")
    session: Any = None

    def connect(self) -> None:
        import aiohttp

        self.connector, self.client = aiohttp.TCPConnector, aiohttp.ClientSession
        self.address = self.origin + self.path

    def post(self, body: bytes) -> Any:
        """Sends; the session needs a running loop, so it is made now."""
        if self.session is None:
            self.session = self.client(connector=self.connector(limit=0))
        return self.session.post(self.address, data=body, headers=self.headers)

    async def complete(self, messages: Any) -> str:
        async with self.post(self.body(messages)) as response:
            return self.text_of(self.decode(await response.read()))

    async def stream(self) -> AsyncIterator[str]:
        async with self.post(self.body(self.asked(), is_stream=True)) as response:
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for text in self.texts(lines):
                    yield text


class Httpx2(Bare):
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
        body = self.body(self.asked(), is_stream=True)
        async with self.client.stream("POST", self.address, content=body) as response:
            async for line in response.aiter_lines():
                for text in self.texts([line.encode()]):
                    yield text


class Sockets(Bare):
    """By hand over asyncio's streams: it knows just as much HTTP as our server speaks."""

    requires = ("msgspec",)

    def connect(self) -> None:
        import asyncio

        self.idle: list[Any] = []
        self.dial = asyncio.open_connection
        self.head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            "Authorization: Bearer none\r\nContent-Length: "
        ).encode()

    async def sent(self, body: bytes) -> Any:
        """A connection on which the request is on its way, and the head of the answer."""
        port = int(self.origin.rpartition(":")[2])
        reader, writer = self.idle.pop() if self.idle else await self.dial("127.0.0.1", port)
        writer.write(b"%s%d\r\n\r\n%s" % (self.head, len(body), body))
        return reader, writer, await reader.readuntil(b"\r\n\r\n")

    async def complete(self, messages: Any) -> str:
        reader, writer, head = await self.sent(self.body(messages))
        length = int(head.partition(b"Content-Length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        self.idle.append((reader, writer))
        return self.text_of(self.decode(answer))

    async def stream(self) -> AsyncIterator[str]:
        reader, writer, _ = await self.sent(self.body(self.asked(), is_stream=True))
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            *lines, rest = (rest + await reader.read(65536)).split(b"\n\n")
            for text in self.texts([line[line.find(b"data: ") :] for line in lines]):
                yield text
        self.idle.append((reader, writer))
