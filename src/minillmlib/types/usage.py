"""Token counts in buckets that add up."""

from decimal import Decimal
from typing import Annotated, TypeAlias

import msgspec

from minillmlib.json_value import JsonObject

__all__ = ["Count", "Usage", "UsageUpdate"]

# A count as wires send it. JSON numbers are exact up to here; a larger one is nobody's bill.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request consumed, in tokens.

    The three input buckets are disjoint: their sum is the whole input, whatever a wire calls
    it. Of `cache_write_tokens`, `cache_write_1h_tokens` were written for an hour and the others
    for five minutes; of `completion_tokens`, `reasoning_tokens` were thought. `native_cost` is
    what the provider itself says the request cost in USD, if it says so. `non_token_charges` names
    what is on the bill that no price per token tells: several models, or fees of the vendor's
    own tools.
    """

    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    native_cost: Decimal | None = None
    non_token_charges: str | None = None

    @property
    def prompt_tokens(self) -> int:
        """The whole input: uncached, read from a cache and written to it."""
        return self.uncached_input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def is_complete(self) -> bool:
        """Whether it can be the whole: no prompt is empty, so without input some of it is lost.

        A provider that says itself what the request cost may count nothing.
        """
        return self.prompt_tokens > 0 or self.native_cost is not None


class UsageUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has told of its counts: `usage`, or None if what came cannot be used.

    `record` is the provider's own, of which `usage` was read.
    """

    usage: Usage | None = None
    record: JsonObject | None = None
