"""Builds the body of a chat-completions request, OpenAI's wire, which most servers speak."""

from collections.abc import Sequence

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.chat_completions.dialect import ChatDialect
from minillmlib.protocols.chat_completions.messages import encode_message, ensure_json_keyword
from minillmlib.protocols.fields import NOTHING_SET, add_extra, write_parameters
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningConfig
from minillmlib.types.tools import ToolChoice, ToolDefinition, as_tool, as_tool_choice

__all__ = ["build_body"]


def build_body(  # noqa: PLR0913 - the contract's five, and the facts
    dialect: ChatDialect,
    model: str,
    messages: Sequence[Message],
    params: CompletionParameters,
    *,
    stream: bool,
    include_usage: bool,
) -> JsonObject:
    """Return the body of a request."""
    if params.response_format is not None and params.response_format.schema is None:
        messages = ensure_json_keyword(messages)
    body: JsonObject = {
        "model": model,
        "messages": [encode_message(message, dialect) for message in messages],
    }
    has_settings = params != NOTHING_SET  # most calls have none
    if has_settings:
        body |= write_parameters(params, dialect.fields, dialect.name)
        body |= _structured(params) | _reasoning(dialect, params.reasoning)
    if stream:
        body["stream"] = True
        if include_usage and dialect.has_stream_options:
            body["stream_options"] = {"include_usage": True}
    return add_extra(body, params.extra) if has_settings else body


def _structured(params: CompletionParameters) -> JsonObject:
    """Return the keys of the fields that are more than a number or a text."""
    body: JsonObject = {}
    if params.response_format is not None:
        body["response_format"] = _format(params.response_format)
    if params.tools:
        body["tools"] = [_tool(as_tool(tool)) for tool in params.tools]
    if params.tool_choice is not None:
        body["tool_choice"] = _choice(as_tool_choice(params.tool_choice))
    if params.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = params.parallel_tool_calls
    return body


def _reasoning(dialect: ChatDialect, reasoning: ReasoningConfig | None) -> JsonObject:
    if reasoning is None:
        return {}
    if dialect.has_reasoning_object:
        fields = {"effort": reasoning.effort, "max_tokens": reasoning.max_tokens}
        return {"reasoning": {name: value for name, value in fields.items() if value is not None}}
    if reasoning.effort is None:
        raise InvalidParameterError(f"{dialect.name} has no reasoning max_tokens; give an effort")
    return {"reasoning_effort": reasoning.effort}


def _format(form: ResponseFormat) -> JsonObject:
    if form.schema is None:
        return {"type": "json_object"}
    schema = {"name": form.name, "schema": form.schema, "strict": form.strict}
    return {"type": "json_schema", "json_schema": schema}


def _tool(tool: ToolDefinition) -> JsonObject:
    function: JsonObject = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> JsonValue:
    if choice.name is None:
        return choice.mode
    return {"type": "function", "function": {"name": choice.name}}
