"""Our messages as those of the chat-completions wire."""

from collections.abc import Sequence

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.protocols.fields import stand_in_id
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, MediaPart, VideoPart
from minillmlib.types.messages import Message, Role, TextPart
from minillmlib.types.tools import ToolCall

__all__ = ["MessageCapabilities", "message_body", "naming_json"]

JSON_INSTRUCTION = "Answer in JSON."


class MessageCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What messages of this wire may hold beside text, and what it demands of tool calls.

    Attributes:
        audio: The audio types it takes.
        has_video: Whether it takes films.
        has_document_urls: Whether it fetches documents by their URL.
        has_tool_media: Whether a tool's result may hold more than text.
        tool_id_chars: The longest id of a tool call; a longer one is replaced, alike in the
            call and in its result.
        has_answer_images: Whether images that the model made go back with its message.
    """

    audio: tuple[str, ...] = ("wav", "mp3")
    has_video: bool = False
    has_document_urls: bool = False
    has_tool_media: bool = False
    tool_id_chars: int = 40
    has_answer_images: bool = False


def naming_json(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with the word JSON in one of them: OpenAI refuses its JSON mode without it.

    Where none has it, the last that a model's user or developer wrote is told more.
    """
    if any("json" in (message.text or "").lower() for message in messages):
        return messages
    for place in reversed(range(len(messages))):
        message = messages[place]
        if message.role in (Role.SYSTEM, Role.USER):
            parts = message.content
            told = (
                f"{parts}\n\n{JSON_INSTRUCTION}"
                if isinstance(parts, str)
                else (*parts, TextPart(text=JSON_INSTRUCTION))
            )
            changed = msgspec.structs.replace(message, content=told)
            return [*messages[:place], changed, *messages[place + 1 :]]
    return messages


def message_body(message: Message, facts: MessageCapabilities, wire: str) -> JsonObject:
    """One message. Raises `InvalidParameterError` for what the wire cannot carry."""
    body: JsonObject = {"role": message.role, "content": message.content}
    if type(message.content) is not str or message.is_error:
        body["content"] = _content(message, facts, wire)
    if message.tool_calls:
        body["content"] = body["content"] or None
        body["tool_calls"] = [_call_body(call, facts) for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = _short_id(message.tool_call_id, facts)
    if message.media and facts.has_answer_images:
        body["images"] = [_part_body(part, facts, wire) for part in message.media]
    return body


def _content(message: Message, facts: MessageCapabilities, wire: str) -> str | list[JsonObject]:
    content = message.content
    if isinstance(content, str):
        return f"Error: {content}" if message.is_error else content
    if message.is_error:  # the wire has no mark for it
        content = (TextPart(text="Error: "), *content)
    is_text = all(isinstance(part, TextPart) for part in content)
    may_hold_media = message.role is Role.USER or (
        message.role is Role.TOOL and facts.has_tool_media
    )
    if not is_text and not may_hold_media:
        raise InvalidParameterError(f"{wire} takes media in a user's message only")
    return [_part_body(part, facts, wire) for part in content]


def _part_body(part: TextPart | MediaPart, facts: MessageCapabilities, wire: str) -> JsonObject:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": part.data_url} | detail}
        case AudioPart():
            return {"type": "input_audio", "input_audio": _audio_body(part, facts, wire)}
        case VideoPart() if facts.has_video:
            return {"type": "video_url", "video_url": {"url": part.data_url}}
        case DocumentPart():
            return {"type": "file", "file": _file_body(part, facts, wire)}
    raise InvalidParameterError(
        f"{wire} takes no {part.kind}; leave it out, or use a provider that takes it"
    )


def _audio_body(part: AudioPart, facts: MessageCapabilities, wire: str) -> JsonObject:
    kind = (part.media_type or "").partition("/")[2].removeprefix("x-")
    kind = {"mpeg": "mp3", "wave": "wav"}.get(kind, kind)
    if part.data is None:
        raise InvalidParameterError(f"{wire} takes audio by its bytes only, not by a URL")
    if kind not in facts.audio:
        raise InvalidParameterError(
            f"{wire} takes audio as {', '.join(facts.audio)}, not {part.media_type}"
        )
    return {"data": part.base64, "format": kind}


def _file_body(part: DocumentPart, facts: MessageCapabilities, wire: str) -> JsonObject:
    if part.url is not None and not facts.has_document_urls:
        raise InvalidParameterError(f"{wire} takes a document by its bytes only, not by a URL")
    return {"filename": part.filename or "document.pdf", "file_data": part.data_url}


def _call_body(call: ToolCall, facts: MessageCapabilities) -> JsonObject:
    return {
        "id": _short_id(call.id, facts),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _short_id(call_id: str, facts: MessageCapabilities) -> str:
    """The id, or a digest in place of one that another provider made too long for this wire."""
    if len(call_id) <= facts.tool_id_chars:
        return call_id
    return stand_in_id(call_id, "call_", facts.tool_id_chars)
