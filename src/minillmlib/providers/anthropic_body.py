"""Our messages and parameters as a request body of Anthropic's wire."""

from collections.abc import Iterator, Mapping, Sequence

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.providers.fields import add_extra, stand_in_id, write_parameters
from minillmlib.values.json import JsonObject
from minillmlib.values.media import AudioPart, DocumentPart, ImagePart, VideoPart
from minillmlib.values.messages import ContentPart, Message, Role, TextPart
from minillmlib.values.parameters import CompletionParameters, ResponseFormat
from minillmlib.values.reasoning import ReasoningConfig
from minillmlib.values.tools import ToolCall, ToolChoice, ToolDefinition, as_tool, as_tool_choice

__all__ = ["build_body"]

DEFAULT_MAX_TOKENS = 4096  # the wire demands a limit
JSON_INSTRUCTION = "Answer with one JSON value and nothing else."  # there is no JSON mode

_FIELDS: Mapping[str, str] = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
}


def build_body(
    model: str, messages: Sequence[Message], params: CompletionParameters, *, stream: bool
) -> JsonObject:
    """The body: system text apart, neighbours of one role joined, empty text left out."""
    body: JsonObject = {"model": model, "messages": _turns(messages)}
    thinking = params.reasoning.max_tokens if params.reasoning else None
    limit = DEFAULT_MAX_TOKENS + (thinking or 0)  # the budget counts against the limit
    body |= {"max_tokens": limit} | write_parameters(params, _FIELDS, "Anthropic")
    system = _system_text(messages, params.response_format)
    if system:
        body["system"] = system
    body |= _structured(params)
    if stream:
        body["stream"] = True
    return add_extra(body, params.extra)


def _system_text(messages: Sequence[Message], form: ResponseFormat | None) -> str:
    blocks = [block for m in messages if m.role is Role.SYSTEM for block in _content_blocks(m)]
    texts = [block["text"] for block in blocks]
    if form is not None and form.schema is None:
        texts.append(JSON_INSTRUCTION)
    return "\n\n".join(text for text in texts if text.strip())


def _turns(messages: Sequence[Message]) -> list[JsonObject]:
    """User and assistant turns, alternating: old relays insist on it.

    All results of one turn's calls go into one user message, before its text, as the wire
    demands.
    """
    turns: list[JsonObject] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = list(_blocks(message))
        if not blocks and message is messages[-1]:
            raise InvalidParameterError("Anthropic takes no message without visible text")
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise InvalidParameterError("Anthropic needs a user message besides the system prompt")
    return turns


def _blocks(message: Message) -> Iterator[JsonObject]:
    """The content blocks; one without visible text would be refused with status 400."""
    if message.tool_call_id is not None:
        yield _result_block(message, message.tool_call_id)
        return
    if message.reasoning is not None:
        yield from message.reasoning.blocks  # signed: they must come back as they were
    yield from _content_blocks(message)
    for call in message.tool_calls:
        yield {
            "type": "tool_use",
            "id": _safe_id(call.id),
            "name": call.name,
            "input": _input_of(call),
        }


def _content_blocks(message: Message) -> Iterator[JsonObject]:
    parts = message.content
    if isinstance(parts, str):
        parts = (TextPart(text=parts),)
    for part in parts:
        if not isinstance(part, TextPart):
            if message.role in (Role.SYSTEM, Role.ASSISTANT):
                raise InvalidParameterError(
                    f"Anthropic takes no {part.kind} from the {message.role}"
                )
            yield _media_block(part)
        elif part.text.strip():
            yield {"type": "text", "text": part.text}


def _media_block(part: ContentPart) -> JsonObject:
    match part:
        case ImagePart() | DocumentPart():
            title = getattr(part, "filename", None)
            block: JsonObject = {"type": part.kind, "source": _source(part)}
            return block | ({"title": title} if title else {})
        case AudioPart() | VideoPart():
            raise InvalidParameterError(f"Anthropic takes no {part.kind}")
    raise AssertionError(part)


def _source(part: ImagePart | DocumentPart) -> JsonObject:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": part.base64}


def _result_block(message: Message, call_id: str) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": _safe_id(call_id)}
    content = list(_content_blocks(message))
    if content:
        block["content"] = content
    if message.is_error:
        block["is_error"] = True
    return block


def _input_of(call: ToolCall) -> JsonObject:
    """The arguments as the object this wire wants; what is none is kept under a key."""
    try:
        arguments = call.arguments_json()
    except MalformedResponseError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"_raw": call.arguments}


def _safe_id(call_id: str) -> str:
    """The id, or a digest in place of one that another provider made with other characters."""
    if call_id and all(char.isascii() and (char.isalnum() or char in "_-") for char in call_id):
        return call_id
    return stand_in_id(call_id, "toolu_")


def _structured(params: CompletionParameters) -> JsonObject:
    """The keys of the fields that are more than a number or a text."""
    body: JsonObject = {}
    config: JsonObject = {}
    if params.response_format is not None and params.response_format.schema is not None:
        config["format"] = {"type": "json_schema", "schema": params.response_format.schema}
    if params.reasoning is not None:
        body["thinking"] = _thinking_body(params.reasoning)
        if params.reasoning.effort not in (None, "none"):
            config["effort"] = params.reasoning.effort
    if config:
        body["output_config"] = config
    if params.tools:
        body["tools"] = [_tool_body(as_tool(tool)) for tool in params.tools]
    if params.tool_choice is not None or params.parallel_tool_calls is not None:
        choice = as_tool_choice(params.tool_choice or "auto")
        body["tool_choice"] = _choice_body(choice, params.parallel_tool_calls)
    return body


def _thinking_body(reasoning: ReasoningConfig) -> JsonObject:
    if reasoning.max_tokens is not None:
        return {"type": "enabled", "budget_tokens": reasoning.max_tokens}
    if reasoning.effort == "none":
        return {"type": "disabled"}
    if reasoning.effort == "minimal":
        raise InvalidParameterError("Anthropic has no reasoning effort minimal; use low")
    # Newer models show nothing of what they think unless they are asked to.
    return {"type": "adaptive", "display": "summarized"}


def _tool_body(tool: ToolDefinition) -> JsonObject:
    body: JsonObject = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description is not None:
        body["description"] = tool.description
    if tool.strict is not None:
        body["strict"] = tool.strict
    return body


def _choice_body(choice: ToolChoice, parallel: bool | None) -> JsonObject:  # noqa: FBT001 - private
    body: JsonObject = {"type": "any" if choice.mode == "required" else choice.mode}
    if choice.name is not None:
        body["name"] = choice.name
    if parallel is not None and choice.mode != "none":
        body["disable_parallel_tool_use"] = not parallel
    return body
