"""Every way in which a call that carries a key can end, on a loopback server."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx2
from secret_shapes import ECHOES, Canary
from secret_sinks import Catch, Surroundings, Witness, call_at_work
from server import Exchange, serving

from minillmlib import (
    ApiError,
    AuthenticationError,
    ChatNode,
    ConnectError,
    GeneratorInfo,
    GenericProvider,
    IncompleteStreamError,
    InvalidParameterError,
    LimitExceededError,
    Limits,
    MalformedResponseError,
    MaxRetriesExceededError,
    MiniLLMError,
    NodeCompletionParameters,
    NoJsonFoundError,
    ProtocolError,
    ReadError,
    RedirectError,
    RequestTimeoutError,
    ServerError,
    TlsError,
    Transport,
)
from minillmlib.httpx import HttpxTransport
from minillmlib.transport.aiohttp import AiohttpTransport

__all__ = [
    "ANSWER",
    "ENGINES",
    "PATHS",
    "VARIABLE",
    "VARIANTS",
    "KeyHeaderProvider",
    "caught",
    "engine",
]

VARIABLE = "SWEPT_KEY"
ANSWER = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
SAID = b'data: {"choices":[{"index":0,"delta":{"content":"ok"}}]}\n\n'
FINISHED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
SHORT = {"timeout_secs": 0.15}
TLS = ssl.create_default_context()  # takes long to make

Answer = Callable[["Exchange", "Scene"], Awaitable[None]]


@dataclass
class Scene:
    """What a server needs to know to answer."""

    key: str
    elsewhere: str
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when everything that will be said was said."""


class KeyHeaderProvider(GenericProvider):
    """Sends its key in a header that HTTP libraries do not know for a secret."""

    def auth_headers(self, auth):
        secret = auth.secret()
        return [("x-api-key", secret.expose_secret())] if secret else []


class BadHeader(GenericProvider):
    def auth_headers(self, auth):
        return [*super().auth_headers(auth), ("X-Bad", "one\nX-Other: two")]


class OddHeader(GenericProvider):
    def auth_headers(self, auth):
        return [*super().auth_headers(auth), ("X-Odd", None)]


class RaisesWithKey(GenericProvider):
    def auth_headers(self, auth):
        raise ValueError(f"no header for {auth.secret().expose_secret()}")


class RaisesOverAnswer(GenericProvider):
    def parse_response(self, raw):
        raise ValueError(f"cannot read {raw!r}")

    def parse_chunk(self, data):
        raise KeyError(data)


class LeadsElsewhere(GenericProvider):
    def endpoint_url(self, base):
        return "https://elsewhere.example/v1/chat/completions"


def says(status: str, echo: str) -> Answer:
    """Echoes the key in an answer."""

    async def answer(exchange: Exchange, scene: Scene) -> None:
        text, kind = ECHOES[echo]
        await exchange.answer(text(scene.key), status, kind)

    return answer


def says_json(build: Callable[[str], object], status: str = "200 OK") -> Answer:
    async def answer(exchange: Exchange, scene: Scene) -> None:
        await exchange.answer(json.dumps(build(scene.key)).encode(), status)

    return answer


def says_head(build: Callable[[Scene], str]) -> Answer:
    """Sends the head of an answer as it is, and nothing more."""

    async def answer(exchange: Exchange, scene: Scene) -> None:
        await exchange.send(build(scene).replace("\n", "\r\n").encode())
        exchange.close()

    return answer


def streams(*pieces: bytes | Callable[[str], bytes], then: str = "end") -> Answer:
    """Sends pieces of a stream, and then its end, a stop for ever, or a reset."""

    async def answer(exchange: Exchange, scene: Scene) -> None:
        await exchange.start_events()
        for piece in pieces:
            await exchange.chunk(piece if isinstance(piece, bytes) else piece(scene.key))
            await asyncio.sleep(0.003)
        await _finish(exchange, scene, then)

    return answer


def begins(then: str, status: str = "200 OK") -> Answer:
    """Sends a part of a body that echoes the key, and no more."""

    async def answer(exchange: Exchange, scene: Scene) -> None:
        body = json.dumps({"error": scene.key}).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n"
        await exchange.send(head.encode() + b"\r\n" + body)
        await asyncio.sleep(0.003)
        await _finish(exchange, scene, then)

    return answer


async def _finish(exchange: Exchange, scene: Scene, then: str) -> None:
    if then == "end":
        await exchange.end()
    elif then == "reset":
        exchange.hang_up()
    else:
        await asyncio.sleep(0.01)  # so that it has come
        scene.stalled.set()
        await asyncio.Event().wait()


async def waits(_exchange: Exchange, scene: Scene) -> None:
    scene.stalled.set()
    await asyncio.Event().wait()


async def answers(exchange: Exchange, _scene: Scene) -> None:
    await exchange.answer(ANSWER)


async def fails_and_waits(exchange: Exchange, scene: Scene) -> None:
    """A failure that is tried again, after a wait."""
    await says("500 Broken", "JSON")(exchange, scene)
    asyncio.get_running_loop().call_later(0.03, scene.stalled.set)


async def redirects(exchange: Exchange, scene: Scene) -> None:
    head = f"HTTP/1.1 307 There\r\nLocation: {scene.elsewhere}\r\nContent-Length: 0\r\n\r\n"
    await exchange.send(head.encode())


def event(build: Callable[[str], str], kind: str = "message") -> Callable[[str], bytes]:
    return lambda key: f"event: {kind}\ndata: {build(key)}\n\n".encode()


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def in_chunk(text: str) -> str:
    return f'{{"choices":[{{"delta":{{"content":{json.dumps(text)}'


def half_event(key: str) -> bytes:
    return f"data: {in_chunk(key)[:-1]}".encode()


async def whole(catch: Catch, settings: NodeCompletionParameters) -> None:
    node = await ChatNode.root("s").chat("u", catch.generator, settings)
    catch.values += (node, node.response, node.thread(), node.parent)


async def streamed(catch: Catch, settings: NodeCompletionParameters) -> None:
    stream = ChatNode.root("s").chat_streaming("u", catch.generator, settings)
    catch.values.append(stream)
    async with stream:
        async for chunk in stream:
            catch.values += (chunk, repr(stream))
    catch.values += (stream.node, stream.response)


async def dropped(catch: Catch, settings: NodeCompletionParameters) -> None:
    stream = ChatNode.root("s").chat_streaming("u", catch.generator, settings)
    catch.values.append(await anext(stream))
    del stream
    gc.collect(1)
    await asyncio.sleep(0)


@dataclass
class Path:
    """One way to end."""

    answer: Answer = answers
    error: type[BaseException] | None = ApiError
    call: Callable[[Catch, NodeCompletionParameters], Awaitable[None]] = whole
    settings: Mapping[str, object] = field(default_factory=dict)
    change: Callable[[GeneratorInfo], GeneratorInfo] = lambda generator: generator
    at: str = "server"
    is_cancelled: bool = False


def by(provider: GenericProvider) -> Callable[[GeneratorInfo], GeneratorInfo]:
    return lambda generator: generator.with_provider(provider)


def _fail_after(catch: Catch) -> Callable[[object], None]:
    def callback(info: object) -> None:
        catch.costs.append(info)
        raise RuntimeError("the callback is broken")

    return callback


PATHS: dict[str, Path] = {
    "nobody listens": Path(error=ConnectError, at="nowhere"),
    "TLS fails": Path(error=TlsError, at="https"),
    "a bad header beside the key": Path(error=InvalidParameterError, change=by(BadHeader())),
    "an odd header beside the key": Path(error=Exception, change=by(OddHeader())),
    "the provider raises with the key": Path(error=Exception, change=by(RaisesWithKey())),
    "the provider leads elsewhere": Path(error=InvalidParameterError, change=by(LeadsElsewhere())),
    "a redirect": Path(redirects, RedirectError),
    "a redirect that echoes": Path(
        says_head(lambda s: f"HTTP/1.1 302 There\nLocation: {s.elsewhere}?k={quote(s.key)}\n\n"),
        RedirectError,
    ),
    **{f"401, {echo}": Path(says("401 No", echo), AuthenticationError) for echo in ECHOES},
    "401 to a stream": Path(says("401 No", "JSON"), AuthenticationError, streamed),
    "401 that breaks off": Path(begins("reset", "401 No"), AuthenticationError),
    "500": Path(says("500 Broken", "JSON"), ServerError),
    "500 of a gateway": Path(says("502 Bad Gateway", "HTML"), ServerError),
    "a 200 that is no completion": Path(
        says_json(lambda key: {"detail": [key, {key: 1}]}), ServerError
    ),
    "a 200 without a word of an answer": Path(
        says_json(lambda key: {"id": [key, {key: 1}]}), MalformedResponseError
    ),
    "a 200 that is no JSON": Path(says("200 OK", "plain text"), MalformedResponseError),
    "a 200 with an error": Path(says("200 OK", "JSON")),
    "an error event": Path(
        streams(SAID, event(lambda key: json.dumps({"error": {"message": key}}), "error")),
        call=streamed,
    ),
    "an error among the chunks": Path(
        streams(SAID, event(lambda key: json.dumps({"error": {"message": key}}))), call=streamed
    ),
    "an event that is no JSON": Path(
        streams(SAID, event(lambda key: f"bad {key}")), MalformedResponseError, streamed
    ),
    "an event of another shape": Path(
        streams(SAID, event(lambda key: json.dumps({"choices": key}))),
        MalformedResponseError,
        streamed,
    ),
    "a stream that ends early": Path(streams(SAID, half_event), IncompleteStreamError, streamed),
    "a stream that ends early, unasked": Path(streams(SAID, half_event), IncompleteStreamError),
    "a stream that ends early and repeats it": Path(
        streams(SAID, lambda key: half_event(f"{key}, " * 30)), IncompleteStreamError, streamed
    ),
    "a text beside the events": Path(
        streams(SAID, lambda key: f"{'no ' * 20}{key}\n".encode()), IncompleteStreamError, streamed
    ),
    "lines beside the events": Path(
        streams(SAID, lambda key: base64.encodebytes(key.encode())), IncompleteStreamError, streamed
    ),
    "an error beside the events": Path(
        streams(SAID, lambda key: json.dumps({"error": {"message": key}}).encode()),
        call=streamed,
    ),
    "lines of JSON that end early": Path(
        streams(SAID[6:-1], SAID[6:-1], lambda key: in_chunk(key).encode()),
        IncompleteStreamError, streamed,
    ),
    "a stream that is reset": Path(streams(SAID, half_event, then="reset"), ReadError, streamed),
    "a body that is reset": Path(begins("reset"), ReadError),
    "too large a body": Path(
        begins("stop"), LimitExceededError,
        change=lambda generator: generator.replace(limits=Limits(body_bytes=9)),
    ),
    "no HTTP at all": Path(says_head(lambda s: f"{s.key} is bad\n\n"), ProtocolError),
    "a header line that is none": Path(
        says_head(lambda s: f"HTTP/1.1 200 OK\n{s.key}\n\n"), MiniLLMError  # a URL is a header
    ),
    "an encoding that echoes": Path(
        says_head(lambda s: f"HTTP/1.1 200 OK\nContent-Encoding: {s.key}\n\n"),
        MalformedResponseError,
    ),
    "a request id that echoes": Path(
        says_head(lambda s: f"HTTP/1.1 401 No\nX-Request-Id: {s.key}\n\n"), AuthenticationError
    ),
    "a request id that echoes in base64": Path(
        says_head(lambda s: f"HTTP/1.1 401 No\nX-Request-Id: {in_base64(s.key)}\n\n"),
        AuthenticationError,
    ),
    "time-out before the answer": Path(waits, RequestTimeoutError, settings=SHORT),
    "time-out in the body": Path(begins("stop"), RequestTimeoutError, settings=SHORT),
    "time-out in a stream": Path(
        streams(SAID, half_event, then="stop"), RequestTimeoutError, streamed, SHORT
    ),
    "cancelled before the answer": Path(waits, asyncio.CancelledError, is_cancelled=True),
    "cancelled in the body": Path(begins("stop"), asyncio.CancelledError, is_cancelled=True),
    "cancelled in a stream": Path(
        streams(SAID, half_event, then="stop"), asyncio.CancelledError, streamed, is_cancelled=True
    ),
    "cancelled between attempts": Path(
        fails_and_waits, asyncio.CancelledError,
        settings={"retry": 1, "back_off_time": 1e6, "max_back_off": 1e6}, is_cancelled=True,
    ),
    "the provider raises over the answer": Path(
        says("200 OK", "JSON"), MalformedResponseError, change=by(RaisesOverAnswer())
    ),
    "the provider raises over an event": Path(
        streams(event(lambda key: json.dumps({"error": key}))),
        MalformedResponseError, streamed, change=by(RaisesOverAnswer()),
    ),
    "retries exhausted": Path(
        says("500 Broken", "JSON"), MaxRetriesExceededError,
        settings={"retry": 2, "back_off_time": 0.0},
    ),
    "retries of a stream exhausted": Path(
        streams(event(lambda key: json.dumps({"error": key}), "error")),
        MaxRetriesExceededError, streamed, {"retry": 1, "back_off_time": 0.0},
    ),
    "an answer that is refused": Path(
        error=NoJsonFoundError, settings={"crash_on_refusal": True}
    ),
    "answered": Path(error=None),
    "answered by a stream": Path(streams(SAID, FINISHED, DONE), None, streamed),
    "a stream that is dropped": Path(streams(SAID, then="stop"), None, dropped),
    "the callback fails": Path(error=None, settings={"cost_callback": _fail_after}),
}  # fmt: skip


@asynccontextmanager
async def engine(name: str):
    """A transport of its own, over real sockets."""
    if name == "aiohttp":
        yield AiohttpTransport()
    else:
        async with httpx2.AsyncClient(verify=TLS) as client:
            yield HttpxTransport(client)


ENGINES = ("aiohttp", "httpx")

# The engine, and how the key comes into the generator.
VARIANTS: dict[str, tuple[str, Callable[[GeneratorInfo, str], GeneratorInfo]]] = {
    "aiohttp, api key of the environment": (
        "aiohttp", lambda g, _: g.with_api_key_from_env(VARIABLE),
    ),
    "aiohttp, bearer token": ("aiohttp", lambda g, key: g.with_bearer_token(key)),
    "httpx, api key": (
        "httpx", lambda g, key: g.with_provider(KeyHeaderProvider()).with_api_key(key),
    ),
    "httpx, bearer token": ("httpx", lambda g, key: g.with_bearer_token(key)),
}  # fmt: skip


async def caught(
    path: Path,
    variant: str,
    canary: Canary,
    seen: Surroundings,
    over: Callable[[Transport], Transport] = lambda transport: transport,
) -> Catch:
    """Goes the way once and gives what it left behind."""
    call_at_work.set(variant)
    name, with_key = VARIANTS[variant]
    async with serving(answers) as (elsewhere, strays), engine(name) as transport:
        scene = Scene(canary.sent, elsewhere)
        async with _served(path, scene) as url:
            generator = with_key(GeneratorInfo.custom("c", url, "m"), canary.given)
            catch = Catch(variant, path.change(generator), transport, seen)
            await _call(path, catch, scene, over(transport))
    assert not strays, "another origin heard of it"
    return catch


@asynccontextmanager
async def _served(path: Path, scene: Scene):
    """The base URL of what is at the other end: a server, one without TLS, or nobody."""
    if path.at == "server":
        async with serving(lambda exchange: path.answer(exchange, scene)) as (url, _):
            yield url
    elif path.at == "https":
        async with await asyncio.start_server(_refuse_tls, "127.0.0.1", 0) as server:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{closed.getsockname()[1]}"


async def _refuse_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def _call(path: Path, catch: Catch, scene: Scene, transport: Transport) -> None:
    witness = Witness(transport, catch.requests)
    catch.generator = catch.generator.with_transport(witness)
    settings = dict(path.settings)
    make_callback = settings.pop("cost_callback", None)
    callback = make_callback(catch) if make_callback else catch.costs.append
    settings = NodeCompletionParameters(cost_callback=callback, **settings)

    async def kept() -> None:
        try:
            await path.call(catch, settings)
        except BaseException as error:  # noqa: BLE001 - cancelled, too
            catch.error = error

    task = asyncio.create_task(kept())
    if path.is_cancelled:
        await asyncio.wait_for(scene.stalled.wait(), 60)
        task.cancel()
    await task
    assert os.environ.get(VARIABLE), "the key of the environment was there"
    is_right = catch.error is None if path.error is None else isinstance(catch.error, path.error)
    assert is_right, f"another error came: {type(catch.error).__name__}"
