"""Builds the body of a request on OpenAI's Responses wire.

Each request holds the whole conversation, and the server is asked to store nothing. So the items
go back without the ids that only a server with a memory can resolve.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols import fields
from minillmlib.protocols.chat_completions.request import EARLIER_REASONING, ensure_json_keyword
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, MediaPart
from minillmlib.types.messages import ASSISTANT, SYSTEM, Message, TextPart
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.tools import ToolCall, as_tool_choice

WIRE = "the Responses wire"
MIN_OUTPUT_TOKENS = 16  # below it OpenAI answers with status 400, integer_below_min_value
MAX_CALL_ID_CHARS = 64
SEALED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
EARLIER_MEDIA = "media of earlier answers"
AUDIO_FORMATS = ("wav", "mp3")
MESSAGE, CUSTOM = "message", "custom"
_REASONING, _MEDIA = attrgetter("reasoning"), attrgetter("media")

_FIELDS = {"max_tokens": "max_output_tokens"} | {name: name for name in ("temperature", "top_p")}
# The fields that this module writes; the plain ones are above.
_ENCODED = (
    "response_format", "reasoning", "tools", "tool_choice", "parallel_tool_calls", "logprobs",
)  # fmt: skip

# The keys of `extra` that need a conversation at the server, and the reason to refuse each.
_STATEFUL = {
    "previous_response_id": "each request holds the whole conversation",
    "conversation": "each request holds the whole conversation",
    "background": "the answer would not come with the reply",
}
# Lists and objects of which the caller may add a part, such as {"reasoning": {"summary": "auto"}}.
_JOINED_LISTS = ("include", "tools")
_JOINED_OBJECTS = ("text", "reasoning")


def build_body(
    model: str,
    messages: Sequence[Message],
    params: CompletionParameters,
    *,
    stream: bool,
    seals_reasoning: bool,
) -> JsonObject:
    """Return the body of a request.

    Raises `InvalidParameterError` for a field or a message that the wire cannot carry.
    """
    if params.response_format is not None and params.response_format.schema is None:
        messages = ensure_json_keyword(messages)
    body: JsonObject = {"model": model, "input": encode_input(messages), "store": False}
    if seals_reasoning:
        body["include"] = [SEALED_REASONING]
    if stream:
        body["stream"] = True
    if params == fields.NOTHING_SET:  # as in most calls
        return body
    if params.logprobs is not None:
        body["include"] = [*body.get("include", ()), LOGPROBS]
    body |= fields.write_parameters(params, _FIELDS, _ENCODED, WIRE)
    return _add_extra(body | _structured_fields(params), params.extra)


def encode_input(messages: Sequence[Message]) -> list[JsonObject]:
    """Return the items of the messages, at least one for each."""
    has_calls = fields.has_calls(messages)
    own_ids = fields.own_ids(messages) if has_calls else ()
    custom_ids = _custom_ids(messages) if has_calls else ()
    items: list[JsonObject] = []
    for message in messages:
        if (
            type(message.content) is str
            and not message.tool_calls
            and message.tool_call_id is None
            and message.reasoning is None
            and not message.is_error
        ):  # as most
            items.append({"type": MESSAGE, "role": message.role, "content": message.content})
        elif message.tool_call_id is not None:
            kind = "custom_tool_call" if message.tool_call_id in custom_ids else "function_call"
            call_id = _call_id(message.tool_call_id, own_ids)
            output = {"type": f"{kind}_output", "call_id": call_id, "output": _content(message)}
            items.append(output)
        elif message.role is ASSISTANT:
            items += _assistant_items(message, own_ids) or [_message(ASSISTANT, "")]
        else:
            items.append(_message(message.role, _content(message)))
    return items


def omitted_parts(messages: Sequence[Message]) -> dict[str, str]:
    """Return the report of the parts of earlier answers that are not sent."""
    omitted = {}
    for message in filter(_REASONING, messages):
        items = _assistant_items(message, ())
        sealed = [item for item in items if item["type"] == "reasoning"]
        blocks = message.reasoning.blocks if message.reasoning else ()
        if len(sealed) < sum(block.fields.get("type") == "reasoning" for block in blocks):
            omitted[EARLIER_REASONING] = (
                "the server takes none back that it did not seal, or that nothing follows"
            )
    for message in filter(_MEDIA, messages):
        kinds = [item["type"] for item in _assistant_items(message, ())]
        if kinds.count("image_generation_call") < len(message.media):
            omitted[EARLIER_MEDIA] = "this wire takes none back but the images that it made"
    return omitted


def _add_extra(body: JsonObject, extra: Mapping[str, JsonValue]) -> JsonObject:
    """Return the body with the caller's keys, which may add to our lists and objects."""
    rest: JsonObject = {}
    for key, value in extra.items():
        own: JsonValue = body.get(key)
        if key in _STATEFUL and value:
            raise InvalidParameterError(f"extra[{key!r}] cannot be used here: {_STATEFUL[key]}")
        if key in _JOINED_LISTS and isinstance(own, list) and isinstance(value, list | tuple):
            body[key] = [*own, *(item for item in value if item not in own)]
        elif key in _JOINED_OBJECTS and isinstance(own, dict) and _has_no_key_of(own, value):
            body[key] = {**own, **value}
        elif key == "store":
            body[key] = value
        else:
            rest[key] = value
    return fields.add_extra(body, rest)


def _has_no_key_of(own: JsonObject, value: JsonValue) -> bool:
    return isinstance(value, Mapping) and own.keys().isdisjoint(value)


def _structured_fields(params: CompletionParameters) -> JsonObject:
    """Return the keys of the fields that are more than a number or a text."""
    body: JsonObject = {}
    if params.response_format is not None:
        body["text"] = {"format": _format(params.response_format)}
    if params.reasoning is not None:
        if params.reasoning.effort is None:
            raise InvalidParameterError(f"{WIRE} has no reasoning max_tokens; give an effort")
        body["reasoning"] = {"effort": params.reasoning.effort}
    if params.tools:
        # Servers take a tool without `strict` for a strict one.
        tools = (fields.encode_tool(tool, "parameters") for tool in params.tools)
        body["tools"] = [{"type": "function", "strict": False, **tool} for tool in tools]
    if params.tool_choice is not None:
        choice = as_tool_choice(params.tool_choice)
        one = {"type": "function", "name": choice.name}
        body["tool_choice"] = choice.mode if choice.name is None else one
    if params.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = params.parallel_tool_calls
    if params.logprobs:
        body["top_logprobs"] = params.logprobs
    return body


def _format(form: ResponseFormat) -> JsonObject:
    if form.schema is None:
        return {"type": "json_object"}
    schema = {"name": form.name, "schema": form.schema, "strict": form.strict}
    return {"type": "json_schema", **schema}


def _message(role: str, content: JsonValue) -> JsonObject:
    # llama.cpp knows an assistant's item by its type only.
    return {"type": MESSAGE, "role": role, "content": content}


def _assistant_items(message: Message, own_ids: Collection[str]) -> list[JsonObject]:
    """Return the items of an answer, each sealed one between the text and calls it came between.

    A block of the type `message` is no item, but the start of the message in the text after it.
    Reasoning at the end is omitted: it is refused without the item that it led to.
    """
    if message.attachments:
        raise InvalidParameterError(f"{WIRE} takes media in a user's message or a tool's result")
    text, calls = message.text or "", [_call_item(call, own_ids) for call in message.tool_calls]
    items: list[JsonObject] = []
    start: JsonObject = {}  # the keys of the current message
    text_done = calls_done = 0
    for block in message.reasoning.blocks if message.reasoning else ():
        if said := text[text_done : block.text_before]:
            items.append(_message(ASSISTANT, said) | start)
        items += calls[calls_done : block.calls_before]
        text_done = max(text_done, block.text_before)
        calls_done = max(calls_done, block.calls_before)
        start = block.fields if block.fields.get("type") == MESSAGE else {}
        items += _sealed_items(block.fields)
    if text[text_done:]:
        items.append(_message(ASSISTANT, text[text_done:]) | start)
    items += calls[calls_done:]
    while items and items[-1]["type"] == "reasoning":
        items.pop()
    return items


def _sealed_items(block: JsonObject) -> list[JsonObject]:
    """Return the item of a block, or none if it has nothing to give back."""
    item = {key: value for key, value in block.items() if value is not None}
    if item.get("type") == MESSAGE or item.keys() <= {"type"}:
        return []
    if item["type"] == "reasoning":
        for key in ("encrypted_content", "content"):
            if not item.get(key):
                item.pop(key, None)
        if not item.keys() & {"encrypted_content", "content"}:
            return []
        item.pop("id", None)  # by its id it would be looked up among stored ones
        item.setdefault("summary", [])
    return [item]


def _custom_ids(messages: Sequence[Message]) -> set[str]:
    return {call.id for message in messages for call in message.tool_calls if _is_custom(call)}


def _is_custom(call: ToolCall) -> bool:
    return call.extra.get("type") == CUSTOM  # whose input is any text


def _call_item(call: ToolCall, own_ids: Collection[str]) -> JsonObject:
    item = {**call.extra, "call_id": _call_id(call.id, own_ids), "name": call.name}
    if _is_custom(call):
        return {**item, "type": "custom_tool_call", "input": call.arguments}
    return {**item, "type": "function_call", "arguments": call.arguments}


def _call_id(call_id: str, own_ids: Collection[str]) -> str:
    """Return the id, or a digest of one that another provider made too long for this wire."""
    if len(call_id) <= MAX_CALL_ID_CHARS or call_id in own_ids:
        return call_id
    return fields.normalize_tool_call_id(call_id, "call_", MAX_CALL_ID_CHARS)


def _content(message: Message) -> str | list[JsonObject]:
    content = message.content
    if isinstance(content, str):
        return f"Error: {content}" if message.is_error else content
    if message.is_error:  # the wire has no field for it
        content = (TextPart(text="Error: "), *content)
    if message.role is SYSTEM and message.attachments:
        raise InvalidParameterError(f"{WIRE} takes media in a user's message or a tool's result")
    return [_part(part) for part in content]


def _part(part: TextPart | MediaPart) -> JsonObject:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            detail = part.detail or "auto"
            return {"type": "input_image", "image_url": part.data_url, "detail": detail}
        case DocumentPart() if part.url is not None:
            return {"type": "input_file", "file_url": part.url}
        case DocumentPart():
            name = part.filename or "document.pdf"
            return {"type": "input_file", "filename": name, "file_data": part.data_url}
        case AudioPart():
            return {"type": "input_audio", "input_audio": _audio(part)}
    raise InvalidParameterError(
        f"{WIRE} takes no {part.kind}; leave it out, or use a provider that takes it"
    )


def _audio(part: AudioPart) -> JsonObject:
    kind = (part.media_type or "").partition("/")[2].removeprefix("x-")
    kind = {"mpeg": "mp3", "wave": "wav"}.get(kind, kind)
    if part.data is None:
        raise InvalidParameterError(f"{WIRE} takes audio by its bytes only, not by a URL")
    if kind not in AUDIO_FORMATS:
        raise InvalidParameterError(
            f"{WIRE} takes audio as {', '.join(AUDIO_FORMATS)}, not {part.media_type}"
        )
    return {"data": part.base64, "format": kind}
