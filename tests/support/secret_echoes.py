"""How a secret is given, written and repeated: three tables, for calls in memory.

Use it with `SINKS` of `secret_sinks`; the ways over real sockets are in `secret_paths`.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote

from minillmlib import GeneratorInfo, GenericProvider, NodeCompletionParameters
from minillmlib.testing import ScriptedReply

__all__ = ["FORMS", "GIVEN", "KEY", "LOGIN", "PASSWORD", "PLACES", "USER", "Reply"]

KEY = "sk-proj-Ab12_Cd34-Ef56Gh78"
USER, PASSWORD = "carol@own.example", "pr0xy-Pass_w0rd"
LOGIN = f"{USER}:{PASSWORD}"
BASIC = base64.b64encode(LOGIN.encode()).decode()
PROXY = f"http://{quote(USER)}:{quote(PASSWORD)}@127.0.0.1:3128"


class MintsTokens(GenericProvider):
    """Sends a token that it made itself."""

    def auth_headers(self, auth):
        return [("X-Session-Token", KEY)]


def header(name: str, value: str) -> Callable[[GeneratorInfo], GeneratorInfo]:
    return lambda generator: generator.with_header(name, value)


# How the secret comes to the generator, and what of it a server may repeat.
GIVEN: dict[str, tuple[Callable[[GeneratorInfo], GeneratorInfo], tuple[str, ...]]] = {
    "api key": (lambda g: g.with_api_key(KEY), (KEY,)),
    "bearer token": (lambda g: g.with_bearer_token(KEY), (KEY, f"Bearer {KEY}")),
    "bearer in lower case": (header("Authorization", f"bearer {KEY}"), (KEY,)),
    "TOKEN": (header("Authorization", f"TOKEN  {KEY}"), (KEY,)),
    "a scheme of its own": (header("X-Auth-Token", f"Api-Key.v2 {KEY}"), (KEY,)),
    "Basic": (header("Authorization", f"Basic {BASIC}"), (BASIC, LOGIN, USER, PASSWORD)),
    "basic, not encoded": (header("Authorization", f"basic {LOGIN}"), (LOGIN, PASSWORD)),
    "cookies": (header("Cookie", f'a=b; session={KEY}; theme="{PASSWORD}"'), (KEY, PASSWORD)),
    "parameters": (
        header("Authorization", f'Digest username="{USER}", response="{KEY}", nc=1'), (KEY, USER),
    ),
    "key=value": (header("X-Api-Key", f"id=7&key={KEY}"), (KEY,)),
    "a proxy": (lambda g: g.with_proxy(PROXY), (PASSWORD, LOGIN, BASIC)),
    "a token of the provider": (lambda g: g.with_provider(MintsTokens()), (KEY,)),
}  # fmt: skip


def each(form: Callable[[int, str], str]) -> Callable[[str], str]:
    return lambda secret: "".join(form(number, char) for number, char in enumerate(secret))


def coded(template: str) -> Callable[[str], str]:
    return each(lambda _, char: template.format(ord(char)))


def shifted(before: bytes) -> Callable[[str], str]:
    return lambda secret: base64.b64encode(before + secret.encode() + b";ask").decode()


def in_turn(secret: str) -> str:
    """Each character in another form."""
    forms = ("{0}", "%{1:02X}", "\\u{1:04x}", "&#{1};", "\\x{1:02x}", "&#x{1:X};", "%{1:02x}")
    return each(lambda n, char: forms[n % len(forms)].format(char, ord(char)))(secret)


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "% of signs": lambda secret: quote(secret, safe="").replace("-", "%2D").replace("_", "%5F"),
    "% of all": coded("%{:02X}"),
    "% in lower case": coded("%{:02x}"),
    "% twice": coded("%25{:02x}"),
    "\\u of all": coded("\\u{:04x}"),
    "\\u in JSON": coded("\\\\u{:04X}"),
    "\\u{} of all": coded("\\u{{{:x}}}"),
    "\\x of all": coded("\\x{:02x}"),
    "octal": coded("\\{:03o}"),
    "decimal entities": coded("&#{};"),
    "hexadecimal entities": coded("&#x{:X};"),
    "padded entities": coded("&#{:07d};"),
    "entities of entities": coded("&amp;#{};"),
    "named entities": lambda secret: (
        html.escape(secret).replace("_", "&lowbar;").replace("@", "&commat;")
    ),
    "in turn": in_turn,
    "in turn, in JSON": lambda secret: json.dumps(in_turn(secret))[1:-1],
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "hex with colons": lambda secret: secret.encode().hex(":"),
    "base64": shifted(b""),
    "base64, shifted by one": shifted(b"k"),
    "base64, shifted by two": shifted(b"k="),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "base64 in short lines": lambda secret: "\r\n".join(shifted(b"k")(secret)[n:n + 7]
                                                        for n in range(0, 90, 7)),
    "base64 in %": lambda secret: quote(shifted(b"")(secret) + "==", safe=""),
}  # fmt: skip


# What the server answers, whether streamed, and with which settings.
Reply = tuple[ScriptedReply, bool, NodeCompletionParameters]
ONCE = NodeCompletionParameters(retry=0)
BAD = {"error": {"message": "bad"}}


def fails(status: int, body: object, **headers: str) -> Reply:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content-type": "application/json", **headers}
    return ScriptedReply(pieces=(encoded,), status=status, headers=kind), False, ONCE


def streams(*values: object, breaks_off: bool = True) -> Reply:
    pieces = [b"data: %b\n\n" % json.dumps(value).encode() for value in values]
    return ScriptedReply.events(*pieces, breaks_off=breaks_off), True, ONCE


def delta(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields}]}


def whole(content: str | None = "", **fields: object) -> Reply:
    choice = {"index": 0, "message": {"content": content}, "finish_reason": "stop"}
    settings = ONCE.replace(crash_on_empty_response=True, crash_on_refusal=True)
    return ScriptedReply.json({"id": "1", "choices": [choice], **fields}), False, settings


def pieces(text: str) -> list[object]:
    return [delta(content=text[start : start + 5]) for start in range(0, len(text), 5)]


PLACES: dict[str, Callable[[str], Reply]] = {
    "the message": lambda s: fails(401, {"error": {"message": f"bad key: {s}, sorry"}}),
    "the code": lambda s: fails(403, {"error": {"message": "no", "code": s, "type": s}}),
    "the request id of the body": lambda s: fails(500, {**BAD, "request_id": s}),
    "the request id": lambda s: fails(429, BAD, **{"x-request-id": f"a {s}"}),
    "the generation id": lambda s: fails(400, BAD, **{"x-generation-id": s}),
    "a page": lambda s: fails(502, f"<html><title>No {s}</title>".encode()),
    "where it redirects": lambda s: fails(307, b"", location=f"https://own.example/?k={s}"),
    "what a provider upstream said": lambda s: fails(
        400, {"error": {"message": "no", "metadata": {"raw": s, "provider_name": s}}}
    ),
    "a success with an error": lambda s: fails(200, {"error": {"message": s}, "model": s}),
    "a success that is none": lambda s: fails(200, {"id": [s], "model": {s: s}}),
    "the id of a stream": lambda s: streams({"id": s, **delta(content="a")}, BAD),
    "the model of a stream": lambda s: streams({"model": s, **delta(content="a")}, BAD),
    "the counts of a stream": lambda s: streams(
        {"usage": {"prompt_tokens": s, s: [{"a": s}]}, **delta(content="a")}, BAD
    ),
    "the text of a stream": lambda s: streams(*pieces(f"a {s} b"), BAD),
    "the reasoning of a stream": lambda s: streams(delta(reasoning=s), BAD),
    "the refusal of a stream": lambda s: streams(delta(refusal=s), BAD),
    "the calls of a stream": lambda s: streams(
        delta(tool_calls=[{"index": 0, "id": s, "function": {"name": s, "arguments": s}}]), BAD
    ),
    "the extra of a stream": lambda s: streams({"provider": s, **delta(content="a")}, BAD),
    "a stream that breaks off": lambda s: streams({"id": s, **delta(content=f"a {s}")}),
    "a stream without an end": lambda s: streams(
        {"id": s, **delta(content=f"a {s}")}, breaks_off=False
    ),
    "an answer that is rejected": lambda s: whole(
        id=s, model=s, provider=s, usage={"prompt_tokens": s}
    ),
    "words that are rejected": lambda s: whole(f"no JSON but {s}"),
}
