"""Bounds on the size of an answer, and the remaining quota that a server reports with it."""

import msgspec

from minillmlib.errors import InvalidParameterError

MEBIBYTE = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one answer, set per generator. A larger one is a `LimitExceededError`.

    Attributes:
        header_bytes: All headers together, with their names.
        body_bytes: A whole answer, or the body of an error.
        event_bytes: One event of a stream, and one line of it.
        stream_bytes: A whole stream, including everything that is not text, and the memory of
            what is kept of it.
        text_chars: Text, reasoning, refusals, tool calls and other content of a stream together.
            A call, a block and an image count some 300 more; what is no text counts its memory.
        json_values: Values in the JSON of one body or event. A value of two bytes on the wire
            takes some hundred in memory.
    """

    header_bytes: int = 64 * 1024
    body_bytes: int = 64 * MEBIBYTE
    event_bytes: int = 16 * MEBIBYTE
    stream_bytes: int = 512 * MEBIBYTE
    text_chars: int = 64 * MEBIBYTE
    json_values: int = 1_000_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise InvalidParameterError(f"{name} must be a whole number above 0, not {value!r}")


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The quota of requests and tokens as the headers of one answer state it.

    None stands for what the server does not say. `seconds_to_reset_...` is the time until the
    quota is full again, not until the next request is allowed. `tokens` are those of prompts and
    answers together; some services limit `input_tokens` and `output_tokens` besides.
    """

    remaining_requests: int | None = None
    limit_requests: int | None = None
    seconds_to_reset_requests: float | None = None
    remaining_tokens: int | None = None
    limit_tokens: int | None = None
    seconds_to_reset_tokens: float | None = None
    remaining_input_tokens: int | None = None
    limit_input_tokens: int | None = None
    seconds_to_reset_input_tokens: float | None = None
    remaining_output_tokens: int | None = None
    limit_output_tokens: int | None = None
    seconds_to_reset_output_tokens: float | None = None

    def share(self, count: int) -> "RateLimits":
        """Return the limits of one of so many processes that share the quota evenly."""
        if count == 1:
            return self
        return RateLimits(
            **{
                name: value // count if isinstance(value, int) else value
                for name, value in msgspec.structs.asdict(self).items()
            }
        )


NO_LIMITS = RateLimits()  # as most servers, which state none
