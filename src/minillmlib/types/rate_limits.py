"""The remaining quota that a server reports with an answer."""

import msgspec

__all__ = ["RateLimits"]


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The quota of requests and tokens as the headers of one answer state it.

    None stands for what the server does not say. `seconds_to_reset_...` is the time until the
    quota is full again, not until the next request is allowed.
    """

    remaining_requests: int | None = None
    limit_requests: int | None = None
    seconds_to_reset_requests: float | None = None
    remaining_tokens: int | None = None
    limit_tokens: int | None = None
    seconds_to_reset_tokens: float | None = None
