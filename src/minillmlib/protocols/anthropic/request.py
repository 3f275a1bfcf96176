"""Builds the body of a request on Anthropic's wire."""

from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject
from minillmlib.protocols import fields
from minillmlib.protocols.cache_control import cache_control, has_block, select_breakpoints
from minillmlib.types.media import DocumentPart, ImagePart, MediaPart
from minillmlib.types.messages import ASSISTANT, SYSTEM, CacheTtl, Message, TextPart
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningBlock
from minillmlib.types.tools import ToolCall, as_tool_choice

DEFAULT_MAX_TOKENS = 4096
CACHEABLE = ("text", "image", "document", "tool_use", "tool_result")
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
JSON_INSTRUCTION = "Answer with one JSON value and nothing else."  # there is no JSON mode

MIN_BUDGET = 1024
ROOM = 20_480  # for reasoning and answer together, where the caller sets no limit
# OpenRouter's shares of the limit, for models that know budgets but no efforts.
_SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}

_TEXT = itemgetter("text")
_PLAIN = ("max_tokens", "temperature", "top_p", "top_k")
_FIELDS = {"stop": "stop_sequences"} | {name: name for name in _PLAIN}
# The fields that this module writes; the plain ones are above.
_ENCODED = ("response_format", "reasoning", "tools", "tool_choice", "parallel_tool_calls")


def build_body(
    model: str,
    messages: Sequence[Message],
    params: CompletionParameters,
    *,
    stream: bool,
    has_efforts: bool,
) -> JsonObject:
    """Return the body: system text apart, neighbours of one role merged, empty text omitted.

    A model without efforts gets a budget of tokens for its reasoning in place of one.
    """
    turns, system = _split_system(messages, params.response_format)
    if turns[-1]["role"] == "assistant":
        fields.trim_last_turn(turns)
    body: JsonObject = {"model": model, "messages": turns, "max_tokens": DEFAULT_MAX_TOKENS}
    if system:
        body["system"] = system
    if stream:
        body["stream"] = True
    if params == fields.NOTHING_SET:  # as in most calls
        return body
    thinking = _thinking(params, has_efforts=has_efforts)
    if thinking:
        body["thinking"] = thinking
    # The wire demands a limit, and the budget counts against it.
    body["max_tokens"] += thinking.get("budget_tokens", 0)
    body |= fields.write_parameters(params, _FIELDS, _ENCODED, "Anthropic")
    body |= _structured_fields(params, has_efforts=has_efforts)
    return fields.add_extra(body, params.extra)


def _split_system(
    messages: Sequence[Message], form: ResponseFormat | None
) -> tuple[list[JsonObject], str | list[JsonObject]]:
    """Return user and assistant turns, alternating as old relays insist, and the system text.

    All results of one turn's calls go into one user message, before its text, as the wire
    demands. The system text is one text, or blocks if it has a breakpoint. It stays blocks when
    the breakpoint itself is not among those that are sent: as one text it would be another
    prefix, and the cache would be missed.
    """
    turns: list[JsonObject] = []
    system: list[JsonObject] = []
    has_breakpoint = False
    own_ids = fields.own_ids(messages) if fields.has_calls(messages) else ()
    breakpoints = select_breakpoints(messages, has_block)
    role = None  # of the last turn
    for index, message in enumerate(messages):
        blocks = _encode_blocks(message, own_ids)
        if index in breakpoints:
            _add_breakpoint(blocks, breakpoints[index])
        if message.role is SYSTEM:
            system += blocks
            if message.cache_ttl is not None:
                has_breakpoint = True
            continue
        if not blocks:
            if message is messages[-1]:
                raise InvalidParameterError("Anthropic takes no message without visible text")
            continue
        previous, role = role, "assistant" if message.role is ASSISTANT else "user"
        if role == previous:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    if role is None:
        raise InvalidParameterError("Anthropic needs a user message besides the system prompt")
    if form is not None and form.schema is None:
        system.append({"type": "text", "text": JSON_INSTRUCTION})
    return turns, system if has_breakpoint else "\n\n".join(map(_TEXT, system))


def _add_breakpoint(blocks: Sequence[JsonObject], ttl: CacheTtl) -> None:
    """Add the breakpoint to the last block that supports it."""
    for block in reversed(blocks):
        if block["type"] in CACHEABLE:
            block["cache_control"] = cache_control(ttl)
            break


def _structured_fields(params: CompletionParameters, *, has_efforts: bool) -> JsonObject:
    """Return the keys of the fields that are more than a number or a text."""
    body: JsonObject = {}
    config: JsonObject = {}
    if params.response_format is not None and params.response_format.schema is not None:
        config["format"] = {"type": "json_schema", "schema": params.response_format.schema}
    effort = params.reasoning.effort if params.reasoning else None
    if effort not in (None, "none") and has_efforts:
        config["effort"] = effort
    if config:
        body["output_config"] = config
    if params.tools:
        body["tools"] = [fields.encode_tool(tool, "input_schema") for tool in params.tools]
    if params.tool_choice is not None or params.parallel_tool_calls is not None:
        choice = as_tool_choice(params.tool_choice or "auto")
        body["tool_choice"] = {"type": "any" if choice.mode == "required" else choice.mode}
        if choice.name is not None:
            body["tool_choice"]["name"] = choice.name
        if params.parallel_tool_calls is not None and choice.mode != "none":
            body["tool_choice"]["disable_parallel_tool_use"] = not params.parallel_tool_calls
    return body


def _thinking(params: CompletionParameters, *, has_efforts: bool) -> JsonObject:
    reasoning = params.reasoning
    if reasoning is None:
        return {}
    if reasoning.max_tokens is not None:
        return {"type": "enabled", "budget_tokens": reasoning.max_tokens}
    if reasoning.effort == "none":
        return {"type": "disabled"}
    if not has_efforts:
        room = params.max_tokens or ROOM
        budget = min(int(room * _SHARES[str(reasoning.effort)]), room - 1)
        return {"type": "enabled", "budget_tokens": max(MIN_BUDGET, budget)}
    if reasoning.effort == "minimal":
        raise InvalidParameterError("Anthropic has no reasoning effort minimal; use low")
    # Newer models show nothing of their reasoning unless they are asked to.
    return {"type": "adaptive", "display": "summarized"}


def _encode_blocks(message: Message, own_ids: Collection[str]) -> list[JsonObject]:
    """Return the content blocks; one without visible text would be refused with status 400."""
    if message.tool_call_id is not None:
        return [_tool_result(message, _tool_use_id(message.tool_call_id, own_ids))]
    if not message.tool_calls and message.reasoning is None:  # as most
        return _content_blocks(message)
    uses = [_tool_use(call, own_ids) for call in message.tool_calls]
    if message.reasoning is not None and message.reasoning.blocks:
        return list(_interleave_reasoning(message, message.reasoning.blocks, uses))
    return [*_content_blocks(message), *uses]


def _interleave_reasoning(
    message: Message, reasoning: Sequence[ReasoningBlock], uses: Sequence[JsonObject]
) -> Iterator[JsonObject]:
    """Yield the reasoning blocks unchanged, each between the text and calls it came between."""
    text = message.text or ""
    text_done = calls_done = 0
    for block in reasoning:
        yield from _text_blocks(text[text_done : block.text_before])
        yield from uses[calls_done : block.calls_before]
        yield block.fields
        text_done = max(text_done, block.text_before)
        calls_done = max(calls_done, block.calls_before)
    yield from _text_blocks(text[text_done:])
    yield from uses[calls_done:]


def _text_blocks(text: str) -> list[JsonObject]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _tool_use(call: ToolCall, own_ids: Collection[str]) -> JsonObject:
    """Return a call. Arguments that are not the object this wire wants are kept under a key."""
    try:
        arguments = call.arguments_json()
    except MalformedResponseError:
        arguments = {"_raw": call.arguments}
    use = {"type": "tool_use", "id": _tool_use_id(call.id, own_ids), "name": call.name}
    return {**call.extra, **use, "input": arguments}


def _tool_result(message: Message, use_id: str) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": use_id}
    content = _content_blocks(message)
    if content:
        block["content"] = content
    if message.is_error:
        block["is_error"] = True
    return block


def _tool_use_id(call_id: str, own_ids: Collection[str]) -> str:
    """Return the id, or a digest of one that another provider made with other characters."""
    if call_id in own_ids:
        return call_id
    if call_id and all(char.isascii() and (char.isalnum() or char in "_-") for char in call_id):
        return call_id
    return fields.normalize_tool_call_id(call_id, "toolu_")


def _content_blocks(message: Message) -> list[JsonObject]:
    content = message.content
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    blocks: list[JsonObject] = []
    for part in content:
        if isinstance(part, TextPart):
            blocks += _text_blocks(part.text)
        elif message.role in (SYSTEM, ASSISTANT):
            raise InvalidParameterError(f"Anthropic takes no {part.kind} from the {message.role}")
        else:
            blocks.append(_media_block(part))
    return blocks


def _media_block(part: MediaPart) -> JsonObject:
    if not isinstance(part, ImagePart | DocumentPart):
        raise InvalidParameterError(
            f"Anthropic takes no {part.kind}; leave it out, or use a provider that takes it"
        )
    title = getattr(part, "filename", None)
    block: JsonObject = {"type": part.kind} | ({"title": title} if title else {})
    if part.url is not None:
        return {**block, "source": {"type": "url", "url": part.url}}
    if isinstance(part, ImagePart) and part.media_type not in IMAGE_TYPES:
        raise InvalidParameterError(
            f"Anthropic takes images as {', '.join(IMAGE_TYPES)}, not {part.media_type}"
        )
    source = {"type": "base64", "media_type": part.media_type, "data": part.base64}
    return {**block, "source": source}
