"""Builds the body of a chat-completions request, OpenAI's wire, which most servers speak."""

from collections.abc import Collection, Sequence

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.protocols import fields
from minillmlib.protocols.chat_completions.dialect import AS_SENT, ChatDialect
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, MediaPart, VideoPart
from minillmlib.types.messages import Message, Role, TextPart
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import BLOCK_KEYS, REQUIRED_KEY, Reasoning, ReasoningConfig
from minillmlib.types.tools import ToolCall, as_tool_choice

JSON_INSTRUCTION = "Answer in JSON."
EARLIER_REASONING = "reasoning of earlier turns"

# The fields that this module writes; the plain ones are in the dialect.
_ENCODED = (
    "response_format",
    "reasoning",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "logprobs",
)


def build_body(  # noqa: PLR0913 - the contract's five, and the facts
    dialect: ChatDialect,
    model: str,
    messages: Sequence[Message],
    params: CompletionParameters,
    *,
    stream: bool,
    include_usage: bool,
) -> JsonObject:
    """Return the body of a request.

    Raises `InvalidParameterError` for a field or a message that the wire cannot carry.
    """
    if params.response_format is not None and params.response_format.schema is None:
        messages = ensure_json_keyword(messages)
    body: JsonObject = {"model": model, "messages": encode_messages(dialect, messages)}
    if stream:
        body["stream"] = True
        if include_usage and dialect.has_stream_options:
            body["stream_options"] = {"include_usage": True}
    if params == fields.NOTHING_SET:  # as in most calls
        return body
    body |= fields.write_parameters(params, dialect.fields, _ENCODED, dialect.name)
    body |= _structured_fields(params) | _reasoning(dialect, params.reasoning)
    return fields.add_extra(body, params.extra)


def encode_messages(dialect: ChatDialect, messages: Sequence[Message]) -> list[JsonObject]:
    """Return messages as the wire has them."""
    own_ids: Collection[str] | None = None
    items: list[JsonObject] = []
    for message in messages:
        if (
            type(message.content) is str
            and not message.tool_calls
            and message.tool_call_id is None
            and not message.media
            and message.reasoning is None
            and not message.is_error
        ):  # as most
            items.append({"role": message.role, "content": message.content})
            continue
        if own_ids is None:
            own_ids = fields.own_ids(messages)
        items.append(_encode_message(message, dialect, own_ids))
    return items


def mark_prefill(model: str, body: JsonObject) -> JsonObject:
    """Return the body with what makes servers continue its last message; the caller's keys stay.

    A server that does not know these keys refuses them, or continues without.
    """
    name = model.lower()
    match body.get("messages"):
        case [*others, {"role": "assistant"} as last] if "claude" not in name:
            marks = {key: True for word, key in _PREFILL_MARKS.items() if word in name}
            return {**body, "messages": [*others, last | marks]} | {
                key: value for key, value in _CONTINUE.items() if key not in body
            }
    return body


# vLLM and SGLang begin anew without these (vllm-project/vllm#6772, sgl-project/sglang#3971).
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
# Keys of the message itself, by a word in the model's name: DeepSeek's own service, and the partial
# mode of Moonshot's and Alibaba's. Other servers of these models pass over them.
_PREFILL_MARKS = {"deepseek": "prefix", "kimi": "partial", "moonshot": "partial", "qwen": "partial"}


def _structured_fields(params: CompletionParameters) -> JsonObject:
    """Return the keys of the fields that are more than a number or a text."""
    body: JsonObject = {}
    if params.response_format is not None:
        body["response_format"] = _format(params.response_format)
    if params.tools:
        functions = (fields.encode_tool(tool, "parameters") for tool in params.tools)
        body["tools"] = [{"type": "function", "function": function} for function in functions]
    if params.tool_choice is not None:
        choice = as_tool_choice(params.tool_choice)
        one = {"type": "function", "function": {"name": choice.name}}
        body["tool_choice"] = choice.mode if choice.name is None else one
    if params.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = params.parallel_tool_calls
    if params.logprobs is not None:
        body["logprobs"] = True
        if params.logprobs > 0:
            body["top_logprobs"] = params.logprobs
    return body


def _reasoning(dialect: ChatDialect, reasoning: ReasoningConfig | None) -> JsonObject:
    if reasoning is None:
        return {}
    if dialect.has_reasoning_object:
        limits = {"effort": reasoning.effort, "max_tokens": reasoning.max_tokens}
        return {"reasoning": {name: value for name, value in limits.items() if value is not None}}
    if reasoning.effort is None:
        raise InvalidParameterError(f"{dialect.name} has no reasoning max_tokens; give an effort")
    return {"reasoning_effort": reasoning.effort}


def _format(form: ResponseFormat) -> JsonObject:
    if form.schema is None:
        return {"type": "json_object"}
    schema = {"name": form.name, "schema": form.schema, "strict": form.strict}
    return {"type": "json_schema", "json_schema": schema}


def _encode_message(message: Message, dialect: ChatDialect, own_ids: Collection[str]) -> JsonObject:
    body: JsonObject = {"role": message.role, "content": message.content}
    if type(message.content) is not str or message.is_error:
        body["content"] = _content(message, dialect)
    if message.tool_calls:
        body["content"] = body["content"] or (None if dialect.messages.has_null_content else "")
        body["tool_calls"] = [_tool_call(call, dialect, own_ids) for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = _tool_call_id(message.tool_call_id, dialect, own_ids)
    if message.media and dialect.messages.has_answer_images:
        body["images"] = [_part(part, dialect) for part in message.media]
    if message.reasoning is not None or message.tool_calls:
        body |= _echo(message, dialect)
    return body


def _echo(message: Message, dialect: ChatDialect) -> JsonObject:
    """Return the key with the reasoning of an earlier turn; none if it does not go back."""
    reasoning = message.reasoning or Reasoning()
    key = dialect.echo_key(message.reasoning, has_calls=bool(message.tool_calls))
    if key is None:
        return {}
    if key in BLOCK_KEYS:
        blocks = [block.fields for block in reasoning.blocks]
        return {key: blocks} if blocks else {}
    is_needed = key == REQUIRED_KEY and message.tool_calls
    return {key: reasoning.text} if reasoning.text or is_needed else {}


def omitted_reasoning(dialect: ChatDialect, messages: Sequence[Message]) -> dict[str, str]:
    """Return the report of reasoning that came over this wire and does not go back."""
    for message in messages:
        reasoning = message.reasoning
        if reasoning is None or not reasoning.key or _echo(message, dialect):
            continue
        if not reasoning.text and not reasoning.blocks:
            continue
        reason = f"{dialect.name} takes none back"
        if dialect.reasoning_echo == AS_SENT:
            reason = (
                f"a server that sends it as {reasoning.key!r} may refuse it here; if this one "
                "wants it, name its key in the reasoning_echo of a ChatDialect"
            )
        elif dialect.reasoning_echo is not None:
            reason = f"it has nothing for {dialect.reasoning_echo!r}"
        return {EARLIER_REASONING: reason}
    return {}


def ensure_json_keyword(messages: Sequence[Message]) -> Sequence[Message]:
    """Return messages of which one has the word JSON, which OpenAI demands for its JSON mode.

    If none has it, add it to the last message of the system or the user.
    """
    if any("json" in (message.text or "").lower() for message in messages):
        return messages
    for index, message in reversed(list(enumerate(messages))):
        if message.role in (Role.SYSTEM, Role.USER):
            content = message.content
            if isinstance(content, str):
                content = f"{content}\n\n{JSON_INSTRUCTION}"
            else:
                content = (*content, TextPart(text=JSON_INSTRUCTION))
            changed = msgspec.structs.replace(message, content=content)
            return [*messages[:index], changed, *messages[index + 1 :]]
    return messages


def _content(message: Message, dialect: ChatDialect) -> str | list[JsonObject]:
    content = message.content
    if isinstance(content, str):
        return f"Error: {content}" if message.is_error else content
    if message.is_error:  # the wire has no field for it
        content = (TextPart(text="Error: "), *content)
    has_media = not all(isinstance(part, TextPart) for part in content)
    is_of_tool = message.role is Role.TOOL and dialect.messages.has_tool_media
    if has_media and not (message.role is Role.USER or is_of_tool):
        raise InvalidParameterError(f"{dialect.name} takes media in a user's message only")
    return [_part(part, dialect) for part in content]


def _part(part: TextPart | MediaPart, dialect: ChatDialect) -> JsonObject:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            _check_image(part, dialect)
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


def _check_image(part: ImagePart, dialect: ChatDialect) -> None:
    images = dialect.messages.images
    if part.data is not None and images is not None and part.media_type not in images:
        raise InvalidParameterError(
            f"{dialect.name} takes images as {', '.join(images)}, not {part.media_type}"
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


def _tool_call(call: ToolCall, dialect: ChatDialect, own_ids: Collection[str]) -> JsonObject:
    function: JsonObject = {"name": call.name, "arguments": call.arguments}
    body = {"id": _tool_call_id(call.id, dialect, own_ids), "type": "function"}
    if not call.extra:
        return {**body, "function": function}
    extra = dict(call.extra)
    if extra.get("type") == "custom":  # OpenAI's free kind
        inner = extra.pop("custom", {})
        custom = {**inner, "name": call.name, "input": call.arguments}
        return {**extra, "id": body["id"], "custom": custom}
    inner = extra.pop("function", {})
    return {**body, **extra, "id": body["id"], "function": {**inner, **function}}


def _tool_call_id(call_id: str, dialect: ChatDialect, own_ids: Collection[str]) -> str:
    """Return the id, or a digest of one that another provider made and this wire refuses."""
    max_chars = dialect.messages.tool_id_chars
    if call_id in own_ids:
        return call_id
    if dialect.messages.has_exact_tool_ids:
        fits = len(call_id) == max_chars and call_id.isascii() and call_id.isalnum()
    else:
        fits = len(call_id) <= max_chars
    if fits:
        return call_id
    return fields.normalize_tool_call_id(call_id, "call_", max_chars)
