"""How much of what a server sends is taken in."""

import msgspec

from minillmlib.errors import InvalidParameterError

__all__ = ["Limits"]

MEBIBYTE = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one answer; beyond them it is a `LimitExceededError`. All are set per generator.

    Attributes:
        header_bytes: All headers together, names and values.
        body_bytes: A whole answer, or the body of an error.
        event_bytes: One event of a stream, and one line of it.
        stream_bytes: A whole stream, with everything that is not text.
        text_chars: Text, reasoning and arguments of calls in a stream together.
        json_values: Values in the JSON of one body or event, since a small one takes a hundred
            bytes in memory and two on the wire.
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
