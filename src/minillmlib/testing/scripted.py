"""A transport with scripted responses."""

from __future__ import annotations

import inspect
import itertools
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self, TypeAlias

import msgspec

from minillmlib.auth.credentials import set_stand_in
from minillmlib.auth.secret import Auth, Secret
from minillmlib.client.retry import set_default_retries
from minillmlib.errors import InvalidParameterError, ReadError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.testing.dialects.base import Answer, Dialect, Failure, encode
from minillmlib.testing.dialects.table import DIALECTS, find_dialect
from minillmlib.testing.sent_request import SentRequest
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport
from minillmlib.transport.default import override_default_transport
from minillmlib.types.responses import FinishReason
from minillmlib.types.tools import ToolCall
from minillmlib.types.usage import Usage
from minillmlib.types.values import check_kind

# What a server counts that is not told otherwise, so that costs and budgets are not unknown.
COUNTS = Usage(uncached_input_tokens=10, completion_tokens=5)
_FAILURES = range(400, 600)


class ScriptedReply(msgspec.Struct, frozen=True, kw_only=True):
    """One response: what it says, in the dialect of whoever asks, or its bytes.

    `text`, `stream`, `tool_call`, `tool_calls`, `refusal` and `error` say what the server answers.
    The wire, and whether the answer comes whole or as a stream, follow from the request.

    `json`, `events` and the fields give the bytes of a server of any kind. `pieces` arrive one at a
    time. After the last one the body ends, or raises `ReadError` if `breaks_off` is set.

    Examples:
        >>> model = ScriptedTransport([ScriptedReply.tool_call("add", a=1, b=2)])
        >>> claude = GeneratorInfo.anthropic("claude-haiku-4-5").with_transport(model)
        >>> run(ChatNode.root().chat("1 + 2?", claude)).response.tool_calls[0].arguments_json()
        {'a': 1, 'b': 2}
    """

    pieces: tuple[bytes, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = {}
    breaks_off: bool = False

    def __post_init__(self) -> None:
        check_kind("the status of a reply", self.status, int)
        check_kind("the headers of a reply", self.headers, Mapping)
        for text in itertools.chain(*self.headers.items()):
            check_kind("the name or value of a header", text, str)
        if isinstance(self.pieces, str | bytes):
            raise InvalidParameterError("the pieces of a reply are a tuple of bytes")
        if isinstance(self.pieces, tuple | list):
            for piece in self.pieces:
                check_kind("a piece of a reply", piece, bytes | bytearray)
        headers = {name.lower(): value for name, value in self.headers.items()}
        msgspec.structs.force_setattr(self, "headers", headers)

    @classmethod
    def text(
        cls,
        text: str,
        *,
        reasoning: str = "",
        finish_reason: FinishReason = FinishReason.STOP,
        usage: Usage | None = COUNTS,
    ) -> ScriptedReply:
        """Return an answer of a text.

        `usage` is what the server counts, with its `native_cost` if it states one; None for a
        server that does not count.
        """
        answer = Answer(
            texts=(text,), reasoning=reasoning, finish_reason=finish_reason, usage=usage
        )
        return _answer(answer)

    @classmethod
    def stream(
        cls,
        pieces: Iterable[str],
        *,
        cut: bool = False,
        reasoning: str = "",
        usage: Usage | None = COUNTS,
    ) -> ScriptedReply:
        """Return an answer of a text that a stream brings in these pieces.

        With `cut` the stream ends after them, without its end marker, as it does behind a proxy
        that gives up: the call raises `IncompleteStreamError`. A call that asks for the whole
        answer at once raises `ReadError` then.
        """
        _check_iterable("the pieces of a stream", pieces)
        answer = Answer(texts=tuple(pieces), reasoning=reasoning, usage=usage, is_cut=cut)
        return _answer(answer)

    @classmethod
    def tool_call(cls, name: str, /, **arguments: JsonValue) -> ScriptedReply:
        """Return an answer that calls a tool with these arguments."""
        return cls.tool_calls((name, arguments))

    @classmethod
    def tool_calls(
        cls,
        *calls: tuple[str, JsonObject] | ToolCall,
        text: str = "",
        reasoning: str = "",
        usage: Usage | None = COUNTS,
    ) -> ScriptedReply:
        """Return an answer that calls tools, each given by its name and arguments.

        A `ToolCall` gives the id, too, and the text of the arguments, which may be broken.
        """
        answer = Answer(
            texts=(text,) if text else (),
            reasoning=reasoning,
            tool_calls=tuple(map(_as_call, calls)),
            finish_reason=FinishReason.TOOL_CALLS,
            usage=usage,
        )
        return _answer(answer)

    @classmethod
    def refusal(cls, words: str, *, usage: Usage | None = COUNTS) -> ScriptedReply:
        """Return a refusal with these words of the model, or of the vendor where it speaks."""
        return _answer(Answer(refusal=words, usage=usage))

    @classmethod
    def error(
        cls,
        status: int,
        message: str = "a scripted error",
        *,
        retry_after: float | None = None,
        code: str | None = None,
    ) -> ScriptedReply:
        """Return an error with a status of 400 to 599.

        `retry_after` are the seconds to wait that its header names, `code` the vendor's word.
        """
        if status not in _FAILURES:
            raise InvalidParameterError(f"an error has a status of 400 to 599, not {status!r}")
        wait = {} if retry_after is None else {"retry-after": _seconds(retry_after)}
        failure = Failure(status=status, message=message, code=code)
        _check_texts(message, code or "")
        return _Meaning(status=status, headers=wait, failure=failure)

    @classmethod
    def json(cls, value: JsonValue, *, status: int = 200) -> Self:
        """Return a JSON response; `value` is encoded unless it is bytes already."""
        try:
            body = value if isinstance(value, bytes) else msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidParameterError(f"a reply cannot be written as JSON: {error}") from None
        return cls(pieces=(body,), status=status, headers={"content-type": "application/json"})

    @classmethod
    def events(cls, *pieces: bytes, breaks_off: bool = False) -> Self:
        """Return a stream of server-sent events that arrives in these pieces."""
        headers = {"content-type": "text/event-stream"}
        return cls(pieces=pieces, headers=headers, breaks_off=breaks_off)


class _Meaning(ScriptedReply, frozen=True, kw_only=True):
    """A reply whose bytes are written when the request is there."""

    answer: Answer | None = None
    failure: Failure | None = None

    def write_for(self, request: SentRequest, dialect: Dialect, number: int) -> ScriptedReply:
        """Return the reply as the bytes that the server of `request` would send."""
        if self.failure is not None:
            reply = ScriptedReply.json(encode(dialect.write_error(self.failure)))
            headers = {**reply.headers, **self.headers}
            return msgspec.structs.replace(reply, status=self.status, headers=headers)
        assert self.answer is not None
        asked = request.json()
        if not dialect.is_stream(request.url, asked):
            body = encode(dialect.write_body(self.answer, asked, number))
            if not self.answer.is_cut:
                return ScriptedReply.json(body)
            half = ScriptedReply.json(body[: len(body) // 2])
            return msgspec.structs.replace(half, breaks_off=True)
        events = list(dialect.write_events(self.answer, asked, number))
        if not self.answer.is_cut:
            events += dialect.write_end(self.answer, asked, number)
        return ScriptedReply.events(*events)


Reply: TypeAlias = ScriptedReply | str
Script: TypeAlias = Iterable[Reply] | Callable[[SentRequest], Reply | Awaitable[Reply]]


class ScriptedTransport:
    """Answers requests by a script and records the `requests` it is sent.

    The script is a sequence of replies, for one request each, or a function of the request, which
    may be asynchronous, and may raise what a transport raises. A string is short for
    `ScriptedReply.text`. A reply that says something needs a request of a wire that the library
    speaks, known by its address; `wire` names the wire ("chat", "responses", "anthropic",
    "completions" or "openrouter") for a provider of your own with another address.

    Raises `InvalidParameterError`, which names the request, for more requests than there are
    replies, and for a reply that the wire of the request cannot say.

    Examples:
        >>> model = ScriptedTransport(["Paris."])
        >>> generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_transport(model)
        >>> run(ChatNode.root().chat("The capital of France?", generator)).text
        'Paris.'
        >>> model.requests[0].messages[-1].text
        'The capital of France?'
        >>> echo = generator.with_transport(ScriptedTransport(lambda request: request.text))
        >>> run(ChatNode.root().chat("Hello", echo)).text
        'Hello'
    """

    def __init__(self, script: Script = (), *, wire: str | None = None) -> None:
        if wire is not None and wire not in DIALECTS:
            known = ", ".join(DIALECTS)
            raise InvalidParameterError(f"there is no wire {wire!r}; the wires: {known}")
        self._wire = wire
        self.requests: list[SentRequest] = []
        self.script(script)

    def script(self, script: Script) -> None:
        """Replace what is left of the script."""
        if isinstance(script, str | ScriptedReply):
            raise InvalidParameterError(
                "a script is a list of replies or a function, not a single reply; write "
                f"[{script!r}] for one, and lambda request: ... to repeat it"
            )
        if not callable(script):
            _check_iterable("a script", script)
        self._function = script if callable(script) else None
        self._replies: Iterator[Reply] = iter(()) if callable(script) else iter(script)

    @property
    def generator(self) -> GeneratorInfo:
        """A generator, of the chat-completions wire, that is answered by this script."""
        generator = GeneratorInfo.custom("scripted", "https://scripted.example/v1", "scripted")
        return generator.with_transport(self)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Record `request` and return its response."""
        asked = SentRequest(**msgspec.structs.asdict(request), wire=self._wire)
        self.requests.append(asked)
        if self._function is None:
            reply = next(self._replies, None)
        else:
            made = self._function(asked)
            reply = await made if inspect.isawaitable(made) else made
        if type(reply) is not ScriptedReply:
            reply = self._write(reply, asked)
        return _ScriptedResponse(reply)

    def _write(self, reply: Reply | None, asked: SentRequest) -> ScriptedReply:
        if isinstance(reply, str):
            reply = ScriptedReply.text(reply)
        if not isinstance(reply, ScriptedReply):
            raise self._refuse(reply, asked)
        if not isinstance(reply, _Meaning):
            return reply
        try:
            dialect = find_dialect(asked, self._wire)
            return reply.write_for(asked, dialect, len(self.requests))
        except InvalidParameterError as error:
            problem = f"the script cannot answer {asked.describe()}: {error}"
        self._replies = itertools.chain((reply,), self._replies)  # it is not used up
        raise InvalidParameterError(problem)

    def _refuse(self, reply: object, asked: SentRequest) -> InvalidParameterError:
        if reply is not None or self._function is not None:
            return InvalidParameterError(
                f"a reply is a ScriptedReply or a str, not {type(reply).__name__}; the script has "
                f"it for {asked.describe()}"
            )
        return InvalidParameterError(
            f"the script has no reply for request {len(self.requests)}, {asked.describe()}; give "
            "ScriptedTransport one more reply"
        )


@contextmanager
def use_transport(transport: Transport) -> Iterator[None]:
    """Send the requests of all generators without a transport of their own through this one.

    Of several the last is used, and they may end in any order. A `Recording` or an `AnswerCache`
    among them sends through the one outside of it.

    Examples:
        >>> with use_transport(ScriptedTransport([ScriptedReply.error(400)])):
        ...     run(ChatNode.root().chat("Hello", GeneratorInfo.openai("gpt-4o-mini")))
        Traceback (most recent call last):
        ...
        minillmlib.BadRequestError: ...
    """
    with override_default_transport(transport):
        yield


@contextmanager
def fake_keys() -> Iterator[None]:
    """Let programs call without an API key in the environment: a stand-in is sent.

    Examples:
        >>> with use_transport(ScriptedTransport(["Paris."])), fake_keys():
        ...     run(ChatNode.root().chat("Hello", GeneratorInfo.preset("groq", "m"))).text
        'Paris.'
    """
    previous = set_stand_in(Auth.api_key(Secret("a-stand-in-for-a-key", "a stand-in for a key")))
    try:
        yield
    finally:
        set_stand_in(previous)


@contextmanager
def without_retries() -> Iterator[None]:
    """Retry nothing in this process, unless a call's settings have `retry`.

    A scripted failure is then raised at once, not after waits and further requests.
    """
    previous = set_default_retries(0)
    try:
        yield
    finally:
        set_default_retries(previous)


class _ScriptedResponse:
    def __init__(self, reply: ScriptedReply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._breaks_off = reply.breaks_off
        self._pieces = filter(None, reply.pieces)

    async def read(self) -> bytes:
        piece = next(self._pieces, b"")
        if not piece and self._breaks_off:
            raise ReadError("the response broke off before its end (scripted)")
        return piece

    def close(self) -> None:
        self._pieces = filter(None, ())


def _answer(answer: Answer) -> ScriptedReply:
    calls = [text for call in answer.tool_calls for text in (call.id, call.name, call.arguments)]
    check_kind("the usage of a reply", answer.usage, Usage)
    _check_texts(*answer.texts, answer.reasoning, answer.refusal, *calls)
    return _Meaning(answer=answer)


def _check_texts(*texts: object) -> None:
    """Refuse what no server can send."""
    for text in texts:
        if not isinstance(text, str):
            raise InvalidParameterError(f"a reply says texts, not {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidParameterError(
                f"a reply cannot say {text!a}: half of a surrogate pair is not text"
            ) from None


def _check_iterable(what: str, value: object) -> None:
    if not isinstance(value, Iterable):
        raise InvalidParameterError(f"{what} must be a list, not {type(value).__name__}")


def _seconds(secs: float) -> str:
    check_kind("retry_after", secs, int | float)
    if not 0.001 <= secs < math.inf:
        raise InvalidParameterError(f"retry_after must be seconds, at least 0.001, not {secs!r}")
    return f"{secs:.3f}".rstrip("0").rstrip(".")


def _as_call(call: object) -> ToolCall:
    match call:
        case ToolCall():
            return call
        case (str() as name, Mapping() as arguments):
            return ToolCall(id="", name=name, arguments=_encode_arguments(name, arguments))
    raise InvalidParameterError(
        "a call of a script is a name and its arguments, such as ('add', {'a': 1}), or a "
        f"ToolCall, not {call!r}"
    )


def _encode_arguments(name: str, arguments: Mapping[str, JsonValue]) -> str:
    """Return the arguments as a model writes them. NaN, which is no JSON, is refused."""
    try:
        return json.dumps(dict(arguments), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(f"the arguments of {name} are no JSON: {error}") from None
