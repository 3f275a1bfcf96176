"""Encodes one message at a time as content blocks of Anthropic's wire."""

from collections.abc import Iterator, Sequence

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject
from minillmlib.protocols.fields import normalize_tool_call_id
from minillmlib.types.media import DocumentPart, ImagePart, MediaPart
from minillmlib.types.messages import ASSISTANT, SYSTEM, Message, TextPart
from minillmlib.types.reasoning import ReasoningBlock
from minillmlib.types.tools import ToolCall

__all__ = ["encode_blocks"]

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def encode_blocks(message: Message) -> list[JsonObject]:
    """Return the content blocks; one without visible text would be refused with status 400."""
    if message.tool_call_id is not None:
        return [_tool_result(message, message.tool_call_id)]
    if message.reasoning is not None and message.reasoning.blocks:
        return list(_interleave_reasoning(message, message.reasoning.blocks))
    content = message.content
    blocks = _text_blocks(content) if isinstance(content, str) else _content_blocks(message)
    if message.tool_calls:
        blocks += map(_tool_use, message.tool_calls)
    return blocks


def _interleave_reasoning(
    message: Message, reasoning: Sequence[ReasoningBlock]
) -> Iterator[JsonObject]:
    """Yield the reasoning blocks unchanged, each between the text and calls it came between."""
    text, calls = message.text or "", message.tool_calls
    text_done = calls_done = 0
    for block in reasoning:
        yield from _text_blocks(text[text_done : block.text_before])
        yield from map(_tool_use, calls[calls_done : block.calls_before])
        yield block.fields
        text_done = max(text_done, block.text_before)
        calls_done = max(calls_done, block.calls_before)
    yield from _text_blocks(text[text_done:])
    yield from map(_tool_use, calls[calls_done:])


def _text_blocks(text: str) -> list[JsonObject]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _tool_use(call: ToolCall) -> JsonObject:
    """Return a call. Arguments that are not the object this wire wants are kept under a key."""
    try:
        arguments = call.arguments_json()
    except MalformedResponseError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"_raw": call.arguments}
    return {"type": "tool_use", "id": _tool_use_id(call.id), "name": call.name, "input": arguments}


def _tool_result(message: Message, call_id: str) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": _tool_use_id(call_id)}
    content = _content_blocks(message)
    if content:
        block["content"] = content
    if message.is_error:
        block["is_error"] = True
    return block


def _tool_use_id(call_id: str) -> str:
    """Return the id, or a digest of one that another provider made with other characters."""
    if call_id and all(char.isascii() and (char.isalnum() or char in "_-") for char in call_id):
        return call_id
    return normalize_tool_call_id(call_id, "toolu_")


def _content_blocks(message: Message) -> list[JsonObject]:
    if isinstance(message.content, str):
        return _text_blocks(message.content)
    blocks: list[JsonObject] = []
    for part in message.content:
        if isinstance(part, TextPart):
            blocks += _text_blocks(part.text)
        elif message.role in (SYSTEM, ASSISTANT):
            raise InvalidParameterError(f"Anthropic takes no {part.kind} from the {message.role}")
        else:
            blocks.append(_media_block(part))
    return blocks


def _media_block(part: MediaPart) -> JsonObject:
    match part:
        case ImagePart() | DocumentPart():
            title = getattr(part, "filename", None)
            block: JsonObject = {"type": part.kind, "source": _source(part)}
            return block | ({"title": title} if title else {})
    raise InvalidParameterError(
        f"Anthropic takes no {part.kind}; leave it out, or use a provider that takes it"
    )


def _source(part: ImagePart | DocumentPart) -> JsonObject:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if isinstance(part, ImagePart) and part.media_type not in IMAGE_TYPES:
        raise InvalidParameterError(
            f"Anthropic takes images as {', '.join(IMAGE_TYPES)}, not {part.media_type}"
        )
    return {"type": "base64", "media_type": part.media_type, "data": part.base64}
