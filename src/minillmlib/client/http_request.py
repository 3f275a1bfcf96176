"""A call becomes an HTTP request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.redaction import Redactor
from minillmlib.auth.secret import Auth, Secret, header_text_problem, is_header_name
from minillmlib.client.prefix_cache import Turns
from minillmlib.client.prepare import Call
from minillmlib.errors import InvalidParameterError, MiniLLMError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonObject, encode_json
from minillmlib.transport.base import HttpRequest
from minillmlib.types.messages import SYSTEM
from minillmlib.types.responses import RequestReport
from minillmlib.version import __version__

__all__ = ["Encoded", "body_of", "encode", "encode_query"]

USER_AGENT = f"minillmlib/{__version__}"
SECRET_WORDS = ("authorization", "key", "token", "secret", "password", "cookie")
LOOPBACK = re.compile(r"127(?:\.\d{1,3}){3}")


class Encoded(msgspec.Struct, frozen=True):
    """A request, the credential it carries, and the receipt for what it says.

    `redactor` cuts all its secrets out of what the server answers.
    """

    request: HttpRequest
    auth: Auth
    redactor: Redactor
    request_report: RequestReport


def encode(call: Call) -> Encoded:
    """The request for `call`.

    The body comes first, so that a parameter the wire cannot carry is reported even where no
    credential is set, and no secret is near when it fails.
    """
    generator = call.generator
    body = _continued_body(call) or body_of(call)
    data = encode_json(body)
    auth = generator.credential.resolve()
    url = generator.provider.request_url(generator.base_url, generator.model, stream=call.stream)
    others = _secrets_in(generator) if generator.headers else []
    if auth.secret() is not None or others:
        _check_way(generator, url)
    request = HttpRequest(url=url, headers=_headers(call, auth), body=data)
    request = _finalize(generator, request, auth)
    return Encoded(request, auth, auth.redactor(*others), _receipt(call, body))


def body_of(call: Call) -> JsonObject:
    """The JSON body of `call`."""
    generator = call.generator
    try:
        return generator.provider.build_request(
            generator.model,
            call.messages,
            call.settings.params,
            stream=call.stream,
            include_usage=call.wants_usage,
        )
    except MiniLLMError:
        raise
    except Exception as error:  # the provider may be the caller's own
        raise InvalidParameterError(
            f"the provider could not build the request ({type(error).__name__}: {error})"
        ) from error


def _continued_body(call: Call) -> JsonObject | None:
    """The body of a long conversation, in which only the new turns are translated and written.

    None if it must be made as a whole: unless every message was one turn of the wire.
    """
    past, messages, generator = call.past, call.messages, call.generator
    if past is None:
        return None
    before = past.turns
    head = messages[:1] if messages[0].role is SYSTEM else ()  # some wires have it elsewhere
    new = messages[len(head) :] if before is None else messages[call.known :]
    if any(map(attrgetter("cache_ttl"), (*head, *new))):  # only so many can be sent
        return None
    body = body_of(msgspec.structs.replace(call, messages=(*head, *new), past=None))
    turns = body["messages"]
    if len(turns) not in (len(new), len(head) + len(new)):
        return None
    written = []
    if before is not None:
        turns = turns[-len(new) :]
        if turns[0]["role"] == before.last_role:  # they might be joined
            return None
        written.append(before.data)
    *kept, last = turns
    if kept:
        written.append(encode_json(kept)[1:-1])
        past.keep(
            Turns(
                count=len(messages) - 1,
                provider=generator.provider,
                origin=call.origin,
                data=b",".join(written),
                last_role=kept[-1]["role"],
            )
        )
    body["messages"] = msgspec.Raw(b"[%b]" % b",".join([*written, encode_json(last)]))
    return body


def _secrets_in(generator: GeneratorInfo) -> list[Secret]:
    """The values of headers that the caller gave and whose names say that they are secrets."""
    return [
        Secret(value.removeprefix("Bearer "), f"the header {name}")
        for name, value in generator.headers
        if value.strip() and any(word in name.lower() for word in SECRET_WORDS)
    ]


def encode_query(call: Call, url: str) -> HttpRequest:
    """A question to the generator's server about a request of before."""
    auth = call.generator.credential.resolve()
    if auth.secret() is not None:
        _check_way(call.generator, url)
    return HttpRequest(url=url, headers=_headers(call, auth), body=b"", method="GET")


def _check_way(generator: GeneratorInfo, url: str) -> None:
    """A secret goes to the generator's own server, and over a network only encrypted."""
    problem = _way_problem(url, generator.base_url, allows_http=generator.allow_http)
    if problem is not None:
        raise InvalidParameterError(problem)


@lru_cache(maxsize=64)
def _way_problem(url: str, base_url: str, *, allows_http: bool) -> str | None:
    target, base = urlsplit(url), urlsplit(base_url)
    if (target.scheme, target.netloc) != (base.scheme, base.netloc):
        return (
            f"the provider leads to {target.scheme}://{target.netloc}, but the credential is for "
            f"{base.scheme}://{base.netloc}; set base_url to the server that is meant"
        )
    if target.scheme != "https" and not allows_http and not _is_loopback(target.hostname):
        return (
            f"the key would go to {target.netloc} unencrypted; use https, or, if the network "
            "between is trusted, replace(allow_http=True)"
        )
    return None


def _is_loopback(host: str | None) -> bool:
    name = (host or "").lower()
    return (
        name in ("localhost", "::1")
        or name.endswith(".localhost")
        or bool(LOOPBACK.fullmatch(name))
    )


def _receipt(call: Call, body: JsonObject) -> RequestReport:
    generator = call.generator
    messages = call.messages[call.known :]
    capabilities = generator.provider.capabilities
    omitted = capabilities.omitted(generator.model, messages, call.settings.params)
    return RequestReport(sent=tuple(body), omitted={**omitted, **call.omitted})


def _headers(call: Call, auth: Auth) -> tuple[tuple[str, str], ...]:
    """All headers; of two with one name the later wins, so the caller's own come last."""
    chosen: dict[str, tuple[str, str]] = {}
    try:
        problem = _collect(chosen, call, auth)
    except Exception as error:  # noqa: BLE001 - the provider may be the caller's own
        problem = f"the provider could not name its headers ({type(error).__name__})"
    if problem is not None:
        chosen.clear()  # a traceback may show what a frame holds
        raise InvalidParameterError(problem)
    return tuple(chosen.values())


# No compression: a small answer could grow without bound, and text streams gain little.
_FOR_A_WHOLE = {
    "content-type": ("Content-Type", "application/json"),
    "accept": ("Accept", "application/json"),
    "accept-encoding": ("Accept-Encoding", "identity"),
    "user-agent": ("User-Agent", USER_AGENT),
}


def _attribution_headers(generator: GeneratorInfo) -> Iterator[tuple[str, str]]:
    capabilities = generator.provider.capabilities
    for name, value in (
        (capabilities.app_url_header, generator.app_url),
        (capabilities.app_title_header, generator.app_title),
    ):
        if name is not None and value is not None:
            yield name, value


def _finalize(generator: GeneratorInfo, request: HttpRequest, auth: Auth) -> HttpRequest:
    """Return the request as the provider wants it sent; a new address is checked like the first."""
    url, problem = request.url, None
    try:
        request = generator.provider.finalize(request, auth)
    except Exception as error:  # noqa: BLE001 - the provider may be the caller's own
        problem = f"the provider could not finalize the request ({type(error).__name__})"
    if problem is not None:
        raise InvalidParameterError(problem)
    if request.url != url:
        _check_way(generator, request.url)
    return request


def _collect(chosen: dict[str, tuple[str, str]], call: Call, auth: Auth) -> str | None:
    """Fills `chosen`, by name in lower case; gives what is wrong instead of raising it."""
    generator, provider = call.generator, call.generator.provider
    chosen.update(_FOR_A_WHOLE)
    if call.stream:
        chosen["accept"] = ("Accept", provider.capabilities.stream_accept)
    for name, value in (
        *_attribution_headers(generator),
        *provider.auth_headers(auth),
        *generator.headers,
    ):
        if not isinstance(value, str):
            return f"the header {name} is not a string"
        if not is_header_name(name):
            return f"{name!r} is not a valid HTTP header name"
        problem = header_text_problem(value, f"the header {name}")
        if problem is not None:
            return problem
        key = name.lower()
        joins = key in chosen and key in provider.capabilities.mergeable_headers
        chosen[key] = (name, f"{chosen[key][1]},{value}" if joins else value)
    return None
