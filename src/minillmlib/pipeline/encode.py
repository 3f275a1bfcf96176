"""A call becomes an HTTP request."""

from __future__ import annotations

import msgspec

from minillmlib.pipeline.plan import Call
from minillmlib.transport.contract import HttpRequest
from minillmlib.values.auth import Auth, check_header_name, check_header_text
from minillmlib.values.json import JsonObject, encode_json
from minillmlib.values.responses import Receipt
from minillmlib.version import __version__

__all__ = ["Encoded", "encode"]


class Encoded(msgspec.Struct, frozen=True):
    """A request, the credential it carries, and the receipt for what it says."""

    request: HttpRequest
    auth: Auth
    receipt: Receipt


def encode(call: Call) -> Encoded:
    """The request for `call`.

    The body comes first, so that a parameter the wire cannot carry is reported even where no
    credential is set, and no secret is near when it fails.
    """
    generator = call.generator
    body = generator.provider.build_request(
        generator.model,
        call.messages,
        call.settings.params,
        stream=call.stream,
        include_usage=True,
    )
    data = encode_json(body)
    auth = generator.credential.resolve()
    url = generator.provider.endpoint_url(generator.base_url)
    request = HttpRequest(url=url, headers=_headers(call, auth), body=data)
    return Encoded(request, auth, _receipt(call, body))


def _receipt(call: Call, body: JsonObject) -> Receipt:
    generator = call.generator
    left_out = generator.provider.left_out(generator.model, call.messages, call.settings.params)
    return Receipt(sent=tuple(body), left_out={**left_out, **call.left_out})


def _headers(call: Call, auth: Auth) -> tuple[tuple[str, str], ...]:
    """All headers; of two with one name the later wins, so the caller's own come last."""
    generator = call.generator
    provider = generator.provider
    headers = [
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream" if call.stream else "application/json"),
        # No compression: a small answer could grow without bound, and text streams gain little.
        ("Accept-Encoding", "identity"),
        ("User-Agent", f"minillmlib/{__version__}"),
        *provider.attribution_headers(generator.app_url, generator.app_title),
        *provider.auth_headers(auth),
        *generator.headers,
    ]
    chosen: dict[str, tuple[str, str]] = {}
    for name, value in headers:
        key = check_header_name(name).lower()
        joins = key in chosen and key in provider.list_headers
        whole = f"{chosen[key][1]},{value}" if joins else value
        chosen[key] = (name, check_header_text(whole, f"the header {name}"))
    return tuple(chosen.values())
