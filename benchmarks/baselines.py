"""Baselines: the same calls, written by hand with as little code as possible."""

from __future__ import annotations

from peer import MAX_TOKENS, SYSTEM, TASK, TOOL_SCHEMA, Peer, measure_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any


FUNCTION = {"name": "measure_place", "description": "Measures.", "parameters": TOOL_SCHEMA}


class Baseline(Peer):
    """A body, headers, and one struct for each kind of answer, for all baselines."""

    wires = ("openai", "anthropic", "responses")

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
            self.tools: Any = {"name": "measure_place", "input_schema": TOOL_SCHEMA}
        elif self.wire == "responses":
            text = struct("Text", text=(str, ""))
            item = struct("Item", content=(list[text], ()))
            whole, event = struct("Whole", output=(list[item],)), struct("Event", delta=(str,))
            self.text_of = lambda answer: answer.output[0].content[0].text
            self.delta_of = lambda event: event.delta
            self.event_prefix = b'data: {"type":"response.output_text.delta"'
            self.path = "/v1/responses"
            self.tools = {"type": "function", **FUNCTION}
        else:
            content = struct("Content", content=(str, ""))
            choice = struct("Choice", message=(content, None), delta=(content, None))
            whole = event = struct("Whole", choices=(list[choice],))
            self.text_of = lambda answer: answer.choices[0].message.content
            self.delta_of = lambda event: event.choices[0].delta.content if event.choices else ""
            self.event_prefix, self.path = b"data: {", "/v1/chat/completions"
            self.tools = {"type": "function", "function": FUNCTION}
        self.encode, self.decode_any = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
        self.decode = msgspec.json.Decoder(whole).decode
        self.decode_event = msgspec.json.Decoder(event).decode
        self.headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        self.connect()

    def connect(self) -> None:
        """Make the HTTP client."""

    def body(self, messages: Any, *, is_stream: bool = False, **more: Any) -> bytes:
        """Return the body of a request."""
        key = "input" if self.wire == "responses" else "messages"
        fields = {"model": self.model, key: messages, "stream": is_stream, **more}
        if self.is_anthropic:
            fields |= {"system": SYSTEM, "messages": messages[1:], "max_tokens": MAX_TOKENS}
        return self.encode(fields)

    async def fetch(self, body: bytes) -> bytes:
        """Return the body of the answer."""
        raise NotImplementedError

    async def complete(self, messages: Any) -> str:
        return self.text_of(self.decode(await self.fetch(self.body(messages))))

    async def keep(self) -> object:
        body = await self.fetch(self.body(self.prompt()))
        self.text_of(self.decode(body))
        return body

    async def run_tools(self) -> str:
        messages: list[Any] = [*self.prompt()[:1], {"role": "user", "content": TASK}]
        while True:
            data = await self.fetch(self.body(messages, tools=[self.tools]))
            if not (results := self.add_answer(messages, self.decode_any(data))):
                return self.text_of(self.decode(data))
            messages += results

    def add_answer(self, messages: list[Any], answer: Any) -> list[Any]:
        """Add an answer to the conversation; return the results of its calls."""
        if self.is_anthropic:
            messages.append({"role": "assistant", "content": answer["content"]})
            results = [
                {"type": "tool_result", "tool_use_id": block["id"],
                 "content": measure_place(**block["input"])}
                for block in answer["content"] if block["type"] == "tool_use"
            ]  # fmt: skip
            return [{"role": "user", "content": results}] if results else []
        if self.wire == "responses":
            messages += answer["output"]
            return [
                {"type": "function_call_output", "call_id": item["call_id"],
                 "output": measure_place(**self.decode_any(item["arguments"]))}
                for item in answer["output"] if item["type"] == "function_call"
            ]  # fmt: skip
        messages.append(answer["choices"][0]["message"])
        return [
            {"role": "tool", "tool_call_id": call["id"],
             "content": measure_place(**self.decode_any(call["function"]["arguments"]))}
            for call in messages[-1].get("tool_calls", ())
        ]  # fmt: skip

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

    async def fetch(self, body: bytes) -> bytes:
        async with self.post(body) as response:
            return await response.read()

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

    async def fetch(self, body: bytes) -> bytes:
        return (await self.client.post(self.address, content=body)).content

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

    async def fetch(self, body: bytes) -> bytes:
        reader, writer, head = await self.send(body)
        length = int(head.partition(b"Content-Length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        self.idle.append((reader, writer))
        return answer

    async def stream(self) -> AsyncIterator[str]:
        reader, writer, _ = await self.send(self.body(self.prompt(), is_stream=True))
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            *lines, rest = (rest + await reader.read(65536)).split(b"\n\n")
            for text in self.parse_texts([line[line.find(b"data: ") :] for line in lines]):
                yield text
        self.idle.append((reader, writer))
