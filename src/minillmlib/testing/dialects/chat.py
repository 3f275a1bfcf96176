"""Chat completions and the completions of base models."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import ClassVar

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.providers.base import Provider
from minillmlib.providers.completions import CompletionsProvider
from minillmlib.providers.openrouter import OpenRouterProvider
from minillmlib.testing.dialects.base import (
    Answer,
    Dialect,
    argument_pieces,
    call_id,
    write_event,
)
from minillmlib.tree.thread_file import as_message
from minillmlib.types.messages import Message
from minillmlib.types.responses import FinishReason
from minillmlib.types.tools import ToolDefinition, as_tool
from minillmlib.types.usage import Usage

CREATED = 1795000000


class ChatCompletions(Dialect):
    """Chat completions, as OpenAI, Azure and nearly all others speak them."""

    name = "chat completions"
    path = "/chat/completions"
    provider = Provider()
    finish_words: ClassVar = {
        FinishReason.STOP: "stop",
        FinishReason.LENGTH: "length",
        FinishReason.TOOL_CALLS: "tool_calls",
        FinishReason.CONTENT_FILTER: "content_filter",
    }
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def read_messages(self, asked: JsonObject) -> list[Message]:
        messages = [as_message(value, place) for place, value in enumerate(asked["messages"])]
        return [msgspec.structs.replace(message, reasoning=None) for message in messages]

    def read_tools(self, asked: JsonObject) -> list[ToolDefinition]:
        tools = asked.get("tools") or ()
        return [as_tool(tool) for tool in tools if tool.get("type") == "function"]

    def write_body(self, answer: Answer, asked: JsonObject, number: int) -> JsonObject:
        word = self.finish_word(answer)
        choice = {**self.write_message(answer, number), "logprobs": None, "finish_reason": word}
        choices = [{"index": index, **choice} for index in range(asked.get("n") or 1)]
        head = self._head(self.kind, asked, number)
        return {**head, "choices": choices, **self.usage_fields(answer)}

    def write_message(self, answer: Answer, number: int) -> JsonObject:
        """Return the part of a choice that holds the answer."""
        is_silent = answer.refusal or answer.tool_calls
        message: JsonObject = {
            "role": "assistant",
            "content": answer.text or (None if is_silent else ""),
            "refusal": answer.refusal or None,
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call_id(call, number, place),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for place, call in enumerate(answer.tool_calls)
            ]
        return {"message": message}

    def write_events(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        for delta in self.write_deltas(answer, number):
            yield self._chunk(asked, number, delta)

    def write_deltas(self, answer: Answer, number: int) -> Iterator[JsonObject]:
        """Yield the parts of choices that hold the pieces of an answer."""
        start: JsonObject = {"role": "assistant", "content": ""}
        yield {"delta": start}
        if answer.reasoning:
            yield {"delta": {"reasoning_content": answer.reasoning}}
        for text in answer.texts:
            yield {"delta": {"content": text}}
        if answer.refusal:
            yield {"delta": {"refusal": answer.refusal}}
        for place, call in enumerate(answer.tool_calls):
            function = {"name": call.name, "arguments": ""}
            head = {"id": call_id(call, number, place), "type": "function", "function": function}
            yield {"delta": {"tool_calls": [{"index": place, **head}]}}
            for piece in argument_pieces(call):
                more = {"index": place, "function": {"arguments": piece}}
                yield {"delta": {"tool_calls": [more]}}

    def write_end(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        yield self._chunk(asked, number, self.last_delta, self.finish_word(answer))
        if usage := self.usage_fields(answer):
            head = self._head(self.chunk_kind, asked, number)
            yield write_event({**head, "choices": [], **usage})
        yield b"data: [DONE]\n\n"

    last_delta: ClassVar[JsonObject] = {"delta": {}}

    def write_counts(self, usage: Usage) -> JsonObject:
        written = usage.cache_write_tokens
        details: JsonObject = {"cached_tokens": usage.cache_read_tokens}
        if written:
            details["cache_write_tokens"] = written
        if usage.cache_write_1h_tokens:  # as LiteLLM states them
            details["cache_creation_token_details"] = {
                "ephemeral_5m_input_tokens": written - usage.cache_write_1h_tokens,
                "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
            }
        record: JsonObject = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": details,
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }
        if usage.service_tier is not None:
            record["service_tier"] = usage.service_tier
        return record | stated_cost(usage.native_cost)

    def _chunk(
        self, asked: JsonObject, number: int, delta: JsonObject, word: str | None = None
    ) -> bytes:
        choice = {"index": 0, **delta, "logprobs": None, "finish_reason": word}
        return write_event({**self._head(self.chunk_kind, asked, number), "choices": [choice]})

    def _head(self, kind: str, asked: JsonObject, number: int) -> JsonObject:
        name = f"chatcmpl-scripted-{number}"
        return {"id": name, "object": kind, "created": CREATED, "model": asked.get("model")}


class OpenRouter(ChatCompletions):
    """OpenRouter's, with the cost of each answer: 0 unless the counts have one."""

    name = "OpenRouter"
    host = "openrouter.ai"
    provider = OpenRouterProvider()

    def usage_fields(self, answer: Answer) -> JsonObject:
        usage = answer.usage
        if usage is not None and usage.native_cost is None:
            usage = msgspec.structs.replace(usage, native_cost=Decimal(0))
        return super().usage_fields(msgspec.structs.replace(answer, usage=usage))


class Completions(ChatCompletions):
    """The texts of base models, which neither reason nor call."""

    name = "completions"
    path = "/completions"
    provider = CompletionsProvider()
    kind = chunk_kind = "text_completion"
    last_delta: ClassVar = {"text": ""}

    def read_messages(self, asked: JsonObject) -> list[Message]:
        return [Message.user(asked["prompt"])]

    def read_tools(self, asked: JsonObject) -> list[ToolDefinition]:
        del asked
        return []

    def write_message(self, answer: Answer, number: int) -> JsonObject:
        del number
        for name in ("tool_calls", "reasoning", "refusal"):
            if getattr(answer, name):
                raise self.refuse(f"{name.replace('_', ' ')}")
        return {"text": answer.text}

    def write_deltas(self, answer: Answer, number: int) -> Iterator[JsonObject]:
        self.write_message(answer, number)
        for text in answer.texts:
            yield {"text": text}


def stated_cost(usd: Decimal | None) -> JsonObject:
    """Return the keys with which a record of counts states a cost in USD, as OpenRouter's does."""
    cost: JsonValue = usd
    return {} if usd is None else {"cost": cost, "is_byok": False}
