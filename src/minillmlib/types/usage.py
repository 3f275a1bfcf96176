"""Token counts in disjoint buckets."""

from decimal import Decimal
from typing import Annotated, Self, TypeAlias, TypeVar

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, plural

T = TypeVar("T")

# A count as wires send it. JSON numbers are exact up to 2**53; a larger count is not a bill.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


def convert_counts(record: JsonValue, shape: type[T]) -> T:
    """Convert a record of counts; whole numbers may be written as floats, such as 12.0.

    Raises `ValueError` for a record of another shape (QuantumNous/new-api#1545).
    """
    try:
        return msgspec.convert(record, shape)
    except ValueError:
        return msgspec.convert(_whole_numbers(record, _RECORD_DEPTH), shape)


_RECORD_DEPTH = 4  # of Anthropic's: usage, iterations, one of them, its cache_creation


def _whole_numbers(value: JsonValue, depth: int) -> JsonValue:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if depth and isinstance(value, dict):
        return {name: _whole_numbers(part, depth - 1) for name, part in value.items()}
    if depth and isinstance(value, list):
        return [_whole_numbers(part, depth - 1) for part in value]
    return value


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The tokens that one request consumed.

    The three input buckets are disjoint, and their sum is the whole input.
    `cache_write_1h_tokens` is the part of `cache_write_tokens` that was written for an hour; the
    rest was written for five minutes. `reasoning_tokens` is a part of `completion_tokens`.
    `native_cost` is the cost in USD as stated by the provider, if it states one, and
    `native_cost_source` the field or header that states it.
    `non_token_charges` names charges that a price per token does not cover: several models, or
    fees for the vendor's tools. `service_tier` is the tier that served the request, None for the
    standard one. `surcharges` names the facts that may make these tokens more expensive: "audio
    tokens", "image tokens", "video tokens", "inference_geo us", or a count that is not known here.
    """

    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    native_cost: Decimal | None = None
    native_cost_source: str | None = None
    non_token_charges: str | None = None
    service_tier: str | None = None
    surcharges: tuple[str, ...] = ()

    def with_native_cost(self, usd: Decimal, source: str) -> Self:
        """Return a copy with the cost that `source` states."""
        return msgspec.structs.replace(self, native_cost=usd, native_cost_source=source)

    @property
    def prompt_tokens(self) -> int:
        """The whole input: uncached, read from a cache, and written to one."""
        return self.uncached_input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def is_complete(self) -> bool:
        """Whether these counts can be the final bill.

        A prompt is never empty, so zero input means that counts are missing, unless the provider
        states the cost itself.
        """
        return (
            self.uncached_input_tokens > 0  # as in most
            or self.prompt_tokens > 0
            or self.native_cost is not None
        )

    def __str__(self) -> str:
        cached = f" ({self.cache_read_tokens:,} cached)" if self.cache_read_tokens else ""
        tokens = plural("token", self.prompt_tokens)
        return f"{self.prompt_tokens:,} {tokens} in{cached}, {self.completion_tokens:,} out"


class UsageUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a stream so far: `usage`, or None if they are not usable.

    `record` is the provider's record, from which `usage` was read.
    """

    usage: Usage | None = None
    record: JsonObject | None = None
