"""Servers of base models, which continue a text."""

from collections.abc import Callable, Sequence

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.completions import request, response
from minillmlib.providers.base import Capabilities, Provider
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.responses import CompletionResponse, StreamChunk


def _why_no_schema(model: str, response_format: ResponseFormat) -> str:
    del model, response_format
    return f"{request.WIRE} has no response_format"


class CompletionsProvider(Provider):
    r"""The `/completions` wire of base models: a conversation is one text, which they continue.

    vLLM, SGLang, llama.cpp, Ollama and others speak it. No roles are invented, and neighbouring
    messages are not merged. A forced beginning (`force_prepend`) is the end of the text.

    Args:
        template: Function that returns the text of the messages; called for each attempt. By
            default their texts follow each other with nothing between them, and tool calls are
            refused. Media are always refused. A function of a module can be pickled.

    Examples:
        >>> def dialogue(messages):
        ...     return "".join(f"{message.role}: {message.text}\n" for message in messages)
        >>> server = GeneratorInfo.custom("mine", "http://localhost:8000/v1", "olmo-2-32b")
        >>> server.with_provider(CompletionsProvider(dialogue)).provider
        CompletionsProvider(dialogue)
    """

    capabilities: Capabilities = Capabilities(
        prompt_key=request.PROMPT_KEY, why_no_schema=_why_no_schema, is_generic=True
    )

    def __init__(self, template: Callable[[Sequence[Message]], str] | None = None) -> None:
        if template is not None and not callable(template):
            raise InvalidParameterError(
                "the template of a CompletionsProvider must be a function of messages, "
                f"not {type(template).__name__}"
            )
        self.template = template

    def endpoint_url(self, base: str) -> str:
        """Return `/completions` below `base`."""
        return f"{base.rstrip('/')}/completions"

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """Return the body, with the text of the template."""
        template = self.template or request.join_texts
        return request.build_body(
            template, model, messages, params, stream=stream, include_usage=include_usage
        )

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """Return the answer, which is the continuation alone."""
        return response.parse_completion(raw, self.parse_usage)

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """Return the chunk in one event of a stream, or None for an event without content."""
        return response.parse_chunk(data, self.parse_usage)

    def __repr__(self) -> str:
        shown = getattr(self.template, "__name__", repr(self.template)) if self.template else ""
        return f"{type(self).__name__}({shown})"
