"""What a user reads when a connection is refused by a certificate, by TLS or by a guard."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess

import httpx2
import pytest
from server import Server

from minillmlib import (
    ChatNode,
    ConnectError,
    GeneratorInfo,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    TlsError,
)
from minillmlib.httpx import HttpxTransport
from minillmlib.transport.aiohttp import AiohttpTransport

ROOT = ChatNode.root("s")
QUICK = NodeCompletionParameters(retry=2, back_off_time=0)


@contextlib.asynccontextmanager
async def transport_of(engine):
    if engine == "aiohttp":
        yield AiohttpTransport()
    else:
        async with httpx2.AsyncClient() as client:
            yield HttpxTransport(client)


async def failure(engine: str, base_url: str, mode: str = "whole") -> ConnectError:
    async with transport_of(engine) as transport:
        generator = GeneratorInfo.custom("t", base_url, "m").with_transport(transport)
        with pytest.raises((ConnectError, MaxRetriesExceededError)) as caught:
            if mode == "whole":
                await ROOT.chat("u", generator, QUICK)
            else:
                await anext(ROOT.chat_streaming("u", generator, QUICK))
    error = caught.value
    assert isinstance(error, ConnectError), "it is final"
    assert len(error.attempts) == 1
    assert not error.was_sent
    return error


EXPIRED = """
[ca]
default_ca = it
[it]
dir = {folder}
database = $dir/index
serial = $dir/serial
new_certs_dir = $dir
default_md = sha256
policy = names
x509_extensions = names_of_it
[names]
commonName = supplied
[names_of_it]
subjectAltName = IP:127.0.0.1
"""


def openssl(*arguments: object) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed, so there is no certificate")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)


def certify(folder, name: str, *, is_expired: bool = False) -> ssl.SSLContext:
    """A server's context with a certificate that nobody but itself has signed."""
    certificate, key, request = (folder / f"{it}.pem" for it in ("certificate", "key", "request"))
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key)
    if is_expired:
        (folder / "ca").write_text(EXPIRED.format(folder=folder))
        (folder / "index").touch()
        (folder / "serial").write_text("01")
        openssl("req", "-new", *new, "-subj", "/CN=localhost", "-out", request)
        dates = ("-startdate", "200101000000Z", "-enddate", "200102000000Z")
        openssl("ca", "-selfsign", "-batch", "-config", folder / "ca", *dates, "-keyfile", key,
                "-in", request, "-out", certificate)  # fmt: skip
    else:
        openssl("req", "-x509", *new, "-subj", "/CN=localhost", "-addext",
                f"subjectAltName={name}", "-out", certificate)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def no_answer(exchange):
    raise AssertionError("nothing may be sent")


@pytest.mark.parametrize("mode", ["whole", "streamed"])
@pytest.mark.parametrize("engine", ["aiohttp", "httpx2"])
async def test_a_certificate_of_no_known_authority_is_named_with_the_way_to_trust_it(
    engine, mode, tmp_path
):
    async with Server(no_answer, tls=certify(tmp_path, "IP:127.0.0.1")) as server:
        error = await failure(engine, server.url, mode)
    assert isinstance(error, TlsError)
    assert "self-signed certificate" in str(error) or "self signed certificate" in str(error)
    assert "certificate of https://127.0.0.1:" in str(error)
    assert "SSL_CERT_FILE" in str(error)
    assert "not permitted" not in str(error)
    assert "_ssl.c" not in str(error)


@pytest.mark.parametrize(
    ("name", "is_expired", "words"),
    [("DNS:other.example", False, ("mismatch", "127.0.0.1", "is the address right?")),
     ("IP:127.0.0.1", True, ("expired", "clock of this machine"))],
)  # fmt: skip
async def test_a_trusted_certificate_that_does_not_fit_says_why(name, is_expired, words, tmp_path):
    context = certify(tmp_path, name, is_expired=is_expired)
    trusting = ssl.create_default_context(cafile=tmp_path / "certificate.pem")
    async with (
        Server(no_answer, tls=context) as server,
        httpx2.AsyncClient(verify=trusting) as client,
    ):
        generator = GeneratorInfo.custom("t", server.url, "m")
        with pytest.raises(TlsError) as caught:
            await ROOT.chat("u", generator.with_transport(HttpxTransport(client)), QUICK)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("engine", ["aiohttp", "httpx2"])
async def test_a_server_without_tls_is_told_from_a_bad_certificate(engine):
    async def answer_plainly(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer_plainly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(engine, f"https://127.0.0.1:{port}/v1")
    assert isinstance(error, TlsError)
    assert "is it an http address?" in str(error)
    assert "certificate" not in str(error)
    assert "not permitted" not in str(error)


class SocketBlockedError(RuntimeError):
    """As pytest-socket's, raised in the place of a socket."""


class SocketConnectBlockedError(RuntimeError):
    """As pytest-socket's, raised in the place of a connection."""


def block_sockets(monkeypatch):
    class Guarded(socket.socket):
        def __new__(cls, *_args, **_more):
            raise SocketBlockedError("A test tried to use socket.socket.")

    monkeypatch.setattr(socket, "socket", Guarded)


def block_hosts(monkeypatch):
    def connect(_self, address):
        raise SocketConnectBlockedError(
            f'A test tried to use socket.socket.connect() with host "{address[0]}" (allowed: "").'
        )

    monkeypatch.setattr(socket.socket, "connect", connect)


def block_by_a_bare_error(monkeypatch):
    def connect(_self, _address):
        raise RuntimeError("Network is disabled")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (block_sockets, "SocketBlockedError: A test tried to use socket.socket."),
        (
            block_hosts,
            'SocketConnectBlockedError: A test tried to use socket.socket.connect() with host "127.',
        ),
        (block_by_a_bare_error, "RuntimeError: Network is disabled"),
    ],
)
@pytest.mark.parametrize("mode", ["whole", "streamed"])
@pytest.mark.parametrize("engine", ["aiohttp", "httpx2"])
async def test_a_guard_that_blocks_the_network_is_named_and_its_word_is_final(
    engine, mode, block, words, monkeypatch
):
    block(monkeypatch)
    error = await failure(engine, "http://127.0.0.1:9/v1", mode)
    assert type(error) is ConnectError
    assert words in str(error)
    assert "http://127.0.0.1:9" in str(error)
    assert "event loop" not in str(error)
