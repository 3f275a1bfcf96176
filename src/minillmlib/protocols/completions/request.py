"""Builds the body of a completions request: one text, which the model continues."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.protocols import fields
from minillmlib.types.messages import TOOL, Message
from minillmlib.types.parameters import CompletionParameters

Template: TypeAlias = Callable[[Sequence[Message]], str]

WIRE = "the completions wire"
PROMPT_KEY = "prompt"

# vLLM and SGLang know all of these. `logprobs` is a count here, as in the parameters.
_FIELDS = {
    name: name
    for name in (
        "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty",
        "repetition_penalty", "stop", "seed", "logprobs",
    )
}  # fmt: skip


def build_body(  # noqa: PLR0913 - the contract's five, and the template
    template: Template,
    model: str,
    messages: Sequence[Message],
    params: CompletionParameters,
    *,
    stream: bool,
    include_usage: bool,
) -> JsonObject:
    """Return the body of a request, with the text that `template` makes of the messages.

    Raises `InvalidParameterError` for a field or a message that the wire cannot carry.
    """
    body: JsonObject = {"model": model, PROMPT_KEY: _fill_template(template, messages)}
    if stream:
        body["stream"] = True
        if include_usage:
            body["stream_options"] = {"include_usage": True}
    body |= fields.write_parameters(params, _FIELDS, (), WIRE)
    return fields.add_extra(body, params.extra)


def join_texts(messages: Sequence[Message]) -> str:
    """Return the texts of messages, one after the other, with nothing between them.

    Raises `InvalidParameterError` for a tool call or its result.
    """
    if any(message.tool_calls or message.role is TOOL for message in messages):
        raise InvalidParameterError(
            "plain text has no tool calls and no results of tools; "
            "write them out with a template of your own"
        )
    return "".join(message.text or "" for message in messages)


def _fill_template(template: Template, messages: Sequence[Message]) -> str:
    media = [part for message in messages for part in (*message.attachments, *message.media)]
    if media:
        raise InvalidParameterError(
            f"{WIRE} takes no {media[0].kind}; leave it out, or use a provider that takes it"
        )
    text = template(messages)
    if not isinstance(text, str):
        raise InvalidParameterError(
            f"the template of a CompletionsProvider must return a text, not {type(text).__name__}"
        )
    return str.__str__(text)
