"""What errors of connections say, and what they say of whether anything was sent."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
import ssl

import aiohttp
import httpx2
import pytest
from aiohttp.client_reqrep import ConnectionKey

from minillmlib import (
    ConnectError,
    HttpRequest,
    InvalidParameterError,
    MiniLLMError,
    MissingExtraError,
    ProtocolError,
    ReadError,
    TlsError,
)
from minillmlib.httpx import HttpxTransport
from minillmlib.testing import ScriptedTransport, forbid_network
from minillmlib.transport.base import check_transport, origin_of, refuse_by_proxy
from minillmlib.transport.connect_failures import blocked_error, find_tls_failure, tls_error
from minillmlib.transport.default import shared_engine
from minillmlib.transport.guard import NetworkForbiddenError, check_host

URL = "https://x.example:8443/v1?key=secret"
SERVER = "https://x.example:8443"
REQUEST = HttpRequest(url=URL, headers=(), body=b"{}")


def certificate_failure(code: int, message: str) -> ssl.SSLCertVerificationError:
    failure = ssl.SSLCertVerificationError(1, "certificate verify failed")
    failure.verify_code, failure.verify_message = code, message
    return failure


def handshake_failure(reason: str | None, *arguments: object) -> ssl.SSLError:
    failure = ssl.SSLError(*arguments)
    failure.reason = reason
    return failure


TRUST = (
    "if an authority of your own signs it, as that of a company or its proxy, name the file of "
    "that authority in the environment variable SSL_CERT_FILE"
)
CLOCK = "the certificate or the clock of this machine is out of date"
FAILURES = [
    (certificate_failure(18, "self-signed certificate."), f"self-signed certificate ({TRUST})"),
    (certificate_failure(62, "host mismatch"), "host mismatch (is the address right?)"),
    (certificate_failure(63, "mail mismatch"), "mail mismatch (is the address right?)"),
    (certificate_failure(64, "address mismatch"), "address mismatch (is the address right?)"),
    (certificate_failure(9, "not yet valid"), f"not yet valid ({CLOCK})"),
    (certificate_failure(10, "expired"), f"expired ({CLOCK})"),
    (certificate_failure(11, ""), f"it cannot be verified ({TRUST})"),
    (ssl.SSLCertVerificationError(1, "x"), f"it cannot be verified ({TRUST})"),
]


@pytest.mark.parametrize(("failure", "words"), FAILURES)
def test_a_certificate_that_is_not_accepted_says_why_and_what_to_do(failure, words):
    error = tls_error(failure, URL)
    assert type(error) is TlsError
    assert str(error) == f"the certificate of {SERVER} is not accepted: {words}"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (handshake_failure("WRONG_VERSION_NUMBER", 1, "x"), "wrong version number"),
        (handshake_failure(None, 1, "Some_Words"), "Some_Words"),
        (handshake_failure("", 1, "Some_Words"), "Some_Words"),
        (handshake_failure(None), "SSLError"),
        (ssl.SSLEOFError(8, "EOF occurred"), "EOF occurred"),  # of a mock: it has no reason
    ],
)
def test_a_handshake_that_failed_says_why(failure, words):
    begin = "TLS failed (is it an http address?) at"
    assert str(tls_error(failure, URL)) == f"{begin} {SERVER} ({words})"
    through = tls_error(failure, URL, "http://p.example:1")
    assert str(through) == f"{begin} {SERVER} through the proxy http://p.example:1 ({words})"


def linked(*errors: BaseException, by: str) -> BaseException:
    for outer, inner in itertools.pairwise(errors):
        setattr(outer, by, inner)
    return errors[0]


@pytest.mark.parametrize("by", ["certificate_error", "os_error"])
@pytest.mark.parametrize("chain", ["__cause__", "__context__"])
def test_a_failure_of_tls_is_found_within_other_errors(by, chain):
    failure = ssl.SSLError(1, "x")
    holder = OSError("outer")
    setattr(holder, by, failure)
    assert find_tls_failure(failure) is failure
    assert find_tls_failure(holder) is failure
    assert find_tls_failure(linked(ValueError(), KeyError(), failure, by=chain)) is failure
    assert find_tls_failure(linked(ValueError(), holder, by=chain)) is failure
    assert find_tls_failure(linked(ValueError(), OSError(), by=chain)) is None
    assert find_tls_failure(None) is None


@pytest.mark.parametrize("kind", [RuntimeError, type("SocketBlockedError", (RuntimeError,), {})])
def test_a_guard_that_blocks_is_named(kind):
    error = blocked_error(kind("not here"), URL)
    assert (type(error), error.is_retryable) == (ConnectError, False)
    assert str(error) == (
        f"this program blocked the connection to {SERVER} ({kind.__name__}: not here); allow this "
        "address, or give the generator a ScriptedTransport"
    )


@pytest.mark.parametrize(
    "error",
    [OSError("not here"), RuntimeError("Event loop stopped"), RuntimeError("after Shutdown"),
     RuntimeError("the session is CLOSED")],
)  # fmt: skip
def test_other_errors_are_no_guard(error):
    assert blocked_error(error, URL) is None


@pytest.mark.parametrize(
    ("status", "is_retryable"), [(403, False), (407, False), (499, False), (500, True), (502, True)]
)
def test_a_proxy_that_refuses_is_named_with_what_to_do(status, is_retryable):
    hint = "; give its user name and password, as http://user:password@host:port, in with_proxy or in the environment"
    for via, named in (("http://p.example:1", "http://p.example:1 "), ("", "")):
        error = refuse_by_proxy(status, URL, via)
        assert (type(error), error.is_retryable) == (ConnectError, is_retryable)
        assert str(error) == (
            f"the proxy {named}refused to connect to {SERVER} (status {status})"
            f"{hint if status == 407 else ''}"
        )


def test_a_server_is_named_by_its_address_alone():
    assert origin_of("http://x.example/a/b?c#d") == "http://x.example"
    assert origin_of(URL) == SERVER


class NoTransport:
    pass


@pytest.mark.parametrize("given", [5, "x", NoTransport(), ScriptedTransport, "x" * 100])
def test_what_is_no_transport_is_refused(given):
    with pytest.raises(InvalidParameterError) as caught:
        check_transport(given)
    assert str(caught.value) == (
        f"a transport is an object with an async method send(request), not {given!r:.80}"
    )


def test_a_transport_or_none_is_taken():
    check_transport(None)
    check_transport(ScriptedTransport())


# The errors of httpx2

OVER = "the httpx2 client is closed or belongs to another event loop; nothing can be sent to"
COULD_NOT = "could not connect (is the address right, and is the server up?) to"
SENT = [
    # What httpx2 raises, our error, its text, and whether anything may have been sent.
    (httpx2.ConnectError("refused"), ConnectError, f"{COULD_NOT} {SERVER} (refused)", False),
    (httpx2.ConnectError(""), ConnectError, f"{COULD_NOT} {SERVER}", False),
    (httpx2.ConnectTimeout("x"), ConnectError, f"{COULD_NOT} {SERVER}", False),
    (httpx2.PoolTimeout("x"), ConnectError, f"{COULD_NOT} {SERVER}", False),
    (httpx2.ProxyError("x"), ConnectError, f"the proxy did not connect to {SERVER}", False),
    (httpx2.ProxyError("503 busy"), ConnectError,
     f"the proxy refused to connect to {SERVER} (status 503)", False),
    (httpx2.ProxyError("600 busy"), ConnectError, f"the proxy did not connect to {SERVER}", False),
    (httpx2.RemoteProtocolError("bad line"), ProtocolError,
     f"not a valid HTTP response from {SERVER}", True),
    (httpx2.RemoteProtocolError("Server disconnected without a word"), ReadError,
     f"the connection broke: {SERVER}", True),
    (httpx2.RemoteProtocolError("peer closed connection early"), ReadError,
     f"the connection broke: {SERVER}", True),
    (httpx2.LocalProtocolError("x"), InvalidParameterError,
     f"not a usable address or header for {SERVER}", False),
    (httpx2.UnsupportedProtocol("x"), InvalidParameterError,
     f"not a usable address or header for {SERVER}", False),
    (httpx2.InvalidURL("x"), InvalidParameterError,
     f"not a usable address or header for {SERVER}", False),
    (ValueError("x"), InvalidParameterError, f"not a usable address or header for {SERVER}",
     False),
    (RuntimeError("event loop is closed"), ReadError, f"{OVER} {SERVER}", True),
    (RuntimeError("no network"), ConnectError, str(blocked_error(RuntimeError("no network"), URL)),
     False),
    (httpx2.ReadError("x"), ReadError, f"the connection broke: {SERVER}", True),
    (OSError("x"), ReadError, f"the connection broke: {SERVER}", True),
    (ExceptionGroup("several", [ExceptionGroup("", [httpx2.ConnectError("a")]), OSError()]),
     ConnectError, f"{COULD_NOT} {SERVER} (a)", False),
    (ImportError("no socksio"), MissingExtraError, "this proxy cannot be used (no socksio)", False),
]  # fmt: skip


def raised(error: BaseException, request: HttpRequest = REQUEST) -> BaseException:
    def refuse(_request):
        raise error

    async def send() -> BaseException:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)) as client:
            try:
                await HttpxTransport(client).send(request)
            except BaseException as caught:  # noqa: BLE001 - it is what is asked for
                return caught
        raise AssertionError("nothing was raised")

    return asyncio.run(send())


@pytest.mark.parametrize(("error", "kind", "text", "was_sent"), SENT)
def test_an_error_of_httpx2_is_one_of_ours(error, kind, text, was_sent):
    caught = raised(error)
    assert (type(caught), str(caught)) == (kind, text)
    # A ConnectError says so by its kind, any other by this.
    assert vars(caught).get("was_sent", not isinstance(caught, ConnectError)) is was_sent


def test_a_failure_of_tls_inside_an_error_of_httpx2_is_one_of_tls():
    error = httpx2.ConnectError("x")
    error.__cause__ = certificate_failure(10, "expired")
    caught = raised(error)
    assert type(caught) is TlsError
    assert str(caught) == f"the certificate of {SERVER} is not accepted: expired ({CLOCK})"


def test_other_errors_leave_httpx2_as_they_are():
    class Odd(BaseException):
        pass

    for error in (Odd("x"), KeyError("x"), RecursionError("x")):
        assert raised(error) is error


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_an_answer_through_httpx2_comes_as_it_is(status):
    seen = []

    def answer(request):
        seen.append(request)
        return httpx2.Response(status, headers={"X-A": "b", "Location": "/else"}, content=b"abc")

    async def send():
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
            transport = HttpxTransport(client)
            assert repr(transport) == "HttpxTransport(...)"
            request = HttpRequest(url=URL, headers=(("X-C", "d"),), body=b"{}", method="PUT")
            response = await transport.send(request)
            pieces = [await response.read(), await response.read(), await response.read()]
            response.close()
            return response.status, dict(response.headers), pieces

    code, headers, pieces = asyncio.run(send())
    assert (code, headers["x-a"], pieces) == (status, "b", [b"abc", b"", b""])
    (request,) = seen
    assert (request.method, str(request.url), request.content) == ("PUT", URL, b"{}")
    assert request.headers["x-c"] == "d"


def test_a_proxy_of_the_client_that_wants_a_password_was_not_sent():
    async def send() -> ConnectError:
        mock = httpx2.MockTransport(lambda _: httpx2.Response(407))
        async with httpx2.AsyncClient(transport=mock) as client:
            with pytest.raises(ConnectError) as caught:
                await HttpxTransport(client).send(REQUEST)
        return caught.value

    error = asyncio.run(send())
    assert str(error) == str(refuse_by_proxy(407, URL, ""))


class Reporting(httpx2.AsyncBaseTransport):
    """Reports, as real ones do, that it sends a request, and then answers or fails."""

    def __init__(self, outcome):
        self.outcome = outcome

    async def handle_async_request(self, request):
        trace = request.extensions["trace"]
        for event in ("connection.connect_tcp.started", "http11.send_request_headers.started"):
            await trace(event, {})
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "kind", "was_sent"),
    [(httpx2.Response(407), ConnectError, False), (httpx2.ReadError("x"), ReadError, True),
     (httpx2.RemoteProtocolError("x"), ProtocolError, True)],
)  # fmt: skip
def test_what_httpx2_reports_says_whether_a_request_was_sent(outcome, kind, was_sent):
    async def send() -> MiniLLMError:
        async with httpx2.AsyncClient(transport=Reporting(outcome)) as client:
            with pytest.raises(MiniLLMError) as caught:
                await HttpxTransport(client).send(REQUEST)
        return caught.value

    error = asyncio.run(send())
    assert type(error) is kind
    assert vars(error).get("was_sent", True) is was_sent


@pytest.mark.parametrize("client", [5, None, httpx2.AsyncClient])
def test_only_a_client_of_httpx2_is_taken(client):
    with pytest.raises(InvalidParameterError) as caught:
        HttpxTransport(client)
    assert str(caught.value) == (
        f"HttpxTransport takes an httpx2.AsyncClient, not {type(client).__name__}"
    )


# The errors of aiohttp

PLACE = ConnectionKey("x.example", 8443, True, True, None, None, None)
REFUSED = ConnectionRefusedError(111, "Connect call failed")
UNKNOWN = socket.gaierror(-2, "Name or service not known")
CERTIFICATE = certificate_failure(10, "expired")
CONNECTOR = f"could not connect (is the address right, and is the server up?) to {SERVER}"
BROKE = f"the connection broke: {SERVER}"
OF_AIOHTTP = [
    (aiohttp.ClientConnectorError(PLACE, REFUSED), ConnectError,
     f"{CONNECTOR} ({os.strerror(111)})"),
    (aiohttp.ClientConnectorError(PLACE, UNKNOWN), ConnectError,
     f"{CONNECTOR} (Name or service not known)"),
    (aiohttp.ClientConnectorError(PLACE, OSError("odd")), ConnectError, CONNECTOR),
    (aiohttp.ClientConnectorError(PLACE, OSError(0, "odd words")), ConnectError,
     f"{CONNECTOR} (odd words)"),
    (aiohttp.ClientConnectorCertificateError(PLACE, CERTIFICATE), TlsError,
     f"the certificate of {SERVER} is not accepted: expired ({CLOCK})"),
    (aiohttp.ClientConnectorSSLError(PLACE, handshake_failure("BAD_THING", 1, "x")), TlsError,
     f"TLS failed (is it an http address?) at {SERVER} (bad thing)"),
    (handshake_failure("BAD_THING", 1, "x"), ReadError, f"{BROKE} (bad thing)"),
    (aiohttp.ConnectionTimeoutError(), ConnectError, "no connection within 10 s (is the address "
     f"right, and is the server up?) to {SERVER}"),
    (aiohttp.InvalidURL("x"), InvalidParameterError, f"not a usable address: {SERVER}"),
    (aiohttp.ServerDisconnectedError(), ReadError,
     f"the connection closed without a response: {SERVER}"),
    (aiohttp.ClientPayloadError(), ReadError,
     f"the connection closed before the response ended: {SERVER}"),
    (aiohttp.ClientError(), ReadError, BROKE),
    (ConnectionResetError(104, "x"), ReadError, f"{BROKE} ({os.strerror(104)})"),
    (OSError("x"), ReadError, BROKE),
    (ValueError("x"), InvalidParameterError, f"not a usable address or header for {SERVER}"),
    (RuntimeError("the loop was closed"), ReadError,
     f"the event loop is shutting down; nothing can be sent to {SERVER}"),
    (RuntimeError("no network"), ConnectError, str(blocked_error(RuntimeError("no network"), URL))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "text"), OF_AIOHTTP)
async def test_an_error_of_aiohttp_is_one_of_ours(monkeypatch, error, kind, text):
    async def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "_request", fail)
    with pytest.raises(MiniLLMError) as caught:
        await shared_engine().send(REQUEST)
    assert (type(caught.value), str(caught.value)) == (kind, text)
    assert caught.value.__cause__ is None


# The guard of the engines


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("localhost", True), ("LOCALHOST", True), ("localhost.", True), ("a.localhost", True),
     ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("128.0.0.1", False),
     ("::2", False), ("x.example", False), ("localhost.example", False), ("mylocalhost", False),
     ("", False), (None, False)],
)  # fmt: skip
def test_a_guard_lets_this_machine_pass_or_nobody(host, is_here):
    with forbid_network():
        if is_here:
            check_host(host)
        else:
            with pytest.raises(NetworkForbiddenError, match="^the network is forbidden$"):
                check_host(host)
    with forbid_network(allow_loopback=False):
        words = re.escape(f"the network is forbidden, also to {host or ''}")
        with pytest.raises(NetworkForbiddenError, match=f"^{words}$"):
            check_host(host)
    check_host(host)


def test_the_guard_before_is_back_when_one_ends():
    with forbid_network():
        with pytest.raises(ZeroDivisionError), forbid_network(allow_loopback=False):
            raise ZeroDivisionError
        check_host("localhost")
        with pytest.raises(NetworkForbiddenError):
            check_host("x.example")
    check_host("x.example")
