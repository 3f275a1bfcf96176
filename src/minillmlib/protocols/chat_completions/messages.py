"""Encodes one message at a time for the chat-completions wire."""

from collections.abc import Sequence

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.protocols.chat_completions.dialect import ChatDialect
from minillmlib.protocols.fields import normalize_tool_call_id
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, MediaPart, VideoPart
from minillmlib.types.messages import Message, Role, TextPart
from minillmlib.types.tools import ToolCall

__all__ = ["encode_message", "ensure_json_keyword"]

JSON_INSTRUCTION = "Answer in JSON."


def encode_message(message: Message, dialect: ChatDialect) -> JsonObject:
    """Return one message. Raises `InvalidParameterError` for what the wire cannot carry."""
    body: JsonObject = {"role": message.role, "content": message.content}
    if type(message.content) is not str or message.is_error:
        body["content"] = _content(message, dialect)
    if message.tool_calls:
        body["content"] = body["content"] or None
        body["tool_calls"] = [_tool_call(call, dialect) for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = _tool_call_id(message.tool_call_id, dialect)
    if message.media and dialect.messages.has_answer_images:
        body["images"] = [_part(part, dialect) for part in message.media]
    if message.reasoning is not None and dialect.reasoning_echo is not None:
        reasoning = message.reasoning
        is_text = dialect.reasoning_echo == "reasoning_content"
        echo = reasoning.text if is_text else [block.fields for block in reasoning.blocks]
        if echo:
            body[dialect.reasoning_echo] = echo
    return body


def ensure_json_keyword(messages: Sequence[Message]) -> Sequence[Message]:
    """Return messages of which one has the word JSON, which OpenAI demands for its JSON mode.

    If none has it, add it to the last message of the system or the user.
    """
    if any("json" in (message.text or "").lower() for message in messages):
        return messages
    for index in reversed(range(len(messages))):
        message = messages[index]
        if message.role in (Role.SYSTEM, Role.USER):
            parts = message.content
            content = (
                f"{parts}\n\n{JSON_INSTRUCTION}"
                if isinstance(parts, str)
                else (*parts, TextPart(text=JSON_INSTRUCTION))
            )
            changed = msgspec.structs.replace(message, content=content)
            return [*messages[:index], changed, *messages[index + 1 :]]
    return messages


def _content(message: Message, dialect: ChatDialect) -> str | list[JsonObject]:
    content = message.content
    if isinstance(content, str):
        return f"Error: {content}" if message.is_error else content
    if message.is_error:  # the wire has no field for it
        content = (TextPart(text="Error: "), *content)
    is_text = all(isinstance(part, TextPart) for part in content)
    may_hold_media = message.role is Role.USER or (
        message.role is Role.TOOL and dialect.messages.has_tool_media
    )
    if not is_text and not may_hold_media:
        raise InvalidParameterError(f"{dialect.name} takes media in a user's message only")
    return [_part(part, dialect) for part in content]


def _part(part: TextPart | MediaPart, dialect: ChatDialect) -> JsonObject:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": part.data_url} | detail}
        case AudioPart():
            return {"type": "input_audio", "input_audio": _audio(part, dialect)}
        case VideoPart() if dialect.messages.has_video:
            return {"type": "video_url", "video_url": {"url": part.data_url}}
        case DocumentPart():
            return {"type": "file", "file": _file(part, dialect)}
    raise InvalidParameterError(
        f"{dialect.name} takes no {part.kind}; leave it out, or use a provider that takes it"
    )


def _audio(part: AudioPart, dialect: ChatDialect) -> JsonObject:
    kind = (part.media_type or "").partition("/")[2].removeprefix("x-")
    kind = {"mpeg": "mp3", "wave": "wav"}.get(kind, kind)
    if part.data is None:
        raise InvalidParameterError(f"{dialect.name} takes audio by its bytes only, not by a URL")
    if kind not in dialect.messages.audio:
        raise InvalidParameterError(
            f"{dialect.name} takes audio as {', '.join(dialect.messages.audio)}, "
            f"not {part.media_type}"
        )
    return {"data": part.base64, "format": kind}


def _file(part: DocumentPart, dialect: ChatDialect) -> JsonObject:
    if part.url is not None and not dialect.messages.has_document_urls:
        raise InvalidParameterError(
            f"{dialect.name} takes a document by its bytes only, not by a URL"
        )
    return {"filename": part.filename or "document.pdf", "file_data": part.data_url}


def _tool_call(call: ToolCall, dialect: ChatDialect) -> JsonObject:
    return {
        "id": _tool_call_id(call.id, dialect),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _tool_call_id(call_id: str, dialect: ChatDialect) -> str:
    """Return the id, or a digest of one that another provider made too long for this wire."""
    max_chars = dialect.messages.tool_id_chars
    if len(call_id) <= max_chars:
        return call_id
    return normalize_tool_call_id(call_id, "call_", max_chars)
