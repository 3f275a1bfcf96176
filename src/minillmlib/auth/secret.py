"""Secrets, and how a request proves who sends it."""

import enum
import re
from functools import lru_cache
from typing import NoReturn, Self

from minillmlib.auth.redaction import HIDDEN, Redactor
from minillmlib.errors import InvalidParameterError

__all__ = [
    "Auth",
    "AuthKind",
    "Secret",
    "check_header_text",
    "header_text_problem",
    "is_header_name",
]

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def header_text_problem(text: str, what: str) -> str | None:
    """Why an HTTP header cannot carry `text`, by position only, or None if it can."""
    if text.isascii() and text.isprintable():
        return None
    position = next(n for n, char in enumerate(text, 1) if not " " <= char <= "~")
    return (
        f"{what} has a character that no HTTP header can carry "
        f"(position {position} of {len(text)}); check how it was copied or read"
    )


def check_header_text(text: str, what: str) -> str:
    """`text` if it may stand in an HTTP header, else an error that shows only the position."""
    problem = header_text_problem(text, what)
    if problem is None:
        return text
    del text  # it may be a secret, and a traceback may show what a frame holds
    raise InvalidParameterError(problem)


@lru_cache(maxsize=256)
def is_header_name(name: str) -> bool:
    """Whether it is a valid HTTP header name (RFC 9110, 5.1)."""
    return _HEADER_NAME.fullmatch(name) is not None


class Secret:
    """A text that is never printed, pickled, copied or encoded by accident.

    Surrounding white space is dropped, since keys are often read from files. Raises
    `InvalidParameterError` if nothing is left or if a character cannot stand in a header;
    the message tells the position, never the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str, what: str = "the key") -> None:
        if not isinstance(text, str):
            kind = type(text).__name__
            del text  # see `check_header_text`
            raise InvalidParameterError(f"{what} must be a string, not {kind}")
        try:
            self._text = check_header_text(text.strip(), what)
        finally:
            del text  # see `check_header_text`
        if not self._text:
            raise InvalidParameterError(f"{what} is empty")

    def expose_secret(self) -> str:
        """The text itself. Meant for building a header, at the moment of sending."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        import hmac  # noqa: PLC0415 - brings OpenSSL along, and secrets are seldom compared

        return hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]  # a hash would let the text be guessed

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, _spec: str) -> str:
        return HIDDEN

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a secret cannot be pickled or copied; "
            "let the key come from an environment variable (with_api_key_from_env)"
        )


class AuthKind(enum.Enum):
    """What kind of proof an `Auth` carries; the provider chooses the header."""

    NONE = "none"
    API_KEY = "api_key"
    BEARER_TOKEN = "bearer_token"  # noqa: S105 - the name of a kind


class Auth:
    """The proof that one request carries, resolved at the moment it is built."""

    __slots__ = ("_secret", "kind")

    def __init__(self, kind: AuthKind, secret: Secret | None = None) -> None:
        self.kind = kind
        self._secret = secret

    @classmethod
    def none(cls) -> Self:
        """No proof: an open server."""
        return cls(AuthKind.NONE)

    @classmethod
    def api_key(cls, secret: Secret) -> Self:
        """A key whose header the provider chooses."""
        return cls(AuthKind.API_KEY, secret)

    @classmethod
    def bearer_token(cls, secret: Secret) -> Self:
        """A token that always goes into `Authorization: Bearer`."""
        return cls(AuthKind.BEARER_TOKEN, secret)

    def secret(self) -> Secret | None:
        """The key or token, or None for an open server."""
        return self._secret

    def redactor(self, *others: Secret) -> Redactor:
        """What cuts the secret, and these others, out of texts in which a server echoes them."""
        own = () if self._secret is None else (self._secret,)
        return Redactor(*own, *others)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Auth):
            return NotImplemented
        return self.kind is other.kind and self._secret == other._secret

    def __hash__(self) -> int:
        return hash(self.kind)

    def __repr__(self) -> str:
        return f"Auth({self.kind.value})"
