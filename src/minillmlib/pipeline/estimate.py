"""The most that a request can cost, before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from minillmlib.values.budget import CostEstimate
from minillmlib.values.costs import TokenPrice
from minillmlib.values.json import encode_json
from minillmlib.values.media import MediaPart
from minillmlib.values.messages import Message
from minillmlib.values.parameters import CompletionParameters
from minillmlib.values.usage import Usage

__all__ = ["estimated"]

# What vendors put around each message and each tool; no tokenizer makes more of a byte than one
# token, so the bytes of the texts bound their tokens.
FRAME_TOKENS = 64
# What a vendor says to the model about tools, once: Anthropic up to 530 tokens, by its table for
# Claude 3 (docs.anthropic.com, tool-use-pricing-and-tokens).
TOOLS_TOKENS = 1000

# Keys of `extra` that make an answer longer, several answers of one, or a request dearer.
COSTLY_EXTRAS = frozenset(
    {
        "audio", "best_of", "max_completion_tokens", "max_output_tokens", "max_tokens",
        "mcp_servers", "min_tokens", "modalities", "models", "n", "num_predict", "plugins",
        "prediction", "provider", "route", "service_tier", "speed", "thinking", "tools",
        "web_search_options",
    }
)  # fmt: skip


def estimated(
    messages: Sequence[Message], params: CompletionParameters, price: TokenPrice | None
) -> CostEstimate:
    """The ceiling of a request: every byte a token, at the dearest rate, and the longest answer."""
    missing = [
        *(["a price (with_token_price)"] if price is None else []),
        *(["max_tokens"] if params.max_tokens is None else []),
        *(f"what extra[{key!r}] costs" for key in sorted(COSTLY_EXTRAS & params.extra.keys())),
        *sorted({f"the tokens of an {part.kind}" for m in messages for part in _media_of(m)}),
    ]
    if missing or price is None or params.max_tokens is None:
        return CostEstimate(missing=tuple(missing))
    count = sum(_bytes_of(message) + FRAME_TOKENS for message in messages) + _bytes_beside(params)
    return CostEstimate(ceiling=_dearest(price, count, params.max_tokens))


def _media_of(message: Message) -> list[MediaPart]:
    parts = () if isinstance(message.content, str) else message.content
    return [part for part in (*parts, *message.media) if isinstance(part, MediaPart)]


def _bytes_of(message: Message) -> int:
    thought = message.reasoning.blocks if message.reasoning else ()
    return (
        len((message.text or "").encode("utf-8", "replace"))
        + sum(len(call.name) + len(call.arguments.encode("utf-8", "replace")) + FRAME_TOKENS
              for call in message.tool_calls)
        + sum(len(encode_json(block.fields)) for block in thought)
    )  # fmt: skip


def _bytes_beside(params: CompletionParameters) -> int:
    """What else stands in the prompt: tools, and the schema of the answer."""
    tools = params.tools or ()
    count = sum(len(encode_json(tool)) + FRAME_TOKENS for tool in tools)
    count += TOOLS_TOKENS if tools else 0
    form = params.response_format
    if form is not None:
        count += FRAME_TOKENS + (len(encode_json(form.schema)) if form.schema else 0)
    return count


def _dearest(price: TokenPrice, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """The cost with all of the input in its dearest bucket, on either side of each threshold."""
    counts = {prompt_tokens}
    tier: TokenPrice | None = price
    while tier is not None:
        if tier.threshold is not None:
            counts.add(min(prompt_tokens, tier.threshold))
        tier = tier.above
    usages = [
        usage
        for count in counts
        for usage in (
            Usage(uncached_input_tokens=count, completion_tokens=completion_tokens),
            Usage(cache_read_tokens=count, completion_tokens=completion_tokens),
            Usage(cache_write_tokens=count, completion_tokens=completion_tokens),
            Usage(
                cache_write_tokens=count,
                cache_write_1h_tokens=count,
                completion_tokens=completion_tokens,
            ),
        )
    ]
    return max(price.cost_of(usage) for usage in usages)
