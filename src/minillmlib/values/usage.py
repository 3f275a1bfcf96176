"""Token counts in buckets that add up."""

from decimal import Decimal
from typing import Annotated, Self, TypeAlias

import msgspec

__all__ = ["Count", "Usage"]

# A count as wires send it. JSON numbers are exact up to here; a larger one is nobody's bill.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

INPUT_BUCKETS = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one request consumed, in tokens.

    The three input buckets are disjoint: their sum is the whole input, whatever a wire calls
    it. `completion_tokens` includes `reasoning_tokens`. `native_cost` is what the provider
    itself says the request cost in USD, if it says so.
    """

    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    native_cost: Decimal | None = None

    @property
    def prompt_tokens(self) -> int:
        """The whole input: uncached, read from a cache and written to it."""
        return self.uncached_input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.prompt_tokens + self.completion_tokens

    def merge(self, later: Self) -> Self:
        """One record from two of the same request, since a stream may send counts twice.

        Counts on a wire are cumulative, so nothing is ever added. The input buckets belong
        together: they come from the record that knows more input (a tie: the later one), and
        only what that record does not hold at all from the other. Anthropic's second record,
        for example, may leave out any of them.
        """
        wider, other = (self, later) if self.prompt_tokens > later.prompt_tokens else (later, self)
        fills = other.prompt_tokens != wider.prompt_tokens
        buckets = {
            name: getattr(wider, name) or (getattr(other, name) if fills else 0)
            for name in INPUT_BUCKETS
        }
        return msgspec.structs.replace(
            self,
            **buckets,
            completion_tokens=max(self.completion_tokens, later.completion_tokens),
            reasoning_tokens=max(self.reasoning_tokens, later.reasoning_tokens),
            native_cost=self.native_cost if later.native_cost is None else later.native_cost,
        )
