"""How each library is asked for the same things. A peer is a class; its imports are part of it.

Every class is used by the Python of its own environment, which has nothing but that library, so
this file imports nothing that costs. `wires` says what a peer speaks; what it cannot do has no
figure. Each is called in the leanest documented way, with its defaults.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any, ClassVar

SYSTEM = "You are a helpful assistant. Be brief."
QUESTION = "Say hello in five words."
CHAT_MODEL = "gpt-4o-mini"
CLAUDE_MODEL = "claude-haiku-4-5"
MAX_TOKENS = 4096


def turns(count: int) -> list[tuple[str, str]]:
    """An even number of messages: the system prompt, then a talk that ends with the user."""
    words = "What I said before was that it depends on what one wants to do with it. " * 3
    talk = [
        ("assistant" if number % 2 else "user", f"{number}: {words}") for number in range(count - 1)
    ]
    return [("system", SYSTEM), *talk]


class Peer:
    """A library whose messages are dictionaries; others overwrite more."""

    package: ClassVar[str]
    requires: ClassVar[tuple[str, ...]]
    wires: ClassVar[tuple[str, ...]] = ("openai", "anthropic")

    def __init__(self, wire: str, origin: str) -> None:
        self.is_anthropic = wire == "anthropic"
        self.origin = origin
        self.url = origin if self.is_anthropic else f"{origin}/v1"
        self.model = CLAUDE_MODEL if self.is_anthropic else CHAT_MODEL
        self.open()

    def open(self) -> None:
        """Imports the library and makes a client."""
        raise NotImplementedError

    async def complete(self, messages: Any) -> str:
        """The text of the answer to these messages."""
        raise NotImplementedError

    def stream(self) -> AsyncIterator[str]:
        """One call, streamed; each text as the library hands it out."""
        raise NotImplementedError

    def asked(self) -> list[dict[str, str]]:
        """The messages of one call."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]

    async def call(self) -> str:
        """One call."""
        return await self.complete(self.asked())

    def history(self, count: int) -> Any:
        """A conversation of so many messages."""
        return [{"role": role, "content": text} for role, text in turns(count)]

    async def step(self, messages: Any) -> Any:
        """The conversation with an answer and the next question."""
        answer = await self.complete(messages)
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": QUESTION})
        return messages


class MiniLlmLib(Peer):
    package = "minillmlib"
    requires = ()  # comes from the work tree

    def open(self) -> None:
        from minillmlib import ChatNode, GeneratorInfo

        self.node = ChatNode
        if self.is_anthropic:
            generator = GeneratorInfo.anthropic(self.model).with_base_url(self.url)
        else:
            generator = GeneratorInfo.custom("bench", self.url, self.model)
        self.generator = generator.with_api_key("none")

    async def call(self) -> str:
        return (await self.node.root(SYSTEM).chat(QUESTION, self.generator)).text

    async def complete(self, messages: Any) -> str:
        return (await messages.complete(self.generator)).text

    async def stream(self) -> AsyncIterator[str]:
        async with self.node.root(SYSTEM).chat_streaming(QUESTION, self.generator) as stream:
            async for chunk in stream:
                yield chunk.delta

    def history(self, count: int) -> Any:
        node = self.node.root(SYSTEM)
        for role, text in turns(count)[1:]:
            node = node.add_user(text) if role == "user" else node.add_assistant(text)
        return node

    async def step(self, messages: Any) -> Any:
        return (await messages.complete(self.generator)).add_user(QUESTION)


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
    package = "aiohttp"
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
            async for line in response.content:
                for text in self.texts([line]):
                    yield text


class Httpx2(Bare):
    package = "httpx2"
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

    package = "sockets"
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


class OpenAi(Peer):
    package = "openai"
    requires = ("openai",)
    wires = ("openai",)

    def open(self) -> None:
        from openai import AsyncOpenAI

        self.client = AsyncOpenAI(base_url=self.url, api_key="none")

    async def complete(self, messages: Any) -> str:
        create = self.client.chat.completions.create
        return (await create(model=self.model, messages=messages)).choices[0].message.content

    async def stream(self) -> AsyncIterator[str]:
        create = self.client.chat.completions.create
        async for chunk in await create(model=self.model, messages=self.asked(), stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


class Anthropic(Peer):
    package = "anthropic"
    requires = ("anthropic",)
    wires = ("anthropic",)

    def open(self) -> None:
        from anthropic import AsyncAnthropic

        self.client = AsyncAnthropic(base_url=self.url, api_key="none")

    def created(self, messages: Any, **more: Any) -> Any:
        """The request."""
        return self.client.messages.create(
            model=self.model, max_tokens=MAX_TOKENS, system=SYSTEM, messages=messages[1:], **more
        )

    async def complete(self, messages: Any) -> str:
        return (await self.created(messages)).content[0].text

    async def stream(self) -> AsyncIterator[str]:
        async for event in await self.created(self.asked(), stream=True):
            if event.type == "content_block_delta":
                yield event.delta.text


class LiteLlm(OpenAi):
    package = "litellm"
    requires = ("litellm",)
    wires = ("openai", "anthropic")

    def open(self) -> None:
        import litellm

        self.acompletion = litellm.acompletion
        self.model = f"{'anthropic' if self.is_anthropic else 'openai'}/{self.model}"

    def created(self, messages: Any, **more: Any) -> Any:
        """The request."""
        return self.acompletion(
            model=self.model, messages=messages, api_base=self.url, api_key="none", **more
        )

    async def complete(self, messages: Any) -> str:
        return (await self.created(messages)).choices[0].message.content

    async def stream(self) -> AsyncIterator[str]:
        async for chunk in await self.created(self.asked(), stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


class AnyLlm(LiteLlm):
    package = "any-llm-sdk"
    requires = ("any-llm-sdk",)

    def open(self) -> None:
        from any_llm import AnyLLM

        name = "anthropic" if self.is_anthropic else "openai"
        self.client = AnyLLM.create(name, api_key="none", api_base=self.url)

    def created(self, messages: Any, **more: Any) -> Any:
        return self.client.acompletion(model=self.model, messages=messages, **more)


class AiSuite(LiteLlm):
    package = "aisuite"
    requires = ("aisuite[openai,anthropic]",)

    def open(self) -> None:
        import aisuite

        name = "anthropic" if self.is_anthropic else "openai"
        settings = {name: {"api_key": "none", "base_url": self.url}}
        self.client = aisuite.Client(settings)
        self.model = f"{name}:{self.model}"

    async def created(self, messages: Any, **more: Any) -> Any:
        create = self.client.chat.completions.acreate
        return await create(model=self.model, messages=messages, **more)


class PydanticAi(Peer):
    """The direct requests, which are its thinnest door; an agent does more."""

    package = "pydantic-ai-slim"
    requires = ("pydantic-ai-slim[openai,anthropic]",)

    def open(self) -> None:
        from pydantic_ai import direct, messages

        self.direct, self.messages = direct, messages
        # Its own default for Claude is so high that even a plain call would be streamed.
        self.settings = {"max_tokens": MAX_TOKENS} if self.is_anthropic else None
        if self.is_anthropic:
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            provider = AnthropicProvider(base_url=self.url, api_key="none")
            self.client = AnthropicModel(self.model, provider=provider)
        else:
            from pydantic_ai.models.openai import OpenAIChatModel
            from pydantic_ai.providers.openai import OpenAIProvider

            provider = OpenAIProvider(base_url=self.url, api_key="none")
            self.client = OpenAIChatModel(self.model, provider=provider)

    def native(self, role: str, text: str) -> Any:
        """One message."""
        library = self.messages
        if role == "assistant":
            return library.ModelResponse(parts=[library.TextPart(text)])
        part = library.SystemPromptPart if role == "system" else library.UserPromptPart
        return library.ModelRequest(parts=[part(text)])

    def asked(self) -> Any:
        return [self.native("system", SYSTEM), self.native("user", QUESTION)]

    def history(self, count: int) -> Any:
        return [self.native(role, text) for role, text in turns(count)]

    async def answer(self, messages: Any) -> Any:
        """The library's own answer."""
        return await self.direct.model_request(self.client, messages, model_settings=self.settings)

    async def complete(self, messages: Any) -> str:
        return (await self.answer(messages)).parts[0].content

    async def stream(self) -> AsyncIterator[str]:
        asked = self.direct.model_request_stream(
            self.client, self.asked(), model_settings=self.settings
        )
        async with asked as stream:
            async for event in stream:
                if event.event_kind == "part_start":
                    yield event.part.content
                elif event.event_kind == "part_delta":
                    yield event.delta.content_delta

    async def step(self, messages: Any) -> Any:
        messages += [await self.answer(messages), self.native("user", QUESTION)]
        return messages


class Llm(Peer):
    """Its own plug-in speaks the OpenAI wire only."""

    package = "llm"
    requires = ("llm",)
    wires = ("openai",)

    def open(self) -> None:
        import llm
        from llm.default_plugins.openai_models import AsyncChat

        self.library = llm
        self.client = AsyncChat(self.model, key="none", api_base=self.url)

    def asked(self) -> Any:
        return [self.library.system(SYSTEM), self.library.user(QUESTION)]

    def history(self, count: int) -> Any:
        return [getattr(self.library, role)(text) for role, text in turns(count)]

    async def complete(self, messages: Any) -> str:
        return await self.client.prompt(messages=messages, stream=False).text()

    async def stream(self) -> AsyncIterator[str]:
        async for text in self.client.prompt(messages=self.asked()):
            yield text

    async def step(self, messages: Any) -> Any:
        answer = await self.complete(messages)
        messages += [self.library.assistant(answer), self.library.user(QUESTION)]
        return messages


FLOORS: tuple[type[Peer], ...] = (Sockets, Aiohttp, Httpx2)
OTHERS = (OpenAi, Anthropic, PydanticAi, AnyLlm, AiSuite, Llm, LiteLlm)
PEERS: dict[str, type[Peer]] = {peer.package: peer for peer in (MiniLlmLib, *FLOORS, *OTHERS)}
