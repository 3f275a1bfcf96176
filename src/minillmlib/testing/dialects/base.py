"""The meaning of an answer, and the contract of a dialect that writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.providers.base import Provider
from minillmlib.types.messages import Message
from minillmlib.types.responses import FinishReason
from minillmlib.types.tools import ToolCall, ToolDefinition
from minillmlib.types.usage import Usage

ARGUMENT_CHARS = 16  # of a call's arguments, in each event
RAW_ADVICE = "give the bytes of the server: ScriptedReply.json(...) or ScriptedReply.events(...)"

# The code and the type of an error, as vendors send them with a status. A miss is the last row.
_ERROR_WORDS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_value", "invalid_request_error"),
    401: ("invalid_api_key", "authentication_error"),
    402: ("insufficient_quota", "billing_error"),
    403: ("permission_denied", "permission_error"),
    404: ("model_not_found", "not_found_error"),
    408: ("timeout", "timeout_error"),
    409: ("conflict_error", "conflict_error"),
    413: ("payload_too_large", "request_too_large"),
    422: ("unprocessable", "invalid_request_error"),
    429: ("rate_limit_exceeded", "rate_limit_error"),
    503: ("overloaded", "overloaded_error"),
    529: ("provider_overloaded", "overloaded_error"),
    500: ("server_error", "api_error"),
}

_encoder = msgspec.json.Encoder(decimal_format="number")  # a cost is a number on every wire


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The content of an answer, whatever its wire. `texts` are its pieces in a stream."""

    texts: tuple[str, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    usage: Usage | None = None
    is_cut: bool = False

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error with a status. `code` is the vendor's word, or None for the usual one."""

    status: int
    message: str
    code: str | None = None


class Dialect:
    """Writes answers in the shapes of one wire, and reads its requests.

    Each method takes `asked`, the decoded body of the request, and `number`, which makes the ids
    of an answer unique in its script.
    """

    name: ClassVar[str]
    path: ClassVar[str]  # the end of its addresses
    host: ClassVar[str] = ""  # of the one server that speaks it
    provider: ClassVar[Provider]  # which reads back the counts
    finish_words: ClassVar[Mapping[FinishReason, str]]

    def is_asked_at(self, url: str) -> bool:
        """Whether a request to this address wants an answer in this dialect."""
        parts = urlsplit(url)
        is_host = not self.host or (parts.hostname or "").endswith(self.host)
        return is_host and parts.path.endswith(self.path)

    def is_stream(self, url: str, asked: JsonObject) -> bool:
        """Whether a request asks for a stream."""
        del url
        return asked.get("stream") is True

    def read_messages(self, asked: JsonObject) -> list[Message]:
        """Return the messages of a request, without reasoning."""
        raise NotImplementedError

    def read_tools(self, asked: JsonObject) -> list[ToolDefinition]:
        """Return the tools of a request that its program runs."""
        raise NotImplementedError

    def write_body(self, answer: Answer, asked: JsonObject, number: int) -> JsonObject:
        """Return a whole answer."""
        raise NotImplementedError

    def write_events(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        """Yield the events of a stream before those of `write_end`."""
        raise NotImplementedError

    def write_end(self, answer: Answer, asked: JsonObject, number: int) -> Iterator[bytes]:
        """Yield the events that make a stream complete."""
        raise NotImplementedError

    def write_error(self, failure: Failure) -> JsonObject:
        """Return the body of an error: OpenAI's, by default."""
        code, kind = error_words(failure)
        return {"error": {"message": failure.message, "type": kind, "param": None, "code": code}}

    def write_counts(self, usage: Usage) -> JsonObject:
        """Return the record of the counts."""
        raise NotImplementedError

    def usage_fields(self, answer: Answer) -> JsonObject:
        """Return the record of the counts under its key, or nothing if there are none.

        Raises `InvalidParameterError` for counts that the wire cannot state.
        """
        if answer.usage is None:
            return {}
        record = self.write_counts(answer.usage)
        read = self.provider.parse_usage(decode(encode({"usage": record})))
        if read is None or _without_source(read) != _without_source(answer.usage):
            raise self.refuse(f"this usage ({answer.usage!r}); it reads as {read!r}")
        return {"usage": record}

    def finish_word(self, answer: Answer) -> str:
        """Return the wire's word for why the model stopped."""
        word = self.finish_words.get(answer.finish_reason)
        if word is None:
            raise self.refuse(f"the finish reason {answer.finish_reason!s}")
        return word

    def refuse(self, what: str) -> InvalidParameterError:
        """Return the error for what this wire has no words for."""
        return InvalidParameterError(f"the {self.name} wire cannot say {what}; {RAW_ADVICE}")


def error_words(failure: Failure) -> tuple[str, str]:
    """Return the code and the type of an error."""
    code, kind = _ERROR_WORDS.get(failure.status, _ERROR_WORDS[500])
    return failure.code or code, failure.code or kind


def encode(value: JsonValue) -> bytes:
    """Encode what a dialect wrote."""
    return _encoder.encode(value)


def decode(data: bytes) -> JsonValue:
    """Decode it again, as a provider gets it."""
    return msgspec.json.decode(data)


def write_event(value: JsonValue, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    line = b"" if name is None else b"event: " + name.encode() + b"\n"
    return line + b"data: " + encode(value) + b"\n\n"


def argument_pieces(call: ToolCall) -> Iterator[str]:
    """Yield the arguments as a stream brings them."""
    for start in range(0, len(call.arguments), ARGUMENT_CHARS):
        yield call.arguments[start : start + ARGUMENT_CHARS]


def call_id(call: ToolCall, number: int, place: int) -> str:
    """Return the id of a call, which is new in each answer."""
    return call.id or f"call_{number}_{place + 1}"


def _without_source(usage: Usage) -> Usage:
    return msgspec.structs.replace(usage, native_cost_source=None)
