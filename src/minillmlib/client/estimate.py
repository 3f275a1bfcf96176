"""The most that a request can cost, before it is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from minillmlib.client.http_request import build_body
from minillmlib.client.prepare import Call, prepare, price_of, unpriced_keys
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonObject, encode_json
from minillmlib.types.costs import CostEstimate, TokenPrice
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.parameters import ParametersLike
from minillmlib.types.usage import Usage

# Vendors frame each message and tool, and they or a model's template add text: how to call tools
# (up to 804 tokens at Anthropic), a system prompt where none is given (some hundred). No tokenizer
# makes more than one token of a byte, so the bytes of a body bound the tokens of its text.
FRAME_TOKENS = 64
TEMPLATE_TOKENS = 1024

STREAM_KEYS = ("stream", "stream_options")  # no part of the prompt

# The counts of usage that hold all input if it is billed at one rate.
INPUT_COUNTS = (
    ("uncached_input_tokens",),
    ("cache_read_tokens",),
    ("cache_write_tokens",),
    ("cache_write_tokens", "cache_write_1h_tokens"),
)


def estimate_cost(
    messages: Sequence[Message], generator: GeneratorInfo, params: ParametersLike = None
) -> CostEstimate:
    """Return the most that one attempt to answer these messages can cost.

    With fallbacks, that is an attempt of the dearest generator. Nothing is sent. If something is
    missing to say so, the estimate names it: see `CostEstimate`.

    Examples:
        >>> estimate_cost([Message.user("Hello")], GeneratorInfo.openai("gpt-4o-mini")).missing
        ('a price (with_token_price)', 'max_tokens')
    """
    call = prepare(messages, generator, params, stream=False)
    if not generator.fallbacks:
        return _estimate(call)
    calls = (call, *map(call.with_generator, generator.fallbacks))
    estimates = [(each.generator.label, _estimate(each)) for each in calls]
    missing = tuple(
        [f"{label}: {fact}" for label, estimate in estimates for fact in estimate.missing]
    )
    ceilings = [estimate.ceiling for _, estimate in estimates if estimate.ceiling is not None]
    return CostEstimate(missing=missing) if missing else CostEstimate(ceiling=max(ceilings))


def _estimate(call: Call) -> CostEstimate:
    body, _, _ = build_body(call)
    return estimate_call(call, body, encode_json(body))


def estimate_call(call: Call, body: JsonObject, data: bytes) -> CostEstimate:
    """Return the ceiling of a request with this body, `data` when encoded.

    Every byte counts as a token, at the dearest rate, and the answer is as long as it may be.
    """
    billing, price = call.generator.provider.billing, price_of(call)
    messages = call.messages
    media = [part for message in messages for part in (*message.attachments, *message.media)]
    media_tokens = [billing.max_media_tokens(call.generator.model, part) for part in media]
    completion_tokens = billing.max_output_tokens(body, call.settings.params)
    uncountable = {
        part.kind for part, tokens in zip(media, media_tokens, strict=True) if tokens is None
    }
    missing = [
        *(["a price (with_token_price)"] if price is None else []),
        *(["max_tokens"] if completion_tokens is None else []),
        *(f"a published rule for the tokens of {kind} input" for kind in sorted(uncountable)),
        *(f"what {key!r} in the request costs" for key in unpriced_keys(call, body)),
    ]
    if missing or price is None or completion_tokens is None:
        return CostEstimate(missing=tuple(missing))
    frames = len(messages) + len(media) + len(call.settings.params.tools or ())
    prompt_tokens = _text_bytes(body, data, media) + frames * FRAME_TOKENS + TEMPLATE_TOKENS
    prompt_tokens += sum(filter(None, media_tokens))
    return CostEstimate(ceiling=_max_cost(price, prompt_tokens, completion_tokens))


def _text_bytes(body: JsonObject, data: bytes, media: Sequence[MediaPart]) -> int:
    """Return the size of the body without the bytes of media and without what asks for a stream.

    Media are no text. Only what is found in the body as base64 is taken off, so that a wire which
    sends them otherwise is estimated too high and never too low.
    """
    size = len(data)
    contents = Counter(part.base64 for part in media if part.data is not None)
    for content, count in contents.items():
        size -= min(data.count(content.encode()), count) * len(content)
    stream_options = {key: body[key] for key in STREAM_KEYS if key in body}
    return size - (len(encode_json(stream_options)) - 1 if stream_options else 0)


def _max_cost(price: TokenPrice, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """Return the cost with all input in its dearest bucket, on whichever side of thresholds."""
    output = Usage(completion_tokens=completion_tokens)
    return max(
        price.cost_of(msgspec.structs.replace(output, **dict.fromkeys(names, count)))
        for count in {prompt_tokens, *_thresholds_below(prompt_tokens, price)}
        for names in INPUT_COUNTS
    )


def _thresholds_below(prompt_tokens: int, price: TokenPrice | None) -> Iterator[int]:
    while price is not None and price.threshold is not None and price.threshold < prompt_tokens:
        yield price.threshold
        price = price.next_tier
