"""The Responses wire of OpenAI and Azure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue, excerpt_of
from minillmlib.providers.responses import ResponsesProvider
from minillmlib.testing.dialects.base import (
    Answer,
    Dialect,
    argument_pieces,
    call_id,
    write_event,
)
from minillmlib.testing.dialects.chat import CREATED, stated_cost
from minillmlib.tree.thread_file import as_message
from minillmlib.types.messages import Message
from minillmlib.types.responses import FinishReason
from minillmlib.types.tools import ToolDefinition, as_tool
from minillmlib.types.usage import Usage

_COMPLETED = (FinishReason.STOP, FinishReason.TOOL_CALLS)


class Responses(Dialect):
    """The items of the Responses wire."""

    name = "Responses"
    path = "/responses"
    provider = ResponsesProvider()
    finish_words: ClassVar = {  # the reasons for an incomplete answer
        FinishReason.STOP: "",
        FinishReason.TOOL_CALLS: "",
        FinishReason.LENGTH: "max_output_tokens",
        FinishReason.CONTENT_FILTER: "content_filter",
    }

    def read_messages(self, asked: JsonObject) -> list[Message]:
        values: list[JsonObject] = []
        if asked.get("instructions"):
            values.append({"role": "system", "content": asked["instructions"]})
        given = asked["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        for item in items:
            _add_item(values, item)
        return [as_message(value, place) for place, value in enumerate(values)]

    def read_tools(self, asked: JsonObject) -> list[ToolDefinition]:
        tools = [tool for tool in asked.get("tools") or () if tool.get("type") == "function"]
        # This wire has False for a tool that says nothing.
        return [as_tool(tool | {"strict": tool.get("strict") or None}) for tool in tools]

    def write_body(self, answer: Answer, asked: JsonObject, number: int) -> JsonObject:
        output = [item for item, _ in self._items(answer, number)]
        return {**self._head(asked, number), **self._end(answer), "output": output}

    def write_events(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        begun: JsonObject = {"status": "in_progress", "output": [], "usage": None}
        yield _event("response.created", response={**self._head(asked, number), **begun})
        for index, (item, pieces) in enumerate(self._items(answer, number)):
            place = {"item_id": item["id"], "output_index": index}
            start = {key: _EMPTY.get(key, value) for key, value in item.items()}
            yield _event("response.output_item.added", output_index=index, item=start)
            for kind, fields in pieces:
                yield _event(f"response.{kind}.delta", **place, **fields)
            yield _event("response.output_item.done", output_index=index, item=item)

    def write_end(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        body = self.write_body(answer, asked, number)
        yield _event(f"response.{body['status']}", response=body)

    def write_counts(self, usage: Usage) -> JsonObject:
        written = usage.cache_write_tokens
        details: JsonObject = {"cached_tokens": usage.cache_read_tokens}
        if written:
            details["cache_write_tokens"] = written
        record: JsonObject = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": details,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
        if usage.service_tier is not None:
            record["service_tier"] = usage.service_tier
        return record | stated_cost(usage.native_cost)

    def _items(
        self, answer: Answer, number: int
    ) -> Iterator[tuple[JsonObject, list[tuple[str, JsonObject]]]]:
        """Yield each item whole, with the names and the fields of its deltas."""
        if answer.reasoning:
            summary = [{"type": "summary_text", "text": answer.reasoning}]
            item: JsonObject = {"id": f"rs_{number}", "type": "reasoning", "summary": summary}
            delta = {"summary_index": 0, "delta": answer.reasoning}
            yield item, [("reasoning_summary_text", delta)]
        parts = {
            "output_text": [text for text in answer.texts if text],
            "refusal": [answer.refusal] if answer.refusal else [],
        }
        parts = {kind: texts for kind, texts in parts.items() if texts}
        if parts or not answer.tool_calls:
            content = [_part(kind, "".join(texts)) for kind, texts in parts.items()]
            head = {"id": f"msg_{number}", "type": "message", "status": "completed"}
            deltas = [
                (kind, {"content_index": index, "delta": text})
                for index, (kind, texts) in enumerate(parts.items())
                for text in texts
            ]
            yield {**head, "role": "assistant", "content": content}, deltas
        for place, call in enumerate(answer.tool_calls):
            name = {"call_id": call_id(call, number, place), "name": call.name}
            head = {"id": f"fc_{number}_{place}", "type": "function_call", "status": "completed"}
            pieces = [
                ("function_call_arguments", {"delta": piece}) for piece in argument_pieces(call)
            ]
            yield {**head, **name, "arguments": call.arguments}, pieces

    def _end(self, answer: Answer) -> JsonObject:
        word = self.finish_word(answer)
        end: JsonObject = {"status": "completed", "incomplete_details": None}
        if word:
            end = {"status": "incomplete", "incomplete_details": {"reason": word}}
        return {**end, "error": None, "usage": None, **self.usage_fields(answer)}

    def _head(self, asked: JsonObject, number: int) -> JsonObject:
        names = {"object": "response", "created_at": CREATED, "model": asked.get("model")}
        return {"id": f"resp_scripted_{number}", **names}


# The parts of an item that its deltas bring.
_EMPTY: JsonObject = {"status": "in_progress", "content": [], "summary": [], "arguments": ""}


def _event(kind: str, **fields: JsonValue) -> bytes:
    return write_event({"type": kind, **fields}, kind)


def _part(kind: str, text: str) -> JsonObject:
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    return {"type": kind, "text": text, "annotations": [], "logprobs": []}


def _add_item(values: list[JsonObject], item: JsonObject) -> None:
    """Add an item of a request as a message of chat completions; a call joins its answer."""
    match item:
        case {"type": "function_call", "call_id": name, "name": function, "arguments": text}:
            call = {"id": name, "function": {"name": function, "arguments": text}}
            _add_call(values, call)
        case {"type": "custom_tool_call", "call_id": name, "name": function, "input": text}:
            custom = {"name": function, "input": text}
            _add_call(values, {"id": name, "type": "custom", "custom": custom})
        case {
            "type": "function_call_output" | "custom_tool_call_output",
            "call_id": name,
            "output": output,
        }:
            values.append({"role": "tool", "tool_call_id": name, "content": _content(output)})
        case {"role": role, "content": content}:
            values.append({"role": role, "content": _content(content)})
        case {"type": "reasoning" | "compaction"}:
            pass
        case _:
            raise InvalidParameterError(f"an item of unknown kind: {excerpt_of(item)}")


def _add_call(values: list[JsonObject], call: JsonObject) -> None:
    if not values or values[-1]["role"] != "assistant":
        values.append({"role": "assistant", "content": ""})
    values[-1].setdefault("tool_calls", []).append(call)


def _content(content: JsonValue) -> JsonValue:
    return content if isinstance(content, str) else list(map(_as_chat_part, content))


def _as_chat_part(part: JsonObject) -> JsonObject:
    match part:
        case {"type": "input_text" | "output_text", "text": text}:
            return {"type": "text", "text": text}
        case {"type": "refusal", "refusal": text}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": url}:
            detail = part.get("detail")
            known = {} if detail in (None, "auto") else {"detail": detail}
            return {"type": "image_url", "image_url": {"url": url, **known}}
        case {"type": "input_file", "file_url": url}:
            return {"type": "file", "file": {"file_data": url}}
        case {"type": "input_file", "file_data": data, **more}:
            return {"type": "file", "file": {"file_data": data, "filename": more.get("filename")}}
        case {"type": "input_audio", "input_audio": audio}:
            return {"type": "input_audio", "input_audio": audio}
    raise InvalidParameterError(f"a part of unknown kind: {excerpt_of(part)}")
