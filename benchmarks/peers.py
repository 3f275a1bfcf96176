"""Calls each library in the leanest documented way, with its defaults.

`wires` lists the protocols that a peer supports; the others have no figure. Where a library limits
its connections to less than a measure needs, the limit is raised.
"""

from __future__ import annotations

from baselines import Aiohttp, Httpx2, Sockets
from peer import MAX_CONNECTIONS, MAX_TOKENS, QUESTION, SYSTEM, TASK, Peer, measure_place, turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any


class MiniLlmLib(Peer):
    requires = ()  # installed from the work tree
    wires = ("openai", "anthropic", "responses")

    def open(self) -> None:
        from minillmlib import ChatNode, GeneratorInfo, ToolLoop

        self.node, self.loop = ChatNode, ToolLoop(max_turns=20)
        if self.is_anthropic:
            generator = GeneratorInfo.anthropic(self.model).with_base_url(self.url)
        elif self.wire == "responses":
            generator = GeneratorInfo.openai(self.model, wire="responses").with_base_url(self.url)
        else:
            generator = GeneratorInfo.custom("bench", self.url, self.model)
        self.generator = generator.with_api_key("none")

    async def keep(self) -> Any:
        return await self.node.root(SYSTEM).chat(QUESTION, self.generator)

    async def call(self) -> str:
        return (await self.keep()).text

    async def run_tools(self) -> str:
        asked = self.node.root(SYSTEM).add_user(TASK)
        return (await asked.run_tools(self.generator, [measure_place], loop=self.loop)).text

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


class ChatCompletions(Peer):
    """Libraries whose answers have OpenAI's format."""

    def create(self, messages: Any, **more: Any) -> Any:
        """Start the request."""
        raise NotImplementedError

    async def complete(self, messages: Any) -> str:
        return (await self.create(messages)).choices[0].message.content

    async def keep(self) -> Any:
        return await self.create(self.prompt())

    async def stream(self) -> AsyncIterator[str]:
        async for chunk in await self.create(self.prompt(), stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


class OpenAi(ChatCompletions):
    requires = ("openai",)
    wires = ("openai", "responses")

    def open(self) -> None:
        from openai import AsyncOpenAI

        self.client = AsyncOpenAI(base_url=self.url, api_key="none")

    def create(self, messages: Any, **more: Any) -> Any:
        if self.wire == "responses":
            return self.client.responses.create(model=self.model, input=messages, **more)
        return self.client.chat.completions.create(model=self.model, messages=messages, **more)

    async def complete(self, messages: Any) -> str:
        if self.wire == "responses":
            return (await self.create(messages)).output_text
        return await super().complete(messages)

    async def stream(self) -> AsyncIterator[str]:
        if self.wire == "responses":
            async for event in await self.create(self.prompt(), stream=True):
                if event.type == "response.output_text.delta":
                    yield event.delta
        else:
            async for text in super().stream():
                yield text


class Anthropic(Peer):
    requires = ("anthropic",)
    wires = ("anthropic",)

    def open(self) -> None:
        from anthropic import AsyncAnthropic

        self.client = AsyncAnthropic(base_url=self.url, api_key="none")

    def create(self, messages: Any, **more: Any) -> Any:
        """Start the request."""
        return self.client.messages.create(
            model=self.model, max_tokens=MAX_TOKENS, system=SYSTEM, messages=messages[1:], **more
        )

    async def complete(self, messages: Any) -> str:
        return (await self.create(messages)).content[0].text

    async def keep(self) -> Any:
        return await self.create(self.prompt())

    async def stream(self) -> AsyncIterator[str]:
        async for event in await self.create(self.prompt(), stream=True):
            if event.type == "content_block_delta":
                yield event.delta.text


class LiteLlm(ChatCompletions):
    requires = ("litellm",)

    def open(self) -> None:
        import litellm

        self.acompletion = litellm.acompletion
        self.model = f"{'anthropic' if self.is_anthropic else 'openai'}/{self.model}"

    def create(self, messages: Any, **more: Any) -> Any:
        return self.acompletion(
            model=self.model, messages=messages, api_base=self.url, api_key="none", **more
        )


class AnyLlm(ChatCompletions):
    requires = ("any-llm-sdk",)

    def open(self) -> None:
        from any_llm import AnyLLM

        name = "anthropic" if self.is_anthropic else "openai"
        self.client = AnyLLM.create(name, api_key="none", api_base=self.url)

    def create(self, messages: Any, **more: Any) -> Any:
        return self.client.acompletion(model=self.model, messages=messages, **more)


class AiSuite(ChatCompletions):
    requires = ("aisuite[openai,anthropic]",)

    def open(self) -> None:
        import aisuite

        name = "anthropic" if self.is_anthropic else "openai"
        settings = {name: {"api_key": "none", "base_url": self.url}}
        self.client = aisuite.Client(settings)
        self.model = f"{name}:{self.model}"

    async def create(self, messages: Any, **more: Any) -> Any:
        create = self.client.chat.completions.acreate
        return await create(model=self.model, messages=messages, **more)


class PydanticAi(Peer):
    """Its direct requests, which are its thinnest layer; an agent runs the tools."""

    agent: Any = None

    requires = ("pydantic-ai-slim[openai,anthropic]",)
    wires = ("openai", "anthropic", "responses")

    def open(self) -> None:
        from pydantic_ai import direct, messages

        self.direct, self.messages = direct, messages
        # Its default for Claude is so high that even a plain call would be streamed.
        self.settings = {"max_tokens": MAX_TOKENS} if self.is_anthropic else None
        if self.is_anthropic:
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            provider = AnthropicProvider(base_url=self.url, api_key="none")
            self.client = AnthropicModel(self.model, provider=provider)
        else:
            from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
            from pydantic_ai.providers.openai import OpenAIProvider

            provider = OpenAIProvider(base_url=self.url, api_key="none")
            model = OpenAIResponsesModel if self.wire == "responses" else OpenAIChatModel
            self.client = model(self.model, provider=provider)

    def make_message(self, role: str, text: str) -> Any:
        """Return one message."""
        library = self.messages
        if role == "assistant":
            return library.ModelResponse(parts=[library.TextPart(text)])
        part = library.SystemPromptPart if role == "system" else library.UserPromptPart
        return library.ModelRequest(parts=[part(text)])

    def prompt(self) -> Any:
        return [self.make_message("system", SYSTEM), self.make_message("user", QUESTION)]

    def history(self, count: int) -> Any:
        return [self.make_message(role, text) for role, text in turns(count)]

    async def answer(self, messages: Any) -> Any:
        """Return the answer in the library's type."""
        return await self.direct.model_request(self.client, messages, model_settings=self.settings)

    async def complete(self, messages: Any) -> str:
        return (await self.answer(messages)).parts[0].content

    async def keep(self) -> Any:
        return await self.answer(self.prompt())

    async def run_tools(self) -> str:
        from pydantic_ai import Agent

        if self.agent is None:
            self.agent = Agent(
                self.client, system_prompt=SYSTEM, tools=[measure_place],
                model_settings=self.settings,
            )  # fmt: skip
        return (await self.agent.run(TASK)).output

    async def stream(self) -> AsyncIterator[str]:
        opened = self.direct.model_request_stream(
            self.client, self.prompt(), model_settings=self.settings
        )
        async with opened as stream:
            async for event in stream:
                if event.event_kind == "part_start":
                    yield event.part.content
                elif event.event_kind == "part_delta":
                    yield event.delta.content_delta

    async def step(self, messages: Any) -> Any:
        messages += [await self.answer(messages), self.make_message("user", QUESTION)]
        return messages


class Llm(Peer):
    """Its built-in plug-in, which supports only the OpenAI wire."""

    requires = ("llm",)
    wires = ("openai",)

    def open(self) -> None:
        import llm
        from llm.default_plugins.openai_models import AsyncChat

        self.library = llm
        self.client = AsyncChat(self.model, key="none", api_base=self.url)

    def prompt(self) -> Any:
        return [self.library.system(SYSTEM), self.library.user(QUESTION)]

    def history(self, count: int) -> Any:
        return [getattr(self.library, role)(text) for role, text in turns(count)]

    async def complete(self, messages: Any) -> str:
        return await self.client.prompt(messages=messages, stream=False).text()

    async def keep(self) -> Any:
        answer = self.client.prompt(messages=self.prompt(), stream=False)
        await answer.text()
        return answer

    async def stream(self) -> AsyncIterator[str]:
        async for text in self.client.prompt(messages=self.prompt()):
            yield text

    async def step(self, messages: Any) -> Any:
        answer = await self.complete(messages)
        messages += [self.library.assistant(answer), self.library.user(QUESTION)]
        return messages


class Lm15(Peer):
    """Its asynchronous clients: asyncio and the standard library, without threads."""

    requires = ("lm15",)
    wires = ("openai", "anthropic", "responses")

    def open(self) -> None:
        import lm15
        from lm15.transports import StdlibAsyncTransport

        self.library = lm15
        kinds = {"anthropic": lm15.AsyncAnthropicLM, "responses": lm15.AsyncOpenAILM}
        self.client = kinds.get(self.wire, lm15.AsyncOpenAIChatLM)(
            api_key="none",
            base_url=f"{self.origin}/v1",
            transport=StdlibAsyncTransport(max_connections=MAX_CONNECTIONS),
        )

    def make_request(self, messages: Any) -> Any:
        """Return the request."""
        return self.library.Request(model=self.model, system=SYSTEM, messages=tuple(messages))

    def prompt(self) -> Any:
        return (self.library.Message.user(QUESTION),)

    def history(self, count: int) -> Any:
        make = self.library.Message
        return [getattr(make, role)(text) for role, text in turns(count)[1:]]

    async def complete(self, messages: Any) -> str:
        return (await self.client.complete(self.make_request(messages))).text

    async def keep(self) -> Any:
        return await self.client.complete(self.make_request(self.prompt()))

    async def stream(self) -> AsyncIterator[str]:
        event_type, text_type = self.library.StreamDeltaEvent, self.library.TextDelta
        async for event in self.client.stream(self.make_request(self.prompt())):
            if isinstance(event, event_type) and isinstance(event.delta, text_type):
                yield event.delta.text

    async def step(self, messages: Any) -> Any:
        answer = await self.client.complete(self.make_request(messages))
        messages += [answer.message, self.library.Message.user(QUESTION)]
        return messages


class InspectAi(Peer):
    """Its model call outside of an evaluation, which gives chunks to a callback only."""

    requires = ("inspect-ai", "openai", "anthropic")
    wires = ("openai", "anthropic", "responses")

    def open(self) -> None:
        from inspect_ai import model
        from inspect_ai.tool import ToolDef

        self.library = model
        # It would stream even a plain call to Claude.
        more = {"openai": {"responses_api": False}, "responses": {"responses_api": True}}
        self.client = model.get_model(
            f"{'anthropic' if self.is_anthropic else 'openai'}/{self.model}",
            base_url=self.url,
            api_key="none",
            config=model.GenerateConfig(max_connections=MAX_CONNECTIONS),
            **more.get(self.wire, {"streaming": False}),
        )

        async def measure(place: str) -> str:
            return measure_place(place)

        places = {"place": "A place."}
        self.tools = [ToolDef(measure, "measure_place", "Measures.", parameters=places)]

    def make_message(self, role: str, text: str) -> Any:
        """Return one message."""
        if role == "system":
            return self.library.ChatMessageSystem(content=text)
        kind = self.library.ChatMessageUser if role == "user" else self.library.ChatMessageAssistant
        return kind(content=text)

    def prompt(self) -> Any:
        return [self.make_message("system", SYSTEM), self.make_message("user", QUESTION)]

    def history(self, count: int) -> Any:
        return [self.make_message(role, text) for role, text in turns(count)]

    async def complete(self, messages: Any) -> str:
        return (await self.client.generate(messages)).completion

    async def keep(self) -> Any:
        return await self.client.generate(self.prompt())

    def stream(self) -> AsyncIterator[str]:
        raise NotImplementedError("no iterator of chunks")

    async def run_tools(self) -> str:
        messages = [self.make_message("system", SYSTEM), self.make_message("user", TASK)]
        return (await self.client.generate_loop(messages, tools=self.tools))[1].completion

    async def step(self, messages: Any) -> Any:
        answer = await self.client.generate(messages)
        messages += [answer.message, self.make_message("user", QUESTION)]
        return messages


PEERS: dict[str, type[Peer]] = {
    "minillmlib": MiniLlmLib, "sockets": Sockets, "aiohttp": Aiohttp, "httpx2": Httpx2,
    "openai": OpenAi, "anthropic": Anthropic, "pydantic-ai-slim": PydanticAi,
    "any-llm-sdk": AnyLlm, "aisuite": AiSuite, "llm": Llm, "litellm": LiteLlm, "lm15": Lm15,
    "inspect-ai": InspectAi,
}  # fmt: skip
