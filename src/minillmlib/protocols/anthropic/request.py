"""Our messages and parameters as a request body of Anthropic's wire."""

from collections.abc import Iterator, Mapping, Sequence

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject
from minillmlib.protocols.cache_control import cache_control, has_block, kept_marks
from minillmlib.protocols.fields import add_extra, stand_in_id, write_parameters
from minillmlib.providers.models.claude import Claude, thinking_budget
from minillmlib.types.media import DocumentPart, ImagePart, MediaPart
from minillmlib.types.messages import ASSISTANT, SYSTEM, Message, TextPart
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningBlock
from minillmlib.types.tools import ToolCall, ToolChoice, ToolDefinition, as_tool, as_tool_choice

__all__ = ["build_body"]

DEFAULT_MAX_TOKENS = 4096
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
CACHEABLE = ("text", "image", "document", "tool_use", "tool_result")
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
    claude = Claude.of(model)
    if claude is not None:
        claude.check(params)
    turns, system = _apart(messages, params.response_format)
    body: JsonObject = {"model": model, "messages": turns}
    thinking = _thinking_body(params, claude)
    # The wire demands a limit, and the budget counts against it.
    limit = DEFAULT_MAX_TOKENS + thinking.get("budget_tokens", 0)
    body |= {"max_tokens": limit} | write_parameters(params, _FIELDS, "Anthropic")
    if system:
        body["system"] = system
    if thinking:
        body["thinking"] = thinking
    body |= _structured(params, claude)
    if stream:
        body["stream"] = True
    return add_extra(body, params.extra)


def _marked_blocks(messages: Sequence[Message]) -> list[list[JsonObject]]:
    """The blocks of each message, with the cache marks on the last ones that can bear them."""
    blocks = list(map(_blocks, messages))
    for place, ttl in kept_marks(messages, has_block).items():
        for block in reversed(blocks[place]):
            if block["type"] in CACHEABLE:
                block["cache_control"] = cache_control(ttl)
                break
    return blocks


def _apart(
    messages: Sequence[Message], form: ResponseFormat | None
) -> tuple[list[JsonObject], str | list[JsonObject]]:
    """User and assistant turns, alternating as old relays insist, and the system text.

    All results of one turn's calls go into one user message, before its text, as the wire
    demands. The system text is one text, or blocks where a mark stands between them. They stay
    blocks when the mark itself is not among those that are sent: as one text they would be
    another prefix, and the cache would be missed.
    """
    turns: list[JsonObject] = []
    system: list[JsonObject] = []
    is_marked = False
    for message, blocks in zip(messages, _marked_blocks(messages), strict=True):
        if message.role is SYSTEM:
            system += blocks
            is_marked = is_marked or message.cache_ttl is not None
            continue
        role = "assistant" if message.role is ASSISTANT else "user"
        if not blocks and message is messages[-1]:
            raise InvalidParameterError("Anthropic takes no message without visible text")
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise InvalidParameterError("Anthropic needs a user message besides the system prompt")
    if form is not None and form.schema is None:
        system.append({"type": "text", "text": JSON_INSTRUCTION})
    return turns, system if is_marked else "\n\n".join([block["text"] for block in system])


def _blocks(message: Message) -> list[JsonObject]:
    """The content blocks; one without visible text would be refused with status 400."""
    if message.tool_call_id is not None:
        return [_result_block(message, message.tool_call_id)]
    if message.reasoning is not None and message.reasoning.blocks:
        return list(_in_their_places(message, message.reasoning.blocks))
    content = message.content
    blocks = _text_blocks(content) if isinstance(content, str) else _content_blocks(message)
    if message.tool_calls:
        blocks += map(_call_block, message.tool_calls)
    return blocks


def _in_their_places(message: Message, sealed: Sequence[ReasoningBlock]) -> Iterator[JsonObject]:
    """The sealed blocks as they came, between the same text and calls as then."""
    text, calls = message.text or "", message.tool_calls
    text_done = calls_done = 0
    for block in sealed:
        yield from _text_blocks(text[text_done : block.text_before])
        yield from map(_call_block, calls[calls_done : block.calls_before])
        yield block.fields
        text_done = max(text_done, block.text_before)
        calls_done = max(calls_done, block.calls_before)
    yield from _text_blocks(text[text_done:])
    yield from map(_call_block, calls[calls_done:])


def _text_blocks(text: str) -> list[JsonObject]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _call_block(call: ToolCall) -> JsonObject:
    return {
        "type": "tool_use",
        "id": _safe_id(call.id),
        "name": call.name,
        "input": _input_of(call),
    }


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


def _result_block(message: Message, call_id: str) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": _safe_id(call_id)}
    content = _content_blocks(message)
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


def _structured(params: CompletionParameters, claude: Claude | None) -> JsonObject:
    """The keys of the fields that are more than a number or a text."""
    body: JsonObject = {}
    config: JsonObject = {}
    if params.response_format is not None and params.response_format.schema is not None:
        config["format"] = {"type": "json_schema", "schema": params.response_format.schema}
    effort = params.reasoning.effort if params.reasoning else None
    if effort not in (None, "none") and not _is_by_budget(claude):
        config["effort"] = effort
    if config:
        body["output_config"] = config
    if params.tools:
        body["tools"] = [_tool_body(as_tool(tool)) for tool in params.tools]
    if params.tool_choice is not None or params.parallel_tool_calls is not None:
        choice = as_tool_choice(params.tool_choice or "auto")
        body["tool_choice"] = _choice_body(choice, params.parallel_tool_calls)
    return body


def _thinking_body(params: CompletionParameters, claude: Claude | None) -> JsonObject:
    reasoning = params.reasoning
    if reasoning is None:
        return {}
    if reasoning.max_tokens is not None:
        return {"type": "enabled", "budget_tokens": reasoning.max_tokens}
    if reasoning.effort == "none":
        return {"type": "disabled"}
    if _is_by_budget(claude):
        budget = thinking_budget(str(reasoning.effort), params.max_tokens)
        return {"type": "enabled", "budget_tokens": budget}
    if reasoning.effort == "minimal":
        raise InvalidParameterError("Anthropic has no reasoning effort minimal; use low")
    # Newer models show nothing of what they think unless they are asked to.
    return {"type": "adaptive", "display": "summarized"}


def _is_by_budget(claude: Claude | None) -> bool:
    return claude is not None and claude.thinking == "budget"


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
