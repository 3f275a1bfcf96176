"""Anthropic's messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, excerpt_of, json_text
from minillmlib.providers.anthropic import AnthropicProvider
from minillmlib.testing.dialects.base import (
    Answer,
    Dialect,
    Failure,
    argument_pieces,
    call_id,
    error_words,
    write_event,
)
from minillmlib.types.media import DocumentPart, ImagePart
from minillmlib.types.messages import ContentPart, Message, TextPart
from minillmlib.types.responses import FinishReason
from minillmlib.types.tools import ToolCall, ToolDefinition
from minillmlib.types.usage import Usage

_MEDIA: dict[str, type[ImagePart | DocumentPart]] = {"image": ImagePart, "document": DocumentPart}
_REASONING = ("thinking", "redacted_thinking")


class AnthropicMessages(Dialect):
    """The messages of Anthropic and of the servers that speak like it."""

    name = "Anthropic"
    path = "/messages"
    provider = AnthropicProvider()
    finish_words: ClassVar = {
        FinishReason.STOP: "end_turn",
        FinishReason.LENGTH: "max_tokens",
        FinishReason.TOOL_CALLS: "tool_use",
        FinishReason.CONTENT_FILTER: "refusal",
        FinishReason.PAUSE: "pause_turn",
    }

    def read_messages(self, asked: JsonObject) -> list[Message]:
        system = asked.get("system")
        messages = [Message.system(_content(system))] if system else []
        for turn in asked["messages"]:
            messages += _read_turn(turn["role"], turn["content"])
        return messages

    def read_tools(self, asked: JsonObject) -> list[ToolDefinition]:
        return [
            ToolDefinition(
                name=tool["name"],
                description=tool.get("description"),
                parameters=tool["input_schema"],
                strict=tool.get("strict"),
            )
            for tool in asked.get("tools") or ()
            if "input_schema" in tool
        ]

    def write_body(self, answer: Answer, asked: JsonObject, number: int) -> JsonObject:
        content: list[JsonObject] = []
        if answer.reasoning:
            content.append(_thinking(answer.reasoning, number))
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        content += [self._tool_use(answer, number, place) for place in range(_calls(answer))]
        end = {**self._end(answer), **self.usage_fields(answer)}
        return {**_head(asked, number), "content": content, **end}

    def write_events(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        begun: JsonObject = {**_head(asked, number), "content": [], "stop_reason": None}
        if usage := self.usage_fields(answer):  # the output is counted at the end
            begun["usage"] = {**usage["usage"], "output_tokens": 0, "output_tokens_details": None}
        yield _event("message_start", message=begun)
        for index, (block, deltas) in enumerate(self._blocks(answer, number)):
            yield _event("content_block_start", index=index, content_block=block)
            for delta in deltas:
                yield _event("content_block_delta", index=index, delta=delta)
            yield _event("content_block_stop", index=index)

    def write_end(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        del asked, number
        yield _event("message_delta", delta=self._end(answer), **self.usage_fields(answer))
        yield _event("message_stop")

    def write_error(self, failure: Failure) -> JsonObject:
        error = {"type": error_words(failure)[1], "message": failure.message}
        return {"type": "error", "error": error}

    def write_counts(self, usage: Usage) -> JsonObject:
        record: JsonObject = {
            "input_tokens": usage.uncached_input_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
            "service_tier": usage.service_tier or "standard",
        }
        if usage.cache_write_1h_tokens:
            record["cache_creation"] = {
                "ephemeral_5m_input_tokens": (
                    usage.cache_write_tokens - usage.cache_write_1h_tokens
                ),
                "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
            }
        return record

    def _blocks(self, answer: Answer, number: int) -> Iterator[tuple[JsonObject, list[JsonObject]]]:
        """Yield each block as it begins, and its deltas."""
        if answer.reasoning:
            whole = _thinking(answer.reasoning, number)
            thinking = {"type": "thinking_delta", "thinking": answer.reasoning}
            signature = {"type": "signature_delta", "signature": whole["signature"]}
            yield whole | {"thinking": "", "signature": ""}, [thinking, signature]
        if answer.text:
            texts = [{"type": "text_delta", "text": text} for text in answer.texts]
            yield {"type": "text", "text": ""}, texts
        for place, call in enumerate(answer.tool_calls):
            pieces = argument_pieces(call)
            use = {"type": "tool_use", "id": call_id(call, number, place), "name": call.name}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            yield {**use, "input": {}}, deltas

    def _tool_use(self, answer: Answer, number: int, place: int) -> JsonObject:
        call = answer.tool_calls[place]
        use = {"type": "tool_use", "id": call_id(call, number, place), "name": call.name}
        try:
            return {**use, "input": call.arguments_json()}
        except MalformedResponseError as error:
            raise self.refuse(f"arguments that are no object ({error})") from None

    def _end(self, answer: Answer) -> JsonObject:
        if not answer.refusal:
            return {"stop_reason": self.finish_word(answer), "stop_sequence": None}
        details = {"type": "refusal", "category": None, "explanation": answer.refusal}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}


def _calls(answer: Answer) -> int:
    return len(answer.tool_calls)


def _head(asked: JsonObject, number: int) -> JsonObject:
    names = {"type": "message", "role": "assistant", "model": asked.get("model")}
    return {"id": f"msg_scripted_{number}", **names}


def _thinking(text: str, number: int) -> JsonObject:
    return {"type": "thinking", "thinking": text, "signature": f"scripted-{number}"}


def _event(kind: str, **fields: JsonValue) -> bytes:
    return write_event({"type": kind, **fields}, kind)


def _read_turn(role: str, content: JsonValue) -> Iterator[Message]:
    """Yield the results of tools, each as a message, and then the rest of the turn."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    rest, calls = [], []
    for block in content:
        match block:
            case {"type": "tool_result", "tool_use_id": call}:
                result = _content(block.get("content") or "")
                is_error = block.get("is_error") is True
                yield Message.tool_result(call, result, is_error=is_error)
            case {"type": "tool_use", "id": name, "name": function, "input": arguments}:
                text = json_text(arguments)
                calls.append(ToolCall(id=name, name=function, arguments=text))
            case {"type": kind} if kind in _REASONING:
                pass
            case _:
                rest.append(block)
    if role == "assistant":
        yield Message.assistant(_content(rest) if rest else "", calls)
    elif rest:
        yield Message.user(_content(rest))


def _content(blocks: str | Sequence[JsonObject]) -> str | list[ContentPart]:
    """Return the content of blocks; of texts alone it is one text."""
    if isinstance(blocks, str):
        return blocks
    parts = list(map(_part, blocks))
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts) if len(texts) == len(parts) else parts


def _part(block: JsonObject) -> ContentPart:
    match block:
        case {"type": "text", "text": str() as text}:
            return TextPart(text=text)
        case {"type": "image" | "document" as kind, "source": {"type": "url", "url": str() as url}}:
            return _MEDIA[kind].from_url(url)
        case {
            "type": "image" | "document" as kind,
            "source": {"type": "base64", "media_type": form, "data": data},
        }:
            return _MEDIA[kind].from_url(f"data:{form};base64,{data}")
    raise InvalidParameterError(f"a block of unknown kind: {excerpt_of(block)}")
