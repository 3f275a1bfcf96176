"""The most that a request can cost, before it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TypeVar

import msgspec

from minillmlib.client.http_request import body_of
from minillmlib.client.prepare import Call, plan, price_of
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import encode_json
from minillmlib.types.budget import CostEstimate
from minillmlib.types.costs import TokenPrice
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message, TextPart
from minillmlib.types.parameters import ParametersLike
from minillmlib.types.usage import Usage

__all__ = ["estimate_cost", "estimated"]

# What vendors put around each message and each tool, and what they or a model's template tell the
# model besides: how to call tools (up to 804 tokens at Anthropic), a system prompt where none is
# given (some hundred). No tokenizer makes more than one token of a byte, so that the bytes of a
# body bound the tokens of all that stands in it.
FRAME_TOKENS = 64
TEMPLATE_TOKENS = 1024

Part = TypeVar("Part", bound=TextPart | MediaPart)


def estimate_cost(
    messages: Sequence[Message], generator: GeneratorInfo, params: ParametersLike = None
) -> CostEstimate:
    """Return the most that one attempt to answer these messages can cost, or what is missing.

    Nothing is sent. See `CostEstimate`.
    """
    return estimated(plan(messages, generator, params, stream=False))


def estimated(call: Call) -> CostEstimate:
    """The ceiling of a request: every byte a token, at the dearest rate, and the longest answer."""
    billing, price = call.generator.provider.billing, price_of(call)
    media = list(_media_in(call.messages))
    of_media = [billing.max_media_tokens(call.generator.model, part) for part in media]
    call = _without_media_bytes(call)
    body = body_of(call)
    completion_tokens = billing.max_output_tokens(body, call.settings.params)
    unruled = {part.kind for part, most in zip(media, of_media, strict=True) if most is None}
    missing = [
        *(["a price (with_token_price)"] if price is None else []),
        *(["max_tokens"] if completion_tokens is None else []),
        *(f"a published rule for the tokens of {kind} input" for kind in sorted(unruled)),
        *(f"what {key!r} in the request costs" for key in billing.unpriced_keys(body)),
    ]
    if missing or price is None or completion_tokens is None:
        return CostEstimate(missing=tuple(missing))
    frames = len(call.messages) + len(media) + len(call.settings.params.tools or ())
    prompt_tokens = len(encode_json(body)) + frames * FRAME_TOKENS + TEMPLATE_TOKENS
    prompt_tokens += sum(filter(None, of_media))
    return CostEstimate(ceiling=_dearest(price, prompt_tokens, completion_tokens))


def _media_in(messages: Sequence[Message]) -> Iterator[MediaPart]:
    for message in messages:
        yield from (*message.attachments, *message.media)


def _without_media_bytes(call: Call) -> Call:
    """The call with a byte in place of the content of each image and the like: it is no text.

    Nor is what asks for a stream.
    """
    messages = tuple(map(_shrunk_message, call.messages))
    return msgspec.structs.replace(call, messages=messages, stream=False)


def _shrunk_message(message: Message) -> Message:
    content = message.content
    if not isinstance(content, str):
        content = tuple(map(_shrunk, content))
    return msgspec.structs.replace(
        message, content=content, media=tuple(map(_shrunk, message.media))
    )


def _shrunk(part: Part) -> Part:
    if not isinstance(part, MediaPart) or part.data is None:
        return part
    return msgspec.structs.replace(part, data=b"\0")


def _dearest(price: TokenPrice, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """The cost with all of the input in its dearest bucket, on whichever side of thresholds."""
    return max(
        price.cost_of(usage)
        for count in {prompt_tokens, *_thresholds_below(prompt_tokens, price)}
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
    )


def _thresholds_below(prompt_tokens: int, price: TokenPrice | None) -> Iterator[int]:
    while price is not None and price.threshold is not None and price.threshold < prompt_tokens:
        yield price.threshold
        price = price.next_tier
