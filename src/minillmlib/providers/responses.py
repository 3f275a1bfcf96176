"""OpenAI's Responses API, and other servers that speak its wire."""

from collections.abc import Callable, Sequence

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.batches.base import BatchApi
from minillmlib.protocols.batches.openai import OpenAiBatches
from minillmlib.protocols.responses import request, response, usage
from minillmlib.providers.base import (
    Billing,
    Capabilities,
    Provider,
    add_omitted_routing,
    ignored_breakpoints,
)
from minillmlib.providers.models import openai as models
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters
from minillmlib.types.responses import CompletionResponse, StreamChunk
from minillmlib.types.usage import Usage

# See `Billing.priced_extra`.
PRICED_EXTRA = frozenset({
    "instructions", "store", "include", "max_output_tokens", "max_tool_calls", "reasoning", "text",
    "temperature", "top_p", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls",
    "truncation", "service_tier", "prompt_cache_key", "prompt_cache_retention", "metadata",
    "safety_identifier", "user",
})  # fmt: skip


def _why_no_prefill(model: str) -> str:
    del model
    return "a server of the Responses wire begins a new answer after an assistant message"


def _min_output_tokens(model: str, params: CompletionParameters) -> int:
    del model, params
    return request.MIN_OUTPUT_TOKENS


def _explain_omissions(
    model: str, messages: Sequence[Message], params: CompletionParameters
) -> dict[str, str]:
    del model
    omitted = ignored_breakpoints(messages) | request.omitted_parts(messages)
    return add_omitted_routing(omitted, params)


class ResponsesProvider(Provider):
    """The `/responses` wire, spoken without state: every request holds the whole conversation.

    The server is asked to store nothing and to seal its reasoning, which goes back to it, and
    only to it, in its place. It serves OpenAI and, at their addresses, the servers that have
    this endpoint, too.
    """

    capabilities: Capabilities = Capabilities(
        messages_key="input",
        why_no_prefill=_why_no_prefill,
        why_no_schema=models.why_no_schema,
        min_output_tokens=_min_output_tokens,
        prompt_cache=models.prompt_cache,
        omitted=_explain_omissions,
        explain_refusal=models.explain_responses_refusal,
        replayable_media=("image",),
        is_generic=True,
    )
    billing: Billing = Billing(max_media_tokens=models.max_media_tokens, priced_extra=PRICED_EXTRA)
    batches: BatchApi | None = OpenAiBatches("/v1/responses")
    seals_reasoning: bool = True  # whether to ask a model for it that may give it

    def endpoint_url(self, base: str) -> str:
        """Return `/responses` below `base`."""
        return f"{base.rstrip('/')}/responses"

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """Return the body; usage is always sent, so it need not be requested."""
        del include_usage
        seals = self.seals_reasoning and models.may_seal_reasoning(model)
        return request.build_body(model, messages, params, stream=stream, seals_reasoning=seals)

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """Return the answer; its items are put together as those of a stream are."""
        return response.parse_response(raw, self.parse_usage)

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """Return one event alone."""
        return self.chunk_reader()(data)

    def chunk_reader(self) -> Callable[[str], StreamChunk | None]:
        """Return a reader that knows the items of one stream."""
        return response.EventReader(self.parse_usage)

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """Return the counts of a body or of the last event, with the fees for tools beside them."""
        return usage.parse_usage(raw)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Whether counts follow: always, with the end."""
        del requested
        return True
