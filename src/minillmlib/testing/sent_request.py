"""A request as a test reads it."""

from __future__ import annotations

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, decode_json, excerpt, plural
from minillmlib.testing.dialects.base import Dialect
from minillmlib.testing.dialects.table import find_dialect
from minillmlib.transport.base import HttpRequest
from minillmlib.types.messages import Message
from minillmlib.types.tools import ToolDefinition

SHOWN_CHARS = 80  # of the last message, in an error


class SentRequest(HttpRequest, frozen=True, kw_only=True):
    """A request that was sent, with a view of its meaning on every wire that the library speaks.

    `url`, `headers` and `body` are what went out. Its `messages` and `tools` are read from the
    body, so they are what the server gets: without reasoning, and with settings of a vendor left
    to `json`. What is asked of a request that cannot be read raises `InvalidParameterError`.
    `wire` is the name of its wire if the address does not tell.
    """

    wire: str | None = None

    def json(self) -> JsonObject:
        """Return the decoded body."""
        try:
            body: JsonValue = decode_json(self.body)
        except MalformedResponseError:
            body = None
        if not isinstance(body, dict):
            raise InvalidParameterError(f"the body of {self._address} is no JSON object")
        return body

    @property
    def model(self) -> str:
        """The name of the model, as the body has it."""
        return str(self.json().get("model", ""))

    @property
    def is_stream(self) -> bool:
        """Whether a stream is asked for."""
        return self._dialect.is_stream(self.url, self.json())

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation, the system prompt first."""
        dialect, body = self._dialect, self.json()
        try:
            return tuple(dialect.read_messages(body))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unreadable("messages", error) from error

    @property
    def text(self) -> str:
        """The text of the last message, `""` if it has none."""
        messages = self.messages
        return (messages[-1].text if messages else None) or ""

    @property
    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools that the program runs; those of the vendor are in `json()["tools"]`."""
        dialect, body = self._dialect, self.json()
        try:
            return tuple(dialect.read_tools(body))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unreadable("tools", error) from error

    def describe(self) -> str:
        """Return the request in a few words, for the message of an error."""
        try:
            last, count = self.messages[-1], len(self.messages)
            return (
                f"{self._address} (model {self.model!r}, {count} {plural('message', count)}, the "
                f"last of the {last.role}: {excerpt(last.text or '', SHOWN_CHARS)!r})"
            )
        except (InvalidParameterError, IndexError):
            return f"{self._address} ({len(self.body)} {plural('byte', len(self.body))})"

    @property
    def _address(self) -> str:
        return f"{self.method} {self.shown_url}"

    @property
    def _dialect(self) -> Dialect:
        return find_dialect(self, self.wire)

    def _unreadable(self, what: str, error: Exception) -> InvalidParameterError:
        return InvalidParameterError(
            f"the {what} of {self._address} cannot be read ({type(error).__name__}: "
            f"{excerpt(str(error))}); read `json()`"
        )
