"""Secrets, and the credential of a request."""

import enum
import re
from functools import lru_cache
from typing import ClassVar, NoReturn, Self

from minillmlib.errors import InvalidParameterError

HIDDEN = "[hidden]"
# A header holds a secret if its name contains one of these words, or its value begins so.
SECRET_WORDS = ("auth", "key", "token", "secret", "password", "cookie")
SECRET_VALUES = ("bearer ", "basic ", "token ", "sk-")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def header_text_problem(text: str, what: str) -> str | None:
    """Return why an HTTP header cannot carry `text`, by position only, or None if it can."""
    if text.isascii() and text.isprintable():
        return None
    return _first_problem(text, what)


def _first_problem(text: str, what: str) -> str:
    position = next(n for n, char in enumerate(text, 1) if not " " <= char <= "~")
    return (
        f"{what} has a character that no HTTP header can carry "
        f"(position {position} of {len(text)}); check how it was copied or read"
    )


@lru_cache(maxsize=256)
def is_header_name(name: str) -> bool:
    """Whether `name` is a valid HTTP header name (RFC 9110, 5.1)."""
    return _HEADER_NAME.fullmatch(name) is not None


def header_problem(name: object, value: object) -> str | None:
    """Return why a header cannot be sent, without its value, or None if it can."""
    if not isinstance(name, str):
        return f"the name of a header must be a string, not {type(name).__name__}"
    if not is_header_name(name):
        return f"{name!r} is not a valid HTTP header name"
    if isinstance(value, Secret):  # which was checked when it was made
        return None
    if not isinstance(value, str):
        return f"the value of the header {name} must be a string, not {type(value).__name__}"
    return header_text_problem(value, f"the value of the header {name}")


class Secret:
    """A text that is never printed, pickled, copied or encoded by accident.

    Surrounding white space is dropped, since keys are often read from files. Raises
    `InvalidParameterError` if nothing remains or if a character cannot stand in a header; the
    message names the position, never the text.

    Examples:
        >>> key = Secret("sk-123")
        >>> print(key, key.expose_secret())
        [hidden] sk-123
    """

    __slots__ = ("_text",)

    def __init__(self, text: str, what: str = "the key") -> None:
        if isinstance(text, str):
            text = text.strip()
            if text and text.isascii() and text.isprintable():
                self._text = text
                return
            problem = _first_problem(text, what) if text else f"{what} is empty"
        else:
            problem = f"{what} must be a string, not {type(text).__name__}"
        del text  # it may be a key with a typing error, and tracebacks show local variables
        raise InvalidParameterError(problem)

    def expose_secret(self) -> str:
        """Return the text. Meant for writing a header, at the moment of sending."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._text == other._text  # both are this program's own: nobody times it

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # a hash would let the text be guessed

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, _spec: str) -> str:
        return HIDDEN

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name != "_text"]  # tools print them all

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a secret cannot be pickled or copied; "
            "let the key come from an environment variable (with_api_key_from_env)"
        )


def protect_header(name: str, value: str | Secret) -> str | Secret:
    """Return the value as a `Secret` if the name of its header or its form says that it is one."""
    if isinstance(value, Secret) or not value.strip():
        return value
    is_secret = any(word in name.lower() for word in SECRET_WORDS)
    is_secret = is_secret or value.lower().startswith(SECRET_VALUES)
    return Secret(value, f"the value of the header {name}") if is_secret else value


class AuthKind(enum.Enum):
    """The kind of a credential; the provider chooses the header."""

    NONE = "none"
    API_KEY = "api_key"
    BEARER_TOKEN = "bearer_token"  # noqa: S105 - the name of a kind


class Auth:
    """The credential for one request, resolved when the request is built."""

    __slots__ = ("_secret", "kind")

    def __init__(self, kind: AuthKind, secret: Secret | None = None) -> None:
        self.kind: AuthKind = kind
        self._secret = secret

    @classmethod
    def none(cls) -> Self:
        """Return no credential, for an open server."""
        return cls(AuthKind.NONE)

    @classmethod
    def api_key(cls, secret: Secret) -> Self:
        """Return a key, for the header that the provider chooses."""
        return cls(AuthKind.API_KEY, secret)

    @classmethod
    def bearer_token(cls, secret: Secret) -> Self:
        """Return a token, which always goes into `Authorization: Bearer`."""
        return cls(AuthKind.BEARER_TOKEN, secret)

    def secret(self) -> Secret | None:
        """Return the key or token, or None for an open server."""
        return self._secret

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Auth):
            return NotImplemented
        return self.kind is other.kind and self._secret == other._secret

    def __hash__(self) -> int:
        return hash(self.kind)

    def __repr__(self) -> str:
        return f"Auth({self.kind.value})"
