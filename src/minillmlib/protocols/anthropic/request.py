"""Builds the body of a request on Anthropic's wire."""

from collections.abc import Mapping, Sequence

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.protocols.anthropic.messages import encode_blocks
from minillmlib.protocols.cache_control import cache_control, has_block, select_breakpoints
from minillmlib.protocols.fields import NOTHING_SET, add_extra, write_parameters
from minillmlib.types.messages import ASSISTANT, SYSTEM, Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.tools import ToolChoice, ToolDefinition, as_tool, as_tool_choice

__all__ = ["MIN_BUDGET", "build_body"]

DEFAULT_MAX_TOKENS = 4096
CACHEABLE = ("text", "image", "document", "tool_use", "tool_result")
JSON_INSTRUCTION = "Answer with one JSON value and nothing else."  # there is no JSON mode

MIN_BUDGET = 1024
ROOM = 20_480  # for reasoning and answer together, where the caller sets no limit
# OpenRouter's shares of the limit, for models that know budgets but no efforts.
_SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}

_FIELDS: Mapping[str, str] = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
}


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
    body: JsonObject = {"model": model, "messages": turns, "max_tokens": DEFAULT_MAX_TOKENS}
    has_settings = params != NOTHING_SET  # most calls have none
    thinking = _thinking(params, has_efforts=has_efforts) if has_settings else {}
    if has_settings:
        # The wire demands a limit, and the budget counts against it.
        body["max_tokens"] += thinking.get("budget_tokens", 0)
        body |= write_parameters(params, _FIELDS, "Anthropic")
    if system:
        body["system"] = system
    if thinking:
        body["thinking"] = thinking
    if has_settings:
        body |= _structured(params, has_efforts=has_efforts)
    if stream:
        body["stream"] = True
    return add_extra(body, params.extra) if has_settings else body


def _blocks_with_breakpoints(messages: Sequence[Message]) -> list[list[JsonObject]]:
    """Return the blocks of each message; a breakpoint is on the last one that supports it."""
    blocks = list(map(encode_blocks, messages))
    for index, ttl in select_breakpoints(messages, has_block).items():
        for block in reversed(blocks[index]):
            if block["type"] in CACHEABLE:
                block["cache_control"] = cache_control(ttl)
                break
    return blocks


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
    for message, blocks in zip(messages, _blocks_with_breakpoints(messages), strict=True):
        if message.role is SYSTEM:
            system += blocks
            has_breakpoint = has_breakpoint or message.cache_ttl is not None
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
    return turns, system if has_breakpoint else "\n\n".join([block["text"] for block in system])


def _structured(params: CompletionParameters, *, has_efforts: bool) -> JsonObject:
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
        body["tools"] = [_tool(as_tool(tool)) for tool in params.tools]
    if params.tool_choice is not None or params.parallel_tool_calls is not None:
        choice = as_tool_choice(params.tool_choice or "auto")
        body["tool_choice"] = _choice(choice, params.parallel_tool_calls)
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


def _tool(tool: ToolDefinition) -> JsonObject:
    body: JsonObject = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description is not None:
        body["description"] = tool.description
    if tool.strict is not None:
        body["strict"] = tool.strict
    return body


def _choice(choice: ToolChoice, parallel: bool | None) -> JsonObject:  # noqa: FBT001 - private
    body: JsonObject = {"type": "any" if choice.mode == "required" else choice.mode}
    if choice.name is not None:
        body["name"] = choice.name
    if parallel is not None and choice.mode != "none":
        body["disable_parallel_tool_use"] = not parallel
    return body
