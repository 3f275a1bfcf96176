"""A key comes to light nowhere: not in errors, logs, tracebacks or pickles, nor at other servers."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import html
import inspect
import json
import logging
import pickle
import pprint
import re
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx2
import msgspec
import pytest
from secret_leaks import known_sinks
from secret_paths import (
    ANSWER,
    ENGINES,
    PATHS,
    VARIABLE,
    VARIANTS,
    KeyHeaderProvider,
    caught,
    engine,
)
from secret_refusals import MISPLACED, REFUSALS, SILENT, Place
from secret_shapes import REFUSED_SHAPES, SHAPES, Canary
from secret_sinks import SINKS, Catch, watched
from server import serving

import minillmlib
from minillmlib import (
    AnswerCache,
    ApiError,
    Auth,
    AuthenticationError,
    ChatNode,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    Recording,
    RedirectError,
    Secret,
    TlsError,
)
from minillmlib.httpx import HttpxTransport
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.transport.aiohttp import AiohttpTransport

pytestmark = pytest.mark.long

KEY = "sk-canary-0123456789"
ROOT = ChatNode.root("s")


def custom(url: str) -> GeneratorInfo:
    return GeneratorInfo.custom("c", url, "m")


def traces(canary: Canary, catch: Catch) -> dict[str, str]:
    """The sinks in which the key can be seen, and where."""
    found = {}
    for name, sink in SINKS.items():
        try:
            where = next(filter(None, map(canary.trace_in, sink(catch))), None)
        except Exception as error:  # noqa: BLE001 - a sink that breaks has shown nothing
            where = f"it breaks: {error!r}"
        if where is not None:
            found[name] = where
    return found


def assert_only_known(canary: Canary, way: str, *catches: Catch) -> None:
    """That the key is nowhere, but where the table of known leaks has it."""
    new, mended = [], []
    for catch in catches:
        found = traces(canary, catch)
        expected = known_sinks(way, canary.shape, catch.name)
        new += (f"{catch.name}: {s}: {found[s]}" for s in found if s not in expected)
        mended += (f"{catch.name}: {s}" for s in expected if s not in found)
    assert not new, "the key is in\n" + "\n".join(new)
    assert not mended, "no longer leaks, so the table is wrong:\n" + "\n".join(mended)


def test_the_sweep_is_as_wide_as_promised():
    assert len(SINKS) >= 20
    assert len(SHAPES) >= 12
    assert len(PATHS) >= 15
    assert len(SINKS) * len(SHAPES) * len(PATHS) >= 3600


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", PATHS)
async def test_however_a_call_ends_its_key_is_nowhere_to_be_seen(path, shape, monkeypatch):
    canary = Canary(shape)
    monkeypatch.setenv(VARIABLE, canary.given)
    with watched() as seen:
        ways = (caught(PATHS[path], variant, canary, seen) for variant in VARIANTS)
        catches = await asyncio.gather(*ways)
    assert len(catches) == len(VARIANTS)
    assert_only_known(canary, path, *catches)


async def refused(way, canary: Canary, folder, monkeypatch) -> Catch:
    transport = ScriptedTransport([])
    place = Place(canary.given, folder, monkeypatch.setenv, transport)
    with watched() as seen:
        catch = Catch("refused", GeneratorInfo.openai("m"), transport, seen)
        try:
            result = way(place)
            if inspect.isawaitable(result):
                await result
        except minillmlib.MiniLLMError as error:
            catch.error = error
    assert catch.error is not None, "it was taken"
    assert transport.requests == []
    return catch


@pytest.mark.parametrize("shape", REFUSED_SHAPES)
@pytest.mark.parametrize("way", REFUSALS)
async def test_a_key_that_no_header_can_carry_is_refused_by_its_position_only(
    way, shape, tmp_path, monkeypatch
):
    canary = Canary(shape)
    catch = await refused(REFUSALS[way], canary, tmp_path, monkeypatch)
    place = re.search(r"\(position (\d+) of (\d+)\)", str(catch.error))
    if way not in SILENT:
        bad = re.search(r"[^ -~]", canary.sent)
        assert (int(place[1]), int(place[2])) == (bad.end(), len(canary.sent))
    parts = (canary.sent[start : start + 5] for start in range(len(canary.sent) - 4))
    assert not any(part in str(catch.error) for part in parts)
    assert_only_known(canary, way, catch)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", MISPLACED)
async def test_a_key_in_the_wrong_place_is_refused_without_showing_it(
    way, shape, tmp_path, monkeypatch
):
    canary = Canary(shape)
    catch = await refused(MISPLACED[way], canary, tmp_path, monkeypatch)
    assert_only_known(canary, way, catch)


@pytest.mark.parametrize("shape", ["plain", "like JSON"])
@pytest.mark.parametrize("path", PATHS)
async def test_no_key_is_in_what_is_recorded_or_cached(path, shape, monkeypatch, tmp_path):
    canary = Canary(shape)
    monkeypatch.setenv(VARIABLE, canary.given)

    def recorded(engine):
        recording = Recording(tmp_path / "recording", transport=engine)
        return AnswerCache(tmp_path / "cache", any_temperature=True, transport=recording)

    with watched() as seen:
        catch = await caught(PATHS[path], "aiohttp, bearer token", canary, seen, recorded)
    catch.files += tmp_path.iterdir()
    assert_only_known(canary, path, catch)


@pytest.mark.parametrize("path", ["401, JSON", "answered by a stream", "cancelled in a stream"])
async def test_asyncios_debug_mode_logs_no_key(path, monkeypatch):
    canary = Canary("plain")
    monkeypatch.setenv(VARIABLE, canary.given)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    with watched() as seen:
        catch = await caught(PATHS[path], "aiohttp, bearer token", canary, seen)
    loop.set_debug(False)
    assert any("took" in record.getMessage() for record in seen.records)
    found = traces(canary, catch)
    assert not {"the log", "the fields of the log", "warnings"} & found.keys()


async def test_an_error_that_nobody_awaits_is_logged_without_the_key():
    canary = Canary("plain")
    echo = ScriptedReply.json({"error": {"message": canary.given}}, status=401)
    transport = ScriptedTransport([echo])
    generator = custom("https://host.example").with_api_key(canary.given)
    with watched() as seen:
        task = asyncio.create_task(ROOT.chat("u", generator.with_transport(transport)))
        await asyncio.wait({task})
        del task
        gc.collect()
    catch = Catch("forgotten", generator, transport, seen)
    assert any("never retrieved" in record.getMessage() for record in seen.records)
    assert traces(canary, catch) == {}


# Forms in which other programs write a key that has more in it than letters and digits.
OTHER_ECHOES = {
    "percent signs that spare slashes": quote,
    "percent signs in lower case": lambda key: re.sub(
        "%..", lambda found: found[0].lower(), quote(key, safe="")
    ),
    "JSON that escapes slashes": lambda key: json.dumps({"error": key}).replace("/", "\\/"),
    "JSON that escapes plus signs": lambda key: json.dumps({"error": key}).replace("+", "\\u002B"),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "base64 in lines": lambda key: base64.encodebytes(key.encode()).decode(),
    "numbered entities": lambda key: f"<title>{html.escape(key).replace('+', '&#43;')}</title>",
}


@pytest.mark.parametrize("form", OTHER_ECHOES)
async def test_a_key_is_cut_out_in_whatever_form_it_is_echoed(form):
    canary = Canary("like base64")
    key = f"{canary.sent}???>>>/+{canary.sent}"
    reply = ScriptedReply(pieces=(OTHER_ECHOES[form](key).encode(),), status=401)
    generator = custom("https://host.example").with_api_key(key)
    with pytest.raises(AuthenticationError) as caught_error:
        await ROOT.chat("u", generator.with_transport(ScriptedTransport([reply])))
    assert canary.trace_in(str(caught_error.value)) is None


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "api-key"])
async def test_a_key_that_was_given_as_a_header_is_cut_out_too(name):
    echo = ScriptedReply.json({"error": {"message": f"bad key {KEY}"}}, status=401)
    generator = custom("https://host.example").with_header(name, KEY)
    with pytest.raises(AuthenticationError) as caught_error:
        await ROOT.chat("u", generator.with_transport(ScriptedTransport([echo])))
    assert KEY not in str(caught_error.value)


def test_a_secret_shows_itself_in_no_form_of_text():
    secret = Secret(KEY)
    record = logging.LogRecord("x", 10, "f", 1, "%s %r", (secret, secret), None)
    shown = [
        repr(secret), str(secret), f"{secret}", f"{secret!r}", f"{secret!a}", f"{secret:>40}",
        "%s %r" % (secret, secret), "{0} {0!r}".format(secret), repr([secret, {"k": secret}]),  # noqa: UP031, UP032
        pprint.pformat({"k": secret}), json.dumps({"k": secret}, default=str),
        json.dumps({"k": secret}, default=repr), record.getMessage(), repr(dir(secret)),
        repr(Auth.api_key(secret)), str(Auth.bearer_token(secret)), f"{Auth.api_key(secret)}",
    ]  # fmt: skip
    assert "canary" not in "".join(shown)
    assert "[hidden]" in str(secret)
    for ask in (vars, len, iter, bytes, list, float, lambda secret: secret + ""):
        with pytest.raises(TypeError):
            ask(secret)


@pytest.mark.parametrize(
    "hold",
    [lambda s: s, Auth.api_key, Auth.bearer_token, lambda s: [s], lambda s: {"k": (s,)},
     lambda s: GeneratorInfo.openai("m").with_api_key(s.expose_secret()),
     lambda s: GeneratorInfo.openai("m").with_bearer_token(s.expose_secret()).credential,
     lambda s: GeneratorInfo.openai("m").with_api_key(s.expose_secret())
         .with_api_key_from_env("NOT_SET"),
     lambda s: GeneratorInfo.openai("m").with_header("Authorization", s.expose_secret()),
     lambda s: GeneratorInfo.openai("m").replace(headers=(("X-Token", s.expose_secret()),)),
     lambda s: GeneratorInfo.openai("m").with_header("X-Tenant", s)],
)  # fmt: skip
def test_what_holds_a_secret_refuses_to_be_pickled_copied_deeply_or_encoded(hold):
    held = hold(Secret(KEY))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises((InvalidParameterError, TypeError)) as caught_error:
            pickle.dumps(held, protocol)
        assert KEY not in str(caught_error.value)
    for spoil in (pickle.dumps, copy.deepcopy):
        with pytest.raises(InvalidParameterError, match="environment"):
            spoil(held)
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins, json.dumps):
        with pytest.raises(TypeError) as wrong_type:
            encode(held)
        assert KEY not in str(wrong_type.value)


async def test_a_secret_header_is_sent_and_shown_nowhere():
    transport = ScriptedTransport([ScriptedReply.json(ANSWER)])
    generator = custom("https://host.example").with_header("X-Key", KEY)
    generator = generator.with_header("Cookie", Secret(f"id={KEY}")).with_header("X-Tenant", "t")
    assert hash(generator) == hash(generator.with_header("X-Key", "another"))
    assert generator == generator.with_header("X-Tenant", "t").replace(headers=generator.headers)
    await ROOT.chat("u", generator.with_transport(transport))
    sent = dict(transport.requests[0].expose_headers())
    assert (sent["X-Key"], sent["Cookie"], sent["X-Tenant"]) == (KEY, f"id={KEY}", "t")
    assert KEY not in repr((generator, generator.headers, transport.requests[0].headers))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Auth", KEY),
        ("X-Custom", f"Bearer {KEY}"),
        ("X-Other", f"basic {KEY}"),
        ("X-Foo", f"sk-{KEY}"),
    ],
)
def test_a_header_is_a_secret_by_its_name_or_by_the_form_of_its_value(name, value):
    generator = custom("https://host.example").with_header(name, value)
    assert KEY not in repr((generator, generator.headers))
    with pytest.raises(InvalidParameterError, match="a secret cannot be pickled"):
        pickle.dumps(generator)


def test_a_secret_cannot_be_copied_hashed_or_given_attributes():
    secret = Secret(KEY)
    with pytest.raises(InvalidParameterError):
        copy.copy(secret)
    for use in (hash, lambda key: {key}, lambda key: {key: 1}):
        with pytest.raises(TypeError):
            use(secret)
    with pytest.raises(AttributeError):
        secret.other = 1


def test_secrets_are_equal_when_their_texts_are_and_to_nothing_else():
    secret = Secret(KEY)
    assert secret == Secret(f"\t {KEY}\r\n")
    for other in (KEY[:-1], KEY + "x", KEY[:-1] + "x", "x" + KEY[1:], KEY.upper(), "x"):
        assert secret != Secret(other)
    for other in (KEY, KEY.encode(), None, 0, object()):
        assert secret != other
    assert Auth.api_key(secret) == Auth.api_key(Secret(KEY))
    assert Auth.api_key(secret) != Auth.bearer_token(secret)
    assert Auth.api_key(secret) != Auth.api_key(Secret("other"))
    assert hash(Auth.api_key(secret)) == hash(Auth.api_key(Secret("other")))


class LeadsTo(GenericProvider):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def endpoint_url(self, base):
        return self.url


CREDENTIALS = {
    "a key": lambda generator: generator.with_api_key(KEY),
    "a token": lambda generator: generator.with_bearer_token(KEY),
    "a variable": lambda generator: generator.with_api_key_from_env(VARIABLE),
}


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize(
    "url",
    ["https://other.example/v1", "https://host.example:8443/v1", "http://host.example/v1",
     "https://sub.host.example/v1", "https://host.example.other.example/v1",
     "https://host.example@other.example/v1", "https://other.example/https://host.example/",
     "https://host.example\\@other.example/", "https://host.example\n.other.example/v1",
     "https://me:pass@host.example/v1", "//other.example/v1", "/v1", "ftp://host.example/v1"],
)  # fmt: skip
def test_a_key_goes_to_no_other_origin_than_the_base_url(url, credential, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    transport = ScriptedTransport([])
    generator = custom("https://host.example/v1").with_provider(LeadsTo(url))
    generator = CREDENTIALS[credential](generator).with_transport(transport)
    with pytest.raises(
        InvalidParameterError, match="the credential is for|must look like"
    ) as caught_error:
        minillmlib.run(ROOT.chat("u", generator))
    assert KEY not in str(caught_error.value)
    assert transport.requests == []


def sends(generator: GeneratorInfo) -> bool:
    """Whether a call is sent; else it is refused for want of encryption."""
    transport = ScriptedTransport([ScriptedReply.json(ANSWER)])
    try:
        minillmlib.run(ROOT.chat("u", generator.with_transport(transport)))
    except InvalidParameterError as error:
        assert "unencrypted" in str(error)
        assert "allow_http" in str(error)
        assert KEY not in str(error)
    return bool(transport.requests)


def test_without_a_credential_a_provider_may_lead_anywhere():
    assert sends(custom("https://host.example").with_provider(LeadsTo("http://other.example")))


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize(
    "host",
    ["host.example", "10.0.0.1", "192.168.1.1:8000", "0.0.0.0", "[::2]", "[fe80::1]", "127.0.0.1.example",
     "localhost.example", "notlocalhost", "128.0.0.1", "2130706433", "1270.0.0.1", "[::ffff:10.0.0.1]"],
)  # fmt: skip
def test_a_key_goes_unencrypted_over_no_network_unless_that_is_allowed(
    host, credential, monkeypatch
):
    monkeypatch.setenv(VARIABLE, KEY)
    generator = CREDENTIALS[credential](custom(f"http://{host}/v1"))
    assert not sends(generator)
    assert sends(generator.replace(allow_http=True))
    assert sends(generator.with_base_url(f"https://{host}/v1"))
    assert sends(custom(f"http://{host}/v1")), "an open server needs no encryption"


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "api-key"])
def test_a_key_that_was_given_as_a_header_goes_unencrypted_over_no_network_either(name):
    assert not sends(custom("http://host.example/v1").with_header(name, KEY))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "127.8.9.10", "127.255.255.255", "localhost", "LocalHost:80",
     "model.localhost", "[::1]", "[::1]:8000"],
)  # fmt: skip
def test_a_key_may_go_unencrypted_to_this_machine(host):
    assert sends(custom(f"http://{host}/v1").with_api_key(KEY))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("user", ["me", "me:", ":pass", "me:pass", "me%40x:pass", ""])
def test_a_base_url_with_a_user_is_refused(scheme, user):
    for host in ("host.example", "127.0.0.1:8000", "[::1]"):
        with pytest.raises(InvalidParameterError, match="with_api_key") as caught_error:
            custom(f"{scheme}://{user}@{host}/v1")
        assert "pass" not in str(caught_error.value).replace("password", "")


@asynccontextmanager
async def trap():
    """A server that hears of every connection, whatever is said on it."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65536))
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", [*ENGINES, "httpx that follows"])
async def test_a_redirect_takes_neither_key_nor_prompt_to_another_server(name, status, is_stream):
    async def redirect(exchange):
        where = f"http://{elsewhere}/v1/chat/completions"
        head = f"HTTP/1.1 {status} There\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n"
        await exchange.send(head.encode())

    follows = httpx2.AsyncClient(follow_redirects=True)
    async with engine(name) if name in ENGINES else follows as opened, trap() as (elsewhere, heard):
        transport = HttpxTransport(opened) if opened is follows else opened
        async with serving(redirect) as (url, exchanges):
            generator = custom(url).with_provider(KeyHeaderProvider()).with_api_key(KEY)
            for header in ("Authorization", "api-key"):
                generator = generator.with_header(header, KEY)
            generator = generator.with_transport(transport)
            with pytest.raises(RedirectError, match=elsewhere) as caught_error:
                if is_stream:
                    await anext(ROOT.chat_streaming("u", generator))
                else:
                    await ROOT.chat("u", generator)
    (exchange,) = exchanges
    for header in ("authorization", "x-api-key", "api-key"):
        assert exchange.headers[header] == KEY
    assert caught_error.value.status == status
    assert heard == []


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.mark.parametrize("has_key", [False, True])
async def test_where_no_proxy_says_so_the_engine_asks_neither_the_proxy_nor_netrc(
    has_key, tmp_path, monkeypatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pass-canary\ndefault login me password x")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    async def answer(exchange):
        await exchange.answer(ANSWER)

    async with trap() as (elsewhere, heard), serving(answer) as (url, exchanges):
        for variable in PROXIES:
            monkeypatch.setenv(variable, f"http://me:pass-canary@{elsewhere}")
        generator = custom(url).with_transport(AiohttpTransport())
        generator = generator.with_api_key(KEY) if has_key else generator
        await ROOT.chat("u", generator)
        async with trap() as (other, other_heard):
            with pytest.raises((TlsError, ApiError, minillmlib.TransportError)):
                await ROOT.chat("u", generator.with_base_url(f"https://{other}/v1"))
    assert heard == []
    assert len(other_heard) == 1, "it was asked itself"
    assert exchanges[0].request_line == "POST /v1/chat/completions HTTP/1.1"
    assert exchanges[0].headers.get("authorization") == (f"Bearer {KEY}" if has_key else None)
    assert "proxy-authorization" not in exchanges[0].headers


async def test_over_httpx_nothing_of_netrc_is_sent_and_nothing_of_the_clients_own_auth(
    tmp_path, monkeypatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pass-canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    async def answer(exchange):
        await exchange.answer(ANSWER)

    async with serving(answer) as (url, exchanges):
        for auth in (None, ("me", "pass-canary"), httpx2.NetRCAuth(str(netrc))):
            async with httpx2.AsyncClient(auth=auth) as client:
                await ROOT.chat("u", custom(url).with_transport(HttpxTransport(client)))
    assert ["authorization" in exchange.headers for exchange in exchanges] == [False] * 3


@pytest.mark.parametrize("form", [
    "127.0.0.1/v1/{}/chat", "https:///v1/{}", "https://user:{}@/v1", "v1#key={}", "http://[::1/{}",
    "https://user:{}@127.0.0.1/v1", "https://{}.example.com/v1", "x" * 190 + "{}",
])  # fmt: skip
async def test_an_address_that_finalize_put_the_key_into_is_refused_without_it(form):
    class Misled(GenericProvider):
        def finalize(self, request, auth):
            return msgspec.structs.replace(request, url=form.format(auth.secret().expose_secret()))

    generator = custom("http://127.0.0.1:9").replace(provider=Misled()).with_api_key(KEY)
    with pytest.raises(InvalidParameterError, match="the provider") as refused:
        await ROOT.chat("u", generator)
    assert KEY[:12] not in str(refused.value)
